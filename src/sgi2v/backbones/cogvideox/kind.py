"""Recognition of CogVideoX's folders, and the model published of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from sgi2v.backbones.cogvideox.outline import CogVideoXOutline, CogVideoXSettings
from sgi2v.backbones.folder import class_in

_NAMES: Final[Mapping[str, str]] = MappingProxyType({"cogvideox-5b-i2v": "THUDM/CogVideoX-5b-I2V"})


class CogVideoXKind:
    """CogVideoX 1.0 image-to-video (arXiv 2408.06072), full size or small."""

    @property
    def kind(self) -> str:
        """Its name."""
        return "cogvideox"

    @property
    def names(self) -> Mapping[str, str]:
        """Short names of published models, with their hub ids."""
        return _NAMES

    def recognises(self, folder: Path) -> bool:
        """True where the denoiser is CogVideoX's."""
        return class_in(folder / "transformer" / "config.json") == "CogVideoXTransformer3DModel"

    def outline(
        self, folder: Path, *, name: str, hub_id: str | None = None, settings: CogVideoXSettings | None = None
    ) -> CogVideoXOutline:
        """The model in a folder; FieldError naming the file when it is incomplete or damaged."""
        return CogVideoXOutline.of(folder, name=name, hub_id=hub_id, settings=settings)

    def settings(self, source: str) -> CogVideoXSettings:
        """The published settings."""
        return CogVideoXSettings()


COGVIDEOX_KIND: Final = CogVideoXKind()

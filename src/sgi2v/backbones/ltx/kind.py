"""Recognition of LTX-Video's folders, and the model published of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from sgi2v.backbones.folder import class_in
from sgi2v.backbones.ltx.outline import LTXOutline, LTXSettings

_NAMES: Final[Mapping[str, str]] = MappingProxyType({"ltx-video": "Lightricks/LTX-Video"})


class LTXKind:
    """LTX-Video 0.9 (arXiv 2501.00103), full size or small."""

    @property
    def kind(self) -> str:
        """Its name."""
        return "ltx"

    @property
    def names(self) -> Mapping[str, str]:
        """Short names of published models, with their hub ids."""
        return _NAMES

    def recognises(self, folder: Path) -> bool:
        """True where the denoiser is LTX-Video's; a folder may name a text-to-video pipeline."""
        return class_in(folder / "transformer" / "config.json") == "LTXVideoTransformer3DModel"

    def outline(
        self, folder: Path, *, name: str, hub_id: str | None = None, settings: LTXSettings | None = None
    ) -> LTXOutline:
        """The model in a folder; FieldError naming the file when it is incomplete or damaged."""
        return LTXOutline.of(folder, name=name, hub_id=hub_id, settings=settings)

    def settings(self, source: str) -> LTXSettings:
        """The published settings."""
        return LTXSettings()


LTX_KIND: Final = LTXKind()

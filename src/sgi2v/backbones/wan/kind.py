"""Recognition of Wan's folders, and the models published of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from sgi2v.backbones.folder import class_in
from sgi2v.backbones.wan.outline import PUBLISHED, WanOutline, WanSettings

_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "wan2.2-i2v-a14b": "Wan-AI/Wan2.2-I2V-A14B-Diffusers",
        "wan2.1-i2v-14b-480p": "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
        "wan2.1-i2v-14b-720p": "Wan-AI/Wan2.1-I2V-14B-720P-Diffusers",
        "wan2.2-ti2v-5b": "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
    }
)


class WanKind:
    """Wan image-to-video (arXiv 2503.20314): 2.2 I2V-A14B, 2.1 I2V-14B, 2.2 TI2V-5B, full size or small."""

    @property
    def kind(self) -> str:
        """Its name."""
        return "wan"

    @property
    def names(self) -> Mapping[str, str]:
        """Short names of published models, with their hub ids."""
        return _NAMES

    def recognises(self, folder: Path) -> bool:
        """True where the denoiser is Wan's; the pipeline's name does not tell, TI2V's folder names another."""
        return class_in(folder / "transformer" / "config.json") == "WanTransformer3DModel"

    def outline(
        self, folder: Path, *, name: str, hub_id: str | None = None, settings: WanSettings | None = None
    ) -> WanOutline:
        """The model in a folder; FieldError naming the file when it is incomplete or damaged."""
        return WanOutline.of(folder, name=name, hub_id=hub_id, settings=settings)

    def settings(self, source: str) -> WanSettings:
        """The published settings of a name or hub id."""
        said = source.lower()
        variant = "ti2v-5b" if "ti2v-5b" in said else "a14b" if "a14b" in said else "i2v-14b"
        settings = PUBLISHED[variant]()
        return settings if "720p" not in said else WanSettings(width=1280, height=720, recommended=settings.recommended)


WAN_KIND: Final = WanKind()

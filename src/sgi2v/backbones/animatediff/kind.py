"""Recognition of AnimateDiff's folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from sgi2v.backbones.animatediff.config import IMAGES, MOTION
from sgi2v.backbones.animatediff.outline import AnimateDiffOutline, AnimateDiffSettings
from sgi2v.backbones.folder import class_in

_NAMES: Final[Mapping[str, str]] = MappingProxyType({})


class AnimateDiffKind:
    """AnimateDiff (Guo et al. 2023, arXiv 2307.04725) on Stable Diffusion 1.5, full size or small."""

    @property
    def kind(self) -> str:
        """Its name."""
        return "animatediff"

    @property
    def names(self) -> Mapping[str, str]:
        """None: no published folder holds all the parts."""
        return _NAMES

    def recognises(self, folder: Path) -> bool:
        """True where the denoiser has motion modules, or is Stable Diffusion's, which others can give it."""
        denoiser = class_in(folder / "unet" / "config.json")
        return denoiser == MOTION or (
            denoiser == IMAGES
            and class_in(folder / "model_index.json") in ("AnimateDiffPipeline", "StableDiffusionPipeline")
        )

    def outline(
        self, folder: Path, *, name: str, hub_id: str | None = None, settings: AnimateDiffSettings | None = None
    ) -> AnimateDiffOutline:
        """The model in a folder; FieldError naming the file when it is incomplete or damaged."""
        return AnimateDiffOutline.of(folder, name=name, hub_id=hub_id, settings=settings)

    def settings(self, source: str) -> AnimateDiffSettings:
        """Image Conductor's published settings."""
        return AnimateDiffSettings()


ANIMATEDIFF_KIND: Final = AnimateDiffKind()

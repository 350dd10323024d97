"""Recognition of Stable Video Diffusion's folders, and the models published of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from sgi2v.backbones.folder import class_in
from sgi2v.backbones.svd.outline import SVDOutline, SVDSettings

_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "svd": "stabilityai/stable-video-diffusion-img2vid",
        "svd-xt": "stabilityai/stable-video-diffusion-img2vid-xt",
    }
)


class SVDKind:
    """Stable Video Diffusion (Blattmann et al. 2023, arXiv 2311.15127), full size or small."""

    @property
    def kind(self) -> str:
        """Its name."""
        return "svd"

    @property
    def names(self) -> Mapping[str, str]:
        """Short names of published models, with their hub ids."""
        return _NAMES

    def recognises(self, folder: Path) -> bool:
        """True where the denoiser is a spatio-temporal U-Net; where that is not said, whether the pipeline is SVD's."""
        denoiser = class_in(folder / "unet" / "config.json")
        if denoiser:
            return denoiser == "UNetSpatioTemporalConditionModel"
        return class_in(folder / "model_index.json") == "StableVideoDiffusionPipeline"

    def outline(
        self, folder: Path, *, name: str, hub_id: str | None = None, settings: SVDSettings | None = None
    ) -> SVDOutline:
        """The model in a folder; FieldError naming the file when it is incomplete or damaged."""
        return SVDOutline.of(folder, name=name, hub_id=hub_id, settings=settings)

    def settings(self, source: str) -> SVDSettings:
        """The published settings, of the long model where the name says so."""
        return SVDSettings(num_frames=25) if source.endswith("-xt") else SVDSettings()


SVD_KIND: Final = SVDKind()

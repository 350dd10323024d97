"""Image Conductor: paths as blurred maps of displacement, of things or of the camera, for weights trained on both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Literal

import numpy as np
from jaxtyping import Float, Float32

from sgi2v.backbones.base import SamplesPicture
from sgi2v.controllers.base import Setup
from sgi2v.controllers.drag_nuwa import displacements
from sgi2v.controllers.trained import Trained
from sgi2v.errors import FieldError
from sgi2v.grid import Grid, Tracks
from sgi2v.lazy import torch
from sgi2v.signals import Conducted

REACH: Final = 49
"""Pixels by which the blur reaches out to every side."""
DEVIATION: Final = 10.0
"""Of the blur, in pixels, whatever the picture's size."""


@dataclass(frozen=True, kw_only=True)
class ImageConductor(Trained):
    """Image Conductor, for its own weights (--adapter FOLDER) beside an AnimateDiff.

    Every motion is one point's path. All are of things, or all of the camera: its weights for the two take turns, and
    are chosen by the motions' kind. Source: Image Conductor (Li et al. 2024, arXiv 2406.15339) and its published code.
    """

    name: ClassVar[str] = "image-conductor"

    def remarks(self, tracks: Tracks, grid: Grid) -> tuple[str, ...]:
        """As of all trained systems; FieldError for things and the camera in one scene."""
        motion_kind(tracks)
        return super().remarks(tracks, grid)

    def signal(self, setup: Setup) -> Conducted:
        """The kind of motion, the flow and the picture; the picture's latents are drawn by the run's own generator."""
        backbone, grid = setup.backbone, setup.grid
        if not isinstance(backbone, SamplesPicture):
            raise FieldError("controller", f"{self.name} steers AnimateDiff, not {backbone.name}", "choose another")
        sparse = displacements(self.paths(setup.tracks, grid).places, grid.height, grid.width)
        return Conducted(
            kind=motion_kind(setup.tracks),
            flow=flow_maps(sparse).to(backbone.device),
            picture=backbone.sample_picture(setup.tracks.image, setup.generator),
        )


def motion_kind(tracks: Tracks) -> Literal["object", "camera"]:
    """The kind that all motions are of; FieldError where they differ."""
    kinds = sorted({track.kind for track in tracks.tracks})
    if len(kinds) > 1:
        raise FieldError(
            "motions", "move things and the camera at once, and Image Conductor has weights for one at a time",
            "make them all of one kind",
        )  # fmt: skip
    return kinds[0] if kinds else "object"


def flow_maps(sparse: Float32[np.ndarray, "g h w 2"]) -> Float[torch.Tensor, "f 2 h w"]:
    """The displacements blurred by a Gaussian of 10 pixels, sum 1, cut at 49, behind one frame of zeros; float32.

    The picture is mirrored outside its border, whose own pixels are not repeated. The kernel is a product of two, so
    it is applied along rows, then columns, in float64 as published.
    """
    offsets = torch.arange(-REACH, REACH + 1, dtype=torch.float64)
    line = torch.exp(-offsets.square() / (2 * DEVIATION**2))
    line = line / line.sum()
    mirrored = np.pad(sparse.astype(np.float64), ((0, 0), (REACH, REACH), (REACH, REACH), (0, 0)), mode="reflect")
    maps = torch.from_numpy(mirrored).permute(0, 3, 1, 2).flatten(0, 1)[:, None]
    maps = torch.nn.functional.conv2d(maps, line[None, None, None, :])
    maps = torch.nn.functional.conv2d(maps, line[None, None, :, None])
    found = maps[:, 0].unflatten(0, (len(sparse), 2)).float()
    return torch.cat([torch.zeros_like(found[:1]), found])

"""ATI: the first frame's features splatted along the tracks into what a model trained for it is given."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from sgi2v.backbones.base import EditsImage
from sgi2v.checks import LARGEST, Bounds
from sgi2v.controllers.base import Controller, Setup, State
from sgi2v.errors import FieldError
from sgi2v.grid import Grid
from sgi2v.lazy import torch
from sgi2v.planning import Uses
from sgi2v.points import Points, points_of

_SHARPNESS = 220.0  # of a point's Gaussian, in squares of half the shorter side
_NEAREST = 2  # points that a cell listens to


@dataclass(frozen=True, kw_only=True)
class ATI(Controller[State]):
    """ATI, for Wan 2.1 weights that were trained for it: features of the picture splatted along points' tracks.

    No gradients: it costs what plain sampling costs. Source: ATI (bytedance/ATI, wan/modules/motion_patch.py), whose
    own track files of 121 frames at 24 a second are not needed: the scene's paths are asked at the clip's frames.
    """

    name: ClassVar[str] = "ati"

    spacing: int = 48
    """Pixels between the points that are put on a thing, both ways; a point reaches about 30 on 480p."""
    any_weights: bool = False
    """Run with weights that were not trained for it, or do not say so."""

    BOUNDS: ClassVar[Bounds] = MappingProxyType({"spacing": (1, LARGEST)})

    def __post_init__(self) -> None:
        if self.spacing < 1:
            raise FieldError("controller.spacing", f"must be at least 1 pixel, got {self.spacing}")

    def uses(self) -> Uses:
        """Motions with their masks, and weights of its own."""
        return Uses(motions=True, masks=True, image=True, weights=() if self.any_weights else (self.name,))

    def prepare(self, setup: Setup) -> State:
        """The run's condition with the features splatted, for both branches of guidance, as in the release."""
        backbone, grid = setup.backbone, setup.grid
        assert isinstance(backbone, EditsImage), "the outline's check has seen to it"
        points = points_of(setup.tracks, grid, self.spacing)

        def edit(latents: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return splatted(latents, mask, points, grid)

        return State(setup=replace(setup, condition=backbone.with_image(setup.condition, edit, both=True)))


def splatted(
    latents: Float[torch.Tensor, "n c y x"], mask: Float[torch.Tensor, "n m y x"], points: Points, grid: Grid
) -> tuple[Float[torch.Tensor, "n c y x"], Float[torch.Tensor, "n m y x"]]:
    """Latents mixed with the points' own features, and the mask that says how much of them is known.

    Places are told from the middle of the picture in halves of its shorter side. In a latent frame a point stands at
    the mean of its visible places, and counts as much as there are any, at most 1. Each cell takes its two heaviest
    points, ``exp(-220 d^2)`` times their visibility; what they leave of 1 stays the latents'.
    """
    short = min(grid.width, grid.height)
    half = np.array([grid.width, grid.height], np.float32) / short
    places = torch.from_numpy((2 * points.places / short - half).astype(np.float32)).to(latents.device)
    seen = torch.from_numpy(points.visible.astype(np.float32)).to(latents.device)
    count = places.shape[1]
    if not count:
        return latents, mask
    own = _sampled(latents[0], places[0] / torch.from_numpy(half).to(latents.device))
    x, y = (
        torch.linspace(-float(bound), float(bound), size, device=latents.device)
        for bound, size in zip(half, (grid.columns, grid.rows), strict=True)
    )
    cells = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)
    after, known = latents.clone(), mask.clone()
    for k in range(1, grid.latent_frames):
        group = list(grid.group(k))
        visible = seen[group].sum(dim=0)
        middle = (places[group] * seen[group][..., None]).sum(dim=0) / (visible[:, None] + 1e-5)
        distance = (cells[:, :, None] - middle).square().sum(dim=-1)
        weight, nearest = torch.topk(
            torch.exp(-_SHARPNESS * distance) * visible.clamp(0, 1), min(_NEAREST, count), dim=-1
        )
        total = weight.sum(dim=-1)
        mixed = torch.einsum("yxp,yxpc->cyx", weight, own[nearest])
        after[k] = mixed + latents[k] * (1 - total.clamp(0, 1))
        known[k] = total
    return after, known


def _sampled(latents: Float[torch.Tensor, "c y x"], places: Float[torch.Tensor, "p 2"]) -> Float[torch.Tensor, "p c"]:
    """Latents at places in -1..1 of the picture, between cells bilinearly."""
    at = places.clamp(-1, 1)[None, :, None]
    found = torch.nn.functional.grid_sample(latents[None], at, padding_mode="zeros", align_corners=False)
    return found[0, :, :, 0].T

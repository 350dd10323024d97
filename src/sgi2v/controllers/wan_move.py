"""Wan-Move: the first frame's latents copied along the tracks into what a model trained for it is given."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float

from sgi2v.backbones.base import EditsImage
from sgi2v.checks import LARGEST, Bounds, choice
from sgi2v.controllers.base import Controller, Setup, State
from sgi2v.errors import FieldError
from sgi2v.grid import Grid
from sgi2v.lazy import torch
from sgi2v.planning import Uses
from sgi2v.points import Points, points_of


@dataclass(frozen=True, kw_only=True)
class WanMove(Controller[State]):
    """Wan-Move, for Wan 2.1 weights that were trained for it: latents of the picture copied along points' tracks.

    No gradients: it costs what plain sampling costs. Source: Wan-Move (ali-vilab/Wan-Move, wan/modules/trajectory.py
    and wan/wan_move.py).
    """

    name: ClassVar[str] = "wan-move"

    spacing: int = 8
    """Pixels between the points that are put on a thing, both ways; 8 is one in every latent cell."""
    unconditional: Literal["plain", "release"] = "release"
    """Sight of the branch that guidance leads away from: the tracks too, as in the release, which changes them in
    place; or plain, the picture without them."""
    any_weights: bool = False
    """Run with weights that were not trained for it, or do not say so."""

    BOUNDS: ClassVar[Bounds] = MappingProxyType({"spacing": (1, LARGEST)})

    def __post_init__(self) -> None:
        if self.spacing < 1:
            raise FieldError("controller.spacing", f"must be at least 1 pixel, got {self.spacing}")
        choice("controller.unconditional", self.unconditional, Literal["plain", "release"])

    def uses(self) -> Uses:
        """Motions with their masks, and weights of its own."""
        return Uses(motions=True, masks=True, image=True, weights=() if self.any_weights else (self.name,))

    def prepare(self, setup: Setup) -> State:
        """The run's condition with the latents copied."""
        backbone, grid = setup.backbone, setup.grid
        assert isinstance(backbone, EditsImage), "the outline's check has seen to it"
        points = points_of(setup.tracks, grid, self.spacing)
        # Where tracks meet the last one wins, in an order drawn by the run's own seed.
        order = torch.randperm(points.places.shape[1], generator=setup.generator).numpy()

        def edit(latents: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return copied(latents, points, grid, order), mask

        condition = backbone.with_image(setup.condition, edit, both=self.unconditional == "release")
        return State(setup=replace(setup, condition=condition))


def copied(
    latents: Float[torch.Tensor, "n c y x"], points: Points, grid: Grid, order: np.ndarray
) -> Float[torch.Tensor, "n c y x"]:
    """Latents in which every later frame's cell below a visible point is the first frame's cell below its start.

    A latent frame is met at the last video frame of its group. A point that begins outside the picture copies nothing.
    ``order`` are indices of points; where two meet, the later one in it stays.
    """
    cells = np.floor(points.places / grid.stride).astype(np.int64)
    after = latents.clone()
    for k in range(1, grid.latent_frames):
        frame = k * grid.frame_stride
        shown = order[points.visible[frame, order] & points.visible[0, order]]
        place = cells[frame, shown, 1] * grid.columns + cells[frame, shown, 0]
        # The last of several in one cell: the first of the reversed list.
        unique, index = np.unique(place[::-1], return_index=True)
        last = shown[::-1][index]
        rows, columns = np.divmod(unique, grid.columns)
        after[k, :, rows, columns] = latents[0, :, cells[0, last, 1], cells[0, last, 0]]
    return after

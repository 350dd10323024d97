"""Time-to-Move: denoising from a cut-and-drag clip, longer where things were put than everywhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float

from sgi2v.checks import LARGEST, Bounds, choice
from sgi2v.controllers.base import Controller, Setup, State
from sgi2v.cut_and_drag import DraggedClip, dragged_clip
from sgi2v.errors import FieldError
from sgi2v.grid import Grid, Tracks
from sgi2v.lazy import torch
from sgi2v.planning import Schedule, Unit, Uses, positions, sigmas_of
from sgi2v.step import Level, Step

MaskRule = Literal["coverage", "published"]


@dataclass(frozen=True, kw_only=True)
class TimeToMove(Controller["TimeToMoveState"]):
    """Time-to-Move: starts from a clip in which things are cut out and dragged, and lets the model make it real.

    The run begins late, from the clip's latents with noise for that level. Where things were put they are set back
    to the noised clip for some steps more, so that they keep to it while the rest becomes free. No gradients: it costs
    what plain sampling costs, less the steps that are left out. The clip is the scene's own reference where it has
    one, else it is made from the motions. The defaults are steps 16 and 21 of 50 on SVD-XT. Source: Time-to-Move
    (2025), dual-clock denoising.
    """

    name: ClassVar[str] = "time-to-move"
    where: ClassVar[str] = "t_strong"

    t_weak: float | None = 75.0
    """Beginning of the run: at the first step that is not above this, in the unit below. None: at pure noise, as
    without control."""
    t_strong: float | None = 30.0
    """Down to here, included, what lies inside the mask is set back to the noised clip at every step. None: never, so
    that only the start knows the clip (plain SDEdit)."""
    unit: Unit = "sigma"
    """Unit of t_weak and t_strong: sigma (noise to signal ratio), noise-level (s = noise / (signal + noise), 0 to 1,
    alike for every model), or step (steps still to go: num_steps at pure noise, 1 at the last)."""
    coverage: float = 0.5
    """Share of a latent cell that the mask must cover for the cell to lie inside it, under the rule coverage."""
    mask_rule: MaskRule = "coverage"
    """Cells that lie inside the mask: coverage (those of which it covers that share, by the mean over the video frames
    that a latent frame stands for) or published (those whose top-left pixel it has in the first of these frames)."""

    BOUNDS: ClassVar[Bounds] = MappingProxyType({"t_weak": (0, LARGEST), "t_strong": (0, LARGEST), "coverage": (0, 1)})

    def __post_init__(self) -> None:
        for name in ("t_weak", "t_strong"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise FieldError(f"controller.{name}", f"must be a finite number > 0 or None, got {value}")
        if self.t_weak is not None and self.t_strong is not None and self.t_strong > self.t_weak:
            raise FieldError(
                "controller.t_strong",
                f"{self.t_strong:g} lies before the run begins",
                f"give at most controller.t_weak, {self.t_weak:g}",
            )
        choice("controller.unit", self.unit, Unit)
        if self.unit == "share":
            raise FieldError("controller.unit", "share grows as noise falls", "use sigma, noise-level or step")
        if not 0 < self.coverage <= 1:
            raise FieldError("controller.coverage", f"must lie above 0 and at most at 1, got {self.coverage}")
        choice("controller.mask_rule", self.mask_rule, MaskRule)
        if self.mask_rule == "published" and self.coverage != TimeToMove.coverage:
            raise FieldError("controller.coverage", "the rule published looks at one pixel of a cell", "leave it out")

    def uses(self) -> Uses:
        """Motions and their masks, or the scene's own clip in their place."""
        return Uses(motions=True, masks=True, reference=True)

    def schedule(self, levels: Sequence[Level]) -> Schedule:
        """First step and held steps; FieldError when no step falls where it should."""
        shown = positions(self.unit, levels)
        first = 0
        if self.t_weak is not None:
            first = next((index for index, value in enumerate(shown) if value <= self.t_weak), len(shown))
            if first == len(shown):
                raise FieldError(
                    "controller.t_weak",
                    f"no step of {len(shown)} is as low as {self.unit} {self.t_weak:g}",
                    f"the last is at {shown[-1]:.3g}",
                )
        held = sum(self.t_strong is not None and value >= self.t_strong for value in shown)
        if self.t_strong is not None and self.t_strong != self.t_weak and held <= first:
            raise FieldError(
                "controller.t_strong",
                f"no step of {len(shown)} falls between {self.unit} {self.t_strong:g} and controller.t_weak",
                f"the steps' sigmas are {sigmas_of(levels)}",
            )
        plain = Schedule.plain(levels)
        return Schedule(iterations=plain.iterations, acts=plain.acts, first=first, overwrites=held)

    def prepare(self, setup: Setup) -> TimeToMoveState:
        """The clip's latents and the mask at their size; FieldError for a mask of the scene that is empty."""
        backbone, grid = setup.backbone, setup.grid
        clip = _reference(setup.tracks) or dragged_clip(setup.tracks, grid.num_frames)
        latents = setup.reference_latents
        if latents is None:
            latents = backbone.encode_frames(clip.frames.to(backbone.device), grid)
        held = held_cells(clip.masks.numpy(), grid, self.mask_rule, self.coverage)
        # A frame that the model keeps is no variable; held, it would be lost all the same.
        inside = torch.from_numpy(held)[:, None] & backbone.free(grid)[:, None, None, None]
        return TimeToMoveState(
            setup=setup,
            schedule=self.schedule(setup.levels),
            latents=latents.to(backbone.device),
            inside=inside.to(backbone.device),
        )

    def start(self, noise: Float[torch.Tensor, "n c y x"], state: TimeToMoveState) -> Float[torch.Tensor, "n c y x"]:
        """The noised clip at the first step not above ``t_weak``."""
        state.noise = noise
        if self.t_weak is None:
            return super().start(noise, state)
        return state.noised(state.setup.levels[state.schedule.first])

    def steer(
        self, x: Float[torch.Tensor, "n c y x"], step: Step, state: TimeToMoveState
    ) -> Float[torch.Tensor, "n c y x"]:
        """Inside the mask the noised clip, outside ``x``; ``x`` itself once ``t_strong`` has passed.

        At the top of a step, which is where the step before has just ended.
        """
        if step.index >= state.schedule.overwrites:
            return x
        return torch.where(state.inside, state.noised(step.level), x)


def held_cells(
    masks: Float[np.ndarray, "f h w"], grid: Grid, rule: MaskRule, coverage: float = 0.5
) -> Bool[np.ndarray, "n y x"]:
    """Cells of each latent frame that lie inside a clip's masks (0..1), by a rule of :class:`TimeToMove`.

    Published: above one half at the top-left pixel of a cell, in the first video frame of a latent frame's group
    (Time-to-Move's code, which takes every fourth frame and samples to the nearest pixel). Other sizes than the grid's
    are not looked for.
    """
    groups = [masks[grid.group(k)] for k in range(grid.latent_frames)]
    if rule == "published":
        corners = np.stack([group[0, :: grid.stride, :: grid.stride] for group in groups])
        return corners[:, : grid.rows, : grid.columns] > 0.5
    share = grid.coverage(np.stack([group.mean(axis=0) for group in groups]))
    return share >= coverage


@dataclass(kw_only=True)
class TimeToMoveState(State):
    """Everything one run needs besides the hyper-parameters."""

    schedule: Schedule
    latents: Float[torch.Tensor, "n c y x"]
    """The clip's."""
    inside: Bool[torch.Tensor, "n 1 y x"]
    """Cells that are held to the clip."""
    noise: Float[torch.Tensor, "n c y x"] | None = None
    """The run's unit noise, one and the same at every level; known from the start on."""

    def noised(self, level: Level) -> Float[torch.Tensor, "n c y x"]:
        """The clip at a level."""
        assert self.noise is not None, "start comes first"
        return level.signal * self.latents + level.noise * self.noise


def _reference(tracks: Tracks) -> DraggedClip | None:
    """The scene's own clip, if it has one."""
    if tracks.reference is None:
        return None
    frames, masks = (
        torch.from_numpy(np.stack([np.asarray(picture, dtype=np.float32) for picture in pictures]) / 255)
        for pictures in (tracks.reference.frames, tracks.reference.masks)
    )
    return DraggedClip(frames=frames.permute(0, 3, 1, 2).contiguous(), masks=masks)

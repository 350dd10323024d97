"""Time-to-Move: denoising from a crude clip, by one clock where things were put and another everywhere else."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sgi2v.backbones.base import Backbone, Level
from sgi2v.checks import choice
from sgi2v.controllers.base import Clock, Controller, reading
from sgi2v.crude import CrudeClip, crude_clip
from sgi2v.grid import Grid, Tracks
from sgi2v.step import Step


@dataclass(frozen=True, kw_only=True)
class TimeToMove(Controller):
    """Time-to-Move: starts from a crude clip in which things are cut out and dragged, and lets the model make it real.

    The run begins late, from the clip's latents with noise for that level. Where things were put they are set back
    to the noised clip for some steps more, so that they keep to it while the rest becomes free. No gradients: it costs
    what plain sampling costs, less the steps that are left out. The clip is the scene's own reference where it has
    one, else it is made from the motions. The defaults are steps 16 and 21 of 50 on SVD-XT. Source: Time-to-Move
    (2025), dual-clock denoising.
    """

    where: ClassVar[str] = "t_strong"

    tweak: float | None = 75.0
    """Where the run begins: at the first step that is not above this, in the unit of clocks_as. None: at pure noise,
    as without control."""
    t_strong: float | None = 30.0
    """Down to here, included, what lies inside the mask is set back to the noised clip at every step. None: never, so
    that only the start knows the clip (plain SDEdit)."""
    clocks_as: Clock = "sigma"
    """Unit of tweak and t_strong: sigma (noise to signal ratio), noise-level (s = noise / (signal + noise), 0 to 1,
    alike for every model), or step (steps still to go: num_steps at pure noise, 1 at the last)."""
    coverage: float = 0.5
    """Share of a latent cell that the mask must cover for the cell to lie inside it."""

    def __post_init__(self) -> None:
        for name in ("tweak", "t_strong"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"controller.{name}: must be a finite number > 0 or None, got {value}")
        if self.tweak is not None and self.t_strong is not None and self.t_strong > self.tweak:
            raise ValueError(
                f"controller.t_strong: {self.t_strong:g} lies before the run begins; give at most controller.tweak, "
                f"{self.tweak:g}"
            )
        choice("controller.clocks_as", self.clocks_as, Clock)
        if not 0 < self.coverage <= 1:
            raise ValueError(f"controller.coverage: must lie above 0 and at most at 1, got {self.coverage}")

    def _holds(self, level: Level, remaining: int) -> bool:
        return self.t_strong is not None and reading(self.clocks_as, level, remaining) >= self.t_strong

    def begins(self, levels: Sequence[Level]) -> int:
        """The first step not above ``tweak``; ValueError when there is none."""
        if self.tweak is None:
            return 0
        count = len(levels) - 1
        shown = [reading(self.clocks_as, levels[k], count - k) for k in range(count)]
        for index, value in enumerate(shown):
            if value <= self.tweak:
                return index
        raise ValueError(
            f"controller.tweak: no step of {count} is as low as {self.clocks_as} {self.tweak:g}; the last is at "
            f"{shown[-1]:.3g}"
        )

    def overwrites(self, levels: Sequence[Level]) -> int:
        """The steps that are held, and those before them."""
        count = len(levels) - 1
        return sum(self._holds(levels[k], count - k) for k in range(count))

    def planned_iterations(self, levels: Sequence[Level]) -> Sequence[int]:
        """None at any step; ValueError when no step falls where the mask should hold."""
        first = self.begins(levels)
        if self.t_strong is not None and self.t_strong != self.tweak and self.overwrites(levels) <= first:
            reached = ", ".join(f"{level.sigma:.3g}" for level in levels[:-1])
            raise ValueError(
                f"controller.t_strong: no step of {len(levels) - 1} falls between {self.clocks_as} {self.t_strong:g} "
                f"and controller.tweak; the steps' sigmas are {reached}"
            )
        return super().planned_iterations(levels)

    def prepare(self, backbone: Backbone, condition: Any, tracks: Tracks, grid: Grid) -> "TimeToMoveState":
        """The clip's latents and the mask at their size; ValueError for a mask of the scene that is empty."""
        clip = _reference(tracks) or crude_clip(tracks, grid.num_frames)
        kept = [grid.frame(k) for k in range(grid.latent_frames)]
        share = grid.coverage(np.ascontiguousarray(clip.masks[kept].numpy()))
        return TimeToMoveState(
            latents=backbone.encode_frames(clip.frames.to(backbone.device)),
            inside=torch.from_numpy(share >= self.coverage)[:, None].to(backbone.device),
        )

    def start(
        self, noise: Float[Tensor, "n c y x"], levels: Sequence[Level], state: "TimeToMoveState"
    ) -> tuple[Float[Tensor, "n c y x"], int]:
        """The noised clip at the first step not above ``tweak``, and that step."""
        state.noise = noise
        if self.tweak is None:
            return super().start(noise, levels, state)
        first = self.begins(levels)
        return state.noised(levels[first]), first

    def steer(
        self, x: Float[Tensor, "n c y x"], step: Step, state: "TimeToMoveState"
    ) -> Float[Tensor, "n c y x"]:
        """Inside the mask the noised clip, outside ``x``; ``x`` itself once ``t_strong`` has passed.

        At the top of a step, which is where the step before has just ended.
        """
        if not self._holds(step.level, step.remaining):
            return x
        return torch.where(state.inside, state.noised(step.level), x)


@dataclass(kw_only=True)
class TimeToMoveState:
    """What one run needs besides the hyper-parameters."""

    latents: Float[Tensor, "n c y x"]
    """The clip's."""
    inside: Bool[Tensor, "n 1 y x"]
    """Cells that are held to the clip."""
    noise: Float[Tensor, "n c y x"] | None = None
    """The run's unit noise, one and the same at every level; known from the start on."""

    def noised(self, level: Level) -> Float[Tensor, "n c y x"]:
        """The clip at a level."""
        assert self.noise is not None, "start comes first"
        return level.signal * self.latents + level.noise * self.noise


def _reference(tracks: Tracks) -> CrudeClip | None:
    """The scene's own clip, if it has one."""
    if tracks.reference is None:
        return None
    frames, masks = (
        torch.from_numpy(np.stack([np.asarray(picture, dtype=np.float32) for picture in pictures]) / 255)
        for pictures in (tracks.reference.frames, tracks.reference.masks)
    )
    return CrudeClip(frames=frames.permute(0, 3, 1, 2).contiguous(), masks=masks)

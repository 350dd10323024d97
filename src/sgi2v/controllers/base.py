"""The interface of a way of steering; the base class steers nothing and so is the no-control baseline."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from sgi2v.backbones.base import Backbone, Level
from sgi2v.grid import Grid, Tracks
from sgi2v.step import Step

Clock = Literal["sigma", "noise-level", "step"]
"""Ways to say where in the denoising one is, all of which fall: sigma (noise to signal ratio), noise-level
(s = noise / (signal + noise), alike for every model), step (steps still to go: num_steps at pure noise)."""


def reading(clock: Clock, level: Level, remaining: int) -> float:
    """What a clock shows at a level with so many steps to go, this one included."""
    return {"sigma": level.sigma, "noise-level": level.noise_level, "step": float(remaining)}[clock]


@dataclass(frozen=True, kw_only=True)
class Controller:
    """No control: the model moves things as it likes.

    A controller holds hyper-parameters only; what changes during a run lives in the state that :meth:`prepare`
    returns. It knows no model: everything it needs of one goes through the backbone's contract.
    """

    where: ClassVar[str] = ""
    """The field that says where in the denoising it acts, for messages about two that get in each other's way."""

    def prepare(self, backbone: Backbone, condition: Any, tracks: Tracks, grid: Grid) -> Any:
        """The run's state; ValueError before any compute when the scene cannot be followed."""
        return None

    def planned_iterations(self, levels: Sequence[Level]) -> Sequence[int]:
        """Optimiser iterations at each step, for the time left; ValueError when none falls where it should."""
        return [0] * (len(levels) - 1)

    def begins(self, levels: Sequence[Level]) -> int:
        """Index of the run's first step, as :meth:`start` will say it; the model is not asked at those before."""
        return 0

    def acts(self, levels: Sequence[Level]) -> Sequence[bool]:
        """At which steps it changes latents by optimising them, or the network's inside; errors as above."""
        return [iterations > 0 for iterations in self.planned_iterations(levels)]

    @property
    def changes_noise(self) -> bool:
        """Whether :meth:`start` makes other noise of the noise it is given."""
        return False

    def overwrites(self, levels: Sequence[Level]) -> int:
        """Number of steps, from the schedule's first, in which latents may be replaced whatever stood there before."""
        return 0

    def start(
        self, noise: Float[Tensor, "n c y x"], levels: Sequence[Level], state: Any
    ) -> tuple[Float[Tensor, "n c y x"], int]:
        """First latents and the first step's index, from unit-variance noise."""
        return noise * levels[0].pure_noise_scale, 0

    def steer(self, x: Float[Tensor, "n c y x"], step: Step, state: Any) -> Float[Tensor, "n c y x"]:
        """The latents the denoiser shall see instead of ``x`` at this step."""
        return x

    def during(self, step: Step, state: Any) -> AbstractContextManager[None]:
        """What must change inside the network for this step's denoising only."""
        return nullcontext()

"""One denoising step, and whom it tells how far the run is."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from sgi2v.backbones.base import Level


class Cancelled(Exception):
    """The person asked the run to stop; nothing is left behind."""


class Reporter:
    """Whom a run tells how far it is; this one listens to nothing. Every call may raise :class:`Cancelled`."""

    def planned(self, num_iterations: Sequence[int]) -> None:
        """How many guided iterations each step will have."""

    def step(self, step: "Step") -> None:
        """A denoising step begins."""

    def iteration(self, step: "Step", index: int, count: int, loss: Float[Tensor, ""]) -> None:
        """A guided iteration is queued; its loss is a tensor, to be read when the step is over."""

    def check_cancelled(self) -> None:
        """Raises :class:`Cancelled` when the person has asked for it."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One denoising step: from ``level`` to ``next_level``."""

    index: int
    """0 at pure noise."""
    count: int
    """Steps of the whole run."""
    level: Level
    next_level: Level
    reporter: Reporter

    @property
    def remaining(self) -> int:
        """Steps still to go, this one included: ``count`` at pure noise, 1 at the last step."""
        return self.count - self.index

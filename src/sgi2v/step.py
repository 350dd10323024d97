"""One denoising step, the line that takes it, and whom it tells how far the run is."""

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

    def estimate(self, step: "Step", x0: Float[Tensor, "n c y x"]) -> None:
        """What the model takes the clean latents to be at this step."""

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


def euler(
    x: Float[Tensor, "n c y x"], x0: Float[Tensor, "n c y x"], level: Level, next_level: Level
) -> Float[Tensor, "n c y x"]:
    """First-order step to the next level, keeping the noise that ``x0`` implies.

    ``x' = a' x0 + (b' / b) (x - a x0)``. For SVD it is the Euler step of Karras et al. 2022 (arXiv 2206.00364,
    algorithm 2 without churn); for flow models the straight line; for variance-preserving ones DDIM.
    """
    return next_level.signal * x0 + (next_level.noise / level.noise) * (x - level.signal * x0)

"""One denoising step: how much noise there is before and after it, and whom it tells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float

from sgi2v.lazy import torch


class Cancelled(Exception):
    """The person asked the run to stop; nothing is left behind."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """Mixture of signal and noise at one point of the denoising: ``x = signal * x0 + noise * epsilon``.

    SVD has ``signal = 1, noise = sigma``; flow models ``1 - s`` and ``s``; variance-preserving models
    ``sqrt(alpha_bar)`` and ``sqrt(1 - alpha_bar)``. The last level of a schedule has ``noise = 0``.
    """

    signal: float
    noise: float
    timestep: float | None = None
    """The network's word for this level; None where it works that out, as off the model's own schedule."""

    def __post_init__(self) -> None:
        if self.signal < 0 or self.noise < 0 or self.signal + self.noise == 0:
            raise ValueError(f"a level needs signal >= 0 and noise >= 0, not both 0; got {self}")

    @property
    def noise_level(self) -> float:
        """``s = noise / (signal + noise)`` in 0..1, the same scale for every model and step count."""
        return self.noise / (self.signal + self.noise)

    @property
    def sigma(self) -> float:
        """Noise to signal ratio; infinite at pure noise of a model that keeps no signal there."""
        return self.noise / self.signal if self.signal > 0 else math.inf

    @property
    def init_noise_sigma(self) -> float:
        """Standard deviation of ``x`` at this level when ``x0`` and the noise have unit variance."""
        return math.hypot(self.signal, self.noise)


class Reporter:
    """Listener to a run; this one hears nothing. Every call may raise :class:`Cancelled`."""

    def planned(self, num_iterations: Sequence[int]) -> None:
        """Takes the number of guided iterations of each step."""

    def step(self, step: Step) -> None:
        """A denoising step begins."""

    def iteration(self, step: Step, index: int, count: int, loss: Float[torch.Tensor, ""]) -> None:
        """A guided iteration is queued; its loss is a tensor, to be read when the step is over."""

    def estimate(self, step: Step, x0: Float[torch.Tensor, "n c y x"]) -> None:
        """Takes the model's estimate of the clean latents at this step."""

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

"""Progress of a run as a person sees it: place, loss, time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from jaxtyping import Float

from sgi2v.lazy import torch
from sgi2v.step import Cancelled, Reporter, Step

# A guided iteration (forward and backward, ending early) against a plain step (two forward passes): only the ratio
# matters, and only to the time left.
_ITERATION_COST = 1.2
_PREVIEWS = 6  # at most, in one run: of the bundled model a decoded frame costs a quarter of a plain step


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Place of a run on its way."""

    phase: Literal["encode", "sample", "decode"]
    step: int = 0
    """Denoising steps begun."""
    num_steps: int = 0
    iteration: int = 0
    """Guided iterations of this step begun; 0 in a plain step."""
    num_iterations: int = 0
    loss: float | None = None
    """Alignment loss of the last guided step that is over."""
    fraction: float = 0.0
    """Share of the sampling that is done, 0 to 1."""
    seconds_left: float | None = None
    """Estimate for the sampling, at its first step from the last run of the same kind (:mod:`sgi2v.pace`); None until
    there is something to go by."""


@dataclass
class RunProgress(Reporter):
    """Turns what the loop reports into Progress; reads losses when a step is over, so that no iteration waits."""

    progress: Callable[[Progress], None]
    cancelled: Callable[[], bool]
    preview: Callable[[torch.Tensor], None] | None = None
    """Shown the estimate of the clean latents, at some of the steps."""
    num_iterations: Sequence[int] = ()
    begun: float = field(default_factory=time.perf_counter)
    first: int | None = None
    """Index of the run's first step: a controller may leave out those before it."""
    pending: torch.Tensor | None = None
    loss: float | None = None
    pace: float | None = None
    """Seconds of a plain step in an earlier run; counts as much as one step of this run."""

    def planned(self, num_iterations: Sequence[int]) -> None:
        """Begins to count, and the clock."""
        self.num_iterations = num_iterations
        self.begun = time.perf_counter()

    def _cost(self, steps: int) -> float:
        """Cost of that many steps of the schedule, in plain steps."""
        left_out = self.first or 0
        return steps - left_out + _ITERATION_COST * sum(self.num_iterations[left_out:steps])

    def measured(self) -> float:
        """Seconds of a plain step in this run, whose sampling is over."""
        return (time.perf_counter() - self.begun) / max(self._cost(len(self.num_iterations)), 1)

    def _tell(self, step: Step, iteration: int, num_iterations: int) -> None:
        done = self._cost(step.index) + _ITERATION_COST * iteration
        total = self._cost(step.count)
        elapsed = time.perf_counter() - self.begun
        before = 0.0 if self.pace is None else 1.0
        known = before + done
        self.progress(
            Progress(
                phase="sample",
                step=step.index + 1,
                num_steps=step.count,
                iteration=iteration,
                num_iterations=num_iterations,
                loss=self.loss,
                fraction=done / total,
                seconds_left=(elapsed + before * (self.pace or 0)) / known * (total - done) if known > 0 else None,
            )
        )

    def step(self, step: Step) -> None:
        """Tells how far the run is; raises :class:`Cancelled` where the person has stopped it."""
        self.check_cancelled()
        self.first = step.index if self.first is None else self.first
        if self.pending is not None:
            self.loss, self.pending = float(self.pending), None
        self._tell(step, 0, self.num_iterations[step.index])

    def iteration(self, step: Step, index: int, count: int, loss: Float[torch.Tensor, ""]) -> None:
        """Tells how far the run is; the loss is read later."""
        self.pending = loss
        self._tell(step, index + 1, count)

    def estimate(self, step: Step, x0: Float[torch.Tensor, "n c y x"]) -> None:
        """Shows a preview, at some of the steps."""
        if self.preview is not None and step.index % -(-step.count // _PREVIEWS) == 0:
            self.preview(x0)

    def check_cancelled(self) -> None:
        """Raises :class:`Cancelled` where the person has stopped the run."""
        if self.cancelled():
            raise Cancelled("cancelled before the video was finished; nothing was written")

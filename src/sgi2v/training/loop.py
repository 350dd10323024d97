"""The loop of every training: steps on from the newest checkpoint, a log, checkpoints, and an end when asked."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from sgi2v.errors import FieldError
from sgi2v.training.checkpoint import Settings, Stopped, load_checkpoint, save_checkpoint
from sgi2v.training.optimiser import MasterAdam

Log = Callable[[Mapping[str, float]], None]
"""Called with figures, "step" among them."""
Stop = Callable[[], bool]
"""Asked after every step whether to end; where it says yes, the step is saved and Stopped raised."""
Watch = Callable[[MasterAdam, int], Mapping[str, float]]
"""Called after every step with the optimiser, which has the averaged weights, and the number of steps done; gives
figures for the log, at most steps none."""


def never() -> bool:
    """The answer to `stop` of a training that goes on to its last step."""
    return False


@runtime_checkable
class Learner(Protocol):
    """A training's own part of the loop."""

    def learn(self, step: int) -> Tensor:
        """Leave a step's gradients in the parameters; its losses, detached. A function of the step's number alone."""

    def figures(self, seconds: float) -> dict[str, float]:
        """Figures for the log, of the steps since they were last asked for, which took so many seconds."""


@dataclass(frozen=True, kw_only=True)
class Loop:
    """A training's length, rate, log and checkpoints."""

    folder: Path
    """Folder of the checkpoints."""
    settings: Settings
    """All that decided the first so many steps; a checkpoint of other settings is refused."""
    num_steps: int
    rate: Callable[[int], float]
    """Learning rate of a step."""
    checkpoint_every: int
    log_every: int
    work: Callable[[int], int] = int
    """Work of the first so many steps, in any unit, by which the time left is reckoned."""
    before: int = 0
    """Steps of the parts that were trained before this one, counted in the log."""
    goes_on: bool = False
    """True where another part comes after this one, so that a run can end at the last step, too."""
    log: Log | None = None
    watch: Watch | None = None
    stop: Stop = never

    def run(self, learner: Learner, optimiser: MasterAdam) -> None:
        """Do the steps that are not done; FieldError for a checkpoint of other settings or a loss that is no number."""
        first = load_checkpoint(self.folder, optimiser, self.settings)
        begun, since = time.perf_counter(), first
        losses: list[Tensor] = []
        for done in range(first + 1, self.num_steps + 1):
            losses.append(learner.learn(done - 1).sum())
            rate = self.rate(done - 1)
            optimiser.step(rate)
            is_last, count = done == self.num_steps, self.before + done
            stopping = (self.goes_on or not is_last) and self.stop()
            # A line before the checkpoint: after a kill between them it is written again, and never missing.
            if self.log is not None and (is_last or done % self.log_every == 0):
                check_losses(losses, count)
                now = time.perf_counter()
                seconds = max(now - begun, 1e-9)
                left = (self.work(self.num_steps) - self.work(done)) / (self.work(done) - self.work(since))
                figures = {**learner.figures(seconds), "seconds_left": seconds * left}
                self.log({"step": count, "lr": rate, **figures})
                begun, since = now, done
            if is_last or stopping or done % self.checkpoint_every == 0:
                check_losses(losses, count)
                save_checkpoint(self.folder, optimiser, done, self.settings)
            if self.watch is not None:
                paused = time.perf_counter()
                seen = self.watch(optimiser, done)
                begun += time.perf_counter() - paused
                if self.log is not None and seen:
                    self.log({"step": count, **seen})
            if stopping:
                raise Stopped(count, self.before + self.num_steps)


def check_losses(losses: list[Tensor], step: int) -> None:
    """FieldError where one of the losses is no finite number; those that are, are forgotten.

    They are looked at all together and seldom, since an accelerator has to finish its work first.
    """
    if not losses:
        return
    total = torch.stack(losses).sum()
    if not bool(torch.isfinite(total)):
        raise FieldError(
            "loss", f"is {float(total)} by step {step}", "go on from the newest checkpoint with a lower rate (lr)"
        )
    losses.clear()

"""The log of a training: JSON lines on the disk, the same as a readable line, and rates measured on the way."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from sgi2v.evaluation.rows import append_row, read_rows
from sgi2v.training.stages import DenoiserTraining

_BANDS: Final = (("low", 0.7), ("middle", 5.0), ("high", float("inf")))
"""Bands of noise levels, each with its upper end."""


class Journal:
    """Appends each set of figures to a file of JSON lines, and says it in words."""

    def __init__(self, file: Path, say: Callable[[str], None] | None = None) -> None:
        read_rows(file)  # cuts off a line torn by a kill
        self.file, self._say = file, say

    def __call__(self, figures: Mapping[str, float | int]) -> None:
        """Write figures down; "step" is among them."""
        rounded = {name: float(f"{value:.6g}") for name, value in figures.items()}
        append_row(self.file, {**rounded, "step": int(figures["step"])})
        if self._say is not None:
            self._say(readable(figures))


def readable(figures: Mapping[str, float | int]) -> str:
    """Figures as one line for a person: the step first, times in words, the rest to four digits."""
    words = [f"step {figures['step']:.0f}"]
    for name, value in figures.items():
        if name == "seconds_left":
            words.append(f"{value / 60:.0f} min left" if value >= 90 else f"{value:.0f} s left")
        elif name != "step":
            words.append(f"{name} {value:.4g}")
    return "  ".join(words)


def history(file: Path) -> list[dict[str, Any]]:
    """The lines of a log as one run: what was done again after a kill counts as it was done the last time."""
    rows: list[dict[str, Any]] = []
    for row in read_rows(file):
        while rows and rows[-1]["step"] > row["step"]:
            rows.pop()
        if rows and rows[-1]["step"] == row["step"] and rows[-1].keys() == row.keys():
            rows.pop()
        rows.append(row)
    return rows


class Meter:
    """Gathers the losses of steps where they are computed, and reads them when a line is due, and not before."""

    def __init__(self, training: DenoiserTraining, step: int) -> None:
        self._training = training
        self._kept: list[tuple[Tensor, Tensor]] = []
        self._missed: list[Tensor] = []
        self._step = step
        self._begun = time.perf_counter()

    def add(self, losses: Tensor, sigma: Tensor, missed: Tensor | None) -> None:
        """Keep a step's losses [b] with their noise levels [b], and what its attention missed by."""
        self._kept.append((losses.detach(), sigma))
        if missed is not None:
            self._missed.append(missed.detach())

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time spent within out of the rates."""
        begun = time.perf_counter()
        yield
        self._begun += time.perf_counter() - begun

    def check(self, step: int) -> None:
        """ValueError where a loss since the last reading is no number, so that no checkpoint is made of it."""
        if self._kept:
            check_loss(torch.stack([losses.sum() for losses, _ in self._kept]).sum(), step)

    def read(self, step: int) -> dict[str, float]:
        """Mean losses since the last reading, over all and by band of noise; clips a second, seconds left."""
        self.check(step)
        losses = torch.cat([losses for losses, _ in self._kept]).cpu()
        sigma = torch.cat([sigma for _, sigma in self._kept])
        figures = {"loss": float(losses.mean())}
        below = 0.0
        for name, above in _BANDS:
            here = (sigma >= below) & (sigma < above)
            if here.any():
                figures[name] = float(losses[here].mean())
            below = above
        if self._missed:
            figures["correspondence"] = float(torch.stack(self._missed).mean())
        now = time.perf_counter()
        seconds = max(now - self._begun, 1e-9)
        begun, done, whole = (_work(self._training, n) for n in (self._step, step, self._training.num_steps))
        figures["clips_per_second"] = len(losses) / seconds
        figures["seconds_left"] = seconds * (whole - done) / max(done - begun, 1)
        self._kept.clear()
        self._missed.clear()
        self._begun, self._step = now, step
        return figures


def check_loss(loss: Tensor, step: int) -> None:
    """ValueError where a loss is no finite number."""
    if not bool(torch.isfinite(loss.detach())):
        raise ValueError(
            f"loss: is {float(loss.detach())} by step {step}; go on from the newest checkpoint with a lower rate (lr)"
        )


def _work(training: DenoiserTraining, num_steps: int) -> int:
    """What the first so many steps compute on, in pixels."""
    work = 0
    for stage in training.stages:
        done = max(0, min(num_steps, stage.num_steps))
        work += done * stage.batch_size * stage.num_frames * stage.width * stage.height
        num_steps -= done
    return work

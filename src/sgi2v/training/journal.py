"""The log of a training: JSON lines on the disk, the same as a readable line, and rates measured on the way."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from sgi2v.evaluation.rows import append_row, read_rows

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


class Meter:
    """Gathers the losses of steps where they are computed, and reads them when a line is due, and not before."""

    def __init__(self) -> None:
        self._kept: list[tuple[Tensor, Tensor]] = []
        self._missed: list[Tensor] = []

    def add(self, losses: Tensor, sigma: Tensor, missed: Tensor | None) -> None:
        """Keep a step's losses [b] with their noise levels [b], and what its attention missed by."""
        self._kept.append((losses, sigma))
        if missed is not None:
            self._missed.append(missed)

    def figures(self, seconds: float) -> dict[str, float]:
        """Mean losses since the last reading, so many seconds ago, over all and by band of noise; clips a second."""
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
        figures["clips_per_second"] = len(losses) / seconds
        self._kept.clear()
        self._missed.clear()
        return figures

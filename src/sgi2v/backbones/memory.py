"""Memory as one choice: which of the modes fast, balanced and low fits a device, whatever the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sgi2v.backbones.base import MODES, Memory, Mode, Outline
from sgi2v.checks import choice
from sgi2v.device import free_memory
from sgi2v.errors import FieldError
from sgi2v.grid import Grid
from sgi2v.lazy import torch


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """Memory mode for a run, and the figures behind it."""

    mode: Mode
    needed: Mapping[Mode, int]
    """Bytes that each mode takes at its peak, weights included; an estimate."""
    free: int | None
    """Bytes that are free on the device; None where it does not tell."""

    def __str__(self) -> str:
        free = "" if self.free is None else f" of {_gigabytes(self.free)} free"
        return f"{self.mode}, about {_gigabytes(self.needed[self.mode])}{free}"


def plan_memory(
    wanted: Memory,
    outline: Outline,
    grid: Grid,
    device: torch.device,
    dtype: torch.dtype,
    *,
    must_fit: bool = True,
    beside: int = 0,
) -> MemoryPlan:
    """The mode for a model that is not loaded yet: the one wanted, or with ``auto`` the first that fits.

    ``beside`` are the numbers in weights that are there beside the model's own. With ``must_fit`` raises FieldError,
    saying what would help, when the wanted one or none does.
    """
    choice("memory", wanted, Memory)
    needed = {mode: own + beside * dtype.itemsize for mode, own in outline.memory_needed(grid, device, dtype).items()}
    free = free_memory(device)
    fitting = [mode for mode in MODES if free is None or needed[mode] <= free]
    mode: Mode = wanted if wanted != "auto" else fitting[0] if fitting else "low"
    if must_fit and mode not in fitting:
        assert free is not None
        smaller = "lower --num-frames, --width and --height, or choose a 16-bit --dtype"
        remedy = f"use --memory {fitting[0]}, about {_gigabytes(needed[fitting[0]])}" if fitting else smaller
        raise FieldError(
            "memory",
            f"{mode} takes about {_gigabytes(needed[mode])} for {grid.num_frames} frames of "
            f"{grid.width}x{grid.height}, and {device} has {_gigabytes(free)} free",
            remedy,
        )
    return MemoryPlan(mode=mode, needed=needed, free=free)


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"

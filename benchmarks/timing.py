"""Time and memory of a computation's phases on a device, and how fast the device can be."""

import gc
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from benchmarks.counting import Lap
from sgi2v.device import peak_memory, reset_peak_memory


@dataclass(frozen=True, kw_only=True)
class Timing:
    """A phase's median of seconds over repetitions, and bytes of memory."""

    seconds: float
    spread: float
    """Longest less shortest of the repetitions, in seconds."""
    repeats: int
    steady: int | None
    """Bytes in use where the phase begins; None where the machine does not tell."""
    peak: int | None
    """Most bytes in use during it."""


class _Clock:
    """Marks where phases begin, on the device's own time line, without making the host wait."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: list[tuple[str, Any]] = []
        self.peaks: dict[str, int] = {}
        self.steady: dict[str, int] = {}

    def _now(self) -> Any:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def lap(self, phase: str) -> None:
        if self._marks and (peak := peak_memory(self._device)) is not None:
            before = self._marks[-1][0]
            self.peaks[before] = max(peak, self.peaks.get(before, 0))
        reset_peak_memory(self._device)
        if (used := peak_memory(self._device)) is not None:
            self.steady.setdefault(phase, used)
        self._marks.append((phase, self._now()))

    def seconds(self) -> dict[str, float]:
        self.lap("")
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        total: dict[str, float] = defaultdict(float)
        for (phase, start), (_, end) in pairwise(self._marks):
            total[phase] += end - start if isinstance(start, float) else start.elapsed_time(end) / 1000
        return total


def free_unused(device: torch.device) -> None:
    """Lets go of what nobody holds, so that the next measurement starts from what must be there."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()


def time_phases(
    fn: Callable[[Lap], object], device: torch.device, *, repeats: int = 5, warm_up: int = 2
) -> dict[str, Timing]:
    """Seconds of each phase that ``fn`` names, the median of ``repeats`` after ``warm_up`` runs that do not count.

    A phase that occurs several times in one run counts with its sum. On a GPU times are those of its own events, so
    that nothing waits that would not wait otherwise; memory is what torch's allocator holds. On a CPU memory is the
    whole process's.
    """
    for _ in range(warm_up):
        fn(lambda _phase: None)
    free_unused(device)
    seconds: dict[str, list[float]] = defaultdict(list)
    peaks: dict[str, int] = {}
    steady: dict[str, int] = {}
    for _ in range(repeats):
        clock = _Clock(device)
        fn(clock.lap)
        for phase, value in clock.seconds().items():
            seconds[phase].append(value)
        for phase, value in clock.peaks.items():
            peaks[phase] = max(value, peaks.get(phase, 0))
        steady = clock.steady | steady
    return {
        phase: Timing(
            seconds=statistics.median(values),
            spread=max(values) - min(values),
            repeats=len(values),
            steady=steady.get(phase),
            peak=peaks.get(phase),
        )
        for phase, values in seconds.items()
    }


def median_seconds(fn: Callable[[], object], *, repeats: int = 5, warm_up: int = 1) -> float:
    """Median seconds of a call on the CPU."""
    values = []
    for k in range(warm_up + repeats):
        start = time.perf_counter()
        fn()
        if k >= warm_up:
            values.append(time.perf_counter() - start)
    return statistics.median(values)


def matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product of random numbers: the best of the machine to hold others to.

    8192 x 8192 x 8192 on an accelerator, 2048 on a CPU; the median of 10 after 3.
    """
    size = 2048 if device.type == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))

    def product(lap: Lap) -> None:
        lap("product")
        a @ b

    seconds = time_phases(product, device, repeats=10, warm_up=3)["product"].seconds
    return 2 * size**3 / seconds

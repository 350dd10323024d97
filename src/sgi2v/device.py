"""Devices and number formats to run on: the only place that names devices."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

from sgi2v.errors import FieldError
from sgi2v.lazy import torch

DTYPES = ("float32", "float16", "bfloat16")


def choose_device(name: str | torch.device | None = None) -> torch.device:
    """The named device, or the best this machine has (CUDA, then Apple's MPS, then the CPU).

    Raises ValueError for a device that torch does not know or this machine lacks.
    """
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise FieldError("device", f"{name!r} cannot be used here ({reason})", "try cpu, cuda or mps") from None
    return device


def device_for_measuring(name: str | torch.device | None = None) -> str:
    """The device for networks that measure finished clips: the model's on CUDA, else the CPU; none was tried on MPS.

    ValueError as of :func:`choose_device`.
    """
    chosen = choose_device(name)
    return str(chosen) if chosen.type == "cuda" else "cpu"


def bfloat16_is_fast() -> bool:
    """True if this CPU multiplies matrices clearly faster in bfloat16 than in float32; measures it in milliseconds."""

    def seconds(dtype: torch.dtype) -> float:
        a = torch.ones(512, 512, dtype=dtype)
        best = float("inf")
        for _ in range(4):
            start = time.perf_counter()
            a @ a
            best = min(best, time.perf_counter() - start)
        return best

    return seconds(torch.bfloat16) < 0.7 * seconds(torch.float32)


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Within, the CPU takes numbers below the smallest normal one (1e-38) for 0; then as before.

    Attention that is sure of itself is full of them, and so are its gradients; a CPU works them out in microcode, which
    makes a guided step half as slow again. It holds for this thread and those that begin within: threads that torch has
    started before keep what they had, so open it before anything is computed.
    """
    before = sys.float_info.min / 2 == 0  # torch does not tell
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def choose_dtype(name: str | None, device: torch.device, *, bfloat16_on_cpu: bool = False) -> torch.dtype:
    """The named number format, or the one that suits the device.

    float16 on an accelerator; on a CPU float32, or bfloat16 where the model is known to bear it
    (``bfloat16_on_cpu``) and the processor is measured to be fast at it. Raises ValueError for an unknown name.
    """
    if name is not None:
        if name not in DTYPES:
            raise FieldError("dtype", f"unknown {name!r}", f"use one of {', '.join(DTYPES)}")
        dtype = getattr(torch, name)
        assert isinstance(dtype, torch.dtype)
        return dtype
    if device.type != "cpu":
        return torch.float16
    return torch.bfloat16 if bfloat16_on_cpu and bfloat16_is_fast() else torch.float32


class HostCopy:
    """A tensor's value on its way to the host, to be read later: reading waits for what made it, and no longer.

    What is queued on the device in between goes on meanwhile.
    """

    def __init__(self, value: torch.Tensor) -> None:
        """Queues the copy; where there is no telling when it is done, waits for it."""
        self._value = value.detach().to("cpu", non_blocking=value.is_cuda)
        self._made = torch.cuda.Event() if value.is_cuda else None
        if self._made is not None:
            self._made.record(torch.cuda.current_stream(value.device))

    def read(self) -> bool:
        """The one truth value in it."""
        if self._made is not None:
            self._made.synchronize()
        return bool(self._value)


def has_own_memory(device: torch.device) -> bool:
    """True if weights on the host take none of the device's memory: false on a CPU, and where both share one memory."""
    return device.type not in ("cpu", "mps")


def on_host(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor's data on the host, from where it can be copied to the device without waiting."""
    if device.type == "cuda":
        return tensor.data.to("cpu").pin_memory()
    return tensor.data


class Prefetcher:
    """Takes tensors from the host to a device, on CUDA beside what is being computed there."""

    def __init__(self, device: torch.device) -> None:
        """A prefetcher with a stream of its own."""
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._paces: deque[torch.cuda.Event] = deque()

    def send(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Begin to copy them to the device, and return the copies; see :meth:`await_arrival`.

        The host keeps at most two sendings ahead of what is computed, or all would be on the device at once.
        """
        if self._stream is None:
            return [tensor.to(self._device, copy=True) for tensor in tensors]
        if len(self._paces) == 2:
            self._paces.popleft().synchronize()
        pace = torch.cuda.Event()
        pace.record(torch.cuda.current_stream(self._device))
        self._paces.append(pace)
        with torch.cuda.stream(self._stream):
            return [tensor.to(self._device, non_blocking=True, copy=True) for tensor in tensors]

    def await_arrival(self, sent: Sequence[torch.Tensor]) -> None:
        """Make what is computed from now on wait for these copies; the host does not wait."""
        if self._stream is not None:
            computing = torch.cuda.current_stream(self._device)
            computing.wait_stream(self._stream)
            for tensor in sent:
                tensor.record_stream(computing)


def free_memory(device: torch.device) -> int | None:
    """Free bytes on the device; None where the machine does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_memory_of_host()


def free_memory_of_host() -> int | None:
    """Free bytes of the machine itself; None where it does not tell."""
    with suppress(OSError, ValueError, IndexError, StopIteration):
        # Linux: what can be had without swapping. What the kernel keeps of files is not in the count below.
        lines = Path("/proc/meminfo").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) * 1024
    if hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def reset_peak_memory(device: torch.device) -> None:
    """Start a new measurement of the most memory in use; see :func:`peak_memory`."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif device.type == "cpu":
        with suppress(OSError):  # not Linux, or not allowed: peak_memory will not claim to know
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int | None:
    """Most bytes in use since :func:`reset_peak_memory`; None where the machine does not tell.

    On CUDA what torch's allocator held on the device, weights included; on a CPU the whole process's resident
    memory, which Linux alone lets one reset.
    """
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if device.type != "cpu" or not os.access("/proc/self/clear_refs", os.W_OK):
        return None
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        return None
    return None


def device_name(device: torch.device) -> str:
    """The device's name for a record of measurements."""
    if device.type == "cuda":
        return f"{device.type}, {torch.cuda.get_device_properties(device).name}"
    if device.type == "cpu":
        return f"cpu, {torch.get_num_threads()} of {os.cpu_count()} cores"
    return device.type


def cpu_alone() -> bool:
    """True where this build of torch knows no other device than the CPU; asked of its version, without torch."""
    return sys.platform == "linux" and version("torch").endswith("+cpu")


def describe_devices() -> list[str]:
    """One line for each device torch can use here; torch is imported only where there may be another than the CPU."""
    lines = [f"cpu: {os.cpu_count()} cores"]
    if cpu_alone():
        return lines
    lines[0] += f", {torch.get_num_threads()} threads in use"
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        lines.append(f"cuda:{index}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    if torch.backends.mps.is_available():
        lines.append("mps: Apple GPU")
    return lines

"""Memory of a video transformer's guided run, for every mode: figures counted at full size (benchmarks/README.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Final

import safetensors
import torch

from sgi2v.backbones.base import MODES, Mode
from sgi2v.backbones.dit.outline import DiTOutline
from sgi2v.backbones.weights import weight_files
from sgi2v.device import has_own_memory
from sgi2v.grid import Grid

SLACK: Final = 1.1
"""Factor for an allocator's rounding and fragments, and the workspace of kernels."""


def num_weights(files: Iterable[Path]) -> int:
    """Numbers in the weights of safetensors files, from their headers."""
    shapes: dict[str, list[int]] = {}
    for file in files:
        with safetensors.safe_open(file, framework="pt") as opened:
            # By name, since the same tensor may be there once more in half precision.
            shapes |= {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118
    return sum(prod(shape) for shape in shapes.values())


def _expert_bytes(outline: DiTOutline, name: str, dtype: torch.dtype) -> int:
    """Bytes of one of the denoiser's networks as it is loaded."""
    file = outline.files.get(name)
    if file is not None and file.suffix == ".gguf":
        return file.stat().st_size  # it stays as it is, and is widened a layer at a time
    numbers = num_weights([file] if file is not None else weight_files(outline.folder, [name]))
    return numbers * (1 if outline.quantise else dtype.itemsize)


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """Weights of a model, from which its need of memory follows."""

    experts: Mapping[str, int]
    """Bytes of each of the denoiser's networks as it is loaded."""
    others: Mapping[str, int]
    """Numbers in the weights of the networks that run once."""

    @classmethod
    def of(cls, outline: DiTOutline, dtype: torch.dtype) -> Numbers:
        """From the headers of a folder's weight files."""
        experts = {name: _expert_bytes(outline, name, dtype) for name in outline.networks if "transformer" in name}
        there = [name for name in outline.weighed if name not in experts]
        others = {name: num_weights(weight_files(outline.folder, [name])) for name in there}
        return cls(experts=experts, others=others)


def peaks(
    outline: DiTOutline, numbers: Numbers, grid: Grid, device: torch.device, dtype: torch.dtype
) -> Mapping[Mode, int]:
    """Bytes at the peak of a guided run whose pass ends half way, weights included."""
    others = dict(numbers.others)
    encoder = others.pop("text_encoder", 0)
    apart = has_own_memory(device)
    live = outline.live_bytes(grid)
    scale = dtype.itemsize / 2  # counted in 16 bits
    largest, parts, autoencoder = max(numbers.experts.values()), 4 * sum(others.values()), 4 * others["vae"]

    def peak(mode: Mode) -> float:
        guided = live["guided" if mode == "fast" else "checkpointed"] * scale
        clip = live.get("tiled", live["clip"]) if mode == "low" and apart else live["clip"]
        if not apart:
            stay = sum(numbers.experts.values()) + parts
            # On the host's own memory the text encoder is there before anything else is computed.
            return max((stay + max(guided, clip)) * SLACK, stay + encoder * dtype.itemsize)
        if mode == "low":
            block = largest / outline.num_blocks  # two at a time, and none of them while the autoencoder works
            return max(2 * block + guided, block + autoencoder + clip) * SLACK
        if mode == "balanced":
            return (largest + max(guided, autoencoder + clip)) * SLACK
        return (sum(numbers.experts.values()) + parts + max(guided, clip)) * SLACK

    return {mode: int(peak(mode)) for mode in MODES}


def memory_needed(outline: DiTOutline, grid: Grid, device: torch.device, dtype: torch.dtype) -> Mapping[Mode, int]:
    """:func:`peaks` of a folder."""
    return peaks(outline, Numbers.of(outline, dtype), grid, device, dtype)

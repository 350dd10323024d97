"""Memory of a video transformer's guided run, for every mode: figures counted at full size (benchmarks/README.md)."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path

import safetensors
import torch

from sgi2v.backbones.base import MODES, Mode
from sgi2v.backbones.dit.outline import DiTOutline
from sgi2v.backbones.folder import weight_files
from sgi2v.device import has_own_memory
from sgi2v.grid import Grid

_SLACK = 1.1  # an allocator's rounding and fragments, and the workspace of kernels


def num_weights(folder: Path, network: str) -> int:
    """Numbers in a network's weights, from its files' headers."""
    shapes: dict[str, list[int]] = {}
    for file in weight_files(folder, [network]):
        with safetensors.safe_open(file, framework="pt") as opened:
            shapes |= {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118
    return sum(prod(shape) for shape in shapes.values())


def memory_needed(outline: DiTOutline, grid: Grid, device: torch.device, dtype: torch.dtype) -> Mapping[Mode, int]:
    """Bytes at the peak of a guided run whose pass ends half way, weights included."""
    experts = {name: num_weights(outline.folder, name) for name in outline.weighed if name.startswith("transformer")}
    others = {name: num_weights(outline.folder, name) for name in outline.weighed if name not in experts}
    encoder = others.pop("text_encoder", 0)
    apart = has_own_memory(device)
    live = outline.live_bytes(grid)
    scale = dtype.itemsize / 2  # counted in 16 bits

    def peak(mode: Mode) -> int:
        guided = live["guided" if mode == "fast" else "checkpointed"] * scale
        away = mode != "fast" and apart
        largest = max(experts.values())
        denoiser = largest if away else sum(experts.values())
        if mode == "low" and apart:
            denoiser = int(2 * largest / outline.num_blocks)
        parts = sum(others.values())
        stay = denoiser * dtype.itemsize + (0 if away else parts * 4)
        decoding = live.get("tiled", live["decode"]) if mode == "low" else live["decode"]
        working = max(guided, decoding + (parts * 4 if away else 0))
        # On the host's own memory the text encoder is there before anything else is computed.
        return int(max((stay + working) * _SLACK, 0 if apart else stay + encoder * dtype.itemsize))

    return {mode: peak(mode) for mode in MODES}

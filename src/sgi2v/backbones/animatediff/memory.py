"""Memory modes of AnimateDiff: what each does to its networks, and how much each needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from sgi2v.backbones.adapter_files import AdapterFiles
from sgi2v.backbones.animatediff.outline import AnimateDiffOutline
from sgi2v.backbones.arrangement import Arrangement
from sgi2v.backbones.base import MODES, Mode
from sgi2v.backbones.dit.memory import num_weights
from sgi2v.backbones.weights import weight_files
from sgi2v.device import has_own_memory
from sgi2v.grid import Grid

# Peaks counted in live tensors at full size on the meta device (benchmarks/animatediff.py), in multiples of the widest
# tensor: frames x latent places x channels of a guided pass's first level; pixels x channels of one frame's decoding.
_GUIDED: Mapping[Mode, float] = MappingProxyType({"fast": 330, "balanced": 76, "low": 46})
_DECODE = 6.5
_STAY = 0.05  # of the denoiser's weights, under low: what belongs to no block; those that visit are counted above
_SLACK = 1.1  # an allocator's rounding and fragments, and the workspace of kernels


def arranged(mode: Mode, unet: Any, vae: nn.Module, device: torch.device) -> Arrangement:
    """The networks in a mode; FieldError for a mode that there is not."""
    blocks = {"balanced": mixing_blocks, "low": all_blocks}
    return Arrangement(
        mode,
        device,
        networks=(unet, vae),
        parts={"autoencoder": vae},
        blocks=[blocks[mode](unet)] if mode in blocks else [],
    )


def all_blocks(unet: Any) -> list[nn.Module]:
    """Residual, attention and motion blocks, in the order in which they run."""
    levels = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
    return [block for level in levels for block in _of_level(level)]


def _of_level(level: Any) -> list[nn.Module]:
    columns = (level.resnets, getattr(level, "attentions", ()), getattr(level, "motion_modules", ()))
    return [block for row in zip_longest(*columns) for block in row if block is not None]


def mixing_blocks(unet: Any) -> list[nn.Module]:
    """The blocks that mix places or frames, in the order in which they run."""
    return [block for block in all_blocks(unet) if hasattr(block, "transformer_blocks")]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Numbers from which a model's need of memory follows."""

    denoiser: int
    """Numbers in the denoiser's weights."""
    vae: int
    text_encoder: int
    width: int
    """Channels at the denoiser's first level."""
    pixel_width: int
    """Channels at the autoencoder's."""

    @classmethod
    def of(cls, outline: AnimateDiffOutline) -> "Sizes":
        """From a folder's configuration and the headers of its weights."""
        there = outline.weighed
        parts = {part: num_weights(weight_files(outline.folder, [part])) for part in there}
        own = parts.get("unet", 0) + parts.get("motion_adapter", 0)
        return cls(
            denoiser=own if outline.released is None else AdapterFiles.read(outline.released).count,
            vae=parts["vae"],
            text_encoder=parts.get("text_encoder", 0),
            width=outline.unet["block_out_channels"][0],
            pixel_width=outline.vae["block_out_channels"][0],
        )


def memory_needed(sizes: Sizes, grid: Grid, device: torch.device, dtype: torch.dtype) -> Mapping[Mode, int]:
    """Bytes at the peak of a guided run, for every mode; the autoencoder computes in float32."""
    guided = grid.num_frames * grid.rows * grid.columns * sizes.width * dtype.itemsize
    decoded = grid.width * grid.height * sizes.pixel_width * 4 * _DECODE
    apart = has_own_memory(device)

    def peak(mode: Mode) -> int:
        stay = sizes.denoiser * dtype.itemsize * (_STAY if mode == "low" and apart else 1.0)
        away = mode != "fast" and apart
        parts = sizes.vae * 4
        working = max(guided * _GUIDED[mode], decoded + (parts if away else 0))
        whole = (stay + (0 if away else parts) + working) * _SLACK
        # On the host's own memory the text encoder is there before anything else is computed.
        return int(max(whole, 0 if apart else stay + sizes.text_encoder * dtype.itemsize))

    return {mode: peak(mode) for mode in MODES}

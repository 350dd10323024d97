"""Memory modes of Stable Video Diffusion: what each does to its networks, and how much each needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from math import prod
from types import MappingProxyType
from typing import Any

import safetensors
import torch
from torch import nn

from sgi2v.backbones.arrangement import Arrangement
from sgi2v.backbones.base import MODES, Mode
from sgi2v.backbones.folder import read_json
from sgi2v.backbones.svd.outline import NETWORKS, SVDOutline
from sgi2v.backbones.weights import weight_files
from sgi2v.device import has_own_memory
from sgi2v.grid import Grid

# Peaks counted in live tensors on Stable Video Diffusion (benchmarks/memory_modes.py), in multiples of the widest
# tensor: frames x latent places x channels of a guided pass's first level; frames of a chunk x pixels x channels of
# decoding's last. Attention is fused, so all grows linearly, and other networks of this kind differ little.
_GUIDED: Mapping[Mode, float] = MappingProxyType({"fast": 361, "balanced": 117, "low": 54})
_DECODE: Mapping[Mode, float] = MappingProxyType({"fast": 8.0, "balanced": 8.0, "low": 3.5})
_STAY = 0.15  # of the denoiser's weights, under low: what belongs to no block, and the blocks that visit
_SLACK = 1.1  # an allocator's rounding and fragments, and the workspace of kernels


def arranged(mode: Mode, pipeline: Any, device: torch.device) -> Arrangement:
    """A pipeline's networks in a mode; FieldError for a mode that there is not."""
    unet, vae, image_encoder = pipeline.unet, pipeline.vae, pipeline.image_encoder
    blocks: Mapping[Mode, Any] = {"balanced": attention_blocks, "low": fine_blocks}
    return Arrangement(
        mode,
        device,
        networks=(unet, vae, image_encoder),
        parts={
            "image encoder": image_encoder,
            "encoder": nn.ModuleList([vae.encoder, vae.quant_conv]),
            "decoder": vae.decoder,
        },
        blocks=[blocks[mode](unet)] if mode in blocks else [],
    )


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Numbers from which a model's need of memory follows."""

    weights: Mapping[str, int]
    """Numbers in each network's weights: unet, vae, image_encoder."""
    width: int
    """Channels at the denoiser's first level."""
    pixel_width: int
    """Channels at the autoencoder's."""
    stride: int
    """Pixels per latent cell, both ways."""

    @classmethod
    def of(cls, outline: SVDOutline) -> "Sizes":
        """From a folder's configuration and the headers of its weights."""
        shapes: dict[str, dict[str, list[int]]] = {"unet": {}, "vae": {}, "image_encoder": {}}
        for file in weight_files(outline.folder, NETWORKS):
            with safetensors.safe_open(file, framework="pt") as opened:
                # By name, since the same tensor may be there once more in half precision.
                shapes[file.parent.name] |= {n: opened.get_slice(n).get_shape() for n in opened.keys()}  # noqa: SIM118
        width, pixel_width = (
            read_json(outline.folder / part / "config.json")["block_out_channels"][0] for part in ("unet", "vae")
        )
        return cls(
            weights={part: sum(prod(shape) for shape in named.values()) for part, named in shapes.items()},
            width=width,
            pixel_width=pixel_width,
            stride=outline.stride,
        )


def memory_needed(
    sizes: Sizes, grid: Grid, decode_chunk_size: int, device: torch.device, dtype: torch.dtype
) -> Mapping[Mode, int]:
    """Bytes at the peak of a guided run, for every mode: counted multiples of the widest tensors (docs/memory.md)."""
    weights = sizes.weights
    places = grid.rows * grid.columns
    guided = grid.num_frames * places * sizes.width
    decoded = min(decode_chunk_size, grid.num_frames) * places * sizes.stride**2 * sizes.pixel_width
    apart = has_own_memory(device)

    def peak(mode: Mode) -> int:
        stay: float = weights["unet"]
        if mode == "low" and apart:
            stay *= _STAY
        if mode == "fast" or not apart:
            stay += weights["vae"] + weights["image_encoder"]
            encode = decoder = 0
        else:
            encode, decoder = weights["image_encoder"], weights["vae"]
        decoding = _DECODE[mode if apart else "low"]
        working = max(guided * _GUIDED[mode], decoded * decoding + decoder, encode)
        return int((stay + working) * dtype.itemsize * _SLACK)

    return {mode: peak(mode) for mode in MODES}


def attention_blocks(unet: nn.Module) -> list[nn.Module]:
    """The blocks of spatial and temporal attention, in the order in which they run."""
    return [block for block in _blocks(unet) if hasattr(block, "transformer_blocks")]


def fine_blocks(unet: nn.Module) -> list[nn.Module]:
    """Residual blocks, and spatial and temporal attention each by itself, in the order in which they run."""
    fine: list[nn.Module] = []
    for block in _blocks(unet):
        if hasattr(block, "transformer_blocks"):
            for pair in zip(block.transformer_blocks, block.temporal_transformer_blocks, strict=True):
                fine.extend(pair)
        else:
            fine.append(block)
    return fine


def _blocks(unet: nn.Module) -> list[Any]:
    """Residual and attention blocks of a spatio-temporal U-Net, in the order in which they run."""
    levels: list[Any] = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]  # type: ignore[misc]
    return [
        block
        for level in levels
        for pair in zip_longest(level.resnets, getattr(level, "attentions", ()))
        for block in pair
        if block is not None
    ]

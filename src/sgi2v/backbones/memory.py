"""Memory as one choice: fast, balanced or low, what each does to a loaded model, and which of them fits a device."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Any, Literal, get_args

import safetensors
import torch
from torch import Tensor, nn

from sgi2v.backbones.folder import read_json, weight_files
from sgi2v.backbones.svd_outline import SVDOutline
from sgi2v.backbones.visiting import Visitors, attention_blocks, fine_blocks, spare, spare_no_more
from sgi2v.checks import choice
from sgi2v.device import free_memory, has_own_memory
from sgi2v.grid import Grid

Mode = Literal["fast", "balanced", "low"]
"""``fast``: all on the device, nothing computed twice. ``balanced``: attention blocks are checkpointed in a guided
pass; the autoencoder and image encoder visit the device. ``low``: all blocks are checkpointed, their weights visit the
device in turn, and frames are decoded one by one. All give the same video, but for the last bits ``low`` decodes."""
Memory = Literal["fast", "balanced", "low", "auto"]
"""A mode, or ``auto``: the first of them that fits the free memory."""
MODES: tuple[Mode, ...] = get_args(Mode)

# Peaks counted in live tensors on Stable Video Diffusion (benchmarks/memory_modes.py), in multiples of the widest
# tensor: frames x latent places x channels of a guided pass's first level; frames of a chunk x pixels x channels of
# decoding's last. Attention is fused, so all grows linearly, and other networks of this kind differ little.
_GUIDED: Mapping[Mode, float] = MappingProxyType({"fast": 361, "balanced": 117, "low": 54})
_DECODE: Mapping[Mode, float] = MappingProxyType({"fast": 8.0, "balanced": 8.0, "low": 3.5})
_STAY = 0.15  # of the denoiser's weights, under low: what belongs to no block, and the blocks that visit
_SLACK = 1.1  # an allocator's rounding and fragments, and the workspace of kernels


class Arrangement:
    """A pipeline's networks under a mode: which blocks are checkpointed, and whose weights lie where."""

    def __init__(self, mode: Mode, pipeline: Any, device: torch.device) -> None:
        """Puts every weight in its place; ValueError for a mode that there is not."""
        choice("memory", mode, Mode)
        self.mode: Mode = mode
        unet, vae = pipeline.unet, pipeline.vae
        guests = {
            "image encoder": pipeline.image_encoder,
            "encoder": nn.ModuleList([vae.encoder, vae.quant_conv]),
            "decoder": vae.decoder,
        }
        apart = mode != "fast" and has_own_memory(device)
        self._guests = {name: Visitors([part], device) for name, part in guests.items() if apart}
        blocks: Mapping[Mode, Any] = {"fast": lambda _: [], "balanced": attention_blocks, "low": fine_blocks}
        self._blocks: list[nn.Module] = blocks[mode](unet)
        self._visitors = Visitors(self._blocks, device) if apart and mode == "low" else None
        spare(self._blocks, self._visitors)
        self._staying: list[Tensor] = []
        visiting = {
            id(t) for visitors in (*self._guests.values(), self._visitors) if visitors for t in visitors
        }
        for network in (unet, vae, pipeline.image_encoder):
            for tensor in (*network.parameters(), *network.buffers()):
                if id(tensor) not in visiting:
                    tensor.data = tensor.data.to(device)
                    self._staying.append(tensor)

    @property
    def staying(self) -> Sequence[Tensor]:
        """The weights that are on the device all the time."""
        return self._staying

    @contextmanager
    def using(self, part: Literal["image encoder", "encoder", "decoder"]) -> Iterator[None]:
        """That part is on the device while the block runs; nothing that a run left halfway had called is."""
        if self._visitors is not None:
            self._visitors.leave()
        if part not in self._guests:
            yield
            return
        with self._guests[part].visit(0):
            yield

    def undo(self) -> None:
        """The networks as they were, their weights wherever they lie."""
        spare_no_more(self._blocks)


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """Which mode a run is to have, and why."""

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
    outline: SVDOutline,
    grid: Grid,
    device: torch.device,
    dtype: torch.dtype,
    *,
    must_fit: bool = True,
) -> MemoryPlan:
    """The mode for a model that is not loaded yet: the one wanted, or with ``auto`` the first that fits.

    With ``must_fit`` raises ValueError, saying what would help, when the wanted one or none does.
    """
    choice("memory", wanted, Memory)
    needed = memory_needed(Sizes.of(outline), grid, outline.settings.decode_chunk_size, device, dtype)
    free = free_memory(device)
    fitting = [mode for mode in MODES if free is None or needed[mode] <= free]
    mode: Mode = wanted if wanted != "auto" else fitting[0] if fitting else "low"
    if must_fit and mode not in fitting:
        assert free is not None
        smaller = "lower --num-frames, --width and --height, or choose a 16-bit --dtype"
        remedy = f"use --memory {fitting[0]}, about {_gigabytes(needed[fitting[0]])}" if fitting else smaller
        raise ValueError(
            f"memory: {mode} takes about {_gigabytes(needed[mode])} for {grid.num_frames} frames of "
            f"{grid.width}x{grid.height}, and {device} has {_gigabytes(free)} free; {remedy}"
        )
    return MemoryPlan(mode=mode, needed=needed, free=free)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What a model's need of memory follows from."""

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
        for file in weight_files(outline.folder):
            with safetensors.safe_open(file, framework="pt") as opened:
                # By name, since the same tensor may be there once more in half precision.
                shapes[file.parent.name] |= {n: opened.get_slice(n).get_shape() for n in opened.keys()}  # noqa: SIM118
        width, pixel_width = (
            read_json(outline.folder / part / "config.json")["block_out_channels"][0]
            for part in ("unet", "vae")
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


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"

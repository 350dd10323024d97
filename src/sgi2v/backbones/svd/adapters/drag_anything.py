"""DragAnything's ControlNet beside a Stable Video Diffusion: the first half of the network, given the painted maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from diffusers import UNetSpatioTemporalConditionModel
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sgi2v.backbones.adapters import Branches
from sgi2v.backbones.svd.attention import LeanAttention
from sgi2v.errors import FieldError
from sgi2v.signals import Entities


@dataclass(frozen=True, kw_only=True)
class ControlSizes:
    """Sizes of a ControlNet."""

    channels: tuple[int, ...]
    """Of the levels."""
    heads: tuple[int, ...]
    """Of attention, in each level."""
    in_channels: int = 8
    context: int = 1024
    told: int = 768
    """Width of the embedding of the three numbers that the network is told."""
    heat: tuple[int, ...] = (16, 32, 96, 256)
    """Channels of the heat map's convolutions."""
    looks: tuple[int, ...] = (160, 160, 256, 256)
    """Channels of the entity map's, the first those of the map itself."""
    layers: int = 2

    def unet_config(self) -> dict[str, object]:
        """Of diffusers' network, whose first half this is."""
        levels = len(self.channels)
        return {
            "in_channels": self.in_channels, "out_channels": self.in_channels // 2, "num_frames": 14,
            "down_block_types": ("CrossAttnDownBlockSpatioTemporal",) * (levels - 1) + ("DownBlockSpatioTemporal",),
            "up_block_types": ("UpBlockSpatioTemporal",) + ("CrossAttnUpBlockSpatioTemporal",) * (levels - 1),
            "block_out_channels": self.channels, "num_attention_heads": self.heads,
            "cross_attention_dim": self.context, "addition_time_embed_dim": self.told // 3,
            "projection_class_embeddings_input_dim": self.told, "layers_per_block": self.layers,
        }  # fmt: skip


class Painting(nn.Module):
    """Both maps at an eighth of their size, as wide as the network's first level."""

    def __init__(self, sizes: ControlSizes) -> None:
        super().__init__()
        first = sizes.channels[0]

        def blocks(widths: Sequence[int]) -> nn.ModuleList:
            made = nn.ModuleList()
            for before, after in pairwise(widths):
                made.append(nn.Conv2d(before, before, 3, padding=1))
                made.append(nn.Conv2d(before, after, 3, padding=1, stride=2))
            return made

        self.conv_in = nn.Conv2d(3, sizes.heat[0], 3, padding=1)
        self.blocks = blocks(sizes.heat)
        self.conv_out = nn.Conv2d(sizes.heat[-1], first, 3, padding=1)
        self.blocks_feature = blocks(sizes.looks)
        self.conv_out_feature = nn.Conv2d(sizes.looks[-1], first, 3, padding=1)

    def forward(self, heat: Float[Tensor, "f 3 h w"], looks: Float[Tensor, "f d h w"]) -> Float[Tensor, "f c y x"]:
        """Their sum; ``heat`` lies in 0..255."""
        x = functional.silu(self.conv_in(heat))
        for block in self.blocks:
            x = functional.silu(block(x))
        for block in self.blocks_feature:
            looks = functional.silu(block(looks))
        painted: Tensor = self.conv_out(x) + self.conv_out_feature(looks)
        return painted


class ControlNet(nn.Module):
    """Stable Video Diffusion's encoder with the painting added behind its first convolution; under the file's names."""

    def __init__(self, sizes: ControlSizes) -> None:
        super().__init__()
        network: Any = UNetSpatioTemporalConditionModel(**sizes.unet_config())
        network.set_attn_processor(LeanAttention())
        self.conv_in: nn.Module = network.conv_in
        self.time_proj, self.time_embedding = network.time_proj, network.time_embedding
        self.add_time_proj, self.add_embedding = network.add_time_proj, network.add_embedding
        self.down_blocks: Any = network.down_blocks
        self.mid_block: Any = network.mid_block
        self.controlnet_cond_embedding = Painting(sizes)
        widths = [sizes.channels[0]]
        for level, width in enumerate(sizes.channels):
            widths += [width] * (sizes.layers + (level < len(sizes.channels) - 1))
        self.controlnet_down_blocks = nn.ModuleList([nn.Conv2d(width, width, 1) for width in widths])
        self.controlnet_mid_block = nn.Conv2d(sizes.channels[-1], sizes.channels[-1], 1)

    def painted(self, entities: Entities) -> Float[Tensor, "f c y x"]:
        """The painting of a clip, a frame at a time: a map of looks has as many channels as pixels are many."""
        weight = self.controlnet_cond_embedding.conv_in.weight
        table = entities.table.to(weight.device, weight.dtype)
        frames = []
        for heat, labels in zip(entities.heat, entities.labels, strict=True):
            spots = heat.to(weight.device, weight.dtype).expand(1, 3, -1, -1)
            looks = table[labels.to(weight.device).long()].permute(2, 0, 1)[None]
            frames.append(self.controlnet_cond_embedding(spots, looks))
        return torch.cat(frames)

    def forward(
        self, sample: Float[Tensor, "b f c y x"], timestep: Tensor, encoder_hidden_states: Float[Tensor, "b 1 d"],
        added_time_ids: Float[Tensor, "b 3"], painted: Float[Tensor, "f e y x"],
    ) -> tuple[list[Tensor], Tensor]:  # fmt: skip
        """Residuals of every skip in the order in which they are made, and the deepest block's; each said once."""
        batch, num_frames = sample.shape[:2]
        told = self.time_embedding(self.time_proj(timestep.reshape(-1).expand(batch)).to(sample.dtype))
        ids = self.add_time_proj(added_time_ids.flatten()).reshape(batch, -1).to(told.dtype)
        emb = (told + self.add_embedding(ids)).repeat_interleave(num_frames, dim=0)
        context = encoder_hidden_states.repeat_interleave(num_frames, dim=0)
        frames = torch.zeros(batch, num_frames, dtype=sample.dtype, device=sample.device)
        x = self.conv_in(sample.flatten(0, 1)) + painted.repeat(batch, 1, 1, 1)
        skips: tuple[Tensor, ...] = (x,)
        for block in self.down_blocks:
            if getattr(block, "has_cross_attention", False):
                x, more = block(x, emb, encoder_hidden_states=context, image_only_indicator=frames)
            else:
                x, more = block(x, emb, image_only_indicator=frames)
            skips += more
        x = self.mid_block(x, emb, encoder_hidden_states=context, image_only_indicator=frames)
        residuals = [zero(skip) for zero, skip in zip(self.controlnet_down_blocks, skips, strict=True)]
        return residuals, self.controlnet_mid_block(x)


def multiplicities(levels: int, layers: int) -> list[int]:
    """Times that each skip's residual is added, in the order of the skips.

    The published network adds the whole list again behind every block on the way down, so a skip made at level k has
    it ``levels - k`` times. The first convolution's counts as level 0.
    """
    counts = [levels]
    for level in range(levels):
        counts += [levels - level] * (layers + (level < levels - 1))
    return counts


def released_order(branches: Sequence[bool], context: Float[Tensor, "s 1 d"]) -> Float[Tensor, "s 1 d"]:
    """Tokens of the temporal attention's sequences as diffusers ordered them until 2024 (its pull request 7268).

    ``context`` has each branch's token for each of its places, branch by branch. In the released order, which has
    the unconditional branch first, sequence number s is given branch s modulo their number.
    """
    count = len(branches)
    if count == 1:
        return context
    places = context.shape[0] // count
    theirs = sorted(range(count), key=lambda index: branches[index])
    ours = {index: theirs.index(index) for index in range(count)}
    numbers = torch.cat([torch.arange(places) + ours[index] * places for index in range(count)])
    tokens = context.unflatten(0, (count, places))[:, 0]
    chosen: Tensor = tokens[torch.tensor(theirs)[numbers % count].to(context.device)]
    return chosen


@dataclass(frozen=True, kw_only=True, eq=False)
class DragAnythingAdapter:
    """DragAnything's ControlNet; its signal is :class:`sgi2v.signals.Entities`. Both branches of guidance heed it.

    Source: Wu et al. 2024, arXiv 2403.07420, and the published weights.
    """

    name: str
    sha256: str
    sizes: ControlSizes
    module: ControlNet

    @property
    def kind(self) -> str:
        """Of a controller's ``Uses.adapters``."""
        return "drag-anything"

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], sizes: ControlSizes, *, name: str, sha256: str) -> DragAnythingAdapter:
        """From the tensors of a whole file."""
        with torch.device("meta"):
            module = ControlNet(sizes)
        module.load_state_dict({key: value.float() for key, value in tensors.items()}, assign=True)
        return cls(name=name, sha256=sha256, sizes=sizes, module=module.eval().requires_grad_(False))

    @contextmanager
    def attach(self, denoiser: nn.Module, signal: object, branches: Branches) -> Iterator[None]:
        """See :class:`sgi2v.backbones.adapters.Adapter`."""
        if not isinstance(signal, Entities):
            raise FieldError("adapter", f"{self.name} is given no entities", "choose controller:drag-anything")
        network: Any = denoiser
        if tuple(network.config.block_out_channels) != self.sizes.channels:
            raise FieldError("adapter", f"{self.name} is made for a network of other widths")
        if signal.embedded is None:
            with torch.no_grad():
                signal.embedded = self.module.painted(signal)
        counts = multiplicities(len(self.sizes.channels), self.sizes.layers)
        current: dict[str, Any] = {}
        painted = signal.embedded

        def control(_module: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Any]) -> None:
            sample, timestep = inputs
            residuals, current["mid"] = self.module(
                sample, timestep, named["encoder_hidden_states"], named["added_time_ids"], painted.to(sample.dtype)
            )
            current["skips"] = [count * residual for count, residual in zip(counts, residuals, strict=True)]

        def deepest(_module: nn.Module, _inputs: tuple[Tensor, ...], x: Tensor) -> Tensor:
            added: Tensor = current["mid"].to(x.dtype)
            return x + added

        with ExitStack() as hooks:
            if signal.paired:
                for part in (network, self.module):
                    hooks.enter_context(_in_released_order(part, branches))
            hooks.callback(network.register_forward_pre_hook(control, with_kwargs=True).remove)
            hooks.callback(network.mid_block.register_forward_hook(deepest).remove)
            end = len(counts)
            for block in network.up_blocks:
                part = slice(end - len(block.resnets), end)
                end = part.start

                def add(
                    _module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], part: slice = part
                ) -> tuple[tuple[Any, ...], dict[str, Any]]:
                    skips = zip(named["res_hidden_states_tuple"], current["skips"][part], strict=True)
                    added = tuple(skip + residual.to(skip.dtype) for skip, residual in skips)
                    return inputs, {**named, "res_hidden_states_tuple": added}

                hooks.callback(block.register_forward_pre_hook(add, with_kwargs=True).remove)
            yield


@contextmanager
def _in_released_order(network: nn.Module, branches: Branches) -> Iterator[None]:
    def reorder(
        _module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        context = released_order(branches(), named["encoder_hidden_states"])
        return inputs, {**named, "encoder_hidden_states": context}

    with ExitStack() as hooks:
        for name, module in network.named_modules():
            if name.rpartition(".")[0].endswith("temporal_transformer_blocks"):
                hooks.callback(module.register_forward_pre_hook(reorder, with_kwargs=True).remove)
        yield

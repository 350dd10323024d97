"""Weights of AnimateDiff's own modules: configurations read off their shapes, names turned into diffusers', LoRA."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from sgi2v.errors import FieldError
from sgi2v.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

Shapes = Mapping[str, Sequence[int]]
"""Key -> shape."""
ADAPTERS: Final[Mapping[str, str]] = MappingProxyType({"object": "omcm_weights", "camera": "cmcm_weights"})
"""Kind of a motion -> the low-rank weights that Image Conductor has for it."""
_RENAMES: Final = (
    (".temporal_transformer.", "."),
    (".attention_blocks.0.pos_encoder.pe", ".pos_embed.pe"),
    (".attention_blocks.0.", ".attn1."),
    (".attention_blocks.1.", ".attn2."),
    (".norms.0.", ".norm1."),
    (".norms.1.", ".norm2."),
    (".ff_norm.", ".norm3."),
)
SECOND_TABLE: Final = ".attention_blocks.1.pos_encoder.pe"
"""End of the key of a table of positions that diffusers has once."""
_FIRST: Final = ".attention_blocks.0.pos_encoder.pe"
_TO_WORDS: Final = re.compile(r".+\.attentions\.0\..+\.attn2\.to_k\.weight")
ADAPTED: Final = re.compile(
    r"(?:.+\.)?(?:to_[qkv]|to_out\.0|conv|proj|proj_in|proj_out|time_emb_proj|linear_[12]|ff\.net\.2|conv_shortcut|"
    r"controlnet_cond_embedding|conv_in|conv[12]|controlnet_mid_block|controlnet_down_blocks\.\d+)"
)
"""Layers that the release gives low-rank weights."""
_LOW_RANK: Final = re.compile(r"(.+)\.lora_([AB])\.(\w+)\.weight")


@dataclass(frozen=True, kw_only=True)
class Heads:
    """Heads of attention, which no shape tells."""

    within: int = 8
    """Of attention within frames and to words."""
    over_time: int = 8
    """Of the motion modules."""


def renamed(key: str) -> str:
    """A key of AnimateDiff's own modules as diffusers' name of the same weight."""
    for old, new in _RENAMES:
        key = key.replace(old, new)
    return key.replace(".base_layer.", ".")


def is_low_rank(key: str) -> bool:
    """True for a weight of a LoRA."""
    return _LOW_RANK.fullmatch(key) is not None


def in_diffusers_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of AnimateDiff's own modules under diffusers' names, those of a LoRA left out.

    Both attentions of a motion module keep a table of positions, which diffusers has once: FieldError where they are
    not the same.
    """
    found = {}
    for key, weight in weights.items():
        if key.endswith(SECOND_TABLE):
            first = weights.get(key.replace(SECOND_TABLE, _FIRST))
            if first is None or not torch.equal(first, weight):
                raise FieldError("adapter", f"{key} is not the table of the attention before it", "fetch it again")
        elif not is_low_rank(key):
            found[renamed(key)] = weight
    return found


def low_rank_pairs(weights: Mapping[str, Tensor], adapter: str) -> dict[str, tuple[Tensor, Tensor]]:
    """A and B of each layer under diffusers' name, of the LoRA of that name; FieldError where one lacks the other."""
    sides: dict[str, dict[str, Tensor]] = {}
    for key, weight in weights.items():
        match = _LOW_RANK.fullmatch(key)
        if match is not None and match[3] == adapter:
            sides.setdefault(renamed(f"{match[1]}.")[:-1], {})[match[2]] = weight
    for layer, pair in sides.items():
        if len(pair) != 2:
            raise FieldError("adapter", f"{layer} has one half of {adapter} alone", "fetch it again")
    return {layer: (pair["A"], pair["B"]) for layer, pair in sides.items()}


def low_rank_faults(shapes: Shapes, network: Any) -> list[str]:
    """Low-rank weights that a flow ControlNet lacks, has too many of, or has of a wrong shape, a sentence each.

    ``network`` is that ControlNet, which may lie on the meta device. Every layer that the release adapts has a pair for
    things and one for the camera, all of one rank.
    """
    found = {}
    for key, shape in shapes.items():
        if match := _LOW_RANK.fullmatch(key):
            found[renamed(f"{match[1]}.")[:-1], match[2], match[3]] = tuple(shape)
    rank = next((shape[0] for (_, side, _), shape in found.items() if side == "A"), 0)
    wanted: dict[tuple[str, str, str], tuple[int, ...]] = {}
    for layer, module in network.named_modules():
        if ADAPTED.fullmatch(layer):
            rows, *columns = module.weight.shape
            for name in ADAPTERS.values():
                wanted[layer, "A", name] = (rank, *columns)
                wanted[layer, "B", name] = (rows, rank, *(1 for _ in columns[1:]))

    def said(place: tuple[str, str, str]) -> str:
        return f"{place[0]}.lora_{place[1]}.{place[2]}.weight"

    absent = [f"{said(place)} is missing" for place in wanted if place not in found]
    unknown = [f"{said(place)} belongs to nothing" for place in found if place not in wanted]
    wrong = [
        f"{said(place)} is {list(found[place])}, not {list(shape)}"
        for place, shape in wanted.items()
        if place in found and found[place] != shape
    ]
    return [*absent, *unknown, *wrong]


def addition(pair: tuple[Tensor, Tensor]) -> Tensor:
    """``B A`` in float32, as the layer's own weight: a matrix, or for a convolution a kernel.

    A convolution's A is one with the layer's kernel to ``rank`` channels, and B a 1x1 one from there.
    """
    down, up = (half.float() for half in pair)
    flat: Tensor = up.flatten(1) @ down.flatten(1)
    added: Tensor = flat.unflatten(1, down.shape[1:])
    return added


def network_config(shapes: Shapes, heads: Heads) -> dict[str, Any]:
    """The arguments of diffusers' class that gives weights of these shapes; FieldError where none does.

    ``shapes`` have AnimateDiff's own keys or diffusers'. A ControlNet is told by its condition's embedding: 5
    channels are a picture's latents with a mask, more a flow's squares of pixels.
    """
    named = {renamed(key): tuple(shape) for key, shape in shapes.items() if not is_low_rank(key)}
    try:
        levels = _count(named, r"down_blocks\.(\d+)\.")
        channels = tuple(named[f"down_blocks.{k}.resnets.0.conv2.weight"][0] for k in range(levels))
        attends = [f"down_blocks.{k}.attentions.0.norm.weight" in named for k in range(levels)]
        config: dict[str, Any] = {
            "in_channels": named["conv_in.weight"][1],
            "block_out_channels": channels,
            "layers_per_block": _count(named, r"down_blocks\.0\.resnets\.(\d+)\."),
            "cross_attention_dim": next(shape[1] for key, shape in named.items() if _TO_WORDS.fullmatch(key)),
            "motion_max_seq_length": next(shape[1] for key, shape in named.items() if key.endswith("pos_embed.pe")),
            "num_attention_heads": heads.within,
            "motion_num_attention_heads": heads.over_time,
            "down_block_types": tuple(f"{'CrossAttn' * one}DownBlockMotion" for one in attends),
        }
        condition = named.get("controlnet_cond_embedding.weight")
        if condition is None:
            config["out_channels"] = named["conv_out.weight"][0]
            config["up_block_types"] = tuple(f"{'CrossAttn' * one}UpBlockMotion" for one in reversed(attends))
            config["use_motion_mid_block"] = any(key.startswith("mid_block.motion_modules.") for key in named)
        else:
            masked = condition[1] == config["in_channels"] + 1
            config["conditioning_channels"] = condition[1] - masked
            config["concat_conditioning_mask"] = masked
    except (KeyError, IndexError, StopIteration) as error:
        raise FieldError(
            "adapter", f"its keys are no network of AnimateDiff's ({error})", "give it as released"
        ) from None
    return config


def _count(named: Iterable[str], pattern: str) -> int:
    return 1 + max((int(match[1]) for key in named if (match := re.match(pattern, key))), default=-1)

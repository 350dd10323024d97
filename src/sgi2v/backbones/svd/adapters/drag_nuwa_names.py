"""Names in DragNUWA's file (Stability AI's layout) of the weights that diffusers' classes call otherwise."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

UNET: Final = "model.diffusion_model."
CLIP: Final = "conditioner.embedders.0.open_clip.model."
ENCODER: Final = "conditioner.embedders.3.encoder."
DECODER: Final = "first_stage_model."
BLUR: Final = "guassian_filter.weight"
"""The blur's kernel, a formula, which the pruned file leaves out; spelt as it is spelt there."""
_RESNET: Final = MappingProxyType(
    {
        "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
        "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
    }
)  # fmt: skip
_TOPS: Final = MappingProxyType(
    {
        "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
        "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
    }
)  # fmt: skip
_ATTENTION: Final = MappingProxyType(
    {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
)
_CLIP: Final = (
    ("vision_model.embeddings.class_embedding", "visual.class_embedding"),
    ("vision_model.embeddings.patch_embedding.", "visual.conv1."),
    ("vision_model.embeddings.position_embedding.weight", "visual.positional_embedding"),
    ("vision_model.pre_layrnorm.", "visual.ln_pre."),
    ("vision_model.post_layernorm.", "visual.ln_post."),
    ("vision_model.encoder.layers.", "visual.transformer.resblocks."),
    (".layer_norm1.", ".ln_1."),
    (".layer_norm2.", ".ln_2."),
    (".mlp.fc1.", ".mlp.c_fc."),
    (".mlp.fc2.", ".mlp.c_proj."),
    (".self_attn.out_proj.", ".attn.out_proj."),
)
TEXT: Final = ("positional_embedding", "text_projection", "logit_scale", "token_embedding.weight",
               "ln_final.weight", "ln_final.bias")  # fmt: skip
"""Weights of the image encoder's text side, which the file holds and nothing uses."""


def unet_layer(layer: str, *, layers: int, attentive: Sequence[bool]) -> str:
    """Name in the file, without its prefix, of a layer of diffusers' spatio-temporal U-Net.

    ``layers`` are those of a block on the way down, ``attentive`` the levels on the way up that have attention.
    """
    if layer in _TOPS:
        return _TOPS[layer]
    way, *parts = layer.split(".")
    if way == "mid_block":
        kind, index, rest = parts[0], int(parts[1]), parts[2:]
        block = f"middle_block.{1 if kind == 'attentions' else 2 * index}"
    else:
        level, kind, index, rest = int(parts[0]), parts[1], int(parts[2]), parts[3:]
        first = level * (layers + 1) + (way == "down_blocks")
        place = f"{'input' if way == 'down_blocks' else 'output'}_blocks"
        if kind == "downsamplers":
            return f"{place}.{first + layers}.0.op"
        if kind == "upsamplers":
            return f"{place}.{first + layers}.{1 + attentive[level]}.conv"
        block = f"{place}.{first + index}.{int(kind == 'attentions')}"
    return f"{block}.{_resnet(rest) if kind == 'resnets' else _transformer('.'.join(rest))}"


def _resnet(rest: Sequence[str]) -> str:
    if rest[0] == "time_mixer":
        return "time_mixer"
    inner = _RESNET[rest[1]]
    return inner if rest[0] == "spatial_res_block" else f"time_stack.{inner}"


def _transformer(rest: str) -> str:
    rest = rest.replace("temporal_transformer_blocks.", "time_stack.")
    return rest.replace("time_pos_embed.linear_1", "time_pos_embed.0").replace(
        "time_pos_embed.linear_2", "time_pos_embed.2"
    )


def film_blocks(levels: int, layers: int) -> Mapping[str, tuple[str, int]]:
    """Residual block of diffusers' U-Net -> the file's name of it and the level of the flow that modulates it."""
    down = {
        f"down_blocks.{level}.resnets.0": (f"input_blocks.{1 + level * (layers + 1)}.0", level)
        for level in range(levels)
    }
    up = {
        f"up_blocks.{level}.resnets.0": (f"output_blocks.{level * (layers + 1)}.0", levels - 1 - level)
        for level in range(levels)
    }
    return down | up


def autoencoder_key(key: str, levels: int) -> str:
    """Name in the file, behind ``encoder.`` or ``decoder.``, of a weight of diffusers' autoencoder's half."""
    key = re.sub(r"^mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
    key = re.sub(r"^down_blocks\.(\d+)\.resnets\.", r"down.\1.block.", key)
    key = re.sub(r"^down_blocks\.(\d+)\.downsamplers\.0\.", r"down.\1.downsample.", key)
    key = re.sub(r"^up_blocks\.(\d+)\.resnets\.", lambda m: f"up.{levels - 1 - int(m[1])}.block.", key)
    key = re.sub(r"^up_blocks\.(\d+)\.upsamplers\.0\.", lambda m: f"up.{levels - 1 - int(m[1])}.upsample.", key)
    if key.startswith("mid_block.attentions.0."):
        layer, _, weight = key.removeprefix("mid_block.attentions.0.").rpartition(".")
        return f"mid.attn_1.{_ATTENTION[layer]}.{weight}"
    key = key.replace("spatial_res_block.", "").replace("time_mixer.mix_factor", "mix_factor")
    for ours, theirs in _RESNET.items():
        key = key.replace(f"temporal_res_block.{ours}.", f"time_stack.{theirs}.")
    key = key.replace("conv_shortcut.", "nin_shortcut.")
    return key.replace("conv_norm_out.", "norm_out.").replace("time_conv_out.", "conv_out.time_mix_conv.")


def clip_key(key: str) -> tuple[str, str]:
    """Name in the file, without its prefix, of a weight of transformers' image encoder; and q, k, v or "" for its part.

    The file keeps the three projections of an attention in one matrix, q first.
    """
    if key == "visual_projection.weight":
        return "visual.proj", ""
    for ours, theirs in _CLIP:
        key = key.replace(ours, theirs)
    found = re.fullmatch(r"(.*)\.self_attn\.([qkv])_proj\.(weight|bias)", key)
    return (f"{found[1]}.attn.in_proj_{found[3]}", found[2]) if found else (key, "")

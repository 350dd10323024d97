"""Checks of the fields that are used of AnimateDiff's configurations, before any weight is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from sgi2v.backbones.fields import Config, check_class, check_values, number, numbers, one_or_each, positive, wrong
from sgi2v.backbones.folder import read_json
from sgi2v.errors import FieldError
from sgi2v.records import Json

MOTION: Final = "UNetMotionModel"
IMAGES: Final = "UNet2DConditionModel"
"""A network for single pictures, which a motion adapter beside it inflates."""
_PLAIN: Final = ("encoder_hid_dim_type", "addition_embed_type", "time_cond_proj_dim", "class_embed_type")
"""Fields by which other families (SDXL, IP-Adapter, consistency models) are told more than AnimateDiff is."""


def check_networks(folder: Path) -> tuple[Json, Json, Json]:
    """Configurations of denoiser, motion adapter (empty where there is none, or no need) and autoencoder.

    FieldError where these, or the text encoder's, do not fit together.
    """
    unet, vae = (read_json(folder / part / "config.json") for part in ("unet", "vae"))
    file = folder / "motion_adapter" / "config.json"
    adapter = read_json(file) if unet.get("_class_name") == IMAGES and file.is_file() else {}
    _check_unet(unet, folder / "unet" / "config.json")
    if adapter:
        _check_adapter(adapter, unet, file)
    _check_vae(vae, unet, folder / "vae" / "config.json")
    _check_text_encoder(folder, unet)
    return unet, adapter, vae


def _check_unet(unet: Json, file: Path) -> None:
    kind = unet.get("_class_name")
    if kind not in (MOTION, IMAGES):
        raise wrong(file, "_class_name", f"be {MOTION!r} or {IMAGES!r}", kind)
    check_values(unet, dict.fromkeys(_PLAIN), file)
    channels = number(unet, "out_channels", file, 4)
    if number(unet, "in_channels", file, 4) != channels:
        raise wrong(file, "in_channels", f"be {channels}, the latents alone", unet.get("in_channels"))
    levels = numbers(unet, "block_out_channels", file)
    suffix = "Motion" if kind == MOTION else "2D"
    for way in ("down", "up"):
        name = f"{way}_block_types"
        known = (f"{way.title()}Block{suffix}", f"CrossAttn{way.title()}Block{suffix}")
        blocks = unet.get(name)
        if not isinstance(blocks, list) or len(blocks) != len(levels) or any(block not in known for block in blocks):
            raise wrong(file, name, f"be {len(levels)} of {' and '.join(known)}", blocks)
    for name, default in (("layers_per_block", 2), ("cross_attention_dim", 768)):
        if isinstance(unet.get(name), list):
            raise wrong(file, name, "be one whole number for all levels", unet[name])
        number(unet, name, file, default)
    one_or_each(unet, "num_attention_heads" if kind == MOTION else "attention_head_dim", file, len(levels), 8)
    if kind == MOTION:
        number(unet, "motion_max_seq_length", file, 32)
    groups = number(unet, "norm_num_groups", file, 32)
    if uneven := [one for one in levels if one % groups]:
        raise wrong(file, "norm_num_groups", f"divide all block_out_channels, also {uneven[0]}", groups)


def _check_adapter(adapter: Json, unet: Json, file: Path) -> None:
    check_class(adapter, "MotionAdapter", file)
    wanted: Mapping[str, object] = {
        "block_out_channels": unet["block_out_channels"],
        "motion_layers_per_block": unet.get("layers_per_block", 2),
        "conv_in_channels": None,  # PIA's, whose network is given a picture
    }
    check_values(adapter, wanted, file)
    number(adapter, "motion_max_seq_length", file, 32)
    one_or_each(adapter, "motion_num_attention_heads", file, len(unet["block_out_channels"]), 8)


def _check_vae(vae: Json, unet: Json, file: Path) -> None:
    check_class(vae, "AutoencoderKL", file)
    levels = numbers(vae, "block_out_channels", file)
    if "down_block_types" in vae and vae["down_block_types"] != ["DownEncoderBlock2D"] * len(levels):
        raise wrong(file, "down_block_types", f"be {len(levels)} of 'DownEncoderBlock2D'", vae["down_block_types"])
    channels = unet.get("out_channels", 4)
    if number(vae, "latent_channels", file, 4) != channels:
        raise wrong(file, "latent_channels", f"be {channels}, as of the denoiser", vae.get("latent_channels"))
    check_values(vae, {"in_channels": 3, "out_channels": 3, "shift_factor": None}, file)
    positive(vae, "scaling_factor", file, 0.18215)


def _check_text_encoder(folder: Path, unet: Config) -> None:
    file = folder / "text_encoder" / "config.json"
    if not file.is_file():  # texts that were encoded elsewhere do without
        return
    config = read_json(file)
    if config.get("model_type") != "clip_text_model":
        raise FieldError(
            "backbone", f"{file}: model_type must be 'clip_text_model', got {config.get('model_type')!r}",
            "use the text encoder of Stable Diffusion 1.5",
        )  # fmt: skip
    width = unet.get("cross_attention_dim", 768)
    if number(config, "hidden_size", file, 512) != width:
        raise wrong(file, "hidden_size", f"be the denoiser's cross_attention_dim, {width}", config.get("hidden_size"))

"""Checks of the fields that are used of Stable Video Diffusion's configurations, before any weight is read."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sgi2v.backbones.fields import (
    Config,
    check_class,
    check_values,
    flag,
    number,
    numbers,
    one_or_each,
    positive,
    wrong,
)
from sgi2v.backbones.folder import read_json
from sgi2v.records import Json

CLIP_SIZE: Final = 224
"""Width and height of the picture that the pipeline shows the image encoder, in pixels."""
FEATURE_EXTRACTOR: Final = "feature_extractor/preprocessor_config.json"
"""The only part that may be absent: its values are then those of CLIP, which Stable Video Diffusion has."""
_SCHEDULE: Final = (
    ("beta_schedule", ("linear", "scaled_linear", "squaredcos_cap_v2")),
    ("interpolation_type", ("linear", "log_linear")),
    ("timestep_spacing", ("leading", "linspace", "trailing")),
)


def check_scheduler(config: Config, file: Path) -> None:
    """FieldError for a schedule that is not SVD's kind: EDM's, of continuous times, which ends at no noise."""
    for name, value in (("prediction_type", "v_prediction"), ("timestep_type", "continuous")):
        if config.get(name) != value:
            raise wrong(file, name, f"be {value!r} as in SVD", config.get(name))
    check_values(
        config,
        {
            "_class_name": "EulerDiscreteScheduler",
            "final_sigmas_type": "zero",  # sampling goes on until no noise is left
            "use_beta_sigmas": False,
            "use_exponential_sigmas": False,
            "rescale_betas_zero_snr": False,
            "trained_betas": None,
        },
        file,
    )
    flag(config, "use_karras_sigmas", file)
    for name, known in _SCHEDULE:
        if config.get(name, known[0]) not in known:
            raise wrong(file, name, f"be one of {', '.join(known)}", config[name])
    number(config, "num_train_timesteps", file, 1000)
    for name, default in (("beta_start", 0.0001), ("beta_end", 0.02)):
        if positive(config, name, file, default) >= 1:
            raise wrong(file, name, "be below 1", config[name])
    if not isinstance(config.get("steps_offset", 0), int):
        raise wrong(file, "steps_offset", "be a whole number", config["steps_offset"])
    ends = [name for name in ("sigma_min", "sigma_max") if config.get(name) is not None]
    found = [positive(config, name, file) for name in ends]
    if len(found) == 2 and not found[0] < found[1]:
        raise wrong(file, "sigma_min", f"be below sigma_max, {found[1]:g}", found[0])


def check_networks(folder: Path) -> tuple[Json, Json]:
    """Configurations of denoiser and autoencoder; FieldError where these or the image encoder's do not fit together."""
    unet, vae = (read_json(folder / part / "config.json") for part in ("unet", "vae"))
    _check_unet(unet, folder / "unet" / "config.json")
    _check_vae(vae, unet, folder / "vae" / "config.json")
    _check_image_encoder(read_json(folder / "image_encoder" / "config.json"), unet, folder)
    if (folder / FEATURE_EXTRACTOR).is_file():
        said = read_json(folder / FEATURE_EXTRACTOR)
        for name in ("image_mean", "image_std"):
            if name in said:
                numbers(said, name, folder / FEATURE_EXTRACTOR, count=3, real=True)
    return unet, vae


def _check_unet(unet: Json, file: Path) -> None:
    check_values(unet, {"_class_name": "UNetSpatioTemporalConditionModel"}, file)
    out = number(unet, "out_channels", file)
    if number(unet, "in_channels", file, 8) != 2 * out:
        raise wrong(
            file, "in_channels", f"be {2 * out}, latents and picture of {out} channels each", unet["in_channels"]
        )
    number(unet, "num_frames", file, 25)
    count = None
    for way in ("down", "up"):
        blocks, known = unet.get(f"{way}_block_types"), _known(way)
        if blocks is None and f"{way}_block_types" not in unet:
            count = count or 4
            continue
        if not isinstance(blocks, list) or not blocks or any(block not in known for block in blocks):
            raise wrong(file, f"{way}_block_types", f"be a list of {' and '.join(known)}", blocks)
        if count not in (None, len(blocks)):
            raise wrong(file, f"{way}_block_types", f"hold {count}, as many as there are on the way down", blocks)
        count = len(blocks)
    assert count is not None
    if "block_out_channels" in unet:
        numbers(unet, "block_out_channels", file, count=count)
    for name, default in (
        ("layers_per_block", 2), ("num_attention_heads", 5), ("cross_attention_dim", 1024),
        ("transformer_layers_per_block", 1),
    ):  # fmt: skip
        one_or_each(unet, name, file, count, default)
    told = 3 * number(unet, "addition_time_embed_dim", file, 256)
    if number(unet, "projection_class_embeddings_input_dim", file, 768) != told:
        raise wrong(
            file, "projection_class_embeddings_input_dim", f"be {told}, three of addition_time_embed_dim",
            unet.get("projection_class_embeddings_input_dim", 768),
        )  # fmt: skip


def _known(way: str) -> tuple[str, ...]:
    return f"{way.title()}BlockSpatioTemporal", f"CrossAttn{way.title()}BlockSpatioTemporal"


def _check_vae(vae: Json, unet: Json, file: Path) -> None:
    check_class(vae, "AutoencoderKLTemporalDecoder", file)  # one for pictures alone has no memory of time
    levels = numbers(vae, "block_out_channels", file)
    if "down_block_types" in vae and vae["down_block_types"] != ["DownEncoderBlock2D"] * len(levels):
        raise wrong(file, "down_block_types", f"be {len(levels)} of 'DownEncoderBlock2D'", vae["down_block_types"])
    if number(vae, "latent_channels", file, 4) != unet["out_channels"]:
        raise wrong(
            file, "latent_channels", f"be {unet['out_channels']}, as of the denoiser", vae.get("latent_channels")
        )
    check_values(vae, {"in_channels": 3, "out_channels": 3}, file)
    number(vae, "layers_per_block", file, 1)
    positive(vae, "scaling_factor", file, 0.18215)
    flag(vae, "force_upcast", file)


def _check_image_encoder(clip: Json, unet: Json, folder: Path) -> None:
    file = folder / "image_encoder" / "config.json"
    wanted = {"architectures": ["CLIPVisionModelWithProjection"], "image_size": CLIP_SIZE, "num_channels": 3}
    check_values(clip, wanted, file)
    for name in ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "patch_size"):
        if name in clip:
            number(clip, name, file)
    across = unet.get("cross_attention_dim", 1024)
    if number(clip, "projection_dim", file, 512) not in (across if isinstance(across, list) else [across]):
        raise wrong(
            file, "projection_dim", f"be the denoiser's cross_attention_dim, {across}", clip.get("projection_dim")
        )

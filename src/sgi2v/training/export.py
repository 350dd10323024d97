"""Writes trained parts as a folder in diffusers' layout of Stable Video Diffusion."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, StableVideoDiffusionPipeline
from torch import nn
from transformers import CLIPImageProcessor

from sgi2v.training.feed import CLIP_MEAN, CLIP_SIZE, CLIP_STD

SIGMA_MAX: Final = 80.0
"""Highest noise level of a new model, where nothing else is said."""


def scheduler(sigma_max: float) -> EulerDiscreteScheduler:
    """SVD's scheduler with another highest noise level: Karras' steps, continuous time, v-prediction."""
    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        prediction_type="v_prediction",
        interpolation_type="linear",
        use_karras_sigmas=True,
        sigma_min=0.002,
        sigma_max=sigma_max,
        steps_offset=1,
        timestep_spacing="leading",
        timestep_type="continuous",
    )


def export(
    folder: Path,
    models: nn.ModuleDict,
    autoencoder: AutoencoderKLTemporalDecoder,
    settings: Mapping[str, object],
    *,
    sigma_max: float | None = None,
    shard_size: str = "13MB",
    like: Path | None = None,
) -> Path:
    """Write the folder anew: weights in float16 safetensors of at most `shard_size`, and `sgi2v.json` with `settings`.

    models: "unet" and "image_encoder". like: a model's folder whose scheduler and picture processor are taken over.
    sigma_max: highest noise level of the scheduler; by default that of `like`, or else 80. Files of an earlier export
    in the folder are replaced, others are left.
    """
    # A private copy: the caller's networks keep their type.
    parts = {name: _half(model) for name, model in {**models, "vae": autoencoder}.items()}
    if like is not None:
        changed = {} if sigma_max is None else {"sigma_max": sigma_max}
        steps = EulerDiscreteScheduler.from_pretrained(like, subfolder="scheduler", local_files_only=True, **changed)
        processor = CLIPImageProcessor.from_pretrained(like, subfolder="feature_extractor", local_files_only=True)
    else:
        steps = scheduler(SIGMA_MAX if sigma_max is None else sigma_max)
        processor = CLIPImageProcessor(
            crop_size=CLIP_SIZE, size={"shortest_edge": CLIP_SIZE}, image_mean=list(CLIP_MEAN), image_std=list(CLIP_STD)
        )
    pipeline = StableVideoDiffusionPipeline(
        vae=parts["vae"],
        image_encoder=parts["image_encoder"],
        unet=parts["unet"],
        scheduler=steps,
        feature_extractor=processor,
    )
    temporary = folder.with_name(folder.name + ".part")
    shutil.rmtree(temporary, ignore_errors=True)
    pipeline.save_pretrained(temporary, safe_serialization=True, max_shard_size=shard_size)
    for config in temporary.glob("*/config.json"):
        # Where a network was read from is this machine's affair.
        said = json.loads(config.read_text())
        said.pop("_name_or_path", None)
        config.write_text(json.dumps(said, indent=2, sort_keys=True) + "\n")
    (temporary / "sgi2v.json").write_text(json.dumps(dict(settings), indent=2) + "\n")
    for file in temporary.rglob("*.safetensors"):
        file.chmod(0o644)
    folder.mkdir(parents=True, exist_ok=True)
    for part in sorted(temporary.iterdir()):
        goal = folder / part.name
        if goal.is_dir():
            shutil.rmtree(goal)
        os.replace(part, goal)
    temporary.rmdir()
    return folder


def _half(model: Any) -> Any:
    """A copy of the network in float16."""
    kind = type(model)
    copied = kind.from_config(model.config) if hasattr(kind, "from_config") else kind(model.config)
    copied.load_state_dict(model.state_dict())
    return copied.to(torch.float16).eval()

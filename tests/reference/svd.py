"""Stable Video Diffusion written literally on diffusers' own classes: encode, one denoising step, decode.

Nothing here is fast and nothing is shared with the package. Latents are `[1, frames, channels, height, width]`, as
diffusers has them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import (
    _resize_with_antialiasing,
)
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that changes the result; the defaults are the published ones."""

    width: int = 1024
    height: int = 576
    num_frames: int = 14
    num_steps: int = 50
    seed: int = 817
    remaining: tuple[int, int] | None = None
    """First and last guided step as `num_steps - index`, both included; stands instead of `sigmas` if given."""
    sigmas: tuple[float, float] = (36.0, 376.0)
    """Noise levels between which steps are guided, both included."""
    iterations: int = 5
    lr: float = 0.21
    weight_decay: float = 0.01
    layers: tuple[str, ...] = ("up_blocks.2.attentions.1", "up_blocks.2.attentions.2")
    gamma: float = 0.5
    heatmap_std: float = 0.4
    fps: int = 7
    motion_bucket: int = 127
    noise_augmentation: float = 0.02
    guidance: tuple[float, float] = (1.0, 3.0)
    decode_chunk: int = 8


@dataclass(frozen=True, kw_only=True)
class Models:
    """The five parts of a Stable Video Diffusion folder."""

    vae: Any
    image_encoder: Any
    unet: Any
    scheduler: Any
    feature_extractor: Any


def load_models(folder: Path) -> Models:
    """The parts of a folder in diffusers' layout, in float32, frozen."""
    vae = AutoencoderKLTemporalDecoder.from_pretrained(folder / "vae", use_safetensors=True)
    encoder = CLIPVisionModelWithProjection.from_pretrained(folder / "image_encoder", use_safetensors=True)
    unet = UNetSpatioTemporalConditionModel.from_pretrained(folder / "unet", use_safetensors=True)
    for network in (vae, encoder, unet):
        network.requires_grad_(False).eval()
    return Models(
        vae=vae,
        image_encoder=encoder,
        unet=unet,
        scheduler=EulerDiscreteScheduler.from_pretrained(folder / "scheduler"),
        feature_extractor=CLIPImageProcessor.from_pretrained(folder / "feature_extractor"),
    )


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What the network is told besides the latents, for the conditional branch."""

    embedding: Tensor
    """`[1, 1, D]`, the image seen by CLIP."""
    image_latents: Tensor
    """`[1, F, 4, H, W]`, the image seen by the autoencoder, not scaled, the same in every frame."""
    time_ids: Tensor
    """`[1, 3]`: fps - 1, motion bucket, noise augmentation."""


@torch.no_grad()
def encode(models: Models, image: Image.Image, settings: Settings, generator: torch.Generator) -> Condition:
    """Condition of the resized image; draws the noise on the image from `generator`."""
    # Batch first, then channels to the front: another memory layout makes convolutions round differently.
    pixels = torch.from_numpy(np.array(image)[None].astype(np.float32) / 255).permute(0, 3, 1, 2) * 2 - 1

    small = (_resize_with_antialiasing(pixels, (224, 224)) + 1) / 2
    mean = torch.tensor(models.feature_extractor.image_mean).view(1, 3, 1, 1)
    std = torch.tensor(models.feature_extractor.image_std).view(1, 3, 1, 1)
    embedding = models.image_encoder((small - mean) / std).image_embeds[:, None]

    noise = torch.randn(pixels.shape, generator=generator)
    noisy = pixels + settings.noise_augmentation * noise
    image_latents = models.vae.encode(noisy).latent_dist.mode()
    time_ids = [[settings.fps - 1, settings.motion_bucket, settings.noise_augmentation]]
    return Condition(
        embedding=embedding,
        image_latents=image_latents[:, None].repeat(1, settings.num_frames, 1, 1, 1),
        time_ids=torch.tensor(time_ids, dtype=torch.float32),
    )


def start(models: Models, image: Image.Image, settings: Settings) -> tuple[Condition, Tensor]:
    """Condition and first latents; sets the scheduler's steps. The image's noise is drawn first, then the latents."""
    generator = torch.Generator("cpu").manual_seed(settings.seed)
    condition = encode(models, image, settings, generator)
    models.scheduler.set_timesteps(settings.num_steps)
    noise = torch.randn(condition.image_latents.shape, generator=generator)
    return condition, noise * models.scheduler.init_noise_sigma


@torch.no_grad()
def denoising_step(
    models: Models, latents: Tensor, timestep: Tensor, condition: Condition, settings: Settings
) -> Tensor:
    """One Euler step of the scheduler, guidance growing linearly over the frames."""
    scaled = models.scheduler.scale_model_input(latents, timestep)
    predictions = []
    for embedding, image_latents in (
        (torch.zeros_like(condition.embedding), torch.zeros_like(condition.image_latents)),
        (condition.embedding, condition.image_latents),
    ):
        predictions.append(
            models.unet(
                torch.cat([scaled, image_latents], dim=2),
                timestep,
                encoder_hidden_states=embedding,
                added_time_ids=condition.time_ids,
            ).sample
        )
    unconditional, conditional = predictions
    guided = torch.empty_like(conditional)
    for j in range(settings.num_frames):
        along = j / max(1, settings.num_frames - 1)
        scale = settings.guidance[0] + along * (settings.guidance[1] - settings.guidance[0])
        guided[:, j] = unconditional[:, j] + scale * (conditional[:, j] - unconditional[:, j])
    stepped: Tensor = models.scheduler.step(guided, timestep, latents).prev_sample
    return stepped


@torch.no_grad()
def decode(models: Models, latents: Tensor, settings: Settings) -> Tensor:
    """Frames `[F, 3, H, W]`, 0..1, not rounded. The decoder mixes the frames of a chunk, so the chunk matters."""
    unscaled = latents[0] / models.vae.config.scaling_factor
    frames = []
    for start in range(0, settings.num_frames, settings.decode_chunk):
        chunk = unscaled[start : start + settings.decode_chunk]
        frames.append(models.vae.decode(chunk, num_frames=len(chunk)).sample)
    return (torch.cat(frames) / 2 + 0.5).clamp(0, 1)

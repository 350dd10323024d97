"""Stable Video Diffusion's published architecture on the meta device: every shape and number format, no weights."""

from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLTemporalDecoder,
    EulerDiscreteScheduler,
    StableVideoDiffusionPipeline,
    UNetSpatioTemporalConditionModel,
)
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from sgi2v.backbones.svd import SVD, SVDCondition
from sgi2v.backbones.svd_outline import SVDOutline, SVDSettings
from sgi2v.grid import Grid

NUM_PARAMETERS = 1_524_623_082
META = torch.device("meta")


def published_unet() -> UNetSpatioTemporalConditionModel:
    """The denoiser of stable-video-diffusion-img2vid; 1.52 B parameters."""
    attentive = ("CrossAttnDownBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal")
    unet = UNetSpatioTemporalConditionModel(
        sample_size=96,
        in_channels=8,
        out_channels=4,
        down_block_types=(*[attentive[0]] * 3, "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", *[attentive[1]] * 3),
        block_out_channels=(320, 640, 1280, 1280),
        num_attention_heads=(5, 10, 20, 20),
        layers_per_block=2,
        transformer_layers_per_block=1,
        cross_attention_dim=1024,
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=768,
        num_frames=14,
    )
    count = sum(p.numel() for p in unet.parameters())
    assert count == NUM_PARAMETERS, f"{count} parameters"
    return unet


def published_svd(dtype: torch.dtype = torch.float16) -> SVD:
    """The model behind the backbone contract; its autoencoder and image encoder are only there to be named."""
    with META:
        unet = published_unet().to(META, dtype)
        vae = AutoencoderKLTemporalDecoder()
        image_encoder = CLIPVisionModelWithProjection(CLIPVisionConfig(num_hidden_layers=1))
    pipeline = StableVideoDiffusionPipeline(
        vae=vae,
        image_encoder=image_encoder,
        unet=unet,
        scheduler=EulerDiscreteScheduler(),
        feature_extractor=CLIPImageProcessor(),
    )
    scheduler = {
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": "v_prediction",
        "use_karras_sigmas": True,
        "sigma_min": 0.002,
        "sigma_max": 700.0,
        "timestep_spacing": "leading",
        "timestep_type": "continuous",
        "steps_offset": 1,
    }
    outline = SVDOutline(
        folder=Path("published"), settings=SVDSettings(), stride=8, channels=4, scheduler=scheduler
    )
    return SVD(pipeline, outline, "svd")


def condition_of(backbone: SVD, grid: Grid, *, guided: bool = True) -> SVDCondition:
    """What the network sees beside the latents, in shape only; guided: both branches run, one after the other."""
    dtype = backbone.dtype
    channels = backbone.denoiser.config.cross_attention_dim
    return SVDCondition(
        image_latents=torch.empty(grid.channels, grid.rows, grid.columns, dtype=dtype, device=META),
        embedding=torch.empty(1, 1, channels, dtype=dtype, device=META),
        time_ids=torch.empty(1, 3, dtype=dtype, device=META),
        guidance=torch.empty(grid.num_frames, 1, 1, 1, device=META),
        guided=guided,
    )


def held_tensors(backbone: SVD, condition: SVDCondition, x: Tensor) -> Iterator[Tensor]:
    """What is alive before a step begins: the denoiser's weights, the condition, the latents."""
    yield from backbone.denoiser.parameters()
    yield from backbone.denoiser.buffers()
    yield from (condition.image_latents, condition.embedding, condition.time_ids, condition.guidance, x)

"""Stable Video Diffusion's published architecture with random weights: on a device, or on meta for its shapes alone."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from diffusers import (
    AutoencoderKLTemporalDecoder,
    EulerDiscreteScheduler,
    StableVideoDiffusionPipeline,
    UNetSpatioTemporalConditionModel,
)
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from sgi2v.backbones.svd.model import SVD
from sgi2v.backbones.svd.outline import SVDOutline, SVDSettings
from sgi2v.backbones.svd.parts import SVDCondition
from sgi2v.grid import Grid

NUM_PARAMETERS = 1_524_623_082
META = torch.device("meta")
Scale = Literal["full", "small"]
"""full: as published. small: the same classes, levels and layers with fewer channels, for a CPU."""

_ATTENTIVE = ("CrossAttnDownBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal")
_UNET: Mapping[Scale, Mapping[str, Any]] = MappingProxyType(
    {
        "full": {
            "block_out_channels": (320, 640, 1280, 1280),
            "num_attention_heads": (5, 10, 20, 20),
            "cross_attention_dim": 1024,
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 768,
        },
        "small": {
            "block_out_channels": (64, 128, 128, 128),
            "num_attention_heads": (1, 2, 2, 2),
            "cross_attention_dim": 64,
            "addition_time_embed_dim": 32,
            "projection_class_embeddings_input_dim": 96,
        },
    }
)
_VAE: Mapping[Scale, Mapping[str, Any]] = MappingProxyType(
    {
        "full": {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2},
        "small": {"block_out_channels": (32, 32, 64, 64), "layers_per_block": 1},
    }
)
_IMAGE_ENCODER: Mapping[Scale, Mapping[str, Any]] = MappingProxyType(
    {
        "full": {
            "hidden_size": 1280,
            "intermediate_size": 5120,
            "num_hidden_layers": 32,
            "num_attention_heads": 16,
            "patch_size": 14,
            "projection_dim": 1024,
        },
        "small": {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 1,
            "patch_size": 32,
            "projection_dim": 64,
        },
    }
)
_SCHEDULER: Mapping[str, Any] = MappingProxyType(
    {
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
)


def published_unet(scale: Scale = "full") -> UNetSpatioTemporalConditionModel:
    """The denoiser of stable-video-diffusion-img2vid; 1.52 B parameters at full scale."""
    unet = UNetSpatioTemporalConditionModel(
        sample_size=96,
        in_channels=8,
        out_channels=4,
        down_block_types=(*[_ATTENTIVE[0]] * 3, "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", *[_ATTENTIVE[1]] * 3),
        layers_per_block=2,
        transformer_layers_per_block=1,
        num_frames=14,
        **_UNET[scale],
    )
    count = sum(p.numel() for p in unet.parameters())
    assert scale != "full" or count == NUM_PARAMETERS, f"{count} parameters"
    return unet


def published_svd(
    dtype: torch.dtype = torch.float16,
    *,
    device: torch.device = META,
    scale: Scale = "full",
    settings: SVDSettings | None = None,
) -> SVD:
    """The whole model behind the backbone contract: denoiser, autoencoder and image encoder, weights as initialised.

    On meta there are shapes and number formats only. Three networks of 1.52, 0.10 and 0.63 B parameters.
    """
    with device:
        unet = published_unet(scale)
        vae = AutoencoderKLTemporalDecoder(
            down_block_types=("DownEncoderBlock2D",) * 4, sample_size=768, force_upcast=True, **_VAE[scale]
        )
        image_encoder = CLIPVisionModelWithProjection(
            CLIPVisionConfig(image_size=224, hidden_act="gelu", **_IMAGE_ENCODER[scale])
        )
    pipeline = StableVideoDiffusionPipeline(
        vae=vae.to(device, dtype),
        image_encoder=image_encoder.to(device, dtype),
        unet=unet.to(device, dtype),
        scheduler=EulerDiscreteScheduler(),
        feature_extractor=CLIPImageProcessor(),
    )
    outline = SVDOutline(
        folder=Path("published"),
        name="svd",
        settings=settings or SVDSettings(),
        stride=8,
        channels=4,
        scheduler=dict(_SCHEDULER),
        unet=dict(unet.config),
    )
    return SVD(pipeline, outline, device=device)


def condition_of(backbone: SVD, grid: Grid, *, guided: bool = True) -> SVDCondition:
    """Random inputs of the network beside the latents; guided: both branches run."""
    dtype, device = backbone.dtype, backbone.device
    channels: int = backbone.outline.unet["cross_attention_dim"]
    return SVDCondition(
        image_latents=torch.randn(grid.channels, grid.rows, grid.columns, dtype=dtype, device=device),
        embedding=torch.randn(1, 1, channels, dtype=dtype, device=device),
        time_ids=torch.full((1, 3), 6.0, dtype=dtype, device=device),
        guidance=torch.linspace(1.0, 3.0, grid.num_frames, device=device)[:, None, None, None],
        guided=guided,
    )


def held_tensors(backbone: SVD, condition: SVDCondition, x: Tensor) -> Iterator[Tensor]:
    """Tensors alive before a step begins: the denoiser's weights, the condition, the latents."""
    yield from backbone.denoiser.parameters()
    yield from backbone.denoiser.buffers()
    yield from (condition.image_latents, condition.embedding, condition.time_ids, condition.guidance, x)

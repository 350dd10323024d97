"""Tiny Stable Video Diffusion folders of diffusers' real classes, seeded, for tests that run the whole machine."""

import functools
import json
import tempfile
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLTemporalDecoder,
    EulerDiscreteScheduler,
    StableVideoDiffusionPipeline,
    UNetSpatioTemporalConditionModel,
)
from torch import nn
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from sgi2v.backbones import Backbone, Memory, Text, load_backbone
from sgi2v.backbones.folder import bundled_folder
from sgi2v.backbones.svd.model import SVD
from sgi2v.backbones.svd.outline import SVDSettings
from sgi2v.controllers import Setup
from sgi2v.grid import Grid, Tracks

EMBEDDING = 32


def tiny_scheduler() -> EulerDiscreteScheduler:
    """The scheduler exactly as Stable Video Diffusion ships it."""
    return EulerDiscreteScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        interpolation_type="linear",
        use_karras_sigmas=True,
        sigma_min=0.002,
        sigma_max=700.0,
        timestep_spacing="leading",
        timestep_type="continuous",
        steps_offset=1,
    )


def tiny_unet(num_frames: int = 14, *, light: bool = False) -> UNetSpatioTemporalConditionModel:
    """Four levels, two layers a block, as in Stable Video Diffusion, so that layer names mean the same layers.

    `light` leaves out attention at the latents' own resolution, where most of the time goes: for whole runs of many
    frames. It has no layer `up_blocks.3.attentions.*`.
    """
    plain = ("DownBlockSpatioTemporal", "UpBlockSpatioTemporal")
    attentive = ("CrossAttnDownBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal")
    down, up = plain if light else attentive
    return UNetSpatioTemporalConditionModel(
        sample_size=8,
        down_block_types=(down, attentive[0], attentive[0], plain[0]),
        up_block_types=(plain[1], attentive[1], attentive[1], up),
        block_out_channels=(32, 64, 64, 64),
        num_attention_heads=(1, 2, 2, 4),
        layers_per_block=2,
        cross_attention_dim=EMBEDDING,
        addition_time_embed_dim=16,
        projection_class_embeddings_input_dim=48,
        num_frames=num_frames,
    )


def tiny_autoencoder() -> AutoencoderKLTemporalDecoder:
    """Eight pixels a cell, four latent channels, a decoder that mixes frames."""
    return AutoencoderKLTemporalDecoder(
        down_block_types=("DownEncoderBlock2D",) * 4,
        block_out_channels=(32, 32, 32, 32),
        layers_per_block=1,
        sample_size=64,
    )


def tiny_clip() -> CLIPVisionModelWithProjection:
    """CLIP's image encoder at the input size that the pipeline resizes to."""
    config = CLIPVisionConfig(
        hidden_size=EMBEDDING,
        intermediate_size=2 * EMBEDDING,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=224,
        patch_size=32,
        projection_dim=EMBEDDING,
    )
    return CLIPVisionModelWithProjection(config)


def _wake_up(network: nn.Module) -> None:
    """Make a freshly initialised network depend on its inputs, or comparing two of them shows nothing.

    Fresh attention is almost uniform, fresh norms are the identity, fresh time mixers are all alike: here attention
    has an opinion, norms and biases differ per channel and every mixer has its own share of the time branch. Much
    sharper attention (4 instead of 2.5), or fewer channels than 64 below the top level, makes the sampling chaotic:
    then a last bit grows to a tenth of the picture's range in six steps and nothing can be compared at all.
    """
    for name, parameter in network.named_parameters():
        last_but_one = name.split(".")[-2] if "." in name else ""
        if name.endswith("mix_factor"):
            parameter.uniform_(-1.0, 1.0)
        elif last_but_one in ("to_q", "to_k") and parameter.ndim == 2:
            parameter.mul_(2.5)
        elif last_but_one == "to_v" and parameter.ndim == 2:
            parameter.mul_(2.0)
        elif "norm" in last_but_one and name.endswith("weight"):
            parameter.add_(0.3 * torch.randn_like(parameter))
        elif name.endswith("bias"):
            parameter.add_(0.1 * torch.randn_like(parameter))


def save_tiny_svd(folder: Path, *, num_frames: int = 14, seed: int = 0, light: bool = False) -> Path:
    """Write a tiny model to `folder` in diffusers' layout (safetensors); the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        unet, vae, clip = tiny_unet(num_frames, light=light), tiny_autoencoder(), tiny_clip()
        for network in (unet, vae, clip):
            _wake_up(network)
        clip.visual_projection.weight.mul_(4.0)
    StableVideoDiffusionPipeline(
        vae=vae,
        image_encoder=clip,
        unet=unet,
        scheduler=tiny_scheduler(),
        feature_extractor=CLIPImageProcessor(),
    ).save_pretrained(folder, safe_serialization=True)
    return folder


@functools.cache
def _shared_root() -> tempfile.TemporaryDirectory[str]:
    """Goes when the interpreter does."""
    return tempfile.TemporaryDirectory(prefix="sgi2v-tiny-")


@functools.cache
def tiny_svd(num_frames: int = 14, seed: int = 0, light: bool = False) -> Path:
    """A tiny model's folder, written once per test run. Read it; to damage one, `save_tiny_svd` your own."""
    folder = Path(_shared_root().name) / f"{num_frames}-{seed}-{light}"
    return save_tiny_svd(folder, num_frames=num_frames, seed=seed, light=light)


@functools.cache
def small_bundled() -> Path:
    """The bundled model asked for 8 frames of 64x64, for runs that need a trained one and no fine pictures."""
    folder = Path(_shared_root().name) / "bundled"
    folder.mkdir()
    for part in bundled_folder().iterdir():
        if part.name != "sgi2v.json":
            (folder / part.name).symlink_to(part, target_is_directory=part.is_dir())
    settings = json.loads((bundled_folder() / "sgi2v.json").read_text(encoding="utf-8"))
    settings |= {"width": 64, "height": 64, "num_frames": 8}
    (folder / "sgi2v.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def load_svd(
    source: str | Path,
    *,
    device: str | torch.device | None = "cpu",
    dtype: str | torch.dtype | None = None,
    settings: SVDSettings | None = None,
    memory: Memory = "auto",
    compiled: bool = False,
) -> SVD:
    """A model of which the test knows that it is Stable Video Diffusion."""
    backbone = load_backbone(source, device=device, dtype=dtype, settings=settings, memory=memory, compiled=compiled)
    assert isinstance(backbone, SVD)
    return backbone


def setup_of(
    backbone: Backbone, tracks: Tracks, grid: Grid, *, num_steps: int = 6, condition: object = None, seed: int = 0
) -> Setup:
    """What a method is given for a run of so many steps; encoded here unless there is a condition."""
    generator = torch.Generator().manual_seed(seed)
    return Setup(
        backbone=backbone,
        condition=condition or backbone.encode(tracks.image, Text(), grid, generator),
        tracks=tracks,
        grid=grid,
        levels=backbone.levels(num_steps, grid),
        generator=generator,
    )

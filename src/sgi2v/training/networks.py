"""The networks of a denoiser's training: from random weights or a model's folder, and which of them learn."""

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from sgi2v.device import bfloat16_is_fast
from sgi2v.errors import FieldError
from sgi2v.training.feed import CLIP_SIZE
from sgi2v.training.optimiser import MasterAdam
from sgi2v.training.spatial import silence_temporal_layers
from sgi2v.training.stages import DenoiserTraining, TrainingType

_TEMPORAL = ("temporal_res_block.", "temporal_transformer_blocks.", "time_mixer.", "time_pos_embed.")


def build(training: DenoiserTraining) -> nn.ModuleDict:
    """Denoiser ("unet") and image encoder ("image_encoder") in float32, of random weights or from `initial`.

    Parameters that do not learn need no gradient.
    """
    models = _random(training) if training.initial is None else _loaded(training.initial)
    unet = models["unet"]
    assert isinstance(unet, UNetSpatioTemporalConditionModel)
    for name, parameter in unet.named_parameters():
        parameter.requires_grad_(
            training.trained == "all"
            or (training.trained == "attention" and ".attentions." in name)
            or (training.trained == "temporal" and any(part in name for part in _TEMPORAL))
        )
    models["image_encoder"].requires_grad_(not training.freeze_image_encoder)
    if training.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    return models


def averaged(training: DenoiserTraining, optimiser: MasterAdam) -> nn.ModuleDict:
    """The networks with the averaged weights, on the CPU in float32; what did not learn is as it was, to the bit."""
    models = build(training)
    optimiser.write_average(models)
    return models.eval().requires_grad_(False)


def _loaded(folder: Path) -> nn.ModuleDict:
    try:
        unet = UNetSpatioTemporalConditionModel.from_pretrained(
            folder, subfolder="unet", use_safetensors=True, dtype=torch.float32, local_files_only=True
        )
        image_encoder = CLIPVisionModelWithProjection.from_pretrained(
            folder, subfolder="image_encoder", use_safetensors=True, local_files_only=True
        )
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise FieldError("initial", f"{folder} is no Stable Video Diffusion model ({first_line(error)})") from error
    return nn.ModuleDict({"unet": unet, "image_encoder": image_encoder.float()})


def first_line(error: Exception) -> str:
    """A library's reason, without the advice that follows it."""
    return str(error).strip().splitlines()[0]


def _random(training: DenoiserTraining) -> nn.ModuleDict:
    torch.manual_seed(training.seed)
    latent_channels = AutoencoderKLTemporalDecoder.load_config(training.autoencoder_folder)["latent_channels"]
    unet = UNetSpatioTemporalConditionModel(
        sample_size=(training.stages[-1].height // 8, training.stages[-1].width // 8),
        in_channels=2 * latent_channels,
        out_channels=latent_channels,
        down_block_types=("CrossAttnDownBlockSpatioTemporal",) * 3 + ("DownBlockSpatioTemporal",),
        up_block_types=("UpBlockSpatioTemporal",) + ("CrossAttnUpBlockSpatioTemporal",) * 3,
        block_out_channels=training.channels,
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=96,
        layers_per_block=2,
        cross_attention_dim=training.embedding,
        transformer_layers_per_block=1,
        num_attention_heads=tuple(channels // 32 for channels in training.channels),
        num_frames=training.num_frames,
    )
    silence_temporal_layers(unet)
    nn.init.zeros_(unet.conv_out.weight)
    nn.init.zeros_(unet.conv_out.bias)
    image_encoder = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=CLIP_SIZE,
            patch_size=32,
            projection_dim=training.embedding,
        )
    )
    return nn.ModuleDict({"unet": unet, "image_encoder": image_encoder})


def load_autoencoder(folder: Path) -> AutoencoderKLTemporalDecoder:
    """The autoencoder of a folder, frozen, in float32; FieldError where there is none."""
    try:
        model: AutoencoderKLTemporalDecoder = AutoencoderKLTemporalDecoder.from_pretrained(
            folder, use_safetensors=True, dtype=torch.float32, local_files_only=True
        )
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise FieldError("autoencoder", f"{folder} holds none that can be read ({first_line(error)})") from error
    return model.eval().requires_grad_(False)


def place_encoder(
    autoencoder: AutoencoderKLTemporalDecoder, device: str, dtype: torch.dtype
) -> AutoencoderKLTemporalDecoder:
    """Put it where it computes: in float32 where its folder says that it bears no less, as SVD's does."""
    upcast: bool = autoencoder.config.force_upcast
    return autoencoder.to(device=device, dtype=torch.float32 if upcast else dtype)


def type_of(wanted: TrainingType, device: str, begun: str | None, num_frames: Sequence[int] = ()) -> torch.dtype:
    """The type to compute in; auto is the type a run has begun with, or else bfloat16 wherever that is fast.

    FieldError for clips of two frames in bfloat16 on a CPU: torch 2.13 gives garbage there as the gradient of a
    temporal convolution's weights (`(3, 1, 1)` over a depth of 2, and no other; tests/test_training.py).
    """
    on_cpu = torch.device(device).type == "cpu"
    if wanted == "auto":
        wanted = begun or ("float32" if on_cpu and not bfloat16_is_fast() else "bfloat16")  # type: ignore[assignment]
    if on_cpu and wanted == "bfloat16" and 2 in num_frames:
        raise FieldError("num_frames", "clips of 2 cannot be trained in bfloat16 on a CPU", "take 3, or dtype float32")
    found: torch.dtype = getattr(torch, wanted)
    return found

"""Trains the denoiser and its image encoder: SVD's conditioning and parametrisation at a small width."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
from diffusers.models.attention_processor import AttnProcessor
from jaxtyping import Float
from torch import Tensor, distributed, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from sgi2v.training.feed import CLIP_SIZE, Batch, Feeder
from sgi2v.training.optimiser import MasterAdam, load_checkpoint, save_checkpoint
from sgi2v.training.spatial import pictures_only, silence_temporal_layers
from sgi2v.training.stages import DenoiserTraining

Log = Callable[[dict[str, float]], None]


def build(training: DenoiserTraining) -> nn.ModuleDict:
    """Denoiser ("unet") and image encoder ("image_encoder") with random weights of the seed, or from `initial`."""
    if training.initial is not None:
        options: dict[str, Any] = {"use_safetensors": True, "torch_dtype": torch.float32}
        return nn.ModuleDict(
            {
                "unet": UNetSpatioTemporalConditionModel.from_pretrained(
                    training.initial, subfolder="unet", **options
                ),
                "image_encoder": CLIPVisionModelWithProjection.from_pretrained(
                    training.initial, subfolder="image_encoder", use_safetensors=True
                ).float(),
            }
        )
    torch.manual_seed(training.seed)
    latent_channels = AutoencoderKLTemporalDecoder.load_config(training.autoencoder)["latent_channels"]
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


def loss_of(
    training: DenoiserTraining, models: nn.ModuleDict, batch: Batch, step: int
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """The unreduced loss and the noise level of each clip of a step.

    The network predicts v at noise levels drawn log-normally; the weight of EDM is 1 for this prediction where the
    data's deviation is 1 (Karras et al. 2022, table 1; SVD, appendix D).
    """
    unet, image_encoder = models["unet"], models["image_encoder"]
    generator = torch.Generator().manual_seed(training.seed * 1_000_003 + step + 2**40)
    num = len(batch.latents)
    device, dtype = batch.latents.device, next(unet.parameters()).dtype
    mean, deviation = training.stage_of(step)[0].log_sigma
    log_sigma = mean + deviation * torch.randn(num, generator=generator)
    keep = (torch.rand(2, num, generator=generator) >= training.image_dropout).to(device)
    noise = torch.randn(batch.latents.shape, generator=generator).to(device)
    sigma = log_sigma.exp().to(device)
    level = sigma.view(-1, 1, 1, 1, 1)
    noisy = batch.latents + level * noise
    scale = (level.square() + 1).sqrt()
    target = (noisy / scale**2 - batch.latents) * scale / level
    image = batch.image_latents * keep[0].view(-1, 1, 1, 1)
    image = image[:, None].expand(-1, noisy.shape[1], -1, -1, -1)
    embedding = image_encoder(batch.clip_pixels.to(dtype)).image_embeds
    embedding = (embedding * keep[1].view(-1, 1).to(dtype))[:, None]
    with pictures_only(unet) if noisy.shape[1] == 1 else nullcontext():
        predicted = unet(
            torch.cat([noisy / scale, image], 2).to(dtype),
            0.25 * log_sigma.to(device),
            embedding,
            batch.added_time_ids,
        ).sample
    return (predicted.float() - target).square().mean((1, 2, 3, 4)), sigma


def train(
    training: DenoiserTraining,
    *,
    log: Log | None = None,
    probe: Callable[[nn.ModuleDict, MasterAdam, int], None] | None = None,
    probe_every: int = 500,
) -> nn.ModuleDict:
    """Train, resuming from the newest checkpoint in `output`; the averaged models in float32.

    Data and noise of a step depend on the seed and the step's number alone, so a resumed run gives the same weights.
    Where torch.distributed has been started, every process trains on its own data and gradients are averaged; the
    first process alone logs, probes and saves.
    `probe` is called every `probe_every` steps with the models, the optimiser (which has the averaged weights) and
    the number of steps done.
    """
    autoencoder: Any = AutoencoderKLTemporalDecoder.from_pretrained(
        training.autoencoder, use_safetensors=True
    )
    autoencoder.to(device=training.device, dtype=getattr(torch, training.dtype)).requires_grad_(False).eval()
    models = build(training).to(device=training.device, dtype=getattr(torch, training.dtype))
    models.train()
    # On a CPU the backward pass of fused attention is slower than attention written out.
    if training.device == "cpu":
        unet: Any = models["unet"]
        unet.set_attn_processor(AttnProcessor())
    optimiser = MasterAdam(models, ema=training.ema)
    several = distributed.is_available() and distributed.is_initialized()
    rank = distributed.get_rank() if several else 0
    own = replace(training, seed=training.seed + 7919 * rank)
    feeder = Feeder(own, autoencoder)
    sums: dict[str, list[float]] = {}
    for step in range(load_checkpoint(training.output, optimiser), training.num_steps):
        stage, number = training.stage_of(step)
        losses, sigma = loss_of(own, models, feeder(step), step)
        losses.mean().backward()
        optimiser.step(stage.rate(number))
        if rank:
            continue
        if log is not None:
            _gather(sums, losses.detach(), sigma)
            if (step + 1) % 20 == 0:
                log({"step": step + 1, **{name: sum(found) / len(found) for name, found in sums.items()}})
                sums.clear()
        if (step + 1) % training.checkpoint_every == 0 or step + 1 == training.num_steps:
            save_checkpoint(training.output, optimiser, step + 1)
        if probe is not None and (step + 1) % probe_every == 0:
            probe(models, optimiser, step + 1)
    models.float()
    optimiser.write_average(models)
    models.eval().requires_grad_(False)
    return models


def _gather(sums: dict[str, list[float]], losses: Tensor, sigma: Tensor) -> None:
    """Sort a step's losses by noise level: low below 0.7, middle to 5, high above."""
    for loss, level in zip(losses.tolist(), sigma.tolist(), strict=True):
        name = "low" if level < 0.7 else "middle" if level < 5 else "high"
        sums.setdefault(name, []).append(loss)
        sums.setdefault("loss", []).append(loss)

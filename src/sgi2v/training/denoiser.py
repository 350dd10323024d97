"""Trains the denoiser and its image encoder: SVD's conditioning and parametrisation at a small width."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
from diffusers.models.attention_processor import AttnProcessor
from jaxtyping import Float
from torch import Tensor, distributed, nn
from torch.nn import functional
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from sgi2v.training.optimiser import MasterAdam, load_checkpoint, save_checkpoint
from sgi2v.training.spatial import pictures_only, silence_temporal_layers
from sgi2v.training.world import Kind, World

Log = Callable[[dict[str, float]], None]

# The mean and deviation by which CLIP's processor normalises pictures, per channel.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
CLIP_SIZE = 224


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stretch of training with clips of one shape."""

    num_steps: int
    """Steps of the optimiser."""
    num_frames: int
    """Frames of a clip; 1 trains the spatial layers alone on single later frames."""
    batch_size: int
    """Clips a step."""
    width: int = 128
    """Width of frames in pixels, a multiple of 64."""
    height: int = 64
    """Height of frames in pixels, a multiple of 64."""
    num_things: int = 1
    """Most things in a scene: each clip of a step has the same number, 1 to this, by the step's number."""
    radius: tuple[float, float] = (12.0, 20.0)
    """Smallest and largest half size of a thing in pixels."""
    rich: float = 0.0
    """Share of steps that show the rich world."""
    log_sigma: tuple[float, float] = (0.8, 1.5)
    """Mean and deviation of the natural logarithm of the noise level."""
    lr: float = 5e-4
    """Learning rate at the stage's start, after `num_warmup` steps."""
    final_lr: float = 5e-4
    """Learning rate at the stage's end; between, it changes geometrically."""
    num_warmup: int = 50
    """Steps of linearly rising learning rate at the stage's start."""

    def __post_init__(self) -> None:
        if self.width % 64 or self.height % 64:
            raise ValueError(f"width and height must be multiples of 64, not {self.width}x{self.height}")
        if self.num_frames < 1 or self.num_steps < 0 or self.batch_size < 1:
            raise ValueError(f"a stage needs at least one frame and one clip a step: {self}")

    def rate(self, step: int) -> float:
        """The learning rate of a step of this stage."""
        lr: float = self.lr * (self.final_lr / self.lr) ** (step / max(1, self.num_steps))
        return lr * min(1.0, (step + 1) / max(1, self.num_warmup))


@dataclass(frozen=True, kw_only=True)
class DenoiserTraining:
    """All that decides the denoiser's training."""

    output: Path
    """Folder for checkpoints."""
    autoencoder: Path
    """Folder of the trained autoencoder, which is frozen here."""
    stages: tuple[Stage, ...]
    """What is trained on, in turn: pictures first, then clips, as SVD was trained."""
    channels: tuple[int, int, int, int] = (64, 96, 96, 64)
    """Channels of the four levels, multiples of 32."""
    embedding: int = 64
    """Length of the image embedding that cross-attention sees."""
    num_frames: int = 14
    """Frames of a clip the model is meant for; times of shorter stages run 0..1 all the same."""
    fps: int = 7
    """Frames a second that training clips are said to have."""
    image_dropout: float = 0.1
    """Chance that the concatenated picture is zero; the embedding is dropped by a draw of its own."""
    noise_aug: tuple[float, float] = (0.005, 0.3)
    """Smallest and largest strength of the noise added to the picture before encoding, drawn log-uniformly."""
    motion_jitter: float = 10.0
    """Deviation of the noise added to the motion bucket."""
    initial: Path | None = None
    """A folder in diffusers' layout to start from (its unet and image_encoder); none starts from random weights."""
    ema: float = 0.998
    """Decay of the exponential moving average of the weights, which is what is exported."""
    pool_steps: int = 16
    """Steps that draw from the same rendered and encoded clips (each pair or clip is drawn a few times, with other
    noise)."""
    seed: int = 0
    """Seed of weights, data and noise."""
    checkpoint_every: int = 100
    """Steps between checkpoints."""
    device: str = "cpu"
    """Where to train."""
    dtype: str = "bfloat16"
    """Type the networks compute in; the optimiser keeps a float32 copy."""

    def __post_init__(self) -> None:
        if any(channels % 32 for channels in self.channels):
            raise ValueError(f"channels must be multiples of 32, not {self.channels}")

    @property
    def num_steps(self) -> int:
        """Steps of all stages together."""
        return sum(stage.num_steps for stage in self.stages)

    def stage_of(self, step: int) -> tuple[Stage, int]:
        """The stage a step belongs to, and the step's number within it."""
        for stage in self.stages:
            if step < stage.num_steps:
                return stage, step
            step -= stage.num_steps
        raise IndexError(f"training has {self.num_steps} steps")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one step is trained on, encoded."""

    latents: Float[Tensor, "b f c h w"]
    """Clean latents, scaled."""
    image_latents: Float[Tensor, "b c h w"]
    """Latents of the noised first frame, not scaled (as diffusers' pipeline leaves them)."""
    clip_pixels: Float[Tensor, "b 3 224 224"]
    """The first frame as CLIP's processor gives it."""
    added_time_ids: Float[Tensor, "b 3"]
    """Frames a second less one, motion bucket, strength of the noise on the first frame."""


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


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Encoded clips that several steps draw from, since encoding costs as much as a training step."""

    frames: Float[Tensor, "p f 3 h w"]
    """The clips, 0..1."""
    latents: Float[Tensor, "p f c h8 w8"]
    """Their scaled latents."""
    images: Float[Tensor, "p k c h8 w8"]
    """Unscaled latents of the frames that can be the given picture: for stages of pictures every frame, as it is;
    for clips the first and the last one, noised."""
    strength: Float[Tensor, "p k"]
    """Strength of the noise on them."""
    motion: Float[Tensor, " p"]
    """Amount of motion of each clip."""


@torch.no_grad()
def pool_of(
    training: DenoiserTraining, autoencoder: AutoencoderKLTemporalDecoder, stage: Stage, number: int
) -> Pool:
    """Render and encode a pool; a function of the arguments alone."""
    seed = training.seed * 1_000_003 + number
    generator = torch.Generator().manual_seed(seed)
    uses = 8 if stage.num_frames == 1 else 4
    num = max(1, stage.batch_size * training.pool_steps // uses)
    kind: Kind = "rich" if float(torch.rand((), generator=generator)) < stage.rich else "simple"
    world = World(
        width=stage.width,
        height=stage.height,
        num_things=1 + number % stage.num_things,
        radius=stage.radius,
        kind=kind,
    )
    if stage.num_frames == 1:
        # Four looks at a scene give twelve pairs of a picture and a later (or earlier) one.
        times = torch.rand(num, 4, generator=generator)
    else:
        times = torch.linspace(0, 1, stage.num_frames).expand(num, -1)
    clips = world.render(num, seed, times=times, device=training.device)
    latents = _encode(autoencoder, clips.frames)
    if stage.num_frames == 1:
        images, strength = latents, torch.zeros(num, 4)
    else:
        low, high = (torch.tensor(value).log() for value in training.noise_aug)
        strength = torch.exp(low + (high - low) * torch.rand(num, 2, generator=generator))
        ends = clips.frames[:, [0, -1]]
        noise = torch.randn(ends.shape, generator=generator).to(ends.device)
        # In -1..1 the noise has the stated strength, in 0..1 half of it.
        images = _encode(autoencoder, ends + noise * strength.to(ends.device)[..., None, None, None] / 2)
    scaled = latents * autoencoder.config.scaling_factor
    return Pool(
        frames=clips.frames, latents=scaled, images=images, strength=strength, motion=clips.motion.cpu()
    )


def _encode(autoencoder: AutoencoderKLTemporalDecoder, frames: Float[Tensor, "b f 3 h w"]) -> Tensor:
    """Unscaled latents [b, f, c, h, w] of frames in 0..1, sixteen at a time."""
    pixels = (2 * frames.flatten(0, 1) - 1).to(autoencoder.dtype)
    latents = torch.cat([autoencoder.encode(part).latent_dist.mode() for part in pixels.split(16)])
    return latents.float().unflatten(0, frames.shape[:2])


class Feeder:
    """Gives the batch of any step; keeps the pool of the last one."""

    def __init__(self, training: DenoiserTraining, autoencoder: AutoencoderKLTemporalDecoder) -> None:
        self.training, self.autoencoder = training, autoencoder
        self._pool: tuple[int, Pool] | None = None

    @torch.no_grad()
    def __call__(self, step: int) -> Batch:
        """The batch of a step, a function of the training's fields and the step alone."""
        training = self.training
        stage, number = training.stage_of(step)
        # Pools begin at the first step of a stage, and never span two.
        index = (step - number) + number // training.pool_steps
        if self._pool is None or self._pool[0] != index:
            self._pool = index, pool_of(training, self.autoencoder, stage, index)
        pool = self._pool[1]
        generator = torch.Generator().manual_seed(training.seed * 1_000_003 + step + 2**41)
        num = stage.batch_size
        row = torch.randint(len(pool.latents), (num,), generator=generator)
        if stage.num_frames == 1:
            given = torch.randint(4, (num,), generator=generator)
            # One in eight is the given picture itself, which the model must give back as it is.
            other = (given + torch.randint(1, 4, (num,), generator=generator)) % 4
            shown = torch.where(torch.rand(num, generator=generator) < 0.125, given, other)
            first, latents, image = (
                pool.frames[row, given],
                pool.latents[row, shown][:, None],
                pool.images[row, given],
            )
            strength = pool.strength[row, given]
        else:
            # Every other clip runs backwards.
            end = torch.randint(2, (num,), generator=generator)
            first, latents = pool.frames[row, -end], pool.latents[row]
            latents = torch.where(end.view(-1, 1, 1, 1, 1).to(latents.device) == 1, latents.flip(1), latents)
            image, strength = pool.images[row, end], pool.strength[row, end]
        bucket = 255 * pool.motion[row].clamp(max=1) + training.motion_jitter * torch.randn(
            num, generator=generator
        )
        ids = torch.stack([torch.full((num,), float(training.fps - 1)), bucket.clamp(0, 255), strength], 1)
        return Batch(
            latents=latents,
            image_latents=image,
            clip_pixels=clip_pixels(first),
            added_time_ids=ids.to(training.device),
        )


def clip_pixels(frames: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 224 224"]:
    """Pictures in 0..1 as diffusers' pipeline hands them to the image encoder (for frames no larger than 224)."""
    size = (CLIP_SIZE, CLIP_SIZE)
    resized = functional.interpolate(2 * frames - 1, size, mode="bicubic", align_corners=True)
    mean = torch.tensor(CLIP_MEAN, device=frames.device).view(1, 3, 1, 1)
    std = torch.tensor(CLIP_STD, device=frames.device).view(1, 3, 1, 1)
    return ((resized + 1) / 2 - mean) / std


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
    autoencoder = AutoencoderKLTemporalDecoder.from_pretrained(training.autoencoder, use_safetensors=True)
    autoencoder.to(device=training.device, dtype=getattr(torch, training.dtype)).requires_grad_(False).eval()
    models = build(training).to(device=training.device, dtype=getattr(torch, training.dtype))
    models.train()
    # On a CPU the backward pass of fused attention is slower than attention written out.
    if training.device == "cpu":
        models["unet"].set_attn_processor(AttnProcessor())
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

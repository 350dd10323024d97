"""Trains the autoencoder: SVD's AutoencoderKLTemporalDecoder at a small width, on pictures, then on clips."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKLTemporalDecoder
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sgi2v.training.optimiser import MasterAdam, load_checkpoint, save_checkpoint, warm_cosine
from sgi2v.training.pictures import mixed_pictures
from sgi2v.training.spatial import pictures_only, silence_temporal_layers
from sgi2v.training.world import World

Log = Callable[[dict[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class AutoencoderTraining:
    """All that decides the autoencoder's training."""

    output: Path
    """Folder for checkpoints."""
    num_steps: int = 4000
    """Steps of the optimiser in all."""
    num_clip_steps: int = 0
    """How many of them, at the end, train on short clips, so that the temporal layers of the decoder learn."""
    batch_size: int = 8
    """Pictures a step (clip steps: frames a step, four of each clip)."""
    size: int = 64
    """Height and width of training pictures in pixels."""
    channels: tuple[int, int, int, int] = (64, 64, 96, 128)
    """Channels of the four levels, multiples of 32."""
    layers_per_block: int = 1
    """Residual layers a level."""
    latent_channels: int = 8
    """Channels of the latents."""
    lr: float = 4e-4
    """Highest learning rate of Adam, reached after `num_warmup` steps, falling to a twentieth as a cosine."""
    num_warmup: int = 100
    """Steps of rising learning rate."""
    kl: float = 1e-6
    """Weight of the Kullback-Leibler term, which keeps latents near unit scale."""
    gradient_loss: float = 0.5
    """Weight of the difference of picture gradients, which keeps edges sharp."""
    freeze_encoder: bool = False
    """Train the decoder alone, so that a denoiser trained on these latents stays valid."""
    initial: Path | None = None
    """A folder of an autoencoder to start from; none starts from random weights."""
    ema: float = 0.995
    """Decay of the exponential moving average of the weights, which is what is exported."""
    seed: int = 0
    """Seed of weights and data."""
    checkpoint_every: int = 200
    """Steps between checkpoints."""
    device: str = "cpu"
    """Where to train."""
    dtype: str = "bfloat16"
    """Type the network computes in; the optimiser keeps a float32 copy."""

    def __post_init__(self) -> None:
        if self.num_clip_steps > self.num_steps:
            raise ValueError(f"num_clip_steps {self.num_clip_steps} is more than num_steps {self.num_steps}")
        if any(channels % 32 for channels in self.channels):
            raise ValueError(f"channels must be multiples of 32, not {self.channels}")


def build(training: AutoencoderTraining) -> AutoencoderKLTemporalDecoder:
    """The autoencoder with random weights of the seed, or the one in `initial`."""
    if training.initial is not None:
        model: AutoencoderKLTemporalDecoder = AutoencoderKLTemporalDecoder.from_pretrained(
            training.initial, use_safetensors=True, torch_dtype=torch.float32
        )
        return model
    torch.manual_seed(training.seed)
    model = AutoencoderKLTemporalDecoder(
        block_out_channels=training.channels,
        down_block_types=("DownEncoderBlock2D",) * 4,
        layers_per_block=training.layers_per_block,
        latent_channels=training.latent_channels,
        sample_size=training.size,
        scaling_factor=1.0,
        force_upcast=False,
    )
    silence_temporal_layers(model)
    nn.init.dirac_(model.decoder.time_conv_out.weight)
    nn.init.zeros_(model.decoder.time_conv_out.bias)
    return model


def pictures(training: AutoencoderTraining, step: int) -> Float[Tensor, "b 3 h w"]:
    """The pictures of one step: half frames of simple and rich worlds, half photographs and pictures by rule; 0..1."""
    generator = torch.Generator().manual_seed(training.seed * 1_000_003 + step)
    num_world = training.batch_size // 2
    world = World(
        width=training.size,
        height=training.size,
        radius=(training.size * 0.12, training.size * 0.4),
        num_things=3,
        kind="rich" if step % 2 else "simple",
    )
    times = torch.rand(num_world, 1, generator=generator)
    frames = world.render(num_world, training.seed * 1_000_003 + step, times=times).frames[:, 0]
    rest = mixed_pictures(training.batch_size - num_world, training.size, training.size, generator)
    return torch.cat([frames, rest])


def clips(training: AutoencoderTraining, step: int) -> Float[Tensor, "b 3 h w"]:
    """Short clips of one step, four consecutive frames of each, clips one after the other; 0..1."""
    num = max(1, training.batch_size // 4)
    world = World(
        width=training.size, height=training.size, radius=(training.size * 0.15, training.size * 0.35), kind="rich"
    )
    generator = torch.Generator().manual_seed(training.seed * 1_000_003 + step)
    first = torch.rand(num, 1, generator=generator) * (1 - 3 / 13)
    times = first + torch.arange(4) / 13
    return world.render(num, training.seed * 1_000_003 + step, times=times).frames.flatten(0, 1)


def reconstruction_loss(
    decoded: Float[Tensor, "b 3 h w"], target: Float[Tensor, "b 3 h w"], gradient_loss: float
) -> Float[Tensor, ""]:
    """Mean absolute and squared difference, and absolute difference of neighbouring pixels' differences."""
    difference = decoded - target
    loss = difference.abs().mean() + 2 * difference.square().mean()
    if gradient_loss:
        across = (difference[..., 1:] - difference[..., :-1]).abs().mean()
        along = (difference[..., 1:, :] - difference[..., :-1, :]).abs().mean()
        loss = loss + gradient_loss * (across + along)
    return loss


def train(training: AutoencoderTraining, *, log: Log | None = None) -> AutoencoderKLTemporalDecoder:
    """Train, resuming from the newest checkpoint in `output`, and return the averaged model in float32.

    Data and noise of a step depend on the seed and the step's number alone, so a resumed run gives the same weights.
    """
    model = build(training)
    model.to(device=training.device, dtype=getattr(torch, training.dtype)).train()
    if training.freeze_encoder:
        model.encoder.requires_grad_(False)
        model.quant_conv.requires_grad_(False)
    optimiser = MasterAdam(model, ema=training.ema)
    start = load_checkpoint(training.output, optimiser)
    for step in range(start, training.num_steps):
        in_clips = step >= training.num_steps - training.num_clip_steps
        num_frames = 4 if in_clips else 1
        batch = clips(training, step) if in_clips else pictures(training, step)
        target = (2 * batch - 1).to(training.device)
        generator = torch.Generator().manual_seed(training.seed * 1_000_003 + step + 2**40)
        posterior = model.encode(target.to(model.dtype)).latent_dist
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        noise = torch.randn(mean.shape, generator=generator).to(mean.device)
        latents = (mean + torch.exp(0.5 * logvar) * noise).to(model.dtype)
        if in_clips:
            decoded = model.decode(latents, num_frames=num_frames).sample
        else:
            with pictures_only(model):
                decoded = model.decode(latents, num_frames=1).sample
        loss = reconstruction_loss(decoded.float(), target, training.gradient_loss)
        divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum((1, 2, 3)).mean()
        (loss + training.kl * divergence).backward()
        optimiser.step(warm_cosine(step, training.num_steps, training.num_warmup, training.lr))
        if log is not None and step % 20 == 0:
            error = (decoded.detach().float() - target).div(2).square().mean()
            log({"step": step, "loss": float(loss), "psnr": float(-10 * torch.log10(error)), "kl": float(divergence)})
        if (step + 1) % training.checkpoint_every == 0 or step + 1 == training.num_steps:
            save_checkpoint(training.output, optimiser, step + 1)
    return finish(model, optimiser, training)


def finish(
    model: AutoencoderKLTemporalDecoder, optimiser: MasterAdam, training: AutoencoderTraining
) -> AutoencoderKLTemporalDecoder:
    """The averaged model in float32, its scaling factor set so that latents of the world have unit deviation."""
    model.float()
    optimiser.write_average(model)
    model.eval().requires_grad_(False)
    if not training.freeze_encoder:
        with torch.no_grad():
            batches = [pictures(training, 10**9 + number) for number in range(8)]
            latents = torch.cat([model.encode((2 * b - 1).to(training.device)).latent_dist.mode() for b in batches])
        model.register_to_config(scaling_factor=round(float(1 / latents.std()), 5))
    return model

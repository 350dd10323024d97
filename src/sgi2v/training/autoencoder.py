"""Trains the autoencoder: SVD's AutoencoderKLTemporalDecoder at a small width.

First the encoder, against a linear decoder that is thrown away: a fraction of the cost, and latents that are nearly
linear in the picture, which a denoiser likes. Then, the encoder frozen, the decoder: on pictures, then on clips.
"""

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
    num_encoder_steps: int = 1500
    """Steps that train the encoder against a linear decoder of 3x3 latent cells."""
    num_steps: int = 4000
    """Steps that train the decoder on the frozen encoder."""
    num_clip_steps: int = 0
    """How many of these, at the end, train on short clips, so that the temporal layers of the decoder learn."""
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
    kl: float = 1e-4
    """Weight of the Kullback-Leibler term of a latent cell, which keeps latents near unit scale."""
    gradient_loss: float = 0.5
    """Weight of the difference of picture gradients, which keeps edges sharp."""
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
        width=training.size,
        height=training.size,
        radius=(training.size * 0.15, training.size * 0.35),
        kind="rich",
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


class LinearDecoder(nn.Module):
    """Pictures as a linear function of the 3x3 latent cells around each 8x8 patch."""

    def __init__(self, latent_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(latent_channels, 3 * 64, 3, padding=1, padding_mode="replicate")

    def forward(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 h8 w8"]:
        """Pictures of eight times the latents' size."""
        return functional.pixel_shuffle(self.conv(latents), 8)


def train_encoder(training: AutoencoderTraining, *, log: Log | None = None) -> AutoencoderKLTemporalDecoder:
    """Train the encoder, resuming from `output`/encoder, and return the autoencoder with it, its decoder untrained.

    The latents' channels have mean 0 and deviation 1 on the training pictures (set exactly, in the last 1x1
    convolution), so the scaling factor is 1.
    """
    model = build(training).to(training.device)
    torch.manual_seed(training.seed)
    linear = LinearDecoder(training.latent_channels).to(training.device)
    both = nn.ModuleDict({"encoder": model.encoder, "quant_conv": model.quant_conv, "linear": linear})
    both.to(getattr(torch, training.dtype)).train()
    optimiser = MasterAdam(both, ema=training.ema)
    folder = training.output / "encoder"
    for step in range(load_checkpoint(folder, optimiser), training.num_encoder_steps):
        target = (2 * pictures(training, step) - 1).to(training.device)
        posterior = model.encode(target.to(model.quant_conv.weight.dtype)).latent_dist
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        generator = torch.Generator().manual_seed(training.seed * 1_000_003 + step + 2**40)
        noise = torch.randn(mean.shape, generator=generator).to(mean.device)
        decoded = linear((mean + torch.exp(0.5 * logvar) * noise).to(linear.conv.weight.dtype)).float()
        divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(1).mean()
        loss = reconstruction_loss(decoded, target, training.gradient_loss)
        (loss + training.kl * divergence).backward()
        optimiser.step(warm_cosine(step, training.num_encoder_steps, training.num_warmup, training.lr))
        if log is not None and step % 20 == 0:
            log({"step": step, "kl": float(divergence.detach()), **_figures(loss, decoded, target)})
        if (step + 1) % training.checkpoint_every == 0 or step + 1 == training.num_encoder_steps:
            save_checkpoint(folder, optimiser, step + 1)
    both.float()
    optimiser.write_average(both)
    _standardise(model, training)
    return model


@torch.no_grad()
def _standardise(model: AutoencoderKLTemporalDecoder, training: AutoencoderTraining) -> None:
    """Move and scale the encoder's outputs so that every latent channel has mean 0 and deviation 1."""
    batches = [2 * pictures(training, 10**9 + number) - 1 for number in range(16)]
    latents = torch.cat([model.encode(batch.to(training.device)).latent_dist.mean for batch in batches])
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    convolution = model.quant_conv
    num = len(mean)
    assert convolution.bias is not None
    convolution.bias[:num] = (convolution.bias[:num] - mean) / deviation
    convolution.weight[:num] /= deviation[:, None, None, None]
    convolution.bias[num:] -= 2 * deviation.log()


def _figures(loss: Tensor, decoded: Tensor, target: Tensor) -> dict[str, float]:
    """What a log line says of a batch; the peak signal-to-noise ratio is of pictures in 0..1."""
    error = (decoded.detach().float() - target).div(2).square().mean()
    return {
        "loss": loss.detach().item(),
        "psnr": float(-10 * torch.log10(error)),
    }


def train(training: AutoencoderTraining, *, log: Log | None = None) -> AutoencoderKLTemporalDecoder:
    """Train both parts, resuming from the newest checkpoint in `output`; the averaged model in float32.

    Data and noise of a step depend on the seed and the step's number alone, so a resumed run gives the same weights.
    """
    model = build(training) if training.initial is not None else train_encoder(training, log=log)
    model.to(device=training.device, dtype=getattr(torch, training.dtype)).train()
    model.encoder.requires_grad_(False)
    model.quant_conv.requires_grad_(False)
    optimiser = MasterAdam(model, ema=training.ema)
    folder = training.output / "decoder"
    for step in range(load_checkpoint(folder, optimiser), training.num_steps):
        in_clips = step >= training.num_steps - training.num_clip_steps
        batch = clips(training, step) if in_clips else pictures(training, step)
        target = (2 * batch - 1).to(training.device)
        with torch.no_grad():
            latents = model.encode(target.to(model.dtype)).latent_dist.mode()
        if in_clips:
            decoded = model.decode(latents, num_frames=4).sample
        else:
            with pictures_only(model):
                decoded = model.decode(latents, num_frames=1).sample
        loss = reconstruction_loss(decoded.float(), target, training.gradient_loss)
        loss.backward()
        optimiser.step(warm_cosine(step, training.num_steps, training.num_warmup, training.lr))
        if log is not None and step % 20 == 0:
            log({"step": step, **_figures(loss, decoded, target)})
        if (step + 1) % training.checkpoint_every == 0 or step + 1 == training.num_steps:
            save_checkpoint(folder, optimiser, step + 1)
    model.float()
    optimiser.write_average(model)
    model.eval().requires_grad_(False)
    return model

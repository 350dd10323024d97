"""Trains the autoencoder: SVD's AutoencoderKLTemporalDecoder at a small width.

First the encoder, against a linear decoder that is thrown away: a fraction of the cost, and latents that are nearly
linear in the picture, which a denoiser likes. Then, the encoder frozen, the decoder: on pictures, then on clips. Or,
where a step costs little, both together from the start (`joint`), which keeps more of a picture. Both together can also
go on from a finished autoencoder, its latents held near where they were (`keep_latents`), so that its denoiser stays.
"""

import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import AutoencoderKLTemporalDecoder
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sgi2v.training.checkpoint import Stopped, fingerprint, load_checkpoint, read_checkpoint, save_checkpoint
from sgi2v.training.draws import normal, seed_of
from sgi2v.training.fidelity import measure_autoencoder
from sgi2v.training.journal import check_loss
from sgi2v.training.networks import load_autoencoder, type_of
from sgi2v.training.optimiser import MasterAdam, warm_cosine
from sgi2v.training.pictures import mixed_pictures
from sgi2v.training.spatial import pictures_only, silence_temporal_layers
from sgi2v.training.stages import TrainingType
from sgi2v.training.world import LifelikeWorld, World

Log = Callable[[Mapping[str, float]], None]

_OF_DECODER: Final = (
    "num_steps", "num_clip_steps", "num_clip_frames", "joint", "keep_latents", "latent_noise"
)  # fmt: skip
_FREE: Final = (
    "output", "initial", "checkpoint_every", "log_every", "measure_every", "minutes", "device", "dtype"
)  # fmt: skip


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
    num_clip_frames: int = 4
    """Frames of these clips."""
    joint: bool = False
    """Whether encoder and decoder learn together, but for the clip steps; num_encoder_steps counts for nothing then."""
    batch_size: int = 8
    """Pictures a step (clip steps: frames a step)."""
    size: int = 64
    """Height and width of training pictures in pixels."""
    lifelike: float = 0.0
    """Share of steps whose frames of the world are lifelike: photographs, cut-outs, composed things."""
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
    keep_latents: float = 0.0
    """Joint from `initial` only: weight of the mean squared distance of the latents from those of `initial`, in parts
    of their own deviation, so that a denoiser that was trained on these still serves. 0: they may change, and their
    scale is measured anew."""
    latent_noise: float = 0.0
    """Largest deviation of the noise on the latents that the decoder learns from, in parts of their own deviation,
    drawn uniformly for each picture or clip: a denoiser's latents are not perfect either. 0: none."""
    initial: Path | None = None
    """A folder of an autoencoder to start from; none starts from random weights."""
    ema: float = 0.995
    """Decay of the exponential moving average of the weights, which is what is exported."""
    seed: int = 0
    """Seed of weights and data."""
    checkpoint_every: int = 200
    """Steps between checkpoints."""
    log_every: int = 20
    """Steps between lines of the log."""
    measure_every: int = 1000
    """Steps between measurements of the averaged weights on held-out pictures; 0: none."""
    minutes: float = 0.0
    """Minutes after which to stop, everything saved: the same command goes on. 0: not before the last step."""
    device: str = "cpu"
    """Where to train: cpu, cuda, cuda:1 …"""
    dtype: TrainingType = "auto"
    """Type the network computes in; the optimiser keeps a float32 copy. auto: bfloat16, but float32 on a processor
    that is not faster at bfloat16; a run goes on in the type it began with."""

    def __post_init__(self) -> None:
        if self.num_clip_steps > self.num_steps:
            raise ValueError(
                f"num_clip_steps: {self.num_clip_steps} is more than num_steps, {self.num_steps}"
            )
        if any(channels % 32 for channels in self.channels):
            raise ValueError(f"channels: must be multiples of 32, not {self.channels}")
        if self.keep_latents < 0 or (self.keep_latents and not (self.joint and self.initial)):
            raise ValueError(
                f"keep_latents: {self.keep_latents:g} wants joint and initial, and must not be below 0"
            )
        if self.latent_noise < 0:
            raise ValueError(f"latent_noise: must not be below 0, not {self.latent_noise}")
        if self.size % 8 or self.size < 32:
            raise ValueError(f"size: must be a multiple of 8 and at least 32, not {self.size}")

    @property
    def encoder_first(self) -> int:
        """Steps that train the encoder alone."""
        return 0 if self.joint or self.initial is not None else self.num_encoder_steps

    def decided(self, *, decoder: bool) -> dict[str, Any]:
        """The fields that decide the weights of a part: folders and how a run is watched do not."""
        fields = asdict(self)
        for name in _FREE if decoder else (*_FREE, *_OF_DECODER):
            del fields[name]
        return fields


def build(training: AutoencoderTraining) -> AutoencoderKLTemporalDecoder:
    """The autoencoder with random weights of the seed, or the one in `initial`."""
    if training.initial is not None:
        return load_autoencoder(training.initial).requires_grad_(True)
    torch.manual_seed(training.seed)
    model: AutoencoderKLTemporalDecoder = AutoencoderKLTemporalDecoder(
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
    """The pictures of one step: half frames of the worlds, half photographs and pictures by rule; 0..1."""
    seed, size = seed_of("pictures", training.seed, step), training.size
    generator = torch.Generator().manual_seed(seed)
    num_world = training.batch_size // 2
    world = _world(training, step, radius=(max(4.0, size * 0.12), size * 0.4), num_things=3)
    times = torch.rand(num_world, 1, generator=generator)
    frames = world.render(num_world, seed, times=times, device=training.device).frames[:, 0]
    rest = mixed_pictures(training.batch_size - num_world, size, size, generator, device=training.device)
    return torch.cat([frames, rest])


def clips(training: AutoencoderTraining, step: int) -> Float[Tensor, "b 3 h w"]:
    """Short clips of one step, consecutive frames of each, clips one after the other; 0..1."""
    seed, size, num_frames = seed_of("clips", training.seed, step), training.size, training.num_clip_frames
    num = max(1, training.batch_size // num_frames)
    world = _world(training, 2 * step + 1, radius=(size * 0.15, size * 0.35), num_things=2)
    generator = torch.Generator().manual_seed(seed)
    apart = min(1 / 13, 1 / num_frames)
    first = torch.rand(num, 1, generator=generator) * (1 - (num_frames - 1) * apart)
    times = first + torch.arange(num_frames) * apart
    return world.render(num, seed, times=times, device=training.device).frames.flatten(0, 1)


def _world(
    training: AutoencoderTraining, number: int, *, radius: tuple[float, float], num_things: int
) -> World | LifelikeWorld:
    """The lifelike world in its share of the numbers, else the rich one for odd and the simple one for even ones."""
    size: dict[str, Any] = {"width": training.size, "height": training.size}
    # The golden ratio spreads any run of numbers evenly over 0..1.
    if number * 0.6180339887 % 1 < training.lifelike:
        return LifelikeWorld(**size, radius=radius, num_things=num_things)
    return World(**size, radius=radius, num_things=num_things, kind="rich" if number % 2 else "simple")


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


def train_encoder(
    training: AutoencoderTraining, *, log: Log | None = None, stop: Callable[[], bool] = lambda: False
) -> AutoencoderKLTemporalDecoder:
    """Train the encoder, resuming from `output`/encoder, and return the autoencoder with it, its decoder untrained.

    The latents' channels have mean 0 and deviation 1 on the training pictures (set exactly, in the last 1x1
    convolution), so the scaling factor is 1. Errors and `stop` as of :func:`train`.
    """
    model = build(training)
    torch.manual_seed(training.seed)
    linear = LinearDecoder(training.latent_channels)
    both = nn.ModuleDict({"encoder": model.encoder, "quant_conv": model.quant_conv, "linear": linear})

    def losses(step: int) -> tuple[Tensor, Tensor, Tensor]:
        target = (2 * pictures(training, step) - 1).to(training.device)
        latents, divergence, _ = _drawn(model, target, seed_of("encoder", training.seed, step))
        decoded = linear(latents.to(linear.conv.weight.dtype)).float()
        loss = reconstruction_loss(decoded, target, training.gradient_loss)
        return loss + training.kl * divergence, decoded, target

    optimiser = _run(training, both, "encoder", training.num_encoder_steps, losses, log=log, stop=stop)
    both.float()
    optimiser.write_average(both)
    mean, deviation = _spread(model, training)
    convolution, num = model.quant_conv, len(mean)
    assert convolution.bias is not None
    with torch.no_grad():
        convolution.bias[:num] = (convolution.bias[:num] - mean) / deviation
        convolution.weight[:num] /= deviation[:, None, None, None]
        convolution.bias[num:] -= 2 * deviation.log()
    return model


@torch.no_grad()
def _latents(model: AutoencoderKLTemporalDecoder, target: Tensor) -> Tensor:
    """The likeliest latents of pictures in -1..1, as fixed values."""
    found: Tensor = model.encode(target.to(model.dtype)).latent_dist.mode()
    return found


def _drawn(model: AutoencoderKLTemporalDecoder, target: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Latents drawn from the posterior of pictures in -1..1, its Kullback-Leibler divergence a cell, and its mean."""
    posterior = model.encode(target.to(model.quant_conv.weight.dtype)).latent_dist
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(1).mean()
    return mean + torch.exp(0.5 * logvar) * normal(mean.shape, seed, mean.device), divergence, mean


def _roughened(
    latents: Float[Tensor, "b c h w"],
    training: AutoencoderTraining,
    step: int,
    *,
    num_frames: int,
    deviation: float,
) -> Tensor:
    """Latents with the step's noise, of one strength for all frames of a clip; deviation: that of latents."""
    if not training.latent_noise:
        return latents
    seed = seed_of("latent noise", training.seed, step)
    generator = torch.Generator().manual_seed(seed)
    strength = training.latent_noise * torch.rand(len(latents) // num_frames, generator=generator)
    strength = strength.repeat_interleave(num_frames).view(-1, 1, 1, 1).to(latents.device)
    return (latents + deviation * strength * normal(latents.shape, seed, latents.device)).to(latents.dtype)


@torch.no_grad()
def _spread(model: AutoencoderKLTemporalDecoder, training: AutoencoderTraining) -> tuple[Tensor, Tensor]:
    """Mean and deviation of every latent channel on training pictures."""
    batches = [2 * pictures(training, 10**9 + number) - 1 for number in range(16)]
    latents = torch.cat(
        [model.encode(batch.to(model.device, model.dtype)).latent_dist.mean for batch in batches]
    )
    return latents.mean((0, 2, 3)), latents.std((0, 2, 3))


def train(
    training: AutoencoderTraining, *, log: Log | None = None, stop: Callable[[], bool] = lambda: False
) -> AutoencoderKLTemporalDecoder:
    """Train both parts, resuming from the newest checkpoint in `output`; the averaged model in float32.

    Data and noise of a step depend on the seed and the step's number alone, so a resumed run gives the same weights on
    the same machine. `stop` is asked after every step; where it says yes, the step is saved and Stopped raised.
    ValueError for a checkpoint of other settings.
    """
    first = training.encoder_first
    model = train_encoder(training, log=log, stop=stop) if first else build(training)
    for part in (model.encoder, model.quant_conv):
        part.requires_grad_(training.joint)
    before = (
        deepcopy(model).eval().requires_grad_(False).to(training.device) if training.keep_latents else None
    )
    scale = model.config.scaling_factor

    def losses(step: int) -> tuple[Tensor, Tensor, Tensor]:
        in_clips = step >= training.num_steps - training.num_clip_steps
        batch = clips(training, step) if in_clips else pictures(training, step)
        target = (2 * batch - 1).to(training.device)
        extra: Tensor | float = 0.0
        if training.joint and not in_clips:
            latents, divergence, mean = _drawn(model, target, seed_of("joint", training.seed, step))
            latents, extra = latents.to(model.dtype), training.kl * divergence
            if before is not None:
                moved = scale * (mean - _latents(before, target))
                extra = extra + training.keep_latents * moved.square().mean()
        else:
            latents = _latents(model, target)
        num_frames = training.num_clip_frames if in_clips else 1
        latents = _roughened(latents, training, step, num_frames=num_frames, deviation=1 / scale)
        if in_clips:
            decoded = model.decode(latents, num_frames=training.num_clip_frames).sample.float()
        else:
            with pictures_only(model):
                decoded = model.decode(latents, num_frames=1).sample.float()
        return reconstruction_loss(decoded, target, training.gradient_loss) + extra, decoded, target

    def measured(optimiser: MasterAdam) -> dict[str, float]:
        copied = deepcopy(model).float()
        optimiser.write_average(copied)
        found = measure_autoencoder(copied.eval(), num=8, width=training.size, height=training.size)
        return {name: figure["value"] for name, figure in found.items()}

    optimiser = _run(
        training, model, "decoder", training.num_steps, losses, log=log, stop=stop, measured=measured
    )
    model.float()
    optimiser.write_average(model)
    model.eval().requires_grad_(False)
    if training.joint and before is None:
        _, deviation = _spread(model, training)
        model.register_to_config(scaling_factor=round(float(1 / deviation.square().mean().sqrt()), 5))
    return model


def _run(
    training: AutoencoderTraining,
    model: nn.Module,
    part: str,
    num_steps: int,
    losses: Callable[[int], tuple[Tensor, Tensor, Tensor]],
    *,
    log: Log | None,
    stop: Callable[[], bool],
    measured: Callable[[MasterAdam], dict[str, float]] | None = None,
) -> MasterAdam:
    """Train a part from its newest checkpoint on; losses: of a step, with what was decoded and its target, -1..1."""
    decoder, folder = part == "decoder", training.output / part
    saved = read_checkpoint(folder)
    begun = None if saved is None or saved["settings"] is None else saved["settings"]["dtype"]
    shapes = [training.num_clip_frames] if training.num_clip_steps else []
    dtype = type_of(training.dtype, training.device, begun, shapes)
    settings = {**training.decided(decoder=decoder), "dtype": str(dtype).removeprefix("torch.")}
    settings["initial"] = None if training.initial is None else fingerprint(model)
    model.to(training.device)
    optimiser = MasterAdam(model, ema=training.ema)
    model.to(dtype).train()
    before = training.encoder_first if decoder else 0
    at, last = time.perf_counter(), load_checkpoint(folder, optimiser, lambda _: settings)
    for step in range(last, num_steps):
        loss, decoded, target = losses(step)
        loss.backward()
        rate = warm_cosine(step, num_steps, training.num_warmup, training.lr)
        optimiser.step(rate)
        done = step + 1
        stopping = stop()
        if done % training.checkpoint_every == 0 or done == num_steps or stopping:
            check_loss(loss, before + done)
            save_checkpoint(folder, optimiser, done, lambda _: settings)
        if log is not None and (done % training.log_every == 0 or done == num_steps):
            error = (decoded.detach() - target).div(2).square().mean()
            figures = {"loss": float(loss.detach()), "psnr": float(-10 * torch.log10(error)), "lr": rate}
            now = time.perf_counter()
            speed = (done - last) / max(now - at, 1e-9)
            figures["pictures_per_second"] = speed * len(target)
            figures["seconds_left"] = (num_steps - done) / speed
            log({"step": before + done, **figures})
            at, last = now, done
        every = training.measure_every
        if log is not None and measured is not None and every > 0 and done % every == 0:
            log({"step": before + done, **measured(optimiser)})
            at = time.perf_counter()
        if stopping and not (decoder and done == num_steps):
            raise Stopped(before + done, before + num_steps)
    return optimiser

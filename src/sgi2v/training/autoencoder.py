"""Trains the autoencoder: SVD's AutoencoderKLTemporalDecoder at a small width.

First the encoder, against a linear decoder that is thrown away: a fraction of the cost, and latents that are nearly
linear in the picture, which a denoiser likes. Then, the encoder frozen, the decoder: on pictures, then on clips. Or,
where a step costs little, both together from the start (`joint`), which keeps more of a picture. Both together can also
go on from a finished autoencoder, its latents held near where they were (`keep_latents`), so that its denoiser stays.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Literal

import torch
from diffusers import AutoencoderKLTemporalDecoder
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sgi2v.training.autoencoder_fields import AutoencoderTraining
from sgi2v.training.checkpoint import begun_in, fingerprint
from sgi2v.training.fidelity import measure_autoencoder
from sgi2v.training.loop import Log, Loop, Stop, never
from sgi2v.training.networks import load_autoencoder, type_of
from sgi2v.training.optimiser import MasterAdam, warm_cosine
from sgi2v.training.spatial import pictures_only, silence_temporal_layers
from sgi2v.world import LifelikeWorld, World
from sgi2v.world.draws import normal, seed_of
from sgi2v.world.pictures import mixed_pictures


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
    side = training.size
    # The golden ratio spreads any run of numbers evenly over 0..1.
    if number * 0.6180339887 % 1 < training.lifelike:
        return LifelikeWorld(width=side, height=side, radius=radius, num_things=num_things)
    kind: Literal["rich", "simple"] = "rich" if number % 2 else "simple"
    return World(width=side, height=side, radius=radius, num_things=num_things, kind=kind)


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
    training: AutoencoderTraining, *, log: Log | None = None, stop: Stop = never
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

    _run(training, both, "encoder", training.num_encoder_steps, losses, log=log, stop=stop)
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
    latents: Float[Tensor, "b c h w"], training: AutoencoderTraining, step: int, *, num_frames: int, deviation: float
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
    latents = torch.cat([model.encode(batch.to(model.device, model.dtype)).latent_dist.mean for batch in batches])
    return latents.mean((0, 2, 3)), latents.std((0, 2, 3))


def train(training: AutoencoderTraining, *, log: Log | None = None, stop: Stop = never) -> AutoencoderKLTemporalDecoder:
    """Train both parts, resuming from the newest checkpoint in `output`; the averaged model in float32.

    Data and noise of a step depend on the seed and the step's number alone, so a resumed run gives the same weights on
    the same processor, and nearly on a GPU, which adds up in any order. `stop` is asked after every step; where it says
    yes, the step is saved and Stopped raised.
    ValueError for a checkpoint of other settings.
    """
    first = training.encoder_first
    model = train_encoder(training, log=log, stop=stop) if first else build(training)
    for part in (model.encoder, model.quant_conv):
        part.requires_grad_(training.joint)
    before = deepcopy(model).eval().requires_grad_(False).to(training.device) if training.keep_latents else None
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
        # Latents that may change are as large as they come, since their scale is measured at the end.
        changes = training.joint and before is None
        deviation = float(latents.detach().float().std()) if changes else 1 / scale
        latents = _roughened(latents, training, step, num_frames=num_frames, deviation=deviation)
        if in_clips:
            decoded = model.decode(latents, num_frames=training.num_clip_frames).sample.float()
        else:
            with pictures_only(model):
                decoded = model.decode(latents, num_frames=1).sample.float()
        return reconstruction_loss(decoded, target, training.gradient_loss) + extra, decoded, target

    def measured(averaged: nn.Module) -> dict[str, float]:
        assert isinstance(averaged, AutoencoderKLTemporalDecoder)
        found = measure_autoencoder(averaged.eval(), num=8, width=training.size, height=training.size)
        return {name: figure["value"] for name, figure in found.items()}

    _run(training, model, "decoder", training.num_steps, losses, log=log, stop=stop, measured=measured)
    model.eval().requires_grad_(False)
    if training.joint and before is None:
        _, deviation = _spread(model, training)
        model.register_to_config(scaling_factor=round(float(1 / deviation.square().mean().sqrt()), 5))
    return model


class _Part:
    """A part of the autoencoder in the training's loop."""

    def __init__(self, losses: Callable[[int], tuple[Tensor, Tensor, Tensor]]) -> None:
        """losses: of a step, with what was decoded and its target, -1..1."""
        self._losses, self._num = losses, 0
        self._last: tuple[Tensor, Tensor, Tensor] | None = None

    def learn(self, step: int) -> Tensor:
        """Leave the step's gradients in the parameters."""
        loss, decoded, target = self._losses(step)
        loss.backward()
        self._num += len(target)
        self._last = loss.detach(), decoded.detach(), target
        return self._last[0]

    def figures(self, seconds: float) -> dict[str, float]:
        """Loss and fidelity of the last step; pictures a second."""
        assert self._last is not None
        loss, decoded, target = self._last
        error = (decoded - target).div(2).square().mean()
        num, self._num = self._num, 0
        return {"loss": float(loss), "psnr": float(-10 * torch.log10(error)), "pictures_per_second": num / seconds}


def _run(
    training: AutoencoderTraining,
    model: nn.Module,
    part: Literal["encoder", "decoder"],
    num_steps: int,
    losses: Callable[[int], tuple[Tensor, Tensor, Tensor]],
    *,
    log: Log | None,
    stop: Stop,
    measured: Callable[[nn.Module], dict[str, float]] | None = None,
) -> None:
    """Train a part from its newest checkpoint on; it is left in float32, averaged, what did not learn as it was.

    losses: as of _Part; measured: figures of the averaged network.
    """
    decoder, folder = part == "decoder", training.output / part
    shapes = [training.num_clip_frames] if training.num_clip_steps else []
    dtype = type_of(training.dtype, training.device, begun_in(folder), shapes)
    settings = {**training.decided(decoder=decoder), "dtype": str(dtype).removeprefix("torch.")}
    settings["initial"] = None if training.initial is None else fingerprint(model)
    model.to(training.device)
    optimiser = MasterAdam(model, ema=training.ema)
    fixed = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    model.to(dtype).train()

    @torch.no_grad()
    def averaged(network: nn.Module) -> nn.Module:
        """The network in float32 with the averaged weights, and those that do not learn to the bit."""
        own = dict(network.float().named_parameters())
        for name, value in fixed.items():
            own[name].copy_(value)
        optimiser.write_average(network)
        return network

    def watch(_: MasterAdam, done: int) -> dict[str, float]:
        every = training.measure_every
        if log is None or measured is None or every <= 0 or done % every:
            return {}
        return measured(averaged(deepcopy(model)))

    Loop(
        folder=folder,
        settings=lambda _: settings,
        num_steps=num_steps,
        rate=lambda step: warm_cosine(step, num_steps, training.num_warmup, training.lr),
        checkpoint_every=training.checkpoint_every,
        log_every=training.log_every,
        before=training.encoder_first if decoder else 0,
        goes_on=not decoder,
        log=log,
        watch=watch,
        stop=stop,
    ).run(_Part(losses), optimiser)
    averaged(model)

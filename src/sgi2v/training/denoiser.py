"""Trains the denoiser and its image encoder: SVD's conditioning and parametrisation, small or full size."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
from diffusers.models.attention_processor import AttnProcessor
from jaxtyping import Float
from torch import Tensor, nn

from sgi2v.training.accumulation import Learned, MicroBatch, give_mean, replica, side_by_side, training_of
from sgi2v.training.checkpoint import begun_in, fingerprint
from sgi2v.training.correspondence import TaughtAttention
from sgi2v.training.feed import Batch, Feeder
from sgi2v.training.journal import Meter
from sgi2v.training.loop import Log, Loop, Stop, Watch, never
from sgi2v.training.networks import averaged, build, load_autoencoder, place_encoder, type_of
from sgi2v.training.optimiser import MasterAdam
from sgi2v.training.spatial import pictures_only
from sgi2v.training.stages import DenoiserTraining
from sgi2v.training.videos import check_videos
from sgi2v.world.draws import normal, onto, seed_of


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Random draws of a step for each of its clips."""

    sigma: Float[Tensor, " b"]
    """Noise levels, on the CPU, so that a log need not ask the device for them."""
    log_sigma: Float[Tensor, " b"]
    """Their natural logarithms, on the device."""
    shown: Float[Tensor, "2 b"]
    """1 where the concatenated picture and the embedding are shown, 0 where they are dropped."""
    seed: int
    """Seed of the noise."""

    @classmethod
    def of(cls, training: DenoiserTraining, num: int, device: torch.device, step: int) -> "Drawn":
        """A function of the arguments alone."""
        generator = torch.Generator().manual_seed(seed_of("levels", training.seed, step))
        mean, deviation = training.stage_of(step)[0].log_sigma
        log_sigma = mean + deviation * torch.randn(num, generator=generator)
        shown = torch.rand(2, num, generator=generator) >= training.image_dropout
        return cls(
            sigma=log_sigma.exp(),
            log_sigma=onto(log_sigma, device),
            shown=onto(shown.float(), device),
            seed=seed_of("noise of a step", training.seed, step),
        )


def loss_of(models: nn.ModuleDict, batch: Batch, drawn: Drawn) -> Float[Tensor, " b"]:
    """The unreduced loss of each clip of a step.

    The network predicts v at noise levels drawn log-normally; the weight of EDM is 1 for this prediction where the
    data's deviation is 1 (Karras et al. 2022, table 1; SVD, appendix D).
    """
    unet, image_encoder = models["unet"], models["image_encoder"]
    dtype = next(unet.parameters()).dtype
    level = drawn.log_sigma.exp().view(-1, 1, 1, 1, 1)
    noisy = batch.latents + level * normal(batch.latents.shape, drawn.seed, batch.latents.device)
    scale = (level.square() + 1).sqrt()
    target = (noisy / scale**2 - batch.latents) * scale / level
    image = batch.image_latents * drawn.shown[0].view(-1, 1, 1, 1)
    image = image[:, None].expand(-1, noisy.shape[1], -1, -1, -1)
    embedding = image_encoder(batch.clip_pixels.to(dtype)).image_embeds
    embedding = (embedding * drawn.shown[1].view(-1, 1).to(dtype))[:, None]
    predicted = unet(
        torch.cat([noisy / scale, image], 2).to(dtype), 0.25 * drawn.log_sigma, embedding, batch.added_time_ids
    ).sample
    losses: Tensor = (predicted.float() - target).square().mean((1, 2, 3, 4))
    return losses


def train(
    training: DenoiserTraining, *, log: Log | None = None, watch: Watch | None = None, stop: Stop = never
) -> nn.ModuleDict:
    """Train, resuming from the newest checkpoint in `output`; the averaged networks in float32, on the CPU.

    Data and noise of a step depend on the seed and the step's number alone, so a resumed run gives the same weights on
    the same processor, and nearly on a GPU, which adds up in any order.
    FieldError, before any compute, for folders that cannot be used and for a checkpoint of other settings.
    """
    autoencoder = load_autoencoder(training.autoencoder_folder)
    models = build(training)
    shapes = [stage.num_frames for stage in training.stages if stage.num_steps]
    dtype = type_of(training.dtype, training.device, begun_in(training.output), shapes)
    given = {
        "dtype": str(dtype).removeprefix("torch."),
        "autoencoder": fingerprint(autoencoder),
        "initial": None if training.initial is None else fingerprint(models),
        "videos": None if training.videos is None else check_videos(training.videos),
    }
    models.to(training.device)
    optimiser = MasterAdam(models, ema=training.ema)  # copies of the weights before they are rounded
    models.to(dtype).train()
    place_encoder(autoencoder, training.device, dtype)
    # On a CPU the backward pass of fused attention is slower in bfloat16 than attention written out, in float32 faster.
    if torch.device(training.device).type == "cpu" and dtype == torch.bfloat16:
        unet = models["unet"]
        assert isinstance(unet, UNetSpatioTemporalConditionModel)
        unet.set_attn_processor(AttnProcessor())

    def rate(step: int) -> float:
        stage, number = training.stage_of(step)
        return stage.rate(number)

    loop = Loop(
        folder=training.output,
        settings=lambda step: {**training.decided(step), **given},
        num_steps=training.num_steps,
        rate=rate,
        checkpoint_every=training.checkpoint_every,
        log_every=training.log_every,
        work=training.work,
        log=log,
        watch=watch,
        stop=stop,
    )
    micro_batches = [
        _micro_batch(training_of(training, number), replica(models) if number else models, autoencoder)
        for number in range(training.accumulation)
    ]
    with side_by_side(micro_batches, training.device) as learn:
        loop.run(_Denoiser(learn, optimiser), optimiser)
    return averaged(training, optimiser)


class _Denoiser:
    """The denoiser in the training's loop: the mean gradients of a step's micro-batches."""

    def __init__(self, learn: Callable[[int], list[Learned]], optimiser: MasterAdam) -> None:
        self._learn, self._parameters, self._meter = learn, optimiser.parameters, Meter()
        self.figures = self._meter.figures

    def learn(self, step: int) -> Tensor:
        """Leave the step's gradients in the parameters."""
        learned = self._learn(step)
        give_mean(self._parameters, learned)
        for batch in learned:
            self._meter.add(batch.losses, batch.sigma, batch.missed)
        return torch.cat([batch.losses for batch in learned])


def _micro_batch(
    training: DenoiserTraining, models: nn.ModuleDict, autoencoder: AutoencoderKLTemporalDecoder
) -> MicroBatch:
    """One of a step's micro-batches, computed on these networks."""
    parameters = [parameter for parameter in models.parameters() if parameter.requires_grad]
    feeder = Feeder(training, autoencoder)

    def learn(step: int) -> Learned:
        stage, _ = training.stage_of(step)
        batch = feeder(step)
        drawn = Drawn.of(training, len(batch.latents), batch.latents.device, step)
        # Around the backward pass as well: checkpointed layers run again in it.
        with pictures_only(models["unet"]) if stage.num_frames == 1 else nullcontext():
            with TaughtAttention(training, models["unet"], batch, step) as taught:
                losses = loss_of(models, batch, drawn)
            missed = taught.loss(drawn.shown[0])
            total = losses.mean() if missed is None else losses.mean() + training.correspondence * missed
            gradients = torch.autograd.grad(total, parameters, allow_unused=True)
        return Learned(
            gradients=gradients,
            losses=losses.detach(),
            sigma=drawn.sigma,
            missed=None if missed is None else missed.detach(),
        )

    return learn

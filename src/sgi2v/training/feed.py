"""Feeds the denoiser's training: renders clips, encodes them, and draws the batch of any step from them."""

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKLTemporalDecoder
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sgi2v.training.stages import DenoiserTraining, Stage
from sgi2v.training.world import Kind, World

# The mean and deviation by which CLIP's processor normalises pictures, per channel.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
CLIP_SIZE = 224


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
    encoded: Tensor = latents.float().unflatten(0, frames.shape[:2])
    return encoded


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

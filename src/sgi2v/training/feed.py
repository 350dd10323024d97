"""Feeds the denoiser's training: renders clips, encodes them, and draws the batch of any step from them."""

import math
from dataclasses import dataclass, replace
from typing import Final

import torch
from diffusers import AutoencoderKLTemporalDecoder
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sgi2v.training.stages import DenoiserTraining, Stage
from sgi2v.training.videos import Footage
from sgi2v.world import Correspondence, Layers, LifelikeWorld, World
from sgi2v.world.draws import normal, onto, seed_of

# The mean and deviation by which CLIP's processor normalises pictures, per channel.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
CLIP_SIZE = 224

CELL: Final = 8
"""Side in pixels of a latent cell, over which a pool keeps what layers are seen."""
_AT_ONCE: Final = 2**25  # pixels rendered and encoded in one go, about 40 clips of 14 frames of 320x192
_ENCODED: Final = (16, 256)  # frames encoded in one go, on a processor and on an accelerator
_ENCODED_PIXELS: Final = 2**22  # and at most these: 2 GB a tensor in the first layers of SVD's autoencoder


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The encoded clips of one step."""

    latents: Float[Tensor, "b f c h w"]
    """Clean latents, scaled."""
    image_latents: Float[Tensor, "b c h w"]
    """Latents of the noised first frame, not scaled (as diffusers' pipeline leaves them)."""
    clip_pixels: Float[Tensor, "b 3 224 224"]
    """The first frame as CLIP's processor gives it."""
    added_time_ids: Float[Tensor, "b 3"]
    """Frames a second less one, motion bucket, strength of the noise on the first frame."""
    layers: Layers | None = None
    """The layers of the frames, over latent cells; None of footage, whose layers nobody knows."""
    given: Layers | None = None
    """The same of the given picture, one frame."""

    def matches(self, stride: int = CELL) -> Correspondence:
        """The cell of the given picture that each cell of the frames shows, and how far it can be seen there.

        stride: side of a cell in pixels, CELL for latents, twice as much for each level of the denoiser below.
        ValueError where nobody knows.
        """
        if self.layers is None or self.given is None:
            raise ValueError("correspondences are known of rendered clips alone, not of footage")
        return self.layers.pooled(stride).correspondence(self.given.pooled(stride))


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Encoded clips that several steps draw from, since encoding costs as much as a training step."""

    given: Float[Tensor, "p k 3 h w"]
    """The frames that can be the given picture, 0..1: in stages of pictures all, in those of clips the first and the
    last."""
    latents: Float[Tensor, "p f c h8 w8"]
    """Their scaled latents."""
    images: Float[Tensor, "p k c h8 w8"]
    """Unscaled latents of those, in stages of clips noised."""
    strength: Float[Tensor, "p k"]
    """Strength of the noise on them."""
    motion: Float[Tensor, " p"]
    """Amount of motion of each clip."""
    layers: Layers | None
    """The layers of all frames, over latent cells; None of footage."""


@torch.no_grad()
def pool_of(
    training: DenoiserTraining,
    autoencoder: AutoencoderKLTemporalDecoder,
    stage: Stage,
    number: int,
    footage: Footage | None = None,
    *,
    held_out: bool = False,
) -> Pool:
    """Render a pool, or cut it from footage, and encode it; a function of the arguments alone.

    held_out: whether to render what training never sees.
    """
    generator = torch.Generator().manual_seed(seed_of("pool", training.seed, number))
    uses = 8 if stage.num_frames == 1 else 4
    num = max(1, stage.batch_size * training.pool_steps // uses)
    world = _world(stage, number, float(torch.rand((), generator=generator)), held_out=held_out)
    if stage.num_frames == 1:
        # Four looks at a scene give twelve pairs of a picture and a later (or earlier) one.
        times = torch.rand(num, 4, generator=generator)
        strength = torch.zeros(num, 4)
    else:
        times = torch.linspace(0, 1, stage.num_frames).expand(num, -1)
        low, high = (torch.tensor(value).log() for value in training.noise_aug)
        strength = torch.exp(low + (high - low) * torch.rand(num, 2, generator=generator))
    parts: list[tuple[Tensor, ...]] = []
    known: list[Layers] = []
    for part in torch.arange(num).chunk(math.ceil(times.numel() * stage.width * stage.height / _AT_ONCE)):
        # No two parts, and no two pools, are of the same clips.
        own, when = seed_of("clips", training.seed, number, int(part[0])), times[part]
        layers: Layers | None = None
        if footage is None:
            clips = world.render(len(part), own, times=when, device=training.device)
            frames, motion, layers = clips.frames, clips.motion.cpu(), clips.layers.pooled(CELL)
        else:
            frames, motion = footage.cut(
                len(part), own, width=stage.width, height=stage.height, times=when, num_frames=training.num_frames
            )
            frames = frames.to(training.device)
        latents = _encode(autoencoder, frames)
        given, images = frames, latents
        if stage.num_frames > 1:
            given = frames[:, [0, -1]]
            noise = normal(given.shape, seed_of("noise", own), given.device)
            # In -1..1 the noise has the stated strength, in 0..1 half of it.
            strong = strength[part].to(given.device)[..., None, None, None]
            images = _encode(autoencoder, given + noise * strong / 2)
        parts.append((given, latents * autoencoder.config.scaling_factor, images, motion))
        known += [] if layers is None else [layers]
    given, latents, images, motion = (torch.cat(same) for same in zip(*parts, strict=True))
    return Pool(
        given=given,
        latents=latents,
        images=images,
        strength=strength,
        motion=motion,
        layers=Layers.joined(known) if known else None,
    )


def _world(stage: Stage, number: int, draw: float, *, held_out: bool) -> World | LifelikeWorld:
    """The world of a pool; draw: 0..1, at random."""
    world: World | LifelikeWorld = World(kind="rich" if draw < stage.rich * (1 - stage.lifelike) else "simple")
    if draw >= 1 - stage.lifelike:
        world = LifelikeWorld()
        if stage.calm:
            world = replace(world, camera=0.0, passing=0.0, occluder=0.0, turning=0.0, blurred=0.0, lighting=0.0)
    shape = {name: getattr(stage, name) for name in ("width", "height", "radius")}
    return replace(world, **shape, num_things=1 + number % stage.num_things, held_out=held_out)


def _encode(autoencoder: AutoencoderKLTemporalDecoder, frames: Float[Tensor, "b f 3 h w"]) -> Tensor:
    """Unscaled latents [b, f, c, h, w] of frames in 0..1, some at a time."""
    pixels = (2 * frames.flatten(0, 1) - 1).to(autoencoder.dtype)
    most = _ENCODED_PIXELS // (pixels.shape[-2] * pixels.shape[-1])
    at_once = max(1, min(_ENCODED[pixels.device.type != "cpu"], most))
    latents = torch.cat([autoencoder.encode(part).latent_dist.mode() for part in pixels.split(at_once)])
    encoded: Tensor = latents.float().unflatten(0, frames.shape[:2])
    return encoded


class Feeder:
    """Gives the batch of any step; keeps the pool of the last one."""

    def __init__(
        self, training: DenoiserTraining, autoencoder: AutoencoderKLTemporalDecoder, *, held_out: bool = False
    ) -> None:
        """held_out: true where rendered clips are of what training never sees."""
        self.training, self.autoencoder, self._held_out = training, autoencoder, held_out
        self._footage = None if training.videos is None else Footage(training.videos)
        self._pool: tuple[int, Pool] | None = None

    @torch.no_grad()
    def __call__(self, step: int) -> Batch:
        """The batch of a step, a function of the training's fields and the step alone."""
        training = self.training
        stage, number = training.stage_of(step)
        # Pools begin at the first step of a stage, and never span two.
        index = (step - number) + number // training.pool_steps
        if self._pool is None or self._pool[0] != index:
            self._pool = (
                index,
                pool_of(training, self.autoencoder, stage, index, self._footage, held_out=self._held_out),
            )
        pool = self._pool[1]
        generator = torch.Generator().manual_seed(seed_of("batch", training.seed, step))
        num = stage.batch_size
        row = torch.randint(len(pool.latents), (num,), generator=generator)
        if stage.num_frames == 1:
            given = torch.randint(4, (num,), generator=generator)
            # One in eight is the given picture itself, which the model must give back as it is.
            other = (given + torch.randint(1, 4, (num,), generator=generator)) % 4
            shown = torch.where(torch.rand(num, generator=generator) < 0.125, given, other)
            kept, frames = given, shown[:, None]
        else:
            # Every other clip runs backwards.
            kept = torch.randint(2, (num,), generator=generator)
            order = torch.arange(stage.num_frames)
            frames = torch.where(kept[:, None] == 1, order.flip(0), order)
            given = frames[:, 0]
        strength = pool.strength[row, kept]
        bucket = 255 * pool.motion[row].clamp(max=1) + training.motion_jitter * torch.randn(num, generator=generator)
        ids = torch.stack([torch.full((num,), float(training.fps - 1)), bucket.clamp(0, 255), strength], 1)
        device = pool.latents.device
        clip, picked, frame = (onto(value, device) for value in (row, kept, frames))
        known = pool.layers
        return Batch(
            latents=pool.latents[clip[:, None], frame],
            image_latents=pool.images[clip, picked],
            clip_pixels=clip_pixels(pool.given[clip, picked]),
            added_time_ids=onto(ids, device),
            layers=None if known is None else known.picked(clip, frame),
            given=None if known is None else known.picked(clip, onto(given[:, None], device)),
        )


def clip_pixels(frames: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 224 224"]:
    """Pictures in 0..1 as diffusers' pipeline hands them to the image encoder: blurred as much as they shrink."""
    device, pixels = frames.device, 2 * frames - 1
    for axis, side in enumerate(frames.shape[-2:]):
        sigma = max((side / CLIP_SIZE - 1) / 2, 0.001)
        reach = int(max(4 * sigma, 3)) // 2
        bell = torch.exp(-(torch.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
        kernel = onto(bell / bell.sum(), device).view(1, 1, *((-1, 1) if axis == 0 else (1, -1)))
        pad = (0, 0, reach, reach) if axis == 0 else (reach, reach, 0, 0)
        pixels = functional.conv2d(functional.pad(pixels, pad, mode="reflect"), kernel.expand(3, -1, -1, -1), groups=3)
    size = (CLIP_SIZE, CLIP_SIZE)
    resized = functional.interpolate(pixels, size, mode="bicubic", align_corners=True)
    mean, std = (onto(torch.tensor(value).view(1, 3, 1, 1), device) for value in (CLIP_MEAN, CLIP_STD))
    return ((resized + 1) / 2 - mean) / std

"""Time-to-Move's dual-clock denoising written literally: one loop over a scheduler's steps, one cell at a time.

Nothing is shared with the package. Latents are `[1, frames, channels, height, width]`, as diffusers has them.
"""

from typing import Any

import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from reference.svd import Models, Settings, denoising_step, start

CELL = 8


@torch.no_grad()
def encode_clip(models: Models, frames: Tensor) -> Tensor:
    """Latents `[1, F, 4, H, W]` of a clip `[F, 3, H, W]` in 0..1: the posterior's mode, times the scaling factor."""
    latents = [models.vae.encode(frame[None] * 2 - 1).latent_dist.mode() for frame in frames]
    scaled: Tensor = torch.cat(latents)[None] * models.vae.config.scaling_factor
    return scaled


def inside(masks: Tensor, coverage: float) -> NDArray[Any]:
    """Per frame and cell, whether at least `coverage` of its pixels' mask `[F, h, w]` is there."""
    num_frames, height, width = masks.shape
    held = torch.zeros(num_frames, height // CELL, width // CELL, dtype=torch.bool)
    for j in range(num_frames):
        for row in range(height // CELL):
            for column in range(width // CELL):
                total = 0.0
                for y in range(CELL):
                    for x in range(CELL):
                        total += float(masks[j, row * CELL + y, column * CELL + x])
                held[j, row, column] = total / CELL**2 >= coverage
    return held.numpy()


def run(
    models: Models,
    image: Image.Image,
    clip: Tensor,
    masks: Tensor,
    settings: Settings,
    *,
    begin: int,
    strong: int,
    coverage: float = 0.5,
) -> Tensor:
    """Clean latents. `begin` is the index of the first step, `strong` that of the last one whose mask is set back."""
    condition, pure = start(models, image, settings)
    noise = pure / models.scheduler.init_noise_sigma
    wanted, held = encode_clip(models, clip), inside(masks, coverage)
    latents: Tensor = wanted + models.scheduler.sigmas[begin] * noise
    for index, timestep in enumerate(models.scheduler.timesteps):
        if index < begin:
            continue
        if index == begin:
            models.scheduler._step_index = begin
        latents = denoising_step(models, latents, timestep, condition, settings)
        # After the step, at the level that it led to.
        if index + 1 <= strong:
            sigma = models.scheduler.sigmas[index + 1]
            for j in range(held.shape[0]):
                for row in range(held.shape[1]):
                    for column in range(held.shape[2]):
                        if held[j, row, column]:
                            noised = wanted[0, j, :, row, column] + sigma * noise[0, j, :, row, column]
                            latents[0, j, :, row, column] = noised
    return latents

"""Pictures the world is textured with: photographs, 'dead leaves' and fractal noise, all openly licensed."""

import math
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sgi2v.errors import FieldError

# Each is CC0 or in the public domain by the docstring of the function of the same name in skimage.data.
TRAINING_PHOTOGRAPHS = ("astronaut", "coffee", "camera", "brick", "grass", "hubble_deep_field")
HELD_OUT_PHOTOGRAPHS = ("chelsea", "rocket", "gravel")
# The lifelike world sees more: CC0 (retina), in the public domain (clock), without known copyright restrictions
# (immunohistochemistry, coins), by the same docstrings.
MORE_TRAINING_PHOTOGRAPHS = (*TRAINING_PHOTOGRAPHS, "retina", "immunohistochemistry")
MORE_HELD_OUT_PHOTOGRAPHS = (*HELD_OUT_PHOTOGRAPHS, "coins", "clock")


@cache
def photographs(held_out: bool = False, height: int = 256) -> tuple[Tensor, ...]:
    """The photographs of one split, float32 [3, height, width] in 0..1, their shape kept.

    FieldError when scikit-image, where they come from, is not installed.
    """
    return tuple(photograph(name, height) for name in (HELD_OUT_PHOTOGRAPHS if held_out else TRAINING_PHOTOGRAPHS))


def photograph(name: str, height: int) -> Float[Tensor, "3 {height} w"]:
    """A photograph of skimage.data, 0..1, RGB, resized to a height, its shape kept.

    FieldError when scikit-image is not installed.
    """
    try:
        from skimage import data
    except ImportError as error:
        raise FieldError("", "training needs the photographs of scikit-image: pip install scikit-image") from error
    pixels = torch.from_numpy(getattr(data, name)()).float() / 255
    picture = pixels.permute(2, 0, 1) if pixels.ndim == 3 else pixels.expand(3, -1, -1)
    size = (height, round(picture.shape[2] * height / picture.shape[1]))
    resized = functional.interpolate(picture[None, :3], size, mode="bicubic", antialias=True)
    return resized[0].clamp(0, 1)


def photograph_crops(
    num: int, height: int, width: int, generator: torch.Generator, *, held_out: bool = False
) -> Float[Tensor, "num 3 height width"]:
    """Random crops of the photographs, at random scale, mirrored and with their colours shifted; 0..1."""
    source = photographs(held_out)
    crops = torch.empty(num, 3, height, width)
    draw = torch.rand(num, 8, generator=generator)
    for row, crop in zip(draw.tolist(), crops, strict=True):
        picture = source[int(row[0] * len(source))]
        fit = min(picture.shape[1] / height, picture.shape[2] / width)
        scale = min(fit, math.exp(row[1] * math.log(max(fit, 1.0))) * 0.9)
        high, wide = max(2, int(height * scale)), max(2, int(width * scale))
        top, left = int(row[2] * (picture.shape[1] - high + 1)), int(row[3] * (picture.shape[2] - wide + 1))
        window = picture[None, :, top : top + high, left : left + wide]
        crop.copy_(functional.interpolate(window, (height, width), mode="bilinear", antialias=True)[0])
        if row[4] < 0.5:
            crop.copy_(crop.flip(-1))
        if row[5] < 0.5:
            crop.copy_(crop[torch.randperm(3, generator=generator)])
        crop.mul_(0.7 + 0.6 * row[6]).add_(0.3 * (row[7] - 0.5))
    return crops.clamp_(0, 1)


def fractal_noise(
    num: int, height: int, width: int, generator: torch.Generator, *, device: str = "cpu"
) -> Float[Tensor, "num 3 height width"]:
    """Coloured noise whose amplitude falls as one over frequency to a random power; 0..1.

    Random numbers are drawn on the CPU and the picture on `device`.
    """
    total = torch.zeros(num, 3, height, width, device=device)
    roughness = 0.35 + 0.45 * torch.rand(num, 1, 1, 1, generator=generator).to(device)
    for octave in range(6):
        cells = 2 ** (octave + 1)
        size = (min(cells, height), min(max(2, cells * width // height), width))
        noise = torch.randn(num, 3, *size, generator=generator).to(device)
        # Half of every octave is grey, as in natural pictures, whose channels vary together.
        noise = 0.6 * noise + 0.8 * noise[:, :1]
        total += roughness**octave * functional.interpolate(noise, (height, width), mode="bicubic")
    mean = torch.rand(num, 3, 1, 1, generator=generator).to(device)
    return (mean + 0.18 * total).clamp_(0, 1)


def dead_leaves(
    num: int,
    height: int,
    width: int,
    generator: torch.Generator,
    *,
    num_leaves: int = 48,
    smallest: float = 2.0,
    device: str = "cpu",
) -> Float[Tensor, "num 3 height width"]:
    """Overlapping discs and rectangles with power-law sizes, which stand in for natural pictures; 0..1.

    smallest: radius of the smallest ones in pixels. Random numbers are drawn on the CPU and the picture on `device`.
    Source: Lee, Mumford, Huang, "Occlusion models for natural images", IJCV 2001.
    """
    y = torch.arange(height, device=device).view(1, height, 1) + 0.5
    x = torch.arange(width, device=device).view(1, 1, width) + 0.5
    pictures = fractal_noise(num, height, width, generator, device=device)
    for _ in range(num_leaves):
        draw = torch.rand(num, 12, 1, 1, generator=generator).to(device)
        # Inverse of the cumulative distribution of r^-3 between r_min and r_max.
        small, large = smallest, 0.45 * height
        radius = (small**-2 + draw[:, 0] * (large**-2 - small**-2)) ** -0.5
        turn = math.tau * draw[:, 1]
        dx, dy = x - draw[:, 2] * width, y - draw[:, 3] * height
        across = dx * turn.cos() + dy * turn.sin()
        along = (dy * turn.cos() - dx * turn.sin()) * (0.6 + 1.2 * draw[:, 4])
        disc = (across**2 + along**2 + 1e-6).sqrt()
        rectangle = torch.maximum(across.abs(), along.abs())
        distance = torch.where(draw[:, 5] < 0.6, disc, rectangle)
        cover = (radius - distance + 0.5).clamp(0, 1)[:, None]
        shade = 0.25 * (draw[:, 6] - 0.5) * (across / radius)
        stripes = 0.15 * (draw[:, 7] < 0.4) * torch.sin(across * (0.4 + 2 * draw[:, 8]))
        colour = draw[:, 9:12] + (shade + stripes)[:, None]
        pictures = torch.lerp(pictures, colour.clamp(0, 1), cover)
    return pictures


def mixed_pictures(
    num: int, height: int, width: int, generator: torch.Generator, *, held_out: bool = False, device: str = "cpu"
) -> Float[Tensor, "num 3 height width"]:
    """Photograph crops, dead leaves and fractal noise in turn (half, three and one eighths); 0..1, on the device."""
    num_photographs = (num + 1) // 2
    num_noise = num // 8
    num_leaves = num - num_photographs - num_noise
    parts = [photograph_crops(num_photographs, height, width, generator, held_out=held_out).to(device)]
    if num_leaves:
        parts.append(dead_leaves(num_leaves, height, width, generator, device=device))
    if num_noise:
        parts.append(fractal_noise(num_noise, height, width, generator, device=device))
    return torch.cat(parts)

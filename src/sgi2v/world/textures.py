"""Pictures made wherever the training runs, without a loop over them: crops of an atlas of photographs, recoloured."""

from dataclasses import dataclass
from functools import cache
from typing import Final

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from sgi2v.world.pictures import (
    MORE_HELD_OUT_PHOTOGRAPHS,
    MORE_TRAINING_PHOTOGRAPHS,
    dead_leaves,
    fractal_noise,
    photograph,
)

_HEIGHT: Final = 480  # pixels of a photograph in the atlas
_NUM_LEVELS: Final = 3  # each half as large as the one before, for crops that are made smaller


@dataclass(frozen=True, kw_only=True)
class Atlas:
    """Photographs and their smaller copies on one large picture, so that a batch may look at any of them at once."""

    image: Float[Tensor, "1 3 h w"]
    """Everything, one below the other; RGB, 0..1."""
    tops: Float[Tensor, "p level"]
    """Row of the atlas in which each photograph begins, by level."""
    sizes: Float[Tensor, "p 2"]
    """Width and height of each photograph in pixels."""

    def sample(
        self, photo: Int64[Tensor, " n"], points: Float[Tensor, "n h w 2"], spread: Float[Tensor, " n"]
    ) -> Float[Tensor, "n 3 h w"]:
        """Photographs at points (x, y), in pixels of each, mirrored at its edges.

        spread: pixels of the photograph between neighbouring points; from 2 up a smaller copy is read.
        """
        level = spread.log2().floor().long().clamp(0, _NUM_LEVELS - 1)
        shrink = 2.0 ** level[:, None, None, None]
        size = self.sizes[photo][:, None, None]
        mirrored = size - (torch.remainder(points, 2 * size) - size).abs()
        inside = torch.minimum((mirrored / shrink).clamp(min=0.5), (size / shrink).floor() - 0.5)
        top = self.tops[photo, level][:, None, None]
        place = torch.stack([inside[..., 0], inside[..., 1] + top], -1)
        extent = torch.tensor([self.image.shape[3], self.image.shape[2]], device=points.device)
        grid = 2 * place / extent - 1
        seen = functional.grid_sample(self.image, grid.flatten(0, 1)[None], align_corners=False)
        found: Tensor = seen[0].unflatten(1, (len(photo), -1)).transpose(0, 1)
        return found


@cache
def atlas(held_out: bool, device: str) -> Atlas:
    """The atlas of one split's photographs; ValueError without scikit-image."""
    rows: list[Tensor] = []
    tops: list[list[int]] = []
    sizes, top = [], 0
    for name in MORE_HELD_OUT_PHOTOGRAPHS if held_out else MORE_TRAINING_PHOTOGRAPHS:
        picture = photograph(name, _HEIGHT)
        sizes.append([picture.shape[2], _HEIGHT])
        tops.append([])
        for level in range(_NUM_LEVELS):
            part = functional.avg_pool2d(picture, 2**level)
            tops[-1].append(top)
            top += part.shape[1]
            rows.append(part)
    width = max(part.shape[2] for part in rows)
    image = torch.cat([functional.pad(part, (0, width - part.shape[2])) for part in rows], 1)
    return Atlas(
        image=image[None].to(device),
        tops=torch.tensor(tops, dtype=torch.float32, device=device),
        sizes=torch.tensor(sizes, dtype=torch.float32, device=device),
    )


def photograph_windows(
    num: int,
    size: tuple[int, int],
    core: tuple[int, int],
    generator: torch.Generator,
    *,
    held_out: bool,
    device: str,
    scale: tuple[float, float] = (0.55, 1.6),
) -> Float[Tensor, "num 3 h w"]:
    """Windows of (height, width) onto random photographs, mirrored, bent and recoloured at random; 0..1.

    The middle of them, `core` (height, width), lies within the photograph; what is beyond its edge is mirrored.
    scale: smallest and largest number of the photograph's pixels between two of the window's.
    """
    source = atlas(held_out, device)
    photo = torch.randint(len(source.sizes), (num,), generator=generator).to(device)
    draw = torch.rand(num, 8, generator=generator).to(device)
    extent = source.sizes[photo]
    fit = (extent / torch.tensor([core[1], core[0]], device=device)).amin(1).clamp(max=scale[1])
    spread = scale[0] * (fit / scale[0]).clamp(min=1) ** draw[:, 0].sqrt()
    half = spread[:, None] * torch.tensor([core[1], core[0]], device=device) / 2
    middle = half + draw[:, 1:3] * (extent - 2 * half).clamp(min=0)
    y = torch.arange(size[0], device=device) + 0.5 - size[0] / 2
    x = torch.arange(size[1], device=device) + 0.5 - size[1] / 2
    across, along = torch.meshgrid(x, y, indexing="xy")
    flip = torch.where(draw[:, 3] < 0.5, -1.0, 1.0)[:, None, None]
    tilt = (0.24 * (draw[:, 4] - 0.5) * (draw[:, 5] < 0.5))[:, None, None]
    turned = torch.stack(
        [flip * (across * tilt.cos() - along * tilt.sin()), across * tilt.sin() + along * tilt.cos()], -1
    )
    points = middle[:, None, None] + spread[:, None, None, None] * turned
    bend = torch.randn(num, 2, 4, 6, generator=generator).to(device)
    bend = functional.interpolate(bend, size, mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    amount = 0.02 * min(size) * (draw[:, 6] - 0.5).clamp(min=0) * 2
    points = points + amount[:, None, None, None] * bend
    return recoloured(source.sample(photo, points, spread), generator)


def recoloured(pictures: Float[Tensor, "num 3 h w"], generator: torch.Generator) -> Float[Tensor, "num 3 h w"]:
    """Pictures with channels exchanged (one in three), of other tint, saturation, contrast and brightness; 0..1."""
    num = len(pictures)
    draw = torch.rand(num, 9, generator=generator)
    order = torch.rand(num, 3, generator=generator).argsort(1)
    order = torch.where(draw[:, :1] < 0.33, order, torch.arange(3))
    saturation = torch.where(draw[:, 1:2] < 0.08, 0.0, 0.6 + 0.8 * draw[:, 2:3])[..., None]
    # Grey by the weights of the eye, then as much colour as drawn, then the channels in their order.
    grey = torch.tensor([0.299, 0.587, 0.114]).expand(3, 3)
    mix = (saturation * torch.eye(3) + (1 - saturation) * grey).gather(1, order[..., None].expand(-1, -1, 3))
    gain = 0.75 + 0.45 * draw[:, 3:4] + 0.3 * (draw[:, 6:] - 0.5)
    shift, gamma = 0.16 * (draw[:, 4:5] - 0.5), torch.exp(0.8 * (draw[:, 5:6] - 0.5))
    gains, shifts, gammas = (value.to(pictures.device)[..., None, None] for value in (gain, shift, gamma))
    bent, mixes = pictures.clamp(min=1e-3) ** gammas, mix.to(pictures.device)[..., None, None]
    mixed = sum(mixes[:, :, channel] * bent[:, channel : channel + 1] for channel in range(3))
    return ((mixed - 0.5) * gains + 0.5 + shifts).clamp_(0, 1)


def _dulled(pictures: Float[Tensor, "num 3 h w"], generator: torch.Generator) -> Float[Tensor, "num 3 h w"]:
    """Pictures drawn towards their grey by a random share, since little in the world is glaring."""
    share = 0.75 * torch.rand(len(pictures), 1, 1, 1, generator=generator).to(pictures.device)
    return torch.lerp(pictures, pictures.mean(1, keepdim=True).expand_as(pictures), share)


def smooth_pictures(
    num: int, size: tuple[int, int], generator: torch.Generator, device: str
) -> Float[Tensor, "num 3 h w"]:
    """Plain walls and skies: two colours that run into each other, with a little fine grain; 0..1."""
    ends = torch.rand(num, 2, 3, 1, 1, generator=generator).to(device)
    ends[:, 1] = torch.lerp(ends[:, 0], ends[:, 1], 0.5)
    lie = torch.randn(num, 1, 3, 3, generator=generator).to(device)
    lie = functional.interpolate(lie, size, mode="bicubic", align_corners=True).sigmoid()
    grain = torch.randn(num, 1, *(side // 3 for side in size), generator=generator).to(device)
    grain = functional.interpolate(grain, size, mode="bilinear")
    strength = 0.03 * torch.rand(num, 1, 1, 1, generator=generator).to(device)
    return (torch.lerp(ends[:, 0], ends[:, 1], lie) + strength * grain).clamp_(0, 1)


def varied_pictures(
    num: int,
    size: tuple[int, int],
    core: tuple[int, int],
    generator: torch.Generator,
    *,
    held_out: bool,
    device: str,
    shares: tuple[float, float, float] = (0.62, 0.18, 0.1),
) -> Float[Tensor, "num 3 h w"]:
    """Windows onto photographs, dead leaves, fractal noise and plain walls, each by its share (the last: the rest)."""
    draw = torch.rand(num, generator=generator)
    bounds = torch.tensor(shares).cumsum(0)
    kind = (draw[:, None] >= bounds).sum(1)
    pictures = torch.empty(num, 3, *size, device=device)
    # Which are of a kind is known without asking the device.
    places = [(kind == number).nonzero()[:, 0].to(device) for number in range(4)]
    photographs, leaves, noises, walls = (len(place) for place in places)
    if photographs:
        pictures[places[0]] = photograph_windows(photographs, size, core, generator, held_out=held_out, device=device)
    if leaves:
        smallest = 0.05 * size[0]
        made = dead_leaves(leaves, *size, generator, num_leaves=72, smallest=smallest, device=device)
        pictures[places[1]] = recoloured(_dulled(made, generator), generator)
    if noises:
        made = fractal_noise(noises, *size, generator, device=device)
        pictures[places[2]] = recoloured(_dulled(made, generator), generator)
    if walls:
        pictures[places[3]] = smooth_pictures(walls, size, generator, device)
    return pictures

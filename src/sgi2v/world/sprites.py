"""Things of the lifelike world as small pictures with a soft edge: composed of parts, or cut out of a picture."""

import math
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sgi2v.world.outlines import NUM_ANGLES, cover_of, outlines
from sgi2v.world.textures import varied_pictures

NUM_PARTS: Final = 6
_BODY: Final = 3
"""Parts before this one are drawn behind the body, those after it upon it."""
_NUM_BINS: Final = 6  # of each colour channel, in the colour models of a cut


@dataclass(frozen=True, kw_only=True)
class Sprites:
    """Things as pictures of side s, their pixels those of the first frame, their origin in the middle."""

    colour: Float[Tensor, "n 3 s s"]
    """RGB times cover, 0..1."""
    cover: Float[Tensor, "n 1 s s"]
    """The share of each pixel that the thing covers, 0..1."""

    def __post_init__(self) -> None:
        assert self.colour.shape[2] % 2 == 0

    def rim(self) -> Float[Tensor, "n k 2"]:
        """Points (x, y) in pixels from the origin whose extent is the thing's: the ends of each row's covered part.

        A thing that covers nothing is the origin alone.
        """
        covered = self.cover[:, 0] > 0.5
        side = covered.shape[1]
        place = torch.arange(side, device=covered.device) + 0.5 - side / 2
        far = float(side)
        left = torch.where(covered, place, far).amin(2) - 0.5
        right = torch.where(covered, place, -far).amax(2) + 0.5
        y = place.expand_as(left)
        corners = [torch.stack([x, y + d], -1) for x in (left, right) for d in (-0.5, 0.5)]
        points = torch.cat(corners, 1)
        return torch.where(covered.any(2).repeat(1, 4)[..., None], points, _middle(points, covered))


def _middle(points: Tensor, covered: Tensor) -> Tensor:
    """A place amid each thing, for the rows in which it covers nothing; the origin if it covers nothing."""
    weight = covered.any(2).repeat(1, 4)[..., None].float()
    middle: Tensor = (points * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)
    return middle


def composed(
    radius: Float[Tensor, " n"], behind: Float[Tensor, "n 3"], side: int, generator: torch.Generator, *, held_out: bool
) -> Sprites:
    """Things of up to NUM_PARTS joined shapes, patterned and shaded, on the device of `radius`.

    radius: half size in pixels. behind: mean colour of what is behind each, which half of them stand out from.
    """
    num, device = len(radius), str(radius.device)
    part = _parts(num, generator)
    outline = outlines((num, NUM_PARTS), generator, held_out=held_out)
    turn = torch.rand(num, generator=generator)
    part, outline = part.to(device), outline.to(device)
    tilt = torch.where(turn < 0.5, 0.4 * (turn - 0.25), math.tau * turn).to(device)[:, None, None]
    place = (torch.arange(side, device=device) + 0.5 - side / 2) / radius[:, None]
    x, y = place[:, None, :].expand(-1, side, -1), place[:, :, None].expand(-1, -1, side)
    u, v = x * tilt.cos() + y * tilt.sin(), y * tilt.cos() - x * tilt.sin()
    palette = _palette(behind, generator)
    pattern = _patterns(u, v, generator, held_out=held_out)
    pictures = varied_pictures(
        num, (side, side), (side, side), generator, held_out=held_out, device=device, shares=(0.75, 0.15, 0.1)
    )
    light = math.tau * torch.rand(num, 1, 1, generator=generator).to(device)
    colour, cover = (torch.zeros(num, 3, side, side, device=device), torch.zeros(num, 1, side, side, device=device))
    for number in range(NUM_PARTS):
        at, size, aspect, mirrored, mix, picture = part[:, number].split([2, 1, 1, 1, 1, 1], 1)
        across = torch.where(mirrored[..., None] > 0, u.abs(), u) - at[:, :1, None]
        along = v - at[:, 1:, None]
        half = (size * (1 - 0.5 * aspect))[..., None], size[..., None]
        p, q = across / half[0].clamp(min=1e-3), along / half[1].clamp(min=1e-3)
        inside = cover_of(outline[:, number], p, q, (size * radius[:, None])[..., None])
        inside = (inside * (size[..., None] > 0))[:, None]
        # The pattern or picture over the part's own colour, and a round shade that gives it body.
        base = palette[:, number % 3, :, None, None]
        other = palette[:, (number + 1) % 3, :, None, None]
        surface = torch.lerp(base, other, (mix[..., None, None] * pattern))
        surface = torch.lerp(surface, pictures * (0.5 + base), picture[..., None, None])
        shade = 1 + 0.28 * (p * light.cos() + q * light.sin()) - 0.22 * (p * p + q * q)
        surface = (surface * shade[:, None].clamp(0.3, 1.4)).clamp(0, 1)
        colour = torch.lerp(colour, surface, inside)
        cover = torch.lerp(cover, torch.ones_like(cover), inside)
    return Sprites(colour=colour, cover=cover)


def _parts(num: int, generator: torch.Generator) -> Float[Tensor, "n p 7"]:
    """Of each part: place (x, y) and size over the thing's radius, narrowness, mirrored, pattern, picture.

    A size of 0 is a part that is not there. The order is that of drawing: limbs, the body, then what is on it.
    """
    draw = torch.rand(num, NUM_PARTS, 8, generator=generator)
    size = torch.empty(num, NUM_PARTS)
    size[:, :_BODY] = 0.2 + 0.25 * draw[:, :_BODY, 0]
    size[:, _BODY] = 0.6 + 0.36 * draw[:, _BODY, 0]
    size[:, _BODY + 1 :] = 0.08 + 0.24 * draw[:, _BODY + 1 :, 0] ** 2
    body = size[:, _BODY : _BODY + 1]
    # Limbs stand on the body's edge, within the thing's radius; what is on the body lies within it.
    far = torch.minimum(body + 0.3 * size, 0.98 - size)
    far[:, _BODY] = 0
    far[:, _BODY + 1 :] = (0.65 * body * draw[:, _BODY + 1 :, 1].sqrt()).clamp(max=0.6)
    angle = math.tau * draw[..., 2]
    place = far[..., None] * torch.stack([angle.cos(), angle.sin()], -1)
    mirrored = draw[..., 3] < 0.6
    mirrored[:, _BODY] = False
    place[..., 0] = torch.where(mirrored, place[..., 0].abs(), place[..., 0])
    there = draw[..., 4] < 0.62
    there[:, _BODY] = True
    size = size * there
    narrow = draw[..., 5] * 0.9
    narrow[:, _BODY] *= 0.7
    mix = (draw[..., 6] - 0.3).clamp(min=0) * 1.4
    # A whole thing is of one stuff more often than not.
    whole = (torch.rand(num, 1, generator=generator) < 0.5).float()
    picture = torch.where(torch.rand(num, NUM_PARTS, generator=generator) < 0.8, whole, 1 - whole)
    picture = picture * (0.55 + 0.45 * draw[..., 7])
    picture[:, _BODY + 1 :] *= 0.3
    columns = [size, narrow, mirrored.float(), mix, picture]
    return torch.cat([place, torch.stack(columns, -1)], -1)


def _palette(behind: Float[Tensor, "n 3"], generator: torch.Generator) -> Float[Tensor, "n 3 3"]:
    """Three colours for each thing; of every other thing the first is far from what is behind it."""
    num = len(behind)
    draw = torch.rand(num, 3, 3, generator=generator).to(behind.device)
    apart = torch.remainder(behind + 0.3 + 0.4 * draw[:, 0], 1.0)
    stands_out = (torch.rand(num, 1, generator=generator) < 0.6).to(behind.device)
    draw[:, 0] = torch.where(stands_out, apart, draw[:, 0])
    # Most things in the world are not glaring: colours are drawn towards their grey.
    grey = draw.mean(2, keepdim=True)
    dull = 0.6 * torch.rand(num, 1, 1, generator=generator).to(behind.device)
    return torch.lerp(draw, grey.expand_as(draw), dull)


def _patterns(u: Tensor, v: Tensor, generator: torch.Generator, *, held_out: bool) -> Float[Tensor, "n 1 s s"]:
    """A pattern over each thing, 0..1, of the split's own kinds; u, v from its middle over its radius."""
    num = len(u)
    draw = torch.rand(num, 5, generator=generator).to(u.device)[:, :, None, None]
    turn, rate, phase = math.tau * draw[:, 0], 4 + 9 * draw[:, 1], math.tau * draw[:, 2]
    p, q = u * turn.cos() + v * turn.sin(), v * turn.cos() - u * turn.sin()
    waves = torch.sin(rate * p + phase), torch.sin(rate * q)
    if held_out:
        rings = torch.sin(1.5 * rate * (p * p + q * q + 1e-6).sqrt() + phase)
        kinds = torch.stack([rings, waves[0] + waves[1], torch.sin(rate * p + 2 * waves[1])])
    else:
        dots = (waves[0] * waves[1] * 2 - 0.8) * 2
        kinds = torch.stack([waves[0], waves[0] * waves[1] * 2, dots])
    chosen = (draw[:, 3, 0, 0] * len(kinds)).long()
    pattern = torch.sigmoid((2 + 4 * draw[:, 4]) * kinds[chosen, torch.arange(num, device=u.device)])
    return pattern[:, None]


def cut(
    patches: Float[Tensor, "n 3 s s"], radius: Float[Tensor, " n"], generator: torch.Generator, *, held_out: bool
) -> Sprites:
    """Regions about the middle of pictures, as things: their cover keeps to edges of colour where there are some.

    Colours of the middle are weighed against those around it, cell by cell of the colour cube, and a random outline
    decides where colours do not.
    """
    num, side = len(patches), patches.shape[-1]
    device = patches.device
    outline = outlines((num, 1), generator, held_out=held_out)[:, 0].to(device)
    draw = torch.rand(num, 3, 1, 1, generator=generator).to(device)
    tilt = math.tau * draw[:, 0]
    place = torch.arange(side, device=device) + 0.5 - side / 2
    x, y = place.expand(num, side, side), place[:, None].expand(num, side, side)
    size = radius[:, None, None]
    turn = torch.remainder(torch.atan2(y, x) + tilt, math.tau) * (NUM_ANGLES / math.tau)
    reach = outline.gather(1, turn.long().flatten(1) % NUM_ANGLES).view_as(turn)
    away = (x * x + y * y).sqrt() / size
    bins = (patches.clamp(0, 0.999) * _NUM_BINS).long()
    index = ((bins[:, 0] * _NUM_BINS + bins[:, 1]) * _NUM_BINS + bins[:, 2]).flatten(1)
    counts = []
    for chosen in (away < 0.5 * reach, away > 1.05):
        histogram = torch.zeros(num, _NUM_BINS**3, device=device)
        histogram.scatter_add_(1, index, chosen.flatten(1).float())
        counts.append(histogram / histogram.sum(1, keepdim=True).clamp(min=1) + 2e-3)
    ratio = (counts[0] / counts[1]).log().clamp(-2.5, 2.5).gather(1, index).view_as(x)
    # Two things in three keep to colours.
    colours = 1.6 * (draw[:, 1] < 0.67)
    told = blurred(ratio[:, None], 1.5)[:, 0]
    belongs = colours * told + 5 * (reach - away) > 0
    belongs &= away < 1
    smooth = (blurred(belongs[:, None].float(), 3.0) > 0.5).float()
    # A little more than the thing, so that no rim of it stays behind.
    cover = ((blurred(functional.max_pool2d(smooth, 7, 1, 3), 1.2) - 0.2) * 1.5).clamp(0, 1)
    return Sprites(colour=patches * cover, cover=cover)


def blurred(pictures: Float[Tensor, "n c h w"], deviation: float) -> Tensor:
    """Gaussian blur; beyond the edge is nothing. deviation: pixels."""
    reach = max(1, math.ceil(2.5 * deviation))
    bell = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=pictures.device) / deviation) ** 2)
    bell = (bell / bell.sum()).expand(pictures.shape[1], 1, 1, -1)
    across = functional.conv2d(pictures, bell, padding=(0, reach), groups=pictures.shape[1])
    return functional.conv2d(across, bell.transpose(2, 3), padding=(reach, 0), groups=pictures.shape[1])

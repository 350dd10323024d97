"""Makes a lifelike scene before anything moves: its background, filled behind what is cut out, and its things."""

import math
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sgi2v.world.motion import Cast
from sgi2v.world.sprites import Sprites, blurred, composed, cut
from sgi2v.world.textures import varied_pictures

MARGIN: Final = 0.3
"""Width of the background beyond each edge of the first frame, over the frame's size."""
_REACHES: Final = (16.0, 26.0, 42.0, 68.0)  # radii in pixels at which salience is looked for
_SIDES: Final = ((1, 0.1), (-1, 0.1), (1, -0.4), (-1, -0.4), (0.3, 1), (-0.3, -1), (1.6, 0), (-1.6, 0))


@dataclass(frozen=True, kw_only=True)
class Scenery:
    """The pictures that b clips of n things are painted with; their pixels are those of the first frame."""

    background: Float[Tensor, "b 3 h w"]
    """RGB, 0..1, the frame and MARGIN about it."""
    colour: Float[Tensor, "b n 3 s s"]
    """RGB of the things times their cover."""
    cover: Float[Tensor, "b n 1 s s"]
    """The share of each pixel that a thing covers, 0..1."""
    shade: Float[Tensor, "b n 1 s s"]
    """The cover of their shadows, 0..1; none of what is cut out."""
    rim: Float[Tensor, "b n k 2"]
    """Points (x, y) about each thing's origin whose extent is the thing's, in pixels."""


def backgrounds(
    num: int, size: tuple[int, int], generator: torch.Generator, *, held_out: bool, device: str
) -> Float[Tensor, "b 3 h w"]:
    """Pictures of frames (height, width) with MARGIN about them; 0..1."""
    height, width = (length + 2 * round(MARGIN * length) for length in size)
    return varied_pictures(num, (height, width), size, generator, held_out=held_out, device=device)


def salience(
    canvas: Float[Tensor, "b 3 h w"], places: Float[Tensor, "b n k 2"], radius: Float[Tensor, "b n"]
) -> Float[Tensor, "b n k"]:
    """Distance of the mean colour within half the radius of places (x, y; pixels of the frame) from that around it."""
    cell = 4
    small = functional.avg_pool2d(canvas, cell)
    corner = torch.tensor([length * MARGIN / (1 + 2 * MARGIN) for length in (canvas.shape[3], canvas.shape[2])])
    size = torch.tensor([canvas.shape[3], canvas.shape[2]], device=canvas.device)
    grid = 2 * (places + corner.to(canvas.device)) / size - 1
    found = torch.zeros(places.shape[:3], device=canvas.device)
    nearest = torch.full_like(radius, math.inf)
    for reach in _REACHES:
        means = []
        for part in (0.5, 1.3):
            half = max(1, round(part * reach / cell))
            across = functional.avg_pool2d(small, (1, 2 * half + 1), 1, (0, half), count_include_pad=False)
            means.append(functional.avg_pool2d(across, (2 * half + 1, 1), 1, (half, 0), count_include_pad=False))
        apart = (means[0] - means[1]).norm(dim=1, keepdim=True)
        there = functional.grid_sample(apart, grid, align_corners=False)[:, 0]
        away = (radius.log() - math.log(reach)).abs()
        found = torch.where((away < nearest)[..., None], there, found)
        nearest = torch.minimum(away, nearest)
    return found


def scenery(
    canvas: Float[Tensor, "b 3 h w"], cast: Cast, side: int, generator: torch.Generator, *, held_out: bool
) -> Scenery:
    """Make the things of a cast, on its device, before or out of its backgrounds. side: of a thing's picture."""
    num, things = cast.radius.shape
    height, width = canvas.shape[-2:]
    corner = torch.tensor([width, height], device=canvas.device) * (MARGIN / (1 + 2 * MARGIN))
    start = cast.moves.path[:, :, 0] + corner.round()
    radius = cast.radius.flatten()
    patches = _patches(canvas, start, side)
    region = cut(patches.flatten(0, 1), radius, generator, held_out=held_out)
    near = patches[..., side // 4 : -side // 4, side // 4 : -side // 4].mean((3, 4)).flatten(0, 1)
    made = composed(radius, near, side, generator, held_out=held_out)
    chosen = cast.is_cut.flatten()[:, None, None, None]
    sprites = Sprites(
        colour=torch.where(chosen, region.colour, made.colour), cover=torch.where(chosen, region.cover, made.cover)
    )
    covers = region.cover.unflatten(0, (num, things)) * cast.is_cut[..., None, None, None]
    shade = blurred(sprites.cover, 0.06 * side) * ~chosen
    return Scenery(
        background=_filled(canvas, _placed(covers, start, canvas), 2.0 * cast.radius.amax(1)),
        colour=sprites.colour.unflatten(0, (num, things)),
        cover=sprites.cover.unflatten(0, (num, things)),
        shade=shade.unflatten(0, (num, things)),
        rim=sprites.rim().unflatten(0, (num, things)),
    )


def _patches(canvas: Tensor, start: Tensor, side: int) -> Float[Tensor, "b n 3 s s"]:
    """Squares about whole-pixel places [b, n, 2] of the canvases [b, 3, h, w], mirrored at their edges."""
    height, width = canvas.shape[-2:]
    place = torch.arange(side, device=canvas.device) - side // 2
    columns, rows = (start.long()[..., None, :] + place[:, None]).unbind(-1)
    columns, rows = _mirrored(columns, width), _mirrored(rows, height)
    clip = torch.arange(len(canvas), device=canvas.device)[:, None, None, None]
    return canvas.permute(0, 2, 3, 1)[clip, rows[..., :, None], columns[..., None, :]].permute(0, 1, 4, 2, 3)


def _mirrored(index: Tensor, length: int) -> Tensor:
    """Indices beyond 0..length-1 mirrored into it."""
    turned = torch.remainder(index, 2 * length)
    return torch.minimum(turned, 2 * length - 1 - turned)


def _placed(cover: Float[Tensor, "b n 1 s s"], start: Tensor, canvas: Tensor) -> Float[Tensor, "b 1 h w"]:
    """The largest cover of any thing on the canvas, each at its whole-pixel place."""
    height, width = canvas.shape[-2:]
    side = cover.shape[-1]
    y = torch.arange(height, device=canvas.device) - start[..., 1:].long() + side // 2
    x = torch.arange(width, device=canvas.device) - start[..., :1].long() + side // 2
    inside = ((y >= 0) & (y < side))[..., :, None] & ((x >= 0) & (x < side))[..., None, :]
    index = y.clamp(0, side - 1)[..., :, None] * side + x.clamp(0, side - 1)[..., None, :]
    placed = cover.flatten(2).gather(2, index.flatten(2)).view_as(inside) * inside
    return placed.amax(1, keepdim=True)


def _filled(
    canvas: Float[Tensor, "b 3 h w"], holes: Float[Tensor, "b 1 h w"], shift: Float[Tensor, " b"]
) -> Float[Tensor, "b 3 h w"]:
    """The canvases with something plausible in their holes: what is `shift` pixels aside, fitted in at the edge.

    Of eight sides the one that fits best; its difference at the edge is carried over the hole, smoothly: nearly the
    membrane of Perez, Gangnet, Blake, "Poisson image editing", 2003. A hole's soft edge stays as it is, so that hole
    and thing together are the canvas.
    """
    wide = functional.max_pool2d(holes, 5, 1, 2)
    known = (wide < 0.02).float()
    edge = known * (functional.max_pool2d(wide, 9, 1, 4) > 0.02)
    best, found = torch.full_like(shift, math.inf), canvas
    for dx, dy in _SIDES:
        aside = _shifted(canvas, (dx * shift).long(), (dy * shift).long())
        apart = ((aside - canvas).square() * edge).sum((1, 2, 3))
        found = torch.where((apart < best)[:, None, None, None], aside, found)
        best = torch.minimum(apart, best)
    fill = (found + _spread((canvas - found).clamp(-0.3, 0.3), known)).clamp(0, 1)
    # Where the thing covers nearly all, little of what is behind it shows.
    depth = ((holes - 0.8) / 0.2).clamp(0, 1) ** 2
    return torch.lerp(canvas, fill, depth)


def _shifted(canvas: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """Canvases [b, 3, h, w] moved by whole pixels of their own, mirrored at the edges."""
    height, width = canvas.shape[-2:]
    columns = _mirrored(torch.arange(width, device=canvas.device) + dx[:, None], width)
    rows = _mirrored(torch.arange(height, device=canvas.device) + dy[:, None], height)
    index = rows[:, :, None] * width + columns[:, None]
    return canvas.flatten(2).gather(2, index.flatten(1)[:, None].expand(-1, 3, -1)).view_as(canvas)


def _spread(values: Float[Tensor, "b c h w"], known: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b c h w"]:
    """Values carried smoothly from where they are known (1) to where they are not (0).

    Means over ever larger cells, as far as anything in them is known; then back, from large cells to small.
    """
    levels = [(values * known, known)]
    while max(levels[-1][1].shape[-2:]) > 1:
        total, weight = (functional.avg_pool2d(part, 2, ceil_mode=True) for part in levels[-1])
        levels.append((total, weight))
    found = levels[-1][0] / levels[-1][1].clamp(min=1e-6)
    for total, weight in reversed(levels[:-1]):
        coarse = functional.interpolate(found, total.shape[-2:], mode="bilinear", align_corners=False)
        share = (4 * weight).clamp(max=1)
        found = torch.lerp(coarse, total / weight.clamp(min=1e-6), share)
    return found

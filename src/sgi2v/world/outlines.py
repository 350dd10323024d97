"""Outlines of things: the radius over the angle, of shapes that training sees or that are held out of it."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

# Shapes as (corners, waviness): corners 0 is an ellipse. Training and held-out shapes do not overlap.
TRAINING_SHAPES = ((0, 0.0), (3, 0.0), (4, 0.0), (6, 0.0), (0, 0.18), (4, 0.15))
HELD_OUT_SHAPES = ((5, 0.0), (0, 0.1), (8, 0.12))
NUM_ANGLES = 96


def outlines(size: tuple[int, int], generator: torch.Generator, *, held_out: bool = False) -> Float[Tensor, "b n a"]:
    """Outlines of b times n random shapes: radius over NUM_ANGLES angles, the largest of each 1."""
    shapes = torch.tensor(HELD_OUT_SHAPES if held_out else TRAINING_SHAPES)
    choice = shapes[torch.randint(len(shapes), size, generator=generator)]
    corners, wave = choice[..., :1], choice[..., 1:]
    draw = torch.rand(*size, 3, generator=generator)
    angle = torch.arange(NUM_ANGLES) * (math.tau / NUM_ANGLES)
    sector = math.tau / corners.clamp(min=3)
    polygon = torch.cos(sector / 2) / torch.cos(torch.remainder(angle, sector) - sector / 2)
    flat = 0.7 + 0.3 * draw[..., :1]
    ellipse = flat / ((flat * angle.cos()) ** 2 + angle.sin() ** 2).sqrt()
    lobes = 2 + torch.floor(draw[..., 1:2] * 4)
    outline = torch.where(corners > 0, polygon, ellipse) * (
        1 + wave * torch.cos(lobes * angle + math.tau * draw[..., 2:])
    )
    return outline / outline.amax(-1, keepdim=True)


def cover_of(
    outline: Float[Tensor, "b a"], u: Float[Tensor, "b *n"], v: Float[Tensor, "b *n"], size: Tensor
) -> Float[Tensor, "b *n"]:
    """The share of each pixel inside the outline, 0..1, `u`, `v` from its middle where its largest radius is 1.

    size: that radius in pixels, so that the edge is a pixel wide.
    """
    turn = torch.remainder(torch.atan2(v, u), math.tau) * (NUM_ANGLES / math.tau)
    low = turn.floor()
    index = low.long().flatten(1) % NUM_ANGLES
    here, after = outline.gather(1, index), outline.gather(1, (index + 1) % NUM_ANGLES)
    edge = torch.lerp(here, after, (turn - low).flatten(1)).view_as(u)
    return ((edge - (u * u + v * v).sqrt()) * size + 0.5).clamp(0, 1)

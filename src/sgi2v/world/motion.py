"""Motions of things and of the camera in the lifelike world: paths with easing, turns and growth, and their poses."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sgi2v.world.layers import compose, similarity


@dataclass(frozen=True, kw_only=True)
class Moves:
    """Motions of the things of b clips, in pixels of a camera that stays: Bezier curves walked at an eased pace."""

    path: Float[Tensor, "b n 4 2"]
    """Start, two points that bend the curve, and end (x, y)."""
    ease: Float[Tensor, "b n 3"]
    """Shares by which the pace begins slowly and ends slowly (0..1 each), and 1 where it returns, else 0."""
    spin: Float[Tensor, "b n"]
    """Radians turned from the start to the end."""
    grow: Float[Tensor, "b n"]
    """Logarithm of the size at the end over that at the start."""
    sway: Float[Tensor, "b n 2"]
    """Radians and number of a swaying to and fro on the way."""

    def poses(self, times: Float[Tensor, "b f"]) -> Float[Tensor, "b n f 2 3"]:
        """From pixels about each thing's origin, as it is at the start, to pixels of a camera that stays."""
        pace = eased(times[:, None], *self.ease[..., None].unbind(2))
        rest = 1 - pace
        weights = torch.stack([3 * rest**2 * pace, 3 * rest * pace**2, pace**3], -1)
        # From the start, so that what stays there stays to the last bit.
        start = self.path[:, :, :1]
        away = self.path[:, :, 1:] - start
        place = start + (weights[..., None] * away[:, :, None]).sum(3)
        sway = self.sway[..., :1] * torch.sin(math.tau * self.sway[..., 1:] * pace)
        return similarity(self.spin[..., None] * pace + sway, torch.exp(self.grow[..., None] * pace), place)

    def length(self) -> Float[Tensor, " b"]:
        """The longest path of a thing in each clip, in pixels."""
        times = torch.linspace(0, 1, 17, device=self.path.device).expand(len(self.path), -1)
        place = self.poses(times)[..., 2]
        way = (place[:, :, 1:] - place[:, :, :-1]).norm(dim=-1).sum(-1)
        longest: Tensor = way.amax(1)
        return longest


@dataclass(frozen=True, kw_only=True)
class Camera:
    """Motions of the camera of b clips; at the start it sees the first frame as it is."""

    pan: Float[Tensor, "b 2"]
    """Pixels (x, y) that it moves over the scene from the start to the end."""
    zoom: Float[Tensor, " b"]
    """Logarithm of how much closer it is at the end."""
    roll: Float[Tensor, " b"]
    """Radians that the scene turns on the frame."""
    ease: Float[Tensor, "b 3"]
    """As of Moves."""
    shake: Float[Tensor, "b k 4"]
    """Sines of a hand that shakes: pixels (x, y), number of them in the clip, and phase in radians."""

    def poses(self, times: Float[Tensor, "b f"], size: tuple[int, int]) -> Float[Tensor, "b f 2 3"]:
        """From pixels of a camera that stays to pixels of the frame; size: its (height, width)."""
        pace = eased(times, *self.ease[..., None].unbind(1))
        amount, number, phase = self.shake[..., :2], self.shake[..., 2:3], self.shake[..., 3:]
        swing = torch.sin(math.tau * number * times[:, None] + phase) - torch.sin(phase)
        shaken = (swing[..., None] * amount[:, :, None]).sum(1)
        middle = torch.tensor([size[1], size[0]], dtype=torch.float32, device=times.device) / 2
        still = torch.zeros_like(pace)
        there = similarity(still, still + 1, -middle - self.pan[:, None] * pace[..., None])
        turned = similarity(self.roll[:, None] * pace, torch.exp(self.zoom[:, None] * pace), middle + shaken)
        return compose(turned, there)


def eased(times: Tensor, slow: Tensor, stop: Tensor, returns: Tensor) -> Tensor:
    """The share 0..1 of the way that is done at times 0..1; where it returns, it is at the end half way."""
    there = times + returns * (1 - (2 * times - 1).abs() - times)
    # A cubic from 0 to 1 whose slopes at the ends fall from 1 to 0; with both at 1 it is the straight line.
    first, last = 1 - slow, 1 - stop
    cubic = (first + last - 2) * there**3 + (3 - 2 * first - last) * there**2 + first * there
    return cubic


Held = TypeVar("Held", "Cast", "Moves", "Camera")


@dataclass(frozen=True, kw_only=True)
class Cast:
    """The things of b clips, n each, and their camera."""

    moves: Moves
    camera: Camera
    radius: Float[Tensor, "b n"]
    """Half sizes in pixels."""
    depth: Float[Tensor, "b n"]
    """Things of larger depth are drawn before, so that the others cover them."""
    is_cut: Bool[Tensor, "b n"]
    """True for regions of the background's own picture."""

    def to(self, device: str) -> "Cast":
        """The same on another device."""
        return _each(self, lambda tensor: tensor.to(device))

    def __getitem__(self, clips: Tensor) -> "Cast":
        """The cast of some clips, by their numbers."""
        return _each(self, lambda tensor: tensor[clips])


def _each(value: Held, change: Callable[[Tensor], Tensor]) -> Held:
    """A dataclass of tensors, and of such dataclasses, with every tensor changed."""
    found: dict[str, Tensor | Moves | Camera] = {}
    for field in fields(value):
        part = getattr(value, field.name)
        found[field.name] = change(part) if isinstance(part, Tensor) else _each(part, change)
    return replace(value, **found)  # type: ignore[arg-type]

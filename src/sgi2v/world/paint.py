"""Paints lifelike clips: all frames of all clips at once, one thing after the other from the back to the front."""

import math
from dataclasses import dataclass, fields
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sgi2v.world.clips import Clips
from sgi2v.world.layers import Layers, apply, compose, inverse
from sgi2v.world.motion import Cast
from sgi2v.world.scenery import Scenery

_EXPOSURES: Final = 5  # looks that a blurred frame is the mean of


@dataclass(frozen=True, kw_only=True)
class Look:
    """Light and exposure of b clips."""

    light: Float[Tensor, "b 3"]
    """Logarithm of each channel's brightness at the end over that at the start."""
    shadow: Float[Tensor, " b"]
    """Darkness of shadows, 0..1."""
    fall: Float[Tensor, "b 2"]
    """Direction (x, y) in which they fall."""
    shutter: Float[Tensor, " b"]
    """Time, of the clip's 1, during which a frame is exposed; it ends at the frame's."""


def paint(
    cast: Cast, look: Look, scene: Scenery, times: Float[Tensor, "b f"], size: tuple[int, int], device: str
) -> Clips:
    """The clips of a cast at times 0..1. Cast and look lie on the CPU; scene and the clips on the device."""
    is_blurred = look.shutter > 0
    parts = []
    for blurs in (False, True):
        chosen = (is_blurred == blurs).nonzero()[:, 0]
        if len(chosen):
            parts.append((chosen, _painted(cast, look, scene, times, size, device, chosen, blurs)))
    order = torch.cat([chosen for chosen, _ in parts]).argsort()
    painted = [torch.cat(same)[order.to(device)] for same in zip(*(found for _, found in parts), strict=True)]
    frames, masks, exposed = painted
    cast = cast.to(device)
    view = cast.camera.poses(exposed, size)
    poses = compose(view[:, None], cast.moves.poses(exposed))
    layers = Layers(poses=torch.cat([poses, view[:, None]], 1), masks=masks)
    rim = apply(poses[:, :, :, None], scene.rim[:, :, None])
    boxes = torch.cat([rim.amin(3), rim.amax(3)], -1)
    middle = torch.tensor([size[1], size[0]], dtype=torch.float32, device=device) / 2
    back = inverse(view)
    closer = (view[..., 0, 0] ** 2 + view[..., 1, 0] ** 2).sqrt()
    return Clips(
        frames=frames,
        boxes=boxes,
        centers=(boxes[..., :2] + boxes[..., 2:]) / 2,
        layers=layers,
        kind="lifelike",
        motion=_motion(cast, size),
        camera=torch.cat([apply(back, middle) - middle, closer[..., None]], -1),
    )


def _motion(cast: Cast, size: tuple[int, int]) -> Float[Tensor, " b"]:
    """The longest way of a thing, or of a corner of the scene under the camera, over the frame's diagonal."""
    times = torch.linspace(0, 1, 9, device=cast.radius.device).expand(len(cast.radius), -1)
    height, width = size
    corners = torch.tensor([[0, 0], [width, 0], [0, height], [width, height]], device=times.device)
    place = apply(cast.camera.poses(times, size)[:, :, None], corners.float())
    way = (place[:, 1:] - place[:, :-1]).norm(dim=-1).sum(1).amax(1)
    return torch.maximum(way, cast.moves.length()) / math.hypot(width, height)


def _painted(
    cast: Cast,
    look: Look,
    scene: Scenery,
    times: Float[Tensor, "b f"],
    size: tuple[int, int],
    device: str,
    chosen: Tensor,
    blurs: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Frames [c, f, 3, h, w], masks [c, n + 1, f, h, w] and the middle of the exposures [c, f] of the chosen clips."""
    cast = cast[chosen].to(device)
    here = chosen.to(device)
    scene = Scenery(**{field.name: getattr(scene, field.name)[here] for field in fields(scene)})
    exposures = _EXPOSURES if blurs else 1
    times, shutter = times[chosen].to(device), look.shutter[chosen].to(device)
    num_times = times.shape[1]
    back = torch.linspace(1, 0, exposures, device=device) if blurs else torch.zeros(1, device=device)
    # Nothing moves before time 0, so a first frame is sharp.
    looks = (times[..., None] - back * shutter[:, None, None]).clamp(min=0)
    view = cast.camera.poses(looks.flatten(1), size)
    poses = compose(view[:, None], cast.moves.poses(looks.flatten(1)))
    points = _points(size, device)
    frames = _background(scene.background, view, points, size)
    masks = _covers(cast, look, scene, poses, view, points, frames, chosen)
    frames = frames.unflatten(2, (num_times, exposures, *size)).mean(3).transpose(1, 2)
    masks = masks.unflatten(2, (num_times, exposures, *size)).mean(3)
    gain = torch.exp(look.light[chosen].to(device)[:, None] * times[..., None])
    return (frames * gain[..., None, None]).clamp(0, 1), masks, looks.mean(2)


def _points(size: tuple[int, int], device: str) -> Float[Tensor, "p 2"]:
    """The middles (x, y) of all pixels, row by row."""
    y, x = (torch.arange(length, device=device) + 0.5 for length in size)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1)


def _seen(
    picture: Float[Tensor, "b c s t"], pose: Float[Tensor, "b f 2 3"], points: Tensor, padding: str
) -> Float[Tensor, "b c fp"]:
    """A picture, its middle the origin of its pose, as it is seen at the points of all frames."""
    size = torch.tensor([picture.shape[3], picture.shape[2]], device=points.device)
    grid = apply(inverse(pose)[:, :, None], points) * (2 / size)
    return functional.grid_sample(picture, grid.flatten(1, 2)[:, None], padding_mode=padding, align_corners=False)[
        :, :, 0
    ]


def _background(canvas: Tensor, view: Tensor, points: Tensor, size: tuple[int, int]) -> Tensor:
    """The background under the camera, [b, 3, f * p]."""
    middle = torch.tensor([size[1], size[0]], dtype=torch.float32, device=points.device) / 2
    about = torch.cat([torch.eye(2, device=points.device), middle[:, None]], 1)
    return _seen(canvas, compose(view, about), points, "reflection")


def _covers(
    cast: Cast,
    look: Look,
    scene: Scenery,
    poses: Tensor,
    view: Tensor,
    points: Tensor,
    frames: Float[Tensor, "b 3 fp"],
    chosen: Tensor,
) -> Float[Tensor, "b l fp"]:
    """Paint the things over the frames, in place; what is seen of each thing and, last, of the background."""
    device = frames.device
    num, things = cast.radius.shape
    order = cast.depth.argsort(1, descending=True)
    clip = torch.arange(num, device=device)
    masks = torch.zeros(num, things + 1, frames.shape[2], device=device)
    masks[:, things] = 1
    dark, fall = look.shadow[chosen].to(device), look.fall[chosen].to(device)
    for place in range(things):
        thing = order[:, place]
        pose = poses[clip, thing]
        away = fall * (0.35 * cast.radius[clip, thing] * (dark > 0))[:, None]
        fallen = pose[..., 2:] + (view[..., :2] * away[:, None, None]).sum(-1, keepdim=True)
        thrown = torch.cat([pose[..., :2], fallen], -1)
        shade = _seen(scene.shade[clip, thing], thrown, points, "zeros") * dark[:, None, None]
        frames *= 1 - shade
        both = torch.cat([scene.colour[clip, thing], scene.cover[clip, thing]], 1)
        seen = _seen(both, pose, points, "zeros")
        cover = seen[:, 3:]
        frames *= 1 - cover
        frames += seen[:, :3]
        masks *= 1 - cover
        masks[clip, thing] = cover[:, 0]
    return masks

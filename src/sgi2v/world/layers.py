"""Layers of a rendered clip: their places and what is seen of them, and so the place of any point in any frame."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from sgi2v.errors import FieldError
from sgi2v.world.draws import onto

Index = slice | list[int] | Tensor


@dataclass(frozen=True, kw_only=True)
class Correspondence:
    """For every cell of every frame of b clips, the place in a reference frame where the same surface point is."""

    source: Float[Tensor, "b f h w 2"]
    """The place (x, y) in pixels of the reference frame; a place outside it is a point that has come into view."""
    visible: Float[Tensor, "b f h w"]
    """0..1: how far the point can be seen there, times the share of the cell that its layer has in this frame."""
    stride: int
    """Side of a cell in pixels: 1 for every pixel, 8 for latent cells."""


@dataclass(frozen=True, kw_only=True)
class Layers:
    """The layers of b clips: every thing, in order, and the background as the last."""

    poses: Float[Tensor, "b l f 2 3"]
    """Affine maps from a layer's own coordinates to pixels (x, y) of the frame."""
    masks: Float[Tensor, "b l f h w"]
    """Share of each cell in which the layer is seen, 0..1; all layers together fill every cell."""
    stride: int = 1
    """Side of a cell in pixels."""

    def __getitem__(self, clips: Index) -> "Layers":
        """The layers of some of the clips, by their numbers."""
        return Layers(poses=self.poses[clips], masks=self.masks[clips], stride=self.stride)

    def at(self, frames: Index) -> "Layers":
        """The layers in some of the frames, by their numbers."""
        return Layers(poses=self.poses[:, :, frames], masks=self.masks[:, :, frames], stride=self.stride)

    def picked(self, clips: Int64[Tensor, " k"], frames: Int64[Tensor, "k g"]) -> "Layers":
        """The layers of some of the clips, of each in its own frames, by their numbers."""
        one = clips[:, None]
        return Layers(
            poses=self.poses[one, :, frames].transpose(1, 2),
            masks=self.masks[one, :, frames].transpose(1, 2),
            stride=self.stride,
        )

    @staticmethod
    def joined(parts: Sequence["Layers"]) -> "Layers":
        """The layers of several batches of clips as those of one."""
        return Layers(
            poses=torch.cat([part.poses for part in parts]),
            masks=torch.cat([part.masks for part in parts]),
            stride=parts[0].stride,
        )

    def pooled(self, stride: int) -> "Layers":
        """The same layers over cells of `stride` pixels, a multiple of the present one that divides the frame."""
        factor, rest = divmod(stride, self.stride)
        height, width = self.masks.shape[-2:]
        if factor < 1 or rest or height % factor or width % factor:
            raise FieldError("stride", f"cells of {stride} px do not divide {width}x{height} cells of {self.stride} px")
        if factor == 1:
            return self
        masks = functional.avg_pool2d(self.masks.flatten(0, 2)[:, None], factor)
        return Layers(poses=self.poses, masks=masks[:, 0].unflatten(0, self.masks.shape[:3]), stride=stride)

    def correspondence(self, reference: "Layers | None" = None) -> Correspondence:
        """The place of each cell's point in the one frame of `reference`; by default in these layers' first.

        A cell belongs to the layer that has most of it, and its point is its middle.
        """
        given = self.at(slice(0, 1)) if reference is None else reference
        height, width = self.masks.shape[-2:]
        device = self.masks.device
        y = (torch.arange(height, device=device) + 0.5) * self.stride
        x = (torch.arange(width, device=device) + 0.5) * self.stride
        points = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
        size = onto(torch.tensor([width, height]), device) * self.stride
        share, owner = self.masks.max(1)
        back = compose(given.poses, inverse(self.poses))
        source, visible = torch.zeros(*owner.shape, 2, device=device), torch.zeros_like(share)
        for layer in range(self.masks.shape[1]):
            place = apply(back[:, layer, :, None, None], points)
            seen = functional.grid_sample(
                given.masks[:, layer], (2 * place / size - 1).flatten(1, 2), align_corners=False
            )
            mine = owner == layer
            source = torch.where(mine[..., None], place, source)
            visible = torch.where(mine, seen[:, 0].view_as(share), visible)
        return Correspondence(source=source, visible=visible * share, stride=self.stride)


def similarity(
    angle: Float[Tensor, "*n"], scale: Float[Tensor, "*n"], place: Float[Tensor, "*n 2"]
) -> Float[Tensor, "*n 2 3"]:
    """The map that turns by `angle` (radians, from x to y), scales, and moves the origin to `place`."""
    along, across = scale * angle.cos(), scale * angle.sin()
    rows = torch.stack([along, -across, place[..., 0], across, along, place[..., 1]], -1)
    pose: Tensor = rows.unflatten(-1, (2, 3))
    return pose


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """The affine map [..., 2, 3] that applies `inner`, then `outer`.

    Written out, as all geometry here: matrix products may be rounded to ten bits on a GPU, half a pixel in 500.
    """
    columns = [outer[..., 0] * inner[..., :1, n] + outer[..., 1] * inner[..., 1:, n] for n in range(3)]
    columns[2] = columns[2] + outer[..., 2]
    return torch.stack(columns, -1)


def inverse(pose: Tensor) -> Tensor:
    """The inverse of affine maps [..., 2, 3]."""
    a, b, x, c, d, y = pose.flatten(-2).unbind(-1)
    determinant = a * d - b * c
    rows = torch.stack([d, -b, b * y - d * x, -c, a, c * x - a * y], -1)
    inverted: Tensor = (rows / determinant[..., None]).unflatten(-1, (2, 3))
    return inverted


def apply(pose: Tensor, points: Float[Tensor, "*n 2"]) -> Tensor:
    """Points (x, y) [..., 2] under affine maps [..., 2, 3], both broadcast."""
    x, y = points[..., 0].contiguous(), points[..., 1].contiguous()
    a, b, c = pose.unbind(-1)
    moved = [a[..., n] * x + b[..., n] * y + c[..., n] for n in range(2)]
    return torch.stack(moved, -1)

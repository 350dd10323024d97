"""Point dragging on feature maps: places between cells, motion supervision, point tracking, all at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from sgi2v.grid import Grid, Tracks
from sgi2v.lazy import torch

Appearance = Literal["own-frame", "first-frame"]
Editable = Literal["path", "frame", "everything"]


@dataclass(frozen=True, kw_only=True)
class Handles:
    """One point per box and latent frame, which starts where the box is at first and is to go where it is then.

    Places are (x, y) in pixels of the resized image, origin top-left, x right, y down.
    """

    size: tuple[int, int]
    """Width and height of the picture in pixels."""
    start: Float[torch.Tensor, "b f 2"]
    """Centre of the first box, the same in every frame."""
    target: Float[torch.Tensor, "b f 2"]
    """Centre of the box in that frame, moved to the nearest place inside the picture."""
    seen: Bool[torch.Tensor, "b f"]
    """True where any part of the box lies in the picture in that frame; a handle that is not seen is left alone."""

    def to(self, device: torch.device) -> Handles:
        """The same handles on another device."""
        return Handles(
            size=self.size,
            start=self.start.to(device),
            target=self.target.to(device),
            seen=self.seen.to(device),
        )

    def unfinished(self, places: Float[torch.Tensor, "b f 2"], within: float) -> Bool[torch.Tensor, "b f"]:
        """Handles that are seen and ``within`` pixels or more from their targets."""
        unfinished: torch.Tensor = self.seen & ((self.target - places).norm(dim=-1) >= within)
        return unfinished


def handles_of(tracks: Tracks, grid: Grid) -> Handles:
    """The handles of a scene on a grid, on the CPU; FieldError when a first box leaves the picture."""
    tracks.check_first_boxes()
    boxes = tracks.latent_boxes(grid)
    size = np.array([grid.width, grid.height], dtype=np.float32)
    centers = (boxes[..., :2] + boxes[..., 2:]) / 2
    seen = (boxes[..., 2:] > 0).all(axis=-1) & (boxes[..., :2] < size).all(axis=-1)
    return Handles(
        size=(grid.width, grid.height),
        start=torch.from_numpy(np.broadcast_to(centers[:, :1], centers.shape).copy()),
        target=torch.from_numpy(np.clip(centers, 0, size)),
        seen=torch.from_numpy(seen),
    )


def editable_cells(tracks: Tracks, grid: Grid, where: Editable) -> Float[torch.Tensor, "_ 1 y x"]:
    """1 in latent cells that a drag may change, 0 elsewhere, on the CPU; any overlap with a box counts.

    ``path``: the boxes of all frames, for every frame alike. ``frame``: per frame its own boxes and the first ones,
    where things lie before they are dragged. ``everything``: all cells.
    """
    if where == "everything":
        return torch.ones(1, 1, grid.rows, grid.columns)
    boxes = tracks.latent_boxes(grid)  # [boxes, frames, 4]
    low, high = (np.arange(max(grid.rows, grid.columns)) * grid.stride + k for k in (0, grid.stride))

    def overlaps(axis: int, length: int) -> np.ndarray:
        """Per box, frame and cell along one axis."""
        return (low[:length] < boxes[..., axis + 2, None]) & (high[:length] > boxes[..., axis, None])

    inside = (overlaps(1, grid.rows)[..., :, None] & overlaps(0, grid.columns)[..., None, :]).any(axis=0)
    inside = inside.any(axis=0, keepdims=True) if where == "path" else inside | inside[:1]
    return torch.from_numpy(inside[:, None]).float()


def square(radius: int, spacing: float, device: torch.device) -> Float[torch.Tensor, "k 2"]:
    """Offsets (x, y) of the ``(2 radius + 1)^2`` places around one, ``spacing`` apart, row by row."""
    along = (torch.arange(2 * radius + 1, device=device) - radius) * spacing
    rows, columns = torch.meshgrid(along, along, indexing="ij")
    return torch.stack([columns.flatten(), rows.flatten()], dim=-1)


def _read(
    maps: Float[torch.Tensor, "f c v u"], places: Float[torch.Tensor, "b f k 2"], size: tuple[int, int]
) -> Float[torch.Tensor, "b f k c"]:
    rows, columns = maps.shape[-2:]
    # The centre of a map's cell lies at index + 0.5; beyond the outermost centres its value goes on.
    x = (places[..., 0] * (columns / size[0]) - 0.5).clamp(0, columns - 1)
    y = (places[..., 1] * (rows / size[1]) - 0.5).clamp(0, rows - 1)
    left, top = x.floor().long(), y.floor().long()
    right, bottom = (left + 1).clamp(max=columns - 1), (top + 1).clamp(max=rows - 1)
    across, down = (x - left)[..., None], (y - top)[..., None]
    frame = torch.arange(maps.shape[0], device=maps.device)[None, :, None]
    above = maps[frame, :, top, left].float() * (1 - across) + maps[frame, :, top, right].float() * across
    below = maps[frame, :, bottom, left].float() * (1 - across) + maps[frame, :, bottom, right].float() * across
    return above * (1 - down) + below * down


def read_places(
    features: Sequence[Float[torch.Tensor, "f _ _ _"]],
    places: Float[torch.Tensor, "b f k 2"],
    size: tuple[int, int],
) -> Float[torch.Tensor, "b f k d"]:
    """Features at places in pixels of a picture of ``size``, bilinear, the channels of all maps side by side.

    Each map ``[frames, channels, height, width]`` spans the picture at its own resolution; frame f's places are read
    in its frame f. Differentiable in the features.
    """
    return torch.cat([_read(maps, places, size) for maps in features], dim=-1)


def toward(handles: Handles, places: Float[torch.Tensor, "b f 2"], length: float) -> Float[torch.Tensor, "b f 2"]:
    """Steps of ``length`` pixels from the places to the handles' targets, but never beyond them."""
    way = handles.target - places
    share: torch.Tensor = (length / way.norm(dim=-1, keepdim=True).clamp(min=1e-6)).clamp(max=1)
    return way * share


def track(
    features: Sequence[Float[torch.Tensor, "f _ _ _"]],
    handles: Handles,
    places: Float[torch.Tensor, "b f 2"],
    template: Float[torch.Tensor, "b _ d"],
    offsets: Float[torch.Tensor, "k 2"],
) -> Float[torch.Tensor, "b f 2"]:
    """Place of each handle now: of the places around its last, the one whose features are nearest (L1) to its own.

    Places outside the picture are no candidates. DragDiffusion (arXiv 2306.14435), equation 4.
    """
    candidates = places[:, :, None] + offsets
    distance = (read_places(features, candidates, handles.size) - template[:, :, None]).abs().sum(dim=-1)
    x, y = candidates.unbind(-1)
    outside = (x < 0) | (x > handles.size[0]) | (y < 0) | (y > handles.size[1])
    nearest = distance.masked_fill(outside, float("inf")).argmin(dim=-1)
    return candidates.gather(2, nearest[:, :, None, None].expand(-1, -1, 1, 2)).squeeze(2)

"""Points on the things that move: what methods trained on tracks are given of a scene's boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32, Float64

from sgi2v.grid import Grid, Track, Tracks


@dataclass(frozen=True, kw_only=True)
class Points:
    """Tracks of points through a clip."""

    places: Float32[np.ndarray, "f p 2"]
    """(x, y) in every video frame, pixels of the model's picture."""
    visible: Bool[np.ndarray, "f p"]
    """False where a point has left the picture."""


def points_of(tracks: Tracks, grid: Grid, spacing: int) -> Points:
    """Points on a lattice of ``spacing`` pixels inside every motion's first box, moved and grown with the box.

    Where a motion has a mask only points on it; a thing that no point of the lattice hits gets its middle. Lattice
    points lie in the middle of their squares, so that none lies on the border of two latent cells.
    """
    found = [_of(track, grid, spacing) for track in tracks.tracks]
    places = np.concatenate([*found, np.zeros((grid.num_frames, 0, 2), np.float32)], axis=1)
    x, y = places[..., 0], places[..., 1]
    visible = (x >= 0) & (x < grid.width) & (y >= 0) & (y < grid.height)
    return Points(places=places, visible=visible)


def _of(track: Track, grid: Grid, spacing: int) -> Float32[np.ndarray, "f p 2"]:
    columns, rows = (np.arange(spacing / 2, size, spacing) for size in (grid.width, grid.height))
    lattice = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2).astype(np.float32)
    left, top, right, bottom = track.boxes[0]
    kept = (lattice >= (left, top)).all(axis=1) & (lattice < (right, bottom)).all(axis=1)
    if track.mask is not None:
        x, y = lattice.astype(int).T
        kept &= np.asarray(track.mask)[y, x] > 127
    start = lattice[kept] if kept.any() else track.centers[:1]
    sizes = track.boxes[:, 2:] - track.boxes[:, :2]
    grown = (sizes / np.maximum(sizes[:1], 1e-6))[:, None]
    moved: Float32[np.ndarray, "f p 2"] = track.centers[:, None] + grown * (start - track.centers[0])
    return moved.astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Paths:
    """One point a motion through a clip, for systems that were trained on strokes."""

    places: Float64[np.ndarray, "f p 2"]
    """(x, y) in every video frame, pixels of the model's picture."""
    names: tuple[str, ...]
    """The motions as messages name them: motions[0] …"""

    def outside(self, width: int, height: int) -> tuple[str, ...]:
        """A sentence on each point that leaves a picture of that size, with the frame and the pixel of the first."""
        found = []
        for name, places in zip(self.names, self.places.swapaxes(0, 1), strict=True):
            left = np.flatnonzero(((places < 0) | (places >= (width, height))).any(axis=1))
            if len(left):
                x, y = places[left[0]]
                found.append(
                    f"{name} leaves the picture of {width}x{height} in frame {left[0]}, at pixel ({x:.1f}, {y:.1f})"
                )
        return tuple(found)

    def clipped(self, width: int, height: int) -> Paths:
        """The same, points that lie outside put on the nearest pixel of the border."""
        return replace(self, places=np.clip(self.places, 0, (width - 1, height - 1)))


def paths_of(tracks: Sequence[Track], kinds: Sequence[str] = ("object", "camera")) -> Paths:
    """The point that stands for each motion of some kinds, moved with its box whatever its size: the box's middle.

    Where a motion has a mask the thing's pixel that is nearest to the middle of its pixels, so that a thing with a
    hole is held by itself.
    """
    starts = {}
    for index, track in enumerate(tracks):
        if track.kind in kinds:
            own = None if track.mask is None else _own_middle(np.asarray(track.mask) > 127)
            starts[index] = track.centers[0].astype(np.float64) if own is None else own
    return paths_from(starts, tracks)


def paths_from(starts: Mapping[int, Float64[np.ndarray, " 2"]], tracks: Sequence[Track]) -> Paths:
    """Points that start at places of the first frame, by motion's index, and go with the motions' boxes."""
    moved = []
    for index, start in starts.items():
        centers = tracks[index].centers.astype(np.float64)
        moved.append(start + (centers - centers[0]))
    places = np.stack(moved, axis=1) if moved else np.zeros((1, 0, 2))
    return Paths(places=places, names=tuple(f"motions[{index}]" for index in starts))


def _own_middle(mask: Bool[np.ndarray, "h w"]) -> Float64[np.ndarray, " 2"] | None:
    pixels = np.argwhere(mask)[:, ::-1].astype(np.float64)
    if not len(pixels):
        return None
    nearest: Float64[np.ndarray, " 2"] = pixels[((pixels - pixels.mean(axis=0)) ** 2).sum(axis=1).argmin()]
    return nearest


def resized(tracks: Sequence[Track]) -> bool:
    """True where a motion's box grows or shrinks by a pixel or more."""
    sizes = [track.boxes[:, 2:] - track.boxes[:, :2] for track in tracks]
    return any(bool((np.abs(size - size[:1]) >= 1).any()) for size in sizes)

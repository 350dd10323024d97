"""Points on the things that move: what methods trained on tracks are given of a scene's boxes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

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

"""DragNUWA: strokes as blurred maps of displacement, for weights that were trained on optical flow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from jaxtyping import Float, Float32, Float64

from sgi2v.controllers.base import Setup
from sgi2v.controllers.trained import Trained
from sgi2v.lazy import torch

REACH: Final = 99
"""Pixels by which the blur reaches out to every side."""
DEVIATION: Final = 20.0
"""Of the blur, in pixels, whatever the picture's size."""


@dataclass(frozen=True, kw_only=True)
class DragNUWA(Trained):
    """DragNUWA 1.5, for its own weights (--adapter drag-nuwa), which bring a Stable Video Diffusion of their own.

    Every motion, also a camera's, is one point's stroke. Source: DragNUWA (Yin et al. 2023, arXiv 2308.08089) and the
    published DragNUWA_demo.py.
    """

    name: ClassVar[str] = "drag-nuwa"

    def signal(self, setup: Setup) -> Float[torch.Tensor, "f 2 h w"]:
        """The maps for :class:`sgi2v.backbones.svd.adapters.drag_nuwa.DragNUWAAdapter`."""
        grid = setup.grid
        sparse = displacements(self.paths(setup.tracks, grid).places, grid.height, grid.width)
        return flow_maps(sparse).to(setup.backbone.device)


def displacements(places: Float64[np.ndarray, "f p 2"], height: int, width: int) -> Float32[np.ndarray, "f-1 h w 2"]:
    """Step (dx, dy) to the next frame in the cell below each point, (int(y), int(x)), zero elsewhere.

    Where two points share a cell the later one counts. Points lie inside the picture.
    """
    sparse = np.zeros((len(places) - 1, height, width, 2), np.float32)
    steps = np.diff(places, axis=0)
    cells = places[:-1].astype(np.int64)
    for frame in range(len(steps)):
        for (x, y), step in zip(cells[frame], steps[frame], strict=True):
            sparse[frame, y, x] = step
    return sparse


def flow_maps(sparse: Float32[np.ndarray, "g h w 2"]) -> Float[torch.Tensor, "f 2 h w"]:
    """The displacements blurred by ``exp(-d^2 / (2 * 20^2))``, peak 1, cut at 99 pixels, behind one frame of zeros.

    Zeros lie outside the picture. The kernel is a product of two lines, so it is a product with a matrix on each side.
    """
    _, height, width, _ = sparse.shape
    rows, columns = _blur(height), _blur(width)
    maps = rows @ torch.from_numpy(sparse).permute(0, 3, 1, 2) @ columns
    return torch.cat([torch.zeros_like(maps[:1]), maps])


def _blur(size: int) -> Float[torch.Tensor, "n n"]:
    places = torch.arange(size, dtype=torch.float32)
    apart = (places[:, None] - places).abs()
    return torch.exp(-apart.square() / (2 * DEVIATION**2)) * (apart <= REACH)

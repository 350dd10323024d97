"""The SG-I2V loss: features inside each moving box are compared with those of its first-frame place, all at once."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from sgi2v.grid import Grid, Tracks

Weighting = Literal["gaussian", "uniform", "mask"]
"""What a box's cells count in the loss."""


@dataclass(frozen=True, kw_only=True)
class AlignmentPlan:
    """Which cell is compared with which: one row for every cell of every box in every later frame.

    Built once per scene on the host; an iteration then only gathers. Rows are in the order (box, frame, row, column).
    """

    size: tuple[int, int]
    """Rows and columns of the latent grid, to which features are upsampled."""
    cells: Int64[Tensor, " m"]
    """Flat index (frame, row, column) of the cell that is pulled."""
    sources: Int64[Tensor, "m k"]
    """Flat indices (row, column) in the first frame whose mixture is its target; k is 1, or 4 where a box resizes."""
    mixture: Float[Tensor, "m k"]
    """Bilinear weights of the sources, summing to 1."""
    weights: Float[Tensor, " m"]
    """Weight of the row, 1 at the largest cell of the uncut box."""

    @property
    def num_rows(self) -> int:
        """Cells compared; 0 when every box has left the picture."""
        return self.cells.shape[0]

    def to(self, device: torch.device) -> "AlignmentPlan":
        """The same plan on another device."""
        return AlignmentPlan(
            size=self.size,
            cells=self.cells.to(device),
            sources=self.sources.to(device),
            mixture=self.mixture.to(device),
            weights=self.weights.to(device),
        )


def gaussian_profile(cells: np.ndarray, length: np.ndarray, std: float) -> np.ndarray:
    """One axis of the heat map: a Gaussian about the middle of a box, 1 at its largest cell, in float64.

    ``cells`` are indices inside boxes of ``length`` cells (broadcast together); a cell's centre lies at index + 0.5
    and the deviation is ``std`` times half the length (SG-I2V, published code). The two axes' product is the map.
    """
    half = length / 2

    def value(position: np.ndarray) -> np.ndarray:
        return np.asarray(np.exp(-0.5 * ((position - half) / (std * half)) ** 2))

    profile: np.ndarray = value(cells + 0.5) / value(np.floor((length - 1) / 2) + 0.5)
    return profile


def _resized_index(
    cells: np.ndarray, length: np.ndarray, first_length: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bilinear source cells (below, above, weight of above) of a crop of ``first_length`` resized to ``length``."""
    position = np.maximum((cells + 0.5) * (first_length / length) - 0.5, 0.0)
    below = np.minimum(np.floor(position).astype(np.int64), first_length - 1)
    return below, np.minimum(below + 1, first_length - 1), position - below


def alignment_plan(
    tracks: Tracks, grid: Grid, heatmap_std: float, weighting: Weighting = "gaussian"
) -> AlignmentPlan:
    """The plan for a scene on a grid, on the CPU.

    For every box and latent frame j >= 1: the cells of the box at frame j, each with the same place in the first
    box. Where the box's size in cells differs from frame 0's, the first crop is resized bilinearly to frame j's
    uncut size (align_corners false, no antialiasing); only then are cells outside the picture cut away, from
    target, source and weight alike. ``heatmap_std`` is the Gaussian's deviation as a share of half the box;
    ``uniform`` weighs all cells alike (the paper's Table 2); ``mask`` weighs a cell by what a track's mask covers of
    its place in the first box, resized as the crop is, and by the Gaussian where a track has no mask. SG-I2V, section
    4.2 and published code; the masks are ours.

    Raises ValueError when a first box leaves the grid, ``heatmap_std`` is not positive, or a mask that shall weigh
    misses its box.
    """
    if heatmap_std <= 0:
        raise ValueError(f"heatmap_std must be > 0, got {heatmap_std}")
    tracks.check_first_boxes()
    rows, columns = grid.rows, grid.columns
    boxes = grid.cells(tracks.boxes([grid.frame(k) for k in range(grid.latent_frames)]))
    first, later = boxes[:, :1], boxes[:, 1:]  # [boxes, frames, (top, left, bottom, right)]

    def axis(low: int, limit: int) -> tuple[np.ndarray, ...]:
        """Per box, frame and cell along one axis: inside the picture?, position, weight, sources and their mixture."""
        length, first_length = (b[..., low + 2] - b[..., low] for b in (later, first))
        cells = np.arange(length.max(initial=0))
        length, first_length = length[..., None], first_length[..., None]
        position = later[..., low][..., None] + cells
        inside = (cells < length) & (position >= 0) & (position < limit)
        weight = (
            gaussian_profile(cells, length, heatmap_std)
            if weighting != "uniform"
            else np.ones(np.broadcast(cells, length).shape)
        )
        below, above, share = _resized_index(cells, length, first_length)
        start = first[..., low][..., None]
        return inside, position, weight, start + below, start + above, share

    inside_y, y, weight_y, y_below, y_above, share_y = axis(0, rows)
    inside_x, x, weight_x, x_below, x_above, share_x = axis(1, columns)
    box, frame, row, column = np.nonzero(inside_y[..., :, None] & inside_x[..., None, :])
    at_y, at_x = (box, frame, row), (box, frame, column)

    corners = [(y_below, 1 - share_y, x_below, 1 - share_x)]
    if share_y[at_y].any() or share_x[at_x].any():
        corners = [
            (ys, wy, xs, wx)
            for ys, wy in ((y_below, 1 - share_y), (y_above, share_y))
            for xs, wx in ((x_below, 1 - share_x), (x_above, share_x))
        ]
    sources = np.stack([ys[at_y] * columns + xs[at_x] for ys, _, xs, _ in corners], axis=-1)
    mixture = np.stack([wy[at_y] * wx[at_x] for _, wy, _, wx in corners], axis=-1)
    weights = weight_y[at_y] * weight_x[at_x]
    for index, track in enumerate(tracks.tracks if weighting == "mask" else ()):
        if track.mask is not None:
            mine = box == index
            share = _mask_share(track.mask, grid, first[index, 0], f"motions[{index}].mask")
            weights[mine] = (share.ravel()[sources[mine]] * mixture[mine]).sum(axis=-1)
    return AlignmentPlan(
        size=(rows, columns),
        cells=torch.from_numpy(((frame + 1) * rows + y[at_y]) * columns + x[at_x]),
        sources=torch.from_numpy(sources),
        mixture=torch.from_numpy(mixture).float(),
        weights=torch.from_numpy(weights).float(),
    )


def _mask_share(
    mask: PIL.Image.Image, grid: Grid, box: Int64[np.ndarray, "4"], field: str
) -> Float64[np.ndarray, "y x"]:
    """What a mask covers of each latent cell of the first frame, over the most it covers of one in its box."""
    top, left, bottom, right = box
    share = grid.coverage(np.asarray(mask, dtype=np.float32) / 255)
    largest = share[top:bottom, left:right].max(initial=0)
    if largest == 0:
        raise ValueError(
            f"{field}: nothing of it lies in the motion's box; draw it there, or use another weighting"
        )
    relative: np.ndarray = (share / largest).astype(np.float64)
    return relative


def alignment_errors(
    features: Iterable[Float[Tensor, "f _ _ _"]], plan: AlignmentPlan
) -> Float[Tensor, " m"]:
    """Mean squared difference over channels, one number a row of the plan, unweighted and unreduced.

    ``features`` are maps ``[frames, channels, height, width]`` at their own resolutions; each is upsampled
    bilinearly to the latent grid (align_corners false) and their channels count as one long vector. The target, the
    first frame, takes no gradient. SG-I2V, equation 2.
    """
    total: Tensor | None = None
    num_channels = 0
    for feature in features:
        maps = F.interpolate(feature.float(), size=plan.size, mode="bilinear", align_corners=False)
        places = maps.movedim(1, -1).flatten(0, 2)
        target = places.detach()[plan.sources[:, 0]]
        if plan.sources.shape[1] > 1:
            target = (places.detach()[plan.sources] * plan.mixture[..., None]).sum(dim=1)
        error = (places[plan.cells] - target).square().sum(dim=-1)
        total = error if total is None else total + error
        num_channels += feature.shape[1]
    assert total is not None, "at least one feature map"
    return total / num_channels


def alignment_loss(features: Iterable[Float[Tensor, "f _ _ _"]], plan: AlignmentPlan) -> Float[Tensor, ""]:
    """The errors' weighted mean: ``sum(G error) / sum(G)`` over boxes, frames and cells (SG-I2V, equation 2)."""
    return (alignment_errors(features, plan) * plan.weights).sum() / plan.weights.sum()

"""The SG-I2V loss: features inside each moving box are compared with those of its first-frame place, all at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import PIL.Image
from jaxtyping import Float, Float64, Int64

from sgi2v.attention import own_positions
from sgi2v.errors import FieldError
from sgi2v.grid import Grid, Tracks
from sgi2v.lazy import torch
from sgi2v.sparse import DifferentiableRows, SparseMatrix, SparseRows

Weighting = Literal["gaussian", "uniform", "mask"]
"""Weight of a box's cells in the loss."""


@dataclass(frozen=True, kw_only=True)
class AlignmentPlan:
    """Pairs of cells that are compared: one row for every cell of every box in every later frame.

    Built once per scene on the host; :meth:`places` makes of it, once for each resolution that features have, what an
    iteration needs: only gathering. Rows are in the order (box, frame, row, column).
    """

    size: tuple[int, int, int]
    """Frames, rows and columns of the latent grid, to which features are upsampled."""
    cells: Int64[np.ndarray, " m"]
    """Flat index (frame, row, column) of the cell that is pulled."""
    sources: Int64[np.ndarray, "m k"]
    """Flat indices (row, column) in the first frame, whose weighted mean is the target; k is 1, or 4 if a box grows."""
    mixture: Float64[np.ndarray, "m k"]
    """Bilinear weights of the sources, summing to 1."""
    weights: Float64[np.ndarray, " m"]
    """Weight of the row, above 0; 1 at the largest cell of the uncut box."""
    known: dict[tuple[int, int, torch.device], Places] = field(default_factory=dict, repr=False, compare=False)
    """Everything :meth:`places` has made."""

    @property
    def num_rows(self) -> int:
        """Cells compared; 0 when every box has left the picture."""
        return len(self.cells)

    def places(self, height: int, width: int, device: torch.device) -> Places:
        """The plan for features of a resolution, on a device; made at the first call."""
        key = (height, width, device)
        if key not in self.known:
            self.known[key] = _places(self, height, width, device)
        return self.known[key]


@dataclass(frozen=True, kw_only=True)
class Places:
    """The loss on maps of one resolution, as sums over the cells that are pulled, each once however many boxes pull it.

    Where several do, ``sum_i G_i |a - t_i|^2 = G |a - t|^2 + sum_i G_i |t_i - t|^2`` with G their sum and t their mean
    target: only the first term has a gradient, and the second, ``spread``, needs but products of neighbouring places in
    the first frame. So cost and memory follow the picture's size, not the number of boxes.
    """

    pulled: DifferentiableRows
    """Features at the pulled cells, from a map's places in all frames."""
    targets: SparseRows
    """Their mean targets, from the places of the first frame."""
    weights: Float[torch.Tensor, " u"]
    """G of each pulled cell."""
    spread: Spread | None
    """None where no two boxes pull at one cell."""

    def loss(self, maps: Float[torch.Tensor, "f d v u"]) -> Float[torch.Tensor, ""]:
        """The weighted sum of squared differences, summed over channels too."""
        vectors = maps.float().movedim(1, -1)
        first = vectors[0].detach().flatten(0, 1).contiguous()
        targets = self.targets @ first
        errors = (self.pulled @ vectors.flatten(0, 2).contiguous() - targets).square().sum(dim=-1)
        value = (errors * self.weights).sum()
        return value if self.spread is None else value + self.spread(first, targets)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Spread of the targets of one and the same cell: ``sum_i G_i |t_i - t|^2`` over cells of several boxes."""

    upsampled: SparseRows
    """The first frame at the latents' size, from a map's places there."""
    squares: SparseRows
    """``sum_i G_i v_i v_i^T``, v_i a target's weights over the cells of the first frame."""
    weights: Float[torch.Tensor, " u"]
    """G of each pulled cell, 0 where one box pulls."""

    def __call__(
        self, first: Float[torch.Tensor, "p d"], targets: Float[torch.Tensor, "u d"]
    ) -> Float[torch.Tensor, ""]:
        """From the first frame's vectors and the mean targets; without gradient."""
        # The weights of a target sum to 1, so any origin will do; the middle keeps the difference from drowning.
        middle = first.mean(dim=0)
        cells = self.upsampled @ (first - middle)
        total = (cells * (self.squares @ cells)).sum()
        mean = ((targets - middle).square().sum(dim=-1) * self.weights).sum()
        return (total - mean).clamp(min=0)


@dataclass(kw_only=True)
class Kept:
    """The clean latents outside the boxes, as a step's first iteration sees them: later ones shall leave them so.

    A penalty on ``x0`` rather than cells of ``x`` put back: a network mixes places, so that what shows outside may come
    from inside, and a seam put back every iteration would be smoothed away by the merge.
    """

    where: Float[torch.Tensor, "n 1 y x"]
    """1 in cells that are held, 0 elsewhere."""
    before: Float[torch.Tensor, "n c y x"] | None = None
    """The clean latents at the first iteration."""

    def change(self, clean: Float[torch.Tensor, "n c y x"]) -> Float[torch.Tensor, ""]:
        """Mean squared change there, over cells and channels; 0 at the first call, which is remembered."""
        if self.before is None:
            self.before = clean.detach()
        total = ((clean - self.before).square() * self.where).sum()
        return total / (self.where.sum() * clean.shape[1]).clamp(min=1)


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


def alignment_plan(tracks: Tracks, grid: Grid, heatmap_std: float, weighting: Weighting = "gaussian") -> AlignmentPlan:
    """The plan for a scene on a grid, on the CPU.

    For every box and latent frame j >= 1: the cells of the box at frame j, each with the same place in the first
    box. Where the box's size in cells differs from frame 0's, the first crop is resized bilinearly to frame j's
    uncut size (align_corners false, no antialiasing); only then are cells outside the picture cut away, from
    target, source and weight alike. ``heatmap_std`` is the Gaussian's deviation as a share of half the box;
    ``uniform`` weighs all cells alike (the paper's Table 2); ``mask`` weighs a cell by what a track's mask covers of
    its place in the first box, resized as the crop is, and by the Gaussian where a track has no mask. SG-I2V, section
    4.2 and published code; the masks are ours.

    Raises FieldError when a first box leaves the grid, ``heatmap_std`` is not positive, or a mask that shall weigh
    misses its box.
    """
    if heatmap_std <= 0:
        raise FieldError("heatmap_std", f"must be > 0, got {heatmap_std}")
    tracks.check_first_boxes()
    rows, columns = grid.rows, grid.columns
    boxes = grid.cells(tracks.latent_boxes(grid))
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
    counts = weights > 0
    return AlignmentPlan(
        size=(grid.latent_frames, rows, columns),
        cells=(((frame + 1) * rows + y[at_y]) * columns + x[at_x])[counts],
        sources=sources[counts],
        mixture=mixture[counts],
        weights=weights[counts],
    )


def _mask_share(mask: PIL.Image.Image, grid: Grid, box: Int64[np.ndarray, 4], field: str) -> Float64[np.ndarray, "y x"]:
    """Share that a mask covers of each latent cell of the first frame, over the most it covers of one in its box."""
    top, left, bottom, right = box
    share = grid.coverage(np.asarray(mask, dtype=np.float32) / 255)
    largest = share[top:bottom, left:right].max(initial=0)
    if largest == 0:
        raise FieldError(field, "nothing of it lies in the motion's box", "draw it there, or use another weighting")
    relative: np.ndarray = (share / largest).astype(np.float64)
    return relative


def _axis_taps(length: int, native: int) -> tuple[np.ndarray, np.ndarray]:
    """Places and shares, ``[length, 2]``, that make each cell of an axis when ``native`` places are upsampled to it."""
    below, above, share = _resized_index(np.arange(length), np.array(length), np.array(native))
    return np.stack([below, above], axis=-1), np.stack([1 - share, share], axis=-1)


def _upsampling(rows: int, columns: int, height: int, width: int) -> SparseMatrix:
    """Bilinear upsampling of one map (align_corners false) as a matrix from its places to the latents' cells."""
    (y, share_y), (x, share_x) = _axis_taps(rows, height), _axis_taps(columns, width)
    cells = np.arange(rows * columns).reshape(rows, columns, 1, 1)
    places = y[:, None, :, None] * width + x[None, :, None, :]
    shares = share_y[:, None, :, None] * share_x[None, :, None, :]
    return SparseMatrix.of(cells, places, shares, (rows * columns, height * width))


def _places(plan: AlignmentPlan, height: int, width: int, device: torch.device) -> Places:
    num_frames, rows, columns = plan.size
    upsampling = _upsampling(rows, columns, height, width)
    cells, index, counts = np.unique(plan.cells, return_inverse=True, return_counts=True)
    total = np.bincount(index, weights=plan.weights)
    # The upsampling of the pulled cells alone, each in its own frame.
    frame, cell = cells // (rows * columns), cells % (rows * columns)
    each = np.arange(len(cells))
    chosen = SparseMatrix(rows=each, columns=cell, values=np.ones(len(cells)), size=(len(cells), rows * columns))
    near = chosen @ upsampling
    pulled = SparseMatrix(
        rows=near.rows,
        columns=near.columns + frame[near.rows] * height * width,
        values=near.values,
        size=(len(cells), num_frames * height * width),
    )
    share = (plan.weights / total[index])[:, None] * plan.mixture
    targets = SparseMatrix.of(index[:, None], plan.sources, share, (len(cells), rows * columns))
    spread = None
    several = counts[index] > 1
    if several.any():
        sources, mixture = plan.sources[several], plan.mixture[several]
        squares = mixture[:, :, None] * mixture[:, None, :] * plan.weights[several][:, None, None]
        spread = Spread(
            upsampled=upsampling.to(device),
            squares=SparseMatrix.of(sources[:, :, None], sources[:, None, :], squares, (rows * columns,) * 2).to(
                device
            ),
            weights=torch.from_numpy(total * (counts > 1)).float().to(device),
        )
    return Places(
        pulled=pulled.differentiable(device),
        targets=(targets @ upsampling).to(device),
        weights=torch.from_numpy(total).float().to(device),
        spread=spread,
    )


def matching_loss(positions: Iterable[Float[torch.Tensor, "f 2 _ _"]], plan: AlignmentPlan) -> Float[torch.Tensor, ""]:
    """The weighted mean of squared distances, in latent cells: ``sum(G |p - o|^2) / sum(G)``, the mean over maps.

    ``positions`` say of each place which place of the first frame it looks like, in cells of their own maps
    (:func:`sgi2v.attention.match_positions`); ``o`` is where the path says that it came from, the same place in the
    first box. Upsampled as in :func:`alignment_loss`, of which this is the case that every place's look is its
    position; so the target is fixed, and only the first frame's keys are frozen. Squared rather than Huber's: a
    distance is at most the picture's, AdamW heeds no scale, and boxes that overlap fold into one.
    """
    total: torch.Tensor | None = None
    count = 0
    for maps in positions:
        size = (maps.shape[2], maps.shape[3])
        cells = maps.new_tensor([plan.size[2] / size[1], plan.size[1] / size[0]])[:, None, None]
        looks = torch.cat([own_positions(size, maps.device)[None], maps[1:]]) * cells
        value = plan.places(*size, maps.device).loss(looks)
        total = value if total is None else total + value
        count += 1
    assert total is not None, "at least one map of positions"
    return total / (count * float(plan.weights.sum()))


def alignment_loss(features: Iterable[Float[torch.Tensor, "f _ _ _"]], plan: AlignmentPlan) -> Float[torch.Tensor, ""]:
    """The weighted mean of squared differences: ``sum(G error) / sum(G)`` over boxes, frames and cells.

    ``features`` are maps ``[frames, channels, height, width]`` at their own resolutions. The loss is that of the maps
    upsampled bilinearly to the latent grid (align_corners false), their channels one long vector, of which the mean is
    taken; but only where boxes are is anything upsampled. The target, the first frame, takes no gradient. SG-I2V,
    equation 2.
    """
    total: torch.Tensor | None = None
    num_channels = 0
    for maps in features:
        value = plan.places(maps.shape[2], maps.shape[3], maps.device).loss(maps)
        total = value if total is None else total + value
        num_channels += maps.shape[1]
    assert total is not None, "at least one feature map"
    return total / (num_channels * float(plan.weights.sum()))

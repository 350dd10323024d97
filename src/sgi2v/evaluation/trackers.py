"""More trackers behind the one interface: carried points, dense flow and CoTracker3."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, UInt8
from torch import Tensor, nn

from sgi2v.errors import FieldError
from sgi2v.evaluation.flow import dense_flow, grey_frames, sampled
from sgi2v.evaluation.tracker import TemplateTracker, Tracker, TrackResult
from sgi2v.evaluation.weights import load_strictly, read_weights

Masks = Sequence[Float[Tensor, "h w"] | None]
Grey = UInt8[np.ndarray, "h w"]

TRACKERS: Final = ("template", "points", "flow", "cotracker3")
_LEAST_POINTS: Final = 3
_LEAST_DENSE: Final = 256


@dataclass(frozen=True, kw_only=True)
class PointsTracker:
    """Carries a grid of points from frame to frame by optical flow, each checked by carrying it back.

    A point that does not come back to within `tolerance` pixels, or leaves the frame, is dropped for good. A box goes
    where the middle (median) of its surviving points went; with fewer than `least` of them it is lost, held where it
    was, and stays lost. It drifts a little with every frame, and follows whatever the points land on.
    Sources: Lucas and Kanade 1981, in pyramids; checked as in Kalal et al. 2010; dense: Kroeger et al. 2016.
    """

    dense: bool = False
    """Dense DIS flow instead of pyramidal Lucas-Kanade: it has an answer, that of the surroundings, where there is no
    texture, so it loses less and is surer of what it should doubt."""
    side: int = 12
    """Points along each side of a box."""
    tolerance: float = 1.0
    """Distance in pixels (of the working size) beyond which a point that comes back is dropped."""
    least: float = 0.25
    """Share of a box's points below which it is lost."""
    working_side: int = 512
    """Larger frames are shrunk to this longer side in pixels; for dense flow, smaller ones are enlarged to 256."""

    def __post_init__(self) -> None:
        if self.side < 2 or self.tolerance <= 0 or not 0 <= self.least < 1 or self.working_side < 16:
            raise FieldError(
                "side, tolerance, least, working_side",
                "at least 2, above 0, a share below 1 and at least 16, got "
                f"{self.side}, {self.tolerance}, {self.least}, {self.working_side}",
            )

    def track(
        self, frames: Float[Tensor, "f 3 h w"], boxes: Float[Tensor, "n 4"], masks: Masks | None = None
    ) -> TrackResult:
        """Follow boxes (left, top, right, bottom) in pixels through RGB frames in 0..1; see `Tracker.track`.

        ValueError when a box or its mask has nothing inside the frame.
        """
        height, width = frames.shape[-2:]
        grids = _grids(boxes, masks, width, height, self.side)
        if not grids:
            return _result([], boxes, len(frames), self.least)
        grey = grey_frames(frames)
        longer = max(height, width)
        # DIS looks at half the resolution at its finest: small pictures are enlarged for it.
        least = min(_LEAST_DENSE, self.working_side) if self.dense else 1
        factor = min(self.working_side / longer, max(1.0, least / longer))
        if factor != 1:
            size = (max(1, round(width * factor)), max(1, round(height * factor)))
            way_of = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
            grey = [cv2.resize(frame, size, interpolation=way_of) for frame in grey]
        scale = np.array(grey[0].shape[::-1]) / (width, height)
        way, lives = self._carried(grey, (np.concatenate(grids) + 0.5) * scale - 0.5)
        cuts = np.cumsum([len(grid) for grid in grids])[:-1]
        tracks = np.split((way + 0.5) / scale - 0.5, cuts, axis=1)
        parts = list(zip(tracks, np.split(lives, cuts, axis=1), strict=True))
        return _result(parts, boxes, len(frames), self.least, for_good=True)

    def _carried(
        self, grey: Sequence[Grey], places: Float64[np.ndarray, "p 2"]
    ) -> tuple[Float64[np.ndarray, "f p 2"], Bool[np.ndarray, "f p"]]:
        """Places of all points in every frame (dropped ones where they were last), and which of them still live."""
        limit = np.array(grey[0].shape[::-1]) - 0.5
        alive = np.ones(len(places), dtype=bool)
        way, lives = [places], [alive]
        for before, after in pairwise(grey):
            there, good = places.copy(), np.zeros(len(places), dtype=bool)
            if alive.any():
                there[alive], good[alive] = self._step(before, after, places[alive])
            alive = good & ((there > -0.5) & (there < limit)).all(-1)
            places = np.where(alive[:, None], there, places)
            way.append(places)
            lives.append(alive)
        return np.stack(way), np.stack(lives)

    def _step(
        self, before: Grey, after: Grey, places: Float64[np.ndarray, "p 2"]
    ) -> tuple[Float64[np.ndarray, "p 2"], Bool[np.ndarray, " p"]]:
        """Places in the next frame of points of one frame, and which of them came back when carried home."""
        if self.dense:
            there = places + sampled(dense_flow(before, after), places)
            back = there + sampled(dense_flow(after, before), there)
            return there, np.linalg.norm(back - places, axis=-1) < self.tolerance
        start = places.astype(np.float32)[:, None]
        found, seen, _ = cv2.calcOpticalFlowPyrLK(before, after, start, start.copy(), winSize=(15, 15))
        home, again, _ = cv2.calcOpticalFlowPyrLK(after, before, found, found.copy(), winSize=(15, 15))
        close = np.linalg.norm((home - start)[:, 0], axis=-1) < self.tolerance
        return found[:, 0].astype(np.float64), (seen.ravel() == 1) & (again.ravel() == 1) & close


@dataclass(frozen=True, kw_only=True)
class CoTracker3:
    """CoTracker3, offline (Karaev et al., arXiv 2410.11831), from the user's own installation and weights.

    A grid of points per box is followed through the whole clip at once; a box goes where the middle of the points that
    are seen went, and is lost where fewer than `least` of them are seen, but may be found again.
    """

    network: nn.Module
    """`cotracker.predictor.CoTrackerPredictor`."""
    sha256: str
    """SHA-256 of the weights' file."""
    side: int = 8
    """Points along each side of a box."""
    least: float = 0.1
    """Share of a box's points below which it is lost."""

    @torch.no_grad()
    def track(
        self, frames: Float[Tensor, "f 3 h w"], boxes: Float[Tensor, "n 4"], masks: Masks | None = None
    ) -> TrackResult:
        """Follow boxes (left, top, right, bottom) in pixels through RGB frames in 0..1; see `Tracker.track`."""
        grids = _grids(boxes, masks, frames.shape[-1], frames.shape[-2], self.side)
        device = next(self.network.parameters()).device
        queries = [torch.from_numpy(np.hstack([np.zeros((len(grid), 1)), grid])) for grid in grids]
        if not queries:
            return _result([], boxes, len(frames), self.least)
        video = (255 * frames.float())[None].to(device)
        tracks, seen = self.network(video, queries=torch.cat(queries).float()[None].to(device))
        sizes = [len(grid) for grid in grids]
        places = [part.double().numpy(force=True) for part in tracks[0].split(sizes, dim=1)]
        alive = [part.bool().numpy(force=True) for part in seen[0].split(sizes, dim=1)]
        return _result(list(zip(places, alive, strict=True)), boxes, len(frames), self.least)


def load_cotracker3(path: Path, *, sha256: str | None = None, device: str = "cpu") -> CoTracker3:
    """CoTracker3 with the weights in a file (`scaled_offline.pth`), read without running anything in it.

    The network's code is not part of this project and is never downloaded: it is taken from the installed package
    `cotracker`. ValueError telling how to get it where it is absent, and naming the file where that is another one.
    """
    try:
        predictor = importlib.import_module("cotracker.predictor").CoTrackerPredictor
    except (ImportError, AttributeError) as error:
        raise FieldError(
            "tracker",
            "cotracker3 needs its authors' package, which is not installed",
            "from their repository facebookresearch/co-tracker: git clone it, then pip install "
            f"./co-tracker (code CC-BY-NC); its weights are scaled_offline.pth ({error})",
        ) from error
    weights = read_weights(path, sha256=sha256)
    network = predictor(checkpoint=None, offline=True, v2=False, window_len=60)
    load_strictly(network.model, weights, kind="CoTracker3, offline")
    return CoTracker3(network=network.eval().to(device), sha256=weights.sha256)


def load_tracker(name: str, weights: Path | None = None, *, device: str = "cpu") -> Tracker:
    """A tracker by name: one of TRACKERS. ValueError for another name, or weights given or missing without need."""
    if name not in TRACKERS:
        raise FieldError("tracker", f"unknown {name!r}", f"known are {', '.join(TRACKERS)}")
    if (name == "cotracker3") != (weights is not None):
        need = "needs" if weights is None else "takes no"
        raise FieldError("tracker", f"{name} {need} weights of CoTracker3")
    if weights is not None:
        return load_cotracker3(weights, device=device)
    return TemplateTracker() if name == "template" else PointsTracker(dense=name == "flow")


def _grids(
    boxes: Float[Tensor, "n 4"], masks: Masks | None, width: int, height: int, side: int
) -> list[Float64[np.ndarray, "p 2"]]:
    """Points inside each box on frame 0 (x, y; pixels' centres at whole numbers), where a mask is given on it alone."""
    shares = (np.arange(side) + 0.5) / side
    grids = []
    for index, (left, top, right, bottom) in enumerate(boxes.tolist()):
        mask = None if masks is None else masks[index]
        if mask is None:
            x, y = left + shares * (right - left) - 0.5, top + shares * (bottom - top) - 0.5
            grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
        else:
            rows, columns = np.nonzero(mask.numpy(force=True) > 0.5)
            inside = (columns + 0.5 >= left) & (columns + 0.5 < right) & (rows + 0.5 >= top) & (rows + 0.5 < bottom)
            found = np.stack([columns, rows], axis=-1)[inside].astype(np.float64)
            picked = np.linspace(0, len(found) - 1, min(len(found), side * side)).round().astype(int)
            grid = found[picked]
        grid = grid[((grid > -0.5) & (grid < [width - 0.5, height - 0.5])).all(-1)]
        if not len(grid) or left >= right or top >= bottom:
            raise FieldError(
                f"boxes[{index}]",
                f"({left}, {top}, {right}, {bottom}) has no point inside the {width}x{height} frame"
                f"{'' if mask is None else ' and its mask'}",
                "give left < right and top < bottom in pixels",
            )
        grids.append(grid)
    return grids


def _result(
    tracks: Sequence[tuple[Float64[np.ndarray, "f p 2"], Bool[np.ndarray, "f p"]]],
    boxes: Float[Tensor, "n 4"],
    num_frames: int,
    least: float,
    *,
    for_good: bool = False,
) -> TrackResult:
    """Boxes' centres from their points' places and whether each is seen."""
    centers = np.zeros((len(tracks), num_frames, 2))
    lost = np.zeros((len(tracks), num_frames), dtype=bool)
    points = np.ones((len(tracks), num_frames))
    middle = ((boxes[:, :2] + boxes[:, 2:]).double() / 2).numpy(force=True)
    for index, (places, seen) in enumerate(tracks):
        centers[index, 0] = middle[index]
        for frame in range(1, num_frames):
            here = seen[frame]
            points[index, frame] = here.mean()
            gone = here.sum() < max(_LEAST_POINTS, least * len(here)) or (for_good and lost[index, frame - 1])
            lost[index, frame] = gone
            if gone:
                centers[index, frame] = centers[index, frame - 1]
            else:
                centers[index, frame] = middle[index] + np.median((places[frame] - places[0])[here], axis=0)
    return TrackResult(centers=torch.from_numpy(centers), lost=torch.from_numpy(lost), points=torch.from_numpy(points))

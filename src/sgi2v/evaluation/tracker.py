"""Trackers of the content of a first-frame box through a clip: the interface, and one that needs no weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64
from torch import Tensor

from sgi2v.errors import FieldError
from sgi2v.evaluation.flow import dense_flow
from sgi2v.evaluation.matching import Pose, Score, best_scores, peaks, score_at

_CERTAIN = 0.9
"""A match as good as this is believed even where the first frame has the same again elsewhere."""


@dataclass(frozen=True, kw_only=True)
class TrackResult:
    """Result of a tracker."""

    centers: Float64[Tensor, "n f 2"]
    """Centres (x, y) of the boxes' contents, pixels of the clip. A lost object keeps its last position."""
    lost: Bool[Tensor, "n f"]
    """True where the object was not found; False in frame 0."""
    points: Float64[Tensor, "n f"] | None = None
    """Share of a track's points that survived so far, 0..1, where the tracker follows points."""
    match: Float64[Tensor, "n f"] | None = None
    """Match of what was found with the first frame's, 0..1 and 0 where lost, where the tracker compares pictures: how
    much of the object is still there."""

    @property
    def share_lost(self) -> float:
        """Lost points among all points of frames 1 and later, 0..1; 0 where there is none."""
        later = self.lost[:, 1:]
        return float(later.double().mean()) if later.numel() else 0.0


@runtime_checkable
class Tracker(Protocol):
    """Anything that follows the contents of first-frame boxes. It is never told where they should go."""

    def track(
        self,
        frames: Float[Tensor, "f 3 h w"],
        boxes: Float[Tensor, "n 4"],
        masks: Sequence[Float[Tensor, "h w"] | None] | None = None,
    ) -> TrackResult:
        """Follow boxes (left, top, right, bottom) in pixels through RGB frames in 0..1.

        masks: per box the object's pixels on frame 0, 0..1, or None for the whole box. The position that is found is
        the box's centre in either case.
        """


@dataclass(frozen=True, kw_only=True)
class TemplateTracker:
    """Matches the first-frame crop in every frame, and picks the likeliest way through all matches at once.

    Per frame, candidates are the best local maxima of the match (crop turned and scaled, structure and colour) and
    the places to which Lucas-Kanade points (forward-backward checked) and dense DIS flow carry the box. The chain of
    candidates with the largest sum of match scores, less a price for jumps that the flow does not explain, is found
    by the Viterbi recursion. In each frame the chain may also rest, lost, where it last was, for the score
    `threshold`, or for as much as the best of the places of the first frame where it is not, which is what a wrong
    place scores in this very picture: so an object that is nowhere as good as that is lost and not found at the
    nearest blob. Nothing is random. Sources: Lucas and Kanade 1981 with the check of Kalal et al. 2010; DIS: Kroeger
    et al. 2016.
    """

    threshold: float = 0.3
    """Match score (-1..1) below which being lost is the better explanation, at least."""
    speed: float = 1.04
    """A jump as fast as this many diagonals of the frame in a whole clip, unexplained by flow, costs all of
    `jump_price`: 0.08 of the diagonal between two frames of 14, more where fewer frames show the same motion."""
    jump_price: float = 0.5
    """Largest price of a jump, in units of the score: what a faster one costs as well."""
    num_candidates: int = 20
    """Local maxima of the match that are kept per frame."""
    scales: tuple[float, ...] = (0.8, 0.9, 1.12, 1.25)
    """Sizes of the object, beside 1, at which it is looked for."""
    turns: tuple[float, ...] = (-0.5, -0.25, 0.25, 0.5)
    """Angles in radians, beside 0, at which it is looked for."""
    working_side: int = 256
    """Larger frames are shrunk to this longer side in pixels; places are still found to a fraction of a pixel."""

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise FieldError("threshold", f"must lie between 0 and 1, got {self.threshold}")
        if self.speed <= 0 or self.num_candidates < 1 or self.working_side < 16:
            raise FieldError(
                "speed, num_candidates, working_side",
                "must be above 0, at least 1 and at least 16, "
                f"got {self.speed}, {self.num_candidates}, {self.working_side}",
            )

    def track(
        self,
        frames: Float[Tensor, "f 3 h w"],
        boxes: Float[Tensor, "n 4"],
        masks: Sequence[Float[Tensor, "h w"] | None] | None = None,
    ) -> TrackResult:
        """Follow boxes (left, top, right, bottom) in pixels through RGB frames in 0..1.

        masks: per box the object's pixels on frame 0, 0..1, or None for the whole box. With a mask only its pixels
        are matched and only points on it are carried along by the flow; what is found is still the box's centre.
        ValueError when a box has no area or does not touch the frame, or a mask is empty there.
        """
        masks = [None] * len(boxes) if masks is None else masks
        if len(masks) != len(boxes):
            raise FieldError("masks", f"{len(masks)} for {len(boxes)} boxes", "give one a box, or None")
        height, width = frames.shape[-2:]
        for index, (left, top, right, bottom) in enumerate(boxes.tolist()):
            if not (left < right and top < bottom and left < width and top < height and right > 0 and bottom > 0):
                raise FieldError(
                    f"boxes[{index}]",
                    f"({left}, {top}, {right}, {bottom}) has no area inside the {width}x{height} frame",
                    "give left < right and top < bottom in pixels",
                )
        clip = _Clip.of(frames, self.working_side)
        centers = np.empty((len(boxes), len(frames), 2))
        lost = np.zeros((len(boxes), len(frames)), dtype=bool)
        match = np.ones((len(boxes), len(frames)))
        for index, box in enumerate(boxes.double().numpy(force=True)):
            size = (box[2:] - box[:2]) * clip.factor
            start = (box[:2] + box[2:]) / 2 * clip.factor
            mask = clip.mask(masks[index], start, size, f"masks[{index}]")
            found, lost[index], match[index] = self._follow(clip, start, size, mask)
            centers[index] = found / clip.factor
        return TrackResult(
            centers=torch.from_numpy(centers), lost=torch.from_numpy(lost), match=torch.from_numpy(match)
        )

    def _follow(
        self,
        clip: "_Clip",
        start: Float64[np.ndarray, "2"],
        size: Float64[np.ndarray, "2"],
        mask: Float32[np.ndarray, "h w"] | None,
    ) -> tuple[Float64[np.ndarray, "f 2"], np.ndarray, np.ndarray]:
        poses = (
            Pose(),
            *(Pose(scale=scale) for scale in self.scales),
            *(Pose(turn=turn) for turn in self.turns),
        )
        score = Score.of(clip.smooth[0], start, size, poses, mask)
        shape = None if mask is None else _offsets(mask, start)
        threshold = max(self.threshold, min(_CERTAIN, _elsewhere(score, clip.smooth[0], start, size)))
        # Nodes of the Viterbi recursion: place, whether lost, value of the best chain that ends here, its last link.
        places, lost, value = start[None], np.zeros(1, dtype=bool), np.zeros(1)
        trellis = [(places, lost, np.zeros(1, dtype=np.int64), np.ones(1))]
        carried = [start, start]
        for index in range(1, len(clip.smooth)):
            match = best_scores(score, clip.smooth[index])
            carried = [
                carried[0] + clip.dense(index, carried[0], size, shape),
                carried[1] + clip.points(index, carried[1], size, shape),
            ]
            found, scores = peaks(match, self.num_candidates, radius=max(2, int(size.min() / 6)))
            inside = [place for place in carried if ((place >= 0) & (place < clip.size)).all()]
            found = np.concatenate([found, *(place[None] for place in inside)])
            scores = np.concatenate([scores, [score_at(match, place) for place in inside]])
            moved = places + np.stack([clip.dense(index, place, size, shape) for place in places])
            total = value[:, None] - self._price(clip, places, moved, found)
            link = total.argmax(0)
            # Lost is a copy of the place before; only the best few are worth keeping.
            rest = value + threshold
            keep = np.argsort(-rest, kind="stable")[: self.num_candidates]
            value = np.concatenate([total.max(0) + scores, rest[keep]])
            matches = np.concatenate([np.clip(scores, 0, 1), np.zeros(len(keep))])
            places = np.concatenate([found, places[keep]])
            lost = np.concatenate([np.zeros(len(found), dtype=bool), np.ones(len(keep), dtype=bool)])
            trellis.append((places, lost, np.concatenate([link, keep]), matches))
        node = int(value.argmax())
        way, gone, there = [], [], []
        for places, lost, link, matches in reversed(trellis):
            way.append(places[node])
            gone.append(lost[node])
            there.append(matches[node])
            node = int(link[node])
        return np.array(way[::-1]), np.array(gone[::-1]), np.array(there[::-1])

    def _price(
        self,
        clip: "_Clip",
        before: Float64[np.ndarray, "a 2"],
        moved: Float64[np.ndarray, "a 2"],
        after: Float64[np.ndarray, "b 2"],
    ) -> Float64[np.ndarray, "a b"]:
        """Price of going from each place to each other one: free along the flow, a little for what stays put."""
        reach = self.speed / (len(clip.smooth) - 1) * np.hypot(*clip.size)

        def far(start: np.ndarray) -> np.ndarray:
            way = np.linalg.norm(after[None] - start[:, None], axis=-1) / reach
            capped: np.ndarray = np.minimum(way * way, 1.0)
            return capped

        price: np.ndarray = self.jump_price * np.minimum(far(moved), far(before) + 0.1)
        return price


@dataclass(frozen=True)
class _Clip:
    """A clip at the tracker's working size, with its optical flow."""

    smooth: list[Float32[np.ndarray, "h w 3"]]
    """Frames, slightly blurred: what a model draws is never as sharp as the first frame."""
    grey: list[np.ndarray]
    """Frames in 8 bits, for optical flow."""
    flow: list[Float32[np.ndarray, "h w 2"]]
    """Dense flow (x, y) from frame j - 1 to frame j in pixels, at index j - 1."""
    factor: float
    """Working size over the clip's own."""

    @property
    def size(self) -> np.ndarray:
        """(width, height) at the working size."""
        return np.array(self.smooth[0].shape[1::-1], dtype=np.float64)

    @classmethod
    def of(cls, frames: Float[Tensor, "f 3 h w"], working_side: int) -> "_Clip":
        pixels = np.ascontiguousarray(frames.float().permute(0, 2, 3, 1).numpy(force=True))
        factor = min(1.0, working_side / max(pixels.shape[1:3]))
        if factor < 1:
            size = (max(1, round(pixels.shape[2] * factor)), max(1, round(pixels.shape[1] * factor)))
            pixels = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in pixels])
        smooth = [cv2.GaussianBlur(frame, (0, 0), 0.7) for frame in pixels]
        eight = np.clip(pixels * 255 + 0.5, 0, 255).astype(np.uint8)
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in eight]
        return cls(smooth, grey, [dense_flow(a, b) for a, b in pairwise(grey)], factor)

    def mask(
        self, mask: Tensor | None, start: np.ndarray, size: np.ndarray, field: str
    ) -> Float32[np.ndarray, "h w"] | None:
        """A mask at the working size, cut to its box; ValueError naming `field` when nothing of it is left."""
        if mask is None:
            return None
        width, height = (int(side) for side in self.size)
        pixels = np.ascontiguousarray(mask.float().numpy(force=True))
        if pixels.shape != (height, width):
            pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
        low = np.clip(np.floor(start - size / 2), 0, self.size).astype(int)
        high = np.clip(np.ceil(start + size / 2), 0, self.size).astype(int)
        inside = np.zeros_like(pixels)
        here = np.s_[low[1] : high[1], low[0] : high[0]]
        inside[here] = pixels[here]
        if inside.max(initial=0) <= 0.5:
            raise FieldError(field, "nothing of it lies in its box", "leave it out, or draw it there")
        return inside

    def dense(self, index: int, place: np.ndarray, size: np.ndarray, shape: np.ndarray | None = None) -> np.ndarray:
        """Median flow (x, y) from frame index - 1 to index over the middle of a box or over a shape, in pixels."""
        limit = self.size
        if shape is not None:
            at = np.clip(np.round(place + shape).astype(int), 0, (limit - 1).astype(int))
            over: np.ndarray = np.median(self.flow[index - 1][at[:, 1], at[:, 0]], axis=0).astype(np.float64)
            return over
        low = np.clip(place - size / 4, 0, limit - 1).astype(int)
        high = np.maximum(np.clip(place + size / 4 + 1, 1, limit).astype(int), low + 1)
        window = self.flow[index - 1][low[1] : high[1], low[0] : high[0]]
        middle: np.ndarray = np.median(window.reshape(-1, 2), axis=0).astype(np.float64)
        return middle

    def points(self, index: int, place: np.ndarray, size: np.ndarray, shape: np.ndarray | None = None) -> np.ndarray:
        """Median motion of Lucas-Kanade points in a box or shape that come back to within a pixel; else dense."""
        spread = np.linspace(-0.35, 0.35, 7)
        grid = np.stack(np.meshgrid(spread, spread), axis=-1).reshape(-1, 1, 2) * size + place - 0.5
        if shape is not None:
            grid = (place + shape)[:, None]
        start = grid.astype(np.float32)
        before, after = self.grey[index - 1], self.grey[index]
        there, seen, _ = cv2.calcOpticalFlowPyrLK(before, after, start, start.copy(), winSize=(11, 11))
        back, again, _ = cv2.calcOpticalFlowPyrLK(after, before, there, there.copy(), winSize=(11, 11))
        good = (seen.ravel() == 1) & (again.ravel() == 1)
        good &= np.linalg.norm((back - start)[:, 0], axis=-1) < 1.0
        if good.sum() < 4:
            return self.dense(index, place, size, shape)
        middle: np.ndarray = np.median((there - start)[good, 0], axis=0).astype(np.float64)
        return middle


def _elsewhere(
    score: Score,
    frame: Float32[np.ndarray, "h w 3"],
    start: Float64[np.ndarray, "2"],
    size: Float64[np.ndarray, "2"],
) -> float:
    """The best match in the first frame itself, of boxes that share less than half the object's along an axis."""
    match = best_scores(score, frame)
    height, width = match.shape
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    away = (np.abs(x - start[0]) > size[0] / 2)[None] | (np.abs(y - start[1]) > size[1] / 2)[:, None]
    return float(match[away].max(initial=-1.0))


def _offsets(mask: Float32[np.ndarray, "h w"], start: Float64[np.ndarray, "2"]) -> Float64[np.ndarray, "k 2"]:
    """At most 49 of the mask's pixels, evenly through it, as (x, y) from the box's centre to the pixels' indices."""
    rows, columns = np.nonzero(mask > 0.5)
    picked = np.unique(np.linspace(0, len(rows) - 1, 49).round().astype(int))
    offsets: np.ndarray = np.stack([columns[picked], rows[picked]], axis=-1).astype(np.float64) - start
    return offsets

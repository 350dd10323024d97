"""Figures of how far a clip is from what was asked: tracks, boxes, background and frames, with intervals."""

import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from sgi2v.errors import FieldError
from sgi2v.evaluation.flow import dense_flow, grey_frames, home, returning, sampled
from sgi2v.evaluation.tracker import TrackResult

_NUM_RESAMPLES: Final = 10_000
_WINDOW: Final = 11


def center_distances(wanted: Float[Tensor, "n f 2"], tracked: Float[Tensor, "n f 2"]) -> Float64[Tensor, "n f"]:
    """Euclidean distance in pixels between centres (x, y), per track and frame."""
    distances: Tensor = (wanted.double() - tracked.double()).norm(dim=-1)
    return distances


@dataclass(frozen=True, kw_only=True)
class MotionError:
    """Distances of the contents of a clip's boxes from their wanted paths, per track; lost points count."""

    objmc: Float64[Tensor, " n"]
    """ObjMC: mean distance between wanted and tracked centres over frames 1 and later, in pixels of the clip."""
    objmc_with_first: Float64[Tensor, " n"]
    """The same with frame 0, where wanted and tracked agree."""
    path_end: Float64[Tensor, " n"]
    """Distance in the last frame, in pixels."""
    lost: Float64[Tensor, " n"]
    """Share of frames 1 and later in which the object was not found; there it is held where it last was."""
    diagonal: float
    """Diagonal of the frame in pixels: ObjMC depends on the size of the frame."""
    match: Float64[Tensor, " n"] | None = None
    """Mean of the tracker's own match over frames 1 and later, 0..1, where it has one: how much of the object is still
    there. A thing that breaks in two may be followed well and match badly."""

    @property
    def scene(self) -> float:
        """ObjMC of the scene in pixels: the mean over its tracks."""
        return float(self.objmc.mean())

    @property
    def scene_of_diagonal(self) -> float:
        """ObjMC of the scene as a share of the frame's diagonal."""
        return self.scene / self.diagonal


def motion_error(wanted: Float[Tensor, "n f 2"], result: TrackResult, *, width: int, height: int) -> MotionError:
    """ObjMC and its companions for centres (x, y) in pixels of frames of width x height.

    Lost points keep their last position and count: leaving them out would reward a method that destroys the object.
    ValueError for a clip of one frame, which has no motion, and for tracks that do not match.
    Source: ObjMC of Wang et al., MotionCtrl (arXiv 2312.03641), over box centres as in SG-I2V (arXiv 2411.04989).
    """
    if wanted.shape != result.centers.shape:
        raise FieldError(
            "wanted",
            f"{tuple(wanted.shape)} does not match the tracked {tuple(result.centers.shape)}",
            "give one centre per track and frame",
        )
    if wanted.shape[0] < 1 or wanted.shape[1] < 2:
        raise FieldError("wanted", f"{tuple(wanted.shape)} holds no motion", "give a track of at least 2 frames")
    distances = center_distances(wanted, result.centers)
    return MotionError(
        objmc=distances[:, 1:].mean(1),
        objmc_with_first=distances.mean(1),
        path_end=distances[:, -1],
        lost=result.lost[:, 1:].double().mean(1),
        diagonal=math.hypot(width, height),
        match=None if result.match is None else result.match[:, 1:].double().mean(1),
    )


def box_iou(a: Float[Tensor, "*n 4"], b: Float[Tensor, "*n 4"]) -> Float64[Tensor, "*n"]:
    """Intersection over union of boxes (left, top, right, bottom), 0..1; 0 where both have no area."""
    a, b = a.double(), b.double()
    overlap = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    shared = overlap.prod(-1)
    union = sum((box[..., 2:] - box[..., :2]).clamp(min=0).prod(-1) for box in (a, b)) - shared
    return torch.where(union > 0, shared / union, torch.zeros_like(shared))


def iou_over_time(wanted: Float[Tensor, "n f 4"], result: TrackResult) -> Float64[Tensor, "n f"]:
    """IoU, 0..1, of wanted boxes (left, top, right, bottom; pixels) with themselves moved to where the content is.

    A tracker says where, not how large: so only the place is judged, and a box of any size can reach 1.
    """
    centers = (wanted[..., :2] + wanted[..., 2:]).double() / 2
    shift = result.centers - centers
    return box_iou(wanted, wanted.double() + torch.cat([shift, shift], dim=-1))


def outside(boxes: Float[Tensor, "n f 4"], *, width: int, height: int) -> Bool[Tensor, "f h w"]:
    """Pixels whose centre lies in no box of frame 0 and in no box of their own frame: what should stay.

    boxes: (left, top, right, bottom) in pixels. Frame 0 counts in every frame, as something came to light there.
    """
    x = torch.arange(width, dtype=torch.float64) + 0.5
    y = (torch.arange(height, dtype=torch.float64) + 0.5)[:, None]
    left, top, right, bottom = boxes.double()[..., None, None].unbind(2)
    inside = ((x >= left) & (x < right) & (y >= top) & (y < bottom)).any(0)
    return ~(inside | inside[:1])


def background_motion(
    frames: Float[Tensor, "f 3 h w"], boxes: Float[Tensor, "n f 4"], *, tolerance: float = 0.5
) -> float:
    """Motion of what should stay: mean length in pixels of the flow from frame 0, away from the boxes.

    frames: RGB in 0..1; boxes: wanted (left, top, right, bottom) in pixels, here widened by a sixteenth of the frame's
    shorter side. Dense DIS flow (Kroeger et al. 2016) from frame 0 to each later frame and back; only pixels that come
    back to within `tolerance` pixels count, as dense flow carries a thing's motion out into what has no texture. 0 when
    no pixel counts. For scenes with a still camera.
    """
    height, width = frames.shape[-2:]
    margin = min(width, height) / 16 * torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=torch.float64)
    stays = outside(boxes.double().cpu() + margin, width=width, height=height).numpy(force=True)
    grey = grey_frames(frames)
    total, count = 0.0, 0
    for index in range(1, len(frames)):
        there, back = dense_flow(grey[0], grey[index]), dense_flow(grey[index], grey[0])
        counts = stays[index] & returning(there, back, tolerance)
        total += float(np.linalg.norm(there.astype(np.float64), axis=-1)[counts].sum())
        count += int(counts.sum())
    return total / count if count else 0.0


def background_change(frames: Float[Tensor, "f 3 h w"], boxes: Float[Tensor, "n f 4"]) -> float:
    """Change of what should stay: mean absolute difference to frame 0 outside the boxes, 0..1.

    frames: RGB in 0..1; boxes: wanted (left, top, right, bottom) in pixels; 0 when no pixel lies outside.
    """
    stays = outside(boxes, width=frames.shape[3], height=frames.shape[2])[1:].to(frames.device)
    change = (frames[1:].double() - frames[:1].double()).abs().mean(1)
    return float(change[stays].mean()) if stays.any() else 0.0


def psnr(a: Float[Tensor, "*n"], b: Float[Tensor, "*n"]) -> float:
    """Peak signal-to-noise ratio in dB of values in 0..1 over everything given; infinite for equal ones."""
    error = float((a.double() - b.double()).square().mean())
    return math.inf if error == 0 else -10 * math.log10(error)


def ssim(a: Float[Tensor, "f 3 h w"], b: Float[Tensor, "f 3 h w"]) -> float:
    """Structural similarity of two clips of RGB in 0..1, mean over frames, channels and places, at most 1.

    Gaussian windows of 11x11 pixels (standard deviation 1.5) that lie wholly in the frame, K1 = 0.01, K2 = 0.03, in
    float64. ValueError for frames smaller than a window. Source: Wang et al. 2004.
    """
    if a.shape != b.shape or min(a.shape[-2:]) < _WINDOW:
        raise FieldError(
            "a, b",
            f"{tuple(a.shape)} and {tuple(b.shape)}",
            f"give clips of one shape, with sides of at least {_WINDOW} pixels",
        )
    edge = _WINDOW // 2
    total = 0.0
    for pair in zip(a, b, strict=True):
        x, y = (np.ascontiguousarray(frame.double().permute(1, 2, 0).numpy(force=True)) for frame in pair)
        means = [cv2.GaussianBlur(part, (_WINDOW, _WINDOW), 1.5) for part in (x, y, x * x, y * y, x * y)]
        mean_x, mean_y, square_x, square_y, product = (part[edge:-edge, edge:-edge] for part in means)
        shared = product - mean_x * mean_y
        spread = square_x - mean_x**2 + square_y - mean_y**2
        light = (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
        total += float((light * (2 * shared + 0.03**2) / (spread + 0.03**2)).mean())
    return total / len(a)


def temporal_consistency(frames: Float[Tensor, "f 3 h w"], *, tolerance: float = 1.0) -> float:
    """Agreement of each frame with the next, 0..1: one less the mean absolute difference once motion is undone.

    frames: RGB in 0..1. Dense DIS flow (Kroeger et al. 2016) from each frame to the next and back; a pixel that comes
    back to within `tolerance` pixels is compared with where the flow leads, every other one with its own place in
    the next frame. So what vanishes, or jumps too far to be followed, counts in full, and a clip gains nothing by
    breaking the flow. 1 for a still and for a clip of one frame.

    It sees flicker, noise that changes, jumps and things that come and go. It cannot see what is wrong in every frame
    alike (blur, frozen noise), what changes slowly, nor whether anything moves: a still image is the best there is.
    """
    grey = grey_frames(frames)
    pixels = np.ascontiguousarray(frames.float().permute(0, 2, 3, 1).numpy(force=True))
    total = 0.0
    for index in range(1, len(frames)):
        there, back = (dense_flow(grey[index - 1], grey[index]), dense_flow(grey[index], grey[index - 1]))
        follows = returning(there, back, tolerance)[..., None]
        arrived = home(*there.shape[:2]) + np.where(follows, there, np.float32(0))
        after = sampled(pixels[index], arrived)
        total += float(np.abs(after.astype(np.float64) - pixels[index - 1]).mean())
    return 1 - total / max(1, len(frames) - 1)


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A figure and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


def bootstrap_mean(values: Float[Tensor, " n"], *, num_resamples: int = _NUM_RESAMPLES, seed: int = 0) -> Interval:
    """Mean over scenes with its 95 % percentile interval. Give differences of two methods for a paired comparison.

    Source: Efron, Bootstrap methods (1979). Same seed, same interval. ValueError for no values.
    """
    values = values.double()
    means = values[_resamples(len(values), num_resamples, seed)].mean(1)
    return _interval(float(values.mean()), means)


def bootstrap_ratio(
    above: Float[Tensor, " a"],
    below: Float[Tensor, " b"],
    *,
    num_resamples: int = _NUM_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Ratio of the means of paired values (the same scenes in the same order) with its 95 % percentile interval.

    A ratio of means, not a mean of ratios: a scene whose denominator is near 0 must not decide the figure. Scenes are
    drawn in pairs. ValueError for no values, unequal numbers, or a mean below of 0.
    """
    if len(above) != len(below):
        raise FieldError("below", f"{len(below)} values for {len(above)}", "give the same scenes in both")
    above, below = above.double(), below.double()
    draw = _resamples(len(above), num_resamples, seed)
    if not float(below.mean()):
        raise FieldError("below", "its mean is 0, so there is no ratio")
    return _interval(float(above.mean() / below.mean()), above[draw].mean(1) / below[draw].mean(1))


def _resamples(num: int, num_resamples: int, seed: int) -> Tensor:
    if num < 1 or num_resamples < 1:
        raise FieldError("values", f"{num} values and {num_resamples} resamples", "give at least one of each")
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(num, (num_resamples, num), generator=generator)


def _interval(value: float, resampled: Float64[Tensor, " n"]) -> Interval:
    low, high = torch.quantile(resampled, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(value=value, low=low, high=high)

"""Scores of how well a crop of the first frame matches at every place of another, turned and scaled too."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Float64

_MARGIN = 1.15
"""The crop reaches this much beyond the box, so that an object without texture still shows its outline."""
_SPREAD = 0.5
"""Standard deviation of the crop's weights over its half side: what surrounds an object in its box counts little."""
_RIM = 0.05
"""A mask is softened by this share of the object's shorter side, so that its outline is matched along with it."""
_RING = 0.2
"""Width, over the object's shorter side, of the ring around a mask from which the object may stand out."""
_NOISE = 3 * 0.02**2
"""Variance (three channels, 0..1) below which a patch counts as flat."""
_COLOUR = 0.2
"""Difference in mean colour (root mean square over channels, 0..1) at which the score falls to exp(-1/2)."""


@dataclass(frozen=True, kw_only=True)
class Pose:
    """One way the object may have changed."""

    scale: float = 1.0
    """Times its size on the first frame."""
    turn: float = 0.0
    """Radians, from the x axis to the y axis (clockwise on the screen)."""

    @property
    def price(self) -> float:
        """Cost of a change in the score, so that the unchanged object wins where both fit."""
        return 0.3 * abs(float(np.log(self.scale))) + 0.1 * abs(self.turn)


@dataclass(frozen=True, kw_only=True)
class _Figure:
    """An object as a figure on its ground: how much more than a ring around it, it has its own mean colour."""

    weights: Float32[np.ndarray, "h w"]
    """The object's weights less the ring's: they sum to zero."""
    at_home: float
    """Their score of the crop itself, above 0 and at most 1."""
    share: float
    """Share of the match that this decides, 0..1; the pattern inside the object decides the rest."""


@dataclass(frozen=True, kw_only=True)
class _Template:
    """The crop in one pose, ready to be compared."""

    column: Float32[np.ndarray, " h"]
    row: Float32[np.ndarray, " w"]
    """Weights: their outer product sums to one."""
    window: Float32[np.ndarray, "h w"] | None
    """With a mask, the weights instead: the object's own pixels, whatever its shape; they sum to one too."""
    figure: _Figure | None
    """With a mask, where the object stands out."""
    kernel: Float32[np.ndarray, "h w 3"]
    """Weights times the crop less its mean colour."""
    mean: Float32[np.ndarray, "3"]
    variance: float
    price: float


@dataclass(frozen=True, kw_only=True)
class Score:
    """A crop of the first frame in several poses."""

    templates: tuple[_Template, ...]

    @classmethod
    def of(
        cls,
        frame: Float32[np.ndarray, "h w 3"],
        center: Float64[np.ndarray, "2"],
        size: Float64[np.ndarray, "2"],
        poses: Sequence[Pose],
        mask: Float32[np.ndarray, "h w"] | None = None,
    ) -> "Score":
        """The crop around `center` (x, y) of `size` (width, height), in pixels of the frame.

        Without a `mask` (0..1, of the frame's size) a Gaussian weighs the crop; with one the mask does.
        """
        if mask is not None:
            mask = cv2.GaussianBlur(mask, (0, 0), max(0.5, _RIM * float(size.min())))
        return cls(templates=tuple(_template(frame, center, size, pose, mask) for pose in poses))


def _odd(length: float) -> int:
    return max(5, 2 * round((length - 1) / 2) + 1)


def _weights(length: int) -> Float32[np.ndarray, " n"]:
    place = (np.arange(length) - (length - 1) / 2) / (length / 2)
    bell = np.exp(-(place**2) / (2 * _SPREAD**2))
    weights: Float32[np.ndarray, " n"] = (bell / bell.sum()).astype(np.float32)
    return weights


def _template(
    frame: np.ndarray, center: np.ndarray, size: np.ndarray, pose: Pose, mask: np.ndarray | None
) -> _Template:
    # A Gaussian reaches just beyond the box, to the outline; a mask's ring lies around it.
    margin = _MARGIN if mask is None else 1 + 2 * (_RING + _RIM) * float(size.min()) / size
    width, height = (_odd(float(side)) for side in size * margin * pose.scale)
    row, column = _weights(width), _weights(height)
    # Odd sides put the crop's centre on a pixel's centre, wherever in the first frame the box's centre lies.
    cos, sin = np.cos(pose.turn) / pose.scale, np.sin(pose.turn) / pose.scale
    inverse = np.array([[cos, sin], [-sin, cos]])
    offset = center - 0.5 - inverse @ np.array([(width - 1) / 2, (height - 1) / 2])
    move, flags = np.hstack([inverse, offset[:, None]]), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    crop = cv2.warpAffine(frame, move, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    window = around = None
    if mask is not None:
        inside = cv2.warpAffine(mask, move, (width, height), flags=flags)
        around = _around(inside, _RING * float(size.min()) * pose.scale)
        window = np.asarray(inside / inside.sum(), dtype=np.float32)
    weights = (column[:, None] * row[None] if window is None else window)[..., None]
    mean = (weights * crop).sum((0, 1))
    centred = crop - mean
    kernel = weights * centred
    variance = float((kernel * centred).sum())
    return _Template(
        column=column,
        row=row,
        window=window,
        figure=None if window is None or around is None else _figure(crop, window, around, mean, variance),
        kernel=kernel,
        mean=mean,
        variance=variance,
        price=pose.price,
    )


def _around(inside: np.ndarray, width: float) -> np.ndarray:
    """Share of each pixel that lies outside a mask and within `width` pixels of it, 0..1."""
    reach = max(1, round(width))
    y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    around: np.ndarray = cv2.dilate(inside, (x * x + y * y <= reach * reach).astype(np.uint8)) * (1 - inside)
    return around


def _figure(
    crop: np.ndarray, window: np.ndarray, around: np.ndarray, mean: np.ndarray, variance: float
) -> _Figure | None:
    """None where the object has the colour of what is around it, or fills the crop."""
    if around.sum() <= 0:
        return None
    around = around / around.sum()
    weights = np.asarray(window - around, dtype=np.float32)
    at_home = float((weights * _likeness(crop, mean)).sum())
    if at_home <= 0:
        return None
    # Of the variance of object and ring together, taken half and half, this lies between the two, and half of the
    # object's own within: each says as much as there is of it.
    between = float(((mean - (around[..., None] * crop).sum((0, 1))) ** 2).sum()) / 4 * at_home
    return _Figure(weights=weights, at_home=at_home, share=between / (between + variance / 2 + _NOISE))


def _likeness(colours: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Closeness of colours [..., 3] to one, 0..1."""
    likeness: np.ndarray = np.exp(-((colours - colour) ** 2).mean(-1) / (2 * _COLOUR**2))
    return likeness


def best_scores(score: Score, frame: Float32[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
    """The best pose's match with the crop's centre on each pixel's centre, at most 1.

    Contrast and structure as in SSIM (Wang et al. 2004: `(2 cov + c) / (var + var + c)`, here with Gaussian weights
    and the channels pooled), times a Gaussian of the difference in mean colour, less the pose's price.

    With a mask that structure is of the object's own pixels, of which a plain thing has none and a rough model keeps
    little. So beside it stands whether it is there as a figure on its ground: how much more than a ring around them
    these pixels have its mean colour, over how much more they had it on the first frame. The two are weighed by how
    much the first frame has of either.
    """
    best = np.full(frame.shape[:2], -np.inf, dtype=np.float32)
    squares = np.ascontiguousarray((frame * frame).sum(-1))
    channels = [np.ascontiguousarray(frame[..., channel]) for channel in range(3)]
    edge = cv2.BORDER_REPLICATE
    for one in score.templates:
        if one.window is None:
            mean = cv2.sepFilter2D(frame, -1, one.row, one.column, borderType=edge)
            power = cv2.sepFilter2D(squares, -1, one.row, one.column, borderType=edge)
        else:
            mean = cv2.filter2D(frame, -1, one.window, borderType=edge)
            power = cv2.filter2D(squares, -1, one.window, borderType=edge)
        variance = np.maximum(power - (mean * mean).sum(-1), 0)
        shared = np.zeros_like(squares)
        for channel, values in enumerate(channels):
            kernel = np.ascontiguousarray(one.kernel[..., channel])
            shared += cv2.filter2D(values, -1, kernel, borderType=edge)
        fits = (2 * shared + _NOISE) / (variance + one.variance + _NOISE)
        if one.figure is not None:
            stands = cv2.filter2D(_likeness(frame, one.mean), -1, one.figure.weights, borderType=edge)
            stands = np.minimum(stands / one.figure.at_home, 1)
            fits = (1 - one.figure.share) * fits + one.figure.share * stands
        np.maximum(best, fits * _likeness(mean, one.mean) - one.price, out=best)
    return best


def peaks(
    match: Float32[np.ndarray, "h w"], count: int, *, radius: int
) -> tuple[Float64[np.ndarray, "n 2"], Float64[np.ndarray, " n"]]:
    """The best local maxima, at most `count`, best first: places (x, y) in pixels, and their scores.

    A maximum is at least as large as all within `radius` pixels, across and along; its place is refined by a parabola
    through its neighbours.
    """
    largest = cv2.dilate(match, np.ones((2 * radius + 1, 2 * radius + 1), np.uint8))
    rows, columns = np.nonzero(match >= largest)
    order = np.argsort(-match[rows, columns], kind="stable")[:count]
    rows, columns = rows[order], columns[order]
    places = [
        (column + 0.5 + _parabola(match[row], column), row + 0.5 + _parabola(match[:, column], row))
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
    ]
    return np.array(places, dtype=np.float64).reshape(-1, 2), match[rows, columns].astype(np.float64)


def _parabola(line: Float32[np.ndarray, " n"], index: int) -> float:
    """Offset from `index` of the top of the parabola through three values, -0.5..0.5; 0 at a border."""
    if not 0 < index < len(line) - 1:
        return 0.0
    before, here, after = (float(value) for value in line[index - 1 : index + 2])
    bend = before - 2 * here + after
    return 0.0 if bend > -1e-9 else min(0.5, max(-0.5, 0.5 * (before - after) / bend))


def score_at(match: Float32[np.ndarray, "h w"], place: Float64[np.ndarray, "2"]) -> float:
    """The match at a place (x, y) inside the frame, in pixels."""
    return float(match[int(place[1]), int(place[0])])

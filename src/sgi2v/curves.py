"""Interpolation between the keys of a path: easing within a segment, straight lines or PCHIP."""

from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

EASE_SLOPES: Final = MappingProxyType(
    {
        "linear": (1.0, 1.0),
        "ease-in": (0.0, 1.0),
        "ease-out": (1.0, 0.0),
        "ease-in-out": (0.0, 0.0),
    }
)
"""Speed at a segment's start and end, as a multiple of its mean speed; between them the cubic that fits."""


def ease(name: str, u: np.float64) -> np.float64:
    """The share of a segment travelled after the share `u` of its time, both 0..1."""
    slopes = (np.asarray(slope) for slope in EASE_SLOPES[name])
    return np.float64(_hermite(np.asarray(u), np.zeros(()), np.ones(()), *slopes))


def along(
    knots: NDArray[np.float64],
    values: NDArray[np.float64],
    eases: NDArray[np.float64],
    times: NDArray[np.float64],
    segment: NDArray[np.intp],
    *,
    smooth: bool,
) -> NDArray[np.float64]:
    """Values [T, D] at `times` [T], time t lying between knots[segment] and knots[segment + 1].

    `knots` [K] grow, `values` [K, D] are met there, `eases` [K, 2] are rows of EASE_SLOPES; `smooth` chooses
    PCHIP. Never leaves the range of the two neighbouring values. Easing bends time within a segment first.
    """
    gap = np.diff(knots)[segment]
    zero, one = np.zeros_like(gap), np.ones_like(gap)
    eased = _hermite((times - knots[segment]) / gap, zero, one, *eases[segment].T)[:, None]
    start, end = values[segment], values[segment + 1]
    if smooth:
        slopes = _pchip_slopes(knots, values)
        sampled = _hermite(eased, start, end, gap[:, None] * slopes[segment], gap[:, None] * slopes[segment + 1])
    else:
        sampled = start + (end - start) * eased
    return np.clip(sampled, np.minimum(start, end), np.maximum(start, end))  # takes away rounding only


def _hermite(
    u: NDArray[np.float64],
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    start_slope: NDArray[np.float64],
    end_slope: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The cubic on u = 0..1 with these values and slopes at its ends."""
    bend = u * (1 - u) * (start_slope * (1 - u) - end_slope * u)
    return np.asarray(start + (end - start) * u * u * (3 - 2 * u) + bend)


def _pchip_slopes(knots: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slopes [K, D] at the keys that keep each coordinate monotone between two keys (Fritsch & Butland 1984)."""
    gap = np.diff(knots)[:, None]
    chord = np.diff(values, axis=0) / gap
    if len(knots) == 2:
        return np.repeat(chord, 2, axis=0)
    slopes = np.zeros_like(values)
    before, after = chord[:-1], chord[1:]
    weight_before, weight_after = gap[:-1] + 2 * gap[1:], 2 * gap[:-1] + gap[1:]
    same_way = np.sign(before) * np.sign(after) > 0
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        mean = (weight_before + weight_after) / (weight_before / before + weight_after / after)
    slopes[1:-1][same_way] = mean[same_way]
    for end, near, far in ((0, 0, 1), (-1, -1, -2)):
        h, d, h_far, d_far = gap[near], chord[near], gap[far], chord[far]
        slope = ((2 * h + h_far) * d - h * d_far) / (h + h_far)
        slope = np.where(np.sign(slope) != np.sign(d), 0.0, slope)
        slopes[end] = np.where((np.sign(d) != np.sign(d_far)) & (np.abs(slope) > 3 * np.abs(d)), 3 * d, slope)
    return slopes

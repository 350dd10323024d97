"""Frames at uneven times as frames at even ones, so that what a clip shows when is kept."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Final

MOST: Final = 256
"""Frames that a clip of fewer is filled up to at most: what a reference may have."""
_ALIKE: Final = Fraction(3, 2)  # gaps up to so many times the least are one frame's, unevenly written down


def evened(ends: Sequence[Fraction], most: int) -> tuple[list[int], Fraction]:
    """Numbers of the frames to show at even times, and how many of these a second has.

    ends: seconds after the clip's beginning at which each frame ends, growing. Where no frame is longer, shorter or
    elsewhere than an even one by more than half of it, each is shown once; else as often as it is long, measured in
    the shortest frames' length, and up to ``most`` frames in all, but never fewer than there are.
    """
    count, whole = len(ends), ends[-1]
    even = whole / count
    gaps = [end - begin for begin, end in zip([Fraction(0), *ends], ends, strict=False)]
    if all(abs(end - (k + 1) * even) <= even / 2 and abs(gaps[k] - even) <= even / 2 for k, end in enumerate(ends)):
        return list(range(count)), 1 / even
    least = min(gap for gap in gaps if gap > 0)
    alike = [gap for gap in gaps if 0 < gap <= _ALIKE * least]
    num = min(round(whole / (sum(alike) / len(alike))), max(count, min(max(MOST, 2 * count), most)))
    shown, at = [], 0
    for k in range(num):
        middle = (k + Fraction(1, 2)) * whole / num
        while ends[at] <= middle:
            at += 1
        shown.append(at)
    return shown, num / whole

"""A mark in the pixels of a clip that outlives re-encoding: one known pattern, added faintly to every frame.

Spread-spectrum marking (Cox et al., 1997) with phase-only matching (Kuglin and Hines, 1975). The pattern is the same
in all frames, so that nothing flickers and a clip's frames add up; it is laid over the picture relative to its size,
so that scaling alone changes nothing, and it is sought over the moves and scales that a crop brings about. It says
one thing, that the clip was made by this program, and carries no message.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from jaxtyping import Complex64, Float32, UInt8

from sgi2v.lazy import cv2

NAME: Final = "sgi2v-1"
"""The pattern's name in records: another pattern or another way of laying it gets another one."""
PSNR: Final = 42.5
"""Decibels between marked and unmarked 8-bit frames before what is cut off at black and white, which raises it."""
MIN_PIXELS: Final = 192 * 192
"""Of a frame that is marked: in a smaller one the pattern is finer than its pixels."""
FALSE_ALARMS: Final = 1e-4
"""Bound on the share of unmarked clips that are taken for marked ones; see :func:`threshold`."""
_SIDE: Final = 256  # cells along the side of a square of the picture's area: the size at which the mark is sought
_PLANE: Final = 512  # cells of the pattern, which repeats beyond
_FINEST, _COARSEST = 4.0, 12.0  # wavelengths in cells: finer ones x264 drops, coarser ones are lost among the contents
_SCALES: Final = tuple(
    float(s) for s in np.exp(np.arange(-24, 36) * 0.005)
)  # 0.89 to 1.19; 1 / 0.9 is 5 % off all sides
_REACH: Final = 0.1  # of a side that the pattern may have moved
_MOST_MOVES: Final = 3200  # within that reach, for any picture up to 16 times as long as high
_NEAR: Final = 2  # cells that a frame's place may differ from its clip's


@dataclass(frozen=True, kw_only=True)
class Found:
    """The best place of the pattern in a picture, or in the mean of a clip's frames."""

    score: float
    """Agreement of phases in standard deviations of what an unmarked picture gives."""
    scale: float
    """Size of a cell, measured in that of the uncropped picture of this size."""
    shift: tuple[int, int]
    """Cells right and down from the picture's middle."""
    share: float
    """Share of frames in which the pattern is seen at this place; 0 where it is not found at all."""

    @property
    def is_marked(self) -> bool:
        """True where the score is above what one of 10 000 unmarked clips may reach."""
        return self.score > THRESHOLD


def marked(pixels: UInt8[np.ndarray, "f h w 3"]) -> UInt8[np.ndarray, "f h w 3"]:
    """The frames with the mark in them; unchanged where they are smaller than :data:`MIN_PIXELS`."""
    height, width = pixels.shape[1:3]
    if not is_markable(height, width):
        return pixels
    layer = _laid(height, width, math.sqrt(height * width) / _SIDE) * (255 / 10 ** (PSNR / 20))
    added = np.rint(layer).astype(np.int16)[..., None]  # whole levels: the same in every frame, whatever it is added to
    out = np.empty_like(pixels)
    for index, image in enumerate(pixels):  # one by one: a whole clip in 16 bits would take twice the memory
        out[index] = np.clip(image + added, 0, 255)
    return out


def is_markable(height: int, width: int) -> bool:
    """True for frames large enough to hold the pattern."""
    return height * width >= MIN_PIXELS


def find(pixels: Sequence[UInt8[np.ndarray, "h w 3"]]) -> Found:
    """The mark in a clip's frames, or in one picture, all of one size.

    The mean of the frames is searched over scales and moves; each frame is then looked at near the place found.
    """
    frames = [_reduced(image) for image in pixels]
    rows, columns = frames[0].shape
    mean = _phases(np.mean(frames, axis=0))
    moves = _moves(rows, _REACH), _moves(columns, _REACH)
    best = Found(score=-math.inf, scale=1.0, shift=(0, 0), share=0.0)
    for scale in _SCALES:
        surface = _agreement(mean, rows, columns, scale)[np.ix_(*moves)]
        at = np.unravel_index(surface.argmax(), surface.shape)
        if surface[at] > best.score:
            shift = _signed(int(moves[1][at[1]]), columns), _signed(int(moves[0][at[0]]), rows)
            best = Found(score=float(surface[at]), scale=scale, shift=shift, share=0.0)
    if not best.is_marked:
        return best
    around = np.arange(-_NEAR, _NEAR + 1)
    near = (around + best.shift[1]) % rows, (around + best.shift[0]) % columns
    limit = threshold((2 * _NEAR + 1) ** 2)
    seen = [_agreement(_phases(frame), rows, columns, best.scale)[np.ix_(*near)].max() > limit for frame in frames]
    return Found(score=best.score, scale=best.scale, shift=best.shift, share=float(np.mean(seen)))


def threshold(num_places: int, false_alarms: float = FALSE_ALARMS) -> float:
    """Score that the best of so many places exceeds in at most this share of unmarked clips.

    Of a picture that knows nothing of the pattern, the differences of phase are independent and uniform. A mean of
    their cosines is sub-Gaussian (the moment generating function of one is I0(s) <= exp(s²/4)), so that a place has a
    score above t with a probability of at most exp(-t²/2) (Chernoff), and the best of all is bounded by their sum.
    """
    return math.sqrt(2 * math.log(num_places / false_alarms))


@lru_cache(maxsize=1)
def _pattern() -> Float32[np.ndarray, "cells cells"]:
    """The pattern of variance 1: noise of signs, the same on every machine, with only a band of wavelengths left."""
    stream = hashlib.shake_256(NAME.encode()).digest(_PLANE * _PLANE // 8)
    signs = np.unpackbits(np.frombuffer(stream, np.uint8)).reshape(_PLANE, _PLANE) * 2.0 - 1.0
    kept = np.fft.irfft2(np.fft.rfft2(signs) * _band(_PLANE, _PLANE, 1.0))
    return np.asarray(kept / kept.std(), np.float32)


def _band(rows: int, columns: int, scale: float) -> np.ndarray:
    """True at the frequencies of a real picture's transform whose waves are of the pattern's lengths."""
    frequency = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns)[None])
    return np.asarray((frequency >= 1 / (_COARSEST * scale)) & (frequency <= 1 / (_FINEST * scale)))


def _laid(height: int, width: int, cell: float) -> Float32[np.ndarray, "h w"]:
    """The pattern over a picture, from its middle on, with cells of so many pixels."""
    x, y = (_PLANE / 2 - (side / 2 - 0.5) / cell for side in (width, height))
    matrix = np.array([[1 / cell, 0, x], [0, 1 / cell, y]])
    how = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    laid = cv2.warpAffine(_pattern(), matrix, (width, height), flags=how, borderMode=cv2.BORDER_WRAP)
    return np.asarray(laid, np.float32)


def _reduced(image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "rows columns"]:
    """Luma at the size at which the mark is sought, a cell being a pixel."""
    height, width = image.shape[:2]
    factor = _SIDE / math.sqrt(height * width)
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    luma = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY).astype(np.float32)
    return np.asarray(cv2.resize(luma, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR))


def _phases(luma: Float32[np.ndarray, "rows columns"]) -> Complex64[np.ndarray, "rows half"]:
    """Transform of a picture with every frequency at length 1, after its strong edges have been pressed down.

    A mark is as strong beside an edge as anywhere; without this the edges would drown it in all frequencies.
    """
    detail = luma - cv2.GaussianBlur(luma, (0, 0), _COARSEST / 3)
    spread = np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), _COARSEST / 2) + 1)
    transform = np.fft.rfft2((np.clip(detail / spread, -2, 2) * _window(*luma.shape)).astype(np.float32))
    return _unit(transform)


def _unit(transform: np.ndarray) -> Complex64[np.ndarray, "rows half"]:
    return np.asarray(transform / np.maximum(np.abs(transform), 1e-12), np.complex64)


def _window(rows: int, columns: int) -> Float32[np.ndarray, "rows columns"]:
    """Falls off towards the sides, whose jump would be an edge of its own."""
    fall = [np.hanning(side + 2)[1:-1] ** 0.25 for side in (rows, columns)]
    return np.outer(*fall).astype(np.float32)


@lru_cache(maxsize=2 * len(_SCALES))
def _template(rows: int, columns: int, scale: float) -> tuple[Complex64[np.ndarray, "rows half"], float]:
    """Conjugate phases of the pattern within its band, zero outside, and what makes a sum over them a score."""
    band = _band(rows, columns, scale)
    # Not windowed as pictures are: neighbouring frequencies of the noise stay independent, as the threshold has it.
    phases = _unit(np.fft.rfft2(_laid(rows, columns, scale)))
    # A real picture's frequencies come in pairs, of which the transform's first column holds both.
    pairs = band[:, 1:].sum() + band[:, 0].sum() / 2
    return np.asarray(np.conj(phases) * band, np.complex64), rows * columns / math.sqrt(2 * pairs)


def _agreement(
    phases: Complex64[np.ndarray, "rows half"], rows: int, columns: int, scale: float
) -> Float32[np.ndarray, "rows columns"]:
    """Score of the pattern at this scale for every move, first down, then right, negative ones from the end on."""
    template, factor = _template(rows, columns, scale)
    return np.asarray(np.fft.irfft2(phases * template, s=(rows, columns)) * factor, np.float32)


def _moves(side: int, reach: float) -> np.ndarray:
    most = math.ceil(side * reach)
    return np.arange(-most, most + 1) % side


def _signed(move: int, side: int) -> int:
    return move if move <= side // 2 else move - side


THRESHOLD: Final = threshold(len(_SCALES) * _MOST_MOVES)
"""Score above which a clip is said to be marked."""

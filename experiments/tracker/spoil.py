"""True clips spoilt in known ways, as a rough model spoils them: where the thing is stays known, or that it is nowhere."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import cv2
import numpy as np
from jaxtyping import Float32

Frame = Float32[np.ndarray, "h w 3"]
Mask = Float32[np.ndarray, "h w 1"]

_SHIFT: Final = 0.15  # of the colour, root mean square over channels
_RAGGED: Final = 3.5 / 128  # how far the picture is bent and over what length, in shorter sides of the frame
_BEND: Final = 5 / 128
_CRUMB: Final = 10  # times smaller than the thing, in pixels
_PATCH: Final = 1 / 16  # of the frame's shorter side
_MISSING: Final = 0.25  # of the patches inside the thing
_PALE: Final = 0.85  # of a patch's colour; the rest is the ground's


@dataclass(frozen=True, kw_only=True)
class Thing:
    """A thing in one frame."""

    mask: Mask
    """Its pixels, 0..1."""
    mean: Float32[np.ndarray, "3"]
    """Its mean colour on the first frame."""
    shift: Float32[np.ndarray, "3"]
    """A change of colour, the same in all frames."""


def _as_it_is(frame: Frame, thing: Thing, draws: np.random.Generator) -> Frame:
    return frame


def _blurred(frame: Frame, thing: Thing, draws: np.random.Generator) -> Frame:
    height, width = frame.shape[:2]
    small = cv2.resize(frame, None, fx=0.3, fy=0.3, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height))


def _flat(frame: Frame, thing: Thing, draws: np.random.Generator) -> Frame:
    return _painted(frame, thing, thing.mean)


def _recoloured(frame: Frame, thing: Thing, draws: np.random.Generator) -> Frame:
    return np.asarray(np.clip(frame + thing.mask * thing.shift, 0, 1), dtype=np.float32)


def _flat_and_recoloured(frame: Frame, thing: Thing, draws: np.random.Generator) -> Frame:
    return _painted(frame, thing, np.clip(thing.mean + thing.shift, 0, 1))


def _ragged(frame: Frame, thing: Thing, draws: np.random.Generator) -> Frame:
    height, width = frame.shape[:2]
    unit = min(height, width)
    bends = []
    for _ in range(2):
        bend = cv2.GaussianBlur(draws.normal(size=(height, width)), (0, 0), _BEND * unit)
        bends.append(bend / bend.std() * _RAGGED * unit)
    y, x = np.mgrid[:height, :width]
    across, along = (np.asarray(v, dtype=np.float32) for v in (x + bends[0], y + bends[1]))
    return cv2.remap(frame, across, along, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _flat_and_ragged(frame: Frame, thing: Thing, draws: np.random.Generator) -> Frame:
    return _ragged(_flat(frame, thing, draws), thing, draws)


def _redrawn(frame: Frame, thing: Thing, draws: np.random.Generator) -> Frame:
    """Another heap of patches in every frame, of colours that the thing has: nothing of it flows from frame to frame."""
    height, width = thing.mask.shape[:2]
    side = max(2, round(_PATCH * min(height, width)))
    down, right = draws.integers(side, size=2)
    places = np.ix_((np.arange(height) + down) // side, (np.arange(width) + right) // side)
    cover = np.zeros((height // side + 2, width // side + 2))
    np.add.at(cover, places, thing.mask[..., 0] / side**2)
    chance = np.where(cover > 0.5, 1 - _MISSING, np.where(cover > 0.1, 0.5, 0.0))
    there = (draws.random(cover.shape) < chance)[..., None]
    own = frame[thing.mask[..., 0] > 0.5]
    colours = own[draws.integers(len(own), size=cover.shape)] if len(own) else np.zeros((*cover.shape, 3))
    heap = np.concatenate([colours * there, there], axis=-1)[places].astype(np.float32)
    heap = cv2.GaussianBlur(heap, (0, 0), 0.3 * side) * _PALE
    return _gone(frame, thing, draws) * (1 - heap[..., 3:]) + heap[..., :3]


def _half_gone(frame: Frame, thing: Thing, draws: np.random.Generator) -> Frame:
    cut = np.zeros_like(thing.mask)
    columns = np.nonzero(thing.mask[..., 0].max(0) > 0.5)[0]
    if len(columns):
        cut[:, : int(columns.mean())] = 1
    return np.asarray(frame * (1 - cut) + _gone(frame, thing, draws) * cut, dtype=np.float32)


def _gone(frame: Frame, thing: Thing, draws: np.random.Generator) -> Frame:
    hole = cv2.dilate((thing.mask[..., 0] > 0.05).astype(np.uint8), np.ones((5, 5), np.uint8))
    eight = (frame * 255).round().astype(np.uint8)
    return cv2.inpaint(eight, hole, 5, cv2.INPAINT_TELEA).astype(np.float32) / 255


def _all_but_a_crumb(frame: Frame, thing: Thing, draws: np.random.Generator) -> Frame:
    depth = cv2.distanceTransform((thing.mask[..., 0] > 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    inside = np.sort(depth[depth > 0])
    kept = depth > inside[-len(inside) // _CRUMB] if len(inside) else depth > 0
    return np.where(kept[..., None], frame, _gone(frame, thing, draws))


def _another(frame: Frame, thing: Thing, draws: np.random.Generator) -> Frame:
    return _painted(frame, thing, (thing.mean + 0.5) % 1)


def _painted(frame: Frame, thing: Thing, colour: np.ndarray) -> Frame:
    return np.asarray(frame * (1 - thing.mask) + thing.mask * colour, dtype=np.float32)


Spoil = Callable[[Frame, Thing, np.random.Generator], Frame]
THERE: Final[Mapping[str, Spoil]] = MappingProxyType(
    {
        "as it is": _as_it_is,
        "all blurred": _blurred,
        "flat": _flat,
        "recoloured": _recoloured,
        "flat, recoloured": _flat_and_recoloured,
        "ragged": _ragged,
        "flat, ragged": _flat_and_ragged,
        "redrawn in every frame": _redrawn,
        "half of it gone": _half_gone,
    }
)
"""The thing is still there: it should be found."""
NOWHERE: Final[Mapping[str, Spoil]] = MappingProxyType(
    {"gone": _gone, "gone but for a crumb": _all_but_a_crumb, "another colour in its place": _another}
)
"""It should be lost."""


def spoilt(
    spoil: Spoil, frames: Float32[np.ndarray, "f h w 3"], masks: Float32[np.ndarray, "f h w"], *, seed: int
) -> Float32[np.ndarray, "f h w 3"]:
    """A clip, RGB 0..1, whose frames 1 and later are spoilt around one thing; deterministic from the seed."""
    draws = np.random.default_rng(seed)
    shift = draws.normal(size=3)
    shift = np.asarray(shift * _SHIFT / np.sqrt((shift**2).mean()), dtype=np.float32)
    weights = masks[0][..., None]
    mean = (frames[0] * weights).sum((0, 1)) / weights.sum()
    later = [
        spoil(frame, Thing(mask=mask[..., None], mean=mean, shift=shift), draws)
        for frame, mask in zip(frames[1:], masks[1:], strict=True)
    ]
    return np.stack([frames[0], *later]).astype(np.float32)

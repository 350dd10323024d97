"""Masks from boxes: GrabCut tells the thing in a box from the background around it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
from PIL import Image

from sgi2v.errors import FieldError, within
from sgi2v.lazy import cv2
from sgi2v.scene import Box, Scene

_AROUND: Final = 0.5
"""Reach of the background around the box, as a share of its sides: what is far away tells nothing."""
_SIDE: Final = 400
"""Pixels of the longer side at which it is computed; the outline is as fine as that."""
KNOWN: Final = 0.06
"""Radius around a point that is of the thing, within which all is, as a share of the box's shorter side."""
_SPECK: Final = 0.05
"""Parts smaller than this share of the largest are dropped."""
_TOUCHED: Final = 0.25
"""Share of a side of the box from which on a mask along it was cut off there, and does not merely touch it."""


def grab_cut(
    image: Image.Image, box: Box, *, iterations: int = 5, at: tuple[float, float] | None = None
) -> Image.Image:
    """The thing in a box of an RGB image as a mask (mode L, 0 or 255, of the image's size).

    Everything outside the box counts as background, so the box should reach a little beyond the thing. The same
    image and box give the same mask. ``at``: a point (x, y) in the box that is known to be of the thing. Raises
    ValueError when the box leaves no background around it, or nothing in it stands out. Source: GrabCut
    (Rother, Kolmogorov and Blake 2004), OpenCV's implementation.
    """
    limit = np.array(image.size)
    low, high = np.floor([box.left, box.top]).astype(int), np.ceil([box.right, box.bottom]).astype(int)
    reach = np.maximum(1, np.round(_AROUND * (high - low)).astype(int))
    start, end = np.maximum(low - reach, 0), np.minimum(high + reach, limit)
    crop = np.asarray(image.crop((*start.tolist(), *end.tolist())), dtype=np.uint8)
    shrink = min(1.0, _SIDE / max(crop.shape[:2]))
    size = (max(1, round(crop.shape[1] * shrink)), max(1, round(crop.shape[0] * shrink)))
    small = cv2.resize(crop, size, interpolation=cv2.INTER_AREA)
    inner_low = np.floor((low - start) * shrink).astype(int)
    inner_high = np.maximum(np.ceil((high - start) * shrink).astype(int), inner_low + 1)
    labels = np.full(small.shape[:2], cv2.GC_BGD, dtype=np.uint8)
    labels[inner_low[1] : inner_high[1], inner_low[0] : inner_high[0]] = cv2.GC_PR_FGD
    if (labels == cv2.GC_PR_FGD).all():
        raise FieldError("box", "fills the image, so no background is known", "make it smaller, or draw the mask")
    if at is not None:
        x, y = ((np.array(at) - start) * shrink).astype(int).tolist()
        cv2.circle(labels, (x, y), max(1, round(KNOWN * min(inner_high - inner_low))), cv2.GC_FGD, -1)
    cv2.setRNGSeed(0)  # its clusters begin at random places
    cv2.grabCut(
        cv2.cvtColor(small, cv2.COLOR_RGB2BGR),
        labels,
        (0, 0, 1, 1),  # not read: the labels say where
        np.zeros((1, 65)),
        np.zeros((1, 65)),
        iterations,
        cv2.GC_INIT_WITH_MASK,
    )
    thing = _without_specks(((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)).astype(np.uint8))
    if not thing.any():
        raise FieldError(
            "box",
            "nothing in it stands out from what surrounds it",
            "widen it if it cuts the thing, move it, or draw the mask by hand",
        )
    fine = cv2.resize(thing * 255, (crop.shape[1], crop.shape[0]), interpolation=cv2.INTER_LINEAR)
    mask = Image.new("L", image.size)
    mask.paste(Image.fromarray(np.where(fine > 127, 255, 0).astype(np.uint8)), tuple(start.tolist()))
    return mask


def _without_specks(thing: np.ndarray) -> np.ndarray:
    count, parts, figures, _ = cv2.connectedComponentsWithStats(thing)
    areas = figures[1:, cv2.CC_STAT_AREA]
    kept = [part for part in range(1, count) if areas[part - 1] >= _SPECK * areas.max()]
    whole: np.ndarray = np.isin(parts, kept).astype(np.uint8)
    return whole


def with_masks(scene: Scene, *, anew: bool = False, failed: Callable[[FieldError], None] | None = None) -> Scene:
    """The scene with a mask for every object that moves and has none, or with `anew` for all that move.

    Pins get none: they hold whatever is under them, often plain background, from which nothing stands out. Raises
    ValueError as `grab_cut` does, naming the motion; with `failed` that is told instead, and the others get theirs.
    """
    motions = []
    for index, motion in enumerate(scene.motions):
        if motion.kind == "object" and motion.path and (anew or motion.mask is None):
            try:
                with within(f"motions[{index}]"):
                    motion = replace(motion, mask=grab_cut(scene.image, motion.box))
            except FieldError as error:
                if failed is None:
                    raise
                failed(error)
        motions.append(motion)
    return replace(scene, motions=tuple(motions))


def touching(masked: Scene, before: Scene) -> tuple[str, ...]:
    """A remark on each new mask that fills much of its box's border: the box, beyond which none was looked for, cuts.

    A side of the box that is the image's is not counted.
    """
    found = []
    for index, (motion, old) in enumerate(zip(masked.motions, before.motions, strict=True)):
        if motion.mask is None or motion.mask is old.mask:
            continue
        box, (width, height) = motion.box, masked.image.size
        left, top = int(np.floor(box.left)), int(np.floor(box.top))
        right, bottom = int(np.ceil(box.right)), int(np.ceil(box.bottom))
        pixels = np.asarray(motion.mask)[top:bottom, left:right] > 0
        sides = {
            "left": (left > 0, pixels[:, 0]),
            "top": (top > 0, pixels[0]),
            "right": (right < width, pixels[:, -1]),
            "bottom": (bottom < height, pixels[-1]),
        }
        cut = [side for side, (open_, line) in sides.items() if open_ and line.mean() > _TOUCHED]
        if cut:
            found.append(
                f"motions[{index}].box: its {' and '.join(cut)} cuts the thing, whose mask ends there; widen the box"
            )
    return tuple(found)

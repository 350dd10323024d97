"""A click makes a mask: GrabCut around the point, or SAM 2 from a folder of the person's own."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from sgi2v.errors import FieldError, within
from sgi2v.lazy import cv2, torch
from sgi2v.prompting.drags import Drag
from sgi2v.prompting.notation import check_prompt
from sgi2v.prompting.vision import kind_in, opened
from sgi2v.scene import Box, Motion, Scene
from sgi2v.segmentation import KNOWN, grab_cut, with_masks

EXAMPLE: Final = '"45%,60%"'
Point = tuple[float, float]


@runtime_checkable
class Segmenter(Protocol):
    """Whoever finds the outline of the thing under a point."""

    def __call__(self, image: Image.Image, point: Point, box: Box | None = None) -> Image.Image:
        """The thing under (x, y) in pixels of an RGB image as a mask (mode L, 0 or 255, of the image's size).

        With a ``box`` the thing that is in it. FieldError where nothing stands out.
        """


MARGIN: Final = 0.04
"""Share of a mask's sides by which the box around it reaches beyond it."""
_REACHES: Final = (0.12, 0.2, 0.32, 0.5)
"""Half sides of the boxes that are tried around a click, as shares of the picture's shorter side."""
_MORE: Final = 3.0
"""Least area of a thing, as a multiple of the disc around the click that is taken for granted."""
_EDGE: Final = 0.05
"""Share of a mask's outline that may lie on its box: more, and the box cuts the thing."""


def grab_cut_at(image: Image.Image, point: Point, box: Box | None = None) -> Image.Image:
    """The thing under a point by GrabCut: in growing boxes around it, until one does not cut what stands out in it.

    Of the mask the part that is connected to the point. FieldError where in none of them the point lies on something
    that stands out. See :func:`sgi2v.segmentation.grab_cut`.
    """
    whole = Box(left=0, top=0, right=image.width, bottom=image.height)
    found: Image.Image | None = None
    for tried in [box] if box else [_around(point, reach * min(image.size), whole) for reach in _REACHES]:
        try:
            mask = _part_at(grab_cut(image, tried, at=point), point)
        except FieldError:
            continue
        known = np.pi * (KNOWN * min(tried.width, tried.height)) ** 2
        if mask is None or np.count_nonzero(np.asarray(mask)) < _MORE * known:
            continue
        found = mask
        if box or _share_on_edge(mask, tried, whole) <= _EDGE:
            break
    if found is None:
        x, y = point
        raise FieldError(
            "at", f"nothing stands out at {x:.0f},{y:.0f}", "click on another part of the thing, or give its box"
        )
    return found


def _around(point: Point, reach: float, whole: Box) -> Box:
    x, y = point
    # A rim of two pixels is left, for GrabCut must see some background.
    return Box(
        left=max(x - reach, 2.0),
        top=max(y - reach, 2.0),
        right=min(x + reach, whole.right - 2.0),
        bottom=min(y + reach, whole.bottom - 2.0),
    )


def _part_at(mask: Image.Image, point: Point) -> Image.Image | None:
    """The connected part of a mask at a point, or within a few pixels of it; None where there is none."""
    pixels = (np.asarray(mask) > 0).astype(np.uint8)
    _, parts = cv2.connectedComponents(pixels)
    x, y = int(point[0]), int(point[1])
    near = max(2, round(0.01 * min(mask.size)))
    window = parts[max(y - near, 0) : y + near + 1, max(x - near, 0) : x + near + 1]
    number = int(parts[y, x]) or int(np.bincount(window[window > 0]).argmax() if (window > 0).any() else 0)
    return Image.fromarray(np.where(parts == number, 255, 0).astype(np.uint8)) if number else None


def _share_on_edge(mask: Image.Image, box: Box, whole: Box) -> float:
    """Share of a box's sides, but for those that are the picture's, along which the mask lies."""
    left, top, right, bottom = int(box.left), int(box.top), int(np.ceil(box.right)), int(np.ceil(box.bottom))
    pixels = np.asarray(mask)[top:bottom, left:right] > 0
    lines = []
    lines += [pixels[:, 0]] if box.left > whole.left + 2 else []
    lines += [pixels[:, -1]] if box.right < whole.right - 2 else []
    lines += [pixels[0]] if box.top > whole.top + 2 else []
    lines += [pixels[-1]] if box.bottom < whole.bottom - 2 else []
    return float(np.concatenate(lines).mean()) if lines else 0.0


_SAM_MEAN, _SAM_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def sam2(folder: str | os.PathLike[str], *, device: str | None = None) -> Segmenter:
    """The segmenter in a folder: SAM 2 in transformers' layout, which takes clicks and boxes.

    The network is opened at the first click. FieldError at once for a folder that holds none. Of the masks that it
    proposes, the one of which it is surest. Source: SAM 2 (Ravi et al., arXiv 2408.00714).
    """
    kind_in("segmenter", folder)
    opened_once: list[Any] = []

    def segment(image: Image.Image, point: Point, box: Box | None = None) -> Image.Image:
        from transformers import Sam2Model

        if not opened_once:
            opened_once.append(opened("segmenter", Sam2Model, folder, device))
        network = opened_once[0]
        side = int(network.config.vision_config.backbone_config.image_size[0])
        pixels = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR), dtype=np.float32) / 255
        pixels = (pixels - np.array(_SAM_MEAN, np.float32)) / np.array(_SAM_STD, np.float32)
        scale = np.array([side / image.width, side / image.height])
        given: dict[str, Any] = {
            "input_points": torch.tensor(np.array(point) * scale, dtype=torch.float32)[None, None, None],
            "input_labels": torch.ones(1, 1, 1, dtype=torch.int32),
        }
        if box is not None:
            corners = np.array([box.left, box.top, box.right, box.bottom]) * np.tile(scale, 2)
            given["input_boxes"] = torch.tensor(corners, dtype=torch.float32)[None, None]
        given = {name: value.to(network.device) for name, value in given.items()}
        with torch.no_grad():
            tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(network.device)
            out = network(pixel_values=tensor, multimask_output=True, **given)
        best = int(out.iou_scores[0, 0].argmax())
        logits = out.pred_masks[0, 0, best].float().cpu().numpy()
        fine = cv2.resize(logits, image.size, interpolation=cv2.INTER_LINEAR)
        if not (fine > 0).any():
            raise FieldError("at", f"nothing is found at {point[0]:.0f},{point[1]:.0f}", "click on another part")
        return Image.fromarray(np.where(fine > 0, 255, 0).astype(np.uint8))

    return segment


def box_of(mask: Image.Image, margin: float = 0.0) -> Box:
    """The smallest box around what is not 0 in a mask, wider by a share ``margin`` of its sides, within the picture."""
    around = mask.getbbox()
    if around is None:
        raise FieldError("mask", "nothing is in it", "click on a thing")
    left, top, right, bottom = around
    dx, dy = margin * (right - left), margin * (bottom - top)
    return Box(
        left=max(left - dx, 0.0),
        top=max(top - dy, 0.0),
        right=min(right + dx, float(mask.width)),
        bottom=min(bottom + dy, float(mask.height)),
    )


def segmenter(folder: str | os.PathLike[str] | None = None, *, device: str | None = None) -> Segmenter:
    """The segmenter in a folder, or GrabCut."""
    return grab_cut_at if folder is None else sam2(folder, device=device)


def clicked(scene: Scene, texts: Sequence[str], segment: Segmenter) -> Scene:
    """A scene with the things under some clicks, each with its outline.

    A text is a point, ``45%,60%``, or a drag that begins at one. A point in the box of a motion without a mask gives
    that motion its mask; else the thing becomes a motion of its own, its box around the mask. FieldError, naming the
    text, for anything else.
    """
    motions = list(scene.motions)
    for index, text in enumerate(texts):
        with within(f"at[{index}]"):
            drag = Drag.parse(check_prompt(text, EXAMPLE))
            if len(drag.place) != 2:
                raise FieldError("", f"{drag} begins with no point", f"say x,y in pixels or %, as in {EXAMPLE}")
            drag.box(scene.image.size)
            x, y = (one.pixels(side) for one, side in zip(drag.place, scene.image.size, strict=True))
            point = min(x, scene.image.width - 1.0), min(y, scene.image.height - 1.0)
            owner = None if drag.stops else _owner(motions, point)
            mask = segment(scene.image, point, None if owner is None else motions[owner].box)
        if owner is not None:
            motions[owner] = replace(motions[owner], mask=mask)
            continue
        made = replace(drag.motion(scene.image.size), box=box_of(mask, MARGIN), mask=mask)
        motions.append(made if made.name else replace(made, name=f"thing {len(motions) + 1}"))
    return replace(scene, motions=tuple(motions))


def _owner(motions: Sequence[Motion], point: Point) -> int | None:
    """The smallest of the moving boxes without a mask around a point."""
    around = [
        (motion.box.width * motion.box.height, index)
        for index, motion in enumerate(motions)
        if motion.kind == "object" and motion.path and motion.mask is None and _holds(motion.box, point)
    ]
    return min(around)[1] if around else None


def _holds(box: Box, point: Point) -> bool:
    return box.left <= point[0] < box.right and box.top <= point[1] < box.bottom


def with_outlines(scene: Scene, segment: Segmenter | None = None) -> tuple[Scene, list[FieldError]]:
    """A scene whose moving things all have masks, and the mistakes of those in whose box nothing stands out.

    By GrabCut in the box, or by a segmenter asked about the box and its middle.
    """
    failed: list[FieldError] = []
    if segment is None:
        return with_masks(scene, failed=failed.append), failed
    motions = list(scene.motions)
    for index, motion in enumerate(motions):
        if motion.kind == "object" and motion.path and motion.mask is None:
            try:
                with within(f"motions[{index}]"):
                    motions[index] = replace(motion, mask=segment(scene.image, motion.box.center, motion.box))
            except FieldError as error:
                failed.append(error)
    return replace(scene, motions=tuple(motions)), failed

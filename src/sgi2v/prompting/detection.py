"""Things found on a picture by their names: Grounding DINO, OWLv2 and OWL-ViT, through transformers."""

import os
from collections.abc import Sequence
from typing import Any, Final

from PIL import Image

from sgi2v.checks import check_text
from sgi2v.lazy import torch
from sgi2v.prompting.things import Finder, Found
from sgi2v.prompting.vision import kind_in, opened, processor_of
from sgi2v.scene import MIN_SIDE, Box

MAX_FOUND: Final = 20
"""Things of one name."""
_SAME: Final = 0.6
"""Intersection over union from which on two boxes are of one thing."""


def detector(
    folder: str | os.PathLike[str], image: Image.Image, *, threshold: float = 0.3, device: str | None = None
) -> Finder:
    """Finds things on one picture by any words, with the open-vocabulary detector in a folder.

    The network is opened at the first question. ``threshold``: least score, 0 to 1. FieldError at once for a folder
    that holds no such detector. Sources: Grounding DINO (Liu et al., arXiv 2303.05499), OWLv2 (Minderer et al., arXiv
    2306.09683), as transformers has them.
    """
    kind = kind_in("detector", folder)
    opened_once: list[tuple[Any, Any]] = []

    def find(phrase: str) -> Sequence[Found]:
        check_text("phrase", phrase)
        if not opened_once:
            from transformers import AutoModelForZeroShotObjectDetection

            network = opened("detector", AutoModelForZeroShotObjectDetection, folder, device)
            opened_once.append((network, processor_of("detector", folder)))
        return _found(kind, *opened_once[0], image, phrase, threshold)

    return find


def _found(
    kind: str, network: Any, processor: Any, image: Image.Image, phrase: str, threshold: float
) -> tuple[Found, ...]:
    # Grounding DINO was trained on lower-case phrases that end in a stop, OWL on "a photo of".
    words = f"{phrase}." if kind == "grounding-dino" else [[f"a photo of a {phrase}"]]
    inputs = processor(images=image, text=words, return_tensors="pt").to(network.device)
    with torch.no_grad():
        outputs = network(**inputs)
    more = {"input_ids": inputs["input_ids"]} if kind == "grounding-dino" else {}
    (result,) = processor.post_process_grounded_object_detection(
        outputs, **more, threshold=threshold, target_sizes=[image.size[::-1]]
    )
    pairs = zip(result["scores"].tolist(), result["boxes"].tolist(), strict=True)
    boxes = [(score, box) for score, sides in pairs if (box := inside(sides, image.size)) is not None]
    return tuple(Found(box=box, name=phrase, score=score) for score, box in distinct(boxes)[:MAX_FOUND])


def inside(sides: Sequence[float], size: tuple[int, int]) -> Box | None:
    """A found box cut to the picture, in hundredths of pixels; None where nothing is left of it."""
    left, top, right, bottom = (round(min(max(v, 0.0), size[k % 2]), 2) for k, v in enumerate(sides))
    if right - left < MIN_SIDE or bottom - top < MIN_SIDE:
        return None
    return Box(left=left, top=top, right=right, bottom=bottom)


def distinct(boxes: Sequence[tuple[float, Box]]) -> list[tuple[float, Box]]:
    """Boxes in order of their scores, without those that lie on a better one (greedy non-maximum suppression)."""
    kept: list[tuple[float, Box]] = []
    for score, box in sorted(boxes, key=lambda pair: -pair[0]):
        if all(overlap(box, other) < _SAME for _, other in kept):
            kept.append((score, box))
    return kept


def overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    width = min(one.right, other.right) - max(one.left, other.left)
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / (one.width * one.height + other.width * other.height - shared)

"""Depth on a photo: things grow as they come nearer over the ground, and nearer ones pass in front."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float64
from PIL import Image

from sgi2v.errors import FieldError
from sgi2v.files import is_picture
from sgi2v.images import load_image
from sgi2v.lazy import torch
from sgi2v.prompting.vision import kind_in, opened, processor_of
from sgi2v.scene import Box, Key, Motion, Scene

FAR: Final = 0.1
"""Nearness of the farthest thing, the nearest's being 1: depth pictures are relative, and no size falls to nothing."""
LARGEST: Final = 5.0
"""Most that a thing grows, or shrinks, by its depth."""
STEPS: Final = 8
"""Keys that a segment of a path becomes."""
_FOOT: Final = 0.04
"""Half side of the patch of ground around a box's foot whose median counts, as a share of the box's width."""


def check_depth(source: str | os.PathLike[str]) -> None:
    """FieldError unless ``source`` is a picture's file, or a folder with a network for depth; nothing is opened."""
    if Path(source).is_dir():
        kind_in("depth", source)
    elif not is_picture(Path(source)):
        raise FieldError("depth", f"{source} is no picture and no folder", "give one in which nearer is brighter")


def depth_of(
    source: str | os.PathLike[str], image: Image.Image, *, device: str | None = None
) -> Float64[np.ndarray, "h w"]:
    """Nearness of every pixel of a photo, :data:`FAR` to 1, larger is nearer.

    Of a grey picture of any size, or by the network in a folder: Depth Anything (Yang et al., arXiv 2406.09414), whose
    answer is inverse depth up to scale and shift. FieldError for a picture without any contrast.
    """
    check_depth(source)
    if Path(source).is_dir():
        from transformers import AutoModelForDepthEstimation

        network = opened("depth", AutoModelForDepthEstimation, source, device)
        inputs = processor_of("depth", source)(images=image, return_tensors="pt").to(network.device)
        with torch.no_grad():
            near = network(**inputs).predicted_depth.float().cpu().numpy()[0]
    else:
        near = np.asarray(load_image(source, "depth").convert("L"), dtype=np.float32)
    wide = Image.fromarray(near.astype(np.float32)).resize(image.size, Image.Resampling.BILINEAR)
    values = np.asarray(wide, dtype=np.float64)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(values).all() or high - low < 1e-9:
        raise FieldError("depth", f"{source} is the same everywhere", "give a picture in which nearer is brighter")
    scaled: Float64[np.ndarray, "h w"] = FAR + (1 - FAR) * (values - low) / (high - low)
    return scaled


def with_depth(scene: Scene, near: Float64[np.ndarray, "h w"]) -> Scene:
    """A scene whose things grow and shrink as their way over the ground says, nearer ones first.

    A thing stands on the middle of its box's lower side; there, at each place of its way, the photo's nearness is asked
    (the ground must be seen there), and its size goes as that. Things of which a size is said keep it, pins and
    camera boxes are left alone. Of a scene's things the first lies on top, so the nearest comes first; others keep
    their places.
    """
    if near.shape != scene.image.size[::-1]:
        raise FieldError("depth", f"{near.shape} is not the photo's shape", f"give {scene.image.size[::-1]}")
    moving = [index for index, motion in enumerate(scene.motions) if motion.kind == "object" and len(motion.path) > 1]
    grown = {index: _grown(scene.motions[index], near) for index in moving}
    order = sorted(moving, key=lambda index: -_nearness(grown[index], near))
    motions = list(scene.motions)
    for place, index in zip(moving, order, strict=True):
        motions[place] = grown[index]
    return replace(scene, motions=tuple(motions))


def _grown(motion: Motion, near: Float64[np.ndarray, "h w"]) -> Motion:
    if any(key.scale != 1 for key in motion.path):
        return motion
    times = [motion.path[0].time]
    for before, after in zip(motion.path, motion.path[1:], strict=False):
        times += [before.time + (after.time - before.time) * (k + 1) / STEPS for k in range(STEPS - 1)] + [after.time]
    boxes = motion.boxes_at(times)
    first = motion.path[0]
    x0, y0 = motion.box.center
    start = _at_foot(boxes[0], near)
    keys = []
    for index, (time, box) in enumerate(zip(times, boxes, strict=True)):
        scale = min(max(_at_foot(box, near) / start, 1 / LARGEST), LARGEST) if index else 1.0
        # Grown about its middle a thing would sink into the ground: its foot stays where its way says.
        lift = (scale - 1) * motion.box.height / 2
        x, y = box.center[0] - x0 + first.x, box.center[1] - y0 + first.y - lift
        keys.append(Key(time=time, x=x, y=y, scale=scale))
    return replace(motion, path=tuple(keys), curve="polyline")


def _at_foot(box: Box, near: Float64[np.ndarray, "h w"]) -> float:
    """Nearness of the ground under a box: the median of a patch around the middle of its lower side, on the picture."""
    height, width = near.shape
    reach = max(1, round(_FOOT * box.width))
    x = min(max(round(box.center[0]), 0), width - 1)
    y = min(max(round(box.bottom), 0), height - 1)
    patch = near[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
    return float(np.median(patch))


def _nearness(motion: Motion, near: Float64[np.ndarray, "h w"]) -> float:
    """Mean nearness of the ground under a thing on its way."""
    return float(np.mean([_at_foot(box, near) for box in motion.boxes_at(np.linspace(0, 1, STEPS + 1).tolist())]))

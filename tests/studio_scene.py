"""A small scene as a page sends it."""

import io
from typing import Any

import numpy as np
from PIL import Image

from sgi2v.images import data_uri


def picture(width: int = 48, height: int = 32, seed: int = 0) -> Image.Image:
    """Noise: no two seeds give the same."""
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def file_of(image: Image.Image, kind: str = "PNG") -> bytes:
    """A picture file's bytes."""
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def scene(seed: int = 0) -> dict[str, Any]:
    """One box that goes right, its picture embedded."""
    keys = [{"time": 0, "x": 16, "y": 16}, {"time": 1, "x": 24, "y": 16}]
    box = {"left": 8, "top": 8, "right": 24, "bottom": 24}
    motion = {"name": "thing", "kind": "object", "box": box, "path": keys}
    return {"format": "sgi2v-scene", "version": 1, "image": data_uri(picture(seed=seed)), "motions": [motion]}


def asked(seed: int = 0) -> dict[str, Any]:
    """A job's request; the quick studio takes `seed` milliseconds for it."""
    return {"scene": scene(), "sampling": {"seed": seed}}

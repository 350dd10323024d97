"""Clips in animated pictures (GIF, WebP, PNG, AVIF) and in folders of frames, read by Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from sgi2v.clip_files import Clip, check_size
from sgi2v.clip_time import evened
from sgi2v.errors import FieldError
from sgi2v.listing import listed
from sgi2v.records import Json
from sgi2v.signatures import Kind
from sgi2v.video_tag import folder_tag, gif_tag

GIF_RATE: Final = 100.0
"""Frames a second that a gif can hold at most: it counts in hundredths of a second."""


def read(path: Path, kind: Kind, max_pixels: int) -> Clip:
    """The clip in an animated picture; FieldError, or what Pillow raises, where it is too large or damaged."""
    with Image.open(path, formats=(kind,)) as image:
        said = gif_tag(image) if kind == "GIF" else {"fps": None, "run": None}
        indices = _frames_in(image)
        check_size(path, image.width, image.height, len(indices), max_pixels)
        images: list[UInt8[np.ndarray, "h w 3"]] = []
        ends: list[Fraction] = []
        for index in indices:
            image.seek(index)
            image.load()  # of a WebP the length is known then
            length = max(Fraction(image.info.get("duration", 0)).limit_denominator(1000), Fraction(10))
            ends.append((ends[-1] if ends else 0) + length / 1000)
            images.append(_flat(image, kind))
    if said["fps"]:
        shown, fps = _joined_again(ends, min(said["fps"], GIF_RATE)), said["fps"]
        check_size(path, image.width, image.height, len(shown), max_pixels)
    else:
        shown, rate = evened(ends, max_pixels // (image.width * image.height))
        fps = float(rate)
    return Clip(pixels=[images[k] for k in shown], fps=fps, run=said["run"])


def check(path: Path, kind: Kind, max_pixels: int) -> None:
    """As of :func:`read`, but for what only the pictures between the first and the last would tell."""
    with Image.open(path, formats=(kind,)) as image:
        indices = _frames_in(image)
        check_size(path, image.width, image.height, len(indices), max_pixels)
        image.seek(indices[-1])
        image.load()


def _frames_in(image: Image.Image) -> range:
    """Numbers of the frames; a PNG may begin with a picture for programs that know no animation, which is none."""
    return range(int(bool(getattr(image, "default_image", False))), getattr(image, "n_frames", 1))


def _joined_again(ends: Sequence[Fraction], fps: float) -> list[int]:
    """Frames of our own gif as they were written: Pillow joins equal neighbours into one long frame."""
    shown: list[int] = []
    for index, end in enumerate(ends):
        shown += [index] * max(1, round(float(end * 1000) * fps / 1000) - len(shown))
    return shown


def _flat(image: Image.Image, kind: Kind) -> UInt8[np.ndarray, "h w 3"]:
    if kind != "GIF" and image.has_transparency_data:
        whole = image.convert("RGBA")
        return np.asarray(Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole).convert("RGB"))
    return np.asarray(image.convert("RGB"))


def read_folder(path: Path, max_pixels: int) -> Clip:
    """The clip in a folder of frames, frame_0000.png and on; FieldError naming a frame of another size."""
    said: Json = folder_tag(path)
    names = frames_of(path)
    images: list[UInt8[np.ndarray, "h w 3"]] = []
    for name in names:
        with Image.open(name, formats=("PNG",)) as image:
            check_size(path, image.width, image.height, len(names), max_pixels)
            images.append(np.asarray(image.convert("RGB")))
        if images[-1].shape != images[0].shape:
            raise FieldError("video", f"{name} has another size than the frames before it")
    return Clip(pixels=images, fps=said["fps"] or 7.0, run=said["run"])


def frames_of(path: Path) -> list[Path]:
    """The files of a folder's frames in natural order; FieldError where there is none."""
    if names := [name for name in listed(path, {".png"}) if is_frame(name)]:
        return names
    raise FieldError("video", f"{path} holds no frames", "they are named frame_0000.png, frame_0001.png, …")


def is_frame(file: Path) -> bool:
    """True for a name that a frame has in a folder of them."""
    return file.match("frame_*.png")


def check_folder(path: Path, max_pixels: int) -> None:
    """As of :func:`read_folder`, by every file's checksums."""
    names, sizes = frames_of(path), set()
    for name in names:
        with Image.open(name, formats=("PNG",)) as image:
            check_size(path, image.width, image.height, len(names), max_pixels)
            sizes.add(image.size)
            image.verify()
        if len(sizes) > 1:
            raise FieldError("video", f"{name} has another size than the frames before it")

"""Clips in video files, read by FFmpeg: the container is known by its content, and nothing else is opened."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Final

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from jaxtyping import UInt8
from PIL import Image

from sgi2v.clip_colour import rgb_of
from sgi2v.clip_time import evened
from sgi2v.errors import FieldError
from sgi2v.records import Json
from sgi2v.signatures import CONTAINERS, kind_of
from sgi2v.video_tag import gif_tag, parsed

RUN_KEY: Final = "sgi2v"  # the metadata key under which an mp4 carries its run
PROVENANCE_KEY: Final = "sgi2v_provenance"  # which provenance it was meant to get
SIZE_KEY: Final = "sgi2v_size"  # "width x height" before the padding that yuv420p needs
MAX_PIXELS: Final = 64_000_000
"""Of one frame: files that are read may come from anybody."""
UNREADABLE: Final = (
    OSError, av.error.FFmpegError, SyntaxError, EOFError, IndexError, ValueError, struct.error,
    Image.DecompressionBombError,
)  # fmt: skip
"""All that the readers of libraries raise on a damaged file."""
_USUAL_RATE: Final = Fraction(7)


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A clip that was read."""

    pixels: list[UInt8[np.ndarray, "h w 3"]]
    fps: float
    run: Json | None


def check_size(path: Path, width: int, height: int, num_frames: int, max_pixels: int) -> None:
    """FieldError for a clip that is too large, one frame or all of them."""
    if width * height > MAX_PIXELS or width * height * num_frames > max_pixels:
        raise FieldError(
            "video",
            f"{path} is too large: {num_frames} frames of {width}×{height}",
            f"at most {MAX_PIXELS // 1_000_000} megapixels a frame and {max_pixels // 1_000_000} in all",
        )


def read(path: Path, max_pixels: int) -> Clip:
    """The clip in a file; FieldError, or what FFmpeg raises, where there is none or it is too large."""
    with _opened(path) as container:
        stream, shape = _pictures(path, container)
        size = container.metadata.get(SIZE_KEY, "")
        run = parsed(container.metadata.get(RUN_KEY, "null"))
        rate = stream.average_rate or stream.guessed_rate or _USUAL_RATE
        images: list[UInt8[np.ndarray, "h w 3"]] = []
        stamps: list[tuple[int, int] | None] = []
        for frame in container.decode(stream):
            check_size(path, *_shown(frame, shape), len(images) + 1, max_pixels)
            images.append(rgb_of(frame, shape))
            stamps.append(None if frame.pts is None else (frame.pts, frame.duration or 0))
        base = stream.time_base or Fraction(1, 1000)
    if not images:
        raise FieldError("video", f"{path} holds no pictures")
    if any(image.shape != images[0].shape for image in images):
        raise FieldError("video", f"{path} changes its size on the way", "give a clip of one size")
    height, width = images[0].shape[:2]
    if size in {f"{w}x{h}" for w in (width, width - 1) for h in (height, height - 1)}:  # else not padded by us
        width, height = (int(side) for side in size.split("x"))
        images = [image[:height, :width] for image in images]
    elif ends := _ends([stamp for stamp in stamps if stamp is not None], base, len(images)):
        shown, found = evened(ends, max_pixels // (width * height))
        if len(shown) != len(images) or shown != list(range(len(images))) or abs(rate / found - 1) > 0.01:
            rate = found
        images = [images[k] for k in shown]
    return Clip(pixels=images, fps=min(float(rate), 1000.0), run=run)


def check(path: Path, max_pixels: int) -> None:
    """As of :func:`read`, but for what only the pictures between the first and the last would tell."""
    with _opened(path) as container:
        stream, shape = _pictures(path, container)
        first = next(container.decode(stream), None)
        if first is None:
            raise FieldError("video", f"{path} holds no pictures")
        # Other containers do not say, or count frames that are left out too.
        count = stream.frames if stream.frames and "mp4" in container.format.name else _count(path)
        check_size(path, *_shown(first, shape), max(count, 1), max_pixels)
        if stream.duration:
            container.seek((stream.start_time or 0) + stream.duration, stream=stream)
        elif container.duration:
            container.seek((container.start_time or 0) + container.duration)
        if (stream.duration or container.duration) and next(container.decode(stream), None) is None:
            raise FieldError("video", f"cannot read {path}: its end is missing")


def read_run(path: Path) -> Json | None:
    """The record in a file's metadata, if it carries one."""
    with _opened(path) as container:
        return parsed(container.metadata.get(RUN_KEY, "null"))


def read_said(path: Path) -> Json:
    """The remark on provenance in a file's metadata or a gif's comment; empty where there is none."""
    with path.open("rb") as file:
        kind = kind_of(file)
    if kind == "GIF":
        with Image.open(path, formats=("GIF",)) as image:
            said = gif_tag(image)["provenance"]
    else:
        if kind not in CONTAINERS:
            return {}
        with _opened(path) as container:
            said = parsed(container.metadata.get(PROVENANCE_KEY, "null"))
    return said if isinstance(said, dict) else {}


@contextmanager
def _opened(path: Path) -> Iterator[InputContainer]:
    with path.open("rb") as file:
        kind = kind_of(file)
        if kind not in CONTAINERS:
            raise FieldError("video", f"cannot read {path}: it is no video of a known kind, or it is damaged")
        # The demuxer is named, and it may open nothing besides: a playlist or an address in the file leads nowhere.
        with av.open(file, "r", format=kind, options={"protocol_whitelist": "none"}) as container:
            yield container


def _pictures(path: Path, container: InputContainer) -> tuple[VideoStream, float]:
    """The stream of moving pictures, not a cover's, and how wide its pixels are for their height."""
    films = [one for one in container.streams.video if not one.disposition & Disposition.attached_pic]
    if not films:
        raise FieldError("video", f"{path} holds no pictures")
    shape = films[0].sample_aspect_ratio
    return films[0], float(shape) if shape and Fraction(1, 8) <= shape <= 8 else 1.0


def _shown(frame: VideoFrame, shape: float) -> tuple[int, int]:
    return round(frame.width * max(shape, 1)), round(frame.height / min(shape, 1))


def _count(path: Path) -> int:
    """Frames of a file that does not say how many it has, by what is stored of them; nothing is decoded."""
    with _opened(path) as container:
        stream, _ = _pictures(path, container)
        return sum(1 for packet in container.demux(stream) if packet.size)


def _ends(stamps: list[tuple[int, int]], base: Fraction, count: int) -> list[Fraction]:
    """Seconds at which frames end: where the next begins, the last by its own length; none without usable times."""
    starts = [start for start, _ in stamps]
    if count < 2 or len(starts) < count or any(b <= a for a, b in pairwise(starts)):
        return []
    gaps = sorted(b - a for a, b in pairwise(starts))
    last = starts[-1] + (stamps[-1][1] or gaps[len(gaps) // 2])
    return [(end - starts[0]) * base for end in (*starts[1:], last)]

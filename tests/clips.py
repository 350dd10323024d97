"""Clips of known colours at known times in every kind of file, written with PyAV and Pillow alone."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame
from PIL import Image

COLOURS = (
    (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255), (128, 64, 32), (220, 180, 150),
)  # fmt: skip
LUMA = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 5: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}
"""Weights of red and blue by the matrix's number in ITU-T H.273."""


def columns(height: int, width: int = 160) -> np.ndarray:
    """RGB columns of the colours."""
    return np.repeat(np.array([COLOURS], np.uint8), width // len(COLOURS), axis=1).repeat(height, axis=0)


def yuv(rgb: np.ndarray, matrix: int, full: bool) -> np.ndarray:
    """The planes of yuv420p of a picture, literally by ITU-R BT.601, 709 and 2020, [height * 3 / 2, width]."""
    red, blue = LUMA[matrix]
    r, g, b = (rgb[..., k] / 255 for k in range(3))
    y = red * r + (1 - red - blue) * g + blue * b
    cb, cr = (b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))
    scales = (255.0, 255.0, 0.0) if full else (219.0, 224.0, 16.0)
    planes = [y * scales[0] + scales[2], cb * scales[1] + 128, cr * scales[1] + 128]
    small = [plane.reshape(plane.shape[0] // 2, 2, plane.shape[1] // 2, 2).mean((1, 3)) for plane in planes[1:]]
    height, width = rgb.shape[:2]
    flat = np.concatenate([part.ravel() for part in (planes[0], *small)])
    return flat.round().clip(0, 255).astype(np.uint8).reshape(height * 3 // 2, width)


def write_clip(
    path: Path,
    frames: Sequence[np.ndarray],
    *,
    matrix: int = 6,
    full: bool = False,
    tags: tuple[int, int, int, int] | None = None,
    stamps: Sequence[int] | None = None,
    turned: Sequence[int] | None = None,
    angle: float | None = None,
    codec: str = "libx264",
    shape: Fraction | None = None,
) -> Path:
    """A clip of RGB frames. tags: matrix, range, transfer, primaries; stamps: of each frame, in 1/1000 s."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=10, options={"crf": "4"} if codec == "libx264" else {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        context = stream.codec_context
        context.time_base = Fraction(1, 1000)
        if codec not in ("libx264", "mjpeg"):
            context.bit_rate = 4_000_000
        if tags:
            context.colorspace, context.color_range, context.color_trc, context.color_primaries = tags
        if turned:
            stream.set_display_matrix(turned)
        if angle:
            stream.set_display_rotation(angle)
        if shape:
            context.sample_aspect_ratio = shape
        for index, rgb in enumerate(frames):
            frame = VideoFrame.from_ndarray(yuv(rgb, matrix, full), format=stream.pix_fmt)
            frame.pts, frame.time_base = (stamps[index] if stamps else 100 * index), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def reds(count: int, *, step: int = 20, size: int = 32) -> list[np.ndarray]:
    """Frames whose red tells their number, from 1 on."""
    return [np.full((size, size, 3), (step * (k + 1), 0, 0), np.uint8) for k in range(count)]


def write_animated(path: Path, frames: Sequence[np.ndarray], lengths: Sequence[int]) -> Path:
    """An animated gif, WebP, PNG or AVIF by the name's ending; lengths in milliseconds."""
    pictures = [Image.fromarray(frame) for frame in frames]
    lossless = {"lossless": True} if path.suffix == ".webp" else {"quality": 100} if path.suffix == ".avif" else {}
    kind = "PNG" if path.suffix == ".apng" else None
    pictures[0].save(path, kind, save_all=True, append_images=pictures[1:], duration=list(lengths), loop=0, **lossless)
    return path

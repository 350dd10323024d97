"""A decoded frame as upright RGB: matrix, range and transfer as the clip says, or as is usual where it does not."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from jaxtyping import Float64, UInt8
from PIL import Image

from sgi2v.errors import FieldError

EXACT: Final = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT  # 51 dB, else 35
HD_LINES: Final = 720
"""Lines from which on an untagged clip is taken to be of BT.709, as encoders and players do; below of BT.601."""
# Numbers of ITU-T H.273.
_UNSAID: Final = 2
_RGB: Final = 0
_MATRICES: Final[Mapping[int, Colorspace]] = MappingProxyType(
    {
        1: Colorspace.ITU709, 4: Colorspace.FCC, 5: Colorspace.ITU601, 6: Colorspace.ITU601,
        7: Colorspace.SMPTE240M, 9: Colorspace.BT2020, 10: Colorspace.BT2020,
    }
)  # fmt: skip
_OF_PRIMARIES: Final[Mapping[int, int]] = MappingProxyType({1: 1, 4: 4, 5: 5, 6: 6, 7: 7, 9: 9})
"""Matrix that goes with primaries, where a clip says these alone."""
_LINEAR, _PQ, _HLG = 8, 16, 18
_BT2020, _P3_D65 = 9, 12
_WHITE: Final = 203.0  # candelas a square metre of a white page in HDR (ITU-R BT.2408)
_KNEE: Final = 0.8  # share of white from which on what is brighter is pressed together
_TO_709: Final[Mapping[int, tuple[tuple[float, float, float], ...]]] = MappingProxyType(
    {
        _BT2020: ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187)),  # BT.2087
        _P3_D65: ((1.2249, -0.2247, 0.0), (-0.0420, 1.0419, 0.0), (-0.0197, -0.0786, 1.0979)),
    }
)


def rgb_of(frame: VideoFrame, shape: float = 1.0) -> UInt8[np.ndarray, "h w 3"]:
    """The frame as 8-bit RGB, rotated and mirrored as it says, transparency laid over white.

    shape: width of a pixel over its height; the shorter side is drawn out until pixels are square. HDR (PQ, HLG) and
    linear light become what a screen without HDR shows; other transfers and primaries stay as they are, as colour
    profiles of pictures do. FieldError for a colour matrix that is not read.
    """
    space, reach = _meaning(frame)
    transfer = int(frame.color_trc)
    clear = any(component.is_alpha for component in frame.format.components) or frame.format.name == "pal8"
    layout = "rgb48le" if transfer in (_LINEAR, _PQ, _HLG) else "rgba" if clear else "rgb24"
    pixels: np.ndarray = frame.to_ndarray(
        format=layout,
        src_colorspace=space,
        interpolation=EXACT,
        src_color_range=reach,
        dst_color_range=ColorRange.JPEG,
    )
    if layout == "rgb48le":
        pixels = np.round(to_sdr(pixels / 65535, transfer, int(frame.color_primaries)) * 255).astype(np.uint8)
    if layout == "rgba":
        over = Image.new("RGBA", (frame.width, frame.height), "white")
        pixels = np.asarray(Image.alpha_composite(over, Image.fromarray(pixels)).convert("RGB"))
    if shape != 1:
        sides = (round(frame.width * max(shape, 1)), round(frame.height / min(shape, 1)))
        pixels = np.asarray(Image.fromarray(pixels).resize(sides, Image.Resampling.BICUBIC))
    return _upright(frame, pixels)


def _meaning(frame: VideoFrame) -> tuple[Colorspace, ColorRange]:
    """Matrix and range that the frame's numbers are meant in."""
    if frame.format.is_rgb or frame.format.name == "pal8":
        return Colorspace.ITU709, ColorRange.JPEG  # the numbers are RGB: nothing is converted by these
    matrix = int(frame.colorspace)
    if matrix in (_UNSAID, _RGB):
        untagged = 1 if frame.height >= HD_LINES else 6
        matrix = _OF_PRIMARIES.get(int(frame.color_primaries), untagged)
    if matrix not in _MATRICES:
        raise FieldError(
            "video",
            f"its colours are given by matrix {matrix} of ITU-T H.273, which is not read here",
            "convert the clip to BT.709 (ffmpeg -i CLIP -vf scale=out_color_matrix=bt709 NEW.mp4)",
        )
    full = int(frame.color_range) == ColorRange.JPEG or frame.format.name.startswith("yuvj")
    return _MATRICES[matrix], ColorRange.JPEG if full else ColorRange.MPEG


def to_sdr(code: Float64[np.ndarray, "*n 3"], transfer: int, primaries: int) -> Float64[np.ndarray, "*n 3"]:
    """Signals 0..1 of PQ, HLG or linear light as sRGB 0..1, white at 203 cd/m², brighter ones pressed below 1.

    Transfers as in ITU-R BT.2100 (tables 4 and 5; HLG on a screen of 1000 cd/m²), sRGB as in IEC 61966-2-1.
    """
    light = code
    if transfer == _PQ:
        power = code ** (32 / 2523)
        light = (
            10_000 / _WHITE * (np.maximum(power - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * power)) ** (8192 / 1305)
        )
    if transfer == _HLG:
        a = 0.17883277
        c = 0.5 - a * np.log(4 * a)
        scene = np.where(code <= 0.5, code**2 / 3, (np.exp((np.maximum(code, 0.5) - c) / a) + 1 - 4 * a) / 12)
        luma = scene @ np.array([0.2627, 0.6780, 0.0593])
        light = 1000 / _WHITE * luma[..., None] ** 0.2 * scene
    if primaries in _TO_709:
        light = light @ np.array(_TO_709[primaries]).T
    light = np.maximum(light, 0)
    peak = light.max(axis=-1, keepdims=True)
    pressed = _KNEE + (1 - _KNEE) * (1 - np.exp(-np.maximum(peak - _KNEE, 0) / (1 - _KNEE)))
    light = light * np.where(peak > _KNEE, pressed / np.maximum(peak, _KNEE), 1)
    made: Float64[np.ndarray, "*n 3"] = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return made.clip(0, 1)


def _upright(frame: VideoFrame, pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "shown_h shown_w 3"]:
    """The picture turned by the nearest quarter and mirrored, as the frame's display matrix says."""
    parts: list[Any] = list(frame.side_data)  # annotated as a mapping of names, which it is not
    said = [bytes(part) for part in parts if part.type is SideData.DISPLAYMATRIX]
    if not said or len(said[0]) < 20:
        return pixels
    a, b, _, c, d = (int(v) for v in np.frombuffer(said[0][:20], np.int32))
    # Steps to the right go along (a, b) of the shown picture, steps down along (c, d).
    right, down = (a, d) if abs(a) + abs(d) >= abs(b) + abs(c) else (c, b)
    turned = pixels if (right, down) == (a, d) else pixels.transpose(1, 0, 2)
    return np.ascontiguousarray(turned[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1])

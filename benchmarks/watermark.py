"""The mark in the pixels: found after which edits, in how many unmarked pictures, and beside others' marks."""

import io
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

import av
import cv2
import numpy as np
import skimage
import torch
import tyro
from jaxtyping import UInt8
from PIL import Image

from sgi2v.provenance import watermark
from sgi2v.video import _palette, to_uint8
from sgi2v.world import LifelikeWorld

Pixels = UInt8[np.ndarray, "f h w 3"]
SIZES: Final = ((320, 192), (832, 480), (1024, 576))
COLOUR: Final = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "rocket.jpg",
    "hubble_deep_field.jpg",
    "motorcycle_left.png",
)
GREY: Final = ("camera.png", "coins.png", "moon.png", "page.png", "text.png", "brick.png", "grass.png", "gravel.png")
OTHERS: Final = ("ihc.png", "retina.jpg")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure one thing and print it as lines of JSON."""

    what: Literal["hits", "unmarked", "others"] = "hits"
    """hits: found after edits; unmarked: scores of unmarked frames; others: bits that invisible-watermark reads."""
    num_frames: int = 14
    """Frames of a clip."""
    num_unmarked: int = 2000
    """Unmarked frames, one picture each."""
    seed: int = 0
    """Seed of all that is drawn."""


def photograph(name: str) -> UInt8[np.ndarray, "h w 3"]:
    """A picture of scikit-image's package."""
    with Image.open(Path(skimage.__file__).parent / "data" / name) as image:
        return np.asarray(image.convert("RGB"))


def panned(photo: UInt8[np.ndarray, "h w 3"], width: int, height: int, num: int, seed: int) -> Pixels:
    """A clip of a camera that moves over a photograph and towards it, by parts of pixels."""
    rng = np.random.default_rng(seed)
    rows, columns = photo.shape[:2]
    scale = min(columns / width, rows / height) * 0.8
    way = rng.uniform(-0.06, 0.06, 2) * (columns, rows)
    source = photo if scale <= 1 else cv2.GaussianBlur(photo, (0, 0), scale / 2.2)
    frames = []
    for at in np.linspace(-0.5, 0.5, num):
        zoom = scale * (1 + 0.1 * at)
        left, top = np.array([columns, rows]) / 2 + way * at - zoom * np.array([width, height]) / 2
        how = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        matrix = np.array([[zoom, 0, left], [0, zoom, top]])
        frames.append(cv2.warpAffine(source, matrix, (width, height), flags=how, borderMode=cv2.BORDER_REFLECT))
    return np.stack(frames).astype(np.uint8)


def rendered(width: int, height: int, num: int, seed: int) -> Pixels:
    """A clip of the rendered world with moving things, drawn at 320×192 and enlarged."""
    clips = LifelikeWorld(width=320, height=192, num_frames=num).render(1, seed)
    small = to_uint8(clips.frames[0].clamp(0, 1))
    return np.stack([cv2.resize(one, (width, height), interpolation=cv2.INTER_CUBIC) for one in small])


def clips(width: int, height: int, options: Options) -> Iterator[tuple[str, Pixels]]:
    """The clips that are marked: six photographs and two rendered scenes."""
    for index, name in enumerate(COLOUR):
        yield name, panned(photograph(name), width, height, options.num_frames, options.seed + index)
    for seed in (1, 2):
        yield f"rendered {seed}", rendered(width, height, options.num_frames, options.seed + seed)


def h264(pixels: Pixels, crf: int) -> Pixels:
    """The clip through x264 and back."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=7, options={"crf": str(crf), "preset": "medium", "threads": "1"})
        stream.height, stream.width, stream.pix_fmt = pixels.shape[1], pixels.shape[2], "yuv420p"
        for image in pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file, "r") as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def scaled(pixels: Pixels, factor: float) -> Pixels:
    """Every frame at another size, even in both directions."""
    height, width = (round(side * factor / 2) * 2 for side in pixels.shape[1:3])
    return np.stack([cv2.resize(one, (width, height), interpolation=cv2.INTER_AREA) for one in pixels])


def cropped(pixels: Pixels, share: float) -> Pixels:
    """The frames without this share of their height at the top and of their width at the left."""
    top, left = (int(side * share) // 2 * 2 for side in pixels.shape[1:3])
    return np.ascontiguousarray(pixels[:, top:, left:])


def gif(pixels: Pixels) -> Pixels:
    """The clip in 256 colours."""
    palette = _palette(pixels)
    return np.stack([np.asarray(Image.fromarray(one).quantize(palette=palette).convert("RGB")) for one in pixels])


EDITS: Final[Mapping[str, Callable[[Pixels], Pixels]]] = MappingProxyType(
    {
        "as written (CRF 16)": lambda pixels: h264(pixels, 16),
        "CRF 23": lambda pixels: h264(h264(pixels, 16), 23),
        "CRF 28": lambda pixels: h264(h264(pixels, 16), 28),
        "75 %, CRF 23": lambda pixels: h264(scaled(h264(pixels, 16), 0.75), 23),
        "5 % off top and left, CRF 23": lambda pixels: h264(cropped(h264(pixels, 16), 0.05), 23),
        "gif": gif,
    }
)


def psnr(a: Pixels, b: Pixels) -> float:
    """Decibels between two clips, the least of their frames."""
    errors = ((a.astype(np.float32) - b) ** 2).mean(axis=(1, 2, 3))
    return float(10 * np.log10(255**2 / errors.max()))


def flicker(before: Pixels, after: Pixels) -> float:
    """Standard deviation over time of that which was added, in levels of 255, the mean over all places."""
    return float((after.astype(np.float32) - before).std(axis=0).mean())


def change(pixels: Pixels) -> float:
    """Mean change from a frame to the next, in levels."""
    return float(np.abs(np.diff(pixels.astype(np.float32), axis=0)).mean())


def hits(options: Options) -> Iterator[dict[str, Any]]:
    """Clips and single frames in which the mark is found, of how many; scores least and in the middle."""
    for width, height in SIZES:
        found: dict[str, list[tuple[float, float, list[float]]]] = {edit: [] for edit in EDITS}
        looks, seconds = [], []
        for _, before in clips(width, height, options):
            begun = time.perf_counter()
            after = watermark.marked(before)
            seconds.append((time.perf_counter() - begun) / len(before))
            written = [change(h264(one, 16)) for one in (before, after)]
            looks.append((psnr(before, after), flicker(before, after), written[1] / written[0]))
            for edit, through in EDITS.items():
                edited = list(through(after))
                whole = watermark.find(edited)
                single = [watermark.find([frame]).score for frame in edited[:: max(1, len(edited) // 4)][:4]]
                found[edit].append((whole.score, whole.share, single))
        yield {
            "size": f"{width}x{height}",
            "psnr_least": round(min(look[0] for look in looks), 2),
            "flicker_levels_most": round(max(look[1] for look in looks), 3),
            "change_ratio_most": round(max(look[2] for look in looks), 3),
            "ms_a_frame": round(statistics.median(seconds) * 1000, 1),
        }
        for edit, rows in found.items():
            single = [score for row in rows for score in row[2]]
            yield {
                "size": f"{width}x{height}",
                "edit": edit,
                "clips": f"{sum(row[0] > watermark.THRESHOLD for row in rows)}/{len(rows)}",
                "frames": f"{sum(score > watermark.THRESHOLD for score in single)}/{len(single)}",
                "clip_score_least": round(min(row[0] for row in rows), 1),
                "clip_score_median": round(statistics.median(row[0] for row in rows), 1),
            }


def unmarked(options: Options) -> Iterator[dict[str, Any]]:
    """Scores of unmarked pictures: pieces of photographs of any place and size, turned over or not, and scenes."""
    rng = np.random.default_rng(options.seed)
    photos = [photograph(name) for name in (*COLOUR, *GREY, *OTHERS)]
    scores = []
    for index in range(options.num_unmarked):
        if index % 10 == 0:
            image = rendered(320, 192, 2, options.seed + 100 + index)[0]
        else:
            photo = photos[int(rng.integers(len(photos)))]
            rows, columns = photo.shape[:2]
            width = int(rng.uniform(0.3, 1) * min(columns, rows / 0.6))
            left, top = (int(rng.integers(most + 1)) for most in (columns - width, rows - int(width * 0.6)))
            piece = photo[top : top + int(width * 0.6), left : left + width]
            image = cv2.resize(piece, (320, 192), interpolation=cv2.INTER_AREA if width > 320 else cv2.INTER_CUBIC)
            image = image[:, :: 1 if rng.integers(2) else -1]
        scores.append(watermark.find([np.ascontiguousarray(image)]).score)
        if len(scores) % 250 == 0:
            yield {"unmarked": len(scores), **tail(np.array(scores))}


def tail(scores: np.ndarray) -> dict[str, float]:
    """The distribution of scores and, as a Gumbel law fitted by moments has it, how rare the threshold is."""
    scale = scores.std() * math.sqrt(6) / math.pi
    middle = scores.mean() - 0.5772 * scale
    beyond = -math.expm1(-math.exp(-(watermark.THRESHOLD - middle) / scale))
    return {
        "threshold": round(watermark.THRESHOLD, 3),
        "above": int((scores > watermark.THRESHOLD).sum()),
        "median": round(float(np.median(scores)), 3),
        "q99": round(float(np.quantile(scores, 0.99)), 3),
        "most": round(float(scores.max()), 3),
        "gumbel_beyond": beyond,
    }


def others(options: Options) -> Iterator[dict[str, Any]]:
    """Bits of 32 that invisible-watermark's methods read back, means over frames; needs that package."""
    from imwatermark import WatermarkDecoder, WatermarkEncoder

    word = [int(bit) for bit in np.random.default_rng(5).integers(0, 2, 32)]
    for method in ("dwtDctSvd", "rivaGan"):
        if method == "rivaGan":
            WatermarkEncoder.loadModel()
            WatermarkDecoder.loadModel()
        for width, height in ((384, 224), (832, 480)):  # it refuses 320x192
            for name in COLOUR[:3]:
                before = panned(photograph(name), width, height, min(options.num_frames, 5), options.seed)
                encoder = WatermarkEncoder()
                encoder.set_watermark("bits", word)
                begun = time.perf_counter()
                after = np.stack(
                    [encoder.encode(np.ascontiguousarray(one[..., ::-1]), method)[..., ::-1] for one in before]
                )
                row: dict[str, Any] = {"method": method, "size": f"{width}x{height}", "clip": name}
                row["seconds_a_frame"] = round((time.perf_counter() - begun) / len(before), 2)
                row["psnr_least"] = round(psnr(before, after), 1)
                for edit, through in EDITS.items():
                    row[edit] = _bits(through(np.ascontiguousarray(after)), method, word)
                yield row


def _bits(pixels: Pixels, method: str, word: list[int]) -> float | None:
    from imwatermark import WatermarkDecoder

    decoder = WatermarkDecoder("bits", len(word))
    try:
        read = [decoder.decode(np.ascontiguousarray(one[..., ::-1]), method) for one in pixels[::2]]
    except RuntimeError:
        return None  # smaller than it takes
    return round(float(np.mean([np.mean(np.asarray(one) == word) for one in read])), 2)


def main(options: Options) -> None:
    """Print one line of JSON for every part that is done."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    for row in {"hits": hits, "unmarked": unmarked, "others": others}[options.what](options):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options))

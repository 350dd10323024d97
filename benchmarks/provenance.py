"""The price of provenance: processor seconds and bytes more for a clip's file, and seconds to verify it."""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import cv2
import torch
import tyro

from benchmarks.watermark import COLOUR, SIZES, panned, photograph
from sgi2v.provenance.verify import verify
from sgi2v.video import Video, from_uint8
from sgi2v.video_tag import Provenance


@dataclass(frozen=True, kw_only=True)
class Options:
    """Write clips of a camera over a photograph with provenance and without, and verify them."""

    num_frames: int = 14
    """Frames of a clip."""
    repeats: int = 5
    """Goes, of which the median counts."""


def rows(options: Options, folder: Path) -> Iterator[dict[str, Any]]:
    """One row for every size and kind of file."""
    for width, height in SIZES:
        pixels = panned(photograph(COLOUR[1]), width, height, options.num_frames, 0)
        video = Video(frames=from_uint8(pixels))
        for name in ("clip.mp4", "clip.gif", "frames"):
            seconds: dict[str, list[float]] = {said: [] for said in get_args(Provenance)}
            size = {}
            for _ in range(options.repeats):
                for said in get_args(Provenance):
                    begun = time.process_time()
                    path = video.save(folder / name, provenance=said)
                    seconds[said].append(time.process_time() - begun)
                    size[said] = sum(file.stat().st_size for file in ([path] if path.suffix else path.iterdir()))
            video.save(folder / name)
            begun = time.process_time()
            verify(folder / name)
            row: dict[str, Any] = {"size": f"{width}x{height}", "file": name}
            for said in get_args(Provenance):
                row[f"seconds_{said}"] = round(statistics.median(seconds[said]), 3)
                row[f"kB_{said}"] = round(size[said] / 1000, 1)
            yield {**row, "seconds_verify": round(time.process_time() - begun, 2)}


def main(options: Options) -> None:
    """Print a line of JSON for each, in seconds of the processor; the authority lives as long as the run."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CONFIG_HOME"] = folder
        for row in rows(options, Path(folder)):
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options))

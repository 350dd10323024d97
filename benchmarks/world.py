"""Speed at which the rendered worlds are drawn, and a sheet of frames to look at."""

import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from PIL import Image
from torch import Tensor
from torch.nn import functional

from sgi2v.training.feed import CELL
from sgi2v.video import to_uint8
from sgi2v.world import Clips, Kind, LifelikeWorld, World


@dataclass(frozen=True, kw_only=True)
class Options:
    """Render clips with their layers over latent cells and the correspondences of these, as training does."""

    kind: Kind = "lifelike"
    """Kind of rendered world."""
    width: int = 320
    """Pixels."""
    height: int = 192
    """Pixels."""
    num_frames: int = 14
    """Frames of a clip."""
    num_things: int = 3
    """Things in a scene."""
    num: int = 8
    """Clips in one go."""
    repeats: int = 5
    """Goes that count, after one that does not."""
    seed: int = 0
    """Seed of the first go; each has another."""
    device: str = "cpu"
    """Device to draw on."""
    sheet: Path | None = None
    """A PNG to write instead: four frames of each clip side by side."""
    sheet_width: int = 240
    """Width of a frame on it in pixels."""


def main(options: Options) -> None:
    """Print one line of JSON, or write the sheet."""
    shape: dict[str, Any] = {"width": options.width, "height": options.height, "num_frames": options.num_frames}
    world: World | LifelikeWorld = (
        LifelikeWorld(num_things=options.num_things, **shape)
        if options.kind == "lifelike"
        else World(num_things=options.num_things, kind=options.kind, **shape)
    )
    if options.sheet is not None:
        clips = world.render(options.num, options.seed, device=options.device)
        # In few colours, so that it is small enough to be kept.
        sheet(clips, options.sheet_width).quantize(96).save(options.sheet, optimize=True)
        return
    walls, works = [], []
    for number in range(options.repeats + 1):
        wall, work = time.perf_counter(), time.process_time()
        clips = world.render(options.num, options.seed + number, device=options.device)
        found = clips.layers.pooled(CELL).correspondence()
        float(found.visible.sum() + clips.frames[0, 0, 0, 0, 0])  # waits for the device
        walls.append(time.perf_counter() - wall)
        works.append(time.process_time() - work)
    wall, work = (statistics.median(seconds[1:]) / options.num for seconds in (walls, works))
    print(
        json.dumps(
            {
                **{name: str(value) for name, value in vars(options).items() if "sheet" not in name},
                "threads": torch.get_num_threads(),
                "clips_per_second": round(1 / wall, 2),
                "seconds_per_clip": round(wall, 3),
                "processor_seconds_per_clip": round(work, 3),
            }
        )
    )


def sheet(clips: Clips, width: int) -> Image.Image:
    """Four frames of each clip in a row, RGB."""
    num_frames = clips.frames.shape[1]
    chosen = clips.frames[:, [0, num_frames // 3, 2 * num_frames // 3, num_frames - 1]].cpu()
    height = round(width * chosen.shape[3] / chosen.shape[4])
    small: Tensor = functional.interpolate(chosen.flatten(0, 1), (height, width), mode="area")
    rows = small.unflatten(0, chosen.shape[:2]).permute(0, 2, 3, 1, 4).flatten(3, 4).transpose(0, 1).flatten(1, 2)
    return Image.fromarray(to_uint8(rows[None])[0])


if __name__ == "__main__":
    main(tyro.cli(Options))

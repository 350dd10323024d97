"""Growth of the cost of guidance: with frames, iterations and guided steps, and not with the number of boxes."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import tyro

from benchmarks.architecture import Scale, published_svd
from benchmarks.counting import count
from benchmarks.phases import Generation, tracks_over
from benchmarks.timing import median_seconds
from sgi2v import SGI2V
from sgi2v.backbones.svd.model import SVD

Growth = Literal["frames", "iterations", "guided steps", "boxes"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Operations are counted at full scale without a device; times are taken at small scale on the CPU."""

    what: Literal["count", "time"] = "count"
    """count: TFLOP at 576x1024. time: seconds at 128x256 with fewer channels."""
    frames: tuple[int, ...] = (6, 10, 14, 25)
    """Clip lengths."""
    iterations: tuple[int, ...] = (1, 2, 4)
    """Iterations of a guided step."""
    guided_steps: tuple[int, ...] = (1, 2, 4)
    """Guided steps of a run."""
    boxes: tuple[int, ...] = (1, 8, 64)
    """Boxes of 0.3 x 0.3 of the picture."""
    repeats: int = 5
    """Repetitions of a time, after one that does not count; medians are told."""


def generation_of(
    backbone: SVD, scale: Scale, *, num_frames: int = 6, num_boxes: int = 2, iterations: int = 1
) -> Generation:
    width, height = (1024, 576) if scale == "full" else (256, 128)
    grid = backbone.grid(width, height, num_frames)
    generation = Generation(
        backbone=backbone,
        controller=SGI2V(iterations=iterations),
        grid=grid,
        tracks=tracks_over(grid, 0.3, num_boxes),
        num_steps=50,
    )
    generation.prepare()
    return generation


def fit(numbers: Sequence[int], costs: Sequence[float]) -> tuple[float, float, float]:
    """Slope and intercept of the straight line through the costs, and its worst miss as a share of a cost."""
    slope, intercept = np.polyfit(numbers, costs, 1)
    line = slope * np.array(numbers) + intercept
    return float(slope), float(intercept), float(np.max(np.abs(line / np.array(costs) - 1)))


def main(options: Options) -> None:
    counted = options.what == "count"
    scale: Scale = "full" if counted else "small"
    backbone = published_svd(
        torch.float16 if counted else torch.float32, scale=scale, device=torch.device("meta" if counted else "cpu")
    )
    unit = "TFLOP" if counted else "seconds"

    def cost(fn: Callable[[], object]) -> float:
        return count(fn).flop / 1e12 if counted else median_seconds(fn, repeats=options.repeats)

    def sampling(num_boxes: int) -> float:
        generation = generation_of(backbone, scale, num_boxes=num_boxes)
        return count(lambda: generation.guided(silent)).kinds["sampling"] / 1e12

    def silent(_phase: str) -> None:
        return None

    def one(part: Callable[[Generation], Callable[..., None]], **size: int) -> float:
        call = part(generation_of(backbone, scale, **size))
        return cost(lambda: call(silent))

    def several(num: int) -> float:
        generation = generation_of(backbone, scale)

        def steps() -> None:
            for _ in range(num):
                generation.guided(silent)

        return cost(steps)

    studies: dict[str, tuple[Sequence[int], Callable[[int], float]]] = {
        "frames, a guided step": (options.frames, lambda n: one(lambda g: g.guided, num_frames=n)),
        "frames, a plain step": (options.frames, lambda n: one(lambda g: g.plain, num_frames=n)),
        "iterations of a guided step": (options.iterations, lambda n: one(lambda g: g.guided, iterations=n)),
        "guided steps": (options.guided_steps, several),
        "boxes": (options.boxes, lambda n: one(lambda g: g.guided, num_boxes=n)),
    }
    if counted:
        studies["boxes, the loss's sampling alone"] = options.boxes, sampling
    table = [
        f"| growing | numbers | {unit} | slope | intercept | worst miss of the line |",
        "|---|---|---|---|---|---|",
    ]
    for name, (numbers, measure) in studies.items():
        costs = [measure(n) for n in numbers]
        slope, intercept, miss = fit(numbers, costs)
        print(json.dumps({"growing": name, "numbers": numbers, unit: costs, "miss": miss}), flush=True)
        listed = ", ".join(f"{c:.4g}" for c in costs)
        table.append(
            f"| {name} | {', '.join(map(str, numbers))} | {listed} | {slope:.3g} | {intercept:.3g} | {miss:.2%} |"
        )
    print("\n" + "\n".join(table))


if __name__ == "__main__":
    main(tyro.cli(Options))

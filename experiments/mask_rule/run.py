"""Compares rules by which latent cells count as inside a moving mask or box, by their overlap with what moved."""

import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from jaxtyping import Bool, Float
from torch import Tensor

from experiments.study.table import text_of, write_between_marks
from sgi2v.controllers.time_to_move import held_cells
from sgi2v.cut_and_drag import box_cover
from sgi2v.evaluation.held_out import HeldOutWorld
from sgi2v.evaluation.metrics import bootstrap_mean
from sgi2v.grid import Grid, tracks_of
from sgi2v.world import Kind

HERE = Path(__file__).parent
CELL = 8  # pixels, of every model's latents but LTX's
Cells = Bool[np.ndarray, "n y x"]
Masks = Float[np.ndarray, "f h w"]
FRAMES: Mapping[str, Callable[[range], int]] = {
    "first": lambda group: group[0],
    "middle": lambda group: group[len(group) // 2],
    "last": lambda group: group[-1],
}
"""Single frames that a group may be taken by."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure the rules, and write the table into README.md where there is one for these options."""

    kind: Kind = "simple"
    """Kind of rendered world."""
    limit: int = 32
    """Number of scenes."""
    scene_set: int = 1
    """Set of held-out rendered scenes; 0 is the test split."""
    width: int = 320
    """Pixels."""
    height: int = 192
    """Pixels."""
    num_frames: int = 49
    """Frames of a clip, one more than a multiple of every stride."""
    strides: tuple[int, ...] = (1, 4, 8)
    """Video frames per latent frame: SVD's; Wan's and CogVideoX's; LTX's."""
    threads: int = 1
    """CPU threads."""


def grids(options: Options) -> Mapping[int, Grid]:
    """A grid for each stride in time."""
    size = {"width": options.width, "height": options.height, "num_frames": options.num_frames, "stride": CELL}
    return {stride: Grid(**size, frame_stride=stride) for stride in options.strides}


def overlap(cells: Cells, masks: Masks, grid: Grid) -> float:
    """Intersection over union of cells with the masks of all the video frames that they stand for, in pixels.

    A soft mask counts by its share: the smaller of two values is their intersection, the larger their union.
    """
    both = either = 0.0
    for k, held in enumerate(cells):
        whole = np.kron(held, np.ones((grid.stride, grid.stride)))
        for frame in grid.group(k):
            both += float(np.minimum(whole, masks[frame]).sum())
            either += float(np.maximum(whole, masks[frame]).sum())
    return both / either


def mask_rules(masks: Masks, grid: Grid) -> dict[str, Cells]:
    """Cells inside a mask by every rule."""
    found = {"coverage, mean of all frames (`coverage`)": held_cells(masks, grid, "coverage")}
    chosen = {name: [pick(grid.group(k)) for k in range(grid.latent_frames)] for name, pick in FRAMES.items()}
    alone = Grid(width=grid.width, height=grid.height, num_frames=grid.latent_frames, stride=grid.stride)
    for name, frames in chosen.items():
        found[f"coverage, {name} frame"] = held_cells(masks[frames], alone, "coverage")
    for name, frames in chosen.items():
        published = " (`published`)" if name == "first" else ""
        found[f"one pixel, {name} frame{published}"] = held_cells(masks[frames], alone, "published")
    return found


def box_rules(boxes: Float[np.ndarray, "f 4"], grid: Grid) -> dict[str, Cells]:
    """Cells inside a box by every rule: of the mean box (as everywhere in the project), or of one frame's."""
    groups = [grid.group(k) for k in range(grid.latent_frames)]
    chosen = {"box, mean of all frames": np.stack([boxes[list(group)].mean(axis=0) for group in groups])}
    chosen |= {f"box, {name} frame": boxes[[pick(group) for group in groups]] for name, pick in FRAMES.items()}
    found = {}
    for name, some in chosen.items():
        cells = np.zeros((grid.latent_frames, grid.rows, grid.columns), dtype=bool)
        for held, (top, left, bottom, right) in zip(cells, grid.cells(some.astype(np.float32)), strict=True):
            held[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = True
        found[name] = cells
    return found


def measured(options: Options) -> tuple[Mapping[str, Mapping[int, Tensor]], float]:
    """Rule -> stride -> overlap of each scene; and how far a thing moves from frame to frame, in pixels on average."""
    cases = HeldOutWorld(
        scene_set=options.scene_set, limit=options.limit, kind=options.kind, width=options.width,
        height=options.height, num_frames=options.num_frames,
    )  # fmt: skip
    found: dict[str, dict[int, list[float]]] = {}
    speeds = []
    for index in range(len(cases)):
        case = cases[index]
        assert case.masks is not None
        masks = case.masks[0].numpy()
        for stride, grid in grids(options).items():
            track = tracks_of(case.scene, grid).tracks[0]
            covers = np.stack([box_cover(box, options.width, options.height) for box in track.boxes])
            for rules, truth in ((mask_rules(masks, grid), masks), (box_rules(track.boxes, grid), covers)):
                for rule, cells in rules.items():
                    found.setdefault(rule, {}).setdefault(stride, []).append(overlap(cells, truth, grid))
        speeds.append(float(np.hypot(*np.diff(track.centers.astype(np.float64), axis=0).T).mean()))
    figures = {
        rule: {stride: torch.tensor(values, dtype=torch.float64) for stride, values in by.items()}
        for rule, by in found.items()
    }
    return figures, float(np.mean(speeds))


def table(options: Options) -> str:
    """Overlap by rule and stride."""
    figures, speed = measured(options)
    lines = [
        f"| a cell is inside by | {' | '.join(f'stride {stride}' for stride in options.strides)} |",
        "|---" * (len(options.strides) + 1) + "|",
    ]
    for rule, by_stride in figures.items():
        cells = [text_of(bootstrap_mean(by_stride[stride]), 3) for stride in options.strides]
        lines.append(f"| {rule} | {' | '.join(cells)} |")
    lines += [
        "",
        f"{options.limit} held-out {options.kind} scenes (set {options.scene_set}), {options.num_frames} frames of "
        f"{options.width}×{options.height}, cells of {CELL} pixels, things that move {speed:.1f} pixels a frame "
        f"({platform.machine()}, {options.threads} of {os.cpu_count()} cores). Mean overlap and 95 % bootstrap interval "
        "over scenes.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    options = tyro.cli(Options, prog="python -m experiments.mask_rule.run")
    torch.set_num_threads(options.threads)
    text = table(options)
    print(text)
    if options == Options(kind=options.kind, num_frames=options.num_frames, threads=options.threads):
        write_between_marks(HERE / "README.md", text, f"-{options.kind}-{options.num_frames}")

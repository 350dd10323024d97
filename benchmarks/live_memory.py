"""Peak memory of one denoising step at full size, per way of steering, counted in live tensors without weights."""

import gc
from collections.abc import Callable
from typing import Literal

import torch
import tyro

from benchmarks.architecture import META, condition_of, held_tensors, published_svd
from benchmarks.counting import Count, count
from benchmarks.phases import tracks_over
from sgi2v.backbones.svd.model import SVD
from sgi2v.controllers import Controller, FreeTraj, Setup
from sgi2v.grid import Grid, Tracks
from sgi2v.solvers import euler
from sgi2v.step import Reporter, Step


def step_peak(
    backbone: SVD, controller: Controller, grid: Grid, tracks: Tracks, *, guided: bool = True, num_steps: int = 50
) -> Count:
    """The first step's peak: steering, both branches of guidance, and the step itself."""
    condition = condition_of(backbone, grid, guided=guided)
    levels = backbone.levels(num_steps, grid)
    setup = Setup(
        backbone=backbone, condition=condition, tracks=tracks, grid=grid, levels=levels, generator=torch.Generator()
    )
    state = controller.prepare(setup)
    x = torch.empty(grid.latent_shape, device=META)
    step = Step(index=0, count=num_steps, level=levels[0], next_level=levels[1], reporter=Reporter())

    def run() -> None:
        with torch.no_grad():
            moved = controller.steer(x, step, state)
            with controller.during(step, state):
                x0 = backbone.denoise(moved, step.level, condition)
            euler(moved, x0, step.level, step.next_level)

    gc.collect()
    return count(run, held_tensors(backbone, condition, x))


def main(
    width: int = 1024,
    height: int = 576,
    num_frames: int = 14,
    share: float = 0.4,
    num_boxes: int = 2,
    dtype: Literal["float16", "float32"] = "float16",
) -> None:
    """Print the peak of a step without control and with each way of steering.

    Boxes cover ``share`` of the picture's width and height each; ``num_boxes`` of them cross it.
    """
    backbone = published_svd(getattr(torch, dtype))
    grid = backbone.grid(width, height, num_frames)
    tracks = tracks_over(grid, share, num_boxes)
    methods: dict[str, Callable[[], Controller]] = {
        "none": Controller,
        "freetraj": FreeTraj,
        "freetraj, spatial only": lambda: FreeTraj(edit_temporal=False),
        "freetraj, temporal only": lambda: FreeTraj(edit_spatial=False),
    }
    print(f"one step at {height}x{width}x{num_frames}, {dtype}, {num_boxes} boxes of {share:g} x {share:g}")
    print("| method | weights and inputs, GB | added at the peak, GB | whole, ratio to none | added, ratio |")
    print("|---|---|---|---|---|")
    none = None
    for name, make in methods.items():
        peak = step_peak(backbone, make(), grid, tracks)
        none = none or peak
        print(
            f"| {name} | {peak.held / 1e9:.3f} | {peak.added / 1e9:.3f} | {peak.total / none.total:.4f} "
            f"| {peak.added / none.added:.4f} |",
            flush=True,
        )


if __name__ == "__main__":
    tyro.cli(main)

"""Operations of a whole run under each way of making it cheaper, counted on full-size Stable Video Diffusion."""

from dataclasses import replace

import torch
import tyro

from benchmarks.architecture import published_svd
from benchmarks.counting import count
from benchmarks.phases import Generation, recommended_sg_i2v, tracks_over
from sgi2v.backbones import settings_with_recipe
from sgi2v.backbones.svd.outline import SVDSettings
from sgi2v.controllers import SGI2V

PAPER = SGI2V()
VARIANTS: tuple[tuple[str, SGI2V, int, tuple[float, float]], ...] = (
    ("paper", PAPER, 50, (0.0, 1.0)),
    ("3 iterations", replace(PAPER, iterations=3), 50, (0.0, 1.0)),
    ("reuse_deep", replace(PAPER, reuse_deep=True), 50, (0.0, 1.0)),
    ("3 iterations, reuse_deep", replace(PAPER, iterations=3, reuse_deep=True), 50, (0.0, 1.0)),
    ("shrink 2", replace(PAPER, shrink=2), 50, (0.0, 1.0)),
    ("guidance_interval 0 to 0.97", PAPER, 50, (0.0, 0.97)),
    ("25 steps", PAPER, 25, (0.0, 1.0)),
)


def main(width: int = 1024, height: int = 576, num_frames: int = 14, num_boxes: int = 2) -> None:
    """Print, for each way, TFLOP of a guided step's iterations and of a run's steps, and the share of paper's."""
    backbone = published_svd(torch.float16)
    quick = settings_with_recipe(SVDSettings(), "quick")
    grid = backbone.grid(width, height, num_frames)
    tracks = tracks_over(grid, 0.4, num_boxes)
    print(f"{num_frames} frames of {width}x{height}, float16, steps and their guidance only (no encoding or decoding)")
    print("| way | guided steps | TFLOP each | passes of plain steps | TFLOP of a run | of paper |")
    print("|---|---|---|---|---|---|")
    whole = None
    for label, guide, num_steps, interval in (
        *VARIANTS,
        ("recipe quick", recommended_sg_i2v(quick), quick.num_steps, (0.0, 1.0)),
    ):
        run = Generation(backbone=backbone, controller=guide, grid=grid, tracks=tracks, num_steps=num_steps)
        run.prepare()

        def guided(run: Generation = run) -> None:
            run.guided(_nothing)

        def one_branch(run: Generation = run) -> None:
            with torch.no_grad():
                backbone.denoise(run.x, run.levels[0], replace(run.condition, guided=False))

        step, one_pass = count(guided).flop / 1e12, count(one_branch).flop / 1e12
        low, high = interval
        passes = sum(1 + (low <= level.noise_level <= high) for level in run.levels[:-1])
        total = run.num_guided * step + passes * one_pass
        whole = whole or total
        print(f"| {label} | {run.num_guided} | {step:.1f} | {passes} | {total:.0f} | {total / whole:.2f} |", flush=True)


def _nothing(_: str) -> None:
    """Phases are not told apart here."""


if __name__ == "__main__":
    tyro.cli(main)

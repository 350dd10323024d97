"""What is left of a hold when Time-to-Move lets go, by solver: ours, and UniPC with and without corrector."""

import os
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from diffusers import UniPCMultistepScheduler
from PIL import Image
from torch import Tensor

from experiments.study.table import text_of, write_between_marks
from sgi2v import Box, Key, Motion, Scene, TimeToMove, load_backbone
from sgi2v.backbones.base import Text
from sgi2v.backbones.dit.model import VideoTransformer
from sgi2v.controllers import Setup
from sgi2v.evaluation.metrics import bootstrap_mean
from sgi2v.grid import Grid, tracks_of
from sgi2v.solvers import SOLVERS
from sgi2v.step import Level, Reporter, Step

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from tiny_dit import tiny_dit

HERE = Path(__file__).parent
MODELS: Mapping[str, tuple[int, int, int]] = {"ti2v-5b": (160, 96, 13), "a14b": (160, 96, 13)}
"""Tiny folders and their size."""
Steps = Callable[[Tensor, Tensor, int], Tensor]
"""Latents at the next level from those at a level, the estimate of the clean ones, and the step's index."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure, and write the table into README.md where nothing is changed here."""

    limit: int = 16
    """Number of pictures and noises."""
    num_steps: int = 10
    """Denoising steps."""
    first: int = 2
    """Index of the step at which the run begins."""
    last: int = 5
    """Index of the last step at whose top latents are set back."""
    threads: int = 1
    """CPU threads."""


def scene(seed: int) -> Scene:
    """A picture of chance with large parts, and a box that moves across it."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 10, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((160, 96), Image.Resampling.BICUBIC)
    path = (Key(time=0.0, x=48.0, y=48.0), Key(time=1.0, x=100.0, y=52.0))
    return Scene(image=image, motions=(Motion(box=Box(left=16, top=16, right=80, bottom=80), path=path),))


def ours(name: str, levels: list[Level]) -> Steps:
    """A solver of this project; its loop gives it no memory at a step that was steered, nor at the one after."""
    return lambda x, x0, index: SOLVERS[name](x, x0, levels[index], levels[index + 1])


def unipc(backbone: VideoTransformer, levels: list[Level], *, corrected: bool, order: int = 2) -> Steps:
    """diffusers' UniPC of the folder, which keeps estimates and latents of its own from step to step."""
    count = len(levels) - 1
    scheduler: Any = UniPCMultistepScheduler.from_config(
        {**backbone.outline.scheduler, "solver_order": order},
        disable_corrector=[] if corrected else list(range(count)),
    )
    scheduler.set_timesteps(count)

    def step(x: Tensor, x0: Tensor, index: int) -> Tensor:
        if scheduler.step_index is None:
            scheduler.set_begin_index(index)
        velocity = (x - x0) / levels[index].noise
        moved: Tensor = scheduler.step(velocity, scheduler.timesteps[index], x, return_dict=False)[0]
        return moved

    return step


def missed(backbone: VideoTransformer, grid: Grid, options: Options, seed: int) -> Mapping[str, float]:
    """By solver: mean distance from the noised clip inside the mask, after the first step whose end is free."""
    tracks, draws = tracks_of(scene(seed), grid), torch.Generator().manual_seed(seed)
    levels = list(backbone.levels(options.num_steps, grid))
    condition = backbone.encode(tracks.image, Text(prompt="a red ball"), grid, draws)
    noise = backbone.noise(grid, draws)
    setup = Setup(backbone=backbone, condition=condition, tracks=tracks, grid=grid, levels=levels, generator=draws)
    weak, strong = (levels[index].noise_level for index in (options.first, options.last))
    holding = TimeToMove(t_weak=weak, t_strong=strong, unit="noise-level")

    def distance(steps: Steps, controller: TimeToMove) -> float:
        state = controller.prepare(setup)
        x = controller.start(noise, state)
        for index in range(options.first, options.last + 1):
            level, following = levels[index : index + 2]
            step = Step(index=index, count=options.num_steps, level=level, next_level=following, reporter=Reporter())
            x = controller.steer(x, step, state)
            x = steps(x, backbone.denoise(x, level, condition), index)
        gone = (x - state.noised(levels[options.last + 1])).abs()
        return float(gone[state.inside.expand_as(gone)].mean())

    free = replace(holding, t_strong=None)
    with torch.no_grad():
        return {
            "euler": distance(ours("euler", levels), holding),
            "dpm2m": distance(ours("dpm2m", levels), holding),
            "UniPC, order 1, no corrector": distance(unipc(backbone, levels, corrected=False, order=1), holding),
            "UniPC, order 2, no corrector": distance(unipc(backbone, levels, corrected=False), holding),
            "UniPC, order 2, corrector (as shipped)": distance(unipc(backbone, levels, corrected=True), holding),
            "euler, never held": distance(ours("euler", levels), free),
            "UniPC as shipped, never held": distance(unipc(backbone, levels, corrected=True), free),
        }


def table(options: Options) -> str:
    """Distance by solver and model."""
    found: dict[str, dict[str, list[float]]] = {}
    for name, size in MODELS.items():
        backbone = load_backbone(tiny_dit(name), device="cpu", dtype="float32", memory="fast")
        assert isinstance(backbone, VideoTransformer)
        for seed in range(options.limit):
            for solver, value in missed(backbone, backbone.grid(*size), options, seed).items():
                found.setdefault(solver, {}).setdefault(name, []).append(value)
    lines = [f"| solver | {' | '.join(MODELS)} |", "|---" * (len(MODELS) + 1) + "|"]
    for solver, by_model in found.items():
        cells = [text_of(bootstrap_mean(torch.tensor(by_model[name], dtype=torch.float64)), 3) for name in MODELS]
        lines.append(f"| {solver} | {' | '.join(cells)} |")
    lines += [
        "",
        f"{options.limit} pictures of chance, {options.num_steps} steps, held from step {options.first} to "
        f"{options.last}, tiny folders of the real classes with random weights (tests/tiny_dit.py), 160×96, 13 frames, "
        f"float32 ({platform.machine()}, {options.threads} of {os.cpu_count()} cores). Mean |x − noised clip| inside the "
        "mask and 95 % bootstrap interval over pictures.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    options = tyro.cli(Options, prog="python -m experiments.unipc_hold.run")
    torch.set_num_threads(options.threads)
    text = table(options)
    print(text)
    if options == Options(threads=options.threads):
        write_between_marks(HERE / "README.md", text, "")

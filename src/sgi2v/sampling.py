"""The one denoising loop."""

from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sgi2v.backbones.base import Backbone
from sgi2v.controllers.base import Controller
from sgi2v.grid import Grid, Tracks
from sgi2v.step import Reporter, Step, euler


@torch.no_grad()
def sample(
    backbone: Backbone,
    controller: Controller,
    condition: Any,
    tracks: Tracks,
    grid: Grid,
    *,
    noise: Float[Tensor, "n c y x"],
    num_steps: int,
    reporter: Reporter | None = None,
) -> Float[Tensor, "n c y x"]:
    """Clean latents from unit-variance ``noise``: the only denoising loop in the project.

    ``no_grad`` rather than inference mode, because a controller turns gradients on inside it. Raises ValueError
    from the controller before any compute, and :class:`Cancelled` between steps and iterations.
    """
    reporter = reporter or Reporter()
    levels = backbone.levels(num_steps)
    assert len(levels) == num_steps + 1 and levels[-1].noise == 0
    # Before anything is computed: a controller that has nothing to do at these levels says so here.
    reporter.planned(controller.planned_iterations(levels))
    state = controller.prepare(backbone, condition, tracks, grid)
    x, first = controller.start(noise, levels, state)
    for index, (level, next_level) in enumerate(pairwise(levels)):
        if index < first:
            continue
        step = Step(index=index, count=num_steps, level=level, next_level=next_level, reporter=reporter)
        reporter.step(step)
        x = controller.steer(x, step, state)
        with controller.during(step, state):
            x0 = backbone.denoise(x, level, condition)
        reporter.estimate(step, x0)
        x = euler(x, x0, level, next_level)
    return x

"""The one denoising loop."""

from __future__ import annotations

from itertools import pairwise

from jaxtyping import Float

from sgi2v.controllers.base import Controller, Setup
from sgi2v.lazy import torch
from sgi2v.step import Reporter, Step, euler


def sample(
    controller: Controller,
    setup: Setup,
    *,
    noise: Float[torch.Tensor, "n c y x"],
    reporter: Reporter | None = None,
) -> Float[torch.Tensor, "n c y x"]:
    """Clean latents from unit-variance ``noise``: the only denoising loop in the project.

    ``no_grad`` rather than inference mode, because a controller turns gradients on inside it. Raises FieldError
    from the controller before any compute, and :class:`Cancelled` between steps and iterations.
    """
    reporter = reporter or Reporter()
    backbone, levels = setup.backbone, setup.levels
    assert levels[-1].noise == 0
    # Before anything is computed: a controller that has nothing to do at these levels says so here.
    schedule = controller.schedule(levels)
    reporter.planned(schedule.iterations)
    with torch.no_grad():
        state = controller.prepare(setup)
        x = controller.start(noise, state)
        for index, (level, next_level) in enumerate(pairwise(levels)):
            if index < schedule.first:
                continue
            step = Step(index=index, count=len(levels) - 1, level=level, next_level=next_level, reporter=reporter)
            reporter.step(step)
            x = controller.steer(x, step, state)
            with controller.during(step, state):
                x0 = backbone.denoise(x, level, state.setup.condition)
            reporter.estimate(step, x0)
            x = euler(x, x0, level, next_level)
    return x

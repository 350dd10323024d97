"""The one denoising loop."""

from __future__ import annotations

from itertools import pairwise

from jaxtyping import Float

from sgi2v.controllers.base import Controller, Setup
from sgi2v.lazy import torch
from sgi2v.solvers import History, Solver, euler
from sgi2v.step import Reporter, Step


def sample(
    controller: Controller,
    setup: Setup,
    *,
    noise: Float[torch.Tensor, "n c y x"],
    reporter: Reporter | None = None,
    solver: Solver = euler,
) -> Float[torch.Tensor, "n c y x"]:
    """Clean latents from unit-variance ``noise``: the only denoising loop in the project.

    ``solver`` takes each step. It is shown the step before only where no method had a hand in either: an estimate from
    before ``x`` was changed, or from a network that was changed inside, says nothing of where ``x`` goes now.

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
        history: History | None = None
        for index, (level, next_level) in enumerate(pairwise(levels)):
            if index < schedule.first:
                continue
            step = Step(index=index, count=len(levels) - 1, level=level, next_level=next_level, reporter=reporter)
            reporter.step(step)
            unsteered, x = x, controller.steer(x, step, state)
            free = x is unsteered and not schedule.acts[index] and index >= schedule.overwrites
            with controller.during(step, state):
                x0 = backbone.denoise(x, level, state.setup.condition)
            reporter.estimate(step, x0)
            x = solver(x, x0, level, next_level, history if free else None)
            history = History(x0=x0, level=level) if free else None
    return x

"""Solvers: the second-order step against diffusers' own, its order, its ends, and what the loop lets it remember."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, get_args

import PIL.Image
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor

from sgi2v import SVD, Sampling, SVDSettings
from sgi2v.controllers import Controller
from sgi2v.grid import Tracks
from sgi2v.planning import Schedule, SolverName
from sgi2v.sampling import sample
from sgi2v.solvers import SOLVERS, History, Solver, dpm2m, euler
from sgi2v.step import Level, Step
from tiny import load_svd, setup_of, tiny_svd

X0 = Callable[[Tensor, Level], Tensor]
FLOW = "flow_prediction"


def integrate(solver: Solver, x: Tensor, levels: Sequence[Level], model: X0) -> list[Tensor]:
    """Latents behind every step, without a loop's care for steering."""
    history, made = None, []
    for level, after in pairwise(levels):
        x0 = model(x, level)
        x = solver(x, x0, level, after, history)
        history = History(x0=x0, level=level)
        made.append(x)
    return made


def bent(x: Tensor, level: Level) -> Tensor:
    """A model whose estimate depends on the latents and the level, and bends."""
    return torch.tanh(1.3 * x + 0.7 * level.noise_level) + 0.2 * x


@pytest.mark.parametrize("pure", [True, False], ids=["from pure noise", "from a little signal"])
@pytest.mark.parametrize("steps", [2, 5, 12])
def test_the_second_order_step_is_diffusers_on_flow_levels(steps: int, pure: bool) -> None:
    """DPM-Solver++ (2M, midpoint, lower order at the end) with the sigmas of a flow model."""
    scheduler: Any = DPMSolverMultistepScheduler(
        prediction_type=FLOW, use_flow_sigmas=True, flow_shift=3.0, algorithm_type="dpmsolver++",
        solver_order=2, solver_type="midpoint", lower_order_final=True, final_sigmas_type="zero",
    )  # fmt: skip
    scheduler.set_timesteps(steps)
    if pure:
        scheduler.sigmas[0] = 1.0
    sigmas = [float(sigma) for sigma in scheduler.sigmas]
    levels = [Level(signal=1 - sigma, noise=sigma) for sigma in sigmas]
    assert (levels[0].signal == 0) == pure
    start = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    ours = integrate(dpm2m, start, levels, bent)
    x = start
    for time, level, found in zip(scheduler.timesteps, levels, ours, strict=False):
        velocity = (x - bent(x, level)) / level.noise
        x = scheduler.step(velocity, time, x).prev_sample
        assert torch.allclose(found, x, rtol=2e-5, atol=2e-5)


def straight(x: Tensor, level: Level) -> Tensor:
    """The clean latents that a Gaussian of deviation 0.5 gives back: exact, so that a path's end is known."""
    variance = 0.25 * level.signal**2 + level.noise**2
    return 0.25 * level.signal / variance * x


KINDS: dict[str, Callable[[float], Level]] = {
    "exploding": lambda s: Level(signal=1.0, noise=40 * s**3 + 0.02),
    "flow": lambda s: Level(signal=1 - s, noise=s),
    "preserving": lambda s: Level(signal=math.cos(s * math.pi / 2), noise=math.sin(s * math.pi / 2)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_error_falls_with_the_square_of_the_steps_and_eulers_with_the_steps(kind: str) -> None:
    """On Gaussian data a path keeps its place in units of the deviation at each level, which gives its end."""

    def error(solver: Solver, steps: int) -> float:
        levels = [KINDS[kind](0.9 - k / steps * 0.8) for k in range(steps + 1)]
        deviations = [math.hypot(0.5 * level.signal, level.noise) for level in levels]
        start = torch.full((1, 1, 1, 1), 1.5 * deviations[0], dtype=torch.float64)
        return abs(float(integrate(solver, start, levels, straight)[-1]) - 1.5 * deviations[-1])

    for solver, order in ((euler, 1), (dpm2m, 2)):
        errors = [error(solver, steps) for steps in (80, 160, 320)]
        found = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
        assert found == pytest.approx([order] * 2, abs=0.35), (solver, errors)


def test_it_is_of_first_order_where_a_lambda_is_not_finite_or_nothing_came_before() -> None:
    x, x0, last = torch.randn(3, 2, 3, 4, 4)
    pure, high, low, clean = (Level(signal=1 - s, noise=s) for s in (1.0, 0.8, 0.5, 0.0))
    before = History(x0=last, level=high)
    for level, after, history in (
        (pure, high, None), (high, low, None), (low, clean, before), (high, low, History(x0=last, level=pure)),
    ):  # fmt: skip
        assert torch.equal(dpm2m(x, x0, level, after, history), euler(x, x0, level, after))
    # Two steps of one length in lambda lead the estimate on by half of what it changed.
    even = Level(signal=1.0, noise=0.8 / 0.2), Level(signal=1.0, noise=1.0), Level(signal=1.0, noise=0.2 / 0.8)
    led = dpm2m(x, x0, even[1], even[2], History(x0=last, level=even[0]))
    assert torch.allclose(led, euler(x, 1.5 * x0 - 0.5 * last, even[1], even[2]), atol=1e-6)
    # An estimate that does not change, as of a frame that a model keeps, is met to the last bit.
    alike = dpm2m(x, x0, high, low, History(x0=x0.clone(), level=Level(signal=0.1, noise=0.9)))
    assert torch.equal(alike, euler(x, x0, high, low))


@dataclass(frozen=True, kw_only=True)
class Meddler(Controller):
    """Has a hand in one step, in one of the ways in which a method can."""

    way: str = "none"
    at: int = 2

    def schedule(self, levels: Sequence[Level]) -> Schedule:
        plain = super().schedule(levels)
        acts = tuple(index == self.at and self.way == "acts" for index in range(len(plain.acts)))
        return replace(plain, acts=acts, overwrites=self.at + 1 if self.way == "overwrites" else 0)

    def steer(self, x: Tensor, step: Step, state: Any) -> Tensor:
        return x.clone() if self.way == "steers" and step.index == self.at else x


@dataclass
class Remembering:
    """Euler's step, and a list of whether the step before was shown."""

    seen: list[bool] = field(default_factory=list)

    def __call__(
        self, x: Tensor, x0: Tensor, level: Level, next_level: Level, history: History | None = None
    ) -> Tensor:
        self.seen.append(history is not None)
        return euler(x, x0, level, next_level)


@pytest.fixture(scope="module")
def backbone() -> SVD:
    return load_svd(tiny_svd(2, light=True), settings=SVDSettings(num_frames=2, max_guidance_scale=1.0))


def run(backbone: SVD, controller: Controller, solver: Solver) -> Tensor:
    grid = backbone.grid(32, 32, 2)
    tracks = Tracks(image=PIL.Image.new("RGB", (32, 32), (90, 120, 60)), tracks=())
    setup = setup_of(backbone, tracks, grid, num_steps=6, seed=1)
    return sample(controller, setup, noise=backbone.noise(grid, setup.generator), solver=solver)


@pytest.mark.parametrize(
    ("way", "shown"),
    [
        ("none", [0, 1, 1, 1, 1, 1]),
        ("steers", [0, 1, 0, 0, 1, 1]),
        ("acts", [0, 1, 0, 0, 1, 1]),
        ("overwrites", [0, 0, 0, 0, 1, 1]),
    ],
)
def test_a_step_in_which_a_method_had_a_hand_is_not_remembered(backbone: SVD, way: str, shown: list[int]) -> None:
    remembering = Remembering()
    run(backbone, Meddler(way=way), remembering)
    assert remembering.seen == [bool(one) for one in shown]


def test_the_loop_takes_the_solver_it_is_given(backbone: SVD) -> None:
    plain = run(backbone, Controller(), euler)
    assert torch.equal(run(backbone, Controller(), Remembering()), plain)
    assert not torch.equal(run(backbone, Controller(), dpm2m), plain)


def test_every_solver_that_can_be_said_is_there() -> None:
    assert tuple(SOLVERS) == get_args(SolverName) and Sampling().solver == "euler"

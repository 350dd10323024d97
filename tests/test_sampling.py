"""The one loop: exact for a perfect denoiser on every kind of schedule, and it asks a controller in order."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import PIL.Image
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sgi2v import SVD, SVDSettings
from sgi2v.controllers import Controller, Setup, State
from sgi2v.errors import FieldError
from sgi2v.grid import Tracks
from sgi2v.planning import Schedule
from sgi2v.sampling import sample
from sgi2v.solvers import euler
from sgi2v.step import Cancelled, Level, Reporter, Step
from tiny import load_svd, setup_of, tiny_scheduler, tiny_svd

LEVELS = st.builds(
    lambda kind, s: {
        "ve": Level(signal=1.0, noise=700 * s + 0.01),
        "flow": Level(signal=1 - s, noise=s),
        "vp": Level(signal=math.sqrt(1 - s * s), noise=s),
    }[kind],
    st.sampled_from(["ve", "flow", "vp"]),
    st.floats(0.01, 0.99),
)


@given(level=LEVELS, next_level=LEVELS)
def test_a_step_with_the_true_x0_lands_on_the_same_noise(level: Level, next_level: Level) -> None:
    x0, noise = torch.randn(2, 2, 3, 4, 4, dtype=torch.float64)
    stepped = euler(level.signal * x0 + level.noise * noise, x0, level, next_level)
    wanted = next_level.signal * x0 + next_level.noise * noise
    assert torch.allclose(stepped, wanted, rtol=1e-9, atol=1e-9 * (1 + next_level.noise / level.noise))


def test_levels_say_noise_in_one_scale() -> None:
    assert Level(signal=1.0, noise=374.0).noise_level == pytest.approx(0.99733, abs=1e-5)
    assert Level(signal=0.0, noise=1.0).sigma == math.inf
    assert Level(signal=0.25, noise=0.75).noise_level == 0.75
    with pytest.raises(ValueError, match="level"):
        Level(signal=0.0, noise=0.0)


@pytest.fixture(scope="module")
def backbone() -> SVD:
    """Without guidance: one pass a step."""
    settings = SVDSettings(num_frames=2, max_guidance_scale=1.0)
    return load_svd(tiny_svd(2, light=True), device="cpu", settings=settings)


def test_svds_levels_are_its_schedulers_sigmas_and_the_published_steps_are_its_guided_range(backbone: SVD) -> None:
    levels = backbone.levels(50, backbone.grid(32, 32, 2))
    sigmas = [level.sigma for level in levels]
    ramp = [(700 ** (1 / 7) + k / 49 * (0.002 ** (1 / 7) - 700 ** (1 / 7))) ** 7 for k in range(50)]
    assert sigmas == pytest.approx([*ramp, 0.0], rel=1e-5)
    guided = [50 - k for k, sigma in enumerate(sigmas[:-1]) if 36 <= sigma <= 376]
    assert guided == list(range(45, 29, -1))


def test_euler_is_the_schedulers_step() -> None:
    scheduler = tiny_scheduler()
    scheduler.set_timesteps(6)
    x = torch.randn(2, 3, 4, 4) * 700
    for k, time in enumerate(scheduler.timesteps):
        velocity = torch.randn_like(x)
        sigma, after = (float(s) for s in scheduler.sigmas[k : k + 2])
        x0 = x / (sigma**2 + 1) - velocity * sigma / math.sqrt(sigma**2 + 1)
        ours = euler(x, x0, Level(signal=1.0, noise=sigma), Level(signal=1.0, noise=after))
        largest = float(x.abs().max())
        x = scheduler.step(velocity, time, x).prev_sample
        assert torch.allclose(ours, x, rtol=1e-5, atol=1e-6 * largest)


@dataclass(frozen=True, kw_only=True)
class Diary(Controller[State]):
    """Writes down what the loop asks for, in order."""

    entries: list[str] = field(default_factory=list)
    first: int = 0

    def schedule(self, levels: Sequence[Level]) -> Schedule:
        self.entries.append(f"schedule of {len(levels) - 1}")
        return replace(super().schedule(levels), first=self.first)

    def prepare(self, setup: Setup) -> State:
        assert not torch.is_grad_enabled()
        self.entries.append("prepare")
        return super().prepare(setup)

    def start(self, noise: Tensor, state: State) -> Tensor:
        self.entries.append(f"start of {len(state.setup.levels) - 1}")
        return super().start(noise, state)

    def steer(self, x: Tensor, step: Step, state: State) -> Tensor:
        assert step.level is state.setup.levels[step.index]
        self.entries.append(f"steer {step.index} of {step.count}")
        return x

    @contextmanager
    def during(self, step: Step, state: State) -> Iterator[None]:
        self.entries.append("in")
        yield
        self.entries.append("out")


class Told(Reporter):
    """Keeps what it is told, and cancels at a step."""

    def __init__(self, cancel: int = -1) -> None:
        self.entries: list[object] = []
        self.cancel = cancel

    def planned(self, num_iterations: Sequence[int]) -> None:
        self.entries.append(tuple(num_iterations))

    def step(self, step: Step) -> None:
        self.entries.append(step.index)
        if step.index == self.cancel:
            raise Cancelled("enough")

    def estimate(self, step: Step, x0: Tensor) -> None:
        self.entries.append(f"x0 of {step.index}")


def run(backbone: SVD, controller: Controller, reporter: Reporter | None = None) -> Tensor:
    grid = backbone.grid(32, 32, 2)
    tracks = Tracks(image=PIL.Image.new("RGB", (32, 32), (90, 120, 60)), tracks=())
    setup = setup_of(backbone, tracks, grid, num_steps=3, seed=1)
    return sample(controller, setup, noise=backbone.noise(grid, setup.generator), reporter=reporter)


def test_a_controller_is_asked_in_order_and_may_start_late(backbone: SVD) -> None:
    diary, late = Diary(), Diary(first=2)
    assert torch.equal(run(backbone, diary), run(backbone, Controller()))
    steps = [[f"steer {k} of 3", "in", "out"] for k in range(3)]
    begin = ["schedule of 3", "prepare", "start of 3"]
    assert diary.entries == [*begin, *steps[0], *steps[1], *steps[2]]
    told = Told()
    run(backbone, late, told)
    assert late.entries == [*begin, *steps[2]]
    assert told.entries == [(0, 0, 0), 2, "x0 of 2"]


def test_a_run_is_told_of_and_stops_between_steps(backbone: SVD) -> None:
    told = Told(cancel=1)
    with pytest.raises(Cancelled):
        run(backbone, Controller(), told)
    assert told.entries == [(0, 0, 0), 0, "x0 of 0", 1]


def test_nothing_is_prepared_where_no_step_suits(backbone: SVD) -> None:
    class Never(Diary):
        def schedule(self, levels: Sequence[Level]) -> Schedule:
            raise FieldError("controller.at", "no step")

    never, told = Never(), Told()
    with pytest.raises(FieldError, match=r"controller\.at"):
        run(backbone, never, told)
    assert not never.entries and not told.entries

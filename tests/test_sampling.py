"""The one loop: exact for a perfect denoiser on every kind of schedule, and it asks a controller in order."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import PIL.Image
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sgi2v.controllers import Controller, Setup, State
from sgi2v.grid import Tracks
from sgi2v.planning import Schedule
from sgi2v.sampling import sample
from sgi2v.step import Cancelled, Level, Reporter, Step, euler
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


def test_svds_levels_are_its_schedulers_sigmas_and_the_published_steps_are_its_guided_range() -> None:
    backbone = load_svd(tiny_svd(2, light=True), device="cpu")
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
class Diary(Controller):
    """Writes down what the loop asks for, in order."""

    name: ClassVar[str] = "diary"

    entries: list[str] = field(default_factory=list)
    first: int = 0

    def schedule(self, levels: Sequence[Level]) -> Schedule:
        self.entries.append("schedule")
        return dataclasses.replace(Schedule.plain(levels), first=self.first)

    def prepare(self, setup: Setup) -> State:
        self.entries.append("prepare")
        return State(setup=setup)

    def start(self, noise: Tensor, state: State) -> Tensor:
        self.entries.append(f"start {type(state).__name__}")
        return super().start(noise, state)

    def steer(self, x: Tensor, step: Step, state: Any) -> Tensor:
        self.entries.append(f"steer {step.index} of {step.count}, {step.count - step.index} left")
        return x

    @contextmanager
    def during(self, step: Step, state: Any) -> Iterator[None]:
        self.entries.append("in")
        yield
        self.entries.append("out")


def run(controller: Controller, reporter: Reporter | None = None) -> Tensor:
    backbone = load_svd(tiny_svd(2, light=True), device="cpu")
    grid = backbone.grid(32, 32, 2)
    image = PIL.Image.new("RGB", (32, 32), (90, 120, 60))
    setup = setup_of(backbone, Tracks(image=image, tracks=()), grid, num_steps=3, seed=1)
    return sample(controller, setup, noise=backbone.noise(grid, setup.generator), reporter=reporter)


def test_a_controller_is_asked_in_order_and_may_start_late() -> None:
    diary, late = Diary(), Diary(first=2)
    assert torch.equal(run(diary), run(Controller()))
    steps = [[f"steer {k} of 3, {3 - k} left", "in", "out"] for k in range(3)]
    assert diary.entries == ["schedule", "prepare", "start State", *steps[0], *steps[1], *steps[2]]
    run(late)
    assert late.entries == ["schedule", "prepare", "start State", *steps[2]]


def test_a_run_is_told_of_and_stops_between_steps() -> None:
    told: list[int] = []

    class Impatient(Reporter):
        def step(self, step: Step) -> None:
            told.append(step.index)
            if step.index == 1:
                raise Cancelled("enough")

    with pytest.raises(Cancelled):
        run(Controller(), Impatient())
    assert told == [0, 1]

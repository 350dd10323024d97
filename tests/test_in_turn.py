"""Two controllers in one run: whoever does nothing leaves no trace, each acts in its turn, and conflicts are named."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from sgi2v import SVD, Range, SVDSettings
from sgi2v.controllers import (
    COMBINATIONS,
    SGI2V,
    Controller,
    FreeTraj,
    InTurn,
    Setup,
    TimeToMove,
    controller_class,
    controller_from_dict,
    controller_name,
    controller_to_dict,
    recommended,
)
from sgi2v.controllers.in_turn import InTurnState
from sgi2v.planning import Schedule, Uses
from sgi2v.step import Level, Reporter, Step
from test_controllers import svd_levels
from test_time_to_move import FRAMES, prepared, run
from tiny import load_svd, tiny_svd

# Sigmas of six steps on SVD: 700, 193, 40, 5.2, 0.29, 0.002.
TTM = TimeToMove(t_weak=200.0, t_strong=100.0)
SG = SGI2V(guided=Range(low=20.0, high=60.0), iterations=1)
LEVELS = svd_levels(6)
SCALE = LEVELS[0].init_noise_sigma


@pytest.fixture(scope="module")
def backbone() -> SVD:
    """Without guidance: one pass a step."""
    settings = SVDSettings(num_frames=FRAMES, max_guidance_scale=1.0)
    return load_svd(tiny_svd(FRAMES, light=True), device="cpu", dtype="float32", settings=settings)


@pytest.fixture(scope="module")
def setup(backbone: SVD) -> Setup:
    return prepared(backbone)


@dataclass(frozen=True, kw_only=True)
class Diary(Controller[str]):
    """Writes down what it is asked, and adds a number to everything."""

    name: ClassVar[str] = "diary"
    label: str = ""
    entries: list[str] = field(default_factory=list)
    first: int = 0
    noise: float = 0.0
    added: float = 0.0

    def schedule(self, levels: Sequence[Level]) -> Schedule:
        count = len(levels) - 1
        return Schedule(iterations=(1,) * count, acts=(True,) * count, first=self.first, changes_noise=self.noise != 0)

    def start(self, noise: Tensor, state: str) -> Tensor:
        self.entries.append(f"start {state}")
        return (noise + self.noise) * SCALE

    def steer(self, x: Tensor, step: Step, state: str) -> Tensor:
        self.entries.append(f"steer {state} {float(x.mean()):g}")
        return x + self.added

    @contextmanager
    def during(self, step: Step, state: str) -> Iterator[None]:
        self.entries.append(f"in {self.label}")
        try:
            yield
        finally:
            self.entries.append(f"out {self.label}")


def pair(**of_first: Any) -> tuple[Diary, Diary, list[str]]:
    entries: list[str] = []
    return Diary(label="a", entries=entries, **of_first), Diary(label="b", entries=entries, added=10.0), entries


def both(first: Diary, second: Diary, setup: Setup) -> tuple[InTurn, InTurnState]:
    joined = InTurn(first=first, second=second)
    state = InTurnState(setup=setup, schedules=joined.schedules(LEVELS), first="state of a", second="state of b")
    return joined, state


STEP = Step(index=1, count=6, level=LEVELS[1], next_level=LEVELS[2], reporter=Reporter())


@pytest.mark.parametrize(
    "controller",
    [
        Controller(),
        SGI2V(guided=Range(low=1.0, high=2.0, unit="step"), iterations=1),
        TimeToMove(t_weak=1.0, t_strong=1.0, unit="step"),
        FreeTraj(),
    ],
    ids=["none", "sg-i2v", "time-to-move", "freetraj"],
)
def test_with_none_before_or_after_nothing_changes_bit_for_bit(backbone: SVD, controller: Controller) -> None:
    alone = run(backbone, controller, num_steps=2)[0]
    assert torch.equal(run(backbone, InTurn(first=controller), num_steps=2)[0], alone)
    assert torch.equal(run(backbone, InTurn(second=controller), num_steps=2)[0], alone)


def test_time_to_moves_start_and_sg_i2vs_steering(backbone: SVD) -> None:
    joined = InTurn(first=TTM, second=SG)
    schedule = joined.schedule(LEVELS)
    assert (schedule.first, schedule.iterations) == (1, (0, 0, 1, 0, 0, 0))
    assert schedule.overwrites == TTM.schedule(LEVELS).overwrites == 2
    clean, seen, *_ = run(backbone, joined)
    _, alone, *_ = run(backbone, TTM)
    # Up to the guided step it is Time-to-Move; that step's latents are SG-I2V's.
    assert [level for level, _ in seen] == [level for level, _ in alone]
    same = [torch.equal(ours, theirs) for (_, ours), (_, theirs) in zip(seen, alone, strict=True)]
    assert same == [True, False, False, False, False]
    # Neither minds being named first: where one acts the other does not.
    assert torch.equal(run(backbone, InTurn(first=SG, second=TTM))[0], clean)


def test_each_is_asked_in_its_turn_with_its_own_state(setup: Setup) -> None:
    first, second, entries = pair(added=1.0)
    joined, state = both(first, second, setup)
    noise = torch.zeros(1, 1, 2, 2)
    joined.start(noise, state)
    assert float(joined.steer(noise, STEP, state).mean()) == 11
    with joined.during(STEP, state):
        entries.append("denoise")
    start = ["start state of a", "start state of b"]
    steer = ["steer state of a 0", "steer state of b 1"]
    assert entries == [*start, *steer, "in a", "in b", "denoise", "out b", "out a"]
    schedule = joined.schedule(LEVELS)
    assert schedule.iterations == (2,) * 6 and schedule.acts == (True,) * 6


def test_nothing_is_left_open_after_an_exception(setup: Setup) -> None:
    first, second, entries = pair()
    joined, state = both(first, second, setup)
    with pytest.raises(RuntimeError, match="broken"), joined.during(STEP, state):
        raise RuntimeError("broken")
    assert entries == ["in a", "in b", "out b", "out a"]


def test_the_second_starts_from_what_the_first_made_of_the_noise(setup: Setup) -> None:
    noise = torch.randn(2, 4, 3, 3)
    twice, state = both(Diary(noise=2.0), Diary(noise=3.0), setup)
    assert torch.allclose(twice.start(noise, state), (noise + 5) * SCALE)
    assert twice.schedule(LEVELS).changes_noise
    # One that begins late takes the other's noise, and cannot come first.
    shifted, state = both(Diary(noise=2.0), Diary(first=3), setup)
    assert torch.allclose(shifted.start(noise, state), (noise + 2) * SCALE)
    assert shifted.schedule(LEVELS).first == 3
    with pytest.raises(ValueError, match=r"Diary begins late, and Diary changes the noise .* the other way round"):
        InTurn(first=Diary(first=3), second=Diary(noise=2.0)).schedule(LEVELS)


def test_what_they_use_is_what_either_uses() -> None:
    assert InTurn(first=TTM, second=SG).uses() == Uses(features=SG.layers, motions=True, reference=True, masks=True)
    assert InTurn(first=SG).uses() == InTurn(second=SG).uses() == SG.uses()
    assert not InTurn().uses().motions


def test_what_cannot_work_together_is_refused_before_anything_is_computed() -> None:
    overwritten = InTurn(first=TimeToMove(t_weak=200.0, t_strong=30.0), second=SG)
    message = r"controller\.first\.t_strong: .* down to sigma 40.1, .* from 40.1 on; .* controller\.second\.guided"
    with pytest.raises(ValueError, match=message):
        overwritten.schedule(LEVELS)
    turned = InTurn(first=SG, second=TimeToMove(t_weak=200.0, t_strong=30.0))
    with pytest.raises(ValueError, match=r"controller\.second\.t_strong: .* controller\.first\.guided"):
        turned.schedule(LEVELS)
    too_early = InTurn(first=TimeToMove(t_weak=10.0, t_strong=5.0), second=SG)
    with pytest.raises(ValueError, match=r"controller\.second\.guided: SGI2V acts up to sigma 40.1, but TimeToMove"):
        too_early.schedule(LEVELS)
    with pytest.raises(ValueError, match=r"both TimeToMove and TimeToMove begin a run"):
        InTurn(first=TTM, second=TTM).schedule(LEVELS)
    with pytest.raises(ValueError, match=r"^controller\.second\.guided: no step of 6"):
        InTurn(second=SGI2V(guided=Range(low=900.0, high=901.0))).schedule(LEVELS)
    with pytest.raises(ValueError, match=r"^controller\.first\.t_weak: no step of 6"):
        InTurn(first=TimeToMove(t_weak=1e-4, t_strong=None)).schedule(LEVELS)
    # As published for SVD the two overlap; what the documentation advises does not.
    with pytest.raises(ValueError, match=r"controller\.first\.t_strong"):
        recommended("time-to-move+sg-i2v", {}).schedule(svd_levels(50))
    advised = {"first": {"t_strong": 60.0}, "second": {"guided": {"low": 10.0, "high": 55.0}}}
    joined = recommended("time-to-move+sg-i2v", {"time-to-move+sg-i2v": advised})
    iterations = joined.schedule(svd_levels(50)).iterations
    assert [k for k, n in enumerate(iterations) if n] == list(range(18, 27))
    # Guided steps before the start are left out, not refused, while some remain.
    guided = Range(low=2.0, high=300.0)
    some = InTurn(first=TimeToMove(t_weak=50.0, t_strong=None), second=SGI2V(guided=guided))
    assert some.schedule(LEVELS).iterations == (0, 0, 5, 5, 0, 0)
    assert some.schedule(LEVELS).acts == (False, False, True, True, False, False)


def test_a_combinations_name_and_record() -> None:
    joined = InTurn(first=TTM, second=SG)
    assert controller_name(joined) == "time-to-move+sg-i2v"
    record = controller_to_dict(joined)
    assert record["first"] == controller_to_dict(TTM) and record["second"]["name"] == "sg-i2v"
    assert controller_from_dict(record) == joined
    three = InTurn(first=InTurn(second=TTM), second=SG)
    assert controller_name(three) == "none+time-to-move+sg-i2v"
    assert controller_from_dict(controller_to_dict(three)) == three
    assert controller_class("none+sg-i2v") is InTurn
    for name in COMBINATIONS:
        assert controller_name(recommended(name, {})) == name


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"name": "none+magic"}, r"controller: unknown 'magic'; known are none, sg-i2v"),
        ({"name": "sg-i2v+"}, r"controller: unknown ''"),
        ({"name": "+".join(["none"] * 5)}, r"controller: 5 joined by \+; give at most 4"),
        (
            {"name": "none+sg-i2v", "lr": 1.0},
            r"controller: unknown field 'lr' of none\+sg-i2v; known are first, second",
        ),
        ({"name": "none+sg-i2v", "second": {"name": "none"}}, r"controller\.second: is not the sg-i2v"),
        ({"name": "none+sg-i2v", "second": 3}, r"controller\.second: is not"),
        ({"name": "none+sg-i2v", "second": {"speed": 3}}, r"controller\.second: unknown field 'speed'"),
        ({"name": "none+sg-i2v", "second": {"lr": -1.0}}, r"controller\.second\.lr: must be"),
    ],
)
def test_a_wrong_record_is_refused(record: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        controller_from_dict(record)


def test_a_model_recommends_for_each_and_for_both_together() -> None:
    values: dict[str, dict[str, Any]] = {
        "sg-i2v": {"lr": 0.5, "guided": {"low": 2.0, "high": 20.0}},
        "time-to-move": {"t_weak": 9.0, "t_strong": 5.0},
        "time-to-move+sg-i2v": {"second": {"guided": {"low": 2.0, "high": 4.0}}},
    }
    joined = recommended("time-to-move+sg-i2v", values)
    assert joined == InTurn(
        first=TimeToMove(t_weak=9.0, t_strong=5.0), second=SGI2V(lr=0.5, guided=Range(low=2.0, high=4.0))
    )


def of_share(high: float) -> Range:
    return Range(low=0.0, high=high, unit="share")


def test_what_could_never_act_is_refused_before_anything_runs() -> None:
    """FreeTraj changes attention in the first steps; a run that begins after them has nothing of it."""
    early = FreeTraj(guided=of_share(0.1))
    with pytest.raises(ValueError, match=r"controller\.first\.guided: FreeTraj acts up to sigma 700, but TimeToMove"):
        InTurn(first=early, second=TTM).schedule(LEVELS)
    for fine in (FreeTraj(guided=of_share(0.9)), FreeTraj(guided=of_share(0.1), factor=1.0)):
        schedule = InTurn(first=fine, second=TTM).schedule(LEVELS)
        assert not any(schedule.iterations)
        assert schedule.first and not any(schedule.acts[: schedule.first]) and any(schedule.acts) == fine.edits
        assert schedule.changes_noise and not InTurn(first=TTM, second=SG).schedule(LEVELS).changes_noise
    with pytest.raises(ValueError, match="begins late, and FreeTraj changes the noise"):
        InTurn(first=TTM, second=FreeTraj(guided=of_share(0.9))).schedule(LEVELS)
    quiet = FreeTraj(guided=of_share(0.9), inject_noise=False)
    assert not any(InTurn(first=TTM, second=quiet).schedule(LEVELS).iterations)

"""Two controllers in one run: whoever does nothing leaves no trace, each acts in its turn, and conflicts are named."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from sgi2v.backbones import SVD, Level
from sgi2v.controllers import (
    COMBINATIONS,
    SGI2V,
    Controller,
    FreeTraj,
    InTurn,
    TimeToMove,
    controller_class,
    controller_from_dict,
    controller_name,
    controller_to_dict,
    recommended,
)
from sgi2v.controllers.in_turn import InTurnState
from sgi2v.step import Reporter, Step
from test_controllers import svd_levels
from test_time_to_move import FRAMES, run
from tiny import load_svd, tiny_svd

# Sigmas of six steps on SVD: 700, 193, 40, 5.2, 0.29, 0.002.
TTM = TimeToMove(tweak=200.0, t_strong=100.0)
SG = SGI2V(guided=(20.0, 60.0), iterations=1)
LEVELS = svd_levels(6)


@pytest.fixture(scope="module")
def backbone() -> SVD:
    return load_svd(tiny_svd(FRAMES, light=True), device="cpu", dtype="float32")


@dataclass(frozen=True, kw_only=True)
class Diary(Controller):
    """Writes down what it is asked, and adds a number to everything."""

    name: str
    entries: list[str] = field(default_factory=list)
    first: int = 0
    noise: float = 0.0
    added: float = 0.0

    def planned_iterations(self, levels: Sequence[Level]) -> Sequence[int]:
        return [1] * (len(levels) - 1)

    def begins(self, levels: Sequence[Level]) -> int:
        return self.first

    def start(self, noise: Tensor, levels: Sequence[Level], state: Any) -> tuple[Tensor, int]:
        self.entries.append(f"start {state}")
        return (noise + self.noise) * levels[0].init_noise_sigma, self.first

    def steer(self, x: Tensor, step: Step, state: Any) -> Tensor:
        self.entries.append(f"steer {state} {float(x.mean()):g}")
        return x + self.added

    @contextmanager
    def during(self, step: Step, state: Any) -> Iterator[None]:
        self.entries.append(f"in {self.name}")
        try:
            yield
        finally:
            self.entries.append(f"out {self.name}")


def pair(**of_first: Any) -> tuple[Diary, Diary, list[str]]:
    entries: list[str] = []
    return Diary(name="a", entries=entries, **of_first), Diary(name="b", entries=entries, added=10.0), entries


def both(first: Controller, second: Controller) -> tuple[InTurn, InTurnState]:
    return InTurn(first=first, second=second), InTurnState(first="state of a", second="state of b")


STEP = Step(index=1, count=6, level=LEVELS[1], next_level=LEVELS[2], reporter=Reporter())


@pytest.mark.parametrize(
    "controller",
    [
        Controller(),
        SGI2V(guided=(1.0, 2.0), guided_as="step", iterations=1),
        TimeToMove(tweak=1.0, t_strong=1.0, clocks_as="step"),
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
    assert (joined.begins(LEVELS), joined.planned_iterations(LEVELS)) == (1, [0, 0, 1, 0, 0, 0])
    clean, seen, *_ = run(backbone, joined)
    _, alone, *_ = run(backbone, TTM)
    # Up to the guided step it is Time-to-Move; that step's latents are SG-I2V's.
    assert [level for level, _ in seen] == [level for level, _ in alone]
    same = [torch.equal(ours, theirs) for (_, ours), (_, theirs) in zip(seen, alone, strict=True)]
    assert same == [True, False, False, False, False]
    # Neither minds being named first: where one acts the other does not.
    assert torch.equal(run(backbone, InTurn(first=SG, second=TTM))[0], clean)


def test_each_is_asked_in_its_turn_with_its_own_state() -> None:
    first, second, entries = pair(added=1.0)
    joined, state = both(first, second)
    noise = torch.zeros(1, 1, 2, 2)
    joined.start(noise, LEVELS, state)
    assert float(joined.steer(noise, STEP, state).mean()) == 11
    with joined.during(STEP, state):
        entries.append("denoise")
    start = ["start state of a", "start state of b"]
    steer = ["steer state of a 0", "steer state of b 1"]
    assert entries == [*start, *steer, "in a", "in b", "denoise", "out b", "out a"]
    assert joined.planned_iterations(LEVELS) == [2] * 6


def test_nothing_is_left_open_after_an_exception() -> None:
    first, second, entries = pair()
    joined, state = both(first, second)
    with pytest.raises(RuntimeError, match="broken"), joined.during(STEP, state):
        raise RuntimeError("broken")
    assert entries == ["in a", "in b", "out b", "out a"]


def test_the_second_starts_from_what_the_first_made_of_the_noise() -> None:
    noise, scale = torch.randn(2, 4, 3, 3), LEVELS[0].init_noise_sigma
    twice, state = both(Diary(name="a", noise=2.0), Diary(name="b", noise=3.0))
    x, begins = twice.start(noise, LEVELS, state)
    assert begins == 0 and torch.allclose(x, (noise + 5) * scale)
    # One that begins late takes the other's noise, and cannot come first.
    shifted, state = both(Diary(name="a", noise=2.0), Diary(name="b", first=3))
    x, begins = shifted.start(noise, LEVELS, state)
    assert begins == 3 and torch.allclose(x, (noise + 2) * scale)
    late, state = both(Diary(name="a", first=3), Diary(name="b", noise=2.0))
    with pytest.raises(ValueError, match=r"Diary begins late, and Diary changes the noise .* the other way round"):
        late.start(noise, LEVELS, state)


def test_what_cannot_work_together_is_refused_before_anything_is_computed() -> None:
    overwritten = InTurn(first=TimeToMove(tweak=200.0, t_strong=30.0), second=SG)
    message = r"controller\.first\.t_strong: .* down to sigma 40.1, .* from 40.1 on; .* controller\.second\.guided"
    with pytest.raises(ValueError, match=message):
        overwritten.planned_iterations(LEVELS)
    turned = InTurn(first=SG, second=TimeToMove(tweak=200.0, t_strong=30.0))
    with pytest.raises(ValueError, match=r"controller\.second\.t_strong: .* controller\.first\.guided"):
        turned.planned_iterations(LEVELS)
    too_early = InTurn(first=TimeToMove(tweak=10.0, t_strong=5.0), second=SG)
    with pytest.raises(ValueError, match=r"controller\.second\.guided: SGI2V acts up to sigma 40.1, but TimeToMove"):
        too_early.planned_iterations(LEVELS)
    with pytest.raises(ValueError, match=r"both TimeToMove and TimeToMove begin a run"):
        InTurn(first=TTM, second=TTM).planned_iterations(LEVELS)
    with pytest.raises(ValueError, match=r"^controller\.second\.guided: no step of 6"):
        InTurn(second=SGI2V(guided=(900.0, 901.0))).planned_iterations(LEVELS)
    with pytest.raises(ValueError, match=r"^controller\.first\.tweak: no step of 6"):
        InTurn(first=TimeToMove(tweak=1e-4, t_strong=None)).planned_iterations(LEVELS)
    # As published for SVD the two overlap; what the documentation advises does not.
    with pytest.raises(ValueError, match=r"controller\.first\.t_strong"):
        recommended("time-to-move+sg-i2v", {}).planned_iterations(svd_levels(50))
    advised = {"first": {"t_strong": 60.0}, "second": {"guided": [10.0, 55.0]}}
    joined = recommended("time-to-move+sg-i2v", {"time-to-move+sg-i2v": advised})
    assert [k for k, n in enumerate(joined.planned_iterations(svd_levels(50))) if n] == list(range(18, 27))
    # Guided steps before the start are left out, not refused, while some remain.
    some = InTurn(first=TimeToMove(tweak=50.0, t_strong=None), second=SGI2V(guided=(2.0, 300.0)))
    assert some.planned_iterations(LEVELS) == [0, 0, 5, 5, 0, 0]


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
        ({"name": "none+sg-i2v", "lr": 1.0}, r"controller: unknown field 'lr'; known are first, second"),
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
        "sg-i2v": {"lr": 0.5, "guided": [2.0, 20.0]},
        "time-to-move": {"tweak": 9.0, "t_strong": 5.0},
        "time-to-move+sg-i2v": {"second": {"guided": [2.0, 4.0]}},
    }
    joined = recommended("time-to-move+sg-i2v", values)
    assert joined == InTurn(first=TimeToMove(tweak=9.0, t_strong=5.0), second=SGI2V(lr=0.5, guided=(2.0, 4.0)))


def test_what_could_never_act_is_refused_before_anything_runs() -> None:
    """FreeTraj changes attention in the first steps; a run that begins after them has nothing of it."""
    early = FreeTraj(guided=(0.0, 0.1))
    with pytest.raises(ValueError, match=r"controller\.first\.guided: FreeTraj acts up to sigma 700, but TimeToMove"):
        InTurn(first=early, second=TTM).planned_iterations(LEVELS)
    for fine in (FreeTraj(guided=(0.0, 0.9)), FreeTraj(guided=(0.0, 0.1), factor=1.0)):
        pair = InTurn(first=fine, second=TTM)
        assert not any(pair.planned_iterations(LEVELS))
        begins = pair.begins(LEVELS)
        assert begins and not any(pair.acts(LEVELS)[:begins]) and any(pair.acts(LEVELS)) == fine.edits
    late = InTurn(first=TTM, second=FreeTraj(guided=(0.0, 0.9)))
    assert late.changes_noise and not InTurn(first=TTM, second=SG).changes_noise
    with pytest.raises(ValueError, match="begins late, and FreeTraj changes the noise"):
        late.planned_iterations(LEVELS)
    quiet = InTurn(first=TTM, second=FreeTraj(guided=(0.0, 0.9), inject_noise=False))
    assert not any(quiet.planned_iterations(LEVELS))

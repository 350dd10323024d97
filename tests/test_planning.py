"""Places in the denoising in every unit; ranges, schedules, what methods use, and how a video is drawn."""

import dataclasses
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, get_args

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sgi2v.controllers import SGI2V, Controller, DragDiffusion, FreeTraj, InTurn, TimeToMove, controllers
from sgi2v.errors import FieldError
from sgi2v.planning import Range, Sampling, Schedule, Unit, Uses, check_numbers, position, positions, sigmas_of
from sgi2v.step import Level
from test_controllers import flow_levels, svd_levels

UNITS: tuple[Unit, ...] = get_args(Unit)


def preserving_levels(count: int) -> list[Level]:
    """Of a variance-preserving model; the first keeps a little signal."""
    cosines = [math.cos(0.999 * math.pi / 2 * (1 - k / count)) for k in range(count + 1)]
    return [Level(signal=c, noise=math.sqrt(1 - min(c, 1.0) ** 2)) for c in cosines]


SCHEDULES = st.builds(
    lambda kind, count: kind(count),
    st.sampled_from([svd_levels, flow_levels, preserving_levels]),
    st.integers(2, 60),
)
units = st.sampled_from(UNITS)


# ---------------------------------------------------------------- positions


def test_where_a_step_lies_in_every_unit() -> None:
    levels = [Level(signal=1.0, noise=3.0), Level(signal=0.5, noise=0.5), Level(signal=1.0, noise=0.0)]
    wanted = {"sigma": [3.0, 1.0], "noise-level": [0.75, 0.5], "step": [2.0, 1.0], "share": [0.0, 0.5]}
    assert {unit: positions(unit, levels) for unit in UNITS} == wanted
    assert sigmas_of(levels) == "3, 1"
    assert position("sigma", flow_levels(4)[0], 0, 4) == math.inf


@given(levels=SCHEDULES, unit=units)
def test_positions_go_one_way_along_every_schedule(levels: Sequence[Level], unit: Unit) -> None:
    found = positions(unit, levels)
    count = len(levels) - 1
    assert found == [position(unit, levels[k], k, count) for k in range(count)]
    rising = found if unit == "share" else found[::-1]
    assert all(a < b for a, b in pairwise(rising))
    if unit in ("noise-level", "share"):
        assert all(0 <= value <= 1 for value in found)
    if unit == "step":
        assert found == [*range(count, 0, -1)]


# ---------------------------------------------------------------- ranges


@given(levels=SCHEDULES, unit=units, ends=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_a_range_covers_what_lies_between_its_ends_both_included(
    levels: Sequence[Level], unit: Unit, ends: tuple[float, float]
) -> None:
    values = positions(unit, levels)
    # Ends that are steps' own positions: whether an end is included shows only there.
    low, high = sorted(values[min(int(end * len(values)), len(values) - 1)] for end in ends)
    assume(math.isfinite(high))  # pure noise of a model that keeps no signal there
    found = Range(low=low, high=high, unit=unit)
    count = len(values)
    wanted = tuple(low <= value <= high for value in values)
    assert found.steps(levels) == wanted and any(wanted)
    assert tuple(found.covers(levels[k], k, count) for k in range(count)) == wanted
    covered = [k for k in range(count) if wanted[k]]
    assert covered == [*range(covered[0], covered[-1] + 1)], "steps of a range have no gap"
    assert {values[covered[0]], values[covered[-1]]} == {low, high}


@given(levels=SCHEDULES, unit=units, low=st.floats(0, 1e3), length=st.floats(0, 1e3))
def test_a_range_without_a_step_is_refused_and_no_other(
    levels: Sequence[Level], unit: Unit, low: float, length: float
) -> None:
    wanted = [low <= value <= low + length for value in positions(unit, levels)]
    found = Range(low=low, high=low + length, unit=unit)
    if any(wanted):
        assert list(found.steps(levels)) == wanted
        return
    with pytest.raises(FieldError) as caught:
        found.steps(levels)
    assert caught.value.field == "" and f"no step of {len(wanted)} falls inside {found.unit}" in caught.value.problem
    assert caught.value.remedy == f"the steps' sigmas are {sigmas_of(levels)}"


@given(levels=SCHEDULES, unit=units, outer=st.tuples(st.floats(0, 1e3), st.floats(0, 1e3)), cut=st.floats(0, 1))
def test_a_narrower_range_covers_no_step_more(
    levels: Sequence[Level], unit: Unit, outer: tuple[float, float], cut: float
) -> None:
    low, high = sorted(outer)
    wide, count = Range(low=low, high=high, unit=unit), len(levels) - 1
    narrow = Range(low=low + cut * (high - low) / 2, high=high - cut * (high - low) / 2, unit=unit)
    for k in range(count):
        assert wide.covers(levels[k], k, count) or not narrow.covers(levels[k], k, count)


@given(count=st.integers(2, 60), ends=st.tuples(st.integers(0, 59), st.integers(0, 59)))
def test_the_same_steps_can_be_said_in_every_unit(count: int, ends: tuple[int, int]) -> None:
    levels = svd_levels(count)
    assume(max(ends) < count)
    said = {
        unit: Range(low=min(between), high=max(between), unit=unit)
        for unit in UNITS
        if (between := [positions(unit, levels)[end] for end in ends])
    }
    assert len({one.steps(levels) for one in said.values()}) == 1


def test_a_range_that_is_none_is_refused() -> None:
    with pytest.raises(FieldError, match=r"^the lowest value comes first, got 5 1"):
        Range(low=5.0, high=1.0)
    for low, high in ((math.nan, 1.0), (1.0, math.nan), (1.0, math.inf), (-math.inf, 1.0)):
        with pytest.raises(FieldError, match=r"^both values must be finite"):
            Range(low=low, high=high)
    made = Range(low=1.0, high=2.0)
    object.__setattr__(made, "unit", "kelvin")  # run-time type checks would refuse it sooner
    with pytest.raises(FieldError, match=r"unit: 'kelvin' is not known; give one of sigma, noise-level, step, share"):
        made.__post_init__()
    assert str(Range(low=36.0, high=376.0)) == "36 376 sigma"


# ---------------------------------------------------------------- schedules and uses


@pytest.mark.parametrize("kind", controllers().values(), ids=list(controllers()))
@given(count=st.sampled_from([10, 25, 50, 100]))
def test_every_methods_schedule_fits_the_run(kind: type[Controller], count: int) -> None:
    schedule = kind().schedule(svd_levels(count))
    assert len(schedule.iterations) == len(schedule.acts) == count
    assert 0 <= schedule.first < count and 0 <= schedule.overwrites <= count
    assert all(number >= 0 for number in schedule.iterations)
    assert all(acts for acts, number in zip(schedule.acts, schedule.iterations, strict=True) if number)


def test_plain_sampling_is_every_step_and_nothing_done() -> None:
    assert Schedule.plain(svd_levels(3)) == Schedule(iterations=(0, 0, 0), acts=(False,) * 3)
    assert Controller().schedule(svd_levels(3)) == Schedule.plain(svd_levels(3))


flags = st.booleans()
names = st.lists(st.sampled_from(["a:output", "b:self", "c"]), unique=True).map(tuple)
uses = st.builds(
    Uses, features=names, blocks=names, edits=flags, reuses_deep=flags, motions=flags, reference=flags, masks=flags,
    image=flags, weights=names,
)  # fmt: skip


@given(one=uses, two=uses, three=uses)
def test_what_is_used_together_is_all_that_either_uses(one: Uses, two: Uses, three: Uses) -> None:
    both = one | two
    for field in dataclasses.fields(Uses):
        mine, theirs, joined = (getattr(value, field.name) for value in (one, two, both))
        if isinstance(joined, bool):
            assert joined == (mine or theirs)
        else:
            assert joined == (*mine, *(name for name in theirs if name not in mine))
    assert one | one == one == one | Uses() == Uses() | one
    assert (one | two) | three == one | (two | three)


def test_what_our_methods_use() -> None:
    assert Controller().uses() == Uses()
    assert SGI2V().uses() == Uses(features=SGI2V().layers, motions=True)
    assert SGI2V(weighting="mask", reuse_deep=True).uses() == Uses(
        features=SGI2V().layers, motions=True, masks=True, reuses_deep=True
    )
    by = ("edit_spatial", "edit_temporal")
    assert FreeTraj(layers=("up_blocks.1",)).uses() == Uses(
        blocks=("up_blocks.1",), edits=True, motions=True, edited_by=by
    )
    assert TimeToMove().uses() == Uses(motions=True, masks=True, reference=True)
    joined = InTurn(first=FreeTraj(), second=DragDiffusion()).uses()
    both = FreeTraj().uses() | DragDiffusion().uses()
    assert dataclasses.replace(joined, edited_by=both.edited_by) == both and joined.edits and joined.features
    assert joined.edited_by == ("first.edit_spatial", "first.edit_temporal", "second.reference_attention")


# ---------------------------------------------------------------- how a video is drawn, and numbers


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seed": -1}, "seed: must lie in 0"),
        ({"seed": 2**63}, "seed: must lie in 0"),
        ({"num_steps": 0}, "num_steps: must lie in 1..1000, got 0"),
        ({"num_steps": 1001}, "num_steps: must lie in 1..1000, got 1001"),
    ],
)
def test_impossible_sampling_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(FieldError, match=f"^{message}"):
        Sampling(**fields)


def test_the_ends_of_sampling_are_possible() -> None:
    ends: tuple[dict[str, Any], ...] = ({"seed": 0}, {"seed": 2**63 - 1}, {"num_steps": 1}, {"num_steps": 1000})
    for fields in ends:
        assert json.loads(json.dumps(dataclasses.asdict(Sampling(**fields)))) == dataclasses.asdict(Sampling(**fields))


@given(value=st.floats(), low=st.floats(-10, 10))
def test_numbers_are_finite_and_not_too_small(value: float, low: float) -> None:
    @dataclasses.dataclass
    class Given:
        size: float

    def allowed(**wanted: object) -> bool:
        try:
            check_numbers(Given(value), **wanted)  # type: ignore[arg-type]
        except FieldError as error:
            assert error.field == "controller.size"
            return False
        return True

    assert allowed(smallest={"size": low}) == (math.isfinite(value) and value >= low)
    assert allowed(smallest={}, above=("size",)) == (math.isfinite(value) and value > 0)
    assert allowed(smallest={})


def test_a_run_is_planned_without_torch() -> None:
    """So a mistake is answered at once, whatever the method."""
    code = """
import sys
from pathlib import Path
import PIL.Image
from sgi2v.backbones.registry import outline_of
from sgi2v.controllers import COMBINATIONS, controllers, recommended
from sgi2v.pipeline import plan
from sgi2v.scene import Box, Key, Motion, Scene
path = (Key(time=0, x=30, y=30), Key(time=1, x=60, y=40))
motion = Motion(box=Box(left=20, top=20, right=40, bottom=40), path=path)
outline = outline_of()
for name in (*controllers(), *COMBINATIONS):
    scene = Scene(image=PIL.Image.new("RGB", (96, 64)), motions=(motion,))
    method = recommended(name, outline.settings.recommended)
    if not (method.uses().image or method.uses().adapters):  # which this model refuses, and weights that are not here
        plan(scene, outline, controller=method)
assert not {"torch", "diffusers", "transformers"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)

"""Older forms of every method's fields are read as today's; today's are written as version 1 could say them, or not."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sgi2v.controllers import (
    SGI2V,
    Controller,
    DragDiffusion,
    FreeTraj,
    InTurn,
    TimeToMove,
    controller_from_dict,
    controller_to_dict,
    recommended,
)
from sgi2v.controllers.freetraj import lay
from sgi2v.errors import FieldError
from sgi2v.migrations import controller_from_1, controller_to_1, flat, generator_of_1, newer_fields, without_newer
from sgi2v.planning import Range, Unit
from sgi2v.spectrum import low_pass_3d, merge_frequencies_3d

# As version 1 wrote them, with the controller that each meant.
OLD: Mapping[str, tuple[dict[str, object], Controller]] = {
    "sg-i2v, range without a unit": (
        {"name": "sg-i2v", "guided": [2.0, 60]},
        SGI2V(guided=Range(low=2.0, high=60.0, unit="sigma")),
    ),
    "sg-i2v, range with a unit": (
        {"name": "sg-i2v", "guided": [30, 45], "guided_as": "step", "lr": 0.3},
        SGI2V(guided=Range(low=30.0, high=45.0, unit="step"), lr=0.3),
    ),
    "sg-i2v, the unit alone": (
        {"name": "sg-i2v", "guided_as": "step"},
        SGI2V(guided=Range(low=36.0, high=376.0, unit="step")),
    ),
    "sg-i2v, a heat map": ({"name": "sg-i2v", "heatmap": True, "lr": 0.3}, SGI2V(lr=0.3)),
    "sg-i2v, no heat map": ({"name": "sg-i2v", "heatmap": False}, SGI2V(weighting="uniform")),
    "freetraj, range without a unit": (
        {"name": "freetraj", "guided": [0.0, 0.25]},
        FreeTraj(guided=Range(low=0.0, high=0.25, unit="share")),
    ),
    "freetraj, range with a unit": (
        {"name": "freetraj", "guided": [100.0, 700.0], "guided_as": "sigma"},
        FreeTraj(guided=Range(low=100.0, high=700.0, unit="sigma")),
    ),
    "freetraj, the unit alone": ({"name": "freetraj", "guided_as": "share"}, FreeTraj()),
    "time-to-move": (
        {"name": "time-to-move", "tweak": 9.0, "t_strong": 5, "clocks_as": "step"},
        TimeToMove(t_weak=9.0, t_strong=5.0, unit="step"),
    ),
    "time-to-move, from pure noise": ({"name": "time-to-move", "tweak": None}, TimeToMove(t_weak=None)),
    "drag-diffusion": (
        {"name": "drag-diffusion", "at": 0.9, "at_as": "noise-level"},
        DragDiffusion(at=0.9, unit="noise-level"),
    ),
    "none": ({"name": "none"}, Controller()),
    "both in one": (
        {
            "name": "time-to-move+sg-i2v",
            "first": {"name": "time-to-move", "tweak": 80.0, "clocks_as": "sigma"},
            "second": {"guided": [10.0, 25.0], "guided_as": "sigma", "heatmap": False},
        },
        InTurn(
            first=TimeToMove(t_weak=80.0),
            second=SGI2V(guided=Range(low=10.0, high=25.0), weighting="uniform"),
        ),
    ),
}


@pytest.mark.parametrize("form", OLD)
def test_an_old_form_is_read_as_what_it_meant(form: str) -> None:
    old, meant = OLD[form]
    before = repr(old)
    assert controller_from_dict(old) == meant
    assert repr(old) == before, "what was given is not changed"


@pytest.mark.parametrize("form", OLD)
def test_todays_form_is_left_as_it_is(form: str) -> None:
    _, meant = OLD[form]
    said = controller_to_dict(meant)
    assert controller_from_dict(said) == meant
    if not isinstance(meant, InTurn):
        name = str(said.pop("name"))
        assert controller_from_1(name, said) == said


def test_a_range_as_it_is_typed_is_read_too() -> None:
    """``--controller.guided 30 45 step``: two numbers and their unit, in a list or a tuple."""
    wanted = Range(low=30.0, high=45.0, unit="step")
    for typed in ([30, 45, "step"], (30.0, 45.0, "step")):
        assert controller_from_dict({"name": "sg-i2v", "guided": typed}) == SGI2V(guided=wanted)
        assert controller_from_dict({"name": "freetraj", "guided": typed}) == FreeTraj(guided=wanted)


def test_over_another_range_only_what_is_said_changes() -> None:
    """What a model recommends is laid over: a range without a unit keeps the unit there was, and the other way."""
    over = SGI2V(guided=Range(low=2.0, high=9.0, unit="step"), lr=0.5)
    read: Mapping[str, tuple[Mapping[str, object], Range]] = {
        "ends alone": ({"guided": [3, 4]}, Range(low=3.0, high=4.0, unit="step")),
        "unit alone": ({"guided_as": "noise-level"}, Range(low=2.0, high=9.0, unit="noise-level")),
        "both": ({"guided": [3, 4], "guided_as": "sigma"}, Range(low=3.0, high=4.0, unit="sigma")),
        "unit beside an object": (
            {"guided": {"low": 3, "high": 4}, "guided_as": "share"},
            Range(low=3.0, high=4.0, unit="share"),
        ),
        "neither": ({"iterations": 5}, over.guided),
    }
    for values, guided in read.values():
        assert controller_from_dict(values, over=over) == dataclasses.replace(over, guided=guided)
    settings: Mapping[str, Mapping[str, object]] = {
        "sg-i2v": {"guided": [3, 4], "guided_as": "step"},
        "freetraj+sg-i2v": {"second": {"guided": [1, 2]}},
    }
    joined = recommended("freetraj+sg-i2v", settings)
    assert joined == InTurn(first=FreeTraj(), second=SGI2V(guided=Range(low=1.0, high=2.0, unit="step")))


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"name": "sg-i2v", "heatmap": False, "weighting": "mask"}, "heatmap"),
        ({"name": "time-to-move", "tweak": 9.0, "t_weak": 8.0}, "tweak"),
        ({"name": "time-to-move", "unit": "step", "clocks_as": "sigma"}, "clocks_as"),
        ({"name": "drag-diffusion", "at_as": "step", "unit": "sigma"}, "at_as"),
        # A name that another method's field had.
        ({"name": "time-to-move", "at_as": "step"}, "at_as"),
        ({"name": "drag-diffusion", "guided_as": "step"}, "guided_as"),
        ({"name": "none", "guided_as": "step"}, "guided_as"),
    ],
)
def test_an_old_name_beside_the_new_one_or_elsewhere_is_refused(values: dict[str, object], field: str) -> None:
    with pytest.raises(FieldError, match=f"unknown field '{field}'"):
        controller_from_dict(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "sg-i2v", "guided": [1.0, 2.0], "guided_as": "kelvin"}, r"controller\.guided\.unit: 'kelvin'"),
        ({"name": "sg-i2v", "guided": ["low", 2.0]}, r"controller\.guided\.low: 'low' is not a number"),
        ({"name": "freetraj", "guided": [3.0, 2.0]}, r"controller\.guided: the lowest value comes first"),
        ({"name": "time-to-move", "tweak": -1.0}, r"controller\.t_weak: must be"),
        ({"name": "time-to-move", "clocks_as": "share"}, r"controller\.unit: share grows"),
        ({"name": "drag-diffusion", "at_as": 3}, r"controller\.unit: 3 is not known"),
    ],
)
def test_a_mistake_under_an_old_name_is_named_as_today(values: dict[str, object], message: str) -> None:
    with pytest.raises(FieldError, match=f"^{message}"):
        controller_from_dict(values)


# ---------------------------------------------------------------- written as version 1


def ranges(*units: Unit) -> st.SearchStrategy[Range]:
    ends = st.tuples(st.floats(0, 1e6), st.floats(0, 1e6))
    return st.builds(lambda ends, unit: Range(low=min(ends), high=max(ends), unit=unit), ends, st.sampled_from(units))


clocks = st.sampled_from(["sigma", "noise-level", "step"])
methods = st.one_of(
    st.just(Controller()),
    st.builds(
        SGI2V,
        guided=ranges("sigma", "noise-level", "step"),
        lr=st.floats(0, 10),
        weighting=st.sampled_from(["gaussian", "uniform", "mask"]),
        layers=st.just(("mid_block:output",)),
    ),
    st.builds(FreeTraj, guided=ranges(*get_args(Unit)), inject_noise=st.booleans(), layers=st.just(("up_blocks.2",))),
    st.builds(DragDiffusion, at=st.floats(0.01, 0.99), unit=clocks, iterations=st.integers(0, 99)),
    st.builds(TimeToMove, t_weak=st.none() | st.floats(10, 100), t_strong=st.none() | st.floats(1, 10), unit=clocks),
)
combined = methods | st.builds(InTurn, first=methods, second=methods)


def has(said: object, name: str) -> bool:
    """Whether a field of that name is anywhere in what is said."""
    if not isinstance(said, dict):
        return False
    return name in said or any(has(value, name) for value in said.values())


LATER = {
    "loss", "backward", "lr_unit", "clip_gradient", "keep_statistics", "hold_background", "path_parts", "mask_rule",
}  # fmt: skip
"""Fields that methods have gained since."""


@given(controller=combined)
def test_what_version_1_can_say_comes_back(controller: Controller) -> None:
    said = controller_to_dict(controller)
    old = controller_to_1(said, drawn_from_noise=True)
    assert old is not None and old == flat(said)
    assert controller_from_dict(old) == controller
    assert controller_to_1(controller_to_dict(controller_from_dict(old)), drawn_from_noise=True) == old
    for name in ("unit", "t_weak"):
        assert not has(old, name), f"version 1 had no {name}"
    assert set(old) - {"guided_as", "clocks_as", "at_as", "tweak"} == set(said) - {"unit", "t_weak"} - LATER
    draws = any(
        isinstance(one, FreeTraj) and one.inject_noise
        for one in (controller, getattr(controller, "first", None), getattr(controller, "second", None))
    )
    assert (controller_to_1(said) is None) == draws, "version 1 draws FreeTraj's noise from elsewhere"


def test_what_version_1_cannot_say_gives_nothing() -> None:
    for new in (
        SGI2V(guided=Range(low=0.1, high=0.3, unit="share")),
        InTurn(second=SGI2V(guided=Range(low=0.1, high=0.3, unit="share"))),
        InTurn(first=InTurn(second=SGI2V(guided=Range(low=0.1, high=0.3, unit="share"))), second=Controller()),
        InTurn(first=FreeTraj(), second=SGI2V()),
        SGI2V(keep_statistics=True),
        InTurn(second=SGI2V(backward="direct")),
        SGI2V(path_parts=2),
        TimeToMove(mask_rule="published"),
        InTurn(first=TimeToMove(mask_rule="published"), second=SGI2V()),
    ):
        assert controller_to_1(controller_to_dict(new)) is None, new
    assert controller_to_1({"name": "of-another-package", "speed": 3}) is None
    assert controller_to_1({"name": "none+x", "first": {"name": "none"}, "second": {"name": "x"}}) is None


def test_what_version_2_cannot_say_is_named_and_the_rest_left_out() -> None:
    for controller in (TimeToMove(), InTurn(first=TimeToMove(), second=SGI2V()), SGI2V()):
        said = without_newer(controller_to_dict(controller))
        assert not has(said, "mask_rule") and newer_fields(said) == []
        assert controller_from_dict(said) == controller
    new = TimeToMove(mask_rule="published")
    assert newer_fields(without_newer(controller_to_dict(new))) == ["controller.mask_rule"]
    both = without_newer(controller_to_dict(InTurn(first=new, second=SGI2V())))
    assert newer_fields(both) == ["controller.first.mask_rule"]


# ---------------------------------------------------------------- FreeTraj's draws in version 1


def noise_of_old(controller: FreeTraj, noise: torch.Tensor, cells: np.ndarray) -> torch.Tensor:
    """The noise laid along the paths as version 1 drew it, written out."""
    digest = hashlib.sha256(noise.numpy().tobytes()).digest()
    seed = sum(byte << (8 * place) for place, byte in enumerate(digest[:7]))
    generator = torch.Generator().manual_seed(seed)
    patches = []
    for track in cells:
        rows = max(int(bottom - top) for top, _, bottom, _ in track)
        columns = max(int(right - left) for _, left, _, right in track)
        patches.append(torch.randn(noise.shape[1], rows, columns, generator=generator))
    laid = torch.randn(noise.shape, generator=generator) if controller.merge_noise else noise.clone()
    for patch, track in zip(patches, cells, strict=True):
        lay(laid, patch, track)
    if not controller.merge_noise:
        return laid
    frames, _, rows, columns = noise.shape
    mask = low_pass_3d(frames, rows, columns, controller.spatial_cutoff, controller.temporal_cutoff)
    return merge_frequencies_3d(laid, noise, mask)


@pytest.mark.parametrize("merge", [True, False])
@given(seed=st.integers(0, 2**31))
def test_a_run_of_version_1_draws_freetrajs_noise_as_it_did(merge: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    corner, size = rng.integers(-3, 8, (2, 3, 2)), rng.integers(1, 5, (2, 3, 2))
    cells = np.concatenate([corner, corner + size], axis=-1)
    noise = torch.randn(3, 4, 6, 8, generator=torch.Generator().manual_seed(seed))
    controller = FreeTraj(merge_noise=merge)
    found = controller.steered_noise(noise, cells, generator_of_1(noise))
    assert torch.equal(found, noise_of_old(controller, noise, cells))


def test_the_generator_of_version_1_knows_the_noise_whatever_its_layout() -> None:
    noise = torch.randn(2, 4, 3, 5)
    state = generator_of_1(noise).get_state()
    assert torch.equal(generator_of_1(noise.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2)).get_state(), state)
    half = noise.half()
    assert torch.equal(generator_of_1(half).get_state(), generator_of_1(half.float()).get_state())
    other = noise.clone()
    other[0, 0, 0, 0] += 1e-3
    assert not torch.equal(generator_of_1(other).get_state(), state)

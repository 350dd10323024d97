"""Controllers by name, their records, SG-I2V's fields and where it acts."""

import dataclasses
import inspect
import math
from typing import get_args

import PIL.Image
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sgi2v.controllers import (
    SGI2V,
    Controller,
    controller_from_dict,
    controller_name,
    controller_to_dict,
    controllers,
    recommended,
)
from sgi2v.grid import Tracks
from sgi2v.planning import Range, Unit
from sgi2v.step import Level
from tiny import load_svd, setup_of, tiny_svd


def flow_levels(count: int) -> list[Level]:
    return [Level(signal=k / count, noise=1 - k / count) for k in range(count + 1)]


def svd_levels(count: int) -> list[Level]:
    high, low = 700 ** (1 / 7), 0.002 ** (1 / 7)
    sigmas = [(high + k / (count - 1) * (low - high)) ** 7 for k in range(count)]
    return [Level(signal=1.0, noise=s) for s in [*sigmas, 0.0]]


def test_the_base_controller_steers_nothing() -> None:
    backbone = load_svd(tiny_svd(2, light=True), device="cpu")
    tracks = Tracks(image=PIL.Image.new("RGB", (24, 24)), tracks=())
    setup = setup_of(backbone, tracks, backbone.grid(24, 24, 2), num_steps=5)
    controller, noise = Controller(), torch.randn(2, 4, 3, 3)
    state = controller.prepare(setup)
    assert torch.allclose(controller.start(noise, state), noise * math.sqrt(700**2 + 1))
    flowing = controller.prepare(dataclasses.replace(setup, levels=flow_levels(4)))
    assert torch.equal(controller.start(noise, flowing), noise)
    schedule = controller.schedule(setup.levels)
    assert (schedule.first, schedule.overwrites, schedule.changes_noise) == (0, 0, False)
    assert schedule.iterations == (0,) * 5 and schedule.acts == (False,) * 5


def test_the_default_range_is_the_published_one_in_every_unit() -> None:
    levels = svd_levels(50)
    acts = tuple(30 <= 50 - k <= 45 for k in range(50))
    for guided in (
        SGI2V().guided,
        Range(low=30.0, high=45.0, unit="step"),
        Range(low=0.9735, high=0.9974, unit="noise-level"),
        Range(low=0.1, high=0.4, unit="share"),
    ):
        schedule = SGI2V(guided=guided).schedule(levels)
        assert schedule.acts == acts, guided
        assert schedule.iterations == tuple(5 * acting for acting in acts)


def test_a_range_without_a_step_is_an_error_that_shows_the_sigmas() -> None:
    with pytest.raises(ValueError, match=r"controller\.guided: no step of 2 .* sigmas are 700, "):
        SGI2V().schedule(svd_levels(2))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("iterations", 0),
        ("lr", -0.1),
        ("lr", math.inf),
        ("weight_decay", math.nan),
        ("cutoff", -1.0),
        ("heatmap_std", 0.0),
        ("layers", ()),
    ],
)
def test_a_bad_field_is_named(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"controller\.{field}"):
        SGI2V(**{field: value})  # type: ignore[arg-type]


ranges = st.builds(
    lambda ends, unit: Range(low=min(ends), high=max(ends), unit=unit),
    st.tuples(st.floats(0, 1e9), st.floats(0, 1e9)),
    st.sampled_from(get_args(Unit)),
)


@given(
    lr=st.floats(0, 10),
    iterations=st.integers(1, 50),
    cutoff=st.floats(0, 2),
    guided=ranges,
)
def test_a_record_gives_the_same_controller_back(lr: float, iterations: int, cutoff: float, guided: Range) -> None:
    controller = SGI2V(lr=lr, iterations=iterations, cutoff=cutoff, guided=guided)
    assert controller_from_dict(controller_to_dict(controller)) == controller


def test_names_and_records_that_are_wrong_say_so() -> None:
    assert [controller_name(kind()) for kind in controllers().values()] == list(controllers())
    with pytest.raises(ValueError, match="known are none, sg-i2v"):
        controller_from_dict({"name": "magic"})
    with pytest.raises(ValueError, match=r"unknown 'sgi2v'; did you mean sg-i2v\?"):
        controller_from_dict({"name": "sgi2v"})
    with pytest.raises(ValueError, match=r"controller\.name: is not a text"):
        controller_from_dict({"lr": 0.1})
    with pytest.raises(ValueError, match="unknown field 'speed'"):
        controller_from_dict({"name": "sg-i2v", "speed": 3})
    with pytest.raises(ValueError, match=r"controller\.lr: 'fast' is not a number"):
        controller_from_dict({"name": "sg-i2v", "lr": "fast"})
    with pytest.raises(ValueError, match=r"controller\.iterations: 2\.5 is not a whole number"):
        controller_from_dict({"name": "sg-i2v", "iterations": 2.5})


@pytest.mark.parametrize("name", ["sg-i2v", "freetraj"])
@pytest.mark.parametrize(
    ("guided", "message"),
    [
        (3, ": 3 is no object; give one with low, high, unit"),
        ([1.0], r": \[1\.0\] is no object"),
        ({"low": 1.0, "high": "much"}, r"\.high: 'much' is not a number"),
        ({"low": 1.0, "high": math.nan}, r"\.high: nan is not finite"),
        ({"low": 1.0, "high": 2.0, "unit": "kelvin"}, r"\.unit: 'kelvin' is not known"),
        ({"low": 1.0, "high": 2.0, "width": 3.0}, r"\.width: there is no such field"),
        ({"low": 5.0, "high": 1.0}, ": the lowest value comes first, got 5 1"),
    ],
)
def test_a_range_that_is_none_says_so(name: str, guided: object, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^controller\.guided{message}"):
        controller_from_dict({"name": name, "guided": guided})


def test_a_models_recommendation_replaces_only_what_it_names() -> None:
    guided = {"low": 2, "high": 60.0, "unit": "sigma"}
    controller = recommended("sg-i2v", {"sg-i2v": {"guided": guided, "lr": 0.5}, "none": {}})
    assert controller == SGI2V(guided=Range(low=2.0, high=60.0), lr=0.5)
    assert recommended("none", {}) == Controller()


def test_every_field_is_documented_for_the_command_line() -> None:
    for kind in controllers().values():
        own = (parent for parent in kind.__mro__ if parent.__module__.startswith("sgi2v."))
        text = "".join(map(inspect.getsource, own))
        for field in dataclasses.fields(kind):
            after = text.split(f"    {field.name}:", 1)[1].split("\n", 1)[1]
            assert after.lstrip().startswith('"""'), f"{kind.__name__}.{field.name} has no docstring"

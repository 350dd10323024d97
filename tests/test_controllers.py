"""Controllers by name, their records, SG-I2V's fields and where it acts."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sgi2v.backbones import Level
from sgi2v.controllers import (
    CONTROLLERS,
    SGI2V,
    Controller,
    controller_from_dict,
    controller_name,
    controller_to_dict,
    recommended,
)


def flow_levels(count: int) -> list[Level]:
    return [Level(signal=k / count, noise=1 - k / count) for k in range(count + 1)]


def svd_levels(count: int) -> list[Level]:
    high, low = 700 ** (1 / 7), 0.002 ** (1 / 7)
    sigmas = [(high + k / (count - 1) * (low - high)) ** 7 for k in range(count)]
    return [Level(signal=1.0, noise=s) for s in [*sigmas, 0.0]]


def test_the_base_controller_steers_nothing() -> None:
    noise = torch.randn(2, 4, 3, 3)
    x, first = Controller().start(noise, svd_levels(5), None)
    assert first == 0 and torch.allclose(x, noise * math.sqrt(700**2 + 1))
    assert torch.equal(Controller().start(noise, flow_levels(4), None)[0], noise)
    assert not any(Controller().planned_iterations(svd_levels(5)))


def test_the_default_range_is_the_published_one_in_every_unit() -> None:
    levels = svd_levels(50)
    wanted = [5 if 30 <= 50 - k <= 45 else 0 for k in range(50)]
    assert list(SGI2V().planned_iterations(levels)) == wanted
    assert list(SGI2V(guided=(30.0, 45.0), guided_as="step").planned_iterations(levels)) == wanted
    assert list(SGI2V(guided=(0.9735, 0.9974), guided_as="noise-level").planned_iterations(levels)) == wanted


def test_a_range_without_a_step_is_an_error_that_shows_the_sigmas() -> None:
    with pytest.raises(ValueError, match=r"controller\.guided: no step of 2 .* sigmas are 700, "):
        SGI2V(guided=(36.0, 376.0)).planned_iterations(svd_levels(2))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("guided", (5.0, 1.0)),
        ("guided", (math.nan, 1.0)),
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


@given(
    lr=st.floats(0, 10),
    iterations=st.integers(1, 50),
    cutoff=st.floats(0, 2),
    unit=st.sampled_from(["sigma", "noise-level", "step"]),
)
def test_a_record_gives_the_same_controller_back(lr: float, iterations: int, cutoff: float, unit: str) -> None:
    controller = SGI2V(lr=lr, iterations=iterations, cutoff=cutoff, guided_as=unit)  # type: ignore[arg-type]
    assert controller_from_dict(controller_to_dict(controller)) == controller


def test_a_record_from_before_there_were_masks_is_read() -> None:
    assert controller_from_dict({"name": "sg-i2v", "heatmap": True, "lr": 0.3}) == SGI2V(lr=0.3)
    assert controller_from_dict({"name": "sg-i2v", "heatmap": False}) == SGI2V(weighting="uniform")
    with pytest.raises(ValueError, match="unknown field 'heatmap'"):
        controller_from_dict({"name": "sg-i2v", "heatmap": False, "weighting": "mask"})


def test_names_and_records_that_are_wrong_say_so() -> None:
    assert [controller_name(kind()) for kind in CONTROLLERS.values()] == list(CONTROLLERS)
    with pytest.raises(ValueError, match="known are none, sg-i2v"):
        controller_from_dict({"name": "magic"})
    with pytest.raises(ValueError, match="unknown field 'speed'"):
        controller_from_dict({"name": "sg-i2v", "speed": 3})
    with pytest.raises(ValueError, match=r"controller\.lr: 'fast' is not a number"):
        controller_from_dict({"name": "sg-i2v", "lr": "fast"})
    with pytest.raises(ValueError, match=r"controller\.iterations: 2\.5 is not a whole number"):
        controller_from_dict({"name": "sg-i2v", "iterations": 2.5})
    with pytest.raises(ValueError, match=r"controller\.guided: 3 is not a list"):
        controller_from_dict({"name": "sg-i2v", "guided": 3})


def test_a_models_recommendation_replaces_only_what_it_names() -> None:
    controller = recommended("sg-i2v", {"sg-i2v": {"guided": [2.0, 60.0], "lr": 0.5}, "none": {}})
    assert controller == SGI2V(guided=(2.0, 60.0), lr=0.5)
    assert recommended("none", {}) == Controller()


def test_every_field_is_documented_for_the_command_line() -> None:
    source = {name: kind for name, kind in CONTROLLERS.items() if dataclasses.fields(kind)}
    import inspect

    for kind in source.values():
        text = inspect.getsource(kind)
        for field in dataclasses.fields(kind):
            after = text.split(f"    {field.name}:", 1)[1].split("\n", 1)[1]
            assert after.lstrip().startswith('"""'), f"{kind.__name__}.{field.name} has no docstring"

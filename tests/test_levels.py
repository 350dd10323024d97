"""Stable Video Diffusion's schedule as the outline works it out: the scheduler's own sigmas, to the last bit."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from diffusers import EulerDiscreteScheduler

from sgi2v.backbones.registry import BUNDLED, outline_of
from sgi2v.backbones.svd.outline import SVDOutline
from tiny import tiny_svd


def outline(source: str | Path, **scheduler: object) -> SVDOutline:
    """A model's outline, fields of its scheduler changed."""
    found = outline_of(source)
    assert isinstance(found, SVDOutline)
    return dataclasses.replace(found, scheduler={**found.scheduler, **scheduler})


def sigmas(config: dict[str, Any], num_steps: int) -> list[float]:
    scheduler = EulerDiscreteScheduler.from_config(config)
    scheduler.set_timesteps(num_steps)
    return [float(sigma) for sigma in scheduler.sigmas]


@pytest.mark.parametrize("source", [BUNDLED, "svd"])
def test_levels_are_the_schedulers_to_the_bit(source: str) -> None:
    """Of the bundled model, which begins at less noise, and of SVD as it is shipped."""
    found = outline(BUNDLED if source == BUNDLED else tiny_svd(2, light=True))
    for num_steps in range(1, 61):
        levels = found.levels(num_steps)
        assert [level.noise for level in levels] == sigmas(dict(found.scheduler), num_steps), num_steps
        assert all(level.signal == 1 for level in levels) and levels[-1].noise == 0


def test_the_two_schedules_are_not_the_same() -> None:
    """Or comparing both would show nothing more."""
    assert outline(BUNDLED).levels(5)[0] != outline(tiny_svd(2, light=True)).levels(5)[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"use_karras_sigmas": False},
        {"sigma_min": None, "sigma_max": None},
        {"final_sigmas_type": "sigma_min", "sigma_max": 80.0},
        {"sigma_max": 80, "sigma_min": 1},
    ],
    ids=["no Karras", "no ends", "another end", "whole numbers"],
)
def test_levels_of_other_schedulers_are_theirs_too(changes: dict[str, object]) -> None:
    found = outline(BUNDLED, **changes)
    for num_steps in (1, 2, 7, 25):
        wanted = sigmas(dict(found.scheduler), num_steps)
        assert [level.noise for level in found.levels(num_steps)] == wanted

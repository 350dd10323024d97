"""Levels and timesteps of video transformers against diffusers' own schedulers."""

import json
import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from hypothesis import given
from hypothesis import strategies as st

from sgi2v.backbones.cogvideox.schedule import DDIMLevel, check_ddim_schedule, ddim_levels, timestep_of
from sgi2v.backbones.dit.schedules import check_flow_schedule, flow_levels, flow_timestep
from sgi2v.errors import FieldError
from sgi2v.solvers import euler
from sgi2v.step import Level

NUMS = (2, 3, 7, 8, 13, 20, 25, 30, 37, 40, 49, 50, 64, 99, 100)
FILE = Path("scheduler_config.json")


def written(scheduler: Any) -> dict[str, Any]:
    """The configuration as a folder holds it."""
    config: dict[str, Any] = json.loads(scheduler.to_json_string())
    return config


def noises(levels: Any) -> np.ndarray:
    """Float32, as the schedulers keep them."""
    return np.array([level.noise for level in levels], dtype=np.float32)


def told(levels: Any) -> list[float | None]:
    """Timesteps of all levels but the last."""
    return [level.timestep for level in levels][:-1]


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0, 8.0, 12.0])
def test_unipc_to_the_bit(shift: float) -> None:
    theirs = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
    config = written(theirs)
    check_flow_schedule(config, FILE)
    for num_steps in NUMS:
        theirs.set_timesteps(num_steps)
        ours = flow_levels(config, num_steps, 100)
        assert np.array_equal(noises(ours), theirs.sigmas.numpy())
        assert told(ours) == theirs.timesteps.tolist()


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0, 8.0])
def test_flow_match_to_the_bit(shift: float) -> None:
    theirs = FlowMatchEulerDiscreteScheduler(shift=shift)
    config = written(theirs)
    check_flow_schedule(config, FILE)
    for num_steps in NUMS:
        theirs.set_timesteps(num_steps)
        ours = flow_levels(config, num_steps, 100)
        assert np.array_equal(noises(ours), theirs.sigmas.numpy())
        assert told(ours) == theirs.timesteps.tolist()


@pytest.mark.parametrize("num_tokens", [18, 1024, 4290, 7392])
@pytest.mark.parametrize("terminal", [0.1, None])
def test_flow_match_that_shifts_by_the_clips_length_to_the_bit(num_tokens: int, terminal: float | None) -> None:
    theirs = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024, max_image_seq_len=4096,
        shift_terminal=terminal,
    )  # fmt: skip
    config = written(theirs)
    check_flow_schedule(config, FILE)
    slope = (2.05 - 0.95) / (4096 - 1024)
    for num_steps in NUMS:
        theirs.set_timesteps(
            sigmas=np.linspace(1.0, 1 / num_steps, num_steps), mu=num_tokens * slope + (0.95 - slope * 1024)
        )
        ours = flow_levels(config, num_steps, num_tokens)
        assert np.array_equal(noises(ours), theirs.sigmas.numpy())
        assert told(ours) == theirs.timesteps.tolist()
    assert [level.noise for level in flow_levels(config, 1, num_tokens)] == [1.0, 0.0]


@pytest.mark.parametrize("made", [CogVideoXDDIMScheduler, CogVideoXDPMScheduler])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_ddim_to_the_bits_that_networks_see(made: Any, shift: float) -> None:
    theirs = made(
        prediction_type="v_prediction", timestep_spacing="trailing", rescale_betas_zero_snr=True, snr_shift_scale=shift
    )
    config = written(theirs)
    check_ddim_schedule(config, FILE)
    for num_steps in (*NUMS, 1, 500, 1000):
        theirs.set_timesteps(num_steps)
        ours = ddim_levels(config, num_steps)
        assert told(ours) == theirs.timesteps.tolist()[:num_steps]
        kept = theirs.alphas_cumprod[theirs.timesteps[:num_steps]]
        # torch's vectors and numpy's differ in the last bits of a float64.
        assert np.abs(np.array([level.signal for level in ours[:-1]]) - kept.sqrt().numpy()).max() < 1e-14
        assert np.abs(np.array([level.noise for level in ours[:-1]]) - (1 - kept).sqrt().numpy()).max() < 1e-14
        assert (ours[0].signal, ours[0].noise) == (0, 1) and (ours[-1].signal, ours[-1].noise) == (1, 0)
        assert all(isinstance(level, DDIMLevel) and level.num_steps == num_steps for level in ours)


@pytest.mark.parametrize(("num_steps", "apart"), [(10, 1e-5), (50, 1e-5), (30, 0.05)])
def test_our_step_is_ddims_where_the_steps_divide_those_of_training(num_steps: int, apart: float) -> None:
    theirs = CogVideoXDDIMScheduler(
        prediction_type="v_prediction", timestep_spacing="trailing", rescale_betas_zero_snr=True, snr_shift_scale=1.0,
        clip_sample=False,
    )  # fmt: skip
    theirs.set_timesteps(num_steps)
    levels = ddim_levels(written(theirs), num_steps)
    worst = 0.0
    for index, (level, coming) in enumerate(pairwise(levels)):
        x, velocity = torch.randn(2, 3, 4, 4, 4)
        (stepped,) = theirs.step(velocity, theirs.timesteps[index], x, return_dict=False)[:1]
        ours = euler(x, level.signal * x - level.noise * velocity, level, coming)
        worst = max(worst, float((ours - stepped).abs().max()))
    assert worst < apart


def test_a_level_that_is_no_step_has_the_nearest_timestep() -> None:
    config = written(
        CogVideoXDDIMScheduler(prediction_type="v_prediction", timestep_spacing="trailing", rescale_betas_zero_snr=True)
    )
    levels = ddim_levels(config, 1000)
    for level in (levels[0], levels[1], levels[500], levels[999]):
        assert timestep_of(config, level) == level.timestep
        assert timestep_of(config, Level(signal=level.signal, noise=level.noise)) == level.timestep
    first, second = levels[400], levels[401]
    assert first.timestep is not None
    for share in (0.4, 0.6):
        angle = sum(
            weight * math.atan2(level.noise, level.signal)
            for weight, level in ((1 - share, first), (share, second))
        )  # fmt: skip
        between = Level(signal=math.cos(angle), noise=math.sin(angle))
        assert timestep_of(config, between) == first.timestep - round(share)


@given(st.floats(0.001, 1.0))
def test_flow_is_told_1000_s_between_two_steps(noise: float) -> None:
    assert flow_timestep(Level(signal=1 - noise, noise=noise)) == 1000 * noise
    assert flow_timestep(Level(signal=1 - noise, noise=noise, timestep=7.0)) == 7.0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"_class_name": "DDIMScheduler"}, "CogVideoXDDIMScheduler"),
        ({"prediction_type": "epsilon"}, "prediction_type"),
        ({"timestep_spacing": "leading"}, "timestep_spacing"),
        ({"rescale_betas_zero_snr": False}, "rescale_betas_zero_snr"),
        ({"beta_schedule": "linear"}, "beta_schedule"),
        ({"trained_betas": [0.1]}, "trained_betas"),
        ({"set_alpha_to_one": False}, "set_alpha_to_one"),
        ({"num_train_timesteps": 0}, "num_train_timesteps"),
        ({"beta_end": None}, "beta_end"),
        ({"snr_shift_scale": 0}, "snr_shift_scale"),
    ],
)
def test_another_ddim_schedule_is_refused(change: Mapping[str, object], said: str) -> None:
    config = written(
        CogVideoXDDIMScheduler(prediction_type="v_prediction", timestep_spacing="trailing", rescale_betas_zero_snr=True)
    )
    with pytest.raises(FieldError, match=said) as caught:
        check_ddim_schedule({**config, **change}, FILE)
    assert str(FILE) in str(caught.value) and "\n" not in str(caught.value)


def test_more_steps_than_of_training_are_refused() -> None:
    config = written(CogVideoXDDIMScheduler())
    with pytest.raises(FieldError, match="at most 1000"):
        ddim_levels(config, 1001)

"""Noise schedules of video transformers, worked out from a scheduler's configuration without importing diffusers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float32

from sgi2v.backbones.fields import check_values, number, positive, wrong
from sgi2v.errors import FieldError
from sgi2v.records import Json
from sgi2v.step import Level

_TRAIN: Final = 1000
"""Steps a network was trained with; the timestep of pure noise."""
_OTHER: Final = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "invert_sigmas")


def check_flow_schedule(config: Json, file: Path) -> None:
    """FieldError naming file and field for a scheduler whose levels are not the two known flow-matching ones."""
    wanted: dict[str, object] = dict.fromkeys(_OTHER, False)
    match config.get("_class_name"):
        case "UniPCMultistepScheduler":
            wanted |= {
                "use_flow_sigmas": True,
                "prediction_type": "flow_prediction",
                "final_sigmas_type": "zero",
                "use_dynamic_shifting": False,
            }
            numbers: tuple[str, ...] = ("flow_shift",)
        case "FlowMatchEulerDiscreteScheduler":
            wanted |= {"stochastic_sampling": False, "time_shift_type": "exponential"}
            dynamic = ("base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len")
            numbers = dynamic if config.get("use_dynamic_shifting") else ("shift",)
        case other:
            raise FieldError(
                "backbone",
                f"{file}: _class_name {other!r} is no scheduler whose levels are known",
                "use UniPCMultistepScheduler or FlowMatchEulerDiscreteScheduler",
            )
    check_values(config, wanted, file)
    for name in numbers:
        positive(config, name, file)
    if len(numbers) > 1 and not config["base_image_seq_len"] < config["max_image_seq_len"]:
        raise wrong(file, "max_image_seq_len", "be above base_image_seq_len", config["max_image_seq_len"])
    if config.get("shift_terminal") is not None and positive(config, "shift_terminal", file) >= 1:
        raise wrong(file, "shift_terminal", "be null or below 1", config["shift_terminal"])
    if number(config, "num_train_timesteps", file, _TRAIN) != _TRAIN:
        raise wrong(file, "num_train_timesteps", f"be {_TRAIN}", config["num_train_timesteps"])


def flow_levels(config: Json, num_steps: int, num_tokens: int) -> Sequence[Level]:
    """Levels ``x = (1 - s) x0 + s noise`` of a checked scheduler, to the bit as diffusers has them, then 0.

    UniPC's are told to the network as whole numbers, flow matching's as they are. ``num_tokens`` shifts a dynamic
    schedule: the longer the clip, the more of it is spent at high noise (Esser et al., arXiv 2403.03206, section
    5.3.2).
    """
    if config["_class_name"] == "UniPCMultistepScheduler":
        even = np.linspace(1, 1 / _TRAIN, num_steps + 1)[:-1]
        shift = config["flow_shift"]
        shifted = shift * even / (1 + (shift - 1) * even)
        terminal = config.get("shift_terminal")
        wide = _stretched(shifted, terminal) if terminal else shifted
        if abs(wide[0] - 1) < 1e-6:
            wide[0] -= 1e-6
        told = (wide * _TRAIN).astype(np.int64)
        noise = wide.astype(np.float32)
    else:
        noise = _flow_match(config, num_steps, num_tokens)
        told = noise * np.float32(_TRAIN)
    return [
        *(Level(signal=1 - float(s), noise=float(s), timestep=float(t)) for s, t in zip(noise, told, strict=True)),
        Level(signal=1.0, noise=0.0, timestep=0.0),
    ]


def _flow_match(config: Json, num_steps: int, num_tokens: int) -> Float32[np.ndarray, " n"]:
    terminal = config.get("shift_terminal")
    if config.get("use_dynamic_shifting"):
        even: np.ndarray = np.linspace(1.0, 1 / num_steps, num_steps).astype(np.float32)
        low, high = config["base_image_seq_len"], config["max_image_seq_len"]
        slope = (config["max_shift"] - config["base_shift"]) / (high - low)
        power = math.exp(num_tokens * slope + (config["base_shift"] - slope * low))
        shifted = power / (power + (1 / even - 1))
    else:
        shift = config["shift"]
        least = np.float32(1) / np.float32(_TRAIN)
        # The lowest level is shifted when the scheduler is made, and all of them once more when it is used.
        least = np.float32(shift) * least / (1 + np.float32(shift - 1) * least)
        even = np.linspace(_TRAIN, float(least) * _TRAIN, num_steps) / _TRAIN
        shifted = shift * even / (1 + (shift - 1) * even)
    return (_stretched(shifted, terminal) if terminal else shifted).astype(np.float32)


def _stretched(shifted: np.ndarray, terminal: float) -> np.ndarray:
    """Levels drawn out so that the last is ``terminal``."""
    signal = 1 - shifted
    if signal[-1] == 0:  # a single step, which diffusers makes no number of
        return shifted
    stretched: np.ndarray = 1 - signal / (signal[-1] / (1 - terminal))
    return stretched


def flow_timestep(level: Level) -> float:
    """Timestep of a level of flow matching: the schedule's own, or for one that is no step of it 1000 s."""
    return _TRAIN * level.noise if level.timestep is None else level.timestep

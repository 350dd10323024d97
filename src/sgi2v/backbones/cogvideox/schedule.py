"""CogVideoX's noise schedule: variance preserving, no signal at its first level, whole timesteps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np

from sgi2v.backbones.fields import number, positive, wrong
from sgi2v.errors import FieldError
from sgi2v.records import Json
from sgi2v.step import Level

_CLASSES: Final = ("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler")


@dataclass(frozen=True, kw_only=True)
class DDIMLevel(Level):
    """A level that knows of how many steps it is one, which dynamic guidance goes by."""

    num_steps: int


def check_ddim_schedule(config: Json, file: Path) -> None:
    """FieldError naming file and field for a scheduler whose levels are not those below."""
    if config.get("_class_name") not in _CLASSES:
        raise FieldError(
            "backbone",
            f"{file}: _class_name {config.get('_class_name')!r} is no scheduler whose levels are known",
            f"use {' or '.join(_CLASSES)}",
        )
    wanted = {
        "prediction_type": "v_prediction",
        "timestep_spacing": "trailing",
        "rescale_betas_zero_snr": True,
        "beta_schedule": "scaled_linear",
        "trained_betas": None,
        "set_alpha_to_one": True,
    }
    for name, value in wanted.items():
        if config.get(name, value if name in ("trained_betas", "set_alpha_to_one") else None) != value:
            raise FieldError("backbone", f"{file}: {name} must be {value!r}, got {config.get(name)!r}")
    if number(config, "num_train_timesteps", file) < 2:
        raise wrong(file, "num_train_timesteps", "be 2 or more", 1)
    for name in ("beta_start", "beta_end", "snr_shift_scale"):
        if positive(config, name, file) >= 1 and name != "snr_shift_scale":
            raise wrong(file, name, "be below 1", config[name])


def ddim_levels(config: Json, num_steps: int) -> Sequence[Level]:
    """Levels ``x = sqrt(abar) x0 + sqrt(1 - abar) noise`` at trailing timesteps, the first all noise, then none.

    The last step of each is DDIM's (arXiv 2010.02502). Where ``num_steps`` does not divide the steps of training,
    diffusers aims each step a little beside the level at which it then asks the network; here it arrives there.
    """
    signal, noise = _table(config)
    trained = len(signal)
    if num_steps > trained:
        raise FieldError("num_steps", f"must be at most {trained}, got {num_steps}")
    told = np.round(np.arange(trained, 0, -trained / num_steps)).astype(np.int64)[:num_steps] - 1
    return [
        *(
            DDIMLevel(signal=float(signal[t]), noise=float(noise[t]), timestep=float(t), num_steps=num_steps)
            for t in told
        ),
        DDIMLevel(signal=1.0, noise=0.0, timestep=0.0, num_steps=num_steps),
    ]


def timestep_of(config: Json, level: Level) -> float:
    """The level's own timestep; of one that is no step, on the line, that of training nearest in noise to signal."""
    if level.timestep is not None:
        return level.timestep
    signal, noise = _table(config)
    angles = np.arctan2(noise, signal)
    return float(np.abs(angles - math.atan2(level.noise, level.signal)).argmin())


def _table(config: Json) -> tuple[np.ndarray, np.ndarray]:
    names = ("num_train_timesteps", "beta_start", "beta_end", "snr_shift_scale")
    return _mixtures(*(config[name] for name in names))


@lru_cache(maxsize=8)
def _mixtures(trained: int, low: float, high: float, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Signal and noise at each timestep of training, in float64: betas, SD3's shift of the ratio of signal to noise,
    and no signal at the end (arXiv 2305.08891, algorithm 1)."""
    start, stop = low**0.5, high**0.5
    width = (stop - start) / (trained - 1)
    steps = np.arange(trained)
    # From both ends to the middle, as torch's linspace does, so that the last bit is the same.
    roots = np.where(steps < trained // 2, start + width * steps, stop - width * (trained - 1 - steps))
    kept = np.cumprod(1 - roots**2)
    kept = kept / (shift + (1 - shift) * kept)
    root = np.sqrt(kept)
    first, last = root[0], root[-1]
    kept = ((root - last) * (first / (first - last))) ** 2
    return np.sqrt(kept), np.sqrt(1 - kept)

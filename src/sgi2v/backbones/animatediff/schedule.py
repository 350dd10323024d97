"""DDIM's noise schedule of Stable Diffusion 1.5: variance preserving, whole timesteps, some signal at the first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
from jaxtyping import Int64

from sgi2v.backbones.fields import Config, check_values, flag, number, positive, wrong
from sgi2v.errors import FieldError
from sgi2v.records import Json
from sgi2v.step import Level

PUBLISHED: Final = MappingProxyType(
    {
        "_class_name": "DDIMScheduler", "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012,
        "beta_schedule": "linear", "steps_offset": 1, "clip_sample": False,
    }
)  # fmt: skip
"""Image Conductor's and AnimateDiff's scheduler."""
_CHOICES: Final = (
    ("beta_schedule", ("linear", "scaled_linear")),
    ("timestep_spacing", ("leading", "linspace", "trailing")),
)


def check_schedule(config: Config, file: Path) -> None:
    """FieldError naming file and field for a scheduler whose levels are not those below."""
    wanted = {
        "_class_name": "DDIMScheduler",
        "prediction_type": "epsilon",
        "trained_betas": None,
        "clip_sample": False,
        "thresholding": False,
        "rescale_betas_zero_snr": False,
    }
    if config.get("_class_name") != "DDIMScheduler":
        raise wrong(
            file, "_class_name", "be 'DDIMScheduler'", config.get("_class_name"), "save the folder with that one"
        )
    if config.get("clip_sample", True) is not False:
        raise wrong(file, "clip_sample", "be false: latents have no bounds", config.get("clip_sample", True))
    check_values(config, wanted, file)
    for name, known in _CHOICES:
        if config.get(name, known[0]) not in known:
            raise wrong(file, name, f"be one of {', '.join(known)}", config[name])
    if number(config, "num_train_timesteps", file, 1000) < 2:
        raise wrong(file, "num_train_timesteps", "be 2 or more", 1)
    for name, default in (("beta_start", 0.0001), ("beta_end", 0.02)):
        if positive(config, name, file, default) >= 1:
            raise wrong(file, name, "be below 1", config[name])
    if config.get("steps_offset", 0) not in (0, 1) or isinstance(config.get("steps_offset", 0), bool):
        raise wrong(file, "steps_offset", "be 0 or 1", config["steps_offset"])
    flag(config, "set_alpha_to_one", file)


def ddim_levels(config: Json, num_steps: int) -> Sequence[Level]:
    """Levels ``x = sqrt(abar) x0 + sqrt(1 - abar) noise`` at the scheduler's timesteps, then no noise.

    The step between two is DDIM's (arXiv 2010.02502), eta 0. Raises FieldError for more steps than the network was
    trained with. A scheduler with ``set_alpha_to_one`` false would end one step of training before ``x0``.
    """
    signal, noise = _table(config)
    most = len(signal) - (config.get("timestep_spacing", "leading") == "leading") * config.get("steps_offset", 0)
    if num_steps > most:
        raise FieldError("num_steps", f"must be at most {most}, got {num_steps}")
    return [
        *(
            Level(signal=float(signal[t]), noise=float(noise[t]), timestep=float(t))
            for t in timesteps(config, num_steps)
        ),
        Level(signal=1.0, noise=0.0, timestep=0.0),
    ]


def timesteps(config: Json, num_steps: int) -> Int64[np.ndarray, " n"]:
    """Timesteps that the network is told, the noisiest first (arXiv 2305.08891, table 2)."""
    trained = int(config.get("num_train_timesteps", 1000))
    match config.get("timestep_spacing", "leading"):
        case "linspace":
            return np.linspace(0, trained - 1, num_steps).round()[::-1].astype(np.int64)
        case "trailing":
            return np.round(np.arange(trained, 0, -trained / num_steps)).astype(np.int64)[:num_steps] - 1
        case _:
            last: Int64[np.ndarray, " n"] = np.arange(num_steps, dtype=np.int64)[::-1] * (trained // num_steps)
            return last + int(config.get("steps_offset", 0))


def timestep_of(config: Json, level: Level) -> int:
    """The level's own timestep; of one that is no step that of training nearest in noise to signal."""
    if level.timestep is not None:
        return int(level.timestep)
    signal, noise = _table(config)
    return int(np.abs(np.arctan2(noise, signal) - math.atan2(level.noise, level.signal)).argmin())


def _table(config: Json) -> tuple[np.ndarray, np.ndarray]:
    return _mixtures(
        config.get("num_train_timesteps", 1000),
        config.get("beta_start", 0.0001),
        config.get("beta_end", 0.02),
        config.get("beta_schedule", "linear") == "scaled_linear",
    )


@lru_cache(maxsize=8)
def _mixtures(trained: int, low: float, high: float, scaled: bool) -> tuple[np.ndarray, np.ndarray]:
    """Signal and noise at each timestep of training, in float64."""
    betas = np.linspace(low**0.5, high**0.5, trained) ** 2 if scaled else np.linspace(low, high, trained)
    kept = np.cumprod(1 - betas)
    return np.sqrt(kept), np.sqrt(1 - kept)

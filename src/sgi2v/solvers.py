"""Steps from one level to the next: pure functions of latents, estimate, levels and what came before."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol, runtime_checkable

from jaxtyping import Float

from sgi2v.lazy import torch
from sgi2v.step import Level


@dataclass(frozen=True, kw_only=True)
class History:
    """The step before: its estimate of the clean latents, and its level."""

    x0: Float[torch.Tensor, "n c y x"]
    level: Level


def euler(
    x: Float[torch.Tensor, "n c y x"],
    x0: Float[torch.Tensor, "n c y x"],
    level: Level,
    next_level: Level,
    history: History | None = None,
) -> Float[torch.Tensor, "n c y x"]:
    """First-order step to the next level, keeping the noise that ``x0`` implies; looks at no history.

    ``x' = a' x0 + (b' / b) (x - a x0)``. For SVD it is the Euler step of Karras et al. 2022 (arXiv 2206.00364,
    algorithm 2 without churn); for flow models the straight line; for variance-preserving ones DDIM.
    """
    return next_level.signal * x0 + (next_level.noise / level.noise) * (x - level.signal * x0)


def dpm2m(
    x: Float[torch.Tensor, "n c y x"],
    x0: Float[torch.Tensor, "n c y x"],
    level: Level,
    next_level: Level,
    history: History | None = None,
) -> Float[torch.Tensor, "n c y x"]:
    """Second-order multistep step: DPM-Solver++(2M) of Lu et al. 2022 (arXiv 2211.01095, algorithm 2).

    Its step is :func:`euler`'s with ``x0`` led on along the line through the estimate before, in ``lambda =
    log(a / b)``: by half a step, which makes the error one of second order. First order where a lambda is not finite
    (pure noise of a model that keeps no signal there, the last step) and where there is no history.
    """
    if history is not None and history.level.signal > 0 and level.signal > 0 and next_level.noise > 0:
        last, here, there = (math.log(1 / one.sigma) for one in (history.level, level, next_level))
        # A sum of differences: where two estimates are alike, as in a frame that the model keeps, nothing is added.
        x0 = x0 + (there - here) / (2 * (here - last)) * (x0 - history.x0)
    return euler(x, x0, level, next_level)


@runtime_checkable
class Solver(Protocol):
    """A step from one level to the next."""

    def __call__(
        self,
        x: Float[torch.Tensor, "n c y x"],
        x0: Float[torch.Tensor, "n c y x"],
        level: Level,
        next_level: Level,
        history: History | None = None,
    ) -> Float[torch.Tensor, "n c y x"]:
        """Latents at ``next_level``, from those at ``level``, the estimate of the clean ones, and the step before."""


SOLVERS: Final[Mapping[str, Solver]] = MappingProxyType({"euler": euler, "dpm2m": dpm2m})
"""Name, as :class:`~sgi2v.planning.Sampling` has it -> step."""

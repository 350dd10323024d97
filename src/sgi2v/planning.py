"""A run before anything is computed: its size and seed, where a method acts, what it uses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Final, Literal

from sgi2v.checks import Bounds, choice, own_bounds
from sgi2v.errors import FieldError
from sgi2v.step import Level

Unit = Literal["sigma", "noise-level", "step", "share"]
"""Ways to say where in the denoising one is: sigma (noise to signal ratio), noise-level (s = noise / (signal + noise),
alike for every model), step (steps still to go: num_steps at pure noise, 1 at the last), share (steps done, 0 at pure
noise to 1)."""
SolverName = Literal["euler", "dpm2m"]
"""Steps from level to level (:mod:`sgi2v.solvers`)."""
SIZES: Final[Bounds] = MappingProxyType({"width": (1, 8192), "height": (1, 8192), "num_frames": (1, 1024)})
"""Sizes of a video that anybody may ask for; a model makes fewer."""


def position(unit: Unit, level: Level, index: int, count: int) -> float:
    """Place of the step of that index, in a unit; ``count`` is the number of steps."""
    match unit:
        case "sigma":
            return level.sigma
        case "noise-level":
            return level.noise_level
        case "step":
            return float(count - index)
        case "share":
            return index / count


def positions(unit: Unit, levels: Sequence[Level]) -> list[float]:
    """Places of a schedule's steps, in a unit; ``levels`` has one more entry than there are steps."""
    count = len(levels) - 1
    return [position(unit, levels[index], index, count) for index in range(count)]


def sigmas_of(levels: Sequence[Level]) -> str:
    """The steps' sigmas, for a message."""
    return ", ".join(f"{level.sigma:.3g}" for level in levels[:-1])


Padding = Literal["cut", "keep"]
"""The fate of what fit: contain adds to a picture."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """A part of the denoising: the steps between two values, both included."""

    low: float
    """Lowest value."""
    high: float
    """Highest value."""
    unit: Unit = "sigma"
    """Unit of both: sigma (noise to signal ratio), noise-level (s = noise / (signal + noise), 0 to 1, alike for every
    model), step (steps still to go: num_steps at pure noise, 1 at the last), or share (steps done, 0 to 1)."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            # A record could not hold it, which would show only when the video is there.
            raise FieldError("", f"both values must be finite, got {self.low:g} {self.high:g}")
        if not self.low <= self.high:
            raise FieldError("", f"the lowest value comes first, got {self.low:g} {self.high:g}")
        choice("unit", self.unit, Unit)

    def covers(self, level: Level, index: int, count: int) -> bool:
        """True where the step of that index lies inside."""
        return self.low <= position(self.unit, level, index, count) <= self.high

    def steps(self, levels: Sequence[Level]) -> tuple[bool, ...]:
        """Steps of a schedule that lie inside; FieldError when none does."""
        inside = tuple(self.low <= value <= self.high for value in positions(self.unit, levels))
        if not any(inside):
            raise FieldError(
                "",
                f"no step of {len(inside)} falls inside {self.unit} {self.low:g} to {self.high:g}",
                f"the steps' sigmas are {sigmas_of(levels)}",
            )
        return inside

    def __str__(self) -> str:
        return f"{self.low:g} {self.high:g} {self.unit}"


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A method's plan of one run, step by step."""

    iterations: tuple[int, ...]
    """Optimiser iterations at each step, at most."""
    acts: tuple[bool, ...]
    """Steps at which it optimises latents or changes the network's inside."""
    first: int = 0
    """Index of the run's first step; the model is not asked at those before."""
    overwrites: int = 0
    """Number of steps, from the schedule's first, in which latents may be replaced whatever stood there before."""
    changes_noise: bool = False
    """True where the run begins from other noise than it was given."""

    @classmethod
    def plain(cls, levels: Sequence[Level]) -> Schedule:
        """Plain sampling: every step, nothing done."""
        count = len(levels) - 1
        return cls(iterations=(0,) * count, acts=(False,) * count)


@dataclass(frozen=True, kw_only=True)
class Uses:
    """Parts that a method uses of a model and a scene, so that both can be checked before anything is loaded."""

    features: tuple[str, ...] = ()
    """Features it reads, ``<block>:<source>``."""
    blocks: tuple[str, ...] = ()
    """Blocks whose attention it changes, by name."""
    edits: bool = False
    """True where it changes attention at all."""
    edited_by: tuple[str, ...] = ()
    """Its fields that do: with these off it changes none."""
    reuses_deep: bool = False
    """True where it skips a U-Net's deep blocks."""
    motions: bool = False
    """True where it steers by the scene's motions, and so has nothing to do without them."""
    reference: bool = False
    """True where the scene's reference clip can take the motions' place."""
    masks: bool = False
    """True where it looks at the motions' masks."""
    image: bool = False
    """True where it changes what the model is given of the picture."""
    weights: tuple[str, ...] = ()
    """Methods that the model's weights must have been trained for; none for any weights."""
    adapters: tuple[str, ...] = ()
    """Kinds of trained systems whose weights it steers, one of each (:mod:`sgi2v.backbones.adapter_kinds`)."""

    def __or__(self, other: Uses) -> Uses:
        """Parts that two methods use together."""
        return Uses(
            features=tuple(dict.fromkeys((*self.features, *other.features))),
            blocks=tuple(dict.fromkeys((*self.blocks, *other.blocks))),
            edits=self.edits or other.edits,
            edited_by=(*self.edited_by, *other.edited_by),
            reuses_deep=self.reuses_deep or other.reuses_deep,
            motions=self.motions or other.motions,
            reference=self.reference or other.reference,
            masks=self.masks or other.masks,
            image=self.image or other.image,
            weights=tuple(dict.fromkeys((*self.weights, *other.weights))),
            adapters=tuple(dict.fromkeys((*self.adapters, *other.adapters))),
        )


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Seed, steps and size of a video, whatever steers it. None means what the model recommends."""

    seed: int = 817
    """Seed of the one random generator; the same seed gives the same video."""
    num_steps: int | None = None
    """Denoising steps."""
    width: int | None = None
    """Width of the video in pixels; the model says of what number it must be a multiple."""
    height: int | None = None
    """Height of the video in pixels, likewise."""
    num_frames: int | None = None
    """Frames of the video."""
    solver: SolverName = "euler"
    """Step from level to level: euler (first order, as published), or dpm2m (DPM-Solver++(2M), second order: as near
    to the model's own path in fewer steps; of first order at and after every step at which a method steers)."""

    padding: Padding = "cut"
    """Pixels that fit: contain adds around a picture of another shape than the video's: cut off the frames that were
    made, or kept in them."""

    BOUNDS: ClassVar[Bounds] = MappingProxyType({"seed": (0, 2**63 - 1), "num_steps": (1, 1000), **SIZES})

    def __post_init__(self) -> None:
        choice("solver", self.solver, SolverName)
        choice("padding", self.padding, Padding)
        if not 0 <= self.seed < 2**63:
            raise FieldError("seed", f"must lie in 0..2^63-1, got {self.seed}")
        for name in ("num_steps", *SIZES):
            (low, high), value = self.BOUNDS[name], getattr(self, name)
            if value is not None and not low <= value <= high:
                raise FieldError(name, f"must lie in {low}..{high}, got {value}")


def check_numbers(
    controller: object,
    smallest: Mapping[str, int | float] = MappingProxyType({}),
    *,
    above: Sequence[str] = (),
) -> None:
    """FieldError for a field that is not finite or lies outside what its class says as ``BOUNDS``, that is below its
    smallest value where ``smallest`` names it, or not above 0 where ``above`` does."""
    own = own_bounds(type(controller))
    for name, low in {**{name: low for name, (low, _) in own.items()}, **smallest}.items():
        value = getattr(controller, name)
        if not low <= value < math.inf:
            raise FieldError(f"controller.{name}", f"must be a finite number >= {low:g}, got {value}")
    for name, (_, high) in own.items():
        if getattr(controller, name) > high:
            raise FieldError(f"controller.{name}", f"must be at most {high:g}, got {getattr(controller, name)}")
    for name in above:
        value = getattr(controller, name)
        if not 0 < value < math.inf:
            raise FieldError(f"controller.{name}", f"must be a finite number > 0, got {value}")

"""Two ways of steering in one run, one after the other at every step."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sgi2v.backbones.base import Backbone, Level
from sgi2v.controllers.base import Controller
from sgi2v.grid import Grid, Tracks
from sgi2v.step import Step


@dataclass(frozen=True, kw_only=True)
class InTurn(Controller):
    """Two controllers: the first changes the start and each step's latents, the second changes what the first left.

    Inside the network both act at once. The run begins where the later of the two begins; only one may begin late, and
    where one overwrites latents the other must not have optimised them.
    """

    first: Controller = field(default_factory=Controller)
    """Asked first."""
    second: Controller = field(default_factory=Controller)
    """Given what the first made."""

    def __post_init__(self) -> None:
        for name in ("first", "second"):
            value = getattr(self, name)
            if not isinstance(value, Controller):
                raise ValueError(f"controller.{name}: {value!r} is no controller; give one with its name")

    def begins(self, levels: Sequence[Level]) -> int:
        """The later of the two; ValueError when both want to begin late."""
        with _side("first"):
            first = self.first.begins(levels)
        with _side("second"):
            second = self.second.begins(levels)
        if first and second:
            raise ValueError(
                f"controller: both {_named(self.first)} and {_named(self.second)} begin a run of their own, after "
                f"{first} and {second} steps; combine only one of them with another"
            )
        return max(first, second)

    def overwrites(self, levels: Sequence[Level]) -> int:
        """The longer of the two."""
        return max(self.first.overwrites(levels), self.second.overwrites(levels))

    def planned_iterations(self, levels: Sequence[Level]) -> Sequence[int]:
        """The sum of both, nothing before the run begins.

        ValueError when one of them does, when one optimises latents that the other overwrites later, when all that one
        does lies before the run begins, and when the first begins late and the second makes other noise.
        """
        begins = self.begins(levels)
        if self.first.begins(levels) and self.second.changes_noise:
            raise ValueError(self._wrong_way_round())
        with _side("first"):
            first = self.first.planned_iterations(levels)
        with _side("second"):
            second = self.second.planned_iterations(levels)
        self._check("first", first, begins, self.second.overwrites(levels), levels)
        self._check("second", second, begins, self.first.overwrites(levels), levels)
        return [(a + b) * (k >= begins) for k, (a, b) in enumerate(zip(first, second, strict=True))]

    def _check(
        self, side: str, plan: Sequence[int], begins: int, overwritten: int, levels: Sequence[Level]
    ) -> None:
        one, other = (self.first, self.second) if side == "first" else (self.second, self.first)
        mine = f"controller.{side}.{one.where}".rstrip(".")
        theirs = f"controller.{'second' if side == 'first' else 'first'}.{other.where}".rstrip(".")
        guided = [k for k, acts in enumerate(one.acts(levels)) if acts]
        acting = [k for k, iterations in enumerate(plan) if iterations and k >= begins]
        if guided and guided[-1] < begins:
            raise ValueError(
                f"{mine}: {_named(one)} acts up to sigma {levels[guided[-1]].sigma:.3g}, but {_named(other)} begins "
                f"the run only at {levels[begins].sigma:.3g}; let it act later"
            )
        if acting and acting[0] < overwritten:
            raise ValueError(
                f"{theirs}: {_named(other)} overwrites latents down to sigma {levels[overwritten - 1].sigma:.3g}, but "
                f"{_named(one)} optimises them from {levels[acting[0]].sigma:.3g} on; let it end before {mine} begins"
            )

    def prepare(self, backbone: Backbone, condition: Any, tracks: Tracks, grid: Grid) -> "InTurnState":
        """Both states."""
        return InTurnState(
            first=self.first.prepare(backbone, condition, tracks, grid),
            second=self.second.prepare(backbone, condition, tracks, grid),
        )

    def start(
        self, noise: Float[Tensor, "n c y x"], levels: Sequence[Level], state: "InTurnState"
    ) -> tuple[Float[Tensor, "n c y x"], int]:
        """What the second makes of the first's start; whoever leaves the start alone has no part in it.

        The first's start, divided by the scale of pure noise, is the second's noise. ValueError when the first begins
        late and the second changes the start as well.
        """
        scale = levels[0].pure_noise_scale
        x, begins = self.first.start(noise, levels, state.first)
        if begins == 0 and torch.equal(
            x, noise * scale
        ):  # passed on as it came: dividing would change its last bit
            return self.second.start(noise, levels, state.second)
        unit = noise if begins else x / scale
        after, after_begins = self.second.start(unit, levels, state.second)
        if after_begins == 0 and torch.equal(after, unit * scale):
            return x, begins
        if begins:
            raise ValueError(self._wrong_way_round())
        return after, after_begins

    def _wrong_way_round(self) -> str:
        return (
            f"controller: {_named(self.first)} begins late, and {_named(self.second)} changes the noise it should "
            "begin from; name them the other way round"
        )

    def acts(self, levels: Sequence[Level]) -> Sequence[bool]:
        """Where either does, from where the run begins."""
        begins = self.begins(levels)
        both = zip(self.first.acts(levels), self.second.acts(levels), strict=True)
        return [k >= begins and (first or second) for k, (first, second) in enumerate(both)]

    @property
    def changes_noise(self) -> bool:
        """Whether either does."""
        return self.first.changes_noise or self.second.changes_noise

    def steer(
        self, x: Float[Tensor, "n c y x"], step: Step, state: "InTurnState"
    ) -> Float[Tensor, "n c y x"]:
        """The first, then the second."""
        return self.second.steer(self.first.steer(x, step, state.first), step, state.second)

    def during(self, step: Step, state: "InTurnState") -> AbstractContextManager[None]:
        """Both, the second inside the first."""
        return self._both(step, state)

    @contextmanager
    def _both(self, step: Step, state: "InTurnState") -> Iterator[None]:
        with self.first.during(step, state.first), self.second.during(step, state.second):
            yield


@dataclass(frozen=True, kw_only=True)
class InTurnState:
    """The states of both."""

    first: Any
    second: Any


def _named(controller: Controller) -> str:
    return type(controller).__name__


@contextmanager
def _side(name: str) -> Iterator[None]:
    """Says in a ValueError about a controller's field which of the two it belongs to."""
    try:
        yield
    except ValueError as error:
        raise ValueError(str(error).replace("controller.", f"controller.{name}.")) from error

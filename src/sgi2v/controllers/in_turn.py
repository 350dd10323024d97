"""Two ways of steering in one run, one after the other at every step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from jaxtyping import Float

from sgi2v.controllers.base import Controller, Setup, State
from sgi2v.errors import FieldError, within
from sgi2v.grid import Grid, Tracks
from sgi2v.lazy import torch
from sgi2v.planning import Schedule, Uses
from sgi2v.step import Level, Step


@dataclass(frozen=True, kw_only=True)
class InTurn(Controller["InTurnState"]):
    """Two controllers: the first changes the start and each step's latents, the second changes what the first left.

    Inside the network both act at once. The run begins where the later of the two begins; only one may begin late, and
    where one overwrites latents the other must not have optimised them.
    """

    name: ClassVar[str] = "in-turn"

    first: Controller = field(default_factory=Controller)
    """Asked first."""
    second: Controller = field(default_factory=Controller)
    """Given what the first made."""

    def __post_init__(self) -> None:
        for name in ("first", "second"):
            value = getattr(self, name)
            if not isinstance(value, Controller):
                raise FieldError(f"controller.{name}", f"{value!r} is no controller", "give one with its name")

    def uses(self) -> Uses:
        """The union of what both use."""
        sides = {"first": self.first.uses(), "second": self.second.uses()}
        named = [replace(u, edited_by=tuple(f"{side}.{name}" for name in u.edited_by)) for side, u in sides.items()]
        return named[0] | named[1]

    def unheeded(self, tracks: Tracks, grid: Grid) -> tuple[str, ...]:
        """Parts that neither uses."""
        second = self.second.unheeded(tracks, grid)
        return tuple(part for part in self.first.unheeded(tracks, grid) if part in second)

    def remarks(self, tracks: Tracks, grid: Grid) -> tuple[str, ...]:
        """Those of both."""
        return tuple(dict.fromkeys((*self.first.remarks(tracks, grid), *self.second.remarks(tracks, grid))))

    def schedules(self, levels: Sequence[Level]) -> tuple[Schedule, Schedule]:
        """Each one's own, as if it ran alone."""
        with _side("first"):
            first = self.first.schedule(levels)
        with _side("second"):
            second = self.second.schedule(levels)
        return first, second

    def schedule(self, levels: Sequence[Level]) -> Schedule:
        """Both together, nothing before the run begins.

        FieldError when one of them raises it, when both begin late, when one optimises latents that the other
        overwrites later, when all that one does lies before the run begins, and when the first begins late and the
        second makes other noise.
        """
        first, second = self.schedules(levels)
        if first.first and second.first:
            raise FieldError(
                "controller",
                f"both {_named(self.first)} and {_named(self.second)} begin a run of their own, after "
                f"{first.first} and {second.first} steps",
                "combine only one of them with another",
            )
        if first.first and second.changes_noise:
            raise FieldError(
                "controller",
                f"{_named(self.first)} begins late, and {_named(self.second)} changes the noise it should begin from",
                "name them the other way round",
            )
        begins = max(first.first, second.first)
        self._check("first", first, second, begins, levels)
        self._check("second", second, first, begins, levels)
        steps = range(len(levels) - 1)
        return Schedule(
            iterations=tuple((first.iterations[k] + second.iterations[k]) * (k >= begins) for k in steps),
            acts=tuple(k >= begins and (first.acts[k] or second.acts[k]) for k in steps),
            first=begins,
            overwrites=max(first.overwrites, second.overwrites),
            changes_noise=first.changes_noise or second.changes_noise,
        )

    def _check(self, side: str, mine: Schedule, other: Schedule, begins: int, levels: Sequence[Level]) -> None:
        sides = {"first": self.first, "second": self.second}
        other_side = "second" if side == "first" else "first"
        names = {key: _named(one) for key, one in sides.items()}
        fields = {key: f"controller.{key}.{one.where}".rstrip(".") for key, one in sides.items()}
        acting = [k for k, acts in enumerate(mine.acts) if acts]
        optimising = [k for k, iterations in enumerate(mine.iterations) if iterations and k >= begins]
        if acting and acting[-1] < begins:
            raise FieldError(
                fields[side],
                f"{names[side]} acts up to sigma {levels[acting[-1]].sigma:.3g}, but {names[other_side]} begins the "
                f"run only at {levels[begins].sigma:.3g}",
                "let it act later",
            )
        if optimising and optimising[0] < other.overwrites:
            raise FieldError(
                fields[other_side],
                f"{names[other_side]} overwrites latents down to sigma "
                f"{levels[other.overwrites - 1].sigma:.3g}, but {names[side]} optimises them from "
                f"{levels[optimising[0]].sigma:.3g} on",
                f"let it end before {fields[side]} begins",
            )

    def prepare(self, setup: Setup) -> InTurnState:
        """Both states."""
        first = self.first.prepare(setup)
        second = self.second.prepare(first.setup)  # the first may have changed what the model is given
        return InTurnState(setup=second.setup, schedules=self.schedules(setup.levels), first=first, second=second)

    def start(self, noise: Float[torch.Tensor, "n c y x"], state: InTurnState) -> Float[torch.Tensor, "n c y x"]:
        """The second's start from the first's; whoever leaves the start alone has no part in it.

        The first's start, divided by the scale of pure noise, is the second's noise.
        """
        first, second = (one.first > 0 or one.changes_noise for one in state.schedules)
        x = self.first.start(noise, state.first)
        if first and not state.schedules[0].first:
            noise = x / state.setup.levels[0].init_noise_sigma
        after = self.second.start(noise, state.second)
        return x if first and not second else after

    def steer(
        self, x: Float[torch.Tensor, "n c y x"], step: Step, state: InTurnState
    ) -> Float[torch.Tensor, "n c y x"]:
        """The first, then the second."""
        return self.second.steer(self.first.steer(x, step, state.first), step, state.second)

    def during(self, step: Step, state: InTurnState) -> AbstractContextManager[None]:
        """Both, the second inside the first."""
        return self._both(step, state)

    @contextmanager
    def _both(self, step: Step, state: InTurnState) -> Iterator[None]:
        with self.first.during(step, state.first), self.second.during(step, state.second):
            yield


@dataclass(kw_only=True)
class InTurnState(State):
    """The states of both, and what each does alone."""

    schedules: tuple[Schedule, Schedule]
    first: Any
    second: Any


def _named(controller: Controller) -> str:
    return type(controller).__name__


@contextmanager
def _side(name: str) -> Iterator[None]:
    """Says of a mistake in a controller's field which of the two it belongs to."""
    try:
        yield
    except FieldError as error:
        field = error.field.removeprefix("controller").removeprefix(".")
        with within(f"controller.{name}"):
            raise FieldError(field, error.problem, error.remedy) from error

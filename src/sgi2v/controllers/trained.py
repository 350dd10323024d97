"""Trained systems as methods: what they share in turning a scene's motions into the signal that their weights heed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from sgi2v.checks import choice
from sgi2v.controllers.base import Controller, Setup, State
from sgi2v.errors import FieldError
from sgi2v.grid import Grid, Track, Tracks
from sgi2v.planning import Uses
from sgi2v.points import Paths, paths_of, resized
from sgi2v.step import Step

Outside = Literal["clip", "refuse"]
"""Treatment of a path that leaves the picture, of which these systems know nothing: its points are put on the border,
with a remark that names the first pixel, or the run is refused with the same words."""


@dataclass(kw_only=True)
class TrainedState(State):
    """The weights and what they are given, for the whole run."""

    adapter: Any
    signal: object


@dataclass(frozen=True, kw_only=True)
class Trained(Controller[TrainedState], ABC):
    """A system that was trained to follow motions. No gradients: a step costs a pass and what its weights add.

    A subclass says its ``name``, which is the kind of its weights too, and makes their :meth:`signal`.
    """

    kinds: ClassVar[Sequence[Literal["object", "camera"]]] = ("object", "camera")
    """Kinds of motions that it follows."""

    outside: Outside = "clip"
    """A path that leaves the picture: clip (the point waits on the border, and a remark names the pixel) or refuse."""

    def __post_init__(self) -> None:
        choice("controller.outside", self.outside, Outside)

    def uses(self) -> Uses:
        """Motions with their masks, and weights of its own."""
        return Uses(motions=True, masks=True, adapters=(self.name,))

    def followed(self, tracks: Tracks) -> tuple[Track, ...]:
        """The motions that it follows."""
        return tuple(track for track in tracks.tracks if track.kind in self.kinds)

    def points(self, tracks: Tracks) -> Paths:
        """A point for each followed motion, wherever it goes; see :func:`sgi2v.points.paths_of`."""
        return paths_of(tracks.tracks, self.kinds)

    def paths(self, tracks: Tracks, grid: Grid) -> Paths:
        """The same, kept inside the picture."""
        return self.points(tracks).clipped(grid.width, grid.height)

    def unheeded(self, tracks: Tracks, grid: Grid) -> tuple[str, ...]:
        """Sizes of boxes, and motions of a kind that it does not follow."""
        left = {track.kind for track in tracks.tracks} - {*self.kinds}
        sizes = ("changes of size",) if resized(self.followed(tracks)) else ()
        return (*sizes, *(f"{kind} motions" for kind in sorted(left)))

    def remarks(self, tracks: Tracks, grid: Grid) -> tuple[str, ...]:
        """Points that leave the picture; FieldError where those are refused, and where there is nothing to follow."""
        if not self.followed(tracks):
            raise FieldError("motions", f"{self.name} follows {' and '.join(self.kinds)} motions, and there are none")
        left = self.points(tracks).outside(grid.width, grid.height)
        if left and self.outside == "refuse":
            raise FieldError(
                left[0].split(" ", 1)[0], left[0].split(" ", 1)[1], "end its path inside, or choose outside: clip"
            )
        return tuple(f"{sentence}: from there on its point stays on the border" for sentence in left)

    @abstractmethod
    def signal(self, setup: Setup) -> object:
        """Everything that the weights are given of the motions."""

    def prepare(self, setup: Setup) -> TrainedState:
        """The run's state with the signal; FieldError where a thing's mask cannot be had."""
        return TrainedState(setup=setup, adapter=setup.adapters[self.name], signal=self.signal(setup))

    def during(self, step: Step, state: TrainedState) -> AbstractContextManager[None]:
        """The weights take part in every pass of the step."""
        return state.setup.backbone.adapted(state.adapter, state.signal)

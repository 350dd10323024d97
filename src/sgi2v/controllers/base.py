"""The interface of a way of steering; the base class steers nothing and so is the no-control baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, cast

from jaxtyping import Float
from typing_extensions import TypeVar

from sgi2v.backbones.base import Backbone, Text
from sgi2v.grid import Grid, Tracks
from sgi2v.lazy import torch
from sgi2v.planning import Schedule, Uses
from sgi2v.step import Level, Step

StateT = TypeVar("StateT", default=Any)


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Everything a method is given for one run."""

    backbone: Backbone
    condition: Any
    """The backbone's encoding of the picture and the words; handed back to it, never looked into."""
    tracks: Tracks
    """The scene at the model's size."""
    grid: Grid
    levels: Sequence[Level]
    """The schedule: one more than there are steps."""
    generator: torch.Generator
    """The run's one random generator, after the model has drawn its noise from it."""
    text: Text = Text()  # noqa: RUF009  (frozen: one for all does no harm)
    """The person's words, for a method that encodes once more."""
    reference_latents: Float[torch.Tensor, "n c y x"] | None = None
    """The reference clip's latents, where the person gives them instead of having the model encode it."""
    adapters: Mapping[str, Any] = field(default_factory=dict)
    """Kind -> the trained system whose weights the method steers; those that it uses are there."""


@dataclass(kw_only=True)
class State:
    """Knowledge of one run of a method; a method with more to know extends it."""

    setup: Setup
    """As it was given, or with a condition that the method has changed: the one the model is asked with."""


@dataclass(frozen=True, kw_only=True)
class Controller(Generic[StateT]):
    """No control: the model moves things as it likes.

    A controller holds hyper-parameters only; what changes during a run lives in the state that :meth:`prepare`
    returns. It knows no model: everything it needs of one goes through the backbone's contract. A subclass says its
    ``name``, by which it is typed and recorded.
    """

    name: ClassVar[str] = "none"
    where: ClassVar[str] = ""
    """The field that says where in the denoising it acts, for messages about two that get in each other's way."""

    def uses(self) -> Uses:
        """Parts of a model and a scene that it uses, so that mistakes are found before anything is loaded."""
        return Uses()

    def unheeded(self, tracks: Tracks, grid: Grid) -> tuple[str, ...]:
        """Parts of the scene's motions that it leaves unused, a word or two each."""
        return ()

    def remarks(self, tracks: Tracks, grid: Grid) -> tuple[str, ...]:
        """Sentences to the person on how it takes this scene; FieldError for one that it cannot follow."""
        return ()

    def schedule(self, levels: Sequence[Level]) -> Schedule:
        """Plan of each step; FieldError when nothing falls where it should act."""
        return Schedule.plain(levels)

    def prepare(self, setup: Setup) -> StateT:
        """The run's state; FieldError before any compute when the scene cannot be followed."""
        return cast(StateT, State(setup=setup))

    def start(self, noise: Float[torch.Tensor, "n c y x"], state: StateT) -> Float[torch.Tensor, "n c y x"]:
        """The latents at the schedule's first step, from unit-variance noise."""
        return noise * cast(State, state).setup.levels[0].init_noise_sigma

    def steer(self, x: Float[torch.Tensor, "n c y x"], step: Step, state: StateT) -> Float[torch.Tensor, "n c y x"]:
        """The latents the denoiser shall see instead of ``x`` at this step."""
        return x

    def during(self, step: Step, state: StateT) -> AbstractContextManager[None]:
        """Change inside the network for this step's denoising only."""
        return nullcontext()

"""A little way of steering: the picture's coarse parts lean the way the first motion goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from sgi2v.controllers.base import Controller, Setup, State
from sgi2v.errors import within
from sgi2v.lazy import torch
from sgi2v.planning import Range, Schedule, Uses, check_numbers
from sgi2v.spectrum import low_pass, merge_frequencies
from sgi2v.step import Level, Step


@dataclass(frozen=True, kw_only=True)
class ToyNudge(Controller["NudgeState"]):
    """Adds, at some steps, the low frequencies of the picture moved along the first path, less those of it at rest.

    No gradients and no second pass: it costs what plain sampling costs. A toy, not a published method.
    """

    name: ClassVar[str] = "toy-nudge"

    guided: Range = field(default_factory=lambda: Range(low=0.5, high=1.0, unit="noise-level"))
    """Part of the denoising in which to lean."""
    strength: float = 0.3
    """Part of the difference that is added at a step, as a share of the signal that is there."""
    cutoff: float = 0.5
    """Frequencies below this share of Nyquist are coarse."""

    def __post_init__(self) -> None:
        check_numbers(self, {"strength": 0, "cutoff": 0})

    def uses(self) -> Uses:
        """The scene's motions, and nothing inside the model."""
        return Uses(motions=True)

    def schedule(self, levels: Sequence[Level]) -> Schedule:
        """No iterations; FieldError when no step falls inside the range."""
        with within("controller.guided"):
            acts = self.guided.steps(levels)
        return Schedule(iterations=(0,) * len(acts), acts=acts)

    def prepare(self, setup: Setup) -> NudgeState:
        """The difference, made once: latents of the picture moved along the path, less those of it at rest."""
        picture = torch.from_numpy(np.asarray(setup.tracks.image, dtype=np.float32) / 255).permute(2, 0, 1)
        path = setup.tracks.tracks[0].centers
        moves = [(round(float(y)), round(float(x))) for x, y in path - path[:1]]
        clips = [torch.stack([picture.roll(by, (1, 2)) for by in m]) for m in (moves, [(0, 0)] * len(moves))]
        moved, still = (setup.backbone.encode_frames(clip.to(setup.backbone.device), setup.grid) for clip in clips)
        coarse = low_pass(setup.grid.rows, setup.grid.columns, self.cutoff, device=still.device)
        free = setup.backbone.free(setup.grid)[:, None, None, None].to(still.device)
        return NudgeState(setup=setup, push=(merge_frequencies(moved, still, coarse) - still) * free)

    def steer(self, x: Float[torch.Tensor, "n c y x"], step: Step, state: NudgeState) -> Float[torch.Tensor, "n c y x"]:
        """The latents, leaning."""
        if not self.guided.covers(step.level, step.index, step.count):
            return x
        return x + self.strength * step.level.signal * state.push


@dataclass(kw_only=True)
class NudgeState(State):
    """The run's own."""

    push: Float[torch.Tensor, "n c y x"]
    """The difference, nothing in frames that the model keeps."""

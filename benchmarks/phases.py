"""A guided generation in its phases: what is timed on a device and counted without one, always the same calls."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from benchmarks.counting import Lap
from sgi2v.backbones import Settings, Text
from sgi2v.backbones.svd.model import SVD
from sgi2v.backbones.svd.parts import SVDCondition
from sgi2v.controllers import SGI2V, Controller, Setup, recommended
from sgi2v.grid import Grid, Track, Tracks
from sgi2v.sampling import sample
from sgi2v.solvers import euler
from sgi2v.step import Reporter, Step

ENCODE, PLAIN, DECODE = "encode", "plain step", "decode"
UNGUIDED = "plain step without guidance"
FORWARD, BACKWARD, REST = "guided iteration, forward", "guided iteration, backward", "rest of a guided step"
PHASES = (ENCODE, PLAIN, FORWARD, BACKWARD, REST, DECODE)


def tracks_over(grid: Grid, share: float, num_boxes: int) -> Tracks:
    """Boxes of a share of the picture's width and height, each on a straight way across; all fit in throughout."""
    width, height = grid.width * share, grid.height * share
    tracks = []
    for k in range(num_boxes):
        way = np.linspace(0, 1, grid.num_frames)[:, None]
        x = (grid.width - width) * (way if k % 2 == 0 else 1 - way)
        y = np.full_like(way, (grid.height - height) * (k + 0.5) / num_boxes)
        tracks.append(Track(boxes=np.concatenate([x, y, x + width, y + height], axis=1).astype(np.float32)))
    pixels = np.random.default_rng(0).integers(0, 256, (grid.height, grid.width, 3), dtype=np.uint8)
    return Tracks(image=Image.fromarray(pixels), tracks=tuple(tracks))


def recommended_sg_i2v(settings: Settings) -> SGI2V:
    """SG-I2V with what a model recommends."""
    controller = recommended("sg-i2v", settings.recommended)
    assert isinstance(controller, SGI2V)
    return controller


@dataclass
class _Iterations(Reporter):
    """Tells a lap where a guided iteration begins."""

    lap: Lap

    def check_cancelled(self) -> None:
        self.lap(FORWARD)


@contextmanager
def _split_at_gradients(lap: Lap) -> Iterator[None]:
    """Ends the forward part of an iteration where the package asks autograd for gradients, the backward part after."""
    plain = {name: getattr(torch.autograd, name) for name in ("grad", "backward")}

    def split(call: Callable[..., Any]) -> Callable[..., Any]:
        def asked(*args: Any, **kwargs: Any) -> Any:
            lap(BACKWARD)
            try:
                return call(*args, **kwargs)
            finally:
                lap(REST)

        return asked

    for name, call in plain.items():
        setattr(torch.autograd, name, split(call))
    try:
        yield
    finally:
        for name, call in plain.items():
            setattr(torch.autograd, name, call)


@dataclass(kw_only=True)
class Generation:
    """A guided generation: which model, what steers it, how large, how many steps."""

    backbone: SVD
    controller: Controller
    grid: Grid
    tracks: Tracks
    num_steps: int
    seed: int = 817
    planned: tuple[int, ...] = field(init=False)
    """Guided iterations at each step."""

    def __post_init__(self) -> None:
        self.levels = self.backbone.levels(self.num_steps, self.grid)
        self.planned = self.controller.schedule(self.levels).iterations

    @property
    def num_guided(self) -> int:
        return sum(n > 0 for n in self.planned)

    @property
    def times(self) -> Mapping[str, int]:
        """Number of times that each phase happens in a whole run."""
        return MappingProxyType(
            {
                ENCODE: 1,
                PLAIN: self.num_steps - len(self._without_guidance),
                UNGUIDED: len(self._without_guidance),
                FORWARD: sum(self.planned),
                BACKWARD: sum(self.planned),
                REST: self.num_guided,
                DECODE: 1,
            }
        )

    @property
    def _without_guidance(self) -> list[int]:
        """Indices of steps outside the model's interval of classifier-free guidance: they have one branch."""
        low, high = self.backbone.settings.guidance_interval
        return [k for k, level in enumerate(self.levels[:-1]) if not low <= level.noise_level <= high]

    def per_unit(self, phase: str) -> int:
        """Units of a phase in one measurement of it: a guided step holds several iterations."""
        return max(self.planned) if phase in (FORWARD, BACKWARD) else 1

    @cached_property
    def condition(self) -> SVDCondition:
        return self._encode(self._generator())

    @cached_property
    def state(self) -> Any:
        """The controller's knowledge of the run."""
        return self.controller.prepare(self._setup(self.condition, self._generator()))

    @cached_property
    def x(self) -> Float[Tensor, "n c y x"]:
        """Latents at the level of the guided step that is measured."""
        noise = self.backbone.noise(self.grid, self._generator())
        return noise * self.levels[self.index].init_noise_sigma

    @property
    def index(self) -> int:
        """The guided step that is measured: the middle one."""
        guided = [k for k, n in enumerate(self.planned) if n]
        return guided[len(guided) // 2]

    def _step(self, lap: Lap, index: int) -> Step:
        level, next_level = list(pairwise(self.levels))[index]
        return Step(index=index, count=self.num_steps, level=level, next_level=next_level, reporter=_Iterations(lap))

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)

    def _encode(self, generator: torch.Generator) -> SVDCondition:
        return self.backbone.encode(self.tracks.image, Text(), self.grid, generator)

    def _setup(self, condition: SVDCondition, generator: torch.Generator) -> Setup:
        return Setup(
            backbone=self.backbone,
            condition=condition,
            tracks=self.tracks,
            grid=self.grid,
            levels=self.levels,
            generator=generator,
        )

    def prepare(self) -> None:
        """Compute what a run needs once, outside the phases: condition, plan of the loss, latents to begin with."""
        self.condition, self.state, self.x  # noqa: B018

    def encode(self, lap: Lap) -> None:
        lap(ENCODE)
        self._encode(self._generator())

    def plain(self, lap: Lap) -> None:
        """Take a step without steering, with both branches of guidance, and one with one branch if a run has such."""
        without = self._without_guidance
        for phase, indices in ((PLAIN, [k for k in range(self.num_steps) if k not in without]), (UNGUIDED, without)):
            if indices:
                lap(phase)
                self._plain(self._step(lap, indices[len(indices) // 2]))

    @torch.no_grad()
    def _plain(self, step: Step) -> None:
        with self.controller.during(step, self.state):
            x0 = self.backbone.denoise(self.x, step.level, self.condition)
        euler(self.x, x0, step.level, step.next_level)

    @torch.no_grad()
    def guided(self, lap: Lap) -> None:
        """Steer one guided step: all its iterations, and the merge of frequencies."""
        lap(REST)
        with _split_at_gradients(lap):
            self.controller.steer(self.x, self._step(lap, self.index), self.state)

    def decode(self, lap: Lap) -> None:
        lap(DECODE)
        self.backbone.decode(self.x)

    @property
    def parts(self) -> tuple[Callable[[Lap], None], ...]:
        """Parts of a whole run; each names its phases."""
        return self.encode, self.plain, self.guided, self.decode

    def whole(self, lap: Lap) -> Tensor:
        """The run itself, from picture and noise to frames."""
        lap("whole run")
        generator = self._generator()
        condition = self._encode(generator)
        noise = self.backbone.noise(self.grid, generator)
        latents = sample(self.controller, self._setup(condition, generator), noise=noise)
        return self.backbone.decode(latents).cpu()

"""Layers' features in a scene as colours: principal components over all frames (SG-I2V, Figures 2, 11, 12)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from sgi2v.backbones import Backbone, Settings, Text
from sgi2v.controllers import SGI2V, Controller, Setup, State, recommended
from sgi2v.draw import draw_tracks
from sgi2v.errors import FieldError
from sgi2v.pipeline import Progress, plan
from sgi2v.planning import Sampling, Uses
from sgi2v.sampling import sample
from sgi2v.scene import Scene
from sgi2v.step import Reporter, Step
from sgi2v.video import to_uint8

TITLES: Final = ("block output", "self-attention", "temporal attention", "first-frame self-attention")
_MOST_FRAMES: Final = 7
_CELL: Final = 128  # width of a picture on the sheet, in pixels
_GAP: Final = 3
_LABEL: Final = 190


@dataclass(frozen=True, kw_only=True)
class Look:
    """A layer of the network and steps at which its features are looked at."""

    attention: str = "up_blocks.2.attentions.1"
    """The block whose attentions are shown, and of the level it lies in the output."""
    remaining: tuple[int, ...] = ()
    """Steps still to go: the number of steps is pure noise, 1 the last one. Default: four over the denoising."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the features, in the order of TITLES."""
        level = self.attention.partition(".attentions")[0]
        sources = (f"{self.attention}:{source}" for source in ("self", "temporal", "first-frame"))
        return (f"{level}:output", *sources)

    def steps(self, num_steps: int) -> tuple[int, ...]:
        """Steps still to go, most first; ValueError for one that the denoising does not have."""
        if not self.remaining:
            spread = {max(1, round(num_steps * share)) for share in (0.9, 0.65, 0.4, 0.1)}
            return tuple(sorted(spread, reverse=True))
        for step in self.remaining:
            if not 1 <= step <= num_steps:
                raise FieldError("remaining", f"{step} is no step of {num_steps}", f"give 1 (the last) to {num_steps}")
        return tuple(sorted(set(self.remaining), reverse=True))


def read_by_sg_i2v(settings: Settings) -> str:
    """The last block whose attention SG-I2V reads on a model: where its features are finest."""
    controller = recommended("sg-i2v", settings.recommended)
    assert isinstance(controller, SGI2V)
    return controller.layers[-1].partition(":")[0]


@dataclass(kw_only=True)
class _Seen(State):
    features: dict[int, Mapping[str, Tensor]] = field(default_factory=dict)
    """By the steps still to go."""


@dataclass(frozen=True, kw_only=True)
class FeatureReader(Controller[_Seen]):
    """Steers nothing and reads features on the way."""

    name: ClassVar[str] = "feature-reader"

    layers: tuple[str, ...]
    remaining: tuple[int, ...]
    """Steps still to go at which it reads."""
    seen: Callable[[_Seen], None]
    """Is given where the features will be found."""

    def uses(self) -> Uses:
        """Its layers."""
        return Uses(features=self.layers)

    def prepare(self, setup: Setup) -> _Seen:
        """The place where features are kept."""
        state = _Seen(setup=setup)
        self.seen(state)
        return state

    def steer(self, x: Float[Tensor, "n c y x"], step: Step, state: _Seen) -> Float[Tensor, "n c y x"]:
        """The latents as they are, after a look at what the network makes of them."""
        left = step.count - step.index
        if left in self.remaining:
            setup = state.setup
            with torch.no_grad():
                found = setup.backbone.features(x, step.level, setup.condition, self.layers)
            state.features[left] = {name: value.float().cpu() for name, value in found.items()}
        return x


@dataclass
class _Telling(Reporter):
    progress: Callable[[Progress], None]

    def step(self, step: Step) -> None:
        done = step.index / step.count
        self.progress(Progress(phase="sample", step=step.index + 1, num_steps=step.count, fraction=done))


def components(features: Float[Tensor, "f d v u"]) -> Float32[Tensor, "f 3 v u"]:
    """The first three principal components over all frames and places jointly, each spread over 0..1, as colours.

    So a colour means the same in every frame. The middle 98 % of a component's values span 0..1, the rest is cut; its
    sign is chosen so that its largest weight is positive. In float64, the same for the same features.
    """
    num, dimensions, height, width = features.shape
    rows = features.permute(0, 2, 3, 1).reshape(-1, dimensions).double()
    rows = rows - rows.mean(0)
    _, vectors = torch.linalg.eigh(rows.T @ rows)
    axes = vectors[:, -3:].flip(1)
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    places = rows @ (axes * torch.where(largest < 0, -1.0, 1.0))
    low, high = (torch.quantile(places[:: max(1, len(places) // 1_000_000)], q, dim=0) for q in (0.01, 0.99))
    colours = ((places - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
    maps: Tensor = colours.float().reshape(num, height, width, -1).permute(0, 3, 1, 2).contiguous()
    return maps


def feature_sheet(
    scene: Scene,
    *,
    backbone: Backbone,
    sampling: Sampling | None = None,
    look: Look | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Image.Image:
    """The scene sampled without control, and below its frames what layers see at several steps; a row is one of both.

    Raises ValueError, before any compute, for a scene the model cannot take or a step it does not have, and for a
    layer that the network does not have.
    """
    look = look or Look()
    kept: list[_Seen] = []
    num_steps = (sampling.num_steps if sampling else None) or backbone.settings.num_steps
    steps = look.steps(num_steps)
    reader = FeatureReader(layers=look.layers, remaining=steps, seen=kept.append)
    planned = plan(scene, backbone.outline, controller=reader, sampling=sampling)
    generator = torch.Generator().manual_seed(planned.sampling.seed)
    text = Text(prompt=scene.prompt, negative=scene.negative_prompt)
    condition = backbone.encode(planned.tracks.image, text, planned.grid, generator)
    noise = backbone.noise(planned.grid, generator)
    setup = Setup(
        backbone=backbone,
        condition=condition,
        tracks=planned.tracks,
        grid=planned.grid,
        levels=planned.levels,
        generator=generator,
        text=text,
    )
    latents = sample(reader, setup, noise=noise, reporter=_Telling(progress or (lambda _: None)))
    frames = backbone.decode(latents).cpu()
    shown = np.unique(np.linspace(0, len(frames) - 1, _MOST_FRAMES).round().astype(int))
    rows = [("video without control", to_uint8(draw_tracks(frames, planned.tracks.tracks))[shown])]
    (seen,) = kept
    for left in steps:
        for title, layer in zip(TITLES, look.layers, strict=True):
            colours = to_uint8(components(seen.features[left][layer]))
            picked = np.unique(np.linspace(0, len(colours) - 1, _MOST_FRAMES).round().astype(int))
            rows.append((f"{left} of {num_steps} steps left\n{title}", colours[picked]))
    return _sheet(rows, planned.grid.height / planned.grid.width)


def _sheet(rows: Sequence[tuple[str, UInt8[np.ndarray, "_ _ _ 3"]]], shape: float) -> Image.Image:
    """Rows of pictures under each other, each with its label before it."""
    height = round(_CELL * shape)
    columns = max(len(pictures) for _, pictures in rows)
    size = (_LABEL + columns * (_CELL + _GAP), len(rows) * (height + _GAP))
    sheet = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for number, (label, pictures) in enumerate(rows):
        top = number * (height + _GAP)
        pen.multiline_text((6, top + height / 2), label, "black", font, anchor="lm")
        for column, picture in enumerate(pictures):
            # Cells of a map stay to be seen as cells.
            large = Image.fromarray(picture).resize((_CELL, height), Image.Resampling.NEAREST)
            sheet.paste(large, (_LABEL + column * (_CELL + _GAP), top))
    return sheet

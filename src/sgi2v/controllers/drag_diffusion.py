"""DragDiffusion (arXiv 2306.14435) on video: latents of one step optimised until handle points reach their boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from jaxtyping import Bool, Float

from sgi2v.attention import AttentionCall, first_frame_attention
from sgi2v.backbones.base import CLEAN
from sgi2v.checks import LARGEST, Bounds, choice
from sgi2v.controllers.base import Controller, Setup, State
from sgi2v.device import HostCopy
from sgi2v.dragging import (
    Appearance,
    Editable,
    Handles,
    editable_cells,
    handles_of,
    read_places,
    square,
    toward,
    track,
)
from sgi2v.errors import FieldError
from sgi2v.lazy import torch
from sgi2v.planning import Schedule, Unit, Uses, check_numbers, positions, sigmas_of
from sgi2v.solvers import euler
from sgi2v.step import Level, Step

# The nearest step may be this many times noisier or cleaner than the one asked for; farther off is another method.
_NEAR = 4.0
# Lifts the loss's small gradients into float16's range; more of it and those of the regularisation would leave it.
_FLOAT16_LOSS_SCALE = 2.0**7


@dataclass(frozen=True, kw_only=True)
class DragDiffusion(Controller["DragState"]):
    """DragDiffusion, an image-editing method, with its published hyper-parameters and every frame edited alike.

    In every frame a handle starts at the first box's centre and is dragged to the box's centre in that frame: at one
    step the latents are optimised so that what lies at the handle comes to lie a little nearer to its target, and
    the handle is looked for again, until all have arrived. From then on the later layers attend to the first frame.
    How video changes the method was never published (SG-I2V's Table 1 has such a row); here every part is a field.
    A handle whose target lies outside the picture is dragged to the nearest place inside, and left alone in frames
    in which no part of the box is in the picture. Source: DragDiffusion, section 3, and its published code.
    """

    name: ClassVar[str] = "drag-diffusion"
    where: ClassVar[str] = "at"

    at: float = 87.7
    """Level of noise at which to drag, in the unit below; the step nearest to it does. The default is 0.7 of the
    way to noise on SVD, 35 of 50 steps still to go."""
    unit: Unit = "sigma"
    """Unit of at and reference_until: sigma (noise to signal ratio), noise-level (s = noise / (signal + noise), 0 to
    1, alike for every model), or step (steps still to go: num_steps at pure noise, 1 at the last)."""
    iterations: int = 80
    """Optimiser iterations, at most: fewer when all handles arrive before."""
    lr: float = 0.01
    """Adam's step size, as a share of the noisy latents' deviation at that step (1 in the published method's model)."""
    layers: tuple[str, ...] = ("up_blocks.2:output",)
    """Features that are dragged, <block>:<source>, source one of output, self, temporal, first-frame."""
    cell: float = 2.0
    """Side of a cell, the unit of the next four, in pixels of the picture; published: features at half its size."""
    reach: float = 1.0
    """Distance by which a handle's content is pulled at an iteration, in cells; never beyond the target."""
    patch_radius: int = 1
    """Content of a handle: the cells up to this far from it, both ways."""
    track_radius: int = 3
    """A handle is looked for up to this many cells from its last place, both ways."""
    arrived: float = 2.0
    """A handle has arrived when it is nearer to its target than this many cells."""
    pulled: Appearance = "own-frame"
    """Look of the place ahead of a handle: the handle's own content in that frame, as published, or what
    lay at its start in the first frame before the optimisation."""
    tracked: Appearance = "first-frame"
    """Mark by which a handle is known: what lay at its start before the optimisation, in the first frame, where it
    surely is the object, or in its own frame, as in an image."""
    outside_weight: float = 0.1
    """Weight of holding the latents denoised by one step outside the editable cells; 0: not held, and cheaper."""
    editable: Editable = "path"
    """Editable cells: path (under the boxes of any frame), frame (under that frame's and the first boxes), or
    everything (nothing is held)."""
    reference_attention: bool = True
    """From the dragged step on, let every frame's spatial self-attention see the first frame's keys and values only."""
    reference_layers: tuple[str, ...] = ("up_blocks.2", "up_blocks.3")
    """Blocks, each with all inside it, whose attention does so; published: from the 11th of 16 attentions on."""
    reference_until: float = 0.0
    """Lowest value, in the same unit, at which it does so; 0: to the end, as published."""

    BOUNDS: ClassVar[Bounds] = MappingProxyType(
        {"iterations": (0, 10_000), "patch_radius": (0, 1000), "track_radius": (0, 1000)}
        | dict.fromkeys(("at", "lr", "cell", "reach", "arrived", "outside_weight", "reference_until"), (0, LARGEST))
    )

    def __post_init__(self) -> None:
        check_numbers(self, above=("at", "cell"))
        choice("controller.unit", self.unit, Unit)
        choice("controller.editable", self.editable, Editable)
        choice("controller.pulled", self.pulled, Appearance)
        choice("controller.tracked", self.tracked, Appearance)
        if self.unit == "share":
            raise FieldError("controller.unit", "share grows as noise falls", "use sigma, noise-level or step")
        if self.unit == "noise-level" and self.at >= 1:
            raise FieldError("controller.at", f"a noise level lies below 1, got {self.at}")
        if not self.layers:
            raise FieldError("controller.layers", "name at least one layer")

    @property
    def _edits(self) -> bool:
        return self.reference_attention and bool(self.reference_layers)

    def uses(self) -> Uses:
        """Its layers, those that attend to the first frame, and the motions."""
        edited = self.reference_layers if self._edits else ()
        by = ("reference_attention",) if self._edits else ()
        return Uses(features=self.layers, blocks=edited, edits=self._edits, edited_by=by, motions=True)

    def dragged_step(self, levels: Sequence[Level]) -> int:
        """Index of the step at which is dragged; FieldError when none comes near to what is asked for."""
        count = len(levels) - 1
        if self.unit == "step":
            distances = [abs(value - self.at) for value in positions("step", levels)]
        else:  # the logarithm of the ratio of their sigmas
            at = self.at if self.unit == "sigma" else self.at / (1 - self.at)
            distances = [abs(math.log(level.sigma / at)) for level in levels[:-1]]
        index = min(range(count), key=distances.__getitem__)
        if distances[index] > (0.5 if self.unit == "step" else math.log(_NEAR)):
            raise FieldError(
                "controller.at",
                f"no step of {count} is near {self.unit} {self.at:g}",
                f"the steps' sigmas are {sigmas_of(levels)}",
            )
        return index

    def schedule(self, levels: Sequence[Level]) -> Schedule:
        """All iterations, at most, at the one step; FieldError when no step comes near to it."""
        dragged = self.dragged_step(levels)
        iterations = tuple(self.iterations * (k == dragged) for k in range(len(levels) - 1))
        return Schedule(iterations=iterations, acts=tuple(number > 0 for number in iterations))

    def prepare(self, setup: Setup) -> DragState:
        """Handles and editable cells; FieldError when a first box leaves the picture."""
        device, grid = setup.backbone.device, setup.grid
        handles = handles_of(setup.tracks, grid)
        dragged = self.dragged_step(setup.levels)
        shown = positions(self.unit, setup.levels)
        free = setup.backbone.free(grid)
        return DragState(
            setup=setup,
            dragged=dragged,
            sees_first_frame=tuple(
                self._edits and index >= dragged and value >= self.reference_until for index, value in enumerate(shown)
            ),
            handles=handles.to(device),
            # Asked here, where the answer is at hand; on a device it would have to be waited for.
            at_rest=not bool(handles.unfinished(handles.start, self.arrived * self.cell).any()),
            held=(1 - editable_cells(setup.tracks, grid, self.editable)).to(device),
            free=None if bool(free.all()) else free[:, None, None, None].to(device),
        )

    def steer(self, x: Float[torch.Tensor, "n c y x"], step: Step, state: DragState) -> Float[torch.Tensor, "n c y x"]:
        """Latents in which the handles have been dragged, at the one step; ``x`` itself at all others."""
        if state.at_rest or step.index != state.dragged:
            return x
        optimised = x.detach().clone()
        optimiser = torch.optim.Adam([optimised], lr=self.lr * step.level.init_noise_sigma)
        drag = _Drag(controller=self, state=state, step=step, places=state.handles.start)
        arrived: HostCopy | None = None
        for index in range(self.iterations):
            # The answer of the iteration before: by now it lies on the host, while the device is still busy.
            if arrived is not None and arrived.read():
                break
            step.reporter.check_cancelled()
            value, optimised.grad, unfinished = drag.iterate(optimised)
            before = optimised.clone()
            optimiser.step()
            torch.where(unfinished, optimised, before, out=optimised)
            arrived = HostCopy(~unfinished)
            step.reporter.iteration(step, index, self.iterations, value)
        dragged = optimised.detach()
        return dragged if state.free is None else torch.where(state.free, dragged, x)

    def during(self, step: Step, state: DragState) -> AbstractContextManager[None]:
        """Reference attention, from the dragged step until ``reference_until``."""
        if not state.sees_first_frame[step.index]:
            return nullcontext()
        return state.setup.backbone.editing(self._see_first_frame, state.setup.grid)

    def _see_first_frame(self, call: AttentionCall) -> torch.Tensor | None:
        named = any(call.layer == block or call.layer.startswith(f"{block}.") for block in self.reference_layers)
        if call.source != "self" or not named:
            return None
        return first_frame_attention(call.query, call.key, call.value, call.num_heads)


@dataclass(kw_only=True)
class DragState(State):
    """Everything one run of DragDiffusion needs besides its hyper-parameters; it does not change meanwhile."""

    dragged: int
    """Index of the step at which is dragged."""
    sees_first_frame: tuple[bool, ...]
    """Steps at which later layers attend to the first frame."""
    handles: Handles
    at_rest: bool
    """True where every handle starts where it is to go, so that there is nothing to do."""
    held: Float[torch.Tensor, "_ 1 y x"]
    """1 in latent cells that shall stay as they are."""
    free: Bool[torch.Tensor, "n 1 1 1"] | None
    """Latent frames that are variables; None where all are."""


@dataclass(kw_only=True)
class _Drag:
    """One optimisation on its way: where the handles are, and what they looked like at its beginning."""

    controller: DragDiffusion
    state: DragState
    step: Step
    places: Float[torch.Tensor, "b f 2"]
    template: Float[torch.Tensor, "b f k d"] | None = None
    before: Float[torch.Tensor, "n c y x"] | None = None

    def iterate(
        self, x: Float[torch.Tensor, "n c y x"]
    ) -> tuple[Float[torch.Tensor, ""], Float[torch.Tensor, "n c y x"], torch.Tensor]:
        """Find the handles in ``x``; then the loss there, its gradient, and whether any handle is still on its way.

        Loss: over handles that are, ``sum_patch mean_c |F(p + d) - sg F(p)|``, plus the weight times
        ``sum |x' - sg x'_before|`` over held cells, x' the latents at the next level (equation 3).
        """
        mine, state = self.controller, self.state
        holds = mine.outside_weight > 0 and mine.editable != "everything"
        device, handles = x.device, state.handles
        with torch.enable_grad():
            leaf = x.detach().requires_grad_(True)
            names = (*mine.layers, *((CLEAN,) if holds else ()))
            read = state.setup.backbone.features(leaf, self.step.level, state.setup.condition, names)
            features = [read[layer] for layer in mine.layers]
            frozen = [maps.detach() for maps in features]
            patch = square(mine.patch_radius, mine.cell, device)
            if self.template is None:
                self.template = read_places(frozen, handles.start[:, :, None] + patch, handles.size)
            else:
                search = square(mine.track_radius, mine.cell, device)
                middle = self.template[:, :, patch.shape[0] // 2]
                middle = middle[:, :1] if mine.tracked == "first-frame" else middle
                self.places = track(frozen, handles, self.places, middle, search)
            unfinished = handles.unfinished(self.places, mine.arrived * mine.cell)
            around = self.places[:, :, None] + patch
            wanted = self.template[:, :1] if mine.pulled == "first-frame" else read_places(frozen, around, handles.size)
            ahead = around + toward(handles, self.places, mine.reach * mine.cell)[:, :, None]
            found = read_places(features, ahead, handles.size)
            error = (found - wanted).abs().mean(dim=-1).sum(dim=-1)
            value = (error * unfinished).sum()
            if holds:
                after = euler(leaf, read[CLEAN], self.step.level, self.step.next_level)
                if self.before is None:
                    self.before = after.detach()
                value = value + mine.outside_weight * ((after - self.before) * state.held).abs().sum()
            scale = _FLOAT16_LOSS_SCALE if state.setup.backbone.dtype == torch.float16 else 1.0
            (gradient,) = torch.autograd.grad(value * scale, leaf)
        return value.detach(), gradient / scale, unfinished.any()

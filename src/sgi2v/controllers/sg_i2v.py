"""SG-I2V: latents optimised so that first-frame-aligned attention features follow the boxes (arXiv 2411.04989)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import PIL.Image
from jaxtyping import Bool, Float

from sgi2v.alignment import AlignmentPlan, Kept, Weighting, alignment_loss, alignment_plan, matching_loss
from sgi2v.backbones.base import CLEAN, MATCHES, ReusesDeep
from sgi2v.checks import LARGEST, Bounds, choice
from sgi2v.controllers.base import Controller, Setup, State
from sgi2v.device import HostCopy
from sgi2v.dragging import editable_cells
from sgi2v.errors import FieldError, within
from sgi2v.grid import Grid
from sgi2v.lazy import torch
from sgi2v.planning import Range, Schedule, Uses, check_numbers
from sgi2v.spectrum import low_pass, merge_frequencies, with_statistics_of
from sgi2v.step import Level, Step

# Gradients of the loss are around 1e-7, below the smallest number of float16; its exponent range has this to spare.
_FLOAT16_LOSS_SCALE = 2.0**16
# Those of the loss in cells are some fifty times larger (measured on the bundled model), and must fit as well.
_FLOAT16_MATCHING_SCALE = 2.0**10

Loss = Literal["alignment", "matching"]
Backward = Literal["network", "direct"]


@dataclass(frozen=True, kw_only=True)
class SGI2V(Controller["SGI2VState"]):
    """SG-I2V, with the published hyper-parameters for Stable Video Diffusion as defaults.

    At each guided step the latents are optimised for a few iterations so that the features inside every box equal
    those of its place in the first frame; then only the low frequencies of the change are kept. Source: SG-I2V
    (arXiv 2411.04989), section 4, and its published code.
    """

    name: ClassVar[str] = "sg-i2v"
    where: ClassVar[str] = "guided"

    guided: Range = field(default_factory=lambda: Range(low=36.0, high=376.0))
    """Steps at which to optimise: lowest value, highest value (both included) and their unit: sigma (noise to
    signal ratio), noise-level (s = noise / (signal + noise), 0 to 1, alike for every model), step (steps still to go:
    num_steps at pure noise, 1 at the last) or share (steps done, 0 to 1). The default: steps 45 to 30 of 50 on SVD."""
    iterations: int = 5
    """Optimiser iterations at a guided step."""
    lr: float = 0.21
    """AdamW's step size, in units of the clean latents (multiplied by the level's share of signal) or of the noise:
    lr_unit."""
    weight_decay: float = 0.01
    """AdamW's weight decay; at the default it shrinks the latents by about 1 % a guided step, as published."""
    layers: tuple[str, ...] = ("up_blocks.2.attentions.1:first-frame", "up_blocks.2.attentions.2:first-frame")
    """Features to align, <block>:<source>, source one of first-frame, self, temporal, output; for the loss matching,
    match."""
    heatmap_std: float = 0.4
    """Deviation of the Gaussian weight on a box, as a share of half the box's height and width."""
    weighting: Weighting = "gaussian"
    """Weight of a box's cells: gaussian (more in its middle, as published), uniform (all alike, the paper's Table 2),
    or mask (what the motion's mask covers of each; a motion without a mask keeps its Gaussian)."""
    cutoff: float = 0.5
    """Frequencies below this share of Nyquist come from the optimised latents, the others from those before
    (the paper's gamma; 0 keeps nothing of the optimisation, large values keep all)."""
    settled: float = 0.0
    """End a step's iterations when one has lowered the loss by less than this share of it; 0: never. It is seen one
    iteration late, so that nothing waits for the device: at least three are made."""
    reuse_deep: bool = False
    """Cheaper: only a step's first iteration runs the network's deep blocks, the later ones take what they put out for
    constant. For layers in up_blocks.1 or later ones."""
    shrink: int = 1
    """Cheaper: optimise on latents averaged over squares of this many cells a side, with the picture encoded once more
    at that size; 1: as they are. For models that draw well so small."""
    loss: Loss = "alignment"
    """Comparison inside the boxes: alignment (the look of each place with that of its place in the first box, as
    published) or matching (the place of the first frame that its queries find among the keys there with its place in
    the first box, in latent cells squared; for layers with the source match)."""
    backward: Backward = "network"
    """Way of the gradient: network (back through the network to its layers, as published) or direct (the loss on the
    estimate of the clean latents themselves, whose derivative is taken for one: no pass back, no layers, as little
    memory as plain sampling; FlowMotion, and DITTO's cheap form)."""
    lr_unit: Literal["signal", "noise"] = "signal"
    """Unit of lr: signal (the level's share of signal, as published) or noise (the noise's deviation there)."""
    clip_gradient: float = 0.0
    """Largest norm of an iteration's gradient, over all latents; 0: any."""
    keep_statistics: bool = False
    """Give every frame and channel the mean and deviation back that it had before the step, after each iteration."""
    hold_background: float = 0.0
    """Weight of holding the estimate of the clean latents, outside a frame's boxes and the first, to that before the
    step's optimisation: times its mean squared change is added to the loss. 0: not held, and cheaper (the pass then
    ends at the last layer)."""
    path_parts: int = 1
    """Parts in which the path is walked: over the guided steps the boxes go from this share of it to all of it; 1: all
    of it at once."""

    BOUNDS: ClassVar[Bounds] = MappingProxyType(
        {"iterations": (1, 1000), "shrink": (1, 64), "path_parts": (1, 1000)}
        | dict.fromkeys(
            ("lr", "weight_decay", "heatmap_std", "cutoff", "settled", "clip_gradient", "hold_background"), (0, LARGEST)
        )
    )

    def __post_init__(self) -> None:
        check_numbers(self, above=("heatmap_std",))
        choice("controller.weighting", self.weighting, Weighting)
        choice("controller.lr_unit", self.lr_unit, Literal["signal", "noise"])
        choice("controller.loss", self.loss, Loss)
        choice("controller.backward", self.backward, Backward)
        self._check_layers()

    def _check_layers(self) -> None:
        """FieldError for layers that do not fit the loss, and what has nothing to do without a pass back."""
        direct, matching = self.backward == "direct", self.loss == "matching"
        if not self.layers:
            raise FieldError("controller.layers", "name at least one layer")
        if direct and matching:
            raise FieldError("controller.backward", "direct reads clean latents, which find no place", "use alignment")
        if direct and self.reuse_deep:
            raise FieldError("controller.reuse_deep", "a direct pass runs the network to its end", "leave it out")
        for layer in () if direct else self.layers:
            block, _, source = layer.partition(":")
            if matching and source not in MATCHES:
                raise FieldError(
                    "controller.layers", f"matching reads places, and {layer!r} gives looks", f"name {block}:match"
                )
            if source in MATCHES and not matching:
                raise FieldError(
                    "controller.loss", f"alignment compares looks, and {layer!r} gives places", "choose matching"
                )

    @property
    def _read(self) -> tuple[str, ...]:
        """Features that an iteration reads."""
        if self.backward == "direct":
            return (CLEAN,)
        return (*self.layers, *((CLEAN,) if self.hold_background else ()))

    def uses(self) -> Uses:
        """Features that an iteration reads and the motions; masks where they weigh."""
        return Uses(
            features=self._read,
            reuses_deep=self.reuse_deep,
            motions=True,
            masks=self.weighting == "mask",
        )

    def schedule(self, levels: Sequence[Level]) -> Schedule:
        """All iterations, at most, at every guided step; FieldError when there are none, or fewer than parts."""
        with within("controller.guided"):
            acts = self.guided.steps(levels)
        if self.path_parts > sum(acts):
            raise FieldError("controller.path_parts", f"{self.path_parts} for {sum(acts)} guided steps", "use fewer")
        return Schedule(iterations=tuple(self.iterations * guided for guided in acts), acts=acts)

    def prepare(self, setup: Setup) -> SGI2VState:
        """Cells, targets and weights of the loss.

        FieldError as :func:`sgi2v.alignment.alignment_plan` raises it, and for a size that ``shrink`` does not divide.
        """
        condition, grid = setup.condition, setup.grid
        mask = low_pass(grid.rows, grid.columns, self.cutoff, device=setup.backbone.device)
        if self.shrink > 1:
            condition, grid = _shrunk(self.shrink, setup)
        device, free = setup.backbone.device, setup.backbone.free(setup.grid)
        guided = self.schedule(setup.levels).acts
        # The part that is walked by each step: all of the path at the last guided one.
        parts = [max(1, -(-sum(guided[: k + 1]) * self.path_parts // sum(guided))) for k in range(len(guided))]
        plans = {
            part: alignment_plan(setup.tracks.part(part / self.path_parts), grid, self.heatmap_std, self.weighting)
            for part in dict.fromkeys(parts)
        }
        return SGI2VState(
            setup=setup,
            condition=condition,
            plans=tuple(plans[part] for part in parts),
            low_pass=mask,
            guided=guided,
            free=None if bool(free.all()) else free[:, None, None, None].to(device),
            outside=(1 - editable_cells(setup.tracks, grid, "frame")).to(device) if self.hold_background else None,
        )

    def loss_and_gradient(
        self,
        x: Float[torch.Tensor, "n c y x"],
        level: Level,
        state: SGI2VState,
        *,
        plan: AlignmentPlan | None = None,
        kept: Kept | None = None,
    ) -> tuple[Float[torch.Tensor, ""], Float[torch.Tensor, "n c y x"]]:
        """The loss at ``x`` and its gradient there, both float32 (equation 2, as published).

        ``plan``: that of the step, by default of the whole path; ``kept`` holds what lies outside the boxes.
        """
        backbone, plan = state.setup.backbone, plan or state.plan
        with torch.enable_grad():
            leaf = x.detach().requires_grad_(True)
            seen = leaf
            if self.shrink > 1:
                seen = torch.nn.functional.avg_pool2d(leaf, self.shrink)
                # Averaging keeps the signal and divides the deviation of independent noise by the square's side.
                level = Level(signal=level.signal, noise=level.noise / self.shrink)
            if self.backward == "direct":
                with torch.no_grad():
                    clean = backbone.features(seen, level, state.condition, self._read)[CLEAN]
                read = {CLEAN: clean + (seen - seen.detach())}  # the same numbers, with a derivative of one
            else:
                read = dict(backbone.features(seen, level, state.condition, self._read))
            compared = [maps for name, maps in read.items() if name != CLEAN or self.backward == "direct"]
            matching = self.loss == "matching"
            value = (matching_loss if matching else alignment_loss)(compared, plan)
            if kept is not None:
                value = value + self.hold_background * kept.change(read[CLEAN])
            scale = 1.0
            if backbone.dtype == torch.float16 and self.backward == "network":
                scale = _FLOAT16_MATCHING_SCALE if matching else _FLOAT16_LOSS_SCALE
            (gradient,) = torch.autograd.grad(value * scale, leaf)
        return value.detach(), gradient / scale

    def steer(self, x: Float[torch.Tensor, "n c y x"], step: Step, state: SGI2VState) -> Float[torch.Tensor, "n c y x"]:
        """Latents after this step's iterations and the frequency merge; ``x`` itself outside the guided range.

        Frames that the model keeps are left as they are.
        """
        plan = state.plans[step.index]
        if not (plan.num_rows and state.guided[step.index]):
            return x
        optimised = x.detach().clone()
        lr = self.lr * (step.level.noise if self.lr_unit == "noise" else step.level.signal)
        optimiser = torch.optim.AdamW([optimised], lr=lr, weight_decay=self.weight_decay)
        settling = _Settling(self.settled)
        kept = None if state.outside is None else Kept(where=state.outside)
        with self._reusing(state):
            for index in range(self.iterations):
                if settling.over():
                    break
                step.reporter.check_cancelled()
                value, gradient = self.loss_and_gradient(optimised, step.level, state, plan=plan, kept=kept)
                optimised.grad = self._clipped(state.only_free(gradient, 0.0))
                optimiser.step()
                if self.keep_statistics:
                    optimised.copy_(with_statistics_of(x, optimised))
                if state.free is not None:
                    optimised.copy_(state.only_free(optimised, x))
                settling.see(value)
                step.reporter.iteration(step, index, self.iterations, value)
        return state.only_free(merge_frequencies(optimised.detach(), x, state.low_pass), x)

    def _clipped(self, gradient: Float[torch.Tensor, "n c y x"]) -> Float[torch.Tensor, "n c y x"]:
        """The gradient, scaled to the largest norm where it is longer; nothing waits for the device."""
        if not self.clip_gradient:
            return gradient
        clipped: torch.Tensor = gradient * (self.clip_gradient / gradient.norm().clamp(min=1e-30)).clamp(max=1.0)
        return clipped

    def _reusing(self, state: SGI2VState) -> AbstractContextManager[None]:
        backbone = state.setup.backbone
        if not self.reuse_deep:
            return nullcontext()
        if not isinstance(backbone, ReusesDeep):
            raise FieldError("controller.reuse_deep", f"{backbone.name} has no deep blocks", "leave it out")
        return backbone.reusing_deep(self.layers)


def _shrunk(factor: int, setup: Setup) -> tuple[Any, Grid]:
    """The condition of the picture at a fraction of its size, and the grid of cells as many times larger."""
    grid, backbone = setup.grid, setup.backbone
    if grid.rows % factor or grid.columns % factor:
        raise FieldError(
            "controller.shrink",
            f"{factor} does not divide the {grid.columns}x{grid.rows} latent cells of a "
            f"{grid.width}x{grid.height} picture",
            "use 1, or another size",
        )
    small = backbone.grid(grid.width // factor, grid.height // factor, grid.num_frames)
    image = setup.tracks.image.resize((small.width, small.height), PIL.Image.Resampling.BICUBIC)
    # A generator of its own: how a method is made cheaper shall not change what others draw.
    condition = backbone.encode(image, setup.text, small, torch.Generator().manual_seed(0))
    return condition, replace(grid, stride=grid.stride * factor)


class _Settling:
    """Watch on whether a loss still falls, told one iteration late: by then the answer is on the host."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._last: torch.Tensor | None = None
        self._answers: list[HostCopy] = []

    def see(self, loss: torch.Tensor) -> None:
        """An iteration's loss, on the device."""
        if self._share and self._last is not None:
            self._answers.append(HostCopy(loss > (1 - self._share) * self._last))
        self._last = loss

    def over(self) -> bool:
        """True when it had stopped falling by the iteration before the last."""
        return len(self._answers) > 1 and self._answers.pop(0).read()


@dataclass(kw_only=True)
class SGI2VState(State):
    """Everything one run of SG-I2V needs besides its hyper-parameters; it does not change while the run goes on."""

    condition: Any
    """That of the optimisation."""
    plans: tuple[AlignmentPlan, ...]
    """That of each step; of the same part of the path the same one."""
    low_pass: Float[torch.Tensor, "y x"]
    guided: tuple[bool, ...]
    """Steps at which it optimises."""
    free: Bool[torch.Tensor, "n 1 1 1"] | None
    """Latent frames that are variables; None where all are."""
    outside: Float[torch.Tensor, "n 1 y x"] | None = None
    """1 in cells that are held; None where nothing is."""

    @property
    def plan(self) -> AlignmentPlan:
        """That of the whole path."""
        return self.plans[-1]

    def only_free(
        self, x: Float[torch.Tensor, "n c y x"], others: Float[torch.Tensor, "n c y x"] | float
    ) -> Float[torch.Tensor, "n c y x"]:
        """``x`` in frames that are variables, ``others`` in those that the model keeps."""
        return x if self.free is None else torch.where(self.free, x, others)

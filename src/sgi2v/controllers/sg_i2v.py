"""SG-I2V: latents optimised so that first-frame-aligned attention features follow the boxes (arXiv 2411.04989)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import PIL.Image
from jaxtyping import Bool, Float

from sgi2v.alignment import AlignmentPlan, Weighting, alignment_loss, alignment_plan
from sgi2v.backbones.base import ReusesDeep
from sgi2v.checks import choice
from sgi2v.controllers.base import Controller, Setup, State
from sgi2v.device import HostCopy
from sgi2v.errors import FieldError, within
from sgi2v.grid import Grid
from sgi2v.lazy import torch
from sgi2v.planning import Range, Schedule, Uses, check_numbers
from sgi2v.spectrum import low_pass, merge_frequencies
from sgi2v.step import Level, Step

# Gradients of the loss are around 1e-7, below the smallest number of float16; its exponent range has this to spare.
_FLOAT16_LOSS_SCALE = 2.0**16


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
    """Where in the denoising to optimise: lowest value, highest value (both included) and their unit: sigma (noise to
    signal ratio), noise-level (s = noise / (signal + noise), 0 to 1, alike for every model), step (steps still to go:
    num_steps at pure noise, 1 at the last) or share (steps done, 0 to 1). The default: steps 45 to 30 of 50 on SVD."""
    iterations: int = 5
    """Optimiser iterations at a guided step."""
    lr: float = 0.21
    """AdamW's step size, in units of the clean latents (multiplied by the level's share of signal)."""
    weight_decay: float = 0.01
    """AdamW's weight decay; at the default it shrinks the latents by about 1 % a guided step, as published."""
    layers: tuple[str, ...] = ("up_blocks.2.attentions.1:first-frame", "up_blocks.2.attentions.2:first-frame")
    """Features to align, <block>:<source>, source one of first-frame, self, temporal, output."""
    heatmap_std: float = 0.4
    """Deviation of the Gaussian weight on a box, as a share of half the box's height and width."""
    weighting: Weighting = "gaussian"
    """What a box's cells count: gaussian (more in its middle, as published), uniform (all alike, the paper's Table 2),
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

    def __post_init__(self) -> None:
        check_numbers(
            self,
            {"iterations": 1, "lr": 0, "weight_decay": 0, "cutoff": 0, "settled": 0, "shrink": 1},
            above=("heatmap_std",),
        )
        choice("controller.weighting", self.weighting, Weighting)
        if not self.layers:
            raise FieldError("controller.layers", "name at least one layer")

    def uses(self) -> Uses:
        """Its layers and the motions; masks where they weigh."""
        return Uses(
            features=self.layers,
            reuses_deep=self.reuse_deep,
            motions=True,
            masks=self.weighting == "mask",
        )

    def schedule(self, levels: Sequence[Level]) -> Schedule:
        """All iterations, at most, at every guided step; FieldError when no step is guided."""
        with within("controller.guided"):
            acts = self.guided.steps(levels)
        return Schedule(iterations=tuple(self.iterations * guided for guided in acts), acts=acts)

    def prepare(self, setup: Setup) -> SGI2VState:
        """Cells, targets and weights of the loss.

        FieldError as :func:`sgi2v.alignment.alignment_plan` raises it, and for a size that ``shrink`` does not divide.
        """
        condition, grid = setup.condition, setup.grid
        mask = low_pass(grid.rows, grid.columns, self.cutoff, device=setup.backbone.device)
        if self.shrink > 1:
            condition, grid = _shrunk(self.shrink, setup)
        free = setup.backbone.free(setup.grid)
        return SGI2VState(
            setup=setup,
            condition=condition,
            plan=alignment_plan(setup.tracks, grid, self.heatmap_std, self.weighting),
            low_pass=mask,
            guided=self.schedule(setup.levels).acts,
            free=None if bool(free.all()) else free[:, None, None, None].to(setup.backbone.device),
        )

    def loss(
        self,
        x: Float[torch.Tensor, "n c y x"],
        level: Level,
        state: SGI2VState,
    ) -> tuple[Float[torch.Tensor, ""], Float[torch.Tensor, "n c y x"]]:
        """The alignment loss at ``x`` and its gradient there, both float32 (equation 2)."""
        backbone = state.setup.backbone
        with torch.enable_grad():
            leaf = x.detach().requires_grad_(True)
            seen = leaf
            if self.shrink > 1:
                seen = torch.nn.functional.avg_pool2d(leaf, self.shrink)
                # Averaging keeps the signal and divides the deviation of independent noise by the square's side.
                level = Level(signal=level.signal, noise=level.noise / self.shrink)
            features = backbone.features(seen, level, state.condition, self.layers)
            value = alignment_loss(features.values(), state.plan)
            scale = _FLOAT16_LOSS_SCALE if backbone.dtype == torch.float16 else 1.0
            (gradient,) = torch.autograd.grad(value * scale, leaf)
        return value.detach(), gradient / scale

    def steer(self, x: Float[torch.Tensor, "n c y x"], step: Step, state: SGI2VState) -> Float[torch.Tensor, "n c y x"]:
        """Latents after this step's iterations and the frequency merge; ``x`` itself outside the guided range.

        Frames that the model keeps are left as they are.
        """
        if not (state.plan.num_rows and state.guided[step.index]):
            return x
        optimised = x.detach().clone()
        optimiser = torch.optim.AdamW([optimised], lr=self.lr * step.level.signal, weight_decay=self.weight_decay)
        settling = _Settling(self.settled)
        with self._reusing(state):
            for index in range(self.iterations):
                if settling.over():
                    break
                step.reporter.check_cancelled()
                value, optimised.grad = self.loss(optimised, step.level, state)
                optimiser.step()
                settling.see(value)
                step.reporter.iteration(step, index, self.iterations, value)
        merged = merge_frequencies(optimised.detach(), x, state.low_pass)
        return merged if state.free is None else torch.where(state.free, merged, x)

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
        """Whether it had stopped falling by the iteration before the last."""
        return len(self._answers) > 1 and self._answers.pop(0).read()


@dataclass(kw_only=True)
class SGI2VState(State):
    """Everything one run of SG-I2V needs besides its hyper-parameters; it does not change while the run goes on."""

    condition: Any
    """That of the optimisation."""
    plan: AlignmentPlan
    low_pass: Float[torch.Tensor, "y x"]
    guided: tuple[bool, ...]
    """Steps at which it optimises."""
    free: Bool[torch.Tensor, "n 1 1 1"] | None
    """Latent frames that are variables; None where all are."""

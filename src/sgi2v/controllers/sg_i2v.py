"""SG-I2V: latents optimised so that first-frame-aligned attention features follow the boxes (arXiv 2411.04989)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar

import PIL.Image
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sgi2v.alignment import AlignmentPlan, Weighting, alignment_loss, alignment_plan
from sgi2v.backbones.base import Backbone, Level
from sgi2v.checks import choice
from sgi2v.controllers.base import Clock, Controller, reading
from sgi2v.device import HostCopy
from sgi2v.grid import Grid, Tracks
from sgi2v.spectrum import low_pass, merge_frequencies
from sgi2v.step import Step

# Gradients of the loss are around 1e-7, below the smallest number of float16; its exponent range has this to spare.
_FLOAT16_LOSS_SCALE = 2.0**16


@dataclass(frozen=True, kw_only=True)
class SGI2V(Controller):
    """SG-I2V, with the published hyper-parameters for Stable Video Diffusion as defaults.

    At each guided step the latents are optimised for a few iterations so that the features inside every box equal
    those of its place in the first frame; then only the low frequencies of the change are kept. Source: SG-I2V
    (arXiv 2411.04989), section 4, and its published code.
    """

    where: ClassVar[str] = "guided"

    guided: tuple[float, float] = (36.0, 376.0)
    """Where in the denoising to optimise, lowest and highest value, both included, in the unit of guided_as.
    The default is steps 45 to 30 of 50 on SVD."""
    guided_as: Clock = "sigma"
    """Unit of guided: sigma (noise to signal ratio), noise-level (s = noise / (signal + noise), 0 to 1, alike for
    every model), or step (steps still to go: num_steps at pure noise, 1 at the last)."""
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
        low, high = self.guided
        if not low <= high:
            raise ValueError(f"controller.guided: the lowest value comes first, got {low:g} {high:g}")
        for name, smallest in (
            ("iterations", 1),
            ("lr", 0),
            ("weight_decay", 0),
            ("cutoff", 0),
            ("settled", 0),
            ("shrink", 1),
        ):
            value = getattr(self, name)
            if not smallest <= value < float("inf"):
                raise ValueError(f"controller.{name}: must be a finite number >= {smallest}, got {value}")
        if not 0 < self.heatmap_std < float("inf"):
            raise ValueError(f"controller.heatmap_std: must be a finite number > 0, got {self.heatmap_std}")
        choice("controller.guided_as", self.guided_as, Clock)
        choice("controller.weighting", self.weighting, Weighting)
        if not self.layers:
            raise ValueError("controller.layers: name at least one layer")

    def _guides(self, level: Level, remaining: int) -> bool:
        position = reading(self.guided_as, level, remaining)
        return self.guided[0] <= position <= self.guided[1]

    def planned_iterations(self, levels: Sequence[Level]) -> Sequence[int]:
        """The iterations of every step, at most; ValueError when no step falls inside the guided range."""
        count = len(levels) - 1
        plan = [
            self.iterations * self._guides(level, count - k) for k, (level, _) in enumerate(pairwise(levels))
        ]
        if not any(plan):
            low, high = self.guided
            reached = ", ".join(f"{level.sigma:.3g}" for level in levels[:-1])
            raise ValueError(
                f"controller.guided: no step of {count} falls inside {self.guided_as} {low:g} to {high:g}; "
                f"the steps' sigmas are {reached}"
            )
        return plan

    def prepare(self, backbone: Backbone, condition: Any, tracks: Tracks, grid: Grid) -> "SGI2VState":
        """Cells, targets and weights of the loss.

        ValueError as :func:`sgi2v.alignment.alignment_plan` raises it, and for a size that ``shrink`` does not divide.
        """
        mask = low_pass(grid.rows, grid.columns, self.cutoff, device=backbone.device)
        if self.shrink > 1:
            condition, grid = _shrunk(self.shrink, backbone, tracks, grid)
        plan = alignment_plan(tracks, grid, self.heatmap_std, self.weighting)
        return SGI2VState(backbone=backbone, condition=condition, plan=plan, low_pass=mask)

    def loss(
        self,
        x: Float[Tensor, "n c y x"],
        level: Level,
        state: "SGI2VState",
        deep: dict[str, Tensor] | None = None,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "n c y x"]]:
        """The alignment loss at ``x`` and its gradient there, both float32 (equation 2).

        ``deep`` is as in :meth:`~sgi2v.backbones.base.Backbone.features`.
        """
        with torch.enable_grad():
            leaf = x.detach().requires_grad_(True)
            seen = leaf
            if self.shrink > 1:
                seen = F.avg_pool2d(leaf, self.shrink)
                # Averaging keeps the signal and divides the deviation of independent noise by the square's side.
                level = Level(signal=level.signal, noise=level.noise / self.shrink)
            features = state.backbone.features(seen, level, state.condition, self.layers, deep)
            value = alignment_loss(features.values(), state.plan)
            scale = _FLOAT16_LOSS_SCALE if state.backbone.dtype == torch.float16 else 1.0
            (gradient,) = torch.autograd.grad(value * scale, leaf)
        return value.detach(), gradient / scale

    def steer(self, x: Float[Tensor, "n c y x"], step: Step, state: "SGI2VState") -> Float[Tensor, "n c y x"]:
        """Latents after this step's iterations and the frequency merge; ``x`` itself outside the guided range."""
        if not (state.plan.num_rows and self._guides(step.level, step.remaining)):
            return x
        optimised = x.detach().clone()
        optimiser = torch.optim.AdamW(
            [optimised], lr=self.lr * step.level.signal, weight_decay=self.weight_decay
        )
        deep: dict[str, Tensor] | None = {} if self.reuse_deep else None
        settling = _Settling(self.settled)
        for index in range(self.iterations):
            if settling.over():
                break
            step.reporter.check_cancelled()
            value, optimised.grad = self.loss(optimised, step.level, state, deep)
            optimiser.step()
            settling.see(value)
            step.reporter.iteration(step, index, self.iterations, value)
        return merge_frequencies(optimised.detach(), x, state.low_pass)


def _shrunk(factor: int, backbone: Backbone, tracks: Tracks, grid: Grid) -> tuple[Any, Grid]:
    """The condition of the picture at a fraction of its size, and the grid of cells as many times larger."""
    if grid.rows % factor or grid.columns % factor:
        raise ValueError(
            f"controller.shrink: {factor} does not divide the {grid.columns}x{grid.rows} latent cells of a "
            f"{grid.width}x{grid.height} picture; use 1, or another size"
        )
    small = backbone.grid(grid.width // factor, grid.height // factor, grid.num_frames)
    image = tracks.image.resize((small.width, small.height), PIL.Image.Resampling.BICUBIC)
    # A generator of its own: the run's has given the noise that the sampling begins with.
    condition = backbone.encode(image, "", small, torch.Generator().manual_seed(0))
    return condition, replace(grid, stride=grid.stride * factor)


class _Settling:
    """Whether a loss still falls, told one iteration late: by then the answer is on the host, and nothing waits."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._last: Tensor | None = None
        self._answers: list[HostCopy] = []

    def see(self, loss: Tensor) -> None:
        """An iteration's loss, on the device."""
        if self._share and self._last is not None:
            self._answers.append(HostCopy(loss > (1 - self._share) * self._last))
        self._last = loss

    def over(self) -> bool:
        """Whether it had stopped falling by the iteration before the last."""
        return len(self._answers) > 1 and self._answers.pop(0).read()


@dataclass(frozen=True, kw_only=True)
class SGI2VState:
    """What one run of SG-I2V needs besides its hyper-parameters; nothing in it changes while the run goes on."""

    backbone: Backbone
    condition: Any
    """That of the optimisation."""
    plan: AlignmentPlan
    low_pass: Float[Tensor, "y x"]

"""Measures what the frequency merge cuts away of SG-I2V's updates, and what that would have done, step by step.

    python -m experiments.gamma.cut

For every guided step of a run with the recommended cutoff: the share of the update that the merge takes away, and the
share of the update's effect on the network's estimate of the clean latents that goes with it. Both are sums of squares.
Beside them, the share of the true clips' own latents that lies there.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import torch
import tyro
from jaxtyping import Float
from torch import Tensor

from experiments.study import StudiedModel, base_of, grid_of
from experiments.study.table import machine_of, text_of, write_between_marks
from sgi2v.backbones import Backbone, Text
from sgi2v.controllers import SGI2V, Setup
from sgi2v.controllers.sg_i2v import SGI2VState
from sgi2v.device import flushed_denormals
from sgi2v.evaluation.metrics import bootstrap_ratio
from sgi2v.pipeline import plan
from sgi2v.sampling import sample
from sgi2v.spectrum import low_pass, merge_frequencies
from sgi2v.step import Step

HERE = Path(__file__).parent
_SEED: Final = 817


@dataclass(frozen=True, kw_only=True)
class Options(StudiedModel):
    """Watch guided runs and write the table into README.md where there is one for these options."""

    limit: int = 16
    """Number of scenes."""


@dataclass(frozen=True)
class Cut:
    """Sums of squares: of what is cut away, and of all there is."""

    cut: float
    whole: float

    @classmethod
    def of(cls, whole: Float[Tensor, "n c y x"], kept: Float[Tensor, "n c y x"]) -> "Cut":
        """Sums of all there is and of what is cut from it."""
        return cls(float((whole - kept).square().sum()), float(whole.square().sum()))


@dataclass(frozen=True, kw_only=True)
class Watched(SGI2V):
    """SG-I2V that notes, by sigma, how its updates are cut and what that does to the estimate."""

    updates: dict[float, list[Cut]] = field(default_factory=dict, compare=False)
    effects: dict[float, list[Cut]] = field(default_factory=dict, compare=False)

    def steer(self, x: Float[Tensor, "n c y x"], step: Step, state: SGI2VState) -> Float[Tensor, "n c y x"]:
        """Latents as SG-I2V's, with a look at what the merge is given."""
        uncut = super().steer(x, step, replace(state, low_pass=torch.ones_like(state.low_pass)))
        if uncut is x:
            return x
        merged = merge_frequencies(uncut, x, state.low_pass)
        setup = state.setup
        before, all_of_it, kept = (
            setup.backbone.denoise(latents, step.level, setup.condition) for latents in (x, uncut, merged)
        )
        sigma = step.level.sigma
        self.updates.setdefault(sigma, []).append(Cut.of(uncut - x, merged - x))
        self.effects.setdefault(sigma, []).append(Cut.of(all_of_it - before, kept - before))
        return merged


def share(cuts: Iterable[Cut]) -> str:
    """The share of the whole that is cut away, with its interval over scenes."""
    pairs = torch.tensor([(one.cut, one.whole) for one in cuts], dtype=torch.float64)
    return text_of(bootstrap_ratio(*pairs.T), 4)


def table(options: Options, backbone: Backbone) -> str:
    """The table, and what was watched."""
    grid, base = grid_of(backbone), base_of(backbone)
    cases = options.scenes(grid)
    watched = Watched(**vars(base))
    true: list[Cut] = []
    for index in range(len(cases)):
        case = cases[index]
        assert case.truth is not None
        planned = plan(case.scene, backbone.outline, controller=watched)
        generator = torch.Generator().manual_seed(_SEED)
        setup = Setup(
            backbone=backbone,
            condition=backbone.encode(planned.tracks.image, Text(), grid, generator),
            tracks=planned.tracks,
            grid=grid,
            levels=planned.levels,
            generator=generator,
        )
        sample(watched, setup, noise=backbone.noise(grid, generator))
        clean = backbone.encode_frames(case.truth, grid)
        varied = clean - clean.mean((-2, -1), keepdim=True)
        mask = low_pass(grid.rows, grid.columns, base.cutoff, device=backbone.device)
        true.append(Cut.of(varied, merge_frequencies(varied, torch.zeros_like(varied), mask)))
        print(f"{index + 1} of {len(cases)} scenes", file=sys.stderr)
    lines = ["| σ | of the update | of what it does to the estimate |", "|---|---|---|"]
    for sigma, updates in watched.updates.items():
        lines.append(f"| {sigma:.3g} | {share(updates)} | {share(watched.effects[sigma])} |")
    lines += [
        "",
        f"Cut away at γ = {base.cutoff:g}, as a share of squares; of the true clips' own latents, without each map's mean, it would be "
        f"{share(true)}. {options.limit} held-out rendered scenes (set {options.scene_set}), {grid.num_frames} frames of "
        f"{grid.width}×{grid.height}, one seed ({_SEED}), recipe {options.recipe}, "
        f"{machine_of(backbone, options.threads)}. 95 % bootstrap interval over scenes.",
    ]
    return "\n".join(lines)


@flushed_denormals()
def main(options: Options) -> None:
    """Run it from the command line."""
    text = table(options, options.opened())
    print(text)
    if replace(options, threads=1) == Options():
        write_between_marks(HERE / "README.md", text, "-cut")


if __name__ == "__main__":
    main(tyro.cli(Options, prog="python -m experiments.gamma.cut"))

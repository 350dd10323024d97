"""What does the frequency merge cut away, and what would it have done? Of SG-I2V's own updates, step by step.

    python -m experiments.gamma.cut

At every guided step of a run with the recommended cutoff: which share of the update the merge takes away, and which share
of the update's effect on the network's estimate of the clean latents goes with it. Both are sums of squares. Beside them,
which share of the true clips' own latents lies there.
"""

import os
import platform
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import torch
import tyro
from experiments.tables import text_of, write_between_marks
from jaxtyping import Float
from torch import Tensor

from experiments.study import base_of, loaded
from sgi2v.backbones import Backbone
from sgi2v.controllers import SGI2V
from sgi2v.controllers.sg_i2v import SGI2VState
from sgi2v.device import flushed_denormals
from sgi2v.evaluation.held_out import HeldOutWorld
from sgi2v.evaluation.metrics import bootstrap_ratio
from sgi2v.pipeline import plan
from sgi2v.sampling import sample
from sgi2v.spectrum import low_pass, merge_frequencies
from sgi2v.step import Step

HERE = Path(__file__).parent
_SEED: Final = 817


@dataclass(frozen=True, kw_only=True)
class Options:
    """Watch guided runs and write the table into README.md where there is one for these options."""

    backbone: str = "bundled"
    """The model: bundled, svd, svd-xt, a folder in diffusers' layout, or a hub id."""
    recipe: str | None = "study"
    """One of the model's recipes; None: its own settings (for the full-size model)."""
    limit: int = 16
    """Number of scenes."""
    scene_set: int = 0
    """Set of held-out rendered scenes; 0 is the test split."""
    dtype: str | None = "float32"
    """Number format: float32 is the committed table's; None: what the machine is fast at."""
    threads: int = 1
    """CPU threads."""


@dataclass(frozen=True)
class Cut:
    """Sums of squares: of what is cut away, and of all there is."""

    cut: float
    whole: float

    @classmethod
    def of(cls, whole: Float[Tensor, "n c y x"], kept: Float[Tensor, "n c y x"]) -> "Cut":
        """From all there is and what is kept of it."""
        return cls(float((whole - kept).square().sum()), float(whole.square().sum()))


@dataclass(frozen=True, kw_only=True)
class Watched(SGI2V):
    """SG-I2V that notes, by sigma, how its updates are cut and what that does to the estimate."""

    updates: dict[float, list[Cut]] = field(default_factory=dict, compare=False)
    effects: dict[float, list[Cut]] = field(default_factory=dict, compare=False)

    def steer(self, x: Float[Tensor, "n c y x"], step: Step, state: SGI2VState) -> Float[Tensor, "n c y x"]:
        """As SG-I2V, with a look at what the merge is given."""
        uncut = super().steer(x, step, replace(state, low_pass=torch.ones_like(state.low_pass)))
        if uncut is x:
            return x
        merged = merge_frequencies(uncut, x, state.low_pass)
        before, all_of_it, kept = (
            state.backbone.denoise(latents, step.level, state.condition) for latents in (x, uncut, merged)
        )
        sigma = step.level.sigma
        self.updates.setdefault(sigma, []).append(Cut.of(uncut - x, merged - x))
        self.effects.setdefault(sigma, []).append(Cut.of(all_of_it - before, kept - before))
        return merged


def share(cuts: Iterable[Cut]) -> str:
    """Which share of the whole is cut away, with its interval over scenes."""
    pairs = torch.tensor([(one.cut, one.whole) for one in cuts], dtype=torch.float64)
    return text_of(bootstrap_ratio(*pairs.T), 4)


def table(options: Options, backbone: Backbone) -> str:
    settings = backbone.settings
    size = {"width": settings.width, "height": settings.height, "num_frames": settings.num_frames}
    cases = HeldOutWorld(scene_set=options.scene_set, limit=options.limit, **size)
    base = base_of(backbone)
    watched = Watched(**vars(base))
    true: list[Cut] = []
    for index in range(len(cases)):
        case = cases[index]
        assert case.truth is not None
        planned = plan(case.scene, backbone, controller=watched)
        generator = torch.Generator().manual_seed(_SEED)
        condition = backbone.encode(planned.tracks.image, case.scene.prompt, planned.grid, generator)
        noise = torch.randn(planned.grid.latent_shape, generator=generator).to(backbone.device)
        sample(
            backbone,
            watched,
            condition,
            planned.tracks,
            planned.grid,
            noise=noise,
            num_steps=settings.num_steps,
        )
        clean = backbone.encode_frames(case.truth)
        varied = clean - clean.mean((-2, -1), keepdim=True)
        mask = low_pass(planned.grid.rows, planned.grid.columns, base.cutoff, device=backbone.device)
        true.append(Cut.of(varied, merge_frequencies(varied, torch.zeros_like(varied), mask)))
        print(f"{index + 1} of {len(cases)} scenes", file=sys.stderr)
    lines = ["| σ | of the update | of what it does to the estimate |", "|---|---|---|"]
    for sigma, updates in watched.updates.items():
        lines.append(f"| {sigma:.3g} | {share(updates)} | {share(watched.effects[sigma])} |")
    lines += [
        "",
        f"Cut away at γ = {base.cutoff:g}, as a share of squares; of the true clips' own latents, without each map's mean, it would be "
        f"{share(true)}. {options.limit} held-out rendered scenes (set {options.scene_set}), {settings.num_frames} frames of "
        f"{settings.width}×{settings.height}, one seed ({_SEED}), recipe {options.recipe}, weights "
        f"{backbone.weights_sha256[:12]}, {str(backbone.dtype).removeprefix('torch.')}, {options.threads} of "
        f"{os.cpu_count()} cores ({platform.machine()}). 95 % bootstrap interval over scenes.",
    ]
    return "\n".join(lines)


@flushed_denormals()
def main(options: Options) -> None:
    """Run it from the command line."""
    backbone = loaded(options.backbone, options.recipe, dtype=options.dtype, threads=options.threads)
    text = table(options, backbone)
    print(text)
    if replace(options, threads=1) == Options():
        write_between_marks(HERE / "README.md", text, "-cut")


if __name__ == "__main__":
    main(tyro.cli(Options, prog="python -m experiments.gamma.cut"))

"""The denoiser's loss on held-out clips at fixed noise levels: what a step's own loss, of few clips, cannot tell."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import torch
from diffusers import AutoencoderKLTemporalDecoder
from torch import nn

from sgi2v.training.denoiser import Drawn, loss_of
from sgi2v.training.feed import Feeder
from sgi2v.training.stages import DenoiserTraining, Stage
from sgi2v.world import Kind
from sgi2v.world.draws import onto, seed_of

LEVELS: Final = (0.3, 1.0, 3.0, 9.0)
KINDS: Final[tuple[Kind, ...]] = ("simple", "rich", "lifelike")
_SEED: Final = 4242


@torch.no_grad()
def validation_loss(
    models: nn.ModuleDict,
    autoencoder: AutoencoderKLTemporalDecoder,
    training: DenoiserTraining,
    stage: Stage,
    *,
    num: int = 6,
    kinds: Sequence[Kind] = KINDS,
    levels: Sequence[float] = LEVELS,
) -> dict[str, float]:
    """The mean loss of `num` clips of the stage's shape, by kind of world and noise level.

    Pictures and embeddings are all shown, and the clips and their noise are the same at every call, so that two calls
    differ by the networks alone. Nothing for a stage of single pictures.
    """
    if stage.num_frames == 1:
        return {}
    device = next(models.parameters()).device
    found: dict[str, float] = {}
    for kind in kinds:
        shape = replace(
            stage,
            num_steps=num,
            batch_size=1,
            rich=float(kind == "rich"),
            lifelike=float(kind == "lifelike"),
            calm=False,  # every stage's losses compare
        )
        # One clip a step, none of them used twice.
        feeder = Feeder(
            replace(
                training, stages=(shape,), seed=_SEED, pool_steps=1, motion_jitter=0.0, videos=None, device=str(device)
            ),
            autoencoder,
            held_out=True,
        )
        losses: dict[float, list[float]] = {level: [] for level in levels}
        for number in range(num):
            batch = feeder(number)
            for level in levels:
                sigma = torch.tensor([level])
                drawn = Drawn(
                    sigma=sigma,
                    log_sigma=onto(sigma.log(), device),
                    shown=torch.ones(2, 1, device=device),
                    seed=seed_of("validation", number, round(1000 * level)),
                )
                losses[level].append(float(loss_of(models, batch, drawn)))
        found |= {f"loss {kind} s{level:g}": sum(losses[level]) / num for level in levels}
    return found

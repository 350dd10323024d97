"""Computes the batches of a step side by side, one thread each: small networks leave cores idle in every operation."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sgi2v.training.stages import DenoiserTraining
from sgi2v.world.draws import seed_of


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What one batch says."""

    gradients: Sequence[Tensor | None]
    """Of each parameter that learns; None where the batch says nothing of it."""
    losses: Float[Tensor, " b"]
    """Of its clips."""
    sigma: Float[Tensor, " b"]
    """Their noise levels."""
    missed: Float[Tensor, ""] | None
    """What attention missed; None where it is not taught."""


Lane = Callable[[int], Learned]
"""Computes the batch of a step."""


def training_of_lane(training: DenoiserTraining, number: int) -> DenoiserTraining:
    """The training as a lane sees it: the first has the training's own seed, every other one clips of its own."""
    return training if number == 0 else replace(training, seed=seed_of("lane", training.seed, number))


def replica(models: nn.ModuleDict) -> nn.ModuleDict:
    """Other modules on the very same parameters, so that what hooks into one lane does not see another."""
    return deepcopy(models, {id(parameter): parameter for parameter in models.parameters()})


@contextmanager
def side_by_side(lanes: Sequence[Lane], device: str) -> Iterator[Callable[[int], list[Learned]]]:
    """Within, a function that computes all lanes of a step and gives them in their order.

    On a processor each has a thread, and its share of the threads that torch would use; elsewhere one comes after the
    other, since they would share one device anyway.
    """
    if len(lanes) == 1 or torch.device(device).type != "cpu":
        yield lambda step: [lane(step) for lane in lanes]
        return
    share = max(1, torch.get_num_threads() // len(lanes))
    with ThreadPoolExecutor(len(lanes), initializer=torch.set_num_threads, initargs=(share,)) as pool:
        yield lambda step: list(pool.map(lambda lane: lane(step), lanes))


@torch.no_grad()
def give_mean(parameters: Sequence[nn.Parameter], learned: Sequence[Learned]) -> None:
    """Leave the lanes' mean gradients in the parameters, added in the lanes' order whichever was ready first."""
    for parameter, own in zip(
        parameters, zip(*(lane.gradients for lane in learned), strict=True), strict=True
    ):
        known = [gradient for gradient in own if gradient is not None]
        # A lane that says nothing of a parameter counts as zero.
        parameter.grad = None if not known else sum(known[1:], known[0]) / len(own)

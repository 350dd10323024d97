"""Gradient accumulation: micro-batches of a step side by side, a thread each, since small networks leave cores idle."""

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
    """Gradients and losses of one micro-batch."""

    gradients: Sequence[Tensor | None]
    """Of each parameter that learns; None where the micro-batch says nothing of it."""
    losses: Float[Tensor, " b"]
    """Of its clips."""
    sigma: Float[Tensor, " b"]
    """Their noise levels."""
    missed: Float[Tensor, ""] | None
    """The loss of attention; None where it is not taught."""


MicroBatch = Callable[[int], Learned]
"""Computes its share of a step."""


def training_of(training: DenoiserTraining, number: int) -> DenoiserTraining:
    """The training as a micro-batch sees it: the first has its own seed, every other one clips of its own."""
    # The purpose's word decides the clips, so it stays what it was when trainings began.
    return training if number == 0 else replace(training, seed=seed_of("lane", training.seed, number))


def replica(models: nn.ModuleDict) -> nn.ModuleDict:
    """Other modules on the very same parameters, so that hooks for one micro-batch do not see another."""
    return deepcopy(models, {id(parameter): parameter for parameter in models.parameters()})


@contextmanager
def side_by_side(micro_batches: Sequence[MicroBatch], device: str) -> Iterator[Callable[[int], list[Learned]]]:
    """Within, a function that computes all micro-batches of a step and gives them in their order.

    On a processor each has a thread, and its share of the threads that torch would use; elsewhere one comes after the
    other, since they would share one device anyway.
    """
    if len(micro_batches) == 1 or torch.device(device).type != "cpu":
        yield lambda step: [learn(step) for learn in micro_batches]
        return
    share = max(1, torch.get_num_threads() // len(micro_batches))
    with ThreadPoolExecutor(len(micro_batches), initializer=torch.set_num_threads, initargs=(share,)) as pool:
        yield lambda step: list(pool.map(lambda learn: learn(step), micro_batches))


@torch.no_grad()
def give_mean(parameters: Sequence[nn.Parameter], learned: Sequence[Learned]) -> None:
    """Leave the mean gradients in the parameters, added in the micro-batches' order whichever was ready first."""
    for parameter, own in zip(parameters, zip(*(one.gradients for one in learned), strict=True), strict=True):
        known = [gradient for gradient in own if gradient is not None]
        # A micro-batch that says nothing of a parameter counts as zero.
        parameter.grad = None if not known else sum(known[1:], known[0]) / len(own)

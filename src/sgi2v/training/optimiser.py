"""Adam with a float32 master copy and moving average for networks that compute in bfloat16."""

import math
from typing import Any, Final, TypedDict

import torch
from torch import Tensor, nn

from sgi2v.errors import FieldError

_REWARM: Final = 100  # steps over which the rate rises anew where Adam has lost its moments


class OptimiserState(TypedDict):
    """All that a later run needs to go on as if nothing had happened."""

    names: list[str]
    master: list[Tensor]
    average: list[Tensor]
    adam: dict[str, Any]  # torch's own
    num_updates: int
    cold_since: int | None


def warm_cosine(step: int, num_steps: int, num_warmup: int, lr: float) -> float:
    """Learning rate of a step: a linear rise, then half a cosine down to a twentieth of `lr`."""
    if step < num_warmup:
        return lr * (step + 1) / num_warmup
    done = (step - num_warmup) / max(1, num_steps - num_warmup)
    return lr * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))


class MasterAdam:
    """Adam on float32 copies of the parameters, written back to the network in its own type after every step.

    Parameters that got no gradient in a step are left alone in it. Gradients are clipped to norm `clip` all together.
    The average of the weights starts as a plain mean and becomes exponential with decay `ema` (as Karras et al.
    2022 warm theirs up).
    """

    def __init__(self, model: nn.Module, *, clip: float = 1.0, ema: float = 0.999) -> None:
        named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        self.names = [name for name, _ in named]
        self.parameters = [parameter for _, parameter in named]
        self.master = [parameter.detach().float().clone() for parameter in self.parameters]
        self.average = [value.clone() for value in self.master]
        self.clip, self.ema = clip, ema
        self.num_updates = 0
        self.cold_since: int | None = None
        """Number of updates after which Adam's moments were lost."""
        self.adam = torch.optim.Adam(self.master, lr=0.0, betas=(0.9, 0.99), foreach=True)

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Take one step with the gradients in the network, and clear them."""
        for value, parameter in zip(self.master, self.parameters, strict=True):
            value.grad = None if parameter.grad is None else parameter.grad.float()
            parameter.grad = None
        nn.utils.clip_grad_norm_(self.master, self.clip, foreach=True)
        if self.cold_since is not None:
            lr *= min(1.0, (self.num_updates - self.cold_since + 1) / _REWARM)
        for group in self.adam.param_groups:
            group["lr"] = lr
        self.adam.step()
        self.num_updates += 1
        decay = min(self.ema, (self.num_updates - 1) / (self.num_updates + 9))
        torch._foreach_lerp_(self.average, self.master, 1 - decay)
        for value, parameter in zip(self.master, self.parameters, strict=True):
            value.grad = None
            parameter.copy_(value)

    @torch.no_grad()
    def write_average(self, model: nn.Module) -> None:
        """Put the averaged weights into a network with the same parameter names."""
        own = dict(model.named_parameters())
        for name, value in zip(self.names, self.average, strict=True):
            own[name].copy_(value)

    def state(self) -> OptimiserState:
        """The state as it is: its tensors are the optimiser's own."""
        return {
            "names": self.names,
            "master": self.master,
            "average": self.average,
            "adam": self.adam.state_dict(),
            "num_updates": self.num_updates,
            "cold_since": self.cold_since,
        }

    @torch.no_grad()
    def load_state(self, state: OptimiserState) -> None:
        """Take over a state; FieldError when it is of a network with other parameters."""
        if state["names"] != self.names:
            raise FieldError("", "the checkpoint is of a network with other parameters: choose another output folder")
        for mine, saved in ((self.master, state["master"]), (self.average, state["average"])):
            for value, other in zip(mine, saved, strict=True):
                value.copy_(other)
        self.adam.load_state_dict(state["adam"])
        self.num_updates, self.cold_since = state["num_updates"], state.get("cold_since")
        for value, parameter in zip(self.master, self.parameters, strict=True):
            parameter.copy_(value)

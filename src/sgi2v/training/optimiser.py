"""Adam with a float32 master copy and moving average for networks that compute in bfloat16; checkpoints."""

import math
import os
from pathlib import Path

import torch
from torch import distributed, nn


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

    def __init__(
        self,
        model: nn.Module,
        *,
        betas: tuple[float, float] = (0.9, 0.99),
        clip: float = 1.0,
        ema: float = 0.999,
        weight_decay: float = 0.0,
    ) -> None:
        named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        self.names = [name for name, _ in named]
        self.parameters = [parameter for _, parameter in named]
        self.master = [parameter.detach().float().clone() for parameter in self.parameters]
        self.average = [value.clone() for value in self.master]
        self.clip, self.ema = clip, ema
        self.num_updates = 0
        self.adam = torch.optim.Adam(
            self.master,
            lr=0.0,
            betas=betas,
            weight_decay=weight_decay,
            decoupled_weight_decay=True,
            foreach=True,
        )

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Take one step with the gradients in the network, and clear them."""
        for value, parameter in zip(self.master, self.parameters, strict=True):
            value.grad = None if parameter.grad is None else parameter.grad.float()
            parameter.grad = None
        self._share()
        nn.utils.clip_grad_norm_(self.master, self.clip, foreach=True)
        for group in self.adam.param_groups:
            group["lr"] = lr
        self.adam.step()
        self.num_updates += 1
        decay = min(self.ema, (self.num_updates - 1) / (self.num_updates + 9))
        torch._foreach_lerp_(self.average, self.master, 1 - decay)
        for value, parameter in zip(self.master, self.parameters, strict=True):
            value.grad = None
            parameter.copy_(value)

    def _share(self) -> None:
        """Average the gradients over the processes of the run, where there are several."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return
        gradients = [value.grad for value in self.master if value.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= distributed.get_world_size()
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    @torch.no_grad()
    def write_average(self, model: nn.Module) -> None:
        """Put the averaged weights into a network with the same parameter names."""
        own = dict(model.named_parameters())
        for name, value in zip(self.names, self.average, strict=True):
            own[name].copy_(value)

    def state(self) -> dict[str, object]:
        """All that a later run needs to go on as if nothing had happened."""
        return {
            "names": self.names,
            "master": self.master,
            "average": self.average,
            "adam": self.adam.state_dict(),
            "num_updates": self.num_updates,
        }

    @torch.no_grad()
    def load_state(self, state: dict[str, object]) -> None:
        """Take over a state; ValueError when it is of a network with other parameters."""
        if state["names"] != self.names:
            raise ValueError(
                "the checkpoint is of a network with other parameters: choose another output folder"
            )
        for mine, saved in ((self.master, state["master"]), (self.average, state["average"])):
            assert isinstance(saved, list)
            for value, other in zip(mine, saved, strict=True):
                value.copy_(other)
        self.adam.load_state_dict(state["adam"])  # type: ignore[arg-type]
        self.num_updates = int(state["num_updates"])  # type: ignore[call-overload]
        for value, parameter in zip(self.master, self.parameters, strict=True):
            parameter.copy_(value)


def save_checkpoint(folder: Path, optimiser: MasterAdam, step: int) -> Path:
    """Write the newest checkpoint, whole or not at all; the last one is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "newest.pt"
    temporary = path.with_suffix(".part")
    torch.save({"step": step, "optimiser": optimiser.state()}, temporary)
    os.replace(temporary, path)
    return path


def load_checkpoint(folder: Path, optimiser: MasterAdam) -> int:
    """Go on from the newest checkpoint of the folder; the number of steps done, 0 where there is none."""
    path = folder / "newest.pt"
    if not path.exists():
        return 0
    saved: dict[str, object] = torch.load(path, map_location="cpu", weights_only=True)
    optimiser.load_state(saved["optimiser"])  # type: ignore[arg-type]
    step = saved["step"]
    assert isinstance(step, int)
    return step

"""All of a network that a run could change, to compare before and after."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Imprint:
    """All of a network that a run could change."""

    weights: dict[str, Tensor]
    flags: dict[str, tuple[bool, Tensor | None]]
    modules: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, network: nn.Module) -> "Imprint":
        def facts(module: nn.Module) -> dict[str, Any]:
            hooks = {name: len(value) for name, value in vars(module).items() if "hooks" in name}
            others = {
                name: value if isinstance(value, str | int | float | bool | None) else id(value)
                for name, value in vars(module).items()
                if name not in ("_parameters", "_buffers", "_modules") and "hooks" not in name
            }
            return {"hooks": sum(hooks.values()), **hooks, **others}

        return cls(
            weights={name: value.clone() for name, value in network.state_dict().items()},
            flags={name: (p.requires_grad, p.grad) for name, p in network.named_parameters()},
            modules={name: facts(module) for name, module in network.named_modules()},
        )

    def assert_same(self, other: "Imprint") -> None:
        assert self.flags == other.flags
        assert all(grad is None for _, grad in other.flags.values())
        assert self.modules == other.modules
        assert self.weights.keys() == other.weights.keys()
        for name, value in self.weights.items():
            assert torch.equal(value.view(torch.uint8), other.weights[name].view(torch.uint8)), name


@contextmanager
def nothing_is_left(network: nn.Module) -> Iterator[None]:
    """The network after the block is bit for bit the one before, with no hook on it; so is torch's own state."""
    before = Imprint.of(network)
    assert all(facts["hooks"] == 0 and not facts["training"] for facts in before.modules.values())
    modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_rng_state()
    yield
    before.assert_same(Imprint.of(network))
    assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == modes[:2]
    assert torch.equal(torch.get_rng_state(), modes[2]), "the global random generator was used"
    leaf = torch.full((3,), 2.0, requires_grad=True)
    (gradient,) = torch.autograd.grad((leaf * leaf).sum(), leaf)
    assert torch.equal(gradient, torch.full((3,), 4.0))

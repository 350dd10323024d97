"""Taps: what is kept is what the layer put out, the pass ends early, and nothing stays behind."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sgi2v.taps import Taps


class Chain(nn.Module):
    """Four linears, optionally run under non-reentrant checkpoints as diffusers does; counts what it ran."""

    def __init__(self, checkpointed: bool) -> None:
        super().__init__()
        self.steps = nn.ModuleList(nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6)) for _ in range(4))
        self.checkpointed = checkpointed
        self.ran = 0

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = checkpoint(step, x, use_reentrant=False) if self.checkpointed else step(x)
            self.ran += 1
        return x


def num_hooks(network: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())


def test_it_keeps_what_the_layers_put_out_and_ends_the_pass() -> None:
    chain, x = Chain(False), torch.randn(3, 6)
    with Taps(chain, ["steps.1.0", "steps.2"]) as taps:
        chain(x)
    assert chain.ran == 2  # the third step's own output ended the pass before the loop counted it
    second = chain.steps[1](chain.steps[0](x))
    assert torch.equal(taps["steps.1.0"], chain.steps[1].get_submodule("0")(chain.steps[0](x)))
    assert torch.equal(taps["steps.2"], chain.steps[2](second))
    assert num_hooks(chain) == 0 and len(taps) == 2


@pytest.mark.parametrize("early_exit", [True, False])
@pytest.mark.parametrize("inside", [True, False], ids=["backward inside", "backward after"])
def test_gradients_are_the_same_with_checkpointing_on_and_off(early_exit: bool, inside: bool) -> None:
    plain, checked = Chain(False), Chain(True)
    checked.load_state_dict(plain.state_dict())
    gradients = []
    for chain in (plain, checked):
        x = torch.linspace(-1, 1, 18).reshape(3, 6).requires_grad_(True)
        with Taps(chain, ["steps.1.0", "steps.2.0"], early_exit=early_exit) as taps:
            chain(x)
            if inside and not early_exit:
                (taps["steps.1.0"].square().sum() + taps["steps.2.0"].sum()).backward()
        if not (inside and not early_exit):
            (taps["steps.1.0"].square().sum() + taps["steps.2.0"].sum()).backward()
        assert num_hooks(chain) == 0
        gradients.append(x.grad)
    assert gradients[0] is not None and gradients[1] is not None
    assert torch.equal(gradients[0], gradients[1])


def test_ending_a_pass_inside_a_checkpoint_leaves_no_saved_tensor_hook_open() -> None:
    chain, x = Chain(True), torch.randn(3, 6, requires_grad=True)
    with Taps(chain, ["steps.1.0"]):
        chain(x)
    packed: list[int] = []

    def pack(saved: Tensor) -> Tensor:
        packed.append(1)
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
        (x * x).sum()
    before = len(packed)
    loss = (x * x).sum()  # were the checkpoint's hooks still open, backward would look for them here
    loss.backward()
    assert before > 0 and len(packed) == before and x.grad is not None


def test_nothing_is_left_after_an_error_inside() -> None:
    chain = Chain(False)
    with pytest.raises(RuntimeError, match="boom"), Taps(chain, ["steps.0"]):
        raise RuntimeError("boom")
    assert num_hooks(chain) == 0


def test_another_passes_end_is_not_swallowed() -> None:
    outer, inner = Chain(False), Chain(False)
    with Taps(outer, ["steps.0"]) as taps:
        with Taps(inner, ["steps.3"]) as others:
            outer(torch.randn(1, 6))
        raise AssertionError("the outer pass ended here")
    assert len(taps) == 1 and len(others) == 0


def test_an_unknown_name_says_the_nearest_one_and_a_silent_layer_is_a_key_error() -> None:
    chain = Chain(False)
    with pytest.raises(ValueError, match=r"no layer 'steps\.9'; nearest are steps\."):
        Taps(chain, ["steps.9"])
    with Taps(chain, ["steps.3"]) as taps:
        pass
    with pytest.raises(KeyError, match=r"steps\.3"):
        taps["steps.3"]

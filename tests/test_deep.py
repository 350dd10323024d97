"""Deep blocks that another pass has run: what stands in for them, its gradient, and that the network stays whole."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from imprint import nothing_is_left
from sgi2v import SVD
from sgi2v.backbones.base import CLEAN
from sgi2v.backbones.svd.parts import SVDCondition
from sgi2v.step import Level
from test_no_trace import Broken, broken_layer
from tiny import EMBEDDING, load_svd, tiny_svd

LEVEL = Level(signal=1.0, noise=3.0)
MID = ("up_blocks.2.attentions.1:first-frame", "up_blocks.2.attentions.2:first-frame")
LAYERS = {
    "up_blocks.1": MID,
    "up_blocks.2": ("up_blocks.3.attentions.0:self",),
    "up_blocks.0": ("up_blocks.3.attentions.0:self", "up_blocks.1.attentions.2:temporal"),
}


@pytest.fixture(scope="module", params=["fast", "low"])
def backbone(request: pytest.FixtureRequest) -> SVD:
    """As it is, and with every block checkpointed."""
    return load_svd(tiny_svd(3), device="cpu", dtype="float32", memory=request.param)


@pytest.fixture(scope="module")
def x() -> Tensor:
    """Of a size that does not halve evenly."""
    return 3 * torch.randn(3, 4, 6, 5, generator=torch.Generator().manual_seed(3))


def condition_of(x: Tensor) -> SVDCondition:
    generator = torch.Generator().manual_seed(2)
    return SVDCondition(
        image_latents=torch.randn(x.shape[1:], generator=generator),
        embedding=torch.randn(1, 1, EMBEDDING, generator=generator),
        time_ids=torch.tensor([[6.0, 127.0, 0.02]]),
        guidance=torch.ones(3, 1, 1, 1),
        guided=False,
    )


def read(backbone: SVD, x: Tensor, layers: tuple[str, ...]) -> tuple[list[Tensor], Tensor]:
    """Features and the gradient of what they amount to."""
    leaf = x.clone().requires_grad_(True)
    with torch.enable_grad():
        found = list(backbone.features(leaf, LEVEL, condition_of(x), layers).values())
        (gradient,) = torch.autograd.grad(sum((f.square().sum() for f in found), torch.zeros(())), leaf)
    return [f.detach() for f in found], gradient


@contextmanager
def constant(backbone: SVD, name: str) -> Iterator[None]:
    """The block runs, but what it puts out takes no gradient."""
    handle = backbone.denoiser.get_submodule(name).register_forward_hook(lambda _m, _i, out: out.detach())
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def running(backbone: SVD, ran: list[str]) -> Iterator[None]:
    """Writes down which blocks of the network's levels run."""
    blocks = [*(f"down_blocks.{k}" for k in range(4)), "mid_block", *(f"up_blocks.{k}" for k in range(4))]
    handles = [
        backbone.denoiser.get_submodule(name).register_forward_pre_hook(lambda *_, name=name: ran.append(name))
        for name in blocks
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("last", LAYERS)
def test_the_first_pass_is_whole_and_the_next_takes_its_deep_part_for_constant(
    backbone: SVD, x: Tensor, last: str
) -> None:
    layers = LAYERS[last]
    whole, gradient = read(backbone, x, layers)
    with constant(backbone, last):
        _, wanted = read(backbone, x, layers)
    with nothing_is_left(backbone.denoiser), backbone.reusing_deep(layers):
        first, first_gradient = read(backbone, x, layers)
        # At the same place what stands in is what would be computed; only the gradient knows the difference.
        again, shallow = read(backbone, x, layers)
        elsewhere, _ = read(backbone, x + 1, layers)
    assert all(torch.equal(a, b) for a, b in zip(first, whole, strict=True))
    assert torch.equal(first_gradient, gradient)
    assert all(torch.equal(a, b) for a, b in zip(again, whole, strict=True))
    assert torch.equal(shallow, wanted) and not torch.equal(shallow, gradient)
    assert not torch.equal(elsewhere[0], whole[0]), "the shallow part sees where it is"


def test_deep_blocks_do_not_run_again_until_it_is_over(backbone: SVD, x: Tensor) -> None:
    ran: list[str] = []
    with backbone.reusing_deep(MID):
        read(backbone, x, MID)
        with running(backbone, ran):
            read(backbone, x, MID)
    assert ran == ["down_blocks.0", "down_blocks.1", "up_blocks.2"]
    ran.clear()
    with running(backbone, ran):
        read(backbone, x, MID)
    assert len(ran) == 8, "nothing is reused outside"


def test_blocks_may_be_nested_and_each_knows_its_own(backbone: SVD, x: Tensor) -> None:
    whole, _ = read(backbone, x, MID)
    with backbone.reusing_deep(MID):
        read(backbone, x + 1, MID)
        with backbone.reusing_deep(MID):
            inner, _ = read(backbone, x, MID)
        outer, _ = read(backbone, x, MID)
    assert torch.equal(inner[0], whole[0]) and not torch.equal(outer[0], whole[0])


def test_the_estimate_of_the_same_pass_has_the_same_deep_part(backbone: SVD, x: Tensor) -> None:
    with torch.no_grad(), backbone.reusing_deep(MID):
        whole = backbone.features(x, LEVEL, condition_of(x), (*MID, CLEAN))
        again = backbone.features(x, LEVEL, condition_of(x), (*MID, CLEAN))
    assert all(torch.equal(again[name], whole[name]) for name in whole) and CLEAN in whole


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_nothing_is_left_after_a_shallow_pass_that_fails(backbone: SVD, x: Tensor, backward: bool) -> None:
    whole, _ = read(backbone, x, MID)
    with nothing_is_left(backbone.denoiser), pytest.raises(Broken), backbone.reusing_deep(MID):
        read(backbone, x + 1, MID)
        with broken_layer(backbone.denoiser, "down_blocks.1.resnets.0", backward=backward):
            read(backbone, x, MID)
    again, _ = read(backbone, x, MID)
    assert torch.equal(again[0], whole[0])


@pytest.mark.parametrize(
    "layers",
    [("up_blocks.0.resnets.1:output",), ("down_blocks.1.attentions.0:self", *MID), ("mid_block:output",)],
)
def test_layers_with_nothing_below_them_are_refused(backbone: SVD, layers: tuple[str, ...]) -> None:
    refused = pytest.raises(ValueError, match="reuse_deep: nothing lies deeper")
    with nothing_is_left(backbone.denoiser), refused, backbone.reusing_deep(layers):
        raise AssertionError("it was opened")

"""Attention outside the network against loops over its definition; edits inside it, and that none is left there."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor

from imprint import nothing_is_left
from sgi2v import SVD
from sgi2v.attention import (
    AttentionCall,
    AttentionEdit,
    attend,
    first_frame_attention,
    map_size,
    match_positions,
    own_positions,
    to_maps,
)
from sgi2v.backbones.svd.attention import LeanAttention
from sgi2v.backbones.svd.parts import SVDCondition
from sgi2v.step import Level
from test_no_trace import Broken
from tiny import EMBEDDING, load_svd, tiny_svd


def literal(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, num_heads: int) -> torch.Tensor:
    out = torch.zeros_like(query)
    size = query.shape[-1] // num_heads
    for b in range(query.shape[0]):
        for head in range(num_heads):
            part = slice(head * size, (head + 1) * size)
            for i in range(query.shape[1]):
                logits = [(query[b, i, part] @ key[b, j, part]).item() / math.sqrt(size) for j in range(key.shape[1])]
                weights = [math.exp(v - max(logits)) for v in logits]
                for j, weight in enumerate(weights):
                    out[b, i, part] += value[b, j, part] * (weight / sum(weights))
    return out


def test_attend_is_softmax_attention() -> None:
    query, key, value = torch.randn(3, 2, 5, 12)
    assert torch.allclose(attend(query, key, value, 3), literal(query, key, value, 3), atol=1e-5)


class Block(torch.nn.Module):
    """One attention of diffusers' class under a processor."""

    def __init__(self, processor: object, cross: int | None) -> None:
        super().__init__()
        self.attention: Any = Attention(12, cross_attention_dim=cross, heads=3, dim_head=4)
        self.attention.set_processor(processor)

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        out: Tensor = self.attention(x, encoder_hidden_states=context)
        return out


@pytest.mark.parametrize("num_tokens", [None, 1, 5])
def test_the_lean_attention_is_diffusers_own(num_tokens: int | None) -> None:
    cross = None if num_tokens is None else 7
    lean, own = Block(LeanAttention(), cross), Block(AttnProcessor2_0(), cross)
    own.load_state_dict(lean.state_dict())
    context = None if num_tokens is None else torch.randn(2, num_tokens, 7)
    found = []
    for block in (lean.requires_grad_(False), own.requires_grad_(False)):
        leaf = torch.linspace(-2, 2, 2 * 6 * 12).reshape(2, 6, 12).requires_grad_(True)
        out = block(leaf, context) + leaf
        with torch.no_grad():
            assert torch.allclose(block(leaf, context) + leaf, out, atol=1e-6)
        (gradient,) = torch.autograd.grad(out.square().sum(), leaf)
        found.append((out, gradient))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-6)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-5)


def test_one_token_takes_no_query_and_no_gradient() -> None:
    block = Block(LeanAttention(), 7).requires_grad_(False)
    ran: list[int] = []
    block.attention.to_q.register_forward_hook(lambda *_: ran.append(1))
    leaf = torch.randn(2, 6, 12, requires_grad=True)
    assert not block(leaf, torch.randn(2, 1, 7)).requires_grad and not ran
    assert block(leaf, torch.randn(2, 2, 7)).requires_grad and ran


def test_one_token_given_to_every_place_is_projected_once() -> None:
    """As SVD's temporal layers are given it: expanded, in memory once."""
    block = Block(LeanAttention(), 7).requires_grad_(False)
    rows: list[int] = []
    block.attention.to_v.register_forward_hook(lambda _module, inputs, _out: rows.append(len(inputs[0])))
    x, token = torch.randn(9, 6, 12), torch.randn(1, 1, 7)
    once, every = block(x, token.expand(9, 1, 7)), block(x, token.repeat(9, 1, 1))
    assert rows == [1, 9]
    assert once.shape == every.shape and torch.allclose(once, every, atol=1e-6)


def test_first_frame_attention_reads_the_first_frame_everywhere_and_sends_it_no_gradient() -> None:
    query, key, value = (t.requires_grad_(True) for t in torch.randn(3, 4, 6, 8).unbind())
    out = first_frame_attention(query, key, value, 2)
    same = literal(query.detach(), key[:1].expand(4, -1, -1).detach(), value[:1].expand(4, -1, -1).detach(), 2)
    assert torch.allclose(out, same, atol=1e-5)
    out.square().sum().backward()
    assert query.grad is not None and query.grad.abs().min() >= 0 and query.grad.any()
    assert key.grad is None and value.grad is None
    assert torch.allclose(out[0], attend(query, key, value, 2)[0], atol=1e-6)  # frame 0 sees itself anyhow


def literal_positions(query: Tensor, key: Tensor, num_heads: int, size: tuple[int, int]) -> Tensor:
    """The mean over heads of the mean place of the attention to the first frame, place by place."""
    rows, columns = size
    width = query.shape[-1] // num_heads
    found = torch.zeros(len(query), 2, rows, columns)
    for frame in range(len(query)):
        for place in range(rows * columns):
            for head in range(num_heads):
                part = slice(head * width, (head + 1) * width)
                logits = [float(query[frame, place, part] @ k[part]) / math.sqrt(width) for k in key[0]]
                paid = [math.exp(logit - max(logits)) for logit in logits]
                for other, share in enumerate(paid):
                    where = torch.tensor([other % columns, other // columns])
                    found[frame, :, place // columns, place % columns] += where * share / sum(paid) / num_heads
    return found


def test_match_positions_are_the_mean_place_of_attention_to_the_first_frame() -> None:
    query, key = (t.requires_grad_(True) for t in torch.randn(2, 3, 6, 8).unbind())
    found = match_positions(query, key, 2, (2, 3))
    assert found.dtype == torch.float32
    assert torch.allclose(found, literal_positions(query.detach(), key.detach(), 2, (2, 3)), atol=1e-5)
    found.square().sum().backward()
    assert query.grad is not None and bool((query.grad.abs().amax((1, 2)) > 0).all()) and key.grad is None


def test_places_that_look_like_themselves_alone_are_found_where_they_are() -> None:
    looks = 60 * torch.eye(12).expand(2, -1, -1)
    assert torch.allclose(match_positions(looks, looks, 1, (3, 4))[1], own_positions((3, 4)), atol=1e-4)
    x, y = own_positions((3, 4))
    assert x[1].tolist() == [0, 1, 2, 3] and y[:, 1].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("grid", "places", "size"), [((24, 40), 240, (12, 20)), ((9, 5), 15, (5, 3)), ((24, 40), 960, (24, 40))]
)
def test_map_size_follows_the_networks_halving(grid: tuple[int, int], places: int, size: tuple[int, int]) -> None:
    assert map_size(*grid, places) == size


def test_places_that_are_no_map_are_refused() -> None:
    with pytest.raises(ValueError, match="7 places"):
        map_size(24, 40, 7)


def test_to_maps_puts_tokens_row_by_row() -> None:
    tokens = torch.arange(2 * 6 * 3).reshape(2, 6, 3).float()
    maps = to_maps(tokens, 2, 3)
    assert maps.shape == (2, 3, 2, 3)
    assert torch.equal(maps[1, :, 1, 2], tokens[1, 5])


# ---------------------------------------------------------------- edits inside the network

NUM_FRAMES = 3
LEVEL = Level(signal=1.0, noise=3.0)
FEATURE = "up_blocks.2.attentions.1:self"


@pytest.fixture(scope="module")
def backbone() -> SVD:
    return load_svd(tiny_svd(NUM_FRAMES), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def condition() -> SVDCondition:
    """Guided, so that the network runs once for each branch."""
    generator = torch.Generator().manual_seed(2)
    return SVDCondition(
        image_latents=torch.randn(4, 8, 6, generator=generator),
        embedding=torch.randn(1, 1, EMBEDDING, generator=generator),
        time_ids=torch.tensor([[6.0, 127.0, 0.02]]),
        guidance=torch.linspace(1, 3, NUM_FRAMES)[:, None, None, None],
        guided=True,
    )


@pytest.fixture(scope="module")
def x() -> Tensor:
    return 3 * torch.randn(NUM_FRAMES, 4, 8, 6, generator=torch.Generator().manual_seed(3))


def halved(call: AttentionCall) -> Tensor:
    return call.ordinary() / 2


def nothing(call: AttentionCall) -> None:
    return None


def denoised(backbone: SVD, condition: Any, x: Tensor, *edits: AttentionEdit) -> Tensor:
    """x0 with the edits open, the first one outermost."""
    if not edits:
        return backbone.denoise(x, LEVEL, condition)
    with backbone.editing(edits[0], backbone.grid(48, 64, NUM_FRAMES)):
        return denoised(backbone, condition, x, *edits[1:])


def test_an_edit_sees_every_self_attention_of_both_branches_and_nothing_else(
    backbone: SVD, condition: SVDCondition, x: Tensor
) -> None:
    calls: list[AttentionCall] = []
    denoised(backbone, condition, x, calls.append)
    layers = [name for name, _ in backbone.denoiser.named_modules() if name.endswith("attn1")]
    assert len(calls) == 2 * len(layers)
    first, second = calls[: len(layers)], calls[len(layers) :]
    assert [(c.layer, c.source) for c in first] == [(c.layer, c.source) for c in second]
    seen = {f"{c.layer}.{'temporal_' * (c.source == 'temporal')}transformer_blocks.0.attn1" for c in first}
    assert seen == set(layers)
    for call in calls:
        rows, columns = call.size
        width = backbone.denoiser.get_submodule(call.layer).get_submodule("norm").num_channels
        places_first = (rows * columns, NUM_FRAMES) if call.source == "temporal" else (NUM_FRAMES, rows * columns)
        assert call.query.shape == call.key.shape == call.value.shape == (*places_first, width)
    assert {c.size for c in calls if c.layer.startswith("up_blocks.3")} == {(8, 6)}
    assert {c.size for c in calls if c.layer.startswith("up_blocks.1")} == {(2, 2)}


def test_an_edit_that_does_what_the_network_does_changes_no_bit(
    backbone: SVD, condition: SVDCondition, x: Tensor
) -> None:
    plain = backbone.denoise(x, LEVEL, condition)
    assert torch.equal(denoised(backbone, condition, x, nothing), plain)
    assert torch.equal(denoised(backbone, condition, x, AttentionCall.ordinary), plain)
    assert not torch.equal(denoised(backbone, condition, x, halved), plain)
    assert torch.equal(backbone.denoise(x, LEVEL, condition), plain), "the edit stayed"


@pytest.mark.parametrize("source", ["self", "temporal"])
def test_what_an_edit_returns_is_what_the_output_projection_gets(
    backbone: SVD, condition: SVDCondition, x: Tensor, source: str
) -> None:
    layer = "down_blocks.1.attentions.0"
    prefix = "temporal_" if source == "temporal" else ""
    attention = backbone.denoiser.get_submodule(f"{layer}.{prefix}transformer_blocks.0.attn1")
    given: list[Tensor] = []
    handle = attention.get_submodule("to_out.0").register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    asked: list[Tensor] = []

    def edit(call: AttentionCall) -> Tensor | None:
        if (call.layer, call.source) != (layer, source):
            return None
        asked.append(torch.full_like(call.value, 0.25))
        return asked[-1]

    try:
        denoised(backbone, condition, x, edit)
    finally:
        handle.remove()
    assert len(given) == len(asked) == 2
    assert all(a is b for a, b in zip(given, asked, strict=True))


def test_the_inner_edit_answers_first_and_what_it_leaves_goes_to_the_outer_one(
    backbone: SVD, condition: SVDCondition, x: Tensor
) -> None:
    def only_temporal(call: AttentionCall) -> Tensor | None:
        return call.value if call.source == "temporal" else None

    def both(call: AttentionCall) -> Tensor | None:
        return call.value if call.source == "temporal" else call.ordinary() / 2

    expected = denoised(backbone, condition, x, both)
    assert torch.equal(denoised(backbone, condition, x, halved, only_temporal), expected)
    assert not torch.equal(denoised(backbone, condition, x, only_temporal, halved), expected)
    halves = denoised(backbone, condition, x, halved)
    assert torch.equal(denoised(backbone, condition, x, halved, nothing), halves)
    grid = backbone.grid(48, 64, NUM_FRAMES)
    with nothing_is_left(backbone.denoiser), backbone.editing(halved, grid):
        with backbone.editing(only_temporal, grid):
            pass
        assert torch.equal(backbone.denoise(x, LEVEL, condition), halves), "the outer edit is not back"


def test_nothing_is_left_after_edits_that_worked(backbone: SVD, condition: SVDCondition, x: Tensor) -> None:
    with nothing_is_left(backbone.denoiser):
        denoised(backbone, condition, x, halved, nothing)


@pytest.mark.parametrize("num_edits", [1, 2])
def test_nothing_is_left_after_an_edit_that_fails(
    backbone: SVD, condition: SVDCondition, x: Tensor, num_edits: int
) -> None:
    def fails(call: AttentionCall) -> Tensor | None:
        if call.layer == "up_blocks.2.attentions.1":
            raise Broken
        return None

    with nothing_is_left(backbone.denoiser), pytest.raises(Broken):
        denoised(backbone, condition, x, *[fails] * num_edits)


def test_nothing_is_left_after_a_network_that_fails(backbone: SVD, condition: SVDCondition, x: Tensor) -> None:
    def fail(*_: object) -> None:
        raise Broken

    with nothing_is_left(backbone.denoiser):
        handle = backbone.denoiser.get_submodule("mid_block").register_forward_hook(fail)
        try:
            with pytest.raises(Broken):
                denoised(backbone, condition, x, halved, halved)
        finally:
            handle.remove()


@pytest.fixture
def checkpointed() -> SVD:
    model = load_svd(tiny_svd(NUM_FRAMES), device="cpu", dtype="float32")
    model.denoiser.enable_gradient_checkpointing()  # type: ignore[operator]
    return model


def gradient(backbone: SVD, condition: SVDCondition, x: Tensor, edit: AttentionEdit) -> Tensor:
    leaf = x.clone().requires_grad_(True)
    with backbone.editing(edit, backbone.grid(48, 64, NUM_FRAMES)):
        features = backbone.features(leaf, LEVEL, condition, [FEATURE])
        loss = features[FEATURE].square().sum()
        (found,) = torch.autograd.grad(loss, leaf)
    return found


def test_gradients_through_an_edit_under_taps_with_and_without_checkpointing(
    backbone: SVD, checkpointed: SVD, condition: SVDCondition, x: Tensor
) -> None:
    plain = gradient(backbone, condition, x, nothing)
    assert torch.equal(gradient(backbone, condition, x, AttentionCall.ordinary), plain)
    edited = gradient(backbone, condition, x, halved)
    assert (edited - plain).norm() > 0.01 * plain.norm()
    with nothing_is_left(checkpointed.denoiser):
        assert torch.equal(gradient(checkpointed, condition, x, halved), edited)


def test_a_gradient_through_an_edit_is_the_slope(backbone: SVD, condition: SVDCondition, x: Tensor) -> None:
    """The latents are moved a little along the gradient; float32 sees the change of the loss that it promises."""
    unguided = replace(condition, guided=False)
    found = gradient(backbone, unguided, x, halved)
    direction = found / found.norm()

    def loss(moved: Tensor) -> float:
        with backbone.editing(halved, backbone.grid(48, 64, NUM_FRAMES)), torch.no_grad():
            features = backbone.features(moved, LEVEL, unguided, [FEATURE])
        return features[FEATURE].double().square().sum().item()

    step = 2e-4
    slope = (loss(x + step * direction) - loss(x - step * direction)) / (2 * step)
    assert slope == pytest.approx(found.norm().item(), rel=5e-2)

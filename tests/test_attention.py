"""Attention outside the network against loops over its definition."""

import math

import pytest
import torch

from sgi2v.attention import attend, first_frame_attention, map_size, to_maps


def literal(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, num_heads: int) -> torch.Tensor:
    out = torch.zeros_like(query)
    size = query.shape[-1] // num_heads
    for b in range(query.shape[0]):
        for head in range(num_heads):
            part = slice(head * size, (head + 1) * size)
            for i in range(query.shape[1]):
                logits = [
                    (query[b, i, part] @ key[b, j, part]).item() / math.sqrt(size)
                    for j in range(key.shape[1])
                ]
                weights = [math.exp(v - max(logits)) for v in logits]
                for j, weight in enumerate(weights):
                    out[b, i, part] += value[b, j, part] * (weight / sum(weights))
    return out


def test_attend_is_softmax_attention() -> None:
    query, key, value = torch.randn(3, 2, 5, 12)
    assert torch.allclose(attend(query, key, value, 3), literal(query, key, value, 3), atol=1e-5)


def test_first_frame_attention_reads_the_first_frame_everywhere_and_sends_it_no_gradient() -> None:
    query, key, value = (t.requires_grad_(True) for t in torch.randn(3, 4, 6, 8).unbind())
    out = first_frame_attention(query, key, value, 2)
    same = literal(
        query.detach(), key[:1].expand(4, -1, -1).detach(), value[:1].expand(4, -1, -1).detach(), 2
    )
    assert torch.allclose(out, same, atol=1e-5)
    out.square().sum().backward()
    assert query.grad is not None and query.grad.abs().min() >= 0 and query.grad.any()
    assert key.grad is None and value.grad is None
    assert torch.allclose(out[0], attend(query, key, value, 2)[0], atol=1e-6)  # frame 0 sees itself anyhow


@pytest.mark.parametrize(
    ("grid", "places", "size"), [((24, 40), 240, (12, 20)), ((9, 5), 15, (5, 3)), ((24, 40), 960, (24, 40))]
)
def test_map_size_follows_the_networks_halving(
    grid: tuple[int, int], places: int, size: tuple[int, int]
) -> None:
    assert map_size(*grid, places) == size


def test_places_that_are_no_map_are_refused() -> None:
    with pytest.raises(ValueError, match="7 places"):
        map_size(24, 40, 7)


def test_to_maps_puts_tokens_row_by_row() -> None:
    tokens = torch.arange(2 * 6 * 3).reshape(2, 6, 3).float()
    maps = to_maps(tokens, 2, 3)
    assert maps.shape == (2, 3, 2, 3)
    assert torch.equal(maps[1, :, 1, 2], tokens[1, 5])

"""The loss that teaches attention where things were: against a literal loop, and on attention that knows it."""

import math

import torch
from torch import Tensor

from sgi2v.training.correspondence import missed_attention


def literal(query: Tensor, key: Tensor, source: Tensor, num_heads: int, columns: int) -> Tensor:
    """The same by its definition, place by place, head by head, cell by cell."""
    batch, places, channels = query.shape
    size, rows = channels // num_heads, key.shape[1] // columns
    missed = torch.empty(batch, places)
    for b in range(batch):
        for p in range(places):
            paid = 0.0
            for head in range(num_heads):
                part = slice(head * size, (head + 1) * size)
                scores = [math.exp(float(query[b, p, part] @ k[part]) / math.sqrt(size)) for k in key[b]]
                for row in range(rows):
                    for column in range(columns):
                        x, y = (float(v) for v in source[b, p])
                        x, y = min(max(x, 0), columns - 1), min(max(y, 0), rows - 1)
                        near = max(0, 1 - abs(x - column)) * max(0, 1 - abs(y - row))
                        paid += near * scores[row * columns + column] / sum(scores) / num_heads
            missed[b, p] = -math.log(paid)
    return missed


def test_missed_attention_is_its_definition() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(2, 5, 6), torch.randn(2, 12, 6)
    source = torch.tensor([4.0, 3.0]) * torch.rand(2, 5, 2) - 0.4  # some beyond the map's edge
    source[0, 0] = torch.tensor([2.0, 1.0])  # the very middle of a cell
    ours = missed_attention(query, key, source, num_heads=2, num_columns=4)
    assert torch.allclose(ours, literal(query, key, source, 2, 4), atol=1e-5)


def test_attention_that_knows_misses_nothing_and_the_loss_leads_there() -> None:
    torch.manual_seed(0)
    key = 6 * torch.eye(12)[None]
    cells = torch.tensor([[3, 7, 0]])
    source = torch.stack([cells % 4, cells // 4], -1).float()
    knowing = 6 * key[0, cells[0]][None]
    assert missed_attention(knowing, key, source, 1, 4).max() < 0.01
    assert torch.allclose(
        missed_attention(torch.zeros(1, 3, 12), key, source, 1, 4), torch.full((1, 3), math.log(12.0))
    )
    query = torch.zeros(1, 3, 12, requires_grad=True)
    for _ in range(30):
        (gradient,) = torch.autograd.grad(missed_attention(query, key, source, 1, 4).sum(), query)
        query = (query - 5 * gradient).detach().requires_grad_()
    assert missed_attention(query, key, source, 1, 4).max() < 0.1

"""The loss that teaches attention where things were: against a literal loop, and on attention that knows it."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sgi2v.training.correspondence import TaughtAttention, missed_attention
from sgi2v.training.denoiser import Drawn, loss_of
from sgi2v.training.feed import Feeder
from sgi2v.training.networks import build, load_autoencoder
from sgi2v.training.stages import DenoiserTraining, Stage
from tiny import tiny_svd


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
                q, keys = query[b, p, part].double().numpy(), key[b, :, part].double().numpy()
                scores = [math.exp(k @ q / math.sqrt(size)) for k in keys]
                whole = sum(scores)
                x, y = source[b, p].tolist()
                x, y = min(max(x, 0), columns - 1), min(max(y, 0), rows - 1)
                for row in range(rows):
                    for column in range(columns):
                        near = max(0, 1 - abs(x - column)) * max(0, 1 - abs(y - row))
                        paid += near * scores[row * columns + column] / whole / num_heads
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


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> DenoiserTraining:
    stage = Stage(num_steps=4, num_frames=3, batch_size=2, width=64, height=64, num_things=2)
    return DenoiserTraining(
        output=tmp_path_factory.mktemp("run"),
        initial=tiny_svd(3),
        stages=(stage,),
        num_frames=3,
        correspondence=0.5,
        correspondence_blocks=("up_blocks.2.attentions.1", "up_blocks.3.attentions.0"),
        correspondence_places=10**6,
    )


def test_taught_blocks_are_read_at_what_the_world_knows(training: DenoiserTraining) -> None:
    """Every place of frames 1 and later, against the definition on what the blocks put out; hooks are gone after."""
    models = build(training)
    unet: Any = models["unet"]
    batch = Feeder(training, load_autoencoder(training.autoencoder_folder))(0)
    kept: dict[str, Tensor] = {}
    hooks = [
        unet.get_submodule(f"{block}.transformer_blocks.0.attn1.{part}").register_forward_hook(
            lambda _, __, output, name=f"{block} {part}": kept.__setitem__(name, output)
        )
        for block in training.correspondence_blocks
        for part in ("to_q", "to_k")
    ]
    before = [len(module._forward_hooks) for module in unet.modules()]
    drawn = Drawn.of(training, 2, torch.device("cpu"), 0)
    with TaughtAttention(training, unet, batch, 0) as taught:
        losses = loss_of(models, batch, drawn)
    assert [len(module._forward_hooks) for module in unet.modules()] == before
    shown = torch.tensor([1.0, 0.0])  # the second clip's picture was dropped
    loss = taught.loss(shown)
    assert loss is not None

    expected = []
    for block, cells in zip(training.correspondence_blocks, (4, 8), strict=True):
        query, key = (kept[f"{block} {part}"].detach().unflatten(0, (2, 3)) for part in ("to_q", "to_k"))
        match, stride = batch.matches(64 // cells), 64 // cells
        groups: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
        heads = unet.get_submodule(f"{block}.transformer_blocks.0.attn1").heads
        for frame in (1, 2):
            for place in range(cells * cells):
                row, column = divmod(place, cells)
                source = match.source[0, frame, row, column] / stride - 0.5
                moved = float((source - torch.tensor([column, row])).norm()) > 0.5
                missed = literal(query[0, frame, place][None, None], key[0, 0][None], source[None, None], heads, cells)
                groups[moved].append((float(match.visible[0, frame, row, column]), float(missed)))
        assert any(weight > 0.1 for weight, _ in groups[True])
        means = [
            sum(w * value for w, value in group) / max(sum(w for w, _ in group), 1e-3) for group in groups.values()
        ]
        expected.append(sum(means) / 2)
    assert float(loss.detach()) == pytest.approx(sum(expected) / 2, rel=1e-4)

    (losses.mean() + loss).backward()
    assert unet.up_blocks[3].attentions[0].transformer_blocks[0].attn1.to_q.weight.grad.abs().max() > 0
    for hook in hooks:
        hook.remove()


def test_nothing_is_taught_where_nothing_is_known(training: DenoiserTraining) -> None:
    unet = build(training)["unet"]
    batch = Feeder(training, load_autoencoder(training.autoencoder_folder))(0)
    picture = replace(batch, latents=batch.latents[:, :1])
    footage = replace(batch, layers=None, given=None)
    off = replace(training, correspondence=0.0)
    for fields, shown in ((training, picture), (training, footage), (off, batch)):
        with TaughtAttention(fields, unet, shown, 0) as taught:
            assert not any(module._forward_hooks for module in unet.modules())
        assert taught.loss(torch.ones(2)) is None
    wrong = replace(training, correspondence_blocks=("up_blocks.9.attentions.0",))
    with pytest.raises(ValueError, match="no layer 'up_blocks"):
        TaughtAttention(wrong, unet, batch, 0)

"""Teaches spatial self-attention where each place was in the first frame: the very thing that SG-I2V reads."""

import math
from contextlib import ExitStack
from types import TracebackType

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sgi2v.attention import map_size
from sgi2v.taps import Taps
from sgi2v.training.feed import Batch
from sgi2v.training.stages import DenoiserTraining
from sgi2v.world.draws import normal, seed_of


def missed_attention(
    query: Float[Tensor, "b p c"],
    key: Float[Tensor, "b n c"],
    source: Float[Tensor, "b p 2"],
    num_heads: int,
    num_columns: int,
) -> Float[Tensor, "b p"]:
    """-log of the attention that each query pays to where it should look, among the first frame's keys.

    Attention is softmax(Q K_0^T / sqrt(d)), averaged over heads. source: (x, y) in cells of the keys' map, 0 the middle
    of the first one, row by row with `num_columns` a row; the four cells around it count by nearness (bilinear).
    """
    num = key.shape[1]
    q, k = (t.float().unflatten(-1, (num_heads, -1)) for t in (query, key))
    scores = torch.einsum("bphd,bnhd->bphn", q, k) / math.sqrt(q.shape[-1])
    limit = (num_columns - 1.0, num / num_columns - 1.0)
    x, y = (source[..., axis].clamp(0, most) for axis, most in enumerate(limit))
    cells, shares = [], []
    for right in (0, 1):
        for down in (0, 1):
            column = (x.floor() + right).clamp(max=limit[0])
            row = (y.floor() + down).clamp(max=limit[1])
            cells.append((row * num_columns + column).long())
            shares.append((1 - (x - x.floor() - right).abs()) * (1 - (y - y.floor() - down).abs()))
    cell, share = torch.stack(cells, -1), torch.stack(shares, -1)
    found = (
        scores.gather(-1, cell[:, :, None].expand(-1, -1, num_heads, -1)) + (share.clamp(min=1e-9).log()[:, :, None])
    )
    logs = found.logsumexp(-1) - scores.logsumexp(-1)
    missed: Tensor = math.log(num_heads) - logs.logsumexp(-1)
    return missed


class TaughtAttention:
    """Within the `with` block the taught blocks' queries and keys of one pass are kept; :meth:`loss` is read after it.

    Nothing is taught, and nothing costs anything, where the weight is 0, in pictures, which have no first frame beside
    them, and in clips whose correspondence nobody knows.
    """

    def __init__(self, training: DenoiserTraining, unet: nn.Module, batch: Batch, step: int) -> None:
        """ValueError for a block that the network does not have."""
        self._training, self._unet, self._batch, self._step = training, unet, batch, step
        taught = training.correspondence > 0 and batch.latents.shape[1] > 1 and batch.layers is not None
        self._blocks = training.correspondence_blocks if taught else ()
        names = [f"{_attention(block)}.{part}" for block in self._blocks for part in ("to_q", "to_k")]
        self._taps = Taps(unet, names, early_exit=False) if names else None
        self._hooks = ExitStack()

    def __enter__(self) -> "TaughtAttention":
        if self._taps is not None:
            self._hooks.enter_context(self._taps)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hooks.__exit__(kind, error, trace)

    def loss(self, given: Float[Tensor, " b"]) -> Float[Tensor, ""] | None:
        """The blocks' loss, their mean in nats, differentiable; None where nothing is taught.

        given: 1 for clips whose picture was shown, 0 for those whose picture was dropped, which have nothing to find.
        Places are drawn anew each step: half of them where what is seen has moved, half elsewhere, frame 0 left out.
        """
        if self._taps is None:
            return None
        losses = []
        for block in self._blocks:
            heads = self._unet.get_submodule(_attention(block)).heads
            assert isinstance(heads, int)
            query, key = (self._taps[f"{_attention(block)}.{part}"] for part in ("to_q", "to_k"))
            num_clips, num_frames, _, height, width = self._batch.latents.shape
            rows, columns = map_size(height, width, query.shape[1])
            query = query.unflatten(0, (num_clips, num_frames)).flatten(1, 2)
            key = key.unflatten(0, (num_clips, num_frames))[:, 0]
            losses.append(self._of(query, key, heads, rows, columns, given))
        return torch.stack(losses).mean()

    def _of(self, query: Tensor, key: Tensor, heads: int, rows: int, columns: int, given: Tensor) -> Float[Tensor, ""]:
        stride = self._training.stage_of(self._step)[0].height // rows
        match = self._batch.matches(stride)
        source = (match.source / stride - 0.5).to(query.device)  # middles of cells at whole numbers
        seen = match.visible.to(query.device) * given.view(-1, 1, 1, 1)
        seen[:, 0] = 0
        home = torch.stack(
            torch.meshgrid(
                torch.arange(columns, device=query.device), torch.arange(rows, device=query.device), indexing="xy"
            ),
            -1,
        )
        moved = ((source - home).norm(dim=-1) > 0.5).flatten(1)
        source, seen = source.flatten(1, 3), seen.flatten(1)
        draw = normal(seen.shape, seed_of("places", self._training.seed, self._step), query.device)
        half = max(1, self._training.correspondence_places // 2)
        groups = []
        for weight in (seen * moved, seen * ~moved):
            order = torch.where(weight > 0, draw, -torch.inf)
            place = order.topk(min(half, order.shape[1]), dim=1).indices
            missed = missed_attention(
                query.gather(1, place[..., None].expand(-1, -1, query.shape[-1])),
                key,
                source.gather(1, place[..., None].expand(-1, -1, 2)),
                heads,
                columns,
            )
            share = weight.gather(1, place)
            groups.append((share * missed).sum() / share.sum().clamp(min=1e-3))
        mean: Tensor = (groups[0] + groups[1]) / 2
        return mean


def _attention(block: str) -> str:
    return f"{block}.transformer_blocks.0.attn1"

"""Attention outside the network, from queries, keys and values; and one attention of a network as an edit sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float

from sgi2v.errors import FieldError
from sgi2v.lazy import torch

AttentionSource = Literal["self", "temporal"]


def attend(
    query: Float[torch.Tensor, "b q d"],
    key: Float[torch.Tensor, "b k d"],
    value: Float[torch.Tensor, "b k d"],
    num_heads: int,
) -> Float[torch.Tensor, "b q d"]:
    """``softmax(Q K^T / sqrt(d_head)) V`` with the heads concatenated again, before any output projection."""

    def split(t: torch.Tensor) -> torch.Tensor:
        heads: torch.Tensor = t.unflatten(-1, (num_heads, -1))
        return heads.transpose(1, 2)

    return (
        torch.nn.functional.scaled_dot_product_attention(split(query), split(key), split(value))
        .transpose(1, 2)
        .flatten(2)
    )


def first_frame_attention(
    query: Float[torch.Tensor, "f n d"],
    key: Float[torch.Tensor, "f n d"],
    value: Float[torch.Tensor, "f n d"],
    num_heads: int,
) -> Float[torch.Tensor, "f n d"]:
    """Every frame's queries attend to the first frame's keys and values, which take no gradient.

    So each place of each frame is described by what it looks like in the first frame: features that follow an
    object (SG-I2V, section 4.2). ``query``, ``key`` and ``value`` are ``[frames, places, heads * d_head]``.
    """
    first_key, first_value = (t[:1].detach().expand_as(t) for t in (key, value))
    return attend(query, first_key, first_value, num_heads)


def own_positions(size: tuple[int, int], device: torch.device | None = None) -> Float[torch.Tensor, "2 v u"]:
    """Position (x, y) of each place of a map of ``size`` (rows, columns), in its cells; 0 the middle of the first."""
    y, x = (torch.arange(length, dtype=torch.float32, device=device) for length in size)
    return torch.stack([x.expand(size), y[:, None].expand(size)])


def match_positions(
    query: Float[torch.Tensor, "f n d"],
    key: Float[torch.Tensor, "f n d"],
    num_heads: int,
    size: tuple[int, int],
) -> Float[torch.Tensor, "f 2 v u"]:
    """Place of the first frame that each place of each frame looks like: the mean of the attention paid to it.

    Each head's attention ``softmax(Q_j K_0^T / sqrt(d_head))`` to the first frame, whose keys take no gradient, has a
    mean place (soft argmax); theirs is the mean over heads, float32, as :func:`own_positions` counts. Heads vote with
    places, since on the bundled model these lie nearer to the thing than that of the heads' mean logits, at any
    temperature (docs/methods/sg_i2v.md). ``query`` and ``key`` are ``[frames, places, heads * d_head]``, d_head 2 or
    more, places row by row over a map of ``size`` (rows, columns). Correspondence by queries and keys in video
    transformers: DiffTrack (arXiv 2506.17220).
    """
    queries, keys = (t.float().unflatten(-1, (num_heads, -1)).transpose(1, 2) for t in (query, key[:1].detach()))
    places = own_positions(size, query.device).flatten(1).T
    # As wide as the keys, so that kernels which keep no map of places times places take it.
    values = torch.nn.functional.pad(places, (0, keys.shape[-1] - 2)).expand_as(keys)
    found = torch.nn.functional.scaled_dot_product_attention(
        queries, keys.expand(len(query), -1, -1, -1), values.expand(len(query), -1, -1, -1)
    )
    maps: torch.Tensor = found[..., :2].mean(dim=1).transpose(1, 2).unflatten(2, size)
    return maps


def map_size(rows: int, columns: int, num_places: int) -> tuple[int, int]:
    """Height and width of a feature map with ``num_places`` places, by halving the latents' size (rounded up).

    Raises FieldError when no halving gives that number: the layer is not a map of the picture.
    """
    height, width = rows, columns
    while height * width > num_places and height * width > 1:
        height, width = (height + 1) // 2, (width + 1) // 2
    if height * width != num_places:
        raise FieldError("layers", f"{num_places} places are no halving of a {rows}x{columns} latent grid")
    return height, width


def to_maps(tokens: Float[torch.Tensor, "f n d"], rows: int, columns: int) -> Float[torch.Tensor, "f d v u"]:
    """Tokens ``[frames, places, channels]`` as maps ``[frames, channels, height, width]``."""
    return torch.movedim(tokens.unflatten(1, map_size(rows, columns, tokens.shape[1])), -1, 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionCall:
    """One self-attention of the network at the moment it is to be computed, as an edit sees it.

    ``self`` mixes places within a frame: tokens are ``[frames, places, heads * d_head]``. ``temporal`` mixes frames
    at a place: ``[places, frames, heads * d_head]``. Places run row by row over a map of ``size``.
    """

    layer: str
    """The block it belongs to, such as up_blocks.2.attentions.1."""
    source: AttentionSource
    num_heads: int
    size: tuple[int, int]
    """Rows and columns of the block's map."""
    query: Float[torch.Tensor, "b n d"]
    key: Float[torch.Tensor, "b n d"]
    value: Float[torch.Tensor, "b n d"]

    def ordinary(self) -> Float[torch.Tensor, "b n d"]:
        """The network's own result, before the output projection."""
        return attend(self.query, self.key, self.value, self.num_heads)


AttentionEdit = Callable[[AttentionCall], "torch.Tensor | None"]
"""Returns the attention's tokens before the output projection, or None to leave this call as it is."""

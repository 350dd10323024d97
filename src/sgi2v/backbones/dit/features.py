"""Features of a video transformer by name: which modules to tap for one, and what it is made of their outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sgi2v.attention import attend, first_frame_attention, match_positions, to_maps
from sgi2v.backbones.base import MATCHES

Rotate = Callable[[Tensor], Tensor]
"""Rotary embedding of tokens ``[1, words and places of all frames, heads * d]``."""


def tapped(block: str, source: str) -> list[str]:
    """The modules whose outputs a feature is made of: queries and keys behind their norms, before rotary embedding."""
    if source == "output":
        return [block]
    wanted = ("norm_q", "norm_k") if source in MATCHES else ("norm_q", "norm_k", "to_v")
    return [f"{block}.attn1.{part}" for part in wanted]


def feature(
    source: str,
    kept: Sequence[Float[Tensor, "1 p c"]],
    *,
    frames: int,
    rows: int,
    columns: int,
    num_heads: int,
    rotate: Rotate,
    words: int = 0,
) -> Float[Tensor, "n d v u"]:
    """The feature's maps from what its modules put out in a pass; a token is one place of one latent frame.

    ``first-frame``: each frame's queries on the first frame's keys and values, before rotary embedding, which favours
    the same place (the project's notes on these models). ``self``: the network's own attention over all frames, before
    its output projection. ``match`` and ``match-rope``: the place of the first frame that a place's queries find among
    the keys there, before and after rotary embedding. ``words`` counts the tokens of text that stand before the
    picture's in that attention.
    """

    def per_frame(tokens: Tensor, words: int = words) -> Float[Tensor, "n q c"]:
        apart: Tensor = tokens[0, words:].unflatten(0, (frames, -1))
        return apart

    if source == "self":
        query, key, value = kept
        tokens = per_frame(attend(rotate(query), rotate(key), value, num_heads))
    elif source == "first-frame":
        query, key, value = (per_frame(part) for part in kept)
        tokens = first_frame_attention(query, key, value, num_heads)
    elif source in MATCHES:
        query, key = (per_frame(rotate(part) if source == "match-rope" else part) for part in kept)
        return match_positions(query, key, num_heads, (rows, columns))
    else:
        tokens = per_frame(kept[0], words=0)
    return to_maps(tokens, rows, columns)


def rotated(tokens: Float[Tensor, "1 p d"], cos: Tensor, sin: Tensor, num_heads: int) -> Float[Tensor, "1 p d"]:
    """Tokens whose neighbouring channels are turned by their place's angles, head by head (arXiv 2104.09864).

    ``cos`` and ``sin`` are ``[1, places, heads or 1, channels of a head]``, each angle twice in a row.
    """
    heads = tokens.unflatten(2, (num_heads, -1))
    first, second = heads.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([-second, first], dim=-1).flatten(-2)
    whole: Tensor = (heads * cos + turned * sin).flatten(2)
    return whole.to(tokens.dtype)

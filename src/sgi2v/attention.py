"""Attention computed outside the network from tapped queries, keys and values."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def attend(
    query: Float[Tensor, "b q d"], key: Float[Tensor, "b k d"], value: Float[Tensor, "b k d"], num_heads: int
) -> Float[Tensor, "b q d"]:
    """``softmax(Q K^T / sqrt(d_head)) V`` with the heads concatenated again, before any output projection."""

    def split(t: Tensor) -> Tensor:
        heads: Tensor = t.unflatten(-1, (num_heads, -1))
        return heads.transpose(1, 2)

    return F.scaled_dot_product_attention(split(query), split(key), split(value)).transpose(1, 2).flatten(2)


def first_frame_attention(
    query: Float[Tensor, "f n d"], key: Float[Tensor, "f n d"], value: Float[Tensor, "f n d"], num_heads: int
) -> Float[Tensor, "f n d"]:
    """Every frame's queries attend to the first frame's keys and values, which take no gradient.

    So each place of each frame is described by what it looks like in the first frame: features that follow an
    object (SG-I2V, section 4.2). ``query``, ``key`` and ``value`` are ``[frames, places, heads * d_head]``.
    """
    first_key, first_value = (t[:1].detach().expand_as(t) for t in (key, value))
    return attend(query, first_key, first_value, num_heads)


def map_size(rows: int, columns: int, num_places: int) -> tuple[int, int]:
    """Height and width of a feature map with ``num_places`` places, by halving the latents' size (rounded up).

    Raises ValueError when no halving gives that number: the layer is not a map of the picture.
    """
    height, width = rows, columns
    while height * width > num_places and height * width > 1:
        height, width = (height + 1) // 2, (width + 1) // 2
    if height * width != num_places:
        raise ValueError(f"layers: {num_places} places are no halving of a {rows}x{columns} latent grid")
    return height, width


def to_maps(tokens: Float[Tensor, "f n d"], rows: int, columns: int) -> Float[Tensor, "f d v u"]:
    """Tokens ``[frames, places, channels]`` as maps ``[frames, channels, height, width]``."""
    return torch.movedim(tokens.unflatten(1, map_size(rows, columns, tokens.shape[1])), -1, 1)

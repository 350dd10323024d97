"""Features of a spatio-temporal U-Net by name: which modules to tap for one, and what it is made of their outputs."""

from collections.abc import Sequence
from types import MappingProxyType

from jaxtyping import Float
from torch import Tensor, nn

from sgi2v.attention import attend, first_frame_attention, map_size, match_positions, to_maps
from sgi2v.backbones.svd.outline import SOURCES
from sgi2v.errors import FieldError
from sgi2v.taps import find_layer

_ATTENTION = MappingProxyType(
    {
        "first-frame": "transformer_blocks.0.attn1",
        "self": "transformer_blocks.0.attn1",
        "match": "transformer_blocks.0.attn1",
        "temporal": "temporal_transformer_blocks.0.attn1",
    }
)


def tapped(denoiser: nn.Module, layer: str) -> list[str]:
    """The modules whose outputs a feature ``<block>:<source>`` is made of; FieldError where the network has none."""
    block, _, source = layer.partition(":")
    find_layer(denoiser, block)
    if source == "output":
        return [block]
    if source not in _ATTENTION:
        raise FieldError("layers", f"{layer!r} must be <block>:<source> with source one of {', '.join(SOURCES)}")
    attention = f"{block}.{_ATTENTION[source]}"
    find_layer(denoiser, attention)
    parts = ("to_q", "to_k") if source == "match" else ("to_q", "to_k", "to_v")
    return [f"{attention}.{part}" for part in parts]


def feature(
    denoiser: nn.Module, layer: str, kept: Sequence[Tensor], rows: int, columns: int
) -> Float[Tensor, "n d v u"]:
    """The feature's maps from what its modules put out in a pass on latents of ``rows`` x ``columns``."""
    block, _, source = layer.partition(":")
    if source == "output":
        return kept[0]
    num_heads = denoiser.get_submodule(f"{block}.{_ATTENTION[source]}").heads
    assert isinstance(num_heads, int)
    query, key = kept[:2]
    if source == "match":
        return match_positions(query, key, num_heads, map_size(rows, columns, query.shape[1]))
    value = kept[2]
    if source == "first-frame":
        tokens = first_frame_attention(query, key, value, num_heads)
    else:
        tokens = attend(query, key, value, num_heads)
    if source == "temporal":
        tokens = tokens.transpose(0, 1)  # the network lays it out as [places, frames, channels]
    return to_maps(tokens, rows, columns)

"""Attention outside the network from tapped queries, keys and values; a lean one inside; and edits of that."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

AttentionSource = Literal["self", "temporal"]


def attend(
    query: Float[Tensor, "b q d"], key: Float[Tensor, "b k d"], value: Float[Tensor, "b k d"], num_heads: int
) -> Float[Tensor, "b q d"]:
    """``softmax(Q K^T / sqrt(d_head)) V`` with the heads concatenated again, before any output projection."""

    def split(t: Tensor) -> Tensor:
        heads: Tensor = t.unflatten(-1, (num_heads, -1))
        return heads.transpose(1, 2)

    return F.scaled_dot_product_attention(split(query), split(key), split(value)).transpose(1, 2).flatten(2)


class LeanAttention:
    """Attention processor that computes what diffusers' own does, but for what cannot matter in a frozen network.

    Attending to one single token (SVD's cross-attention to the image) gives that token's value whatever the query: no
    queries, no logits, no gradient. Equal to diffusers' own up to rounding.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: None = None,
    ) -> Tensor:
        """Tokens ``[batch, places, channels]`` to what the output projection makes of their attention."""
        assert attention_mask is None, "no mask is known here"
        if encoder_hidden_states is not None and encoder_hidden_states.shape[1] == 1:
            # Temporal layers get the same token for every place, in memory once: then one of them is enough.
            same = encoder_hidden_states.stride(0) == 0
            token = _projected(attn, attn.to_v(encoder_hidden_states[:1] if same else encoder_hidden_states))
            tokens: Tensor = token.expand(*hidden_states.shape[:2], -1)
            return tokens
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        return _projected(attn, attend(query, key, value, attn.heads))


def _projected(attn: Any, tokens: Tensor) -> Tensor:
    projected: Tensor = attn.to_out[0](tokens)  # what follows it is dropout, which a frozen network has not
    return projected


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
    query: Float[Tensor, "b n d"]
    key: Float[Tensor, "b n d"]
    value: Float[Tensor, "b n d"]

    def ordinary(self) -> Float[Tensor, "b n d"]:
        """What the network would compute by itself, before the output projection."""
        return attend(self.query, self.key, self.value, self.num_heads)


AttentionEdit = Callable[[AttentionCall], Tensor | None]
"""Returns the attention's tokens before the output projection, or None to leave this call as it is."""


class EditedAttention:
    """Attention processor that asks its edits, the innermost first; the network's own attention if none answers."""

    def __init__(
        self,
        edits: tuple[AttentionEdit, ...],
        layer: str,
        source: AttentionSource,
        rows: int,
        columns: int,
    ) -> None:
        self.edits = edits
        self._layer, self._source, self._grid = layer, source, (rows, columns)

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: None = None,
        attention_mask: None = None,
    ) -> Tensor:
        """One self-attention, from the block's normalised tokens to what its output projection makes of them."""
        assert encoder_hidden_states is None and attention_mask is None, "self-attention has neither"
        call = AttentionCall(
            layer=self._layer,
            source=self._source,
            num_heads=attn.heads,
            size=map_size(*self._grid, hidden_states.shape[1 if self._source == "self" else 0]),
            query=attn.to_q(hidden_states),
            key=attn.to_k(hidden_states),
            value=attn.to_v(hidden_states),
        )
        answers = (edit(call) for edit in self.edits)
        tokens = next((t for t in answers if t is not None), None)
        if tokens is None:
            tokens = call.ordinary()
        return _projected(attn, tokens)


@contextmanager
def edited(
    attentions: Sequence[tuple[str, AttentionSource, nn.Module]],
    edit: AttentionEdit,
    rows: int,
    columns: int,
) -> Iterator[None]:
    """Sends the named attentions through ``edit`` while the block runs, then puts back what was there.

    ``attentions`` are self-attentions of diffusers' class, each after its block and source, in a network that works
    on latents of ``rows`` x ``columns``.
    Blocks may be nested: an edit that leaves a call as it is passes it to the one around it. Gradients are taken
    inside the block: with gradient checkpointing the backward pass runs the attention, and so the edit, again.
    """
    with ExitStack() as restore:
        for layer, source, attention in attentions:
            module: Any = attention
            plain = module.group_norm, module.spatial_norm, module.norm_q, module.norm_k
            assert plain == (None,) * 4 and not module.residual_connection, f"{layer} does more than attend"
            assert module.rescale_output_factor == 1, f"{layer} rescales what it puts out"
            before = module.processor
            outer = before.edits if isinstance(before, EditedAttention) else ()
            restore.callback(module.set_processor, before)
            module.set_processor(EditedAttention((edit, *outer), layer, source, rows, columns))
        yield

"""Attention inside SVD's U-Net: diffusers' own, leaner; edited for a while by a method; and where it sits."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from torch import Tensor, nn

from sgi2v.attention import AttentionCall, AttentionEdit, AttentionSource, attend, map_size
from sgi2v.backbones.swapping import swapped

_SELF_ATTENTION = re.compile(r"(.+)\.(temporal_)?transformer_blocks\.\d+\.attn1")


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


def self_attentions(denoiser: nn.Module) -> list[tuple[str, AttentionSource, nn.Module]]:
    """Every self-attention of the U-Net, spatial and temporal, after its block and source."""
    return [
        (found[1], "temporal" if found[2] else "self", module)
        for name, module in denoiser.named_modules()
        if (found := _SELF_ATTENTION.fullmatch(name))
    ]


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
    swaps = []
    for layer, source, attention in attentions:
        module = cast(Any, attention)  # diffusers publishes no types
        plain = module.group_norm, module.spatial_norm, module.norm_q, module.norm_k
        assert plain == (None,) * 4 and not module.residual_connection, f"{layer} does more than attend"
        assert module.rescale_output_factor == 1, f"{layer} rescales what it puts out"
        before = module.processor
        outer = before.edits if isinstance(before, EditedAttention) else ()
        swaps.append((module, "processor", EditedAttention((edit, *outer), layer, source, rows, columns)))
    with swapped(swaps):
        yield

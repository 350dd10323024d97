"""Stable Diffusion 1.5 inflated by motion modules, in diffusers' classes with AnimateDiff's norms."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from jaxtyping import Float
from torch import Tensor, nn

from sgi2v.attention import AttentionSource
from sgi2v.errors import FieldError

_WITHIN: Final = re.compile(r"(.+\.attentions\.\d+)\.transformer_blocks\.\d+\.attn1")
_OVER_TIME: Final = re.compile(r"(.+\.motion_modules\.\d+)\.transformer_blocks\.\d+\.attn[12]")


class FrameNorm(nn.GroupNorm):
    """Group normalisation of every frame by itself, as AnimateDiff's motion modules were trained.

    diffusers takes the statistics of a group over all frames at once, which is another network.
    """

    def forward(self, input: Float[Tensor, "b c f v u"]) -> Float[Tensor, "b c f v u"]:
        """The clip, each frame with a mean and a deviation of its own."""
        frames = input.transpose(1, 2)
        normed: Tensor = super().forward(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        return normed.transpose(1, 2)


def with_frame_norms(network: Any) -> Any:
    """The network, its motion modules' norms in AnimateDiff's arithmetic; weights and their names stay."""
    for module in network.modules():
        if isinstance(module, AnimateDiffTransformer3D):
            norm = FrameNorm(module.norm.num_groups, module.norm.num_channels, eps=module.norm.eps, device="meta")
            norm.weight, norm.bias = module.norm.weight, module.norm.bias
            module.norm = norm.eval()
    return network


def self_attentions(denoiser: nn.Module) -> list[tuple[str, AttentionSource, nn.Module]]:
    """Every self-attention of the U-Net, within frames and over time, after its block and source."""
    found: list[tuple[str, AttentionSource, nn.Module]] = []
    for name, module in denoiser.named_modules():
        if within := _WITHIN.fullmatch(name):
            found.append((within[1], "self", module))
        elif over := _OVER_TIME.fullmatch(name):
            found.append((over[1], "temporal", module))
    return found


def load_strictly(make: Callable[[], nn.Module], weights: Mapping[str, Tensor], what: str) -> Any:
    """A network of AnimateDiff's, made on the meta device and given these weights; FieldError for what does not fit."""
    with torch.device("meta"):
        network = make()
    own = network.state_dict()
    problems = (
        [f"lacks {name}" for name in own if name not in weights]
        + [f"holds {name}, which there is not" for name in weights if name not in own]
        + [
            f"holds {name} as {list(weights[name].shape)}, not {list(own[name].shape)}"
            for name in own
            if name in weights and weights[name].shape != own[name].shape
        ]
    )
    if problems:
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise FieldError("adapter", f"{what} {problems[0]}{more}", "give the whole file as released")
    network.load_state_dict(dict(weights), assign=True)
    return with_frame_norms(network).eval().requires_grad_(False)

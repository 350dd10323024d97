"""Trains the spatial layers of a video network alone: its temporal layers are taken out, and put back."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers.models.resnet import SpatioTemporalResBlock
from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel
from torch import Tensor, nn


class _Pass(nn.Module):
    """Stands for a temporal layer and changes nothing."""

    def forward(self, x: Tensor, *_: object, **__: object) -> Tensor:
        """The first argument."""
        return x


@contextmanager
def pictures_only(model: nn.Module) -> Iterator[None]:
    """Within, the temporal layers of the network pass on what they get, so that every frame is a picture by itself.

    Put back on the way out, after an exception too. Spatial layers first, on many pictures, is how SVD was trained
    (Blattmann et al., 2023, section 3.1); it also makes a step several times cheaper.
    """
    taken: list[tuple[nn.Module, str, nn.Module]] = []
    try:
        for module in model.modules():
            if isinstance(module, SpatioTemporalResBlock):
                taken.append((module, "temporal_res_block", module.temporal_res_block))
            elif isinstance(module, TransformerSpatioTemporalModel):
                taken.append((module, "temporal_transformer_blocks", module.temporal_transformer_blocks))
        for module, name, layer in taken:
            blocks = [_Pass() for _ in layer.children()]
            setattr(module, name, nn.ModuleList(blocks) if isinstance(layer, nn.ModuleList) else _Pass())
        yield
    finally:
        for module, name, layer in taken:
            setattr(module, name, layer)


@torch.no_grad()
def silence_temporal_layers(model: nn.Module) -> None:
    """Set the last layer of every temporal branch to zero, so that adding them to trained spatial layers is smooth."""
    for module in model.modules():
        if isinstance(module, SpatioTemporalResBlock):
            for parameter in module.temporal_res_block.conv2.parameters():
                parameter.zero_()
        elif isinstance(module, TransformerSpatioTemporalModel):
            for block in module.temporal_transformer_blocks:
                for layer in (block.ff_in.net[-1], block.ff.net[-1], block.attn1.to_out[0], block.attn2.to_out[0]):
                    for parameter in layer.parameters():
                        parameter.zero_()

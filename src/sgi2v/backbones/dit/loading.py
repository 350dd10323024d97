"""Networks of a video transformer: from its folder, from a file in its place, rounded where that is asked for."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from sgi2v.backbones.dit.outline import DiTOutline
from sgi2v.backbones.dit.single_file import network_of
from sgi2v.backbones.folder import read_json
from sgi2v.backbones.loading import image_processor, network
from sgi2v.errors import FieldError


def denoiser(made: Any, outline: DiTOutline, part: str, dtype: torch.dtype) -> nn.Module:
    """A transformer of the outline's folder, or of the file that stands in its place, rounded if it asks for that."""
    if part in outline.files:
        loaded = network_of(made, outline.files[part], outline.folder, part, dtype)
    else:
        loaded = network(made, outline.folder / part, dtype)
    if outline.quantise is not None:
        from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig, quantize_

        wanted = {"int8": Int8WeightOnlyConfig, "fp8": Float8WeightOnlyConfig}
        # The blocks alone: what is at both ends is small, and its rounding is seen.
        quantize_(loaded.get_submodule(outline.BLOCKS), wanted[outline.quantise]())
        loaded.requires_grad_(False)
    return loaded


def image_encoder(folder: Path, dtype: torch.dtype) -> tuple[nn.Module, Any]:
    """A CLIP image encoder and what prepares pictures for it; no projection is asked for."""
    import transformers

    named = read_json(folder / "image_encoder" / "config.json").get("architectures") or ["CLIPVisionModel"]
    if named[0] not in ("CLIPVisionModel", "CLIPVisionModelWithProjection"):
        raise FieldError("backbone", f"{folder}/image_encoder/config.json: architectures must be CLIP's, got {named}")
    encoder = network(getattr(transformers, named[0]), folder / "image_encoder", dtype)
    return encoder, image_processor(folder / "image_processor")

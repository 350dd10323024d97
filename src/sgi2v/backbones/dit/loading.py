"""Networks from a folder in diffusers' or transformers' layout: safetensors only, nothing left unread or random."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from sgi2v.backbones.folder import read_json, variant_of
from sgi2v.errors import FieldError


def network(made: Any, folder: Path, dtype: torch.dtype) -> nn.Module:
    """A library's class with the weights of a folder; FieldError where they are damaged, absent or of another shape."""
    variant = variant_of(folder.parent, folder.name, half=dtype == torch.float16)
    given = {"variant": variant} if variant else {}
    try:
        loaded: nn.Module = made.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True, **given
        )
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise FieldError("backbone", f"{folder} cannot be loaded ({reason})", "fetch or export it again") from error
    if any(parameter.is_meta for parameter in loaded.parameters()):
        raise FieldError("backbone", f"{folder} lacks weights that its configuration asks for", "fetch it again")
    return loaded.eval().requires_grad_(False)


def image_encoder(folder: Path, dtype: torch.dtype) -> tuple[nn.Module, Any]:
    """A CLIP image encoder and what prepares pictures for it; no projection is asked for."""
    import transformers

    named = read_json(folder / "image_encoder" / "config.json").get("architectures") or ["CLIPVisionModel"]
    if named[0] not in ("CLIPVisionModel", "CLIPVisionModelWithProjection"):
        raise FieldError("backbone", f"{folder}/image_encoder/config.json: architectures must be CLIP's, got {named}")
    encoder = network(getattr(transformers, named[0]), folder / "image_encoder", dtype)
    # transformers 5 has the preparation twice, and one of them asks for torchvision.
    made = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor
    return encoder, made.from_pretrained(folder / "image_processor", local_files_only=True)

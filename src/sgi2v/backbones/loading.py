"""Networks from a folder in diffusers' or transformers' layout: safetensors only, nothing left unread or random."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from sgi2v.backbones.quiet import quiet_libraries
from sgi2v.backbones.weights import variant_of
from sgi2v.errors import FieldError


def network(made: Any, folder: Path, dtype: torch.dtype) -> nn.Module:
    """A library's class with the weights of a folder; FieldError where they are damaged, absent or of another shape."""
    variant = variant_of(folder.parent, folder.name, str(dtype).removeprefix("torch."))
    given = {"variant": variant} if variant else {}
    try:
        with quiet_libraries():
            loaded, told = made.from_pretrained(
                folder, dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True, **given
            )
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, AttributeError, NotImplementedError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FieldError("backbone", f"{folder} cannot be loaded ({reason})", "fetch or export it again") from error
    absent = [name for name, parameter in loaded.named_parameters() if parameter.is_meta]
    absent += sorted(told["missing_keys"])
    if absent:
        raise FieldError(
            "backbone",
            f"{folder} lacks weights that its configuration asks for ({absent[0]})",
            "fetch or export it again",
        )
    network: nn.Module = loaded.eval().requires_grad_(False)
    return network


def image_processor(folder: Path | None) -> Any:
    """CLIP's preparation of pictures as a folder says it, or as CLIP itself has it."""
    import transformers

    # transformers 5 has the preparation twice, and one of them asks for torchvision.
    made = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor
    if folder is None:
        return made()
    try:
        return made.from_pretrained(folder, local_files_only=True)
    except (OSError, KeyError, TypeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FieldError("backbone", f"{folder} cannot be read ({reason})", "fetch it again") from error

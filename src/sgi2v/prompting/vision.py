"""Networks that look at a picture, opened from a folder of the person's own; never from a hub."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from sgi2v.checks import shown
from sgi2v.device import choose_device
from sgi2v.errors import FieldError

MAX_CONFIG: Final = 2**20
"""Bytes of a folder's config.json."""
KINDS: Final = MappingProxyType(
    {
        "detector": ("grounding-dino", "owlv2", "owlvit"),
        "segmenter": ("sam2", "sam2_video"),
        "depth": ("depth_anything",),
    }
)
"""Purpose -> ``model_type`` of the configurations that serve it."""


def kind_in(field: str, folder: str | os.PathLike[str]) -> str:
    """The kind of network in a folder for the purpose ``field``; FieldError for a folder that holds none for it.

    Its config.json alone is read.
    """
    folder = Path(folder)
    file = folder / "config.json"
    known = KINDS[field]
    remedy = f"give a folder in transformers' layout whose model_type is {' or '.join(known)}"
    try:
        if not folder.is_dir() or not file.is_file() or file.stat().st_size > MAX_CONFIG:
            raise FieldError(field, f"{folder} holds no config.json", remedy)
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, FieldError):
            raise
        raise FieldError(field, f"{file} cannot be read", remedy) from error
    kind = config.get("model_type") if isinstance(config, Mapping) else None
    if kind not in known:
        raise FieldError(field, f"{folder} holds a {shown(kind)}", remedy)
    if not any(folder.glob("*.safetensors")):
        raise FieldError(field, f"{folder} holds no .safetensors", "only these are read: convert the weights")
    return str(kind)


def opened(field: str, loader: Any, folder: str | os.PathLike[str], device: str | None) -> Any:
    """A network of a folder on a device, ready to look; FieldError where the weights are not what the folder says."""
    try:
        network = loader.from_pretrained(Path(folder), local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError) as error:
        raise FieldError(field, f"{folder} cannot be opened ({shown(str(error))})", "copy the folder again") from error
    return network.eval().to(choose_device(device))


def processor_of(field: str, folder: str | os.PathLike[str]) -> Any:
    """The part that prepares pictures and words for a folder's network; FieldError where a file of it is missing."""
    from transformers import AutoProcessor

    try:
        return AutoProcessor.from_pretrained(Path(folder), local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError) as error:
        problem = f"{folder} cannot be opened ({shown(str(error))})"
        raise FieldError(field, problem, "copy its preprocessor and tokenizer files too") from error

"""Weight files of a model's folder: which there are, which of several forms is read, what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from sgi2v.errors import FieldError
from sgi2v.listing import listed

PICKLES: Final = (".bin", ".pt", ".pth", ".ckpt")
_NAME: Final = re.compile(
    r"(?:diffusion_pytorch_model|model)(?:\.(?P<new>\w+))?(?:-(?P<part>\d{5})-of-(?P<parts>\d{5}))?(?:\.(?P<old>\w+))?"
    r"\.safetensors"
)
"""Names that diffusers and transformers give weights: a form (fp16) before or after the part's number."""
_FORMS: Final = ("", "fp16", "bf16", "fp32", "non_ema", "ema")
"""Forms in which models are published; the first is that of files that name none."""
_WANTED: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "float32": ("", "fp32", "fp16", "bf16", "non_ema", "ema"),
        "float16": ("fp16", "", "fp32", "bf16", "non_ema", "ema"),
        "bfloat16": ("bf16", "", "fp32", "fp16", "non_ema", "ema"),
    }
)
"""Order in which forms are looked for, by the number format to compute in."""
_ADAPTED: Final = (".lora_", ".lora.", ".base_layer.")


def forms_in(folder: Path, network: str) -> dict[str, list[Path]]:
    """The whole forms of a network's weights that its folder holds, with their files; others' names are passed over."""
    found: dict[str, list[Path]] = {}
    counts: dict[str, int] = {}
    for file in listed(folder / network, {".safetensors"}) if (folder / network).is_dir() else ():
        match = _NAME.fullmatch(file.name)
        form = "" if match is None else match["new"] or match["old"] or ""
        if match is None or form not in _FORMS:
            continue
        found.setdefault(form, []).append(file)
        counts[form] = max(counts.get(form, 1), int(match["parts"] or 1))
    return {form: files for form, files in found.items() if len(files) >= counts[form]}


def variant_of(folder: Path, network: str, dtype: str) -> str | None:
    """The form that is read of a network's weights, by the number format wanted: None for files that name none."""
    there = forms_in(folder, network)
    return next((form for form in _WANTED[dtype] if form in there), "") or None


def weight_files(folder: Path, networks: Sequence[str]) -> list[Path]:
    """The safetensors files of some networks, in every form that is there, in a fixed order."""
    return sorted(file for part in networks for files in forms_in(folder, part).values() for file in files)


def check_weights_there(folder: Path, networks: Sequence[str]) -> None:
    """FieldError when a network's folder holds no safetensors file of its name; no file is opened."""
    for part in networks:
        if forms_in(folder, part):
            continue
        files = listed(folder / part) if (folder / part).is_dir() else []
        others = [file.name for file in files if file.suffix == ".safetensors"]
        pickles = [file.name for file in files if file.suffix in PICKLES]
        if others:
            raise FieldError(
                "backbone",
                f"{folder / part} holds {others[0]}, and not the whole of a diffusion_pytorch_model.safetensors or "
                "model.safetensors",
                "fetch all its files, or give it the name that it was saved under",
            )
        if pickles:
            raise FieldError(
                "backbone",
                f"{folder / part} holds pickle weights only ({pickles[0]}), which can run code",
                "convert them with diffusers' save_pretrained(..., safe_serialization=True)",
            )
        raise FieldError("backbone", f"{folder / part} holds no *.safetensors file", "fetch or export the model again")


def check_weights(folder: Path, networks: Sequence[str]) -> None:
    """FieldError naming a weight file that is damaged, or holds a LoRA that is not merged; headers alone are read."""
    import safetensors

    check_weights_there(folder, networks)
    for file in weight_files(folder, networks):
        try:
            with safetensors.safe_open(file, framework="pt") as opened:
                names = list(opened.keys())
        except (OSError, safetensors.SafetensorError) as error:
            raise FieldError("backbone", f"{file} is corrupt ({error})", "fetch or export it again") from None
        adapted = next((name for name in names if any(word in name for word in _ADAPTED)), None)
        if adapted is not None:
            raise FieldError(
                "backbone",
                f"{file} holds a LoRA beside the weights that it changes ({adapted})",
                "merge it before saving: pipeline.fuse_lora(), pipeline.unload_lora_weights(), save_pretrained(...)",
            )

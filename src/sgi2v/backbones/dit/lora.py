"""LoRA files of video transformers: keys of diffusers, ComfyUI and others, turned by diffusers' own loaders."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from sgi2v.errors import FieldError

if TYPE_CHECKING:
    from sgi2v.backbones.adapters import LowRank
    from sgi2v.backbones.dit.model import VideoTransformer

_EXPERTS: Final = MappingProxyType({"high": "transformer", "low": "transformer_2"})


def parse_lora(said: str) -> tuple[Path, float, str]:
    """File, weight and expert of ``FILE[:weight][:high|low]``; FieldError for another text or no such file."""
    name, expert, weight = said, "", 1.0
    for _ in range(2):
        head, _, tail = name.rpartition(":")
        if head and tail in _EXPERTS and not expert:
            name, expert = head, tail
        elif head and _is_number(tail):
            name, weight = head, float(tail)
    file = Path(name)
    if not file.is_file() or file.suffix != ".safetensors":
        raise FieldError("lora", f"{name} is no .safetensors file", "give FILE.safetensors, FILE:0.8 or FILE:0.8:high")
    return file, weight, expert


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def load_lora(backbone: VideoTransformer, said: str) -> LowRank:
    """The adapter of ``FILE[:weight][:high|low]`` for a model; without an expert it joins all of them.

    Raises FieldError for a file that is damaged, or whose keys fit nothing in the model.
    """
    import diffusers.loaders as loaders
    from safetensors import SafetensorError
    from safetensors.torch import load

    from sgi2v.backbones.adapters import LowRank

    file, weight, expert = parse_lora(said)
    experts = list(backbone.experts)
    if expert and _EXPERTS[expert] not in experts:
        raise FieldError("lora", f"{backbone.name} has one network alone", f"leave :{expert} out")
    mixin: Any = getattr(loaders, backbone.outline.LORA)
    try:
        data = file.read_bytes()
        found = mixin.lora_state_dict(load(data))
    except (OSError, SafetensorError, KeyError, ValueError, AttributeError, IndexError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FieldError("lora", f"{file} cannot be read as a LoRA ({reason})", "give another") from error
    layers = sorted({name.partition(".lora_")[0] for name in found if ".lora_A." in name})
    pairs, biases = {}, {}
    for name in [_EXPERTS[expert]] if expert else experts:
        known = dict(backbone.experts[name].named_modules())
        prefix = f"{name}." if len(experts) > 1 else ""
        for layer in layers:
            place = layer.removeprefix("transformer.")
            if place not in known:
                raise FieldError(
                    "lora", f"{file} is for a layer {place!r}, which {backbone.name} lacks", "give another"
                )
            pairs[prefix + place] = (found[f"{layer}.lora_A.weight"], found[f"{layer}.lora_B.weight"])
            if (bias := found.get(f"{layer}.lora_B.bias")) is not None:
                biases[prefix + place] = bias
    if not pairs:
        raise FieldError("lora", f"{file} holds no keys of a LoRA", "give one")
    sha256 = hashlib.sha256(data).hexdigest()
    name = f"{file.name}:{expert}" if expert else file.name
    return LowRank(pairs, name=name, sha256=sha256, scale=weight, biases=biases)

"""Transformers in one file of the original or ComfyUI's layout, fp8-scaled or GGUF, in place of a folder's own."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sgi2v.errors import FieldError
from sgi2v.lazy import torch

if TYPE_CHECKING:
    from torch import nn

_PREFIXES: Final = ("model.diffusion_model.", "diffusion_model.")
_SCALES: Final = (".scale_weight", ".weight_scale")
"""Ends of the names under which an fp8 file keeps what its weights are to be multiplied by."""
_IGNORED: Final = (".scale_input", ".input_scale", "scaled_fp8")
"""Ends of names that only fast fp8 kernels need."""


def check_file(field: str, file: Path) -> None:
    """FieldError under ``field`` unless a file can be a transformer; of safetensors the header is read, no weight."""
    if not file.is_file():
        raise FieldError(field, f"{file} is no file", "give a .safetensors or .gguf file")
    match file.suffix:
        case ".gguf":
            if find_spec("gguf") is None:
                raise FieldError(field, f"{file.name} needs the library gguf", "pip install 'sgi2v[quantised]'")
        case ".safetensors":
            names = _names(field, file)
            blocks = [name for name in names if "blocks.0." in name]
            if not blocks or any(".lora_" in name for name in names):
                raise FieldError(field, f"{file} holds no transformer", "give one; a LoRA goes to --lora")
            check_unfused([file], field)
        case _:
            raise FieldError(
                field, f"{file.name} is neither .safetensors nor .gguf", "pickles can run code: convert it first"
            )


def check_unfused(files: Iterable[Path], field: str = "backbone") -> None:
    """FieldError under ``field`` for weights saved with fused projections, whose features could not be read."""
    for file in files:
        if any(".to_qkv." in name or ".to_kv." in name for name in _names(field, file)):
            raise FieldError(field, f"{file} has fused projections", "save it again after unfuse_qkv_projections()")


def _names(field: str, file: Path) -> Collection[str]:
    import safetensors

    try:
        with safetensors.safe_open(file, framework="np") as opened:
            return set(opened.keys())
    except (OSError, safetensors.SafetensorError) as error:
        raise FieldError(field, f"{file} is corrupt ({error})", "fetch it again") from None


def network_of(made: Any, file: Path, folder: Path, part: str, dtype: torch.dtype) -> nn.Module:
    """The library's class with the file's weights, by the configuration in a folder's ``part``.

    Keys are turned by diffusers' own converter. Raises FieldError where they do not fit that configuration.
    """
    from sgi2v.backbones.quiet import quiet_libraries

    given: dict[str, Any] = {"config": str(folder), "subfolder": part, "dtype": dtype, "local_files_only": True}
    source: Any
    if file.suffix == ".gguf":
        from diffusers import GGUFQuantizationConfig

        given["quantization_config"] = GGUFQuantizationConfig(compute_dtype=dtype)
        source = str(file)
    else:
        from safetensors.torch import load_file

        source = unscaled(load_file(file), dtype)
    try:
        with quiet_libraries():
            network: nn.Module = made.from_single_file(source, **given)
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FieldError(
            part, f"{file} does not fit {folder.name}/{part}/config.json ({reason})", "give the file of that model"
        ) from error
    absent = [name for name, parameter in network.named_parameters() if parameter.is_meta]
    if absent:
        raise FieldError(part, f"{file} lacks {absent[0]} and {len(absent) - 1} more", "give the file of that model")
    return network.eval().requires_grad_(False)


def unscaled(weights: Mapping[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The weights without a prefix and in ``dtype``; fp8 ones times the scale that is kept beside them."""
    named = {_without_prefix(name): tensor for name, tensor in weights.items()}
    scales = {
        f"{name.removesuffix(end)}.weight": tensor
        for name, tensor in named.items()
        for end in _SCALES
        if name.endswith(end)
    }
    found = {}
    for name, tensor in named.items():
        if name.endswith((*_SCALES, *_IGNORED)):
            continue
        if name in scales:
            found[name] = (tensor.float() * scales[name].float()).to(dtype)
        else:
            found[name] = tensor.to(dtype) if tensor.dtype.itemsize == 1 else tensor
    return found


def _without_prefix(name: str) -> str:
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name

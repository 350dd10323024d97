"""Files of trained systems by their headers alone: which tensors they hold, of which shape and number format."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Final

from sgi2v.backbones.folder import content_sha256, read_json
from sgi2v.backbones.weights import PICKLES, weight_files
from sgi2v.errors import FieldError
from sgi2v.lazy import torch
from sgi2v.listing import listed
from sgi2v.records import Json

SAFE: Final = ".safetensors"
_PARTS: Final = ("unet", "vae", "text_encoder")
"""Parts whose weights count where a whole model in diffusers' layout stands for an adapter."""


@dataclass(frozen=True)
class Tensorhead:
    """A tensor as a file's header tells it."""

    shape: tuple[int, ...]
    dtype: str
    """float32, float16, bfloat16 …, as torch names it."""


@dataclass(frozen=True, kw_only=True)
class AdapterFiles:
    """Weights of a trained system on this machine, none of which has been read."""

    place: Path
    """The file, or the folder of files."""
    name: str
    """The adapter in a record: a published name, a hub id, or the file's own name."""
    files: tuple[Path, ...]
    """The weight files."""
    tensors: Mapping[str, Tensorhead] = field(repr=False)
    """Key -> header; with several files ``<file without its suffix>/<key>``, in a folder of parts ``<part>/<key>``."""
    config: Json = field(default_factory=dict, repr=False)
    """The folder's config.json or model_index.json; empty where there is none."""

    @classmethod
    def read(cls, place: Path, name: str = "") -> AdapterFiles:
        """The headers of a safetensors file, a pickle (``weights_only``), or a folder with one or more of them.

        Raises FieldError for a file that is none of these or damaged, and for a folder without weights.
        """
        if not place.exists():
            raise FieldError("adapter", f"{place} is not there", "give a file, a folder, a name or a hub id")
        config: Json = {}
        if place.is_file():
            files, prefixes = [place], [""]
        else:
            for one in ("model_index.json", "config.json"):
                config = config or (read_json(place / one) if (place / one).is_file() else {})
            whole = (place / "model_index.json").is_file()  # beside which may lie the same once more in one file
            files = [] if whole else listed(place, {SAFE}) or listed(place, set(PICKLES))
            prefixes = [f"{one.stem}/" if len(files) > 1 else "" for one in files]
            if not files:
                files = weight_files(place, [part for part in _PARTS if (place / part).is_dir()])
                prefixes = [f"{one.parent.name}/" for one in files]
        if not files:
            raise FieldError("adapter", f"{place} holds no weights", "give the file of the weights, or its folder")
        tensors = {
            prefix + key: head for file, prefix in zip(files, prefixes, strict=True) for key, head in _heads(file)
        }
        return cls(place=place, name=name or place.name, files=tuple(files), tensors=tensors, config=config)

    @property
    def sha256(self) -> str:
        """Of the one file, or over names and contents of several; reads them all."""
        if len(self.files) == 1:
            return content_sha256(self.files[0])
        lines = (f"{file.relative_to(self.place).as_posix()} {content_sha256(file)}\n" for file in self.files)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def count(self) -> int:
        """Numbers in all tensors."""
        return self.count_of("")

    def count_of(self, *parts: str) -> int:
        """Numbers in the tensors whose keys hold one of these texts."""
        chosen = (head for key, head in self.tensors.items() if any(part in key for part in parts))
        return sum(prod(head.shape) for head in chosen)

    @property
    def pickled(self) -> bool:
        """True where the weights lie in pickles."""
        return any(file.suffix in PICKLES for file in self.files)

    def load(self) -> dict[str, torch.Tensor]:
        """All tensors by their keys, on the host, in the files' number formats; FieldError for a damaged file."""
        found: dict[str, torch.Tensor] = {}
        for file in self.files:
            prefix = f"{file.stem}/" if len(self.files) > 1 else ""
            found |= {prefix + key: tensor for key, tensor in tensors_of(file).items()}
        return found


def tensors_of(file: Path, *, device: str = "cpu") -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file or a pickle by key; on the device ``meta`` their shapes alone.

    A pickle is opened by ``torch.load(weights_only=True)``; what it wraps in a ``state_dict`` is unwrapped, and what
    is no tensor (a step's number) left out. Raises FieldError naming the file.
    """
    from pickle import UnpicklingError

    from safetensors import SafetensorError, safe_open

    remedy = "fetch it again"
    try:
        if file.suffix == SAFE:
            with safe_open(file, framework="pt", device=device) as opened:
                return {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118  (it is no mapping)
        if file.suffix not in PICKLES:
            raise FieldError("adapter", f"{file} is no file of weights", f"give one ending in {SAFE}, .pth or .ckpt")
        try:
            data = torch.load(file, map_location=device, weights_only=True, mmap=True)
        except RuntimeError:  # an older pickle, which is no zip and cannot be mapped
            data = torch.load(file, map_location=device, weights_only=True)
    except (OSError, SafetensorError, RuntimeError, EOFError, UnpicklingError, ValueError) as error:
        if isinstance(error, FieldError):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FieldError("adapter", f"{file} cannot be read ({reason})", remedy) from error
    for wrapped in ("state_dict", "model"):
        if isinstance(data, Mapping) and isinstance(data.get(wrapped), Mapping):
            data = data[wrapped]
    if not isinstance(data, Mapping):
        raise FieldError("adapter", f"{file} holds a {type(data).__name__}, no weights by name", remedy)
    return {str(key): value for key, value in data.items() if isinstance(value, torch.Tensor)}


def _heads(file: Path) -> Iterator[tuple[str, Tensorhead]]:
    if file.suffix != SAFE:
        for key, tensor in tensors_of(file, device="meta").items():
            yield key, Tensorhead(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        return
    from safetensors import SafetensorError, safe_open

    names = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    try:
        with safe_open(file, framework="np") as opened:
            for key in opened.keys():  # noqa: SIM118  (it is no mapping)
                head = opened.get_slice(key)
                yield key, Tensorhead(tuple(head.get_shape()), names.get(head.get_dtype(), head.get_dtype().lower()))
    except (OSError, SafetensorError) as error:
        raise FieldError("adapter", f"{file} cannot be read ({error})", "fetch it again") from None


def shape_faults(
    found: Mapping[str, Tensorhead], expected: Mapping[str, Sequence[int]], optional: frozenset[str]
) -> tuple[str, ...]:
    """Every key that is absent, unknown or of another shape than expected, a sentence each; none for whole weights.

    ``optional`` are the keys that may be absent.
    """
    absent = [f"{key} is missing" for key in expected if key not in found and key not in optional]
    unknown = [f"{key} belongs to nothing" for key in found if key not in expected]
    wrong = [
        f"{key} is {list(found[key].shape)}, not {list(shape)}"
        for key, shape in expected.items()
        if key in found and tuple(shape) != found[key].shape
    ]
    return (*absent, *unknown, *wrong)


def shapes_of(module: Any) -> dict[str, tuple[int, ...]]:
    """Key -> shape of a module's weights, which may lie on the meta device."""
    return {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}


def size_of(found: AdapterFiles, kind: str, key: str, axis: int, otherwise: int | None = None) -> int:
    """A tensor's size along an axis; ``otherwise`` where it is absent. FieldError for files that cannot say it."""
    if key not in found.tensors:
        if otherwise is not None:
            return otherwise
        raise FieldError("adapter", f"{found.place} is no whole {kind}: {key} is missing", "fetch it again")
    shape = found.tensors[key].shape
    if not axis < len(shape) or shape[axis] < 1:
        raise FieldError("adapter", f"{found.place} is no {kind}: {key} is {list(shape)}", "fetch it again")
    return shape[axis]


def said_number(found: AdapterFiles, name: str, otherwise: int) -> int:
    """A whole number above 0 in the folder's config.json; FieldError for anything else under that name."""
    value = found.config.get(name, otherwise)
    if not isinstance(value, int) or value < 1:
        raise FieldError("adapter", f"{found.place} says {name} {value!r}", "give a whole number above 0")
    return value

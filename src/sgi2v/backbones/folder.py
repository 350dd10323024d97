"""A model's folder in diffusers' layout: JSON that is read with care, weights that are hashed, files from a hub."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from sgi2v.errors import FieldError
from sgi2v.files import cache_folder
from sgi2v.writing import writing

SETTINGS_FILE: Final = "sgi2v.json"
CONFIGS: Final = ("model_index.json", SETTINGS_FILE, "*/config.json", "*/*_config.json")
"""Files that say what a model is, as patterns for a hub."""
_PICKLES: Final = (".bin", ".pt", ".pth", ".ckpt")
_LIBRARIES: Final = ("diffusers", "transformers")
_MAX_CONFIG_BYTES: Final = 2**20
_LARGE: Final = 2**28
"""Bytes from which on a file's hash is kept: reading a model of 30 GB takes longer than many a run's steps."""


def bundled_folder() -> Path:
    """The folder of the model that ships in the package."""
    return Path(__file__).parents[1] / "assets"


def fetch(hub_id: str, wanted: Sequence[str], unwanted: Sequence[str] = ()) -> Path:
    """Folder of a hub's model with the files of some patterns in it; FieldError when the hub cannot be reached."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, allow_patterns=list(wanted), ignore_patterns=list(unwanted) or None))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise FieldError(
            "backbone",
            f"{hub_id!r} could not be fetched ({reason})",
            "download it elsewhere and give its folder instead",
        ) from None


def read_json(file: Path) -> dict[str, Any]:
    """A small JSON object from a model folder; FieldError naming the file when it is none."""
    try:
        if file.stat().st_size > _MAX_CONFIG_BYTES:
            raise ValueError("larger than 1 MiB")
        data = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(data, dict):
            raise ValueError("not a JSON object")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise FieldError("backbone", f"{file} cannot be read ({error})", "fetch or export the model again") from None
    return data


def class_in(file: Path) -> str:
    """The ``_class_name`` in a configuration; empty where the file is absent, damaged or says none."""
    try:
        return str(read_json(file).get("_class_name", ""))
    except FieldError:
        return ""


def check_parts(folder: Path, configs: Sequence[str], what: str) -> None:
    """FieldError naming the file when configurations are absent or damaged, or a part is a program.

    ``what`` names the kind of model. Reads JSON only.
    """
    # Some versions of diffusers run a file of a model's own instead of the library's class.
    programs = sorted((*folder.glob("*.py"), *folder.glob("*/*.py")))
    if programs:
        raise FieldError("backbone", f"{programs[0]} is a program, which a model needs none of", "delete it")
    for name in configs:
        if not (folder / name).is_file():
            raise FieldError(
                "backbone", f"{folder} is incomplete: {name} is missing", "fetch or export the model again"
            )
        read_json(folder / name)
    for part, value in read_json(folder / "model_index.json").items():
        if not isinstance(value, list) or value == [None, None]:  # diffusers' word for a part that is absent
            continue
        library = value[0] if value else "nowhere"
        # A list for what is no part names a class of the folder's own.
        if part.startswith("_") or library not in _LIBRARIES:
            raise FieldError(
                "backbone",
                f"{folder / 'model_index.json'} takes {part} from {library}",
                f"{what} takes its parts from {' and '.join(_LIBRARIES)} alone",
            )


def check_weights_there(folder: Path, networks: Sequence[str]) -> None:
    """FieldError when a network's folder holds no safetensors file; no file is opened."""
    for part in networks:
        if list((folder / part).glob("*.safetensors")):
            continue
        pickles = [file.name for file in (folder / part).glob("*") if file.suffix in _PICKLES]
        if pickles:
            raise FieldError(
                "backbone",
                f"{folder / part} holds pickle weights only ({pickles[0]}), which can run code",
                "convert them with diffusers' save_pretrained(..., safe_serialization=True)",
            )
        raise FieldError("backbone", f"{folder / part} holds no *.safetensors file", "fetch or export the model again")


def check_weights(folder: Path, networks: Sequence[str]) -> None:
    """FieldError naming a weight file that is damaged; headers are read, before anything is loaded."""
    import safetensors

    check_weights_there(folder, networks)
    for file in weight_files(folder, networks):
        try:
            with safetensors.safe_open(file, framework="pt"):
                pass
        except (OSError, safetensors.SafetensorError) as error:
            raise FieldError("backbone", f"{file} is corrupt ({error})", "fetch or export it again") from None


def weight_files(folder: Path, networks: Sequence[str]) -> list[Path]:
    """The safetensors files of some networks, in a fixed order."""
    return sorted(file for part in networks for file in (folder / part).glob("*.safetensors"))


def variant_of(folder: Path, network: str, *, half: bool) -> str | None:
    """``fp16`` when those files are wanted, or the only ones there; None for the plain files."""
    stems = [file.name for file in (folder / network).glob("*.safetensors")]
    fp16 = [name for name in stems if ".fp16" in name]
    return "fp16" if fp16 and (half or len(fp16) == len(stems)) else None


def weights_sha256(folder: Path, networks: Sequence[str]) -> str:
    """SHA-256 over names and contents of all weight files: says exactly which model made a video."""
    whole = hashlib.sha256()
    for file in weight_files(folder, networks):
        content = _content_sha256(file)
        whole.update(f"{file.relative_to(folder).as_posix()} {content}\n".encode())
    return whole.hexdigest()


def _content_sha256(file: Path) -> str:
    """A file's hash; of a large one kept in the cache under its place, size and time of change."""
    found = file.stat()
    if found.st_size < _LARGE:
        return _hashed(file)
    place = f"{file.resolve()} {found.st_size} {found.st_mtime_ns}"
    kept = cache_folder() / "hashes" / hashlib.sha256(place.encode()).hexdigest()
    with suppress(OSError, UnicodeDecodeError):
        known = kept.read_text(encoding="ascii")
        if re.fullmatch("[0-9a-f]{64}", known):
            return known
    content = _hashed(file)
    with suppress(ValueError, OSError), writing(kept) as temporary:  # where it cannot be kept it is made again
        temporary.write_text(content, encoding="ascii")
    return content


def _hashed(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

"""A model's folder in diffusers' layout: JSON that is read with care, weights that are hashed, files from a hub."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from sgi2v.backbones.weights import PICKLES, weight_files
from sgi2v.errors import FieldError
from sgi2v.files import cache_folder
from sgi2v.listing import is_litter, listed
from sgi2v.writing import writing

SETTINGS_FILE: Final = "sgi2v.json"
CONFIGS: Final = ("model_index.json", SETTINGS_FILE, "*/config.json", "*/*_config.json")
"""Files that say what a model is, as patterns for a hub."""
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
        data = json.loads(file.read_text(encoding="utf-8-sig"), parse_constant=_no_number)
        if not isinstance(data, dict):
            raise ValueError("not a JSON object")
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise FieldError("backbone", f"{file} cannot be read ({error})", "fetch or export the model again") from None
    return data


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number")


def class_in(file: Path) -> str:
    """The ``_class_name`` in a configuration; empty where the file is absent, damaged or says none."""
    try:
        return str(read_json(file).get("_class_name", ""))
    except FieldError:
        return ""


def check_no_single_file(place: Path) -> None:
    """FieldError for a model in one file, or a folder with nothing but such files, saying what is read instead."""
    suffixes = (".safetensors", ".gguf", *PICKLES)
    if place.is_dir() and not (place / "model_index.json").is_file() and not [*place.glob("*/config.json")]:
        place = next((file for file in listed(place) if file.suffix in suffixes and file.is_file()), place)
    if place.suffix in suffixes and place.is_file():
        raise FieldError(
            "backbone",
            f"{place} is a model in one file, as Stability AI's own code and ComfyUI read it",
            "give svd or svd-xt, which fetch the same weights as a folder in diffusers' layout, or such a folder; a "
            "video transformer's file goes to --transformer, beside its folder",
        )


def check_parts(folder: Path, configs: Sequence[str], what: str) -> None:
    """FieldError naming the file when configurations are absent or damaged, or a part is a program.

    ``what`` names the kind of model. Reads JSON only.
    """
    # Some versions of diffusers run a file of a model's own instead of the library's class.
    programs = [file for file in sorted((*folder.glob("*.py"), *folder.glob("*/*.py"))) if not is_litter(file)]
    if programs:
        raise FieldError("backbone", f"{programs[0]} is a program, which a model needs none of", "delete it")
    for name in configs:
        if not (folder / name).is_file():
            raise FieldError(
                "backbone", f"{folder} is incomplete: {name} is missing", "fetch or export the model again"
            )
        read_json(folder / name)
    for part, value in read_json(folder / "model_index.json").items():
        if not isinstance(value, list) or (value and all(one is None for one in value)):
            continue  # diffusers' word for a part that is absent
        library = value[0] if value else "nowhere"
        # A list for what is no part names a class of the folder's own.
        if part.startswith("_") or library not in _LIBRARIES:
            raise FieldError(
                "backbone",
                f"{folder / 'model_index.json'} takes {part} from {library}",
                f"{what} takes its parts from {' and '.join(_LIBRARIES)} alone",
            )


def weights_sha256(folder: Path, networks: Sequence[str]) -> str:
    """SHA-256 over names and contents of all weight files: says exactly which model made a video."""
    whole = hashlib.sha256()
    for file in weight_files(folder, networks):
        content = content_sha256(file)
        whole.update(f"{file.relative_to(folder).as_posix()} {content}\n".encode())
    return whole.hexdigest()


def content_sha256(file: Path) -> str:
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

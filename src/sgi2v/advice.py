"""A person's own advice on a model, as sgi2v probe finds it: in the configuration folder, under the weights' hash."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from sgi2v.backbones.base import Advice, Outline
from sgi2v.backbones.weights import weight_files
from sgi2v.controllers import recommended
from sgi2v.errors import FieldError, within
from sgi2v.files import config_folder
from sgi2v.listing import listed
from sgi2v.records import Json
from sgi2v.writing import reason, writing

FORMAT: Final = "sgi2v-advice"
VERSION: Final = 1
_MAX_BYTES: Final = 2**20
Sizes = dict[str, tuple[int, int]]
OutlineT = TypeVar("OutlineT", bound=Outline)


@dataclass(frozen=True, kw_only=True)
class OwnAdvice:
    """Values of controllers' fields that were found to suit some weights."""

    weights_sha256: str
    files: Mapping[str, tuple[int, int]]
    """Bytes and time of change (nanoseconds) of each weight file, by its name in the folder: unchanged files need not
    be hashed again, which takes as long as reading them."""
    recommended: Advice
    """Controller name -> values of its fields."""
    said: str
    """Remark on where it is from, for a person."""


def advice_folder() -> Path:
    """The folder of advice in the person's configuration."""
    return config_folder() / "advice"


def save_advice(outline: Outline, values: Advice, said: str) -> Path:
    """Writes advice on an outline's weights, in place of any earlier; returns the file. Reads all weights once."""
    _check(values)
    sha256 = outline.hash_weights()
    data = {
        "format": FORMAT,
        "version": VERSION,
        "weights_sha256": sha256,
        "files": _files(outline),
        "said": said,
        "recommended": values,
    }
    file = advice_folder() / f"{sha256}.json"
    text = json.dumps(data, indent=2, allow_nan=False) + "\n"
    with writing(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return file


def advice_on(outline: Outline) -> OwnAdvice | None:
    """The advice on an outline's weights, if there is any; hashes them only where files of the same sizes are known.

    FieldError naming a file of advice that is damaged, or newer than this program.
    """
    folder = advice_folder()
    files = _files(outline) if folder.is_dir() else {}
    if not files:
        return None
    sizes = {name: size for name, (size, _) in files.items()}
    found = [_read(file) for file in listed(folder, {".json"})]
    near = [one for one in found if {name: size for name, (size, _) in one.files.items()} == sizes]
    same = next((one for one in near if dict(one.files) == files), None)
    if same is None and near:
        sha256 = outline.hash_weights()
        same = next((one for one in near if one.weights_sha256 == sha256), None)
    return same


def advised(outline: OutlineT, recipe: str | None = None) -> OutlineT:
    """The outline with a person's own advice over what its model recommends, and a note that says so.

    A recipe that names layers itself keeps them: the advice is then left out.
    """
    own = advice_on(outline)
    if own is None:
        return outline
    settings = outline.settings
    values, notes = dict(settings.recommended), dict(settings.notes)
    by_recipe = settings.recipes.get(recipe or "", {}).get("recommended", {})
    for name, fields in own.recommended.items():
        if isinstance(by_recipe, Mapping) and "layers" in by_recipe.get(name, {}):
            continue
        values[name] = {**values.get(name, {}), **fields}
        told = f"{', '.join(fields)} as found by {own.said}; --no-probed leaves that out."
        notes[name] = " ".join(filter(None, (notes.get(name), told[0].upper() + told[1:])))
    return outline.with_settings(dataclasses.replace(settings, recommended=values, notes=notes))


def _files(outline: Outline) -> Sizes:
    """Bytes and time of change of the weight files that lie in the outline's folder, a text encoder's left out.

    That one may come and go: a model's texts are encoded once, and its hash does without it too.
    """
    found = {}
    parts = [
        place.name for place in listed(outline.folder) if place.is_dir() and not place.name.startswith("text_encoder")
    ]
    for file in weight_files(outline.folder, parts):
        about = file.stat()
        found[file.relative_to(outline.folder).as_posix()] = (about.st_size, about.st_mtime_ns)
    return found


def _check(values: Advice) -> None:
    for name, fields in values.items():
        recommended(name, {name: fields})


def _read(file: Path) -> OwnAdvice:
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise ValueError("larger than 1 MiB")
        data = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError("no advice of sgi2v")
        if data.get("version") != VERSION:
            raise ValueError(f"of version {data.get('version')!r}, newer than this program")
        return _parsed(data, file.stem)
    except OSError as error:
        raise FieldError("advice", f"{file} cannot be read ({reason(error)})", "see to its rights") from None
    except (ValueError, RecursionError) as error:
        raise FieldError("advice", f"{file}: {error}", "delete it; sgi2v probe --write makes it again") from None


def _parsed(data: Json, stem: str) -> OwnAdvice:
    """The advice in a JSON object; ValueError where it is damaged."""
    sha256, said, files, values = (data.get(key) for key in ("weights_sha256", "said", "files", "recommended"))
    if sha256 != stem or not isinstance(said, str) or not isinstance(files, dict) or not isinstance(values, dict):
        raise ValueError("damaged")
    for pair in files.values():
        if not (isinstance(pair, list) and len(pair) == 2 and all(type(number) is int for number in pair)):
            raise ValueError("damaged: files")
    if not all(isinstance(fields, dict) and "name" not in fields for fields in values.values()):
        raise ValueError("damaged: recommended")
    with within("recommended"):
        _check(values)
    return OwnAdvice(
        weights_sha256=stem,
        files={name: (size, time) for name, (size, time) in files.items()},
        recommended=values,
        said="".join(c if c.isprintable() else " " for c in said)[:200],
    )

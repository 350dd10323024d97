"""A folder's content as a person sees it: numbers in names counted as numbers, a system's litter left out."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Final

_LITTER: Final = frozenset({".ds_store", "thumbs.db", "desktop.ini"})
_NUMBER: Final = re.compile(r"([0-9]+)")


def natural_key(name: str) -> tuple[object, ...]:
    """Key that sorts names with their numbers as numbers: frame2 before frame10; equal numbers go by text."""
    parts = _NUMBER.split(name)  # text and digits take turns, so that like is compared with like
    return tuple(int(part) if k % 2 else part for k, part in enumerate(parts)), name


def listed(folder: Path, suffixes: Collection[str] | None = None) -> list[Path]:
    """Files and folders in a folder in natural order, without names that begin with a dot or are a system's litter.

    ``suffixes``: only names that end in one of these, given in small letters, however the name is written.
    """
    found = [place for place in folder.iterdir() if not place.name.startswith(".") and not is_litter(place)]
    if suffixes is not None:
        found = [place for place in found if place.suffix.lower() in suffixes]
    return sorted(found, key=lambda place: natural_key(place.name))


def is_litter(place: Path) -> bool:
    """True for what a system leaves in a folder by itself, macOS a ._name beside every file on foreign discs."""
    name = place.name.lower()
    return name in _LITTER or (name.startswith("._") and not place.is_dir())

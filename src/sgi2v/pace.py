"""Speed of earlier runs, kept in the cache folder, so that a run can say at its first step how long it will take."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Final

from sgi2v.files import cache_folder
from sgi2v.writing import writing

_MOST: Final = 200
"""Paces kept, the latest."""
_MAX_BYTES: Final = 2**20


def pace_of(key: str) -> float | None:
    """Seconds that a unit of work took the last time under this key; None where none is known. Never raises."""
    return _read().get(key)


def keep_pace(key: str, seconds: float) -> None:
    """Keeps it for the next run; where the cache folder cannot be written nothing is kept, and nothing raised."""
    paces = {name: value for name, value in _read().items() if name != key} | {key: seconds}
    with suppress(OSError, ValueError), writing(_file()) as temporary:
        temporary.write_text(json.dumps(dict(list(paces.items())[-_MOST:])), encoding="utf-8")


def _file() -> Path:
    return cache_folder() / "paces.json"


def _read() -> dict[str, float]:
    with suppress(OSError, ValueError, RecursionError):
        if _file().stat().st_size <= _MAX_BYTES:
            found = json.loads(_file().read_text(encoding="utf-8"))
            if isinstance(found, dict):
                return {k: v for k, v in found.items() if isinstance(v, float) and 0 < v < 1e6}
    return {}

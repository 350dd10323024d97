"""Rows of measurements, one JSON object a line: appended one by one, and read after any interruption."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from sgi2v.errors import FieldError
from sgi2v.records import Json


def row_key(identity: Mapping[str, object]) -> str:
    """SHA-256 of everything that decides a measurement, as canonical JSON: the same for the same measurement."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True, allow_nan=False).encode()).hexdigest()


def read_rows(path: Path) -> list[Json]:
    """The rows of a file, none if it is absent; a last line torn by an interruption is cut off the file.

    ValueError, naming the line, for damage anywhere else.
    """
    if not path.exists():
        return []
    rows: list[Json] = []
    whole = 0
    lines = path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        row = _parsed(line)
        if row is None:
            if number < len(lines):
                raise FieldError(f"{path}, line {number}", "not a JSON object", "repair or delete that line")
            os.truncate(path, whole)
            break
        rows.append(row)
        whole += len(line)
    return rows


def _parsed(line: bytes) -> Json | None:
    if not line.endswith(b"\n"):
        return None
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def append_row(path: Path, row: Mapping[str, object]) -> None:
    """Add one row at the end of the file, on the disk before this returns. Call read_rows once before the first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(json.dumps(row, sort_keys=True, allow_nan=False, separators=(",", ":")).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())

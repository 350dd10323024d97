"""A study's rows as they are committed: packed beside its table; while it runs, a plain file under out/."""

import json
import lzma
from collections.abc import Iterable
from pathlib import Path

from sgi2v.evaluation.rows import read_rows
from sgi2v.writing import writing


def unpack(packed: Path, rows: Path) -> None:
    """Add to a file of rows the packed ones that it lacks."""
    if not packed.is_file():
        return
    known = {row["key"] for row in read_rows(rows)}
    lines = lzma.decompress(packed.read_bytes()).splitlines(keepends=True)
    rows.parent.mkdir(parents=True, exist_ok=True)
    with rows.open("ab") as file:
        file.writelines(line for line in lines if json.loads(line)["key"] not in known)


def pack(keys: Iterable[str], rows: Path, packed: Path) -> None:
    """Write the rows of these keys, and no others that the file of rows may have from before."""
    known = {row["key"]: row for row in read_rows(rows)}
    lines = (json.dumps(known[key], sort_keys=True, separators=(",", ":")) + "\n" for key in keys)
    with writing(packed) as temporary:
        temporary.write_bytes(lzma.compress("".join(lines).encode(), preset=9))

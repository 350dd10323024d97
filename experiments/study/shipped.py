"""A study's rows and its clips' features as they are committed: packed beside its table; while it runs, under out/."""

import io
import json
import lzma
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from sgi2v.evaluation.rows import append_row, read_rows
from sgi2v.evaluation.store import Store
from sgi2v.records import Json
from sgi2v.writing import writing


def add_rows(found: Iterable[Json], rows: Path) -> None:
    """Add to a file of rows those that it lacks."""
    known = {row["key"] for row in read_rows(rows)}
    for row in found:
        if row["key"] not in known:
            append_row(rows, row)


def packed_rows(packed: Path) -> list[Json]:
    """The rows of a packed file, none if it is absent."""
    if not packed.is_file():
        return []
    return [json.loads(line) for line in lzma.decompress(packed.read_bytes()).splitlines()]


def unpack(packed: Path, rows: Path) -> None:
    """Add to a file of rows the packed ones that it lacks."""
    add_rows(packed_rows(packed), rows)


def shares(rows: Path, num: int) -> list[Path]:
    """The files that as many processes write beside a file of rows, one each."""
    return [rows.with_name(f"{rows.stem}.share-{index}.jsonl") for index in range(num)]


def gather(rows: Path) -> None:
    """Move into a file of rows what lies in shares beside it; ValueError where a process still writes one."""
    for share in sorted(rows.parent.glob(f"{rows.stem}.share-*.jsonl")):
        with Store(rows=share).open() as found:
            add_rows(found.values(), rows)
            share.unlink()


def pack(keys: Iterable[str], rows: Path, packed: Path) -> None:
    """Write the rows of these keys, and no others that the file of rows may have from before."""
    known = {row["key"]: row for row in read_rows(rows)}
    lines = (json.dumps(known[key], sort_keys=True, separators=(",", ":")) + "\n" for key in keys)
    with writing(packed) as temporary:
        temporary.write_bytes(lzma.compress("".join(lines).encode(), preset=9))


def unpack_features(packed: Path, store: Store, folder: str) -> None:
    """Add to a store the packed features that it lacks: clips are too large to commit, what was seen in them is not."""
    if not packed.is_file():
        return
    with np.load(io.BytesIO(lzma.decompress(packed.read_bytes())), allow_pickle=False) as kept:
        for clip, features in zip(kept["clips"].tolist(), kept["features"], strict=True):
            if store.load_features(clip, folder) is None:
                store.save_features(clip, folder, features)


def pack_features(rows: Iterable[Json], store: Store, folder: str, packed: Path) -> None:
    """Write what an extractor saw in the clips of these rows; nothing where a clip's features are not known."""
    found = {row["clip"]: store.load_features(row["clip"], folder) for row in rows}
    known = {clip: features for clip, features in found.items() if features is not None}
    if not known:
        return
    file = io.BytesIO()
    np.savez(file, clips=np.array(list(known)), features=np.stack(list(known.values())))
    with writing(packed) as temporary:
        temporary.write_bytes(lzma.compress(file.getvalue(), preset=9))

"""Reads a benchmark's rows for a report: leniently, each fault named by file and line, methods told apart by fields."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sgi2v.errors import FieldError
from sgi2v.evaluation.store import FORMAT, VERSION
from sgi2v.records import Json

_NEEDED: Final = ("key", "case", "method", "metrics", "clip", "size", "kinds", "boxes")


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows that a report is made of."""

    by_method: dict[str, dict[str, list[Json]]]
    """Method -> case -> its rows, one a seed; in the order of the file."""
    failed: list[Json]
    """Rows with an error that were not made good later."""
    left_out: list[str]
    """Cases the benchmark could not use."""
    problems: list[str]
    """Lines of the file that were not used, each with the reason."""

    @property
    def cases(self) -> list[str]:
        """Every case, in the order of the file."""
        return list(dict.fromkeys(case for cases in self.by_method.values() for case in cases))

    def one(self) -> Json:
        """Any row: what holds for all of them can be read from it."""
        return next(rows[0] for cases in self.by_method.values() for rows in cases.values())


def read_for_report(file: Path) -> Rows:
    """The usable rows of a file. Never changes it, as a benchmark may be writing there.

    Lines that are damaged, not finished, or of another format or version, and rows that were measured otherwise than
    most, are named among the problems. ValueError when the file cannot be read or nothing in it can be used.
    """
    try:
        lines = file.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise FieldError("rows", f"cannot read {file} ({error.strerror})", "give what sgi2v benchmark wrote") from error
    problems: list[str] = []
    found: dict[str, Json] = {}
    for number, line in enumerate(lines, start=1):
        try:
            row = _checked(line)
        except ValueError as error:
            problems.append(f"{file}, line {number}: {error}")
            continue
        found[row["key"]] = row
    left_out = [str(row["left_out"]) for row in found.values() if "left_out" in row]
    failed = [row for row in found.values() if "error" in row]
    fine = _of_one_kind([row for row in found.values() if "error" not in row and "left_out" not in row], file, problems)
    if not fine:
        reasons = f"; {problems[0]}" if problems else ""
        raise FieldError("rows", f"{file} holds no row that a report can be made of{reasons}")
    return Rows(by_method=_methods(fine), failed=failed, left_out=left_out, problems=problems)


def _checked(line: bytes) -> Json:
    if not line.endswith(b"\n"):
        raise ValueError("not finished; it may be being written, and sgi2v benchmark will write it again")
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("not JSON; repair or delete it") from None
    if not isinstance(row, dict) or row.get("format") != FORMAT:
        raise ValueError("not a row of sgi2v benchmark, or one from before its rows had a version; measure it again")
    if row.get("version") != VERSION:
        raise ValueError(f"a row of version {row.get('version')!r}, not {VERSION}; measure it again")
    if "left_out" in row and "key" in row:
        return row
    needed = ("key", "case", "method") if "error" in row else _NEEDED
    missing = [name for name in needed if name not in row]
    if missing or not isinstance(row.get("metrics", {}), dict):
        raise ValueError(f"a damaged row ({', '.join(missing) or 'metrics'}); delete it, to have it made again")
    return row


def _of_one_kind(rows: list[Json], file: Path, problems: list[str]) -> list[Json]:
    """The rows that were measured as most were: figures of other sizes, trackers or models are not to be averaged."""
    for what, of in (
        ("of another size", lambda row: row["size"]),
        (
            "measured by another tracker or an older version",
            lambda row: [row.get("tracker"), row.get("measures")],
        ),
        ("of another model", lambda row: row.get("backbone", {}).get("weights_sha256")),
    ):
        kinds = [json.dumps(of(row), sort_keys=True) for row in rows]
        # Rows without a model go with every model.
        counts = Counter(kind for kind in kinds if kind != "null")
        if len(counts) < 2:
            continue
        most = counts.most_common(1)[0][0]
        problems.append(f"{file}: {len(kinds) - counts[most] - kinds.count('null')} rows {what} are not used")
        rows = [row for row, kind in zip(rows, kinds, strict=True) if kind in (most, "null")]
    return rows


def _methods(rows: Sequence[Json]) -> dict[str, dict[str, list[Json]]]:
    """Rows by method and case; a label that was used for different fields gets a number for each."""
    found: dict[str, dict[str, list[Json]]] = {}
    seen: dict[str, list[str]] = {}
    for row in rows:
        sampling = {k: v for k, v in row.get("sampling", {}).items() if k != "seed"}
        settings = row.get("backbone", {}).get("settings")
        fields = json.dumps([row.get("controller"), row.get("without_model"), sampling, settings], sort_keys=True)
        kinds = seen.setdefault(row["method"], [])
        if fields not in kinds:
            kinds.append(fields)
        number = kinds.index(fields) + 1
        label = row["method"] if number == 1 else f"{row['method']} ({number})"
        same = found.setdefault(label, {}).setdefault(row["case"], [])
        # The same seed twice: something that is in no column differs; the later row counts.
        same[:] = [other for other in same if other.get("seed") != row.get("seed")] + [dict(row)]
    return found

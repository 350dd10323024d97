"""Reads the log of a training that was killed and went on as that of one run."""

from pathlib import Path
from typing import Any

from sgi2v.evaluation.rows import read_rows


def history(file: Path) -> list[dict[str, Any]]:
    """The lines of a log as one run: what was done again after a kill counts as it was done the last time."""
    rows: list[dict[str, Any]] = []
    for row in read_rows(file):
        while rows and rows[-1]["step"] > row["step"]:
            rows.pop()
        if rows and rows[-1]["step"] == row["step"] and rows[-1].keys() == row.keys():
            rows.pop()
        rows.append(row)
    return rows

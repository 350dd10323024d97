"""A study's committed rows: packed and unpacked, nothing is lost, added twice, or shipped that is not asked for."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from sgi2v.evaluation.rows import append_row, read_rows


@pytest.fixture
def shipped(experiment: Callable[[str], ModuleType]) -> ModuleType:
    """experiments/shipped.py."""
    return experiment("shipped")


def test_only_the_last_rows_of_the_named_keys_are_packed(shipped: ModuleType, tmp_path: Path) -> None:
    rows, packed, elsewhere = (
        tmp_path / "rows.jsonl",
        tmp_path / "rows.jsonl.xz",
        tmp_path / "new" / "rows.jsonl",
    )
    for key, value in (("a", 1), ("b", 2), ("a", 3), ("c", 4)):
        append_row(rows, {"key": key, "value": value})
    shipped.pack(["c", "a"], rows, packed)
    shipped.unpack(packed, elsewhere)
    assert read_rows(elsewhere) == [{"key": "c", "value": 4}, {"key": "a", "value": 3}]


def test_unpacking_adds_what_is_missing_and_nothing_else(shipped: ModuleType, tmp_path: Path) -> None:
    rows, packed = tmp_path / "rows.jsonl", tmp_path / "rows.jsonl.xz"
    shipped.unpack(packed, rows)
    assert not rows.exists()
    for key in "ab":
        append_row(rows, {"key": key, "of": "here"})
    shipped.pack("ab", rows, packed)
    rows.write_text(json.dumps({"key": "b", "of": "there"}) + "\n" + '{"key": "to')  # torn by a kill
    for _ in range(2):
        shipped.unpack(packed, rows)
        assert read_rows(rows) == [{"key": "b", "of": "there"}, {"key": "a", "of": "here"}]

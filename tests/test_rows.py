"""Rows of measurements survive being cut off anywhere."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgi2v.evaluation.rows import append_row, read_rows, row_key

rows = st.lists(
    st.dictionaries(st.text(), st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False)),
    max_size=4,
)


@given(rows, st.integers(0, 200))
def test_a_file_cut_anywhere_loses_only_its_last_row(written: list[dict[str, object]], cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "new" / "rows.jsonl"
        for row in written:
            append_row(path, row)
        assert read_rows(path) == written
        if not written:
            return
        whole = path.read_bytes()
        kept = whole[: max(0, len(whole) - cut)]
        path.write_bytes(kept)
        num_whole = kept.count(b"\n")
        assert read_rows(path) == written[:num_whole]
        append_row(path, {"again": 1})
        assert read_rows(path) == [*written[:num_whole], {"again": 1}]


def test_damage_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n{"b": \n{"c": 3}\n')
    with pytest.raises(ValueError, match="line 2"):
        read_rows(path)


def test_no_file_is_no_row_and_keys_ignore_order(tmp_path: Path) -> None:
    assert read_rows(tmp_path / "absent.jsonl") == []
    assert row_key({"a": 1, "b": 2}) == row_key({"b": 2, "a": 1}) != row_key({"a": 1, "b": 3})

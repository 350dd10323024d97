"""A study's committed rows and features: packed and unpacked, nothing is lost, added twice, or shipped unasked."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from sgi2v.evaluation.rows import append_row, read_rows
from sgi2v.evaluation.store import Store


@pytest.fixture
def shipped(experiment: Callable[[str], ModuleType]) -> ModuleType:
    """The module experiments/study/shipped.py."""
    return experiment("study.shipped")


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


def test_features_go_where_their_clips_do_not(shipped: ModuleType, tmp_path: Path) -> None:
    here, there = (Store(rows=tmp_path / name / "rows.jsonl") for name in ("here", "there"))
    packed = tmp_path / "features.npz.xz"
    shipped.unpack_features(packed, there, "seen")
    shipped.pack_features([{"clip": "lost"}], here, "seen", packed)
    assert not packed.exists(), "nothing is known, so nothing is written"
    seen = np.random.default_rng(0).standard_normal((3, 1, 5)).astype(np.float32)
    for name, features in zip("abc", seen, strict=True):
        here.save_features(name, "seen", features)
    there.save_features("a", "seen", seen[2])
    shipped.pack_features([{"clip": name} for name in ("a", "b", "lost")], here, "seen", packed)
    shipped.unpack_features(packed, there, "seen")
    found = [there.load_features(name, "seen") for name in "abc"]
    assert found[2] is None and found[0] is not None and found[1] is not None
    assert (found[0] == seen[2]).all() and (found[1] == seen[1]).all(), "what was there stays; the rest is exact"

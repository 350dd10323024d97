"""Whatever is written appears whole or not at all, and what stood there before survives a failure."""

from pathlib import Path

import pytest

from sgi2v.writing import check_place, write_files, writing


def test_the_new_replaces_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with writing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.suffix == path.suffix  # some writers go by it
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_the_new_replaces_the_old_folder(tmp_path: Path) -> None:
    path = tmp_path / "frames"
    path.mkdir()
    (path / "old").write_text("")
    with writing(path) as temporary:
        temporary.mkdir()
        (temporary / "new").write_text("")
    assert [p.name for p in path.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("bug"), ValueError("no"), MemoryError()])
def test_an_error_passes_and_leaves_the_old(error: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(error)) as caught, writing(path) as temporary:
        temporary.write_text("half")
        raise error
    assert caught.value is error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_the_system_refuses_is_the_persons_to_mend(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match=r"output: cannot write .*a\.txt: No space left"),
        writing(tmp_path / "a.txt"),
    ):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_trying_a_place_leaves_nothing(tmp_path: Path) -> None:
    check_place(tmp_path / "a" / "b" / "c.mp4")
    assert list(tmp_path.iterdir()) == []


def test_no_place_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="which is a file, not a folder"):
        check_place(tmp_path / "file" / "a" / "c.mp4")


def test_folders_made_for_what_could_not_be_written_go_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a full disk: only those that were not there, and only empty ones."""
    (tmp_path / "there").mkdir()
    with (
        pytest.raises(ValueError, match="No space left"),
        writing(tmp_path / "there" / "new" / "deep" / "a.txt") as one,
    ):
        one.write_text("half")
        raise OSError(28, "No space left on device")
    assert [p.name for p in tmp_path.rglob("*")] == ["there"]
    whole = Path.write_bytes
    with monkeypatch.context() as patch, pytest.raises(ValueError, match="No space left"):
        patch.setattr(Path, "write_bytes", lambda path, data: whole(path, data) if data == b"1" else full())
        write_files(tmp_path / "b" / "c", {"x": b"2", "y": b"1"})
    assert [p.name for p in tmp_path.rglob("*")] == ["there"]
    write_files(tmp_path / "b" / "c", {"x": b"1"})
    assert (tmp_path / "b" / "c" / "x").read_bytes() == b"1"


def full() -> int:
    raise OSError(28, "No space left on device")

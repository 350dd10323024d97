"""Recordings of other people's pipelines are met; tests/recordings.py says how, and runs by itself too."""

from pathlib import Path

import pytest

from recordings import answer, recordings_in

SHARED = Path(__file__).parents[2] / "shared" / "golden" / "dit"
FILES = recordings_in(SHARED) if SHARED.is_dir() else []


def test_the_recordings_are_there() -> None:
    if not FILES:
        pytest.skip("the folder shared/ with recordings of other pipelines is not beside this checkout")
    assert len({file.parent for file in FILES}) > 1


@pytest.mark.long
@pytest.mark.parametrize("file", FILES, ids=[f"{file.parent.name}-{file.stem}" for file in FILES])
def test_a_recording_is_met(file: Path) -> None:
    met, line = answer(file)
    if met is None:
        pytest.skip(line)
    assert met, line

"""Programs that the pages in docs/ tell people to run: they run as they stand there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]


def programs(page: str) -> list[str]:
    """The Python programs of a page, in its order."""
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / page).read_text(), re.DOTALL | re.MULTILINE)


def run(program: str, folder: Path, *path: Path) -> "subprocess.CompletedProcess[str]":
    """Runs it in a folder as a file of its own."""
    (folder / "program.py").write_text(program, encoding="utf-8")
    known = os.pathsep.join(str(p) for p in (*path, ROOT / "src"))
    return subprocess.run(
        [sys.executable, "program.py"], cwd=folder, env={**os.environ, "PYTHONPATH": known}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip


@pytest.mark.long
def test_a_method_in_ten_lines_makes_a_video(tmp_path: Path) -> None:
    (program,) = programs("write_a_method.md")
    done = run(program, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "lean.mp4" and (tmp_path / "lean.mp4").stat().st_size > 1000


def test_the_suite_is_pointed_at_a_model_as_the_page_says(tmp_path: Path) -> None:
    """Collected only: tests/test_contract.py runs the same suite."""
    (program,) = programs("backbones.md")
    (tmp_path / "test_mine.py").write_text(program, encoding="utf-8")
    known = os.pathsep.join(str(p) for p in (ROOT / "tests", ROOT / "src"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "test_mine.py"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": known}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_none_is_plain_sampling_to_the_last_bit" in done.stdout
    assert "test_cancelling_leaves_nothing[sg-i2v]" in done.stdout


def test_a_sentence_is_said_from_python_as_the_page_says(tmp_path: Path) -> None:
    _, program = programs("say.md")
    Image.new("RGB", (400, 300), "teal").save(tmp_path / "photo.jpg")
    done = run(f"{program}\nprint(len(scene.motions), scene.fit)\n", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["['--drag cup: 120,120,240,240 -> 260,180 scale 1.5']", "1 aspect"]

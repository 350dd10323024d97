"""README: sentences of bearable length, commands that name what there is, a program that works on a photo."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sgi2v.cli import COMMANDS
from test_pages import ROOT, run

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
MOST_WORDS = 35


def sentences(text: str) -> list[str]:
    """The sentences of a page: code left out, of links their words; each cell, heading and item begins a new one."""
    text = re.sub(r"^```.*?^```$", "\n", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"<[^>]+>", " ", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    parts = re.split(r"\n\s*\n|^\s*[-*#]+ |^\s*\|.*?$|\|", text, flags=re.MULTILINE)
    cells = re.findall(r"^\s*\|(.*)\|\s*$", text, flags=re.MULTILINE)
    parts += [cell for line in cells for cell in line.split("|")]
    found = [one for part in parts for one in re.split(r"(?<=[.!?])[*)\"]*\s+(?=[A-Z`*(\[\d])", part)]
    return [" ".join(one.split()) for one in found if one.strip()]


def test_the_counter_counts() -> None:
    text = "# A b\n\nOne [two three](x y) four. Five `six`!\n\n| a | b c. D |\n```sh\nno no\n```\n- seven\n- eight"
    assert sentences(text) == ["A b", "One two three four.", "Five `six`!", "seven", "eight", "a", "b c.", "D"]


def test_no_sentence_is_too_long() -> None:
    long = [f"{len(one.split())}: {one}" for one in sentences(TEXT) if len(one.split()) > MOST_WORDS]
    assert not long, "\n".join(long)


def test_every_command_in_it_is_one() -> None:
    blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE))
    named = re.findall(r"^(?:\.venv/bin/)?sgi2v +([a-z]+)", blocks, re.MULTILINE)
    assert len(named) > 10 and set(named) <= set(COMMANDS)


@pytest.mark.long
def test_its_program_works_on_a_photo(tmp_path: Path) -> None:
    """As it stands there, on a photo of a camera's shape, in a folder where it is called photo.jpg."""
    program, method, *_ = re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    colours = np.random.default_rng(0).integers(0, 255, (6, 9, 3), dtype=np.uint8)
    Image.fromarray(colours).resize((800, 480)).save(tmp_path / "photo.jpg")
    done = run(program, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "photo.mp4").stat().st_size > 1000
    # The second goes on from the first: its names are there, and its plan has nothing to say.
    head = program[: program.index("video = ")].replace("import ", "import load_backbone, plan, recommended, ", 1)
    body = method[: method.index("video = ")] + "print(plan(scene, backbone.outline, controller=method).warnings)\n"
    done = run(f"{head}\n{body}", tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, "()"), done.stderr

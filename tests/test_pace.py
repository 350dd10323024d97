"""Earlier runs' speed gives the first estimate of the next; what is damaged or cannot be written is as if not there."""

import dataclasses
import json
from pathlib import Path

import pytest

from sgi2v import Progress, Sampling, Scene, generate
from sgi2v.controllers import Controller
from sgi2v.pace import keep_pace, pace_of
from test_default_method import SCENE
from tiny import load_svd, tiny_svd

SIZE = Sampling(width=48, height=32, num_frames=3, num_steps=3)


def said(scene: Scene, sampling: Sampling) -> list[Progress]:
    found: list[Progress] = []
    generate(
        scene, backbone=load_svd(tiny_svd(3, light=True)), controller=Controller(), sampling=sampling,
        progress=found.append,
    )  # fmt: skip
    return [one for one in found if one.phase == "sample"]


def test_the_second_run_knows_at_its_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = said(SCENE, SIZE)
    assert first[0].seconds_left is None and all(one.seconds_left is not None for one in first[1:])
    (file,) = (tmp_path / "sgi2v").glob("paces.json")
    assert said(SCENE, SIZE)[0].seconds_left is not None
    # Twice the pixels, twice as long; seconds in the file are those of a pixel and step.
    key = next(iter(json.loads(file.read_text())))
    keep_pace(key, 1.0)
    small = said(SCENE, SIZE)[0].seconds_left
    keep_pace(key, 1.0)
    large = said(SCENE, dataclasses.replace(SIZE, height=64))[0].seconds_left
    assert (
        small is not None
        and small == pytest.approx(3 * 48 * 32 * 3, rel=1e-3)
        and large == pytest.approx(2 * small, rel=1e-3)
    )


def test_nothing_comes_of_a_file_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = tmp_path / "sgi2v" / "paces.json"
    file.parent.mkdir()
    for text in ("", "[1]", '{"a": "x"}', '{"a": -1.0}', "{", "[" * 100_000):
        file.write_text(text)
        assert pace_of("a") is None
    keep_pace("a", 2.0)
    assert pace_of("a") == 2.0
    for number in range(250):
        keep_pace(str(number), 1.5)
    assert pace_of("a") is None and pace_of("249") == 1.5 and pace_of("50") == 1.5
    (tmp_path / "flat").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "flat"))
    keep_pace("a", 2.0)
    assert pace_of("a") is None

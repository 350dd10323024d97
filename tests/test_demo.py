"""The demonstration on a tiny model: both clips, what is drawn over them, and the figures beside them."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from sgi2v import SGI2V, Range, Sampling, load_scene
from sgi2v.cli import main
from sgi2v.demo import TITLES, make_demo, shipped_scene
from sgi2v.evaluation.tracker import TemplateTracker
from sgi2v.pipeline import Progress
from sgi2v.video import load_video
from tiny import load_svd, tiny_svd


def test_a_demonstration() -> None:
    backbone = load_svd(tiny_svd(3, light=True), device="cpu", dtype="float32")
    scene = load_scene(shipped_scene("rocket"))
    told: dict[str, list[Progress]] = {title: [] for title in TITLES}
    demo = make_demo(
        scene,
        backbone=backbone,
        tracker=TemplateTracker(),
        sampling=Sampling(width=96, height=64, num_frames=3, num_steps=3),
        controller=SGI2V(guided=Range(low=1.0, high=400.0), iterations=1),
        progress=lambda title: told[title].append,
    )
    assert demo.plain.frames.shape == demo.controlled.frames.shape == (3, 3, 64, 96)
    assert not torch.equal(demo.plain.frames, demo.controlled.frames)
    assert demo.plain.run is not None and demo.plain.run["controller"]["name"] == "none"
    assert demo.controlled.run is not None and demo.controlled.run["controller"]["name"] == "sg-i2v"
    # Four times as large, two beside each other, a title above.
    assert demo.side_by_side.frames.shape[-1] >= 2 * 4 * 96
    assert demo.side_by_side.frames.shape[-2] > 4 * 64
    assert demo.sheet.size == (demo.side_by_side.frames.shape[-1], 3 * demo.side_by_side.frames.shape[-2])
    for error in demo.errors:
        assert error is not None
        assert len(error.objmc) == 1  # the pinned masts are not among what moves
        assert np.isfinite(error.scene) and error.diagonal == pytest.approx(np.hypot(96, 64))
    assert all(seen[0].phase == "encode" and seen[-1].phase == "decode" for seen in told.values())


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "model"
    folder.symlink_to(tiny_svd(3, light=True), target_is_directory=True)
    own = tmp_path / "own"
    own.mkdir()
    for part in folder.iterdir():
        (own / part.name).symlink_to(part, target_is_directory=part.is_dir())
    (own / "sgi2v.json").write_text(
        '{"width": 64, "height": 64, "num_frames": 3, "num_steps": 3,'
        ' "recommended": {"sg-i2v": {"guided": [1.0, 400.0], "iterations": 1}}}'
    )
    out = tmp_path / "out"
    assert main(["demo", "--backbone", str(own), "--output", str(out), "--scene", "cat", "--quiet"]) == 0
    names = ["demo.mp4", "no_control.mp4", "side_by_side.mp4", "sheet.png"]
    printed = capsys.readouterr().out.splitlines()
    assert printed[:4] == [str(out / name) for name in names]
    assert "pixels of 64x64" in printed[4]
    assert all(
        title in line and re.search(r"at the end .*; still there \d+%$", line)
        for title, line in zip(TITLES, printed[5:], strict=True)
    )
    assert sorted(p.name for p in out.iterdir()) == sorted(names)
    assert load_video(out / "demo.mp4").frames.shape == (3, 3, 64, 64)

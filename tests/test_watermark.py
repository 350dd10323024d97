"""The mark in the pixels: unseen, steady, found after re-encoding, and not found where it is not."""

import importlib
import math
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import UInt8

from sgi2v.images import load_image
from sgi2v.provenance import watermark
from sgi2v.provenance.verify import verify
from sgi2v.provenance.watermark import find, marked
from sgi2v.video import Video, from_uint8, load_video, to_uint8

ROOT = Path(__file__).parents[1]
SCENES = ROOT / "src/sgi2v/assets/scenes"
sys.path.insert(0, str(ROOT))  # benchmarks/ is no part of the package
measured = importlib.import_module("benchmarks.watermark")
sys.path.remove(str(ROOT))


def moving(name: str = "cat", width: int = 320, height: int = 192, num: int = 6) -> UInt8[np.ndarray, "f h w 3"]:
    folder = SCENES / name
    picture = next(file for file in sorted(folder.iterdir()) if file.suffix in (".png", ".jpg", ".jpeg", ".webp"))
    clip: UInt8[np.ndarray, "f h w 3"] = measured.panned(np.asarray(load_image(picture)), width, height, num, 0)
    return clip


@pytest.mark.parametrize("name", ["cat", "coffee"])
def test_it_is_unseen_and_steady(name: str) -> None:
    before = moving(name)
    after = marked(before)
    assert measured.psnr(before, after) >= 42
    added = after.astype(float) - before
    inside = (before > 12).all(axis=(0, 3)) & (before < 243).all(axis=(0, 3))  # nothing was cut off there
    assert inside.mean() > 0.3
    assert np.abs(added - added[:1])[:, inside].max() == 0  # the same in every frame: nothing flickers
    assert np.abs(added).max() <= 12


@pytest.mark.parametrize("edit", measured.EDITS)
def test_it_is_found_after_edits(edit: str) -> None:
    before = moving()
    for pixels, expected in ((marked(before), True), (before, False)):
        found = find(list(measured.EDITS[edit](pixels)))
        assert found.is_marked is expected, found
        assert (found.share > 0) is expected


def test_it_is_found_in_one_frame_of_each_size() -> None:
    for width, height in measured.SIZES:
        after = measured.h264(marked(moving("coffee", width, height, 2)), 23)
        found = find([after[1]])
        assert found.is_marked and found.share == 1 and found.scale == pytest.approx(1, abs=0.006), (width, found)


def test_a_crop_is_told_by_scale_and_shift() -> None:
    after = measured.cropped(marked(moving()), 0.05)
    found = find(list(after))
    assert found.scale == pytest.approx(math.sqrt(320 * 192 / (after.shape[1] * after.shape[2])), rel=0.006)
    cells = 256 / math.sqrt(after.shape[1] * after.shape[2])
    assert found.shift == pytest.approx((-8 * cells, -4 * cells), abs=1)  # half of what was cut off, to the left and up


def test_it_is_not_found_in_unmarked_pictures() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = (torch.rand(5, 192, 320, 3, generator=generator) * 255).to(torch.uint8).numpy()
    flat = np.full((3, 192, 320, 3), (0, 128, 255)[0], np.uint8)
    lines = np.zeros((1, 192, 320, 3), np.uint8)
    lines[:, ::8] = lines[:, :, ::6] = 255
    for pixels in (*noise[:, None], flat, lines, moving("rocket"), moving("galaxies")):
        assert not find(list(pixels)).is_marked


def test_two_marks_do_not_hide_each_other() -> None:
    assert find(list(marked(marked(moving())))).is_marked


@given(st.integers(1, 10**9), st.floats(1e-9, 0.5))
def test_the_threshold_is_the_bound_of_all_places(places: int, share: float) -> None:
    limit = watermark.threshold(places, share)
    assert places * math.exp(-limit * limit / 2) == pytest.approx(share)


@pytest.mark.parametrize(("width", "height"), [(320, 192), (256, 256), (2048, 128), (100, 1500)])
def test_the_bound_counts_every_place_that_is_looked_at(width: int, height: int) -> None:
    frame = watermark._reduced(np.zeros((height, width, 3), np.uint8))
    rows, columns = (len(watermark._moves(side, watermark._REACH)) for side in frame.shape)
    assert rows * columns <= watermark._MOST_MOVES


def test_scores_are_those_of_independent_phases() -> None:
    """Of pictures without the pattern, scores over moves have the mean 0 and the spread 1 that the bound rests on."""
    scores = []
    for seed in range(12):
        picture = np.random.default_rng(seed).normal(size=(198, 330)).cumsum(axis=0).cumsum(axis=1)
        phases = watermark._phases(np.asarray(picture / np.abs(picture).max() * 255, np.float32))
        scores.append(watermark._agreement(phases, 198, 330, 1.0)[:20, :20].ravel())
    assert abs(np.mean(scores)) < 0.1 and 0.9 < np.std(scores) < 1.1


def test_agreement_is_the_sum_of_cosines_that_it_stands_for() -> None:
    """The slow twin: every frequency of the band by itself, for a few moves."""
    rows, columns, scale = 40, 60, 1.05
    picture = np.random.default_rng(3).uniform(0, 255, (rows, columns)).astype(np.float32)
    phases = watermark._phases(picture)
    fast = watermark._agreement(phases, rows, columns, scale)
    pattern = np.fft.fft2(watermark._laid(rows, columns, scale))
    whole = np.zeros((rows, columns), complex)
    whole[:, : columns // 2 + 1] = phases
    for down, right in ((0, 0), (3, 5), (rows - 2, 1), (7, columns - 4)):
        terms = []
        for row, column in product(range(rows), range(1, columns // 2)):
            v, u = (row if row <= rows // 2 else row - rows) / rows, column / columns
            if 1 / (12 * scale) <= math.hypot(v, u) <= 1 / (4 * scale):
                turn = 2 * math.pi * (v * down + u * right)
                terms.append(math.cos(np.angle(whole[row, column]) - np.angle(pattern[row, column]) + turn))
        for row in range(1, rows // 2):  # of the first column one of each pair
            if 1 / (12 * scale) <= row / rows <= 1 / (4 * scale):
                turn = 2 * math.pi * row / rows * down
                terms.append(math.cos(np.angle(whole[row, 0]) - np.angle(pattern[row, 0]) + turn))
        assert fast[down, right] == pytest.approx(sum(terms) / math.sqrt(len(terms) / 2), abs=1e-3)


def test_the_pattern_is_the_same_everywhere() -> None:
    pattern = watermark._pattern()
    assert pattern.shape == (512, 512) and pattern.std() == pytest.approx(1) and abs(pattern.mean()) < 1e-6
    assert pattern[:2, :3].ravel() == pytest.approx(PATTERN, abs=1e-4)


PATTERN = (0.15625, -0.38832, -0.68362, -0.92446, -0.4192, 0.24407)


def test_frames_and_folders_are_never_marked(tmp_path: Path) -> None:
    before = moving(num=2)
    video = Video(frames=from_uint8(before))
    for name in ("a.mp4", "a.gif", "frames"):
        video.save(tmp_path / name)
        assert np.array_equal(to_uint8(video.frames), before)
    assert np.array_equal(to_uint8(load_video(tmp_path / "frames").frames), before)
    said = {name: verify(tmp_path / name) for name in ("a.mp4", "a.gif", "frames")}
    assert {name: found.mark for name, found in said.items()} == {
        "a.mp4": "found",
        "a.gif": "found",
        "frames": "not found",
    }
    assert said["a.mp4"].says["watermark"] == said["a.gif"].says["watermark"] == watermark.NAME
    again = load_video(tmp_path / "a.gif")  # is marked already
    assert verify(again.save(tmp_path / "b.gif")).says == {"provenance": "off", "watermark": None}


def test_frames_that_are_too_small_are_left_alone(tmp_path: Path) -> None:
    before = moving(width=160, height=96, num=2)
    assert np.array_equal(marked(before), before)
    found = verify(Video(frames=from_uint8(before)).save(tmp_path / "a.mp4"))
    assert found.says == {"provenance": "on", "watermark": None}

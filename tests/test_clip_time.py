"""Frames of any lengths at even times: each shown as long as it was, none lost where there is room."""

from fractions import Fraction
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clips import reds, write_animated, write_clip
from sgi2v.clip_time import evened
from sgi2v.video import Video, check_video, load_video, to_uint8

lengths = st.lists(st.integers(1, 40), min_size=1, max_size=30)


@given(lengths, st.integers(1, 100))
def test_whole_multiples_are_shown_exactly_so_often(many: list[int], unit: int) -> None:
    """With a shortest frame of one unit, and no other nearly as short, each frame is shown its length in units."""
    many = [1, *(max(2, length) for length in many)]
    ends = [Fraction(end * unit, 1000) for end in accumulate(many)]
    shown, rate = evened(ends, 10**9)
    if len(shown) == sum(many):
        assert rate == Fraction(1000, unit)
        assert [shown.count(k) for k in range(len(many))] == many
    else:  # too long for so many frames: still in order, and what is shown is what was there at that time
        assert len(shown) <= max(256, 2 * len(many)) < sum(many) or len(shown) == len(many)


@given(lengths, st.integers(1, 300))
def test_what_is_shown_is_what_was_there(many: list[int], most: int) -> None:
    """The literal twin: at the middle of each even stretch stands the frame whose time it is."""
    ends = [Fraction(end, 1000) for end in accumulate(many)]
    shown, rate = evened(ends, most)
    whole = ends[-1]
    assert rate * whole == len(shown) and len(shown) <= max(len(many), min(max(256, 2 * len(many)), most))
    if shown == list(range(len(many))):
        return
    for k, frame in enumerate(shown):
        middle = (k + Fraction(1, 2)) * whole / len(shown)
        assert frame == next(index for index, end in enumerate(ends) if end > middle)


def test_uneven_stamps_of_an_even_clip_change_nothing() -> None:
    ends = [Fraction(round(1000 * (k + 1) / 30), 1000) for k in range(90)]
    assert evened(ends, 10**9) == (list(range(90)), Fraction(30))


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_a_clip_of_variable_rate_goes_by_its_stamps(suffix: str, tmp_path: Path) -> None:
    codec = "libvpx-vp9" if suffix == ".webm" else "libx264"
    path = write_clip(tmp_path / f"a{suffix}", reds(5, step=40), stamps=[0, 100, 200, 600, 700], codec=codec)
    clip = load_video(path)
    check_video(path)
    shown = (to_uint8(clip.frames)[:, 4:-4, 4:-4, 0].mean((1, 2)) / 40).round().tolist()
    assert shown == [1, 2, 3, 3, 3, 3, 4, 5] and clip.fps == pytest.approx(10, rel=0.01)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".apng", ".avif"])
def test_an_animation_goes_by_its_lengths(suffix: str, tmp_path: Path) -> None:
    path = write_animated(tmp_path / f"a{suffix}", reds(4, step=60), [100, 300, 100, 200])
    clip = load_video(path)
    check_video(path)
    assert (to_uint8(clip.frames)[..., 0].mean((1, 2)) / 60).round().tolist() == [1, 2, 2, 2, 3, 4, 4]
    assert clip.fps == pytest.approx(10)


@pytest.mark.parametrize("fps", [100.5, 101.0, 120.0, 144.0, 240.0])
@pytest.mark.parametrize("still", [False, True])
def test_a_gif_faster_than_gifs_are_has_as_many_frames_as_were_written(still: bool, fps: float, tmp_path: Path) -> None:
    frames = np.stack(reds(1) * 12 if still else reds(12)).transpose(0, 3, 1, 2)
    import torch

    path = Video(frames=torch.from_numpy(frames).float() / 255, fps=fps).save(tmp_path / "a.gif")
    clip = load_video(path)
    assert len(clip.frames) == 12 and clip.fps == fps

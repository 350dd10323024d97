"""Frames come back from every kind of file as they went in, with their run, and a failure leaves nothing behind."""

import io
import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from sgi2v.video import Video, check_video, check_writable, from_uint8, load_video, read_run, to_uint8
from sgi2v.video_tag import NOTE

RUN = {
    "version": 1,
    "scene": {"image": "data:image/png;base64,AAAA"},
    "seed": 817,
    "scale": [1.5, None],
    "π": "é\n",
}
KINDS = ("clip.mp4", "clip.gif", "frames")


def smooth_clip(num_frames: int, height: int, width: int) -> Tensor:
    """A clip with the smoothness of a photograph, in motion."""
    coarse = torch.rand(num_frames, 3, max(2, height // 16), max(2, width // 16))
    return torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * torch.log10((a - b).square().mean()))


@pytest.mark.parametrize(("kind", "least"), [("clip.mp4", 36.0), ("clip.gif", 20.0), ("frames", 58.0)])
@pytest.mark.parametrize(("height", "width"), [(96, 160), (95, 161)])
def test_round_trip(kind: str, least: float, height: int, width: int, tmp_path: Path) -> None:
    frames = smooth_clip(14, height, width)
    path = Video(frames=frames, fps=7.0, run=RUN).save(tmp_path / kind)
    back = load_video(path)
    assert path == tmp_path / kind
    assert back.frames.shape == frames.shape
    assert back.frames.dtype == torch.float32
    assert psnr(back.frames, frames) > least
    assert abs(float((back.frames - frames).mean())) < 0.004  # a shift in brightness would hide in the PSNR
    assert back.fps == 7.0
    assert back.run == RUN == read_run(path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fps", [1.0, 6.0, 7.0, 12.5, 24.0, 29.97, 60.0])
def test_frame_count_and_rate_are_exact(kind: str, fps: float, tmp_path: Path) -> None:
    still = torch.full((5, 3, 16, 16), 0.5)  # equal neighbours too: gif writers like to join them
    back = load_video(Video(frames=still, fps=fps).save(tmp_path / kind))
    assert len(back.frames) == 5
    assert back.fps == pytest.approx(fps, abs=1e-12)
    assert back.run is None


@pytest.mark.parametrize("kind", KINDS)
def test_one_frame_is_a_clip(kind: str, tmp_path: Path) -> None:
    assert load_video(Video(frames=torch.ones(1, 3, 8, 8)).save(tmp_path / kind)).frames.shape == (1, 3, 8, 8)


@pytest.mark.parametrize("colour", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1), (0, 0, 0), (0.2, 0.7, 0.4)])
def test_mp4_keeps_colours(colour: tuple[float, float, float], tmp_path: Path) -> None:
    frames = torch.tensor(colour, dtype=torch.float32).view(1, 3, 1, 1).expand(2, 3, 32, 32)
    back = load_video(Video(frames=frames).save(tmp_path / "a.mp4")).frames
    assert float((back - frames).abs().max()) < 2.5 / 255


def test_mp4_says_how_its_colours_are_meant(tmp_path: Path) -> None:
    path = Video(frames=smooth_clip(3, 32, 32)).save(tmp_path / "a.mp4")
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.color_primaries, context.color_trc, context.colorspace) == (1, 1, 1)  # BT.709
        assert context.color_range == 1  # limited
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert container.metadata["comment"] == NOTE


def boxes(path: Path) -> list[str]:
    """The names of an mp4's top-level boxes, in order."""
    data, at, names = path.read_bytes(), 0, []
    while at < len(data):
        names.append(data[at + 4 : at + 8].decode("ascii"))
        at += int.from_bytes(data[at : at + 4], "big")
    return names


def test_mp4_starts_to_play_before_it_is_whole(tmp_path: Path) -> None:
    names = boxes(Video(frames=smooth_clip(3, 32, 32), run=RUN).save(tmp_path / "a.mp4"))
    assert names.index("moov") < names.index("mdat")


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_run_survives(kind: str, tmp_path: Path) -> None:
    run = {"image": "data:image/png;base64," + "A+/9" * 750_000, "nested": {"list": [1, 2.5, None, True]}}
    path = Video(frames=smooth_clip(2, 16, 16), run=run).save(tmp_path / kind)
    assert read_run(path) == run == load_video(path).run


@given(
    run=st.dictionaries(
        st.text(max_size=8),
        st.recursive(
            st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(max_size=20),
            lambda inner: st.lists(inner, max_size=3),
            max_leaves=5,
        ),
        max_size=4,
    ),
    kind=st.sampled_from(KINDS),
)  # fmt: skip
def test_any_run_survives(run: dict[str, Any], kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = Video(frames=torch.zeros(1, 3, 4, 4), run=run).save(tmp_path_factory.mktemp("run") / kind)
    assert read_run(path) == run


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_says_that_it_is_generated(kind: str, tmp_path: Path) -> None:
    path = Video(frames=smooth_clip(2, 16, 16)).save(tmp_path / kind)
    file = path / "run.json" if path.is_dir() else path
    assert NOTE.encode() in file.read_bytes()
    if path.is_dir():
        with Image.open(path / "frame_0000.png") as image:
            assert image.info["Comment"] == NOTE


def test_rounding_is_to_the_nearest_and_clips() -> None:
    values = torch.tensor([-0.5, 0.0, 0.4999 / 255, 0.5001 / 255, 254.6 / 255, 1.0, 7.0])
    frames = values.view(7, 1, 1, 1).expand(7, 3, 2, 2)
    assert to_uint8(frames)[:, 0, 0, 0].tolist() == [0, 0, 0, 1, 255, 255, 255]


@given(st.integers(0, 2**32 - 1))
def test_eight_bit_frames_survive_the_float_form(seed: int) -> None:
    frames = np.random.default_rng(seed).integers(0, 256, (2, 3, 5, 3), dtype=np.uint8)
    assert np.array_equal(to_uint8(from_uint8(frames)), frames)


@pytest.mark.parametrize("kind", KINDS)
def test_saving_again_replaces(kind: str, tmp_path: Path) -> None:
    Video(frames=smooth_clip(5, 16, 16), run={"n": 1}).save(tmp_path / kind)
    Video(frames=smooth_clip(2, 16, 16), run={"n": 2}).save(tmp_path / kind)
    back = load_video(tmp_path / kind)
    assert (len(back.frames), back.run) == (2, {"n": 2})
    assert [p.name for p in tmp_path.iterdir()] == [kind]


def test_missing_parents_are_made(tmp_path: Path) -> None:
    assert Video(frames=torch.zeros(1, 3, 4, 4)).save(tmp_path / "a" / "b" / "c.mp4").is_file()


class Interrupting(dict[str, Any]):
    """A run that is interrupted while it is being written."""

    def items(self) -> Any:
        raise KeyboardInterrupt


@contextmanager
def small_files_only(limit: int) -> Iterator[None]:
    """Let every write beyond `limit` bytes of a file fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_write_leaves_nothing(kind: str, tmp_path: Path) -> None:
    video = Video(frames=smooth_clip(3, 32, 32), run=Interrupting(a=1))
    with pytest.raises(KeyboardInterrupt):
        video.save(tmp_path / kind)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_place_leaves_nothing_and_keeps_what_was_there(kind: str, tmp_path: Path) -> None:
    Video(frames=torch.zeros(1, 3, 4, 4), run={"n": 1}).save(tmp_path / kind)
    large = Video(frames=torch.rand(4, 3, 128, 128), run={"n": 2, "image": "A" * 50_000})
    with small_files_only(20_000), pytest.raises(ValueError, match=rf"output: cannot write .*{kind}"):
        large.save(tmp_path / kind)
    assert [p.name for p in tmp_path.iterdir()] == [kind]
    assert read_run(tmp_path / kind) == {"n": 1}


def test_a_full_place_is_found_before_the_work(tmp_path: Path) -> None:
    with small_files_only(20_000), pytest.raises(ValueError, match="output: cannot write"):
        check_writable(tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_no_json_is_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        Video(frames=torch.zeros(1, 3, 4, 4), run={"x": float("nan")}).save(tmp_path / kind)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_frames_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frames: some pixels are NaN"):
        Video(frames=torch.full((1, 3, 4, 4), value)).save(tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_writable_place_is_left_as_it_was(kind: str, tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / kind)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("clip.avi", "end its name in .mp4 or .gif"),
        ("clip.png", "end its name in .mp4 or .gif"),
        ("file/clip.mp4", "is a file, not a folder"),
        ("file", "is a file; name a folder"),
        ("folder.mp4", "is a folder; name a file in it"),
        ("full", "holds other things than frames"),
        ("x" * 300 + ".mp4", "File name too long"),
    ],
)
def test_unwritable_places_are_named(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    for attempt in (check_writable, Video(frames=torch.zeros(1, 3, 4, 4)).save):
        with pytest.raises(ValueError, match=message) as caught:
            attempt(tmp_path / name)
        assert str(caught.value).startswith("output: ")
        assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "full" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("shape", "fps", "field"),
    [((0, 3, 4, 4), 7.0, "frames"), ((1, 3, 0, 4), 7.0, "frames"), ((1, 3, 4, 4), 0.0, "fps"),
     ((1, 3, 4, 4), float("nan"), "fps"), ((1, 3, 4, 4), float("inf"), "fps")],
)  # fmt: skip
def test_what_is_no_clip_is_refused(shape: tuple[int, ...], fps: float, field: str) -> None:
    with pytest.raises(ValueError, match=f"{field}: "):
        Video(frames=torch.zeros(shape), fps=fps)


@pytest.mark.parametrize("name", ["missing.mp4", "missing.gif", "noise.mp4", "noise.gif", "cut.mp4", "empty", "bad"])
def test_unreadable_files_are_named(name: str, tmp_path: Path) -> None:
    for noise in ("noise.mp4", "noise.gif"):
        (tmp_path / noise).write_bytes(b"no video at all" * 100)
    whole = Video(frames=smooth_clip(3, 32, 32)).save(tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: whole.index(b"moov") + 40])
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "frame_0000.png").write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    with pytest.raises(ValueError, match=f"video: .*{name}") as caught:
        load_video(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_file_of_another_program_has_no_run(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.gif", comment=b"made by hand")
    assert load_video(tmp_path / "a.gif").run is None
    with pytest.raises(ValueError, match="carries no sgi2v run"):
        read_run(tmp_path / "a.gif")


def test_a_lying_size_is_refused_before_decoding(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    png = io.BytesIO()
    Image.new("1", (9000, 9000)).save(png, format="PNG")
    (folder / "frame_0000.png").write_bytes(png.getvalue())
    with pytest.raises(ValueError, match="too large: 1 frames of 9000×9000"):
        load_video(folder)


@pytest.mark.parametrize("text", ["[" * 100_000, "null", "[1]", '{"fps": "x", "run": 3}', '{"fps": -1}'])
def test_a_strange_run_file_is_no_run(text: str, tmp_path: Path) -> None:
    path = Video(frames=torch.zeros(2, 3, 4, 4), fps=5.0).save(tmp_path / "frames")
    assert json.loads((path / "run.json").read_text())["fps"] == 5.0
    (path / "run.json").write_text(text)
    back = load_video(path)
    assert (back.fps, back.run) == (7.0, None)


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a"])
def test_a_clip_is_checked_as_it_is_read(name: str, tmp_path: Path) -> None:
    path = Video(frames=smooth_clip(30, 32, 48)).save(tmp_path / name)
    check_video(path)
    with pytest.raises(ValueError, match="too large: 30 frames of 48×32") as refused:
        check_video(path, max_pixels=30 * 48 * 32 - 1)
    with pytest.raises(ValueError, match="too large") as read:
        load_video(path, max_pixels=30 * 48 * 32 - 1)
    assert str(refused.value).partition(":")[0] == str(read.value).partition(":")[0]
    with pytest.raises(ValueError, match=r"video: .*missing"):
        check_video(tmp_path / f"missing{path.suffix}")
    # The last thing that is written is lost: an end that is not there is seen without decoding the whole.
    last = sorted(path.glob("*.png"))[-1] if path.is_dir() else path
    whole = last.read_bytes()
    last.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(ValueError, match="video: "):
        check_video(path)
    if path.suffix != ".mp4":  # of that, what is there is read
        with pytest.raises(ValueError, match="video: "):
            load_video(path)


def test_what_is_no_video_is_said_before_it_is_needed(tmp_path: Path) -> None:
    (tmp_path / "noise.mp4").write_bytes(b"no video at all" * 100)
    (tmp_path / "empty").mkdir()
    folder = Video(frames=smooth_clip(2, 32, 48)).save(tmp_path / "two")
    Image.new("RGB", (8, 8)).save(folder / "frame_0001.png")
    for name, said in (("noise.mp4", "cannot read"), ("empty", "no frames"), ("two", "another size")):
        with pytest.raises(ValueError, match=said):
            check_video(tmp_path / name)

"""Clips of known colours come back as these, whatever matrix, range, transfer and rotation they are written in."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from clips import COLOURS, LUMA, columns, write_clip
from sgi2v.clip_colour import to_sdr
from sgi2v.reference import load_reference
from sgi2v.video import check_video, load_video, to_uint8


def off(path: Path) -> float:
    """Largest difference of a column's mean from its colour, of 255."""
    pixels = to_uint8(load_video(path).frames)[0]
    side = pixels.shape[1] // len(COLOURS)
    means = [pixels[4:-4, k * side + 4 : (k + 1) * side - 4].mean((0, 1)) for k in range(len(COLOURS))]
    return float(np.abs(np.array(means) - COLOURS).max())


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", sorted(LUMA))
def test_a_tagged_clip_is_read_by_its_tags(matrix: int, full: bool, suffix: str, tmp_path: Path) -> None:
    tags = (matrix, 2 if full else 1, matrix if matrix != 5 else 6, matrix)
    path = write_clip(tmp_path / f"a{suffix}", [columns(96)] * 2, matrix=matrix, full=full, tags=tags)
    assert off(path) < 4
    frame = np.asarray(load_reference(path).frames[0])
    assert np.array_equal(frame, to_uint8(load_video(path).frames)[0])


@pytest.mark.parametrize(("height", "matrix"), [(96, 6), (718, 6), (720, 1), (1080, 1)])
def test_an_untagged_clip_is_of_601_below_720_lines_and_of_709_from_there(
    height: int, matrix: int, tmp_path: Path
) -> None:
    assert off(write_clip(tmp_path / "a.mp4", [columns(height)], matrix=matrix)) < 4
    other = 1 if matrix == 6 else 6
    assert off(write_clip(tmp_path / "b.mp4", [columns(height)], matrix=other)) > 15, "the test can fail"


def test_primaries_alone_say_the_matrix_and_the_range_is_read_by_itself(tmp_path: Path) -> None:
    assert off(write_clip(tmp_path / "a.mp4", [columns(96)], matrix=1, tags=(2, 1, 2, 1))) < 4
    assert off(write_clip(tmp_path / "b.mp4", [columns(96)], matrix=6, full=True, tags=(2, 2, 2, 2))) < 4


@pytest.mark.parametrize(("codec", "suffix"), [("mjpeg", ".avi"), ("mpeg4", ".avi"), ("libvpx-vp9", ".webm")])
def test_other_codecs_are_read_as_they_mean_it(codec: str, suffix: str, tmp_path: Path) -> None:
    path = write_clip(tmp_path / f"a{suffix}", [columns(96)] * 2, full=codec == "mjpeg", codec=codec)
    assert off(path) < 8


def test_a_matrix_that_is_not_read_is_said_in_a_line(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", [columns(96)], tags=(8, 1, 1, 1))
    with pytest.raises(ValueError, match=r"video: cannot read .*a\.mp4: its colours are given by matrix 8") as caught:
        load_video(path)
    assert "\n" not in str(caught.value)


def moved(picture: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """Each pixel (x, y) at (a x + c y, b x + d y), literally, the least of both being 0."""
    a, b, c, d = matrix
    height, width = picture.shape[:2]
    places = {(a * x + c * y, b * x + d * y): picture[y, x] for y in range(height) for x in range(width)}
    left, top = (min(place[k] for place in places) for k in range(2))
    right, bottom = (max(place[k] for place in places) for k in range(2))
    return np.array([[places[x, y] for x in range(left, right + 1)] for y in range(top, bottom + 1)])


@pytest.mark.parametrize(
    "matrix", [(a, 0, 0, d) for a in (1, -1) for d in (1, -1)] + [(0, b, c, 0) for b in (1, -1) for c in (1, -1)]
)
def test_a_clip_is_read_upright(matrix: tuple[int, int, int, int], tmp_path: Path) -> None:
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:, :48, 0], picture[:32, :, 1] = 200, 200
    a, b, c, d = (v << 16 for v in matrix)
    path = write_clip(tmp_path / "a.mp4", [picture] * 2, turned=(a, b, 0, c, d, 0, 0, 0, 1 << 30))
    wanted = moved(picture, matrix)
    read = to_uint8(load_video(path).frames)[0]
    check_video(path)
    assert read.shape == wanted.shape
    assert np.abs(read[8:-8:16, 8:-8:16].astype(int) - wanted[8:-8:16, 8:-8:16]).max() < 8


def test_a_phone_held_upright_films_upright(tmp_path: Path) -> None:
    """-90 is FFmpeg's word for a quarter clockwise; an angle that is none goes to the nearest."""
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:, :48, 0] = 200
    for angle in (-90, -93):
        with av.open(str(write_clip(tmp_path / "a.mp4", [picture], angle=angle))) as container:
            assert next(container.decode(video=0)).rotation == pytest.approx(angle, abs=1)
        read = to_uint8(load_video(tmp_path / "a.mp4").frames)[0]
        assert read.shape == (96, 64, 3) and read[:40, :, 0].min() > 190 and read[56:, :, 0].max() < 10


def test_pixels_become_square(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", [columns(96)], shape=Fraction(3, 2))
    assert load_video(path).frames.shape[-2:] == (96, 240) and off(path) < 4
    with pytest.raises(ValueError, match="too large: 1 frames of 240×96"):
        check_video(path, max_pixels=96 * 239)


def literally(code: float, transfer: int) -> float:
    """Light of a grey signal in candelas a square metre: ITU-R BT.2100, formula by formula."""
    if transfer == 16:
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 4096 * 128, 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
        root = code ** (1 / m2)
        return float(10000 * (max(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1))
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = code**2 / 3 if code <= 0.5 else (np.exp((code - c) / a) + b) / 12
    return float(1000 * scene**1.2)


@pytest.mark.parametrize("transfer", [16, 18])
def test_hdr_becomes_what_a_screen_shows(transfer: int) -> None:
    codes = np.linspace(0, 1, 101)
    shown = to_sdr(codes[:, None].repeat(3, 1), transfer, 9)
    assert np.ptp(shown, axis=1).max() < 1e-4, "grey stays grey"
    assert (np.diff(shown[:, 0]) >= 0).all() and shown.min() == 0 and shown.max() <= 1
    for code, value in zip(codes, shown[:, 0], strict=True):
        white = literally(float(code), transfer) / 203
        if white < 0.8:
            back = value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
            assert back == pytest.approx(white, abs=2e-4)


def test_linear_light_is_encoded_and_wide_colours_are_brought_to_709() -> None:
    assert to_sdr(np.array([[0.2140, 0.2140, 0.2140]]), 8, 1)[0, 0] == pytest.approx(0.5, abs=1e-3)
    pure = np.array([[0.6274, 0.0691, 0.0164]])  # BT.709's red, as BT.2020 has it
    assert to_sdr(0.5 * pure, 8, 9)[0] == pytest.approx([0.7354, 0, 0], abs=0.01)


def test_an_hdr_clip_is_not_washed_out(tmp_path: Path) -> None:
    grey = np.full((96, 160, 3), round(0.58 * 255), np.uint8)  # PQ's code of 203 cd/m², white
    path = write_clip(tmp_path / "a.mp4", [grey], matrix=9, tags=(9, 1, 16, 9))
    assert float(load_video(path).frames.mean()) > 0.93

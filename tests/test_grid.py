"""From pixels to cells: the published order of operations, floors, and how a picture is fitted."""

import math

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgi2v.grid import Grid, Track, Tracks, fit_image, tracks_of
from sgi2v.scene import Box, Key, Motion, Scene

FINITE = st.floats(-500, 1500, width=32)


@given(left=FINITE, top=FINITE, width=st.floats(0.125, 400, width=32), height=st.floats(0.125, 400, width=32))
def test_cells_are_floors_with_at_least_one_cell(left: float, top: float, width: float, height: float) -> None:
    box = np.array([left, top, left + width, top + height], dtype=np.float32)
    cells = Grid(width=320, height=192, num_frames=14).cells(box)
    y0, x0 = math.floor(box[1] / 8), math.floor(box[0] / 8)
    y1, x1 = math.floor(box[3] / 8), math.floor(box[2] / 8)
    assert cells.tolist() == [y0, x0, max(y0 + 1, y1), max(x0 + 1, x1)]


def scene_of(size: tuple[int, int], box: Box, path: tuple[Key, ...], **fields: object) -> Scene:
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Scene(image=PIL.Image.fromarray(noise), motions=(Motion(box=box, path=path),), **fields)  # type: ignore[arg-type]


@given(seed=st.integers(0, 10_000))
def test_boxes_follow_the_published_float32_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    source, target = (1024, 576), (320, 192)
    left, top = rng.uniform(0, 400, 2)
    box = Box(left=left, top=top, right=left + rng.uniform(4, 500), bottom=top + rng.uniform(4, 170))
    points = rng.uniform(-200, 1200, (14, 2))
    path = tuple(Key(time=k / 13, x=float(x), y=float(y)) for k, (x, y) in enumerate(points))
    grid = Grid(width=target[0], height=target[1], num_frames=14)
    (track,) = tracks_of(scene_of(source, box, path), grid).tracks
    f = np.float32
    for frame in range(14):
        for axis, (low, high) in enumerate(((box.left, box.right), (box.top, box.bottom))):

            def scaled(v: float, axis: int = axis) -> np.float32:
                return f(f(v) * f(target[axis]) / f(source[axis]))

            move = f(scaled(points[frame, axis]) - scaled(points[0, axis]))
            assert track.boxes[frame, axis] == f(scaled(low) + move)
            assert track.boxes[frame, axis + 2] == f(scaled(high) + move)


def test_a_growing_box_keeps_its_centre() -> None:
    path = (Key(time=0.0, x=50.0, y=50.0), Key(time=1.0, x=80.0, y=60.0, scale=2.0))
    box = Box(left=40.0, top=40.0, right=60.0, bottom=60.0)
    (track,) = tracks_of(scene_of((160, 96), box, path), Grid(width=160, height=96, num_frames=3)).tracks
    assert track.boxes[0].tolist() == [40, 40, 60, 60]
    assert track.boxes[-1].tolist() == [60, 40, 100, 80]
    assert track.centers[-1].tolist() == [80, 60]


@pytest.mark.parametrize("fit", ["stretch", "cover", "contain"])
def test_a_box_covers_the_same_pixels_after_fitting(fit: str) -> None:
    image = PIL.Image.new("RGB", (400, 200), (10, 20, 30))
    image.paste((250, 200, 50), (160, 80, 240, 140))
    box = Box(left=160.0, top=80.0, right=240.0, bottom=140.0)
    scene = Scene(image=image, motions=(Motion(box=box),), fit=fit)  # type: ignore[arg-type]
    tracks = tracks_of(scene, Grid(width=128, height=128, num_frames=2))
    assert tracks.image.size == (128, 128)
    left, top, right, bottom = tracks.tracks[0].boxes[0]
    pixels = np.asarray(tracks.image, dtype=float)
    bright = pixels[..., 0] > 130
    rows, columns = np.nonzero(bright)
    assert abs(columns.min() - left) <= 1 and abs(columns.max() + 1 - right) <= 1
    assert abs(rows.min() - top) <= 1 and abs(rows.max() + 1 - bottom) <= 1
    corner = pixels[0, 0]
    assert np.allclose(corner, (10, 20, 30), atol=2)  # contain repeats the edge, it adds no black


def test_stretch_is_pillows_bicubic() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    image = PIL.Image.fromarray(noise)
    assert fit_image(image, 32, 24, "stretch") == image.resize((32, 24), PIL.Image.Resampling.BICUBIC)


def test_a_first_box_that_the_crop_cuts_off_is_refused_by_name() -> None:
    box = Box(left=0.0, top=10.0, right=40.0, bottom=60.0)
    tracks = tracks_of(scene_of((400, 100), box, (), fit="cover"), Grid(width=96, height=96, num_frames=2))
    with pytest.raises(ValueError, match=r"motions\[0\]\.box.*leaves the 96x96"):
        tracks.check_first_boxes()
    assert Tracks(image=tracks.image, tracks=()).boxes([0, 1]).shape == (0, 2, 4)


@given(latent_frames=st.integers(1, 9), frame_stride=st.integers(1, 8), odd=st.integers(0, 7))
def test_latent_frames_stand_for_groups_of_frames_the_first_for_itself(
    latent_frames: int, frame_stride: int, odd: int
) -> None:
    """Written out: frames are dealt out one by one, the first alone, then as many at a time as the stride says."""
    num_frames = 1 + (latent_frames - 1) * frame_stride + odd % frame_stride
    grid = Grid(width=64, height=64, num_frames=num_frames, frame_stride=frame_stride)
    assert grid.latent_shape == (latent_frames, 4, 8, 8)
    groups: list[list[int]] = [[0]]
    for frame in range(1, num_frames):
        if len(groups[-1]) in (frame_stride, 0) or len(groups) == 1:
            groups.append([])
        groups[-1].append(frame)
    whole = [group for group in groups if len(group) == frame_stride or group == [0]]
    assert [list(grid.group(k)) for k in range(grid.latent_frames)] == whole


@given(boxes=st.lists(st.lists(st.tuples(*[FINITE] * 4), min_size=9, max_size=9), min_size=0, max_size=3))
def test_a_latent_frames_box_is_the_mean_of_its_groups_boxes(
    boxes: list[list[tuple[float, float, float, float]]],
) -> None:
    """Nine frames, four to a latent frame: frame 0, the mean of 1 to 4, the mean of 5 to 8."""
    grid = Grid(width=64, height=64, num_frames=9, frame_stride=4)
    tracks = Tracks(
        image=PIL.Image.new("RGB", (64, 64)),
        tracks=tuple(Track(boxes=np.array(track, dtype=np.float32)) for track in boxes),
    )
    found = tracks.latent_boxes(grid)
    assert found.shape == (len(boxes), 3, 4) and found.dtype == np.float32
    for box, track in zip(found, boxes, strict=True):
        for k, frames in enumerate(((0,), (1, 2, 3, 4), (5, 6, 7, 8))):
            for side in range(4):
                wanted = sum(track[frame][side] for frame in frames) / len(frames)
                assert box[k, side] == pytest.approx(wanted, rel=1e-5, abs=1e-3)
    each = Grid(width=64, height=64, num_frames=9)
    assert np.array_equal(tracks.latent_boxes(each), tracks.boxes(range(9)))


@given(share=st.floats(0, 1), seed=st.integers(0, 99))
def test_a_part_of_the_path_begins_where_it_began(share: float, seed: int) -> None:
    boxes = np.random.default_rng(seed).uniform(0, 60, (3, 4)).astype(np.float32)
    whole = Tracks(image=PIL.Image.new("RGB", (64, 64)), tracks=(Track(boxes=boxes, name="a"),))
    part = whole.part(share)
    (track,) = part.tracks
    assert track.name == "a" and part.image is whole.image
    for frame in range(3):
        wanted = [a + share * (b - a) for a, b in zip(boxes[0].tolist(), boxes[frame].tolist(), strict=True)]
        assert track.boxes[frame].tolist() == pytest.approx(wanted, abs=1e-4)
    assert whole.part(1.0) is whole

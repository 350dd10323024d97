"""The cut-and-drag clip: pixel by pixel what scissors would make, and one affine map for a camera."""

import math
from collections.abc import Sequence

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sgi2v.camera import Camera, camera_motions
from sgi2v.cut_and_drag import box_cover, camera_warps, cut_and_drag, dragged_clip
from sgi2v.evaluation.baselines import paste
from sgi2v.grid import Grid, Track, Tracks, tracks_of
from sgi2v.scene import Box, Key, Motion, Scene

WIDTH, HEIGHT = 40, 32


def smooth_image(seed: int = 0) -> PIL.Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return PIL.Image.fromarray(small).resize((WIDTH, HEIGHT), PIL.Image.Resampling.BICUBIC)


def pixels_of(image: PIL.Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255).permute(2, 0, 1)


def literal(picture: NDArray[np.float32], x: float, y: float, outside: float | None = None) -> NDArray[np.float64]:
    """A picture [h, w, c] at a place in pixels, between the four nearest centres; `outside` for what it lacks."""
    value = np.zeros(picture.shape[2])
    for row in (math.floor(y - 0.5), math.floor(y - 0.5) + 1):
        for column in (math.floor(x - 0.5), math.floor(x - 0.5) + 1):
            weight = (1 - abs(row + 0.5 - y)) * (1 - abs(column + 0.5 - x))
            inside = 0 <= row < picture.shape[0] and 0 <= column < picture.shape[1]
            at = picture[min(max(row, 0), picture.shape[0] - 1), min(max(column, 0), picture.shape[1] - 1)]
            value += weight * (at if inside or outside is None else outside)
    return value


@settings(max_examples=15)
@given(
    seed=st.integers(0, 999),
    shift=st.tuples(st.floats(-30, 30), st.floats(-25, 25)),
    growth=st.floats(0.5, 1.8),
)
def test_a_thing_lies_where_its_box_is_pixel_by_pixel(seed: int, shift: tuple[float, float], growth: float) -> None:
    image = pixels_of(smooth_image(seed))
    left, top, right, bottom = 8.0, 6.0, 24.0, 20.0
    middle = np.array([(left + right) / 2, (top + bottom) / 2]) + shift
    half = np.array([right - left, bottom - top]) / 2 * growth
    last = [*(middle - half), *(middle + half)]
    boxes = np.array([[[left, top, right, bottom], last]])
    cover = box_cover(boxes[0, 0], WIDTH, HEIGHT)
    assert cover.sum() == 16 * 14 and cover[6:20, 8:24].all()
    clip = cut_and_drag(image, boxes, cover[None])
    assert torch.equal(clip.frames[0], image) and torch.equal(clip.masks[0], torch.from_numpy(cover))
    picture = image.permute(1, 2, 0).numpy()
    for y in range(HEIGHT):
        for x in range(WIDTH):
            source = ((x + 0.5 - last[0]) / growth + left, (y + 0.5 - last[1]) / growth + top)
            wanted = float(literal(cover[..., None], *source, outside=0.0)[0])
            # OpenCV places pixels to 1/32 of one.
            assert abs(float(clip.masks[1, y, x]) - wanted) < 0.1
            if wanted > 0.999:
                assert np.abs(clip.frames[1, :, y, x].numpy() - literal(picture, *source)).max() < 0.03
            elif wanted == 0 and cover[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].max() == 0:
                assert torch.equal(clip.frames[1, :, y, x], image[:, y, x])


def test_a_mask_cuts_and_what_was_under_it_is_filled() -> None:
    image = PIL.Image.new("RGB", (WIDTH, HEIGHT), (200, 200, 200))
    image.paste((0, 0, 0), (8, 8, 16, 16))
    mask = PIL.Image.new("L", (WIDTH, HEIGHT))
    mask.paste(255, (8, 8, 16, 16))
    boxes = np.array([[4.0, 4, 20, 20]] * 3, dtype=np.float32) + np.array([[0], [8], [16]]) * [1, 0, 1, 0]
    tracks = Tracks(image=image, tracks=(Track(boxes=boxes.astype(np.float32), mask=mask),))
    clip = dragged_clip(tracks, 3)
    black = clip.frames.mean(1) < 0.1
    for index, left in enumerate((8, 16, 24)):
        wanted = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
        wanted[8:16, left : left + 8] = True
        assert torch.equal(black[index], wanted) and torch.equal(clip.masks[index] > 0.5, wanted)
    assert torch.allclose(
        clip.frames[1:][~black[1:][:, None].expand(-1, 3, -1, -1)], torch.tensor(200 / 255), atol=0.01
    )
    assert torch.equal(clip.frames, paste(pixels_of(image), torch.from_numpy(boxes)[None].float(),
                                          clip.masks[:1]))  # fmt: skip


def test_the_pasted_row_is_the_dragged_clip_under_a_moving_camera_too() -> None:
    image = smooth_image()
    thing = np.array([[4.0, 4, 14, 14], [24.0, 14, 34, 24]], dtype=np.float32)
    ground = np.array([[20.0, 2, 30, 12], [14.0, 4, 24, 14]], dtype=np.float32)
    tracks = Tracks(image=image, tracks=(Track(boxes=ground, kind="camera"), Track(boxes=thing)))
    boxes = torch.from_numpy(np.stack([ground, thing]))
    pasted = paste(pixels_of(image), boxes, camera=[True, False])
    assert torch.equal(pasted, dragged_clip(tracks, 2).frames)
    assert not torch.equal(pasted, paste(pixels_of(image), boxes))


def test_the_first_thing_lies_on_top_and_a_scene_without_motions_stands_still() -> None:
    image = smooth_image()
    moves = np.array([[4.0, 4, 14, 14], [24.0, 14, 34, 24]], dtype=np.float32)
    stays = np.array([[24.0, 14, 34, 24]] * 2, dtype=np.float32)
    tracks = Tracks(image=image, tracks=(Track(boxes=moves), Track(boxes=stays)))
    clip = dragged_clip(tracks, 2)
    assert torch.allclose(clip.frames[1, :, 14:24, 24:34], pixels_of(image)[:, 4:14, 4:14], atol=1e-6)
    still = dragged_clip(Tracks(image=image, tracks=()), 4)
    assert torch.equal(still.frames, pixels_of(image).expand(4, -1, -1, -1)) and not still.masks.any()


def test_an_empty_mask_is_refused() -> None:
    boxes = np.array([[4.0, 4, 14, 14]] * 2, dtype=np.float32)
    track = Track(boxes=boxes, mask=PIL.Image.new("L", (WIDTH, HEIGHT)))
    with pytest.raises(ValueError, match=r"motions\[1\]\.mask: nothing is in it"):
        dragged_clip(Tracks(image=smooth_image(), tracks=(Track(boxes=boxes), track)), 2)


CAMERAS = st.builds(
    Camera,
    dx=st.floats(-0.3, 0.3),
    dy=st.floats(-0.3, 0.3),
    zoom=st.floats(0.7, 1.4),
    roll=st.floats(-40, 40),
)


@given(camera=CAMERAS, stretch=st.sampled_from([(64, 64), (96, 32)]))
def test_a_cameras_boxes_give_its_warp_back_even_stretched(camera: Camera, stretch: tuple[int, int]) -> None:
    size = (90, 60)
    scene = Scene(image=PIL.Image.new("RGB", size), motions=camera_motions(camera, size, num_keys=5))
    tracks = tracks_of(scene, Grid(width=stretch[0], height=stretch[1], num_frames=5)).tracks
    warps = camera_warps(np.stack([track.boxes for track in tracks]))
    ratio = np.array(stretch) / size
    for time, warp in zip(np.linspace(0, 1, 5), warps, strict=True):
        for x, y in ((0, 0), (90, 0), (20, 55)):
            wanted = camera.warp(size, float(time)) @ (x, y, 1) * ratio
            assert np.allclose(warp @ (x * ratio[0], y * ratio[1], 1), wanted, atol=2e-3)


@given(shift=st.tuples(st.floats(-20, 20), st.floats(-20, 20)), growth=st.floats(0.5, 2), turn=st.floats(-1, 1))
def test_one_box_gives_shift_and_growth_and_two_a_turn(shift: tuple[float, float], growth: float, turn: float) -> None:
    def moved(x: float, y: float, turned: float) -> np.ndarray:
        cos, sin = math.cos(turned) * growth, math.sin(turned) * growth
        return np.array([cos * x - sin * y, sin * x + cos * y]) + shift

    def box(place: Sequence[float] | np.ndarray, size: float) -> list[float]:
        x, y = place
        return [x - size, y - size, x + size, y + size]

    one = np.array([[box((30, 20), 5), box(moved(30, 20, 0.0), 5 * growth)]])
    for point in ((0.0, 0.0), (10.0, 50.0)):
        assert np.allclose(camera_warps(one)[1] @ (*point, 1), moved(*point, 0.0))
    ends = [(10.0, 10.0), (40.0, 30.0)]
    two = np.array([[box(end, 5), box(moved(*end, turn), 5)] for end in ends])
    for point in ((0.0, 0.0), (10.0, 50.0)):
        assert np.allclose(camera_warps(two)[1] @ (*point, 1), moved(*point, turn), atol=1e-6)
    # Three on a line know no more than two.
    three = np.concatenate([two, np.array([[box((25, 20), 5), box(moved(25, 20, turn), 5)]])])
    assert np.allclose(camera_warps(three), camera_warps(two), atol=1e-6)


def test_a_camera_moves_the_ground_and_a_thing_stays_where_its_path_says() -> None:
    image = smooth_image()
    camera = tuple(
        Motion(box=Box(left=x, top=y, right=x + 4, bottom=y + 4), kind="camera",
               path=(Key(time=0, x=0, y=0), Key(time=1, x=6, y=-4)))
        for x, y in ((2, 2), (30, 4), (10, 24))
    )  # fmt: skip
    pin = Motion(box=Box(left=20, top=10, right=28, bottom=20))
    tracks = tracks_of(Scene(image=image, motions=(*camera, pin)), Grid(width=WIDTH, height=HEIGHT, num_frames=3))
    clip, first = dragged_clip(tracks, 3), pixels_of(image)
    assert torch.equal(clip.frames[0], first) and (clip.masks[0] == 1).all()
    for index, (right, up) in ((1, (3, 2)), (2, (6, 4))):
        assert torch.allclose(clip.frames[index, :, 10:20, 20:28], first[:, 10:20, 20:28], atol=1e-5)
        shown = clip.frames[index, :, : 8 - up, right:]
        assert torch.allclose(shown, first[:, up:8, : WIDTH - right], atol=1e-5)
        # What the first frame does not show is not meant.
        assert not clip.masks[index, :, :right].any() and not clip.masks[index, HEIGHT - up :].any()
        assert (clip.masks[index, : HEIGHT - up, right:] == 1).all()


@given(
    left=st.floats(-20, WIDTH + 10),
    top=st.floats(-20, HEIGHT + 10),
    wide=st.floats(0.01, 30),
    high=st.floats(0.01, 30),
)
def test_a_box_in_the_picture_covers_something_however_small(left: float, top: float, wide: float, high: float) -> None:
    cover = box_cover((left, top, left + wide, top + high), WIDTH, HEIGHT)
    inside = left + wide > 0 and top + high > 0 and left < WIDTH and top < HEIGHT
    assert cover.any() == inside
    rows, columns = (np.flatnonzero(cover.any(axis)) for axis in (1, 0))
    if inside:  # and what it covers is no more than a pixel away
        assert left - 1 <= columns[0] and columns[-1] + 1 <= max(left + wide, 0) + 1
        assert top - 1 <= rows[0] and rows[-1] + 1 <= max(top + high, 0) + 1


def test_a_box_outside_is_said_to_be_one() -> None:
    boxes = np.array([[-40.0, 4, -30, 14]] * 2, dtype=np.float32)
    with pytest.raises(ValueError, match=r"motions\[0\]\.box: lies outside the picture"):
        dragged_clip(Tracks(image=smooth_image(), tracks=(Track(boxes=boxes),)), 2)

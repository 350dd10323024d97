"""Camera presets: which way content goes, and that boxes follow the one affine warp."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sgi2v.camera import Camera, camera_motions, pan, roll, zoom
from sgi2v.scene import Box, Key, Motion, Scene

SIZE = (600, 400)
cameras = st.builds(
    Camera,
    dx=st.floats(-0.5, 0.5),
    dy=st.floats(-0.5, 0.5),
    zoom=st.floats(0.5, 2),
    roll=st.floats(-40, 40),
    easing=st.sampled_from(["linear", "ease-in", "ease-out", "ease-in-out"]),
)


def test_a_camera_that_stands_still_pins_the_background() -> None:
    pins = camera_motions(Camera(), SIZE)
    assert len(pins) == 12
    assert all(pin.path == () and pin.kind == "camera" for pin in pins)


def test_a_camera_panning_right_and_down_moves_content_left_and_up() -> None:
    for motion in camera_motions(pan(dx=0.25, dy=0.5), SIZE):
        first, middle, last = motion.centers(3)
        assert tuple(first) == pytest.approx(motion.box.center)
        assert last - first == pytest.approx(np.array([-150.0, -200.0]))
        assert middle - first == pytest.approx(np.array([-75.0, -100.0]))
        assert (motion.scales(3) == 1).all()


def test_zoom_moves_content_outwards_and_makes_it_larger_at_one_rate() -> None:
    for motion in camera_motions(zoom(2.25), SIZE):
        away = np.subtract(motion.box.center, (300, 200))
        for factor, center, scale in zip((1, 1.5, 2.25), motion.centers(3), motion.scales(3), strict=True):
            assert scale == pytest.approx(factor)
            assert center == pytest.approx((300, 200) + factor * away)


def test_roll_turns_content_anticlockwise() -> None:
    warp = roll(90).warp(SIZE, 1)
    assert warp @ (300, 200, 1) == pytest.approx(np.array([300.0, 200.0]))
    assert warp @ (400, 200, 1) == pytest.approx(np.array([300.0, 100.0]))  # what was right is now above


@given(cameras, st.floats(0, 600), st.floats(0, 400))
def test_the_warp_is_the_formula(camera: Camera, x: float, y: float) -> None:
    for time in (0, 0.5, 1) if camera.easing in ("linear", "ease-in-out") else (0, 1):  # eased to just these
        grow, turn = camera.zoom**time, -math.radians(camera.roll) * time
        u, v = x - 300, y - 200
        wanted_x = 300 + grow * (math.cos(turn) * u - math.sin(turn) * v) - time * camera.dx * 600
        wanted_y = 200 + grow * (math.sin(turn) * u + math.cos(turn) * v) - time * camera.dy * 400
        assert camera.warp(SIZE, time) @ (x, y, 1) == pytest.approx(np.array([wanted_x, wanted_y]), abs=1e-6)


@settings(max_examples=20)
@given(cameras)
def test_boxes_follow_the_warp_at_their_keys_and_nearly_between(camera: Camera) -> None:
    for motion in camera_motions(camera, SIZE, columns=2, rows=1):
        for num_frames, tolerance in ((25, 1e-6), (14, 1.0)):  # pixels of 600; between keys it runs straight
            centers, scales = motion.centers(num_frames), motion.scales(num_frames)
            for frame in range(num_frames):
                warp = camera.warp(SIZE, frame / (num_frames - 1))
                wanted = warp @ (*motion.box.center, 1)
                assert np.abs(centers[frame] - wanted).max() < tolerance
                assert scales[frame] ** 2 == pytest.approx(np.linalg.det(warp[:, :2]), rel=tolerance / 20)


@given(cameras, cameras)
def test_cameras_are_joined(one: Camera, other: Camera) -> None:
    if one.easing != other.easing:
        with pytest.raises(ValueError, match=r"easing: .* does not go with"):
            one + other
        return
    both = one + other
    assert (both.dx, both.dy) == (one.dx + other.dx, one.dy + other.dy)
    assert (both.zoom, both.roll) == (one.zoom * other.zoom, one.roll + other.roll)
    assert one + Camera(easing=one.easing) == one


def test_boxes_that_meet_an_object_are_left_out() -> None:
    box = Box.around(75, 67, 40)
    crossing = Motion(box=box, path=(Key(time=0, x=75, y=67), Key(time=1, x=525, y=67)))  # along the first row
    kept = camera_motions(Camera(), SIZE, avoid=[crossing])
    assert [motion.name for motion in kept] == [f"camera {row}.{column}" for row in (2, 3) for column in (1, 2, 3, 4)]


@settings(max_examples=20)
@given(st.integers(1, 5), st.integers(1, 5), st.floats(0.01, 1), st.integers(8, 700), st.integers(8, 700))
def test_grid_boxes_lie_apart_and_inside_the_image(
    columns: int, rows: int, fraction: float, width: int, height: int
) -> None:
    size = (width, height)
    found = camera_motions(pan(0.1), size, columns=columns, rows=rows, fraction=fraction)
    assert len(found) == columns * rows
    Scene(image=Image.new("RGB", size), motions=found)
    for index, one in enumerate(found):
        for other in found[index + 1 :]:
            across = abs(one.box.center[0] - other.box.center[0]) >= one.box.width - 1e-6
            assert across or abs(one.box.center[1] - other.box.center[1]) >= one.box.height - 1e-6


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dx": math.nan}, r"dx: nan is not finite"),
        ({"dy": 11}, r"dy: 11\.0 is out of range -10 to 10"),
        ({"zoom": 0}, r"zoom: 0\.0 is out of range"),
        ({"zoom": "2"}, r"zoom: '2' is not a number; give a factor"),
        ({"roll": math.inf}, r"roll: inf is not finite"),
        ({"easing": "bounce"}, r"easing: 'bounce' is not known"),
    ],
)
def test_a_bad_camera_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Camera(**fields)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": 0}, r"columns, rows: 0, 3 is no grid"),
        ({"fraction": 0}, r"fraction: 0\.0 is out of range"),
        ({"num_keys": 1}, r"num_keys: 1 is out of range"),
        ({"avoid": [Motion(box=Box(left=0, top=0, right=600, bottom=400))]}, r"camera: no box .* finer grid"),
    ],
)
def test_a_bad_grid_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        camera_motions(pan(0.1), SIZE, **options)

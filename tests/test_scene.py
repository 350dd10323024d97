"""Scenes: what they accept and refuse, and where a motion's box is at each time."""

import dataclasses
import math
from itertools import pairwise
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.interpolate import PchipInterpolator

from scene_strategies import boxes, garbage, motions, paths, scenes
from sgi2v.curves import ease
from sgi2v.scene import MAX_KEYS, MAX_MOTIONS, Box, Easing, Key, Motion, Scene, frame_times

BOX = Box(left=10, top=20, right=30, bottom=30)


def line(*points: tuple[float, float, float], **motion: Any) -> Motion:
    return Motion(box=BOX, path=tuple(Key(time=t, x=x, y=y) for t, x, y in points), **motion)


def test_box_geometry() -> None:
    assert (BOX.width, BOX.height, BOX.center) == (20, 10, (20, 25))
    assert BOX.moved(1, -2.5) == Box(left=11, top=17.5, right=31, bottom=27.5)
    assert BOX.scaled(3) == Box(left=-10, top=10, right=50, bottom=40)
    assert Box.around(5, 6, 4) == Box(left=3, top=4, right=7, bottom=8)


@given(boxes(60, 40), st.floats(0.1, 10))
def test_box_scaled_keeps_its_centre_and_one_is_exact(box: Box, factor: float) -> None:
    assert box.scaled(1) == box
    grown = box.scaled(factor)
    assert grown.center == pytest.approx(box.center)
    assert (grown.width, grown.height) == pytest.approx((factor * box.width, factor * box.height))


def test_without_a_path_the_box_stays() -> None:
    pin = Motion(box=BOX)
    assert (pin.centers(5) == np.array([20.0, 25.0])).all()
    assert (pin.scales(5) == 1).all()
    assert pin.boxes_at([0, 0.3, 1]) == [BOX] * 3


def test_a_polyline_is_straight_in_time_and_held_at_its_ends() -> None:
    motion = line((0.25, 0, 0), (0.75, 10, -20))
    assert motion.centers(9).tolist() == [[x, -2 * x] for x in (0.0, 0.0, 0.0, 2.5, 5.0, 7.5, 10.0, 10.0, 10.0)]


def test_only_the_difference_to_the_first_key_moves_the_box() -> None:
    beside = line((0, 19.5, 25), (1, 29.5, 20))
    assert beside.boxes_at([0, 1]) == [BOX, BOX.moved(10, -5)]
    late = line((0.5, 100, 100), (1, 110, 100))
    assert late.boxes_at([0, 0.5, 1]) == [BOX, BOX, BOX.moved(10, 0)]


@given(paths(max_keys=8), st.sampled_from(["polyline", "spline"]))
def test_keys_are_met_exactly(path: tuple[Key, ...], curve: Any) -> None:
    # The strategy's times are thousandths: with 1001 frames every key is a frame.
    motion = Motion(box=BOX, path=path, curve=curve)
    centers, scale = motion.centers(1001), motion.scales(1001)
    for key in path:
        frame = round(key.time * 1000)
        assert (*centers[frame], scale[frame]) == (key.x, key.y, key.scale)


@given(paths(), st.sampled_from(["polyline", "spline"]), st.integers(2, 40))
def test_a_path_stays_between_its_neighbouring_keys(path: tuple[Key, ...], curve: Any, num_frames: int) -> None:
    motion = Motion(box=BOX, path=path, curve=curve)
    for time, center in zip(frame_times(num_frames), motion.centers(num_frames), strict=True):
        after = next((n for n, key in enumerate(path) if key.time > time), len(path) - 1)
        near = path[max(after - 1, 0) : after + 1]
        low = min(key.x for key in near), min(key.y for key in near)
        high = max(key.x for key in near), max(key.y for key in near)
        assert all(a <= v <= b for a, v, b in zip(low, center, high, strict=True))


@given(paths(max_keys=7))
def test_a_spline_is_scipys_pchip(path: tuple[Key, ...]) -> None:
    path = tuple(Key(time=key.time, x=key.x, y=key.y, scale=key.scale) for key in path)
    times = np.clip(frame_times(57), path[0].time, path[-1].time)
    keys = np.array([(key.x, key.y, math.log(key.scale)) for key in path])
    wanted = PchipInterpolator([key.time for key in path], keys)(times)
    motion = Motion(box=BOX, path=path, curve="spline")
    np.testing.assert_allclose(motion.centers(57), wanted[:, :2], rtol=0, atol=1e-6)
    np.testing.assert_allclose(motion.scales(57), np.exp(wanted[:, 2]), rtol=1e-6)


@given(paths())
def test_a_polyline_is_its_literal_twin(path: tuple[Key, ...]) -> None:
    motion = Motion(box=BOX, path=path)
    speeds = {"linear": (1, 1), "ease-in": (0, 1), "ease-out": (1, 0), "ease-in-out": (0, 0)}
    for frame, (x, y) in enumerate(motion.centers(23)):
        time = min(max(frame / 22, path[0].time), path[-1].time)
        for one, two in pairwise(path):
            if one.time <= time <= two.time:
                u = (time - one.time) / (two.time - one.time)
                a, b = speeds[one.easing]
                # The cubic f with f(0) = 0, f(1) = 1, f'(0) = a, f'(1) = b, in powers of u.
                eased = a * u + (3 - 2 * a - b) * u**2 + (a + b - 2) * u**3
                assert x == pytest.approx(one.x + eased * (two.x - one.x), abs=1e-8)
                assert y == pytest.approx(one.y + eased * (two.y - one.y), abs=1e-8)
                break


@pytest.mark.parametrize(
    ("name", "start", "end"),
    [("linear", 1, 1), ("ease-in", 0, 1), ("ease-out", 1, 0), ("ease-in-out", 0, 0)],
)
def test_easings_start_and_end_at_their_speed_and_never_go_back(name: str, start: float, end: float) -> None:
    u = np.linspace(0, 1, 201)
    eased = np.array([ease(name, np.float64(at)) for at in u])
    assert (eased[0], eased[-1]) == (0, 1)
    assert (np.diff(eased) > 0).all()
    assert (eased[1] - eased[0]) * 200 == pytest.approx(start, abs=0.02)
    assert (eased[-1] - eased[-2]) * 200 == pytest.approx(end, abs=0.02)
    assert name in get_args(Easing)


def test_scale_is_log_linear() -> None:
    path = (Key(time=0, x=20, y=25), Key(time=1, x=20, y=25, scale=4))
    motion = Motion(box=BOX, path=path)
    assert motion.scales(3).tolist() == pytest.approx([1, 2, 4])
    assert motion.boxes_at([1]) == [BOX.scaled(4)]


@given(motions(), st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_boxes_follow_centres_and_scales(motion: Motion, times: list[float]) -> None:
    first, *rest = motion.boxes_at([0, *times])
    assert first == motion.box
    for box in rest:
        ratio = box.width / motion.box.width
        assert box.height / motion.box.height == pytest.approx(ratio)
    if motion.path:
        last = motion.boxes_at([1])[0]
        moved = np.subtract(last.center, motion.box.center)
        between = np.subtract((motion.path[-1].x, motion.path[-1].y), (motion.path[0].x, motion.path[0].y))
        np.testing.assert_allclose(moved, between, atol=1e-6)


def test_a_single_frame_shows_the_start() -> None:
    assert line((0, 1, 2), (1, 3, 4)).centers(1).tolist() == [[1, 2]]
    with pytest.raises(ValueError, match=r"num_frames: 0 is too few"):
        frame_times(0)


BAD_MOTIONS: list[tuple[dict[str, Any], str]] = [
    ({"path": (Key(time=0, x=0, y=0),)}, r"path: 1 key; give two or more"),
    (
        {"path": (Key(time=0.5, x=0, y=0), Key(time=0.5, x=1, y=1))},
        r"path\[1\]\.time: 0\.5 is not after 0\.5",
    ),
    ({"path": (Key(time=0.5, x=0, y=0), Key(time=0.25, x=1, y=1))}, r"path\[1\]\.time: 0\.25 is not after"),
    ({"path": (Key(time=0, x=0, y=0, scale=2), Key(time=1, x=1, y=1))}, r"path\[0\]\.scale: 2\.0"),
    ({"path": [Key(time=0, x=0, y=0)] * (MAX_KEYS + 1)}, rf"path: {MAX_KEYS + 1} keys"),
    ({"path": "north"}, r"path: 'north' is not a list of Key"),
    ({"path": ((0, 1, 2), (1, 2, 3))}, r"path: .* is not a list of Key"),
    ({"box": (1, 2, 3, 4)}, r"box: \(1, 2, 3, 4\) is not a Box"),
    ({"box": Box(left=0, top=0, right=1e-4, bottom=5)}, r"box: .* has no area"),
    ({"box": Box(left=0, top=0, right=1e12, bottom=5)}, r"box\.right: .* is too far away"),
    ({"kind": "thing"}, r"kind: 'thing' is not known; give one of object, camera"),
    ({"curve": "bezier"}, r"curve: 'bezier' is not known; give one of polyline, spline"),
    ({"name": 3}, r"name: 3 is not a text"),
    ({"name": "x" * 20_000}, r"name: 20000 characters"),
    ({"name": "\ud800"}, r"name: .* half a character"),
    ({"mask": "mask.png"}, r"mask: 'mask.png' is no picture of mode L or 1"),
    ({"mask": Image.new("RGB", (4, 4))}, r"mask: .* is no picture of mode L or 1"),
]


@pytest.mark.parametrize(("fields", "message"), BAD_MOTIONS)
def test_a_bad_motion_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        Motion(**{"box": BOX, **fields})
    assert "\n" not in str(error.value)


BAD_KEYS: list[tuple[dict[str, Any], str]] = [
    ({"time": -0.1}, r"time: -0\.1 is outside 0 to 1"),
    ({"time": 1.1}, r"time: 1\.1 is outside 0 to 1"),
    ({"time": math.nan}, r"time: nan is not finite"),
    ({"x": math.inf}, r"x: inf is not finite"),
    ({"y": "3"}, r"y: '3' is not a number"),
    ({"x": True}, r"x: True is not a number"),
    ({"x": 10**400}, r"x: 1000.* is not finite"),
    ({"y": -1e9}, r"y: -1000000000\.0 is too far away"),
    ({"scale": 0}, r"scale: 0\.0 is out of range"),
    ({"scale": -1}, r"scale: -1\.0 is out of range"),
    ({"easing": "bounce"}, r"easing: 'bounce' is not known"),
]


@pytest.mark.parametrize(("fields", "message"), BAD_KEYS)
def test_a_bad_key_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Key(**{"time": 0, "x": 0, "y": 0, **fields})


@pytest.mark.parametrize(
    ("corners", "message"),
    [
        ((5, 0, 5, 1), r"right: 5\.0 is not right of left"),
        ((0, 3, 1, 2), r"bottom: 2\.0 is not below top"),
        ((0, math.nan, 1, 2), r"top: nan is not finite"),
        ((None, 0, 1, 2), r"left: None is not a number"),
    ],
)
def test_a_bad_box_is_refused(corners: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Box(**dict(zip(("left", "top", "right", "bottom"), corners, strict=True)))


@pytest.mark.parametrize(
    ("corners", "message"),
    [
        ((-0.5, 0, 5, 5), r"motions\[1\]\.box\.left: -0\.5 leaves the image of 40x30; give 0 to 40"),
        ((0, -3, 5, 5), r"motions\[1\]\.box\.top"),
        ((0, 0, 40.5, 5), r"motions\[1\]\.box\.right"),
        ((0, 0, 5, 31), r"motions\[1\]\.box\.bottom: 31\.0 leaves the image of 40x30; give 0 to 30"),
    ],
)
def test_a_first_box_outside_the_image_is_refused(corners: tuple[float, ...], message: str) -> None:
    box = Box(**dict(zip(("left", "top", "right", "bottom"), corners, strict=True)))
    whole = Motion(box=Box(left=0, top=0, right=40, bottom=30))
    with pytest.raises(ValueError, match=message):
        Scene(image=Image.new("RGB", (40, 30)), motions=(whole, Motion(box=box)))


BAD_SCENES: list[tuple[dict[str, Any], str]] = [
    (
        {"image": "photo.jpg"},
        r"image: 'photo.jpg' is no picture of mode RGB; read it with sgi2v.scene_io.load_image",
    ),
    ({"image": Image.new("RGBA", (40, 30))}, r"image: .* is no picture of mode RGB"),
    ({"image": Image.new("RGB", (0, 3))}, r"image: .* is no picture"),
    ({"motions": BOX}, r"motions: .* is not a list of Motion"),
    ({"motions": (BOX,)}, r"motions: .* is not a list of Motion"),
    ({"motions": [Motion(box=BOX)] * (MAX_MOTIONS + 1)}, rf"motions: {MAX_MOTIONS + 1} of them"),
    ({"motions": [Motion(box=BOX, mask=Image.new("L", (4, 4)))]}, r"motions\[0\]\.mask: \(4, 4\) is not"),
    ({"fit": "crop"}, r"fit: 'crop' is not known; give one of stretch, cover, contain"),
    ({"prompt": None}, r"prompt: None is not a text"),
    ({"negative_prompt": 3}, r"negative_prompt: 3 is not a text"),
]


@pytest.mark.parametrize(("fields", "message"), BAD_SCENES)
def test_a_bad_scene_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scene(**{"image": Image.new("RGB", (40, 30)), **fields})


@given(st.sampled_from([Box, Key, Motion, Scene]), st.data())
def test_whatever_a_field_is_given_the_answer_is_a_thing_or_a_value_error(kind: Any, data: st.DataObject) -> None:
    valid: dict[Any, dict[str, Any]] = {
        Box: {"left": 0.0, "top": 0.0, "right": 1.0, "bottom": 1.0},
        Key: {"time": 0.0, "x": 0.0, "y": 0.0, "scale": 1.0, "easing": "linear"},
        Motion: {"box": BOX, "path": (), "kind": "object", "curve": "spline", "name": "", "mask": None},
        Scene: {
            "image": Image.new("RGB", (40, 30)),
            "motions": (),
            "fit": "stretch",
            "prompt": "",
            "negative_prompt": "",
            "reference": None,
        },
    }
    field = data.draw(st.sampled_from(sorted(valid[kind])))
    value = data.draw(garbage)
    try:
        kind(**(valid[kind] | {field: value}))
    except ValueError as error:
        assert str(error).startswith(field) or kind is Box, str(error)
        assert "\n" not in str(error) and "; " in str(error)


@given(scenes())
def test_scenes_are_values(scene: Scene) -> None:
    again = dataclasses.replace(scene, image=scene.image.copy())
    assert again == scene
    assert Scene(image=scene.image, motions=scene.motions, prompt=scene.prompt + "x") != scene


def test_an_image_on_its_side_is_refused() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.new("RGB", (40, 30))
    image.info["exif"] = exif.tobytes()
    with pytest.raises(ValueError, match=r"image: its EXIF data says it lies on its side"):
        Scene(image=image)

"""Drags, pins and cameras as short texts: what they say, printing and reading again, and refusals in one line."""

import shlex
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from scene_strategies import boxes, paths
from sgi2v.camera import Camera, camera_motions, pan, zoom
from sgi2v.cli import main
from sgi2v.errors import FieldError
from sgi2v.prompting.cameras import camera_in, camera_text, parse_camera
from sgi2v.prompting.drags import POINT_BOX, Drag
from sgi2v.prompting.notation import Measure
from sgi2v.prompting.photo import command_of, motions_of
from sgi2v.scene import Box, Easing, Key, Kind, Motion, Scene
from sgi2v.scene_io import load_scene, save_scene

SIZE = (640, 480)
PHOTO = Image.new("RGB", SIZE, "teal")
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@st.composite
def motions(draw: st.DrawFn) -> Motion:
    """Any motion whose text says all of it: on its centre, without a mask and without an easing after the end."""
    box = draw(boxes(*SIZE))
    path = draw(st.one_of(st.just(()), paths()))
    kind, name = draw(st.sampled_from(get_args(Kind))), draw(names)
    if not path:
        return Motion(box=box, kind=kind, name=name)
    first = replace(path[0], x=box.center[0], y=box.center[1])
    path = (first, *path[1:-1], replace(path[-1], easing="linear"))
    return Motion(box=box, path=path, kind=kind, name=name, curve=draw(st.sampled_from(["polyline", "spline"])))


@given(motions())
def test_what_is_printed_reads_as_the_same_motion(motion: Motion) -> None:
    text = str(Drag.of(motion))
    assert Drag.parse(text).motion(SIZE) == motion
    assert str(Drag.parse(text)) == text


@given(boxes(*SIZE), paths())
def test_a_path_beside_its_box_is_printed_on_it(box: Box, path: tuple[Key, ...]) -> None:
    """Only differences of a path count, so the boxes are the same but for rounding."""
    motion = Motion(box=box, path=path)
    again = Drag.parse(str(Drag.of(motion))).motion(SIZE)
    times = np.linspace(0, 1, 9)
    for one, other in zip(motion.boxes_at(times), again.boxes_at(times), strict=True):
        assert np.allclose([*one.center, one.width], [*other.center, other.width], atol=1e-8, rtol=1e-8)


def cameras() -> st.SearchStrategy[Camera]:
    share = st.integers(-40, 40).map(lambda n: n / 100)
    return st.builds(
        Camera,
        dx=share,
        dy=share,
        zoom=st.integers(60, 160).map(lambda n: n / 100),
        roll=st.integers(-60, 60).map(float),
        easing=st.sampled_from(get_args(Easing)),
    )


@given(st.builds(Camera, dx=st.floats(-10, 10), zoom=st.floats(0.01, 100), roll=st.floats(-3600, 3600)) | cameras())
def test_a_camera_that_is_printed_reads_as_the_same(camera: Camera) -> None:
    assert parse_camera(camera_text(camera), SIZE) == camera


@settings(max_examples=12)
@given(cameras())
def test_a_camera_is_found_in_its_boxes(camera: Camera) -> None:
    thing = Motion(box=Box(left=300, top=200, right=340, bottom=240))
    scene = Scene(image=PHOTO, motions=(thing, *camera_motions(camera, SIZE, avoid=[thing])))
    found = camera_in(scene)
    if camera.still:
        assert found is None  # boxes that stand still are pins
    else:
        assert found is not None
        assert command_of(scene, "a.jpg").text.count("--drag") == 0
        again = camera_motions(found, SIZE, avoid=[thing])
        for one, other in zip(again, scene.motions[1:], strict=True):
            assert np.allclose(one.centers(5), other.centers(5), atol=1e-5)


def test_boxes_that_no_camera_makes_are_drags() -> None:
    moved = camera_motions(zoom(1.2), SIZE)
    bent = replace(moved[3], path=(*moved[3].path[:-1], replace(moved[3].path[-1], x=0.0)))
    scene = Scene(image=PHOTO, motions=(*moved[:3], bent, *moved[4:]))
    assert camera_in(scene) is None
    assert command_of(scene, "a.jpg").text.count("--drag") == len(moved)


def told(text: str) -> list[tuple[float, float, float, float]]:
    """Time, x, y and scale of each key."""
    return [(key.time, key.x, key.y, key.scale) for key in Drag.parse(text).motion(SIZE).path]


def test_what_texts_say() -> None:
    assert told("210,160,400,330 -> 430,220") == [(0, 305, 245, 1), (1, 430, 220, 1)]
    assert told("25%,50%,75%,100% -> 50%,0%") == [(0, 320, 360, 1), (1, 320, 0, 1)]
    assert told("320,240 -> by 10%,-5%") == [(0, 320, 240, 1), (1, 384, 216, 1)]
    assert told("1,1 → 2,2 → by 3,3→4,4") == [(0, 1, 1, 1), (1 / 3, 2, 2, 1), (2 / 3, 5, 5, 1), (1, 4, 4, 1)]
    assert told("9,9 @0.2 -> 8,8 @ 50% scale 2 -> 7,7 -> 6,6 scale 50%")[1:] == [
        (0.5, 8, 8, 2), (0.75, 7, 7, 2), (1, 6, 6, 0.5),
    ]  # fmt: skip
    motion = Drag.parse("  the cup : 5 , 5 , 9 , 9 smooth->7,7 ease in-out -> 8,8 ease-out camera").motion(SIZE)
    assert (motion.name, motion.curve, motion.kind) == ("the cup", "spline", "camera")
    assert [key.easing for key in motion.path] == ["ease-in-out", "ease-out", "linear"]
    assert Drag.parse('"a: \\"b\\" -> c": 1,2 -> 3,4').name == 'a: "b" -> c'


def test_a_point_has_a_box_that_stays_on_the_picture() -> None:
    side = POINT_BOX * 480
    assert Drag.parse("320,240").box(SIZE) == Box.around(320, 240, side)
    corner = Drag.parse("0,480 -> 5,5")
    assert corner.box(SIZE) == Box(left=0, top=480 - side / 2, right=side / 2, bottom=480)
    assert corner.motion(SIZE).path[0] == Key(time=0, x=0, y=480)


def test_a_camera_text_is_the_presets_sum() -> None:
    assert parse_camera("zoom 1.2, pan right 10%", SIZE) == pan(dx=0.1) + zoom(1.2)
    assert parse_camera("pan left 64, pan up 25%, roll -5, ease in", SIZE) == Camera(
        dx=-0.1, dy=-0.25, roll=-5, easing="ease-in"
    )
    things = motions_of(SIZE, drags=["1,1,99,99 -> 200,200"], pins=["600,400"], camera="zoom 80%")
    assert things[2:] == camera_motions(zoom(0.8), SIZE, avoid=things[:2])


REFUSED = (
    ({"drags": [" "]}, r"drags\[0\]: is empty; say"),
    ({"drags": ["1,2"]}, r"drags\[0\]: 1,2 goes nowhere"),
    ({"pins": ["1,2 -> 3,4"]}, r"pins\[0\]: a pin stays"),
    ({"drags": ["1,2 -> 3,4", "1,2,3 -> 4,5"]}, r"drags\[1\]: '1,2,3' is no box or point"),
    ({"drags": ["641,2 -> 4,5"]}, r"drags\[0\]: 641,2 is not on the picture of 640x480"),
    ({"drags": ["9,9,8,8 -> 4,5"]}, r"drags\[0\]\.right: "),
    ({"drags": ["1,2 -> 3,4 wobble"]}, r"drags\[0\]: 'wobble' is not understood; behind a place stand"),
    ({"drags": ["1,2 -> 3,4 ease up"]}, r"drags\[0\]: ease 'up' is not known"),
    ({"drags": ["1,2 -> 3,4 @1 @0.5"]}, r"drags\[0\]: time is said twice"),
    ({"drags": ["1,2 -> 3,4 @0.6 -> 5,6 @0.5"]}, r"drags\[0\]\.path\[2\]\.time: 0.5 is not after 0.6"),
    ({"drags": ["1,2 -> 3,4 @2"]}, r"drags\[0\]\.time: 2.0 is outside"),
    ({"drags": ["1,2 -> 3,4 scale 0"]}, r"drags\[0\]\.scale: "),
    ({"drags": ["1,2 -> 3,4 scale 1e999"]}, r"drags\[0\]: the scale '1e999' is not finite"),
    ({"drags": ["1,2 -> 3e999,4"]}, r"drags\[0\]\.x: .* not finite"),
    ({"drags": ["left -> right"]}, r"drags\[0\]: 'left' is no place"),
    ({"drags": ["1,2 -> " * 9]}, r"drags\[0\]: '' is no place"),
    ({"drags": ["1,2" + " -> 3,4" * 10_000]}, r"drags\[0\]: 10000 stops; give at most 9999"),
    ({"drags": ["1,2 -> 3,4"] * 10_000}, r"drags: 10000 motions; give at most 256"),
    ({"drags": ["9" * 2_000_000]}, r"drags\[0\]: 2000000 characters"),
    ({"drags": "1,2 -> 3,4"}, r"drags: is one text, not a list"),
    ({"drags": ["5,5,9,9 -> 1,1"], "pins": ["5,5,9,9"]}, r"pins\[0\]: is of the same box as drags\[0\]"),
    ({"camera": "zoom 1.2, zoom 1.3"}, r"camera: 'zoom 1.3' comes on top"),
    ({"camera": "pan left 10%, pan right 5%"}, r"camera: 'pan right 5%' comes on top"),
    ({"camera": "dance"}, r"camera: 'dance' is not understood; say zoom F"),
    ({"camera": "zoom 0"}, r"camera\.zoom: 0\.0 is out of range"),
    ({"camera": "roll 5%"}, r"camera: roll 5% is no turn"),
    ({"camera": "zoom 1.2,"}, r"camera: '' is not understood"),
)


@pytest.mark.parametrize(("said", "line"), REFUSED)
def test_refused_in_one_line(said: dict[str, object], line: str) -> None:
    with pytest.raises(FieldError, match=f"^{line}") as error:
        Scene.of(PHOTO, **said)  # type: ignore[arg-type]
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


@given(st.text(max_size=60) | st.text("0123456789.,%->@e +-by scalmot:\"'", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        drag = Drag.parse(text)
        drag.motion(SIZE)
    except FieldError:
        return
    assert Drag.parse(str(drag)).motion(SIZE) == drag.motion(SIZE)


def test_measures_are_exact() -> None:
    for value in (0.1, 1e-17, 123456789.123, 1e20, -3.5, 5e-324):
        assert float(Measure.read(str(Measure.of(value))).value) == value


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    PHOTO.save("my photo.png")
    return tmp_path / "my photo.png"


def test_a_command_makes_the_scene_that_was_printed_as_it(photo: Path) -> None:
    scene = Scene.of(
        photo,
        drags=["cup: 210,160,400,330 -> 430,220 @0.4 ease in-out -> 500,100 scale 1.2", "it's: 99,99 -> 90,90"],
        pins=["10%,80%"],
        camera="zoom 1.1, pan left 5%",
        prompt="- a cup",
    )
    said = command_of(scene, "my photo.png", "convert")
    assert said.left_out == () and "--prompt='- a cup'" in said.text
    words = [word for word in shlex.split(said.text)[1:] if not word.startswith("--prompt")]
    assert main([*words[:2], "out.json", *words[2:]]) == 0
    assert replace(load_scene("out.json"), prompt="- a cup") == scene
    assert load_scene("out.json").fit == "aspect"
    masked = replace(scene, motions=(replace(scene.motions[0], mask=Image.new("L", SIZE, 255)),))
    assert command_of(masked, "a.png").left_out == ("masks",)


def test_a_photo_alone_is_told_what_to_add(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("generate", "preview", "mask"):
        assert main([command, photo.name]) == 2
        line = capsys.readouterr().err
        assert line.startswith("sgi2v: scene: my photo.png is a photo, and nothing is said to move in it; add --drag ")
        assert line.count("\n") == 1


def test_bad_texts_are_refused_before_a_model_is_opened(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--drag", "1,2 -> x"], ["--drag", ""], ["--pin", "9999,1"], ["--drag", "1,2->3,4"] * 300):
        assert main(["generate", photo.name, "--backbone", "bundled", *words]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_texts_add_to_a_scene(photo: Path) -> None:
    save_scene(Scene.of(photo, drags=["50,50 -> 90,90"]), "made.json")
    assert main(["convert", "made.json", "more.json", "--pin", "300,300", "--fit", "cover"]) == 0
    scene = load_scene("more.json")
    assert [bool(motion.path) for motion in scene.motions] == [True, False] and scene.fit == "cover"


def test_a_masks_scene_and_the_photo_itself_is_kept(photo: Path) -> None:
    picture = np.zeros((480, 640, 3), dtype=np.uint8)
    picture[180:300, 230:370] = (220, 40, 40)
    Image.fromarray(picture).save(photo)
    before = photo.read_bytes()
    assert main(["mask", photo.name, "--drag", "200,150,400,330 -> 450,240", "--output", "."]) == 0
    (motion,) = load_scene("scene.json").motions
    assert motion.mask is not None and motion.mask.getbbox() == (230, 180, 370, 300)
    assert photo.read_bytes() == before


def test_times_left_out_lie_evenly() -> None:
    path = Drag.parse("1,1 @0.1 -> 2,2 -> 3,3 -> 4,4 @0.7 -> 5,5 -> 6,6").motion(SIZE).path
    gaps = [b.time - a.time for a, b in pairwise(path)]
    assert np.allclose(gaps, [0.2, 0.2, 0.2, 0.15, 0.15])

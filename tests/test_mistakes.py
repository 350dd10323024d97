"""Mistakes in what is typed after `sgi2v generate`: each gets the line that says what stands where it should not."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sgi2v.cli import main
from sgi2v.scene_io import load_scene
from test_cli import folder, refused

__all__ = ["folder"]  # a fixture

MISTAKES = {
    "": r"scene: none was given; say sgi2v generate SCENE",
    "--seed 3": r"scene: none was given",
    "controller:sg-i2v": r"scene: none was given",
    "scene.json controller:sgi2v":
        r"controller: unknown 'sgi2v'; did you mean sg-i2v\? known are none, sg-i2v, .*freetraj\+sg-i2v",
    "scene.json controller:Time_To_Move": r"controller: unknown 'Time_To_Move'; did you mean time-to-move\?",
    "scene.json controller:": r"controller: unknown ''; known are none",
    "scene.json controller:sg-i2v controller:freetraj":
        r"controller: controller:sg-i2v and controller:freetraj are both",
    "scene.json --controller.lr 0.3":
        r"controller.lr: no method is named that it could be of; say one before it, as in controller:sg-i2v --contr",
    "scene.json --controller.t-weak=3":
        r"controller.t_weak: no method is named .*controller:time-to-move --controller.t-weak",
    "scene.json --controller.lr 0.3 controller:sg-i2v":
        r"controller.lr: --controller.lr stands before controller:sg-i2v; put",
    "scene.json controller:sg-i2v --controller.t-weak 3":
        r"controller.t_weak: sg-i2v has no such field; .*time-to-move.* would take it; known are guided",
    "scene.json controller:sg-i2v --controller.iteration 3":
        r"controller.iteration: sg-i2v has no such field; did you mean iterations\?",
    "scene.json controller:time-to-move --controller.first.t-weak 3":
        r"controller.first.t_weak: time-to-move has no such field; did you mean t_weak\?",
    "scene.json controller:none --controller.lr 3": r"controller.lr: none has no such field; .*known are none",
    "scene.json controller:sg-i2v --seed 3": r"seed: --seed stands behind controller:sg-i2v; put it before",
    "scene.json controller:sg-i2v --output=a.mp4": r"output: --output=a.mp4 stands behind",
    "scene.json controller:sg-i2v --no-probed": r"probed: --no-probed stands behind",
    "scene.json controller:sg-i2v --settings.fps 3": r"settings.fps: --settings.fps stands behind",
    "controller:sg-i2v scene.json": r"scene: scene.json stands behind controller:sg-i2v; put the scene first",
    "scene.json sg-i2v": r"controller: 'sg-i2v' names no method; say controller:sg-i2v",
    "scene.json --controller sg-i2v": r"controller: '--controller' names no method; say controller:",
    "scene.json controller=freetraj": r"controller: 'controller=freetraj' names no method; say controller:freetraj",
    "photo.png": r"scene: photo.png is a photo, and nothing is said to move in it; add --drag",
    "photo.png --drag": r".*--drag",
    "photo.png --drag 5,5": r"drags\[0\]: 5,5 goes nowhere",
}  # fmt: skip


@pytest.mark.parametrize("arguments", MISTAKES)
def test_what_stands_in_the_wrong_place_is_named(
    arguments: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, "generate", *arguments.split())
    assert re.match(f"sgi2v: {MISTAKES[arguments]}", line), line


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"\xff\xd8\xff\xe0", "a picture"), (b"RIFF\0\0\0\0WEBP", "a picture"), (b"RIFF\0\0\0\0AVI ", "a video"),
        (b"\0\0\0\x18ftypheic", "a picture"), (b"\0\0\0\x18ftypisom", "a video"), (b"\x1aE\xdf\xa3", "a video"),
        (b"\x93NUMPY", "an array"), (b"GIF89a", "a picture"),
    ],
)  # fmt: skip
def test_a_picture_a_video_or_an_array_is_no_scene(start: bytes, kind: str, tmp_path: Path) -> None:
    """By its first bytes, whatever it is called and however large it is."""
    file = tmp_path / "scene.json"
    file.write_bytes(start + bytes(70 << 20))
    with pytest.raises(ValueError, match=f"scene: .*scene.json is {kind}, not a scene; (say|give)"):
        load_scene(file)


def test_a_misspelt_command_gets_the_nearest(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "unknown 'genrate'; did you mean generate? known are" in refused(capsys, "genrate", "scene.json")


def test_mask_does_what_it_can(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One thing stands out, one is plain ground."""
    pixels = np.full((90, 120, 3), 40, np.uint8)
    pixels[20:50, 20:50] = (220, 60, 40)
    Image.fromarray(pixels).save("photo.png")

    def motion(left: int, right: int) -> dict[str, object]:
        box = {"left": left, "top": 15, "right": right, "bottom": 55}
        return {"box": box, "path": [{"time": 0, "x": 35, "y": 35}, {"time": 1, "x": 40, "y": 35}]}

    scene = {"format": "sgi2v-scene", "version": 1, "image": "photo.png"}
    for name, motions in (("two", [motion(15, 55), motion(80, 110)]), ("none", [motion(80, 110)])):
        Path(f"{name}.json").write_text(json.dumps({**scene, "motions": motions}))
    assert main(["mask", "two.json", "--output", "made.json"]) == 0
    out, err = capsys.readouterr()
    assert out == "made.json\n" and err.count("\n") == 1
    assert err.startswith("sgi2v: warning: motions[1].box: nothing in it stands out")
    assert [one.mask is None for one in load_scene("made.json").motions] == [False, True]
    assert "motions[0].box: nothing in it stands out" in refused(capsys, "mask", "none.json", "--output", "no.json")

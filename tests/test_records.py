"""Versions of records: older files are read as they were meant, newer ones as far as they can be understood."""

import json
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sgi2v.errors import FieldError
from sgi2v.records import NewerRecord, RecordReader, read_version, version_text
from sgi2v.scene import Box, Key, Motion
from sgi2v.scene_io import NEWEST, load_scene, scene_from_dict, scene_to_dict

ROOT = Path(__file__).parents[1]
RECORDS = Path(__file__).parent / "data" / "records"


def kept(version: int | str) -> dict[str, Any]:
    data = json.loads((RECORDS / f"scene-{version}.json").read_text(encoding="utf-8"))
    assert isinstance(data, dict)
    return data


def test_a_scene_of_version_1_means_what_it_meant() -> None:
    scene = load_scene(RECORDS / "scene-1.json")
    y, x = np.mgrid[:24, :32]
    assert (np.asarray(scene.image) == np.stack([8 * x, 10 * y, 4 * (x + y)], -1)).all()
    disc, pin, camera = scene.motions
    assert disc.mask is not None
    assert (np.asarray(disc.mask) == np.where((x - 12) ** 2 + (y - 10) ** 2 < 36, 255, 0)).all()
    assert (disc.name, disc.curve, disc.box) == ("disc", "spline", Box(left=6, top=4, right=18, bottom=16))
    assert disc.path == (
        Key(time=0, x=12, y=10, easing="ease-in-out"),
        Key(time=0.5, x=16.25, y=9),
        Key(time=1, x=20, y=12, scale=1.25),
    )
    assert pin == Motion(box=Box(left=22.5, top=14, right=30, bottom=22))
    assert camera.kind == "camera" and camera.path[1].x == -1.5
    assert (scene.fit, scene.prompt, scene.reference) == ("cover", "a disc moves right", None)
    assert scene_to_dict(scene)["version"] == 1


def test_a_scene_of_version_2_means_what_it_meant() -> None:
    scene = load_scene(RECORDS / "scene-2.json")
    assert scene.reference is not None and len(scene.reference.frames) == 3
    for index, frame in enumerate(scene.reference.frames):
        assert (np.asarray(frame) == np.roll(np.asarray(scene.image), 2 * index, axis=1)).all()
    assert (np.asarray(scene.reference.masks[0]) == np.where(np.mgrid[:24, :32][1] < 16, 255, 0)).all()
    assert scene_to_dict(scene)["version"] == 2


def test_a_scene_of_version_2_1_means_what_it_meant() -> None:
    scene = load_scene(RECORDS / "scene-2.1.json")
    assert (scene.prompt, scene.negative_prompt, scene.motions) == ("a disc moves right", "blurred, still", ())
    assert scene_to_dict(scene)["version"] == "2.1"
    assert scene_to_dict(replace(scene, negative_prompt=""))["version"] == 1
    with pytest.raises(FieldError, match=r"negative_prompt: .* under an unknown field"):
        scene_from_dict({**kept("2.1"), "version": 2})


def test_a_scene_of_version_2_2_means_what_it_meant() -> None:
    scene = load_scene(RECORDS / "scene-2.2.json")
    assert (scene.fit, scene.prompt, scene.motions[0].name) == ("aspect", "a disc moves right", "disc")
    assert scene_to_dict(scene)["version"] == "2.2" and scene_to_dict(replace(scene, fit="cover"))["version"] == 1


def test_a_file_may_require_what_is_known() -> None:
    """A record within a run does: an older program must not leave out what decides the video."""
    data = {**kept("2.1"), "required": ["negative_prompt"]}
    assert scene_from_dict(data) == scene_from_dict(kept("2.1"))
    with pytest.raises(FieldError, match=r"^negative_prompt: unknown here.*must be known; update sgi2v"):
        RecordReader(data, newest=(2, 0)).known(data, set(data) - {"required", "negative_prompt"})


@pytest.mark.parametrize("version", [*range(1, NEWEST[0] + 1), version_text(NEWEST)])
def test_every_version_of_scenes_is_kept_and_described(version: int | str) -> None:
    assert kept(version)["version"] == version
    scenes = (ROOT / "docs" / "records.md").read_text(encoding="utf-8").split("## Scenes")[1]
    row = re.search(rf"^\| {version} \|.*", scenes, re.MULTILINE)
    assert row is not None and (version == 1) == ("`motions`" in row[0])


def test_what_a_newer_minor_version_adds_is_left_out_and_named() -> None:
    data = kept(2)
    scene = scene_from_dict(data)
    data |= {"version": "2.3", "mood": "calm"}
    data["motions"][0]["box"]["depth"] = 3
    data["motions"][0]["layer"] = {"front": True}
    with pytest.warns(NewerRecord) as told:
        assert scene_from_dict(data) == scene
    assert len(told) == 1
    assert str(told[0].message) == (
        "version: 2.3 is newer than this program, which leaves out mood, motions.box.depth, motions.layer; update sgi2v"
    )


def test_a_newer_minor_version_without_anything_new_is_read_in_silence() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert scene_from_dict({**kept(2), "version": "2.7", "required": []}) == scene_from_dict(kept(2))
        assert scene_from_dict({**kept(1), "version": "1.0"}) == scene_from_dict(kept(1))


def test_what_a_newer_version_requires_must_be_known() -> None:
    data = {**kept(1), "version": "2.3", "required": ["motions.path.tension", "mood"]}
    data["motions"][0]["path"][1]["tension"] = 0.5
    with pytest.raises(FieldError, match="must be known; update sgi2v") as error:
        scene_from_dict(data)
    assert error.value.field == "motions[0].path[1].tension"
    with pytest.raises(FieldError, match=r"^required: 7 is not a list of names"):
        scene_from_dict({**data, "required": 7})


@pytest.mark.parametrize("version", [1, 2, "2.0"])
def test_an_unknown_field_of_a_known_version_is_a_mistake(version: int | str) -> None:
    for name in ("mood", "required"):
        with pytest.raises(FieldError, match=f"^{name}: .* under an unknown field; known are fit"):
            scene_from_dict({**kept(1), "version": version, name: []})


@pytest.mark.parametrize("version", [3, "3.0", "3.1", 10**30])
def test_a_newer_major_version_is_refused(version: int | str) -> None:
    with pytest.raises(FieldError, match=r"is newer than 2\.2, the newest known here; update sgi2v") as error:
        scene_from_dict({**kept(1), "version": version})
    assert error.value.field == "version"


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -1, 1.0, "1", "2.", ".1", "2.1.0", "02.1", "2.01", "2.-1", " 2.1", "٢.١", [2, 1], {}],
)
def test_what_is_no_version_is_refused(value: Any) -> None:
    with pytest.raises(FieldError, match="is not a version; say a whole number from 1 to 2"):
        read_version({"version": value}, newest=(2, 0))


def test_versions_are_read_and_said_alike() -> None:
    for value, version in ((1, (1, 0)), (2, (2, 0)), ("2.13", (2, 13))):
        assert read_version({"version": value}, newest=(2, 0)) == version
        assert version_text(version) == str(value)


def test_a_record_within_another_names_its_place() -> None:
    reader = RecordReader({"version": 1}, "run.scene", newest=(1, 0))
    with pytest.raises(FieldError) as error:
        reader.known({"left": 0, "depth": 1}, ("left",), "motions[0].box")
    assert error.value.field == "run.scene.motions[0].box.depth"
    with pytest.raises(FieldError) as error:
        RecordReader({"version": 2}, "run.scene", newest=(1, 3))
    assert error.value.field == "run.scene.version" and "newer than 1.3" in error.value.problem

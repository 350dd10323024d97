"""Scene files: what is written is read back exactly, and whatever else is read gives one clear line."""

import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from scene_strategies import garbage, scenes
from sgi2v.cli import main
from sgi2v.errors import FieldError
from sgi2v.images import data_uri, png_bytes
from sgi2v.scene import Box, Key, Motion, Scene
from sgi2v.scene_io import (
    load_scene,
    save_scene,
    save_traj,
    scene_from_dict,
    scene_to_dict,
)
from sgi2v.writing import write_files

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "src" / "sgi2v" / "assets" / "scenes"
BOX = Box(left=1, top=2, right=5, bottom=6)
PATH = (
    Key(time=0, x=3, y=4),
    Key(time=0.5, x=6.5, y=1 / 3, easing="ease-in"),
    Key(time=1, x=9, y=4, scale=2),
)
MASK = Image.new("L", (12, 8), 255)


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


SCENE = Scene(
    image=noise(12, 8),
    motions=(Motion(box=BOX, path=PATH, name="cat ü", mask=MASK), Motion(box=BOX, kind="camera")),
    fit="cover",
    prompt='a "cat"',
)


def small(**changes: Any) -> dict[str, Any]:
    """SCENE as JSON values of its own, with some fields changed."""
    return copy.deepcopy(scene_to_dict(SCENE)) | changes


@given(scenes())
def test_json_gives_back_the_scene_exactly(scene: Scene) -> None:
    text = json.dumps(scene_to_dict(scene), allow_nan=False)
    assert scene_from_dict(json.loads(text)) == scene


@given(scenes(), st.booleans())
def test_files_give_back_the_scene_exactly(scene: Scene, embed: bool) -> None:
    with TemporaryDirectory() as folder:
        path = save_scene(scene, folder, embed=embed)
        assert path.name == "scene.json"
        assert load_scene(path) == load_scene(folder) == scene
        assert embed == (os.listdir(folder) == ["scene.json"])


def test_two_scenes_share_a_folder(tmp_path: Path) -> None:
    other = Scene(image=Image.new("RGB", (3, 3)))
    save_scene(SCENE, tmp_path / "one.json")
    save_scene(other, tmp_path / "two: 2.json")
    assert load_scene(tmp_path / "one.json") == SCENE
    assert load_scene(tmp_path / "two: 2.json") == other


def test_a_scene_moves_with_its_folder(tmp_path: Path) -> None:
    save_scene(SCENE, tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    assert load_scene(tmp_path / "there") == SCENE


def test_saving_again_replaces(tmp_path: Path) -> None:
    save_scene(SCENE, tmp_path)
    other = Scene(image=Image.new("RGB", (3, 3)))
    save_scene(other, tmp_path)
    assert load_scene(tmp_path) == other


def test_a_key_is_one_line_of_the_file(tmp_path: Path) -> None:
    text = save_scene(SCENE, tmp_path).read_text(encoding="utf-8")
    assert '        {"time": 0.5, "x": 6.5, "y": 0.3333333333333333, "easing": "ease-in"},\n' in text
    assert '"name": "cat ü"' in text


@pytest.mark.parametrize("name", ["cat", "coffee", "galaxies", "rocket", "shapes"])
def test_shipped_scenes_load(name: str, tmp_path: Path) -> None:
    scene = load_scene(SHIPPED / name)
    assert scene.motions and scene.image.mode == "RGB"
    save_scene(scene, tmp_path)
    assert load_scene(tmp_path) == scene
    (picture,) = (SHIPPED / name).glob("*.jpg")
    assert picture.stat().st_size <= 150_000
    assert f"`{name}`" in (SHIPPED / "LICENSES.md").read_text(encoding="utf-8")


def test_the_scene_of_the_documentation_loads(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "scene.md").read_text(encoding="utf-8")
    (tmp_path / "scene.json").write_text(text.split("```json\n")[1].split("```")[0], encoding="utf-8")
    (tmp_path / "photo.jpg").write_bytes((SHIPPED / "cat" / "photo.jpg").read_bytes())
    shown, shipped = load_scene(tmp_path), load_scene(SHIPPED / "cat")
    assert [motion.box for motion in shown.motions] == [motion.box for motion in shipped.motions]


def test_the_python_of_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "scene.md").read_text(encoding="utf-8")
    (tmp_path / "photo.jpg").write_bytes((SHIPPED / "cat" / "photo.jpg").read_bytes())
    monkeypatch.chdir(tmp_path)
    exec(text.split("```python\n")[1].split("```")[0], {})
    assert (tmp_path / "my-scene" / "scene.json").is_file()


# What is wrong with a JSON file


def set_at(data: Any, place: str, value: Any) -> Any:
    """`data` with the value at a place such as motions.0.path.1.time replaced, or taken away."""
    *way, last = [int(part) if part.isdigit() else part for part in place.split(".")]
    inner = data
    for part in way:
        inner = inner[part]
    if value is Ellipsis:
        del inner[last]
    else:
        inner[last] = value
    return data


KEY = {"time": 0.2, "x": 1, "y": 2}
BAD: list[tuple[str, Any, str]] = [
    ("format", ..., r"format: None is not a scene; say \"sgi2v-scene\""),
    ("format", "other", r"format: 'other' is not a scene"),
    ("version", 3, r"version: 3 is newer than 2.2, the newest known here; update sgi2v"),
    ("version", "1", r"version: '1' is not a version; say a whole number from 1 to 2"),
    ("version", True, r"version: True is not a version"),
    ("colour", 3, r"colour: 3 under an unknown field; known are fit, format, image, motions"),
    ("image", ..., r"image: missing; every scene needs it"),
    ("image", 3, r"image: 3 is not a text"),
    ("image", "missing.png", r"image: '.*missing.png' is no file"),
    ("image", "data:image/png;base64,AAAA", r"image: 3 bytes cannot be read as a picture; give one of PNG"),
    ("image", "data:image/png;base64,A*A=", r"image: .* is not base64"),
    ("image", "data:text/html,hello", r"image: 'data:text/html,hello' is no picture"),
    ("motions", {}, r"motions: \{\} is not a list"),
    ("motions", [0] * 300, r"motions: 300 entries; give at most 256"),
    ("motions.1", 7, r"motions\[1\]: 7 is not an object; give \{\.\.\.\} with box"),
    ("motions.1.box", ..., r"motions\[1\]\.box: missing; every motion needs it"),
    (
        "motions.1.speed",
        7,
        r"motions\[1\]\.speed: 7 under an unknown field; known are box, curve, kind, mask",
    ),
    ("motions.0.box.left", "1", r"motions\[0\]\.box\.left: '1' is not a number"),
    ("motions.0.box.left", float("nan"), r"motions\[0\]\.box\.left: nan is not finite"),
    ("motions.0.box.left", -1, r"motions\[0\]\.box\.left: -1\.0 leaves the image of 12x8; give 0 to 12"),
    ("motions.0.box.right", 12.5, r"motions\[0\]\.box\.right: 12\.5 leaves the image"),
    ("motions.0.box.right", 1, r"motions\[0\]\.box\.right: 1\.0 is not right of left"),
    ("motions.0.box.width", 1, r"motions\[0\]\.box\.width: 1 under an unknown field"),
    ("motions.0.box.bottom", ..., r"motions\[0\]\.box\.bottom: missing; every box needs it"),
    ("motions.0.path", [KEY], r"motions\[0\]\.path: 1 key; give two or more, or none to pin the box"),
    ("motions.0.path", {}, r"motions\[0\]\.path: \{\} is not a list"),
    ("motions.0.path.1.time", 0, r"motions\[0\]\.path\[1\]\.time: 0\.0 is not after 0\.0"),
    ("motions.0.path.1.time", 1.5, r"motions\[0\]\.path\[1\]\.time: 1\.5 is outside 0 to 1"),
    ("motions.0.path.1.x", float("inf"), r"motions\[0\]\.path\[1\]\.x: inf is not finite"),
    ("motions.0.path.1.y", ..., r"motions\[0\]\.path\[1\]\.y: missing; every key needs it"),
    ("motions.0.path.1.z", 0, r"motions\[0\]\.path\[1\]\.z: 0 under an unknown field"),
    ("motions.0.path.0.scale", 2, r"motions\[0\]\.path\[0\]\.scale: 2\.0; the first key's scale must be 1"),
    ("motions.0.path.1.easing", "bounce", r"motions\[0\]\.path\[1\]\.easing: 'bounce' is not known"),
    ("motions.0.kind", "thing", r"motions\[0\]\.kind: 'thing' is not known"),
    (
        "motions.0.mask",
        data_uri(Image.new("L", (3, 3))),
        r"motions\[0\]\.mask: .* has 3x3 pixels; give \(12, 8\)",
    ),
    ("fit", "crop", r"fit: 'crop' is not known"),
    ("prompt", [], r"prompt: \[\] is not a text"),
]


@pytest.mark.parametrize(("place", "value", "message"), BAD)
def test_a_bad_field_is_named_with_its_value_and_the_remedy(
    place: str, value: Any, message: str, tmp_path: Path
) -> None:
    (tmp_path / "scene.json").write_text(json.dumps(set_at(small(), place, value)))
    with pytest.raises(ValueError, match=f"^({message})") as error:
        load_scene(tmp_path)
    assert "\n" not in str(error.value) and "; " in str(error.value)


@pytest.mark.parametrize(
    "path",
    ["/etc/hostname", "../secret.png", "a/../../secret.png", "C:/x.png", "C:\\x.png", "\\\\host\\x.png", "a//b.png",
     "http://example.org/x.png", "https://example.org/x.png", "file:///etc/hostname", "", ".", "x\0.png", "..",
     "link.png", "a" * 5000 + ".png", "~/x.png", "x\n.png"],
)  # fmt: skip
@pytest.mark.parametrize("field", ["image", "motions.0.mask"])
def test_a_path_out_of_the_folder_is_refused(path: str, field: str, tmp_path: Path) -> None:
    folder = tmp_path / "scene"
    folder.mkdir()
    (tmp_path / "secret.png").write_bytes(png_bytes(MASK))
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(ValueError, match=r"^(image|motions\[0\]\.mask): .*; ") as error:
        scene_from_dict(set_at(small(), field, path), folder)
    assert "\n" not in str(error.value)


def test_a_scene_without_a_folder_opens_no_path() -> None:
    with pytest.raises(ValueError, match=r"image: 'photo.png' is a path, but this scene has no folder; embed it"):
        scene_from_dict(small(image="photo.png"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"{]", "is not JSON"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"format": "sgi2v-scene", "format": "sgi2v-scene"}', "the field 'format' is there twice"),
        (b"9" * 5000, "is not JSON"),
        (b"[]", r"scene: \[\] is not an object"),
        (b"null", r"scene: None is not an object"),
    ],
)
def test_a_file_that_is_no_scene_is_refused(text: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "scene.json").write_bytes(text)
    with pytest.raises(ValueError, match=message) as error:
        load_scene(tmp_path / "scene.json")
    assert "\n" not in str(error.value)


def test_a_missing_scene_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"scene: .*nothing.json is no file; give a scene.json, or a folder"):
        load_scene(tmp_path / "nothing.json")
    with pytest.raises(ValueError, match=r"scene: .* holds neither scene.json nor traj.npy"):
        load_scene(tmp_path)


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "scene.json").open("wb") as file:
        file.truncate(100 * 2**20)
    with pytest.raises(ValueError, match=r"is larger than 67108864 bytes"):
        load_scene(tmp_path)


def places(value: Any, name: str = "") -> Iterator[str]:
    """The places of all values within JSON values."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield f"{name}{key}"
        yield from places(item, f"{name}{key}.")


@given(st.sampled_from(sorted(places(small()))), garbage | st.just(...), garbage | st.just(...), st.data())
def test_no_json_gives_any_other_error(place: str, one: Any, two: Any, data: st.DataObject) -> None:
    changed = set_at(small(), place, one)
    if rest := sorted(places(changed)):
        changed = set_at(changed, data.draw(st.sampled_from(rest)), two)
    with TemporaryDirectory() as folder:
        try:
            scene_from_dict(changed, folder)
        except ValueError as error:
            assert "\n" not in str(error) and "; " in str(error), str(error)


# Writing


def test_a_place_that_cannot_be_written_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match=r"output: cannot write .*: File exists"):
        save_scene(SCENE, tmp_path / "file" / "scene.json")
    (tmp_path / "scene.json").mkdir()  # the last rename fails
    with pytest.raises(ValueError, match=r"output: cannot write .*scene\.json"):
        save_scene(SCENE, tmp_path / "scene.json")
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_nothing_but_whole_files_is_left_when_one_of_several_fails(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(ValueError, match="output"):
        write_files(tmp_path, {"a": b"new", "a/b": b"new"})
    assert os.listdir(tmp_path) == ["a"]


def test_what_is_written_can_be_read_by_others(tmp_path: Path) -> None:
    save_scene(SCENE, tmp_path)
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "scene.json").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("depth", [8, 16])
def test_the_pictures_of_the_scene_that_is_read_are_not_written_over(depth: int, tmp_path: Path) -> None:
    """Where a new file would have the name of a picture that the scene itself names: it stays as drawn."""
    kind = np.uint16 if depth == 16 else np.uint8
    Image.fromarray(np.arange(24 * 16).reshape(16, 24).astype(kind) * 99).save(tmp_path / "x-image.png")
    Image.new("L", (24, 16), 7).save(tmp_path / "x-mask-0.png", compress_level=0)
    motion = {"box": {"left": 2, "top": 2, "right": 9, "bottom": 9}, "mask": "x-mask-0.png"}
    data = {"format": "sgi2v-scene", "version": 1, "image": "x-image.png", "motions": [motion]}
    (tmp_path / "x.json").write_text(json.dumps(data))
    before = {name: (tmp_path / name).read_bytes() for name in ("x-image.png", "x-mask-0.png")}
    for command in (["convert", "x.json", "x.json"], ["convert", "x.json", "./x.json", "--embed"]):
        scene = load_scene(tmp_path / "x.json")
        assert main([*command[:1], *(str(tmp_path / word) for word in command[1:3]), *command[3:]]) == 0
        assert load_scene(tmp_path / "x.json") == scene
        assert {name: (tmp_path / name).read_bytes() for name in before} == before
    # Another picture under that name is refused; the published folder's img.png is kept likewise.
    (tmp_path / "x.json").write_text(json.dumps({**data, "image": "x-mask-0.png"}))
    assert main(["convert", str(tmp_path / "x.json"), str(tmp_path / "x.json")]) == 0
    Image.new("RGB", (24, 16), "red").save(tmp_path / "x-image.png")
    swapped = {**data, "image": "x-mask-0.png", "motions": [{**motion, "mask": "x-image.png"}]}
    (tmp_path / "x.json").write_text(json.dumps(swapped))
    assert main(["convert", str(tmp_path / "x.json"), str(tmp_path / "x.json")]) == 2
    published = tmp_path / "traj"
    save_traj(load_scene(tmp_path / "x.json"), published, 4)
    Image.fromarray(np.arange(24 * 16).reshape(16, 24).astype(np.uint16) * 99).save(published / "img.png")
    kept = (published / "img.png").read_bytes()
    assert main(["convert", str(published), str(published), "--num-frames", "6"]) == 0
    assert (published / "img.png").read_bytes() == kept


def test_what_docs_say_of_versions_and_paths_holds() -> None:
    data = scene_to_dict(Scene(image=Image.new("RGB", (8, 8)), motions=(Motion(box=Box.around(4, 4, 4)),)))
    with pytest.raises(FieldError, match=r"motions\[0\]\.path: 0 keys; give two or more, or leave path out"):
        scene_from_dict({**data, "motions": [{**data["motions"][0], "path": []}]})
    with pytest.raises(FieldError, match="version: 2 is for a scene with a reference, and there is none; say 1"):
        scene_from_dict({**data, "version": 2})
    with pytest.raises(FieldError, match=r"version: 2\.1 is for a scene with a negative_prompt, and there is none"):
        scene_from_dict({**data, "version": "2.1"})

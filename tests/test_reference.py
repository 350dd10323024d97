"""A person's own clip: read from whatever holds it, brought to a model's frames, refused where it is wrong."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sgi2v.grid import Grid, tracks_of
from sgi2v.images import data_uri
from sgi2v.reference import Reference, load_reference
from sgi2v.scene import Scene
from sgi2v.scene_io import load_scene, save_scene, scene_from_dict, scene_to_dict
from sgi2v.video import Video

IMAGE = Image.new("RGB", (32, 16), (9, 8, 7))


def numbered(count: int) -> tuple[Image.Image, ...]:
    return tuple(Image.new("RGB", (32, 16), (10 * k, 0, 0)) for k in range(count))


def half(left: bool) -> Image.Image:
    mask = Image.new("L", (32, 16))
    mask.paste(200, (0, 0, 16, 16) if left else (16, 0, 32, 16))
    return mask


def test_any_number_of_frames_serves_by_the_nearest_in_time() -> None:
    clip = Reference(frames=numbered(5))
    shown = [np.asarray(frame)[0, 0, 0] // 10 for frame, _ in clip.at(9)]
    assert shown == [0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert [np.asarray(frame)[0, 0, 0] // 10 for frame, _ in clip.at(3)] == [0, 2, 4]
    assert [np.asarray(frame)[0, 0, 0] // 10 for frame, _ in clip.at(1)] == [0]
    assert all(np.asarray(mask).min() == 255 for _, mask in clip.at(4)), "without masks the clip is meant everywhere"
    one = Reference(frames=numbered(3), masks=(half(True),)).at(2)
    many = Reference(frames=numbered(2), masks=(half(True), half(False))).at(2)
    assert [np.asarray(mask)[0].tolist() for _, mask in one] == [[255] * 16 + [0] * 16] * 2
    assert [np.asarray(mask)[0, 0] for _, mask in many] == [255, 0]


def test_a_scene_at_a_models_size_has_its_reference_at_that_size_too() -> None:
    reference = Reference(frames=numbered(3), masks=(half(False),))
    tracks = tracks_of(Scene(image=IMAGE, reference=reference), Grid(width=64, height=64, num_frames=5))
    assert tracks.reference is not None
    assert len(tracks.reference.frames) == len(tracks.reference.masks) == 5
    assert {p.size for p in (*tracks.reference.frames, *tracks.reference.masks)} == {(64, 64)}
    assert np.asarray(tracks.reference.masks[0])[:, 40:].min() == 255


@pytest.mark.parametrize("kind", ["mp4", "gif", "folder", "list", "one"])
def test_every_way_to_name_a_clip_reads_it(kind: str, tmp_path: Path) -> None:
    frames = numbered(3)
    masks = (half(True),) * 3
    value: Any = f"clip.{kind}" if kind in ("mp4", "gif") else "clip"
    mask: Any = f"mask.{kind}" if kind in ("mp4", "gif") else "masks"
    if kind in ("mp4", "gif"):
        for name, pictures in ((value, frames), (mask, masks)):
            pixels = np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])
            clip = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
            Video(frames=clip).save(tmp_path / name)
    else:
        for folder, pictures in ((value, frames), (mask, masks)):
            (tmp_path / folder).mkdir()
            for index, picture in enumerate(pictures):
                picture.save(tmp_path / folder / f"{index}.png")
            (tmp_path / folder / "run.json").write_text("{}")
    if kind == "list":
        value, mask = [f"clip/{k}.png" for k in range(3)], [data_uri(picture) for picture in masks]
    if kind == "one":
        mask = "masks/0.png"
    save_scene(Scene(image=IMAGE), tmp_path)
    data = json.loads((tmp_path / "scene.json").read_text())
    (tmp_path / "scene.json").write_text(
        json.dumps({**data, "version": 2, "reference": {"frames": value, "masks": mask}})
    )
    scene = load_scene(tmp_path)
    assert scene.reference is not None and len(scene.reference.frames) == 3
    for read, meant in zip(scene.reference.frames, frames, strict=True):
        assert np.abs(np.asarray(read).astype(int) - np.asarray(meant)).max() <= (6 if kind == "mp4" else 0)
    for _, inside in scene.reference.at(3):
        assert np.asarray(inside)[:, :14].min() == 255 and np.asarray(inside)[:, 18:].max() == 0
    if kind != "list":
        assert load_reference(tmp_path / value, tmp_path / mask) == scene.reference
    # What is written back is one picture a frame, and a record carries them whole.
    assert load_scene(save_scene(scene, tmp_path / "again")) == scene
    assert scene_from_dict(json.loads(json.dumps(scene_to_dict(scene)))) == scene


def test_a_scene_without_a_reference_is_what_older_readers_know() -> None:
    assert scene_to_dict(Scene(image=IMAGE))["version"] == 1
    data = scene_to_dict(Scene(image=IMAGE, reference=Reference(frames=numbered(1))))
    assert data["version"] == 2
    with pytest.raises(ValueError, match=r"^reference: .* unknown field"):
        scene_from_dict({**data, "version": 1})


@pytest.mark.parametrize(
    ("frames", "masks", "message"),
    [
        ((), (), r"reference\.frames: 0 of them; give 1 to 256"),
        (numbered(2) * 129, (), r"reference\.frames: 258 of them"),
        ((IMAGE, IMAGE.resize((8, 8))), (), r"reference\.frames\[1\]: \(8, 8\) is not the first"),
        (numbered(3), (half(True),) * 2, r"reference\.masks: 2 for 3 frames"),
        (numbered(1), (half(True).resize((4, 4)),), r"reference\.masks\[0\]"),
        (numbered(1), (IMAGE,), r"reference\.masks\[0\]: .* mode L or 1"),
        ((Image.new("RGB", (8000, 4001)),) * 2, (), r"reference\.frames: 2 of 8000x4001 pixels"),
    ],
)
def test_a_wrong_reference_is_refused(frames: Any, masks: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        Reference(frames=frames, masks=masks)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("../clip", r"reference\.frames: .* leads out of the scene's folder"),
        ("https://example.org/clip.mp4", r"reference\.frames: .* is not a plain relative path"),
        ("out", r"reference\.frames: .* leads out of the scene's folder"),
        ("folder", r"reference\.frames: .* leads out of the scene's folder"),
        ("empty", r"reference\.frames: .* holds no pictures"),
        ("scene.json", r"reference\.frames: .*scene"),
        ("none.mp4", r"reference\.frames: cannot read .*none"),
        (["data:image/png;base64,AAAA"], r"reference\.frames\[0\]: .* cannot be read as a picture"),
        ([7], r"reference\.frames\[0\]: 7 is not a text"),
        ({}, r"reference\.frames: \{\} is not a list"),
    ],
)
def test_nothing_but_the_scenes_own_folder_is_read(value: Any, message: str, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    save_scene(Scene(image=IMAGE), inside)
    IMAGE.save(tmp_path / "secret.png")
    (inside / "out").symlink_to(tmp_path)
    (inside / "folder").mkdir()
    (inside / "folder" / "0.png").symlink_to(tmp_path / "secret.png")
    (inside / "empty").mkdir()
    data = json.loads((inside / "scene.json").read_text())
    with pytest.raises(ValueError, match=f"^{message}") as error:
        scene_from_dict({**data, "version": 2, "reference": {"frames": value}}, inside)
    assert "\n" not in str(error.value)


def test_a_video_that_is_too_large_is_refused_before_it_is_decoded_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Video(frames=torch.zeros(4, 3, 16, 32)).save(tmp_path / "clip.mp4")
    monkeypatch.setattr("sgi2v.reference.MAX_PIXELS", 3 * 16 * 32)
    with pytest.raises(ValueError, match=r"^reference\.frames: .* is too large: 4 frames of 32×16"):
        load_reference(tmp_path / "clip.mp4")

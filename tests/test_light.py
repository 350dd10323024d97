"""Light records: no more of a photo than the clip shows, and the same clip, bit by bit, when it is made again."""

import base64
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from scene_strategies import scenes
from sgi2v import Box, Key, Motion, Sampling, Scene, generate, load_video, replay
from sgi2v.cli import main
from sgi2v.controllers import SGI2V, Controller, InTurn, TimeToMove
from sgi2v.errors import FieldError
from sgi2v.grid import Grid, tracks_of
from sgi2v.light import lightened, tracks_seen
from sgi2v.planning import Range
from sgi2v.reference import Reference
from sgi2v.run import Run, embedded
from sgi2v.scene import Fit
from sgi2v.scene_io import save_scene, scene_from_dict
from sgi2v.video import read_run
from tiny import load_svd, tiny_svd

SIZE = Sampling(width=48, height=32, num_frames=3, num_steps=3)
PAIR = InTurn(
    first=TimeToMove(t_weak=60.0, t_strong=14.0), second=SGI2V(guided=Range(low=0.001, high=5.0), iterations=2)
)


def noise(*size: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8))


def photo(fit: Fit, *, reference: bool = False) -> Scene:
    """A photo of odd size with things that have masks, grow and turn, and a camera's box."""
    path = (Key(time=0, x=50.3, y=31.7), Key(time=0.4, x=57.1, y=30), Key(time=1, x=60, y=39, scale=1.3))
    box = Box(left=37.3, top=18.1, right=66.6, bottom=47.9)
    motions = (
        Motion(box=box, path=path, mask=noise(71, 101, seed=1), name="cup", curve="spline"),
        Motion(box=Box(left=40, top=20, right=45, bottom=25), path=path[:1] + path[2:], kind="camera"),
        Motion(box=Box(left=50, top=22, right=58.5, bottom=30), mask=noise(71, 101, seed=2)),
    )
    clip = Reference(
        frames=tuple(noise(71, 101, 3, seed=k) for k in range(5)), masks=tuple(noise(71, 101, seed=k) for k in range(5))
    )
    return Scene(image=noise(71, 101, 3), motions=motions, fit=fit, reference=clip if reference else None)


def picture(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("fit", get_args(Fit))
def test_a_clip_is_made_again_from_its_light_record(fit: Fit, reference: bool) -> None:
    backbone = load_svd(tiny_svd(3, light=True))
    video = generate(photo(fit, reference=reference), backbone=backbone, controller=PAIR, sampling=SIZE)
    full = video.run
    assert full is not None
    light = json.loads(json.dumps(lightened(full)))
    run = Run.from_dict(light)
    assert run.key == Run.from_dict(full).key and run.version == Run.from_dict(full).version
    assert (light["version"], light["required"][-1]) == ("2.2", "seen")
    again = replay(run, backbone=backbone)
    assert torch.equal(again.frames, video.frames)
    assert again.run == light == lightened(light)
    # Every picture in it has the clip's size.
    assert light["scene"]["fit"] == "stretch" and "data:" not in json.dumps({**light, "scene": 0, "seen": 0})
    uris = [light["scene"]["image"], *light["seen"]["masks"], *light["scene"].get("reference", {}).get("frames", [])]
    assert {picture(uri).size for uri in uris if uri} == {(48, 32)}
    # Opened again as an ordinary scene, its boxes are where they were.
    shown, grid = scene_from_dict(light["scene"]), Grid(width=48, height=32, num_frames=3)
    boxes = [tracks_of(scene, grid).boxes(range(3)) for scene in (shown, photo(fit))]
    assert np.abs(boxes[0] - boxes[1]).max() < 1e-3


def record_of(scene: Scene, width: int, height: int, num_frames: int) -> dict[str, Any]:
    sampling = {"width": width, "height": height, "num_frames": num_frames}
    run = Run(scene=embedded(scene), backbone={}, controller={"name": "none"}, sampling=sampling, versions={})
    return run.to_dict()


@given(scene=scenes(), width=st.integers(1, 40), height=st.integers(1, 40), num_frames=st.integers(1, 5))
def test_what_a_model_is_given_is_the_same_for_any_scene(
    scene: Scene, width: int, height: int, num_frames: int
) -> None:
    record = json.loads(json.dumps(lightened(record_of(scene, width, height, num_frames))))
    run = Run.from_dict(record)
    found = tracks_seen(scene_from_dict(record["scene"]), run)
    wanted = tracks_of(scene, Grid(width=width, height=height, num_frames=num_frames, stride=1))
    assert found is not None
    assert (found.image, found.reference) == (wanted.image, wanted.reference)
    for ours, theirs in zip(found.tracks, wanted.tracks, strict=True):
        assert np.array_equal(ours.boxes, theirs.boxes) and ours.boxes.dtype == theirs.boxes.dtype
        assert (ours.mask, ours.kind, ours.name) == (theirs.mask, theirs.kind, theirs.name)


def test_files_are_light_unless_told_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_scene(photo("cover"), "scene.json")
    more = ["--backbone", str(tiny_svd(3, light=True)), "--quiet", "--device", "cpu", "--dtype", "float32"]
    size = "--width 48 --height 32 --num-frames 3 --num-steps 3".split()
    made = {}
    for record in ("full", "light", "none", ""):
        said = ["--record", record] if record else []
        assert (
            main(["generate", "scene.json", *more[:2], *more[2:], *size, *said, "--output", "a", "controller:none"])
            == 0
        )
        made[record] = load_video("a")
    assert made["none"].run is None and made[""].run == made["light"].run
    assert all(torch.equal(video.frames, made["full"].frames) for video in made.values())
    assert made["full"].run is not None and picture(made["full"].run["scene"]["image"]).size == (101, 71)
    assert main(["replay", "a", "--backbone", more[1], "--device", "cpu", "--quiet", "--record", "none"]) == 0
    assert load_video("a-replay").run is None and torch.equal(load_video("a-replay").frames, made["light"].frames)
    # From Python, of the whole run and of what was read; the video itself keeps all.
    backbone = load_svd(more[1])
    video = generate(photo("cover"), backbone=backbone, controller=Controller(), sampling=SIZE, record="none")
    assert video.run is not None and not (tmp_path / "b.mp4").exists()
    video.save("b.mp4")
    with pytest.raises(FieldError, match="carries no sgi2v run"):
        read_run("b.mp4")
    video.save("b.mp4", record="full")
    assert read_run("b.mp4") == video.run
    load_video("b.mp4").save("c.gif")
    assert read_run("c.gif") == lightened(video.run) == read_run(video.save("b.mp4", record="light"))
    other = replace(video, run={"format": "mine", "x": 1}, record="light").save("d.gif")
    assert read_run(other) == {"format": "mine", "x": 1}


DAMAGE = {
    "no key": ({"key": "x"}, "run.seen: no key or version"),
    "another version": ({"version": 3}, "run.seen: no key or version"),
    "too few boxes": ({"boxes": [[[0, 0, 1, 1]]]}, "run.seen.boxes: not a box"),
    "no boxes": ({"boxes": None}, "run.seen.boxes: not a box"),
    "words": ({"boxes": "boxes"}, "run.seen.boxes: not a box"),
    "NaN": ({"boxes": [[[float("nan")] * 4] * 3] * 3}, "run.seen: does not fit"),
    "no masks": ({"masks": [None]}, "run.seen.masks: not one"),
    "a number": ({"masks": [1, None, None]}, r"run.seen.masks\[0\]: no picture"),
    "a path": ({"masks": ["/etc/passwd", None, None]}, r"run.seen.masks\[0\]"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_light_record_is_refused_in_a_line(kind: str) -> None:
    changed, message = DAMAGE[kind]
    record = lightened(record_of(photo("stretch"), 48, 32, 3))
    record["seen"] |= changed
    with pytest.raises(FieldError, match=message):
        tracks_seen(scene_from_dict(record["scene"]), Run.from_dict(record))
    with pytest.raises(FieldError, match=r"run\.seen: does not fit the clip's 40x32"):
        whole = lightened(record_of(photo("stretch"), 48, 32, 3))
        whole["sampling"]["width"] = 40
        tracks_seen(scene_from_dict(whole["scene"]), Run.from_dict(whole))

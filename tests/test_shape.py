"""The shape of a clip: the model's nearest size to a picture's, and what becomes of the rest."""

import dataclasses
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sgi2v.backbones.registry import load_backbone, outline_of
from sgi2v.controllers import Controller
from sgi2v.errors import FieldError
from sgi2v.pipeline import generate, plan, replay
from sgi2v.planning import Sampling
from sgi2v.records import version_text
from sgi2v.run import Run
from sgi2v.scene import Box, Key, Motion, Scene
from sgi2v.scene_io import load_scene, save_scene, scene_from_dict, scene_to_dict
from sgi2v.shape import MAX_AREA, MIN_AREA, Shapely, nearest_size, shaped
from sgi2v.studio.worker import as_planned
from tiny import tiny_svd

sides = st.integers(16, 4000)


@dataclass(frozen=True)
class Model:
    """What the shape of a clip asks of a model."""

    settings: Any
    aspects: tuple[float, float] = (0.5, 2.0)
    multiple: int = 16


MODEL: Any = Model(SimpleNamespace(width=320, height=192))
FIXED: Any = SimpleNamespace(settings=SimpleNamespace(width=320, height=192))


def scene(width: int, height: int, **fields: Any) -> Scene:
    return Scene(image=Image.new("RGB", (width, height)), fit="aspect", **fields)


@settings(max_examples=20)
@given(sides, sides, st.sampled_from([16, 32, 64]))
def test_no_size_the_model_makes_is_nearer(width: int, height: int, multiple: int) -> None:
    """Against every size there is, one by one."""
    own, aspects = (320, 192), (0.5, 2.0)
    found = nearest_size((width, height), own, multiple, aspects)
    wanted, area = width / height, own[0] * own[1]

    def badness(one: tuple[int, int]) -> float:
        shape = abs(math.log(one[0] / one[1] / wanted))
        return shape + 0.25 * abs(math.log(one[0] * one[1] / area))

    best = badness(own)
    for columns in range(1, 1 + 512 // multiple):
        for rows in range(1, 1 + 512 // multiple):
            one = columns * multiple, rows * multiple
            inside = aspects[0] <= one[0] / one[1] <= aspects[1]
            if inside and MIN_AREA <= one[0] * one[1] / area <= MAX_AREA:
                best = min(best, badness(one))
    assert badness(found) == pytest.approx(best, abs=1e-9)


@given(sides, sides)
def test_a_picture_turned_over_turns_the_clip_over(width: int, height: int) -> None:
    square = (256, 256)
    found, turned = (nearest_size(one, square, 64, (0.5, 2.0)) for one in ((width, height), (height, width)))
    assert found == turned[::-1]


def test_the_clip_takes_the_pictures_shape() -> None:
    planned, sampling = shaped(scene(1200, 900), MODEL, Sampling(seed=3))
    assert sampling.width is not None and sampling.height is not None and sampling.seed == 3
    assert abs(sampling.width / sampling.height / (4 / 3) - 1) < 0.05
    portrait, upright = shaped(scene(900, 1200), MODEL, Sampling())
    assert upright.width is not None and upright.height is not None and upright.width < upright.height
    assert {planned.fit, portrait.fit} <= {"stretch", "contain"}


def test_what_no_size_fits_is_padded_and_what_nobody_sees_is_stretched() -> None:
    assert shaped(scene(3000, 1000), MODEL, Sampling())[0].fit == "contain"
    assert shaped(scene(321, 192), MODEL, Sampling()) == (
        replace(scene(321, 192), fit="stretch"),
        Sampling(width=320, height=192),
    )
    only, sampling = shaped(scene(900, 1200), FIXED, Sampling())
    assert (only.fit, sampling.width, sampling.height) == ("contain", 320, 192)


def test_a_size_that_is_asked_for_is_filled_and_first_boxes_are_cut_with_the_picture() -> None:
    edge = Motion(
        box=Box(left=0, top=0, right=100, bottom=100), path=(Key(time=0, x=50, y=50), Key(time=1, x=90, y=50))
    )
    made, sampling = shaped(scene(320, 320, motions=(edge,)), MODEL, Sampling(width=320))
    assert (made.fit, sampling.width, sampling.height) == ("cover", 320, 192)
    box = made.motions[0].box
    assert (box.left, box.right, box.bottom) == (0.001, 100, 100) and box.top == pytest.approx(64.001)
    assert made.motions[0].path == edge.path
    gone = replace(edge, box=Box(left=0, top=0, right=100, bottom=60))
    with pytest.raises(FieldError, match=r"motions\[0\]\.box: lies where the picture is cut off"):
        shaped(scene(320, 320, motions=(gone,)), MODEL, Sampling(width=320))


def test_scenes_of_other_fits_keep_the_models_size() -> None:
    for fit in ("stretch", "cover", "contain"):
        old = replace(scene(900, 1200), fit=fit)
        assert shaped(old, MODEL, Sampling()) == (old, Sampling())


@pytest.mark.parametrize("size", [(400, 300), (300, 400), (512, 512), (640, 360), (1000, 200)])
def test_the_bundled_model_plans_every_shape(size: tuple[int, int]) -> None:
    outline = outline_of("bundled")
    assert isinstance(outline, Shapely) and outline.multiple == 64
    thing = Motion(box=Box(left=0, top=0, right=40, bottom=40), path=(Key(time=0, x=20, y=20), Key(time=1, x=60, y=20)))
    planned = plan(scene(*size, motions=(thing,)), outline, controller=Controller())
    ratio = planned.grid.width / planned.grid.height
    assert outline.aspects[0] <= ratio <= outline.aspects[1]
    assert planned.tracks.image.size == (planned.grid.width, planned.grid.height)
    assert planned.scene.fit in ("stretch", "contain")


def test_a_scene_of_aspect_is_of_a_new_version_and_one_that_says_no_fit_means_it(tmp_path: Path) -> None:
    made = scene(40, 30)
    data = scene_to_dict(made)
    assert (data["version"], data["fit"]) == ("2.2", "aspect")
    assert scene_from_dict(data) == made
    bare = {name: value for name, value in data.items() if name != "fit"}
    assert scene_from_dict(bare) == made
    for version, fit in ((1, "stretch"), ("2.1", "stretch")):
        extra = {"negative_prompt": "x"} if version == "2.1" else {}
        assert scene_from_dict({**bare, **extra, "version": version}).fit == fit
    with pytest.raises(FieldError, match=r'^fit: version 1 knows no aspect; say "version": "2.2"'):
        scene_from_dict({**data, "version": 1})
    assert load_scene(save_scene(made, tmp_path / "a.json")) == made
    assert json.loads((tmp_path / "a.json").read_text())["version"] == version_text((2, 2))


def test_a_portrait_photo_gives_a_portrait_clip_that_replays() -> None:
    """On a real tiny model: the clip has the photo's shape, its record what the fit came to, for older programs too."""
    backbone = load_backbone(str(tiny_svd(3, light=True)))
    own = dataclasses.replace(backbone.settings, width=128, height=64, num_frames=3, num_steps=2)
    backbone = backbone.with_settings(own)
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (150, 100, 3), dtype=np.uint8))
    clips = {}
    for drags in (["50%,50% -> by 10%,0"], []):
        made = Scene.of(photo, drags=drags)
        video = generate(made, backbone=backbone, controller=Controller())
        height, width = video.frames.shape[-2:]
        assert height > width and abs(width / height / (2 / 3) - 1) < 0.02
        assert video.run is not None and video.run["scene"]["version"] in (1, 2)
        assert video.run["scene"]["fit"] == "contain"
        assert video.run["sampling"]["width"] * video.run["sampling"]["height"] <= 1.15 * 128 * 64
        again = replay(Run.from_dict(video.run), backbone=backbone)
        assert torch.equal(again.frames, video.frames)
        clips[bool(drags)] = video
    assert torch.equal(clips[True].frames, clips[False].frames)  # without control nothing else counts
    old = generate(dataclasses.replace(Scene.of(photo), fit="stretch"), backbone=backbone, controller=Controller())
    assert old.frames.shape[-2:] == (64, 128)


@pytest.mark.parametrize("size", [{}, {"width": 320, "height": 192}, {"width": 192}])
@pytest.mark.parametrize("photo", [(300, 400), (320, 192), (400, 260)])
def test_a_studios_worker_makes_what_its_server_planned(size: dict[str, Any], photo: tuple[int, int]) -> None:
    """The plan goes to it as JSON, complete, with the scene as the page sent it."""
    outline = outline_of("bundled")
    edge = Motion(box=Box(left=0, top=0, right=200, bottom=150), path=(Key(time=0, x=9, y=9), Key(time=1, x=90, y=20)))
    asked = scene(*photo, motions=(edge,))
    first = plan(asked, outline, sampling=Sampling(**size))
    told = {"sampling": dataclasses.asdict(first.sampling), "fit": first.scene.fit}
    again = plan(as_planned(asked, told), outline, sampling=Sampling(**told["sampling"]))  # type: ignore[arg-type]
    assert again.scene == first.scene and again.grid == first.grid
    assert again.tracks.image == first.tracks.image
    for one, other in zip(again.tracks.tracks, first.tracks.tracks, strict=True):
        assert (one.boxes == other.boxes).all()

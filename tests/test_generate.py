"""From scene to video in one call: progress, cancellation, defaults, the record, and the same video again."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sgi2v import (
    SGI2V,
    SVD,
    Box,
    Cancelled,
    Controller,
    Key,
    Motion,
    Progress,
    Range,
    Run,
    Sampling,
    Scene,
    SVDSettings,
    generate,
    replay,
)
from sgi2v.backbones.registry import outline_of
from sgi2v.grid import fit_image, shown_part
from sgi2v.pipeline import plan
from sgi2v.run import public_name, trusted_source
from tiny import load_svd, tiny_svd

SMALL = Sampling(seed=3, num_steps=4, width=48, height=32, num_frames=3)


@pytest.fixture(scope="module")
def backbone() -> SVD:
    return load_svd(tiny_svd(3, light=True), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def scene() -> Scene:
    noise = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    path = (Key(time=0.0, x=32.0, y=32.0), Key(time=1.0, x=64.0, y=40.0))
    box = Box(left=16.0, top=16.0, right=48.0, bottom=48.0)
    return Scene(image=PIL.Image.fromarray(noise), motions=(Motion(box=box, path=path),))


def test_a_scene_becomes_a_video_and_its_record_makes_it_again(backbone: SVD, scene: Scene) -> None:
    seen: list[Progress] = []
    controller = SGI2V(iterations=2, guided=Range(low=1.0, high=400.0))
    video = generate(scene, backbone=backbone, controller=controller, sampling=SMALL, progress=seen.append)
    assert video.frames.shape == (3, 3, 32, 48) and video.fps == 7.0
    assert [p.phase for p in (seen[0], seen[-1])] == ["encode", "decode"]
    steps = [p for p in seen if p.phase == "sample"]
    assert [p.step for p in steps if p.iteration == 0] == [1, 2, 3, 4]
    guided = [p for p in steps if p.iteration]
    assert len(guided) % 2 == 0 and {p.num_iterations for p in guided} == {2}
    assert steps[-1].loss is not None and steps[-1].loss > 0
    fractions = [p.fraction for p in steps]
    assert fractions == sorted(fractions) and fractions[-1] < 1
    assert all(p.seconds_left is not None and p.seconds_left >= 0 for p in steps[1:])

    assert video.run is not None
    run = Run.from_dict(video.run)
    assert run.sampling == {
        "seed": 3,
        "num_steps": 4,
        "width": 48,
        "height": 32,
        "num_frames": 3,
        "dtype": "float32",
    }
    assert run.controller["name"] == "sg-i2v" and run.controller["iterations"] == 2
    other = load_svd(tiny_svd(3, light=True), device="cpu", dtype="float32")
    other = other.with_settings(replace(other.settings, fps=other.settings.fps + 5))
    own = other.settings
    again = replay(run, backbone=other)
    assert other.settings == own, "the record's settings are for the replay alone"
    with pytest.raises(Cancelled):
        replay(run, backbone=other, cancelled=lambda: True)
    assert other.settings == own
    assert torch.equal(again.frames, video.frames)
    assert again.run is not None and Run.from_dict(again.run).key == run.key


def test_the_seed_decides_and_control_changes_something(backbone: SVD, scene: Scene) -> None:
    none = generate(scene, backbone=backbone, controller=Controller(), sampling=SMALL).frames
    assert torch.equal(none, generate(scene, backbone=backbone, controller=Controller(), sampling=SMALL).frames)
    other = Sampling(seed=4, num_steps=4, width=48, height=32, num_frames=3)
    assert not torch.equal(none, generate(scene, backbone=backbone, controller=Controller(), sampling=other).frames)
    steered = generate(
        scene, backbone=backbone, controller=SGI2V(guided=Range(low=1.0, high=400.0)), sampling=SMALL
    ).frames
    assert not torch.equal(none, steered)


def test_what_the_user_leaves_open_the_backbone_decides(scene: Scene) -> None:
    settings = SVDSettings(
        width=32,
        height=32,
        num_frames=2,
        num_steps=3,
        fps=5,
        recommended={"sg-i2v": {"guided": [0.5, 999.0], "lr": 0.5}},
    )
    backbone = load_svd(tiny_svd(3, light=True), device="cpu", dtype="float32", settings=settings)
    video = generate(scene, backbone=backbone)
    assert video.frames.shape == (2, 3, 32, 32) and video.fps == 5.0
    assert video.run is not None and video.run["controller"]["lr"] == 0.5
    assert video.run["sampling"]["num_steps"] == 3 and video.run["sampling"]["seed"] == 817


def test_a_preview_shows_the_middle_frame_and_changes_nothing(
    backbone: SVD, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimates: list[torch.Tensor] = []
    real = backbone.denoise

    def denoise(*arguments: Any) -> torch.Tensor:
        estimates.append(real(*arguments))
        return estimates[-1]

    sampling = Sampling(seed=3, num_steps=25, width=48, height=32, num_frames=3)
    plain = generate(scene, backbone=backbone, controller=Controller(), sampling=sampling)
    monkeypatch.setattr(backbone, "denoise", denoise)
    seen: list[torch.Tensor] = []
    video = generate(scene, backbone=backbone, controller=Controller(), sampling=sampling, preview=seen.append)
    assert torch.equal(video.frames, plain.frames)
    wanted = [backbone.decode(x0[1:2])[0] for x0 in estimates[::5]]  # six of 25 steps at most: every fifth
    assert len(seen) == len(wanted) == 5
    assert all(torch.equal(one, other) for one, other in zip(seen, wanted, strict=True))


@pytest.mark.parametrize("after", [0, 2, 5])
def test_a_run_can_be_cancelled_between_steps_and_iterations(backbone: SVD, scene: Scene, after: int) -> None:
    asked: list[int] = []

    def cancelled() -> bool:
        asked.append(1)
        return len(asked) > after

    with pytest.raises(Cancelled):
        generate(
            scene,
            backbone=backbone,
            controller=SGI2V(guided=Range(low=1.0, high=400.0)),
            sampling=SMALL,
            cancelled=cancelled,
        )
    assert len(asked) == after + 1


def test_mistakes_are_found_before_any_compute(backbone: SVD, scene: Scene) -> None:
    def untouched(*_: object) -> None:
        raise AssertionError("the network ran")

    hook = backbone.denoiser.register_forward_pre_hook(untouched)
    try:
        with pytest.raises(ValueError, match="width"):
            generate(scene, backbone=backbone, sampling=Sampling(width=321, height=192))
        with pytest.raises(ValueError, match=r"controller\.guided"):
            generate(
                scene,
                backbone=backbone,
                controller=SGI2V(guided=Range(low=900.0, high=901.0)),
                sampling=SMALL,
            )
        cropped = Scene(
            image=scene.image,
            fit="cover",
            motions=(Motion(box=Box(left=0.0, top=0.0, right=9.0, bottom=64.0)),),
        )
        square = Sampling(num_steps=4, width=32, height=32, num_frames=2)
        with pytest.raises(ValueError, match=r"motions\[0\]\.box"):
            generate(cropped, backbone=backbone, controller=SGI2V(), sampling=square)
    finally:
        hook.remove()
    with pytest.raises(ValueError, match="num_steps"):
        Sampling(num_steps=0)
    with pytest.raises(ValueError, match="seed"):
        Sampling(seed=-1)


def test_too_little_memory_says_what_lowers_it(backbone: SVD, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    hook = backbone.denoiser.register_forward_pre_hook(full)
    with pytest.raises(MemoryError, match=r"3 frames of 48x32 in float32; lower --num-frames"):
        generate(scene, backbone=backbone, controller=Controller(), sampling=SMALL)
    hook.remove()


def test_a_record_is_checked_before_it_is_followed(backbone: SVD, scene: Scene) -> None:
    video = generate(scene, backbone=backbone, controller=Controller(), sampling=SMALL)
    assert video.run is not None
    record = video.run
    for damage, message in (
        ({"format": "other"}, "not a record"),
        ({"version": 3}, r"run\.version: 3 is newer than 2\.2, the newest known here; update sgi2v"),
        ({"extra": 1}, r"run\.extra: 1 under an unknown field"),
        ({"scene": None}, r"run\.scene"),
    ):
        with pytest.raises(ValueError, match=message):
            Run.from_dict({**record, **damage})
    changed = {**record, "backbone": {**record["backbone"], "weights_sha256": "0" * 64}}
    with pytest.raises(ValueError, match="are not those the video was made with"):
        replay(Run.from_dict(changed), backbone=backbone)


def test_a_record_names_no_folder_of_the_machine_and_none_is_followed(backbone: SVD, scene: Scene) -> None:
    run = Run.of(scene, backbone, Controller(), {})
    assert str(Path(backbone.name).parent) not in str({**run.to_dict(), "scene": None})
    with pytest.raises(ValueError, match="give that model's folder with --backbone"):
        trusted_source(run)
    assert public_name("bundled") == "bundled"
    assert public_name("stabilityai/stable-video-diffusion-img2vid") == "stabilityai/stable-video-diffusion-img2vid"
    assert public_name("/models/mine/") == public_name("C:\\models\\mine") == "mine"


def test_what_contain_adds_is_cut_off_unless_it_is_to_stay(backbone: SVD) -> None:
    """The frames of both are the same but for the padding; records without the field, as of before, keep it."""
    tall = Scene(image=PIL.Image.new("RGB", (30, 60), "orange"), fit="contain")
    size: dict[str, Any] = {"width": 64, "height": 64, "num_frames": 3, "num_steps": 2}
    made = {}
    for padding in ("cut", "keep"):
        sampling = Sampling(**size, padding=padding)
        made[padding] = generate(tall, backbone=backbone, controller=Controller(), sampling=sampling)
    cut, kept = made["cut"], made["keep"]
    assert cut.frames.shape == (3, 3, 64, 32) and kept.frames.shape == (3, 3, 64, 64)
    assert torch.equal(cut.frames, kept.frames[..., 16:48])
    assert cut.run is not None and kept.run is not None
    assert cut.run["sampling"]["padding"] == "cut" and "padding" not in kept.run["sampling"]
    assert cut.run["version"] == "2.2" and cut.run["required"] == ["sampling.padding"] and kept.run["version"] == 1
    for video in (cut, kept):
        assert video.run is not None
        record = video.recorded("light").run
        assert record is not None
        light = Run.from_dict(record)
        assert (
            torch.equal(replay(light, backbone=backbone).frames, video.frames)
            and light.key == Run.from_dict(video.run).key
        )
        again = replay(Run.from_dict(video.run), backbone=backbone)
        assert torch.equal(again.frames, video.frames) and again.run == video.run
    assert Run.from_dict(cut.run).key != Run.from_dict(kept.run).key
    for fit in ("stretch", "cover"):
        whole = generate(replace(tall, fit=fit), backbone=backbone, controller=Controller(), sampling=Sampling(**size))
        assert whole.frames.shape == (3, 3, 64, 64) and whole.run is not None and whole.run["version"] == 1


@pytest.mark.parametrize(
    ("size", "fit", "said"),
    [
        (
            (30, 60),
            "stretch",
            "picture of 30x60 is stretched to 64x64, things to 2.00 times their width for their height; fit: cover",
        ),
        ((120, 60), "stretch", "things to 0.50 times"),
        ((30, 60), "cover", ""),
        ((30, 60), "contain", ""),
        ((640, 641), "stretch", ""),
        ((500, 500), "stretch", ""),
    ],
)
def test_a_squashed_picture_is_said_once_and_leaves_the_record_as_it_was(
    size: tuple[int, int], fit: Any, said: str
) -> None:
    scene = Scene(image=PIL.Image.new("RGB", size), fit=fit)
    sampling = Sampling(width=64, height=64, num_frames=3, num_steps=2)
    planned = plan(scene, outline_of(tiny_svd(3, light=True)), controller=Controller(), sampling=sampling)
    assert len(planned.warnings) == bool(said) and planned.unused == ()
    assert not said or said in planned.warnings[0]


@given(st.tuples(*(st.integers(1, 300),) * 4))
def test_the_part_that_is_shown_is_where_the_image_lies(sides: tuple[int, int, int, int]) -> None:
    """The literal twin: white lies on black wherever the padding of a white picture is not."""
    source, target = sides[:2], sides[2:]
    place = shown_part(source, target, "contain")
    left, top, right, bottom = place
    assert 0 <= left < right <= target[0] and 0 <= top < bottom <= target[1]
    assert right - left == target[0] or bottom - top == target[1]
    picture = PIL.Image.fromarray(
        np.add.outer(np.arange(source[1]) % 7, np.arange(source[0]) % 5).astype(np.uint8) * 20
    )
    shown = np.asarray(fit_image(picture, *target, "contain"))
    small = np.asarray(picture.resize((right - left, bottom - top), PIL.Image.Resampling.BICUBIC))
    assert np.array_equal(shown[top:bottom, left:right], small)
    for fit in ("stretch", "cover"):
        assert shown_part(source, target, fit) == (0, 0, *target)

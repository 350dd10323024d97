"""A model's folder names the method for whoever names none; the command, Python, the page and recipes take that one."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from sgi2v import Box, Key, Motion, Scene
from sgi2v.backbones import outline_of
from sgi2v.backbones.registry import names, settings_of
from sgi2v.cli.generate_options import chosen_controller, default_options
from sgi2v.cli.making import generate as command
from sgi2v.controllers import controller_name, default_controller
from sgi2v.errors import FieldError
from sgi2v.pipeline import generate, plan
from sgi2v.planning import Sampling
from sgi2v.run import Run
from sgi2v.studio.engine import LibraryEngine
from sgi2v.studio.settings import StudioSettings
from tiny import load_svd, tiny_svd

PATH = (Key(time=0, x=32, y=32), Key(time=1, x=40, y=32))
SCENE = Scene(
    image=Image.new("RGB", (96, 64), "teal"),
    motions=(Motion(box=Box(left=16, top=16, right=48, bottom=48), path=PATH),),
)
SMALL = "--width 48 --height 32 --num-frames 3 --num-steps 3 --device cpu --dtype float32".split()


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny model whose folder names Time-to-Move, and in its recipe no control; a scene beside it."""
    folder = tmp_path / "named"
    folder.mkdir()
    for part in tiny_svd(3, light=True).iterdir():
        (folder / part.name).symlink_to(part, target_is_directory=part.is_dir())
    size = {"width": 48, "height": 32, "num_frames": 3, "num_steps": 3}
    advice = {"time-to-move": {"t_weak": 500.0, "t_strong": 1.0}}
    recipes = {"plain": {"default": "none"}}
    said = {**size, "default": "time-to-move", "recommended": advice, "recipes": recipes}
    (folder / "sgi2v.json").write_text(json.dumps(said))
    SCENE.image.save(tmp_path / "photo.png")
    motion = {"box": {"left": 16, "top": 16, "right": 48, "bottom": 48}}
    scene = {"format": "sgi2v-scene", "version": 1, "image": "photo.png", "motions": [motion]}
    (tmp_path / "scene.json").write_text(json.dumps(scene))
    monkeypatch.chdir(tmp_path)
    return folder


def test_the_bundled_models_is_time_to_move_and_everybody_elses_sg_i2v() -> None:
    assert settings_of("bundled").default == "time-to-move"
    assert {settings_of(name).default for name in names()} == {"sg-i2v"}
    outline = outline_of("bundled")
    controller = plan(SCENE, outline).controller
    assert controller == default_controller(outline.settings) and controller_name(controller) == "time-to-move"
    # The published numbers are SG-I2V's.
    assert controller_name(default_options(["--recipe", "paper"]).controller) == "sg-i2v"


def test_python_takes_it_and_the_record_says_nothing_of_it(named: Path) -> None:
    run = generate(SCENE, backbone=load_svd(named)).run
    assert run is not None and run["controller"]["name"] == "time-to-move"
    assert "default" not in run["backbone"]["settings"] and Run.from_dict(run).version == 1


def test_the_command_takes_it_and_says_so_in_one_line(named: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, wanted in (([], "time-to-move"), (["--recipe", "plain"], "none")):
        command(["scene.json", "--backbone", "named", *SMALL, "--output", "a", *arguments])
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("method: ")]
        assert len(said) == 1 and said[0].startswith(f"method: {wanted}, "), said
        assert json.loads(Path("a/run.json").read_text())["run"]["controller"]["name"] == wanted
    command(["scene.json", "--backbone", "named", *SMALL, "--output", "a", "controller:none"])
    assert "method: " not in capsys.readouterr().err


def test_what_is_typed_stands_even_where_it_equals_the_default() -> None:
    before = default_options(["--backbone", "svd"])
    chosen = chosen_controller(before, before, outline_of("bundled"), named=True)
    assert chosen is not None and controller_name(chosen) == "sg-i2v"
    assert chosen_controller(before, before, outline_of("bundled")) is None


def test_the_page_takes_it(named: Path, tmp_path: Path) -> None:
    engine = LibraryEngine(StudioSettings(data=tmp_path, backbones=("named", str(tiny_svd(3, light=True)))))
    info = engine.info()
    assert info["default_controller"] == "time-to-move"
    assert [one["default_controller"] for one in info["backbones"]] == ["time-to-move", "sg-i2v"]
    assert engine.info("plain")["backbones"][0]["default_controller"] == "none"
    assert engine.plan({}, SCENE)["controller"]["name"] == "time-to-move"


def test_a_name_that_there_is_not_is_said(named: Path) -> None:
    values = json.loads((named / "sgi2v.json").read_text()) | {"default": "time-to-mov"}
    (named / "sgi2v.json").write_text(json.dumps(values))
    with pytest.raises(FieldError, match=r"sgi2v\.json.*unknown 'time-to-mov'; did you mean time-to-move"):
        plan(SCENE, outline_of(named), sampling=Sampling())


def test_frames_are_those_of_the_named_method(named: Path) -> None:
    backbone = load_svd(named)
    left = generate(SCENE, backbone=backbone)
    said = generate(SCENE, backbone=backbone, controller=default_controller(backbone.settings))
    assert torch.equal(left.frames, said.frames)

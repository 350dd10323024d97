"""The command line of combinations, of a clip of one's own, and of masks made from boxes."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sgi2v.cli import SPOILED, main
from sgi2v.cli.common import parse
from sgi2v.cli.generate_options import GenerateOptions, default_options
from sgi2v.controllers import COMBINATIONS, SGI2V, TimeToMove, controller_to_dict, recommended
from sgi2v.planning import Range
from sgi2v.scene_io import load_scene
from sgi2v.video import read_run
from test_cli import SMALL, folder, scene_json
from tiny import save_tiny_svd

__all__ = ["folder"]  # a fixture


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that recommends something for one of a combination's parts, alone and together."""
    made = save_tiny_svd(tmp_path_factory.mktemp("model") / "own", num_frames=3, light=True)
    values = {
        "time-to-move": {"tweak": 60.0, "t_strong": 14.0},
        "sg-i2v": {"iterations": 2, "guided": [1.0, 400.0]},
        "time-to-move+sg-i2v": {"first": {"t_strong": 15.0}, "second": {"guided": [0.001, 5.0]}},
    }
    size = {"width": 48, "height": 32, "num_frames": 3, "num_steps": 3}
    (made / "sgi2v.json").write_text(json.dumps({**size, "recommended": values}))
    return made


def parsed(*arguments: str) -> GenerateOptions:
    default = default_options(arguments)
    return parse(type(default), "generate", ["scene.json", *arguments], default)


@pytest.mark.parametrize("name", COMBINATIONS)
def test_a_combination_is_a_choice_with_the_options_of_both(
    name: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = ("--backbone", str(model))
    chosen = parsed(*backbone, f"controller:{name}")
    settings = json.loads((model / "sgi2v.json").read_text())
    assert controller_to_dict(chosen.controller) == controller_to_dict(recommended(name, settings["recommended"]))
    with pytest.raises(SystemExit):
        main(["generate", *backbone, f"controller:{name}", "--help"])
    shown = capsys.readouterr().out
    assert "--controller.second.lr" in shown and "--controller.first." in shown


def test_what_was_said_of_either_part_reaches_it(model: Path) -> None:
    chosen = parsed(
        *("--backbone", str(model), "controller:time-to-move+sg-i2v", "--controller.first.t-weak", "None"),
        *("--controller.second.lr", "0.5", "--controller.second.weighting", "mask"),
    )
    record = controller_to_dict(chosen.controller)
    first = controller_to_dict(TimeToMove(t_weak=None, t_strong=15.0))
    second = controller_to_dict(SGI2V(lr=0.5, weighting="mask", guided=Range(low=0.001, high=5.0), iterations=2))
    assert record == {"name": "time-to-move+sg-i2v", "first": first, "second": second}
    # The default is still SG-I2V alone, with what the model recommends for it alone.
    assert controller_to_dict(parsed("--backbone", str(model)).controller)["guided"] == {
        "low": 1.0,
        "high": 400.0,
        "unit": "sigma",
    }


def test_a_clip_of_ones_own_is_used_and_goes_into_the_record(folder: Path, model: Path) -> None:
    (folder / "clip").mkdir()
    for index in range(2):
        Image.new("RGB", (48, 32), (100 * index, 60, 60)).save(folder / "clip" / f"{index}.png")
    Image.new("L", (48, 32), 255).save(folder / "where.png")
    clip = ("--reference", "clip", "--reference-mask", "where.png")
    arguments = [
        "generate",
        "scene.json",
        "--backbone",
        str(model),
        *SMALL,
        *clip,
        "--output",
        "a.mp4",
        "--quiet",
        *("--record", "full"),
    ]
    assert main([*arguments, "controller:time-to-move+sg-i2v"]) == 0
    run = read_run("a.mp4")
    assert run["controller"]["name"] == "time-to-move+sg-i2v"
    assert run["controller"]["first"]["t_strong"] == 15.0
    reference = run["scene"]["reference"]
    assert [len(reference[part]) for part in ("frames", "masks")] == [2, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--reference", "none.mp4"], "reference.frames: cannot read none.mp4: No such file"),
        (["--reference-mask", "photo.png"], "reference_mask: there is no reference"),
        (
            ["--reference", "photo.png", "--reference-mask", "none"],
            "reference.masks: 'none' is no file; give",
        ),
        (["controller:time-to-move", "--controller.t-strong", "9000"], "controller.t_strong: "),
        (
            ["controller:time-to-move+sg-i2v", "--controller.first.t-strong", "0.001"],
            "controller.first.t_strong: ",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    options: list[str], message: str, folder: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "scene.json", "--backbone", str(model), *SMALL, "--quiet", *options]) == SPOILED
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"sgi2v: {message}") and err.count("\n") == 1, err
    assert sorted(path.name for path in folder.iterdir()) == ["photo.png", "scene.json"]


def test_masks_are_made_from_boxes_and_written_beside_the_scene(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.normal((60, 120, 70), 10, (64, 96, 3))
    pixels[20:44, 20:44] = rng.normal((200, 50, 40), 10, (24, 24, 3))
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "photo.png")
    (folder / "scene.json").write_text(json.dumps(scene_json()))
    assert main(["mask", "scene.json"]) == 0
    assert capsys.readouterr().out == f"out/{folder.name}-masks/scene.json\n"
    scene = load_scene(f"out/{folder.name}-masks")
    assert scene.motions[0].mask is not None
    found = np.asarray(scene.motions[0].mask) > 0
    assert found[22:42, 22:42].mean() > 0.95 and found[:, 50:].sum() == 0
    assert main(["preview", f"out/{folder.name}-masks"]) == 0

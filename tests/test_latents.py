"""Latents in files: what is written is read again, what is wrong is refused before a model is loaded."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from sgi2v import load_video
from sgi2v.cli import SPOILED, main
from sgi2v.errors import FieldError
from sgi2v.grid import Grid
from sgi2v.latents import MAX_BYTES, check_latents_place, fingerprint, read_latents, save_latents
from sgi2v.video import read_run
from tiny import tiny_svd

GRID = Grid(width=48, height=32, num_frames=3)
SHAPE = GRID.latent_shape
SMALL = ("--seed 3 --num-steps 4 --width 48 --height 32 --num-frames 3 --device cpu --dtype float32 --quiet").split()
CLOCKS = ("controller:time-to-move", "--controller.t-weak", "300", "--controller.t-strong", "50")


def some(seed: int = 0) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def test_what_is_saved_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "new" / "a.safetensors"
    save_latents(file, noise=some(1), latents=some(2).half(), other=None)
    assert [entry.name for entry in file.parent.iterdir()] == ["a.safetensors"]
    assert torch.equal(read_latents(file, "noise", "noise", GRID), some(1))
    assert torch.equal(read_latents(file, "latents", "reference_latents", GRID), some(2).half().float())
    assert set(safetensors.torch.load_file(file)) == {"noise", "latents"}


def test_a_fingerprint_is_of_the_values_and_the_shape_alone() -> None:
    latents = some()
    turned = latents.transpose(0, 1).contiguous().transpose(0, 1)
    assert fingerprint(latents) == fingerprint(turned) == fingerprint(latents.double().requires_grad_())
    others = [-latents, latents.flatten(1)[:, :, None, None], latents.roll(1, 0)]
    assert len({fingerprint(one) for one in [latents, *others]}) == 4


def spoil(folder: Path, how: str) -> Path:
    file = folder / "a.safetensors"
    tensors: dict[str, Any] = {
        "no such tensor": {"latents": some()},
        "another size": {"noise": torch.zeros(3, 4, 4, 7)},
        "a batch axis": {"noise": some()[None]},
        "16 bits": {"noise": some().half()},
        "not finite": {"noise": some() / torch.tensor([1.0, 0.0, 1.0, 1.0])[:, None, None]},
    }
    if how in tensors:
        safetensors.torch.save_file(tensors[how], file)
    elif how == "too large":
        file.touch()
        os.truncate(file, MAX_BYTES + 1)  # sparse: takes no room
    elif how == "cut off":
        safetensors.torch.save_file({"noise": some()}, file)
        file.write_bytes(file.read_bytes()[:-1])
    elif how == "no safetensors":
        file.write_text("noise")
    return file


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no such tensor", r"holds no 'noise'; give a safetensors file with a tensor 'noise'"),
        ("another size", r"is F32 of shape \[3, 4, 4, 7\]; 3 frames of 48x32 need float32 of shape \[3, 4, 4, 6\]"),
        ("a batch axis", r"is F32 of shape \[1, 3, 4, 4, 6\]; "),
        ("16 bits", r"is F16 of shape \[3, 4, 4, 6\]; "),
        ("not finite", r"some of its values are NaN or infinite"),
        ("too large", r"bytes; at most \d+ are read"),
        ("cut off", r"cannot be read"),
        ("no safetensors", r"cannot be read"),
        ("not there", r"cannot be read"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, how: str, message: str) -> None:
    with pytest.raises(FieldError, match=message) as error:
        read_latents(spoil(tmp_path, how), "noise", "noise", GRID)
    assert error.value.field == "noise" and "\n" not in str(error.value)


def test_a_place_that_cannot_be_written_is_known_before(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.safetensors").mkdir()
    for place in ("a.npz", "folder.safetensors", "file/a.safetensors"):
        with pytest.raises(FieldError, match="save_latents"):
            check_latents_place(tmp_path / place, "save_latents")
    check_latents_place(tmp_path / "deep" / "a.safetensors", "save_latents")
    assert not (tmp_path / "deep").exists()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scene to run the command line in."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)).save("photo.png")
    path = [{"time": 0.0, "x": 32.0, "y": 32.0}, {"time": 1.0, "x": 64.0, "y": 40.0}]
    motion = {"box": {"left": 16.0, "top": 16.0, "right": 48.0, "bottom": 48.0}, "path": path}
    scene = {"format": "sgi2v-scene", "version": 1, "image": "photo.png", "motions": [motion]}
    (tmp_path / "scene.json").write_text(json.dumps(scene))
    return tmp_path


def test_the_command_line_saves_gives_and_replays(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(tiny_svd(3, light=True))
    make = ["generate", "scene.json", "--backbone", model, *SMALL]
    assert main([*make, "--output", "a", "--save-latents", "a.safetensors", *CLOCKS]) == 0
    # Another seed gives another noise, but what is given is the same: only the picture's own noise differs.
    given = ["--noise", "a.safetensors", "--reference-latents", "a.safetensors"]
    assert main([*make, "--output", "b", *given, "--save-latents", "b.safetensors", *CLOCKS]) == 0
    a, b = (safetensors.torch.load_file(f"{name}.safetensors") for name in "ab")
    assert torch.equal(a["noise"], b["noise"]) and not torch.equal(a["latents"], b["latents"])
    assert read_run("b")["inputs"] == {
        "noise": fingerprint(a["noise"]),
        "reference_latents": fingerprint(a["latents"]),
    }
    again = ["replay", "b", "--backbone", model, "--device", "cpu", "--quiet"]
    assert main([*again, *given]) == 0
    assert torch.equal(load_video("b-replay").frames, load_video("b").frames)
    capsys.readouterr()
    assert main(again) == SPOILED
    assert "noise: the video was made from latents of sha256" in capsys.readouterr().err
    assert main([*make, "--num-frames", "2", "--output", "c", *given, *CLOCKS]) == SPOILED
    assert "noise: a.safetensors is F32 of shape [3, 4, 4, 6]; 2 frames of 48x32 need" in capsys.readouterr().err
    assert not (folder / "c").exists()

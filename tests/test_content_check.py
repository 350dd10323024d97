"""The check of photo and clip: off unless asked for, said when it looks, and nothing written of what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from sgi2v.cli import main
from sgi2v.content_check import MOST_FRAMES, ContentCheck, frames_to_check
from sgi2v.errors import FieldError
from tiny import tiny_svd


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small classifier of the real class that takes every picture for what its last bias says: harmless."""
    path = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=32, patch_size=16,
        id2label={0: "normal", 1: "nsfw", 2: "weapon"}, label2id={"normal": 0, "nsfw": 1, "weapon": 2},
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(path)
    return leaning(path, path, (6.0, 0.0, 0.0))


def leaning(source: Path, target: Path, bias: tuple[float, float, float]) -> Path:
    """The classifier with another bias, and weights before it that do not matter."""
    target.mkdir(exist_ok=True)
    weights = load_file(source / "model.safetensors")
    weights["classifier.bias"] = torch.tensor(bias)
    weights["classifier.weight"] = weights["classifier.weight"] * 1e-3
    for file in source.glob("*.json"):
        (target / file.name).write_bytes(file.read_bytes())
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


PICTURE = Image.effect_noise((64, 48), 60).convert("RGB")


def test_probabilities_are_those_of_the_unsafe_classes(folder: Path, tmp_path: Path) -> None:
    found = ContentCheck(folder).of([PICTURE])
    assert found.label == "nsfw" and found.probability == pytest.approx(1 / (np.exp(6) + 2), rel=0.05)
    both = ContentCheck(folder, labels=("nsfw", "weapon")).of([PICTURE])
    assert both.probability == pytest.approx(2 / (np.exp(6) + 2), rel=0.05)
    unsafe = leaning(folder, tmp_path / "unsafe", (0.0, 6.0, 0.0))
    with pytest.raises(FieldError, match=r"the photo: unsafe with (0\.9\d|1\.00) \(mostly nsfw\)"):
        ContentCheck(unsafe).check("the photo", [PICTURE])
    assert "unsafe with 0.0" in ContentCheck(unsafe, labels=("weapon",)).check("the photo", [PICTURE])


def test_frames_are_taken_evenly_with_both_ends() -> None:
    pixels = np.zeros((30, 4, 4, 3), np.uint8) + np.arange(30, dtype=np.uint8)[:, None, None, None]
    seen = [np.asarray(frame)[0, 0, 0] for frame in frames_to_check(pixels)]
    assert len(seen) == MOST_FRAMES and seen[0] == 0 and seen[-1] == 29
    assert len(frames_to_check(pixels[:3])) == 3


def test_what_is_no_classifier_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FieldError, match="names no classes"):
        ContentCheck(tmp_path)
    with pytest.raises(FieldError, match="'nude' is no class of it; there are normal, nsfw, weapon"):
        ContentCheck(folder, labels=("nude",))
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"0": "cat", "1": "dog"}}))
    with pytest.raises(FieldError, match="choose: cat, dog"):
        ContentCheck(tmp_path)
    with pytest.raises(FieldError, match="holds no classifier"):
        ContentCheck(tmp_path, labels=("cat",))


def test_generate_looks_says_so_and_writes_nothing_of_what_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    PICTURE.save(tmp_path / "img.png")
    scene = {"format": "sgi2v-scene", "version": 1, "image": "img.png", "motions": []}
    (tmp_path / "scene.json").write_text(json.dumps(scene))
    out = tmp_path / "clip.mp4"
    size = ["--width", "64", "--height", "64", "--num-frames", "3", "--num-steps", "1", "--quiet"]
    asked = ["generate", str(tmp_path / "scene.json"), "--backbone", str(tiny_svd()), "--output", str(out), *size]
    assert main([*asked, "--content-check", str(folder), "controller:none"]) == 0
    said = capsys.readouterr().err
    assert "content check: the photo" in said and "content check: the clip" in said and out.exists()
    out.unlink()
    unsafe = leaning(folder, tmp_path / "unsafe", (0.0, 6.0, 0.0))
    assert main([*asked, "--content-check", str(unsafe), "controller:none"]) == 2
    assert "the photo: unsafe" in capsys.readouterr().err and not out.exists()
    assert main([*asked, "--content-labels", "nsfw", "controller:none"]) == 2
    assert main([*asked, "controller:none"]) == 0
    assert "content check" not in capsys.readouterr().err

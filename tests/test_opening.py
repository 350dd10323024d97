"""A model is opened in one way, and a mistake is answered before torch is imported or a weight file is opened."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sgi2v.backbones import memory as memory_module
from sgi2v.device import cpu_alone
from sgi2v.errors import FieldError
from sgi2v.opening import ModelChoice
from sgi2v.planning import Sampling
from tiny import tiny_svd

ROOT = Path(__file__).parents[1]
PROGRAM = """
import json, sys

opened = []

def watch(event, args):
    if event == "open" and str(args[0]).endswith(".safetensors"):
        opened.append(str(args[0]))

sys.addaudithook(watch)
from sgi2v.cli import main

code = main(sys.argv[1:])
# The library that reads weights opens files unseen by the hook: so it must not be there at all.
heavy = {"torch", "diffusers", "transformers", "safetensors"} & set(sys.modules)
print(json.dumps({"code": code, "opened": opened, "heavy": sorted(heavy)}))
"""


@dataclass(frozen=True)
class Answer:
    """What the command line answers in a process of its own."""

    code: int
    opened: list[str]
    """Weight files."""
    heavy: list[str]
    """Libraries that take seconds to import."""
    line: str


def answer(folder: Path, *arguments: str) -> Answer:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "generate", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Answer(**json.loads(done.stdout.splitlines()[-1]), line=done.stderr)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph, a scene that moves and one that does not."""
    made = tmp_path_factory.mktemp("scenes")
    noise = np.random.default_rng(0).integers(0, 255, (8, 12, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((96, 64)).save(made / "photo.png")
    path = [{"time": 0.0, "x": 32.0, "y": 32.0}, {"time": 1.0, "x": 64.0, "y": 40.0}]
    box = {"left": 16.0, "top": 16.0, "right": 48.0, "bottom": 48.0}
    motion = {"kind": "object", "box": box, "path": path}
    for name, motions in (("scene", [motion]), ("still", [])):
        scene = {"format": "sgi2v-scene", "version": 1, "image": "photo.png", "motions": motions}
        (made / f"{name}.json").write_text(json.dumps(scene))
    return made


MISTAKES = {
    "unknown layer": (
        "scene.json controller:sg-i2v --controller.layers up_blocks.9.attentions.0:self",
        r"controller\.layers: .*no layer 'up_blocks\.9\.attentions\.0'; nearest are up_blocks",
    ),
    "range without a step": (
        "scene.json controller:sg-i2v --controller.guided 5000 6000 sigma",
        r"controller\.guided: no step of \d+ falls inside sigma 5000 to 6000; the steps' sigmas are \d",
    ),
    "wrong width": (
        "scene.json --width 321",
        r"width: must be a multiple of \d+, got 321; nearest are 320 and 32\d",
    ),
    "wrong frame count": ("scene.json --num-frames 1", r"num_frames: must lie in 2\.\.256, got 1"),
    "prompt": ("scene.json --prompt cat", r"prompt: bundled takes no text; leave --prompt out"),
    "negative prompt": (
        "scene.json --negative-prompt cat",
        r"negative_prompt: bundled takes no text; leave --negative-prompt out",
    ),
    "reference latents": (
        "scene.json --reference-latents photo.png controller:sg-i2v",
        r"reference_latents: sg-i2v uses no reference clip; leave --reference-latents out, or choose time-to-move",
    ),
    "solver": ("scene.json --solver heun", r"invalid choice 'heun' for argument '--solver'. Expected one of"),
    "place of latents": (
        "scene.json --save-latents out.npz",
        r"save_latents: 'out\.npz' is no name of a file of latents; end it in \.safetensors",
    ),
    "reference": (
        "scene.json --reference photo.png controller:sg-i2v",
        r"reference: sg-i2v uses no reference clip; leave --reference out, or choose time-to-move",
    ),
    "no motions": (
        "still.json",
        r"motions: the scene has none, and time-to-move steers by them; draw one, or choose controller:none",
    ),
    "unknown controller": ("scene.json controller:magic", r"controller: unknown 'magic'; known are none, sg-i2v"),
    "unknown setting": (
        "scene.json --settings.colour red",
        r"settings: unknown setting 'colour'; known are fps, motion_bucket_id",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_without_torch_and_without_weights(mistake: str, folder: Path) -> None:
    arguments, message = MISTAKES[mistake]
    before = sorted(folder.iterdir())
    found = answer(folder, *arguments.split())
    assert (found.code, found.opened, found.heavy) == (2, [], [])
    assert re.match(f"sgi2v: {message}", found.line) and found.line.count("\n") == 1, found.line
    assert sorted(folder.iterdir()) == before


def test_the_watch_sees_torch_and_weights_in_a_run_that_can_be(folder: Path) -> None:
    """Or the tests above would show nothing."""
    size = "--width 64 --height 64 --num-frames 4 --num-steps 1 --device cpu --output seen --quiet".split()
    found = answer(folder, "scene.json", "--backbone", str(tiny_svd(4, light=True)), *size, "controller:none")
    assert (found.code, found.line) == (0, "")
    assert {"torch", "diffusers", "safetensors"} <= set(found.heavy) and found.opened


# ---------------------------------------------------------------- the model that was chosen


def test_a_choice_is_outline_settings_and_model() -> None:
    choice = ModelChoice(backbone=str(tiny_svd(4, light=True)), device="cpu", dtype="float32", memory="balanced")
    outline = choice.outline({"fps": 9, "max_guidance_scale": 1.5})
    assert (outline.settings.fps, outline.settings.max_guidance_scale) == (9, 1.5)
    backbone = choice.load(outline)
    assert backbone.outline == outline and backbone.memory == "balanced"
    assert choice.load(outline, memory="low").memory == "low"
    with pytest.raises(FieldError, match="settings: unknown setting 'colour'"):
        choice.outline({"colour": "red"})
    with pytest.raises(FieldError, match=r"settings\.fps: must lie in 1\.\.240, got 0"):
        choice.outline({"fps": 0})


def test_a_recipe_comes_before_what_the_person_says() -> None:
    plain, quick = (ModelChoice(recipe=recipe).outline() for recipe in (None, "quick"))
    assert quick.settings != plain.settings
    changed = ModelChoice(recipe="quick").outline({"num_steps": 3, "fps": 5})
    assert (changed.settings.num_steps, changed.settings.fps) == (3, 5)
    assert changed.settings.recommended == quick.settings.recommended
    with pytest.raises(FieldError, match="recipe: unknown 'slow'; known are"):
        ModelChoice(recipe="slow").outline()


def test_memory_is_planned_for_the_clip_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    choice = ModelChoice(backbone=str(tiny_svd(4, light=True)), device="cpu", dtype="float32")
    outline = choice.outline()
    small, large = (Sampling(width=side, height=side, num_frames=4) for side in (64, 1024))
    needed = choice.plan_memory(outline, small).needed
    assert needed["fast"] < choice.plan_memory(outline, large).needed["fast"]
    assert needed["balanced"] < needed["fast"]
    monkeypatch.setattr(memory_module, "free_memory", lambda _: needed["balanced"])
    assert choice.plan_memory(outline, small).mode == "balanced"
    with pytest.raises(FieldError, match=r"memory: low takes .*1024x1024.*; lower --num-frames"):
        choice.plan_memory(outline, large)
    with pytest.raises(FieldError, match="width: must be a multiple of 8, got 65"):
        choice.plan_memory(outline, Sampling(width=65))


@pytest.mark.parametrize("arguments", ["generate --help", "generate scene.json --sed 1", "info"])
def test_help_a_misspelt_option_and_info_import_nothing_heavy(arguments: str, folder: Path) -> None:
    """Each of these libraries takes from a third of a second to several; `info` needs torch where a GPU may be."""
    if arguments == "info" and not cpu_alone():
        pytest.skip("this build of torch may know other devices")
    program = (
        "import sys\nfrom sgi2v.cli import main\ntry:\n  main(sys.argv[1:])\nexcept SystemExit:\n  pass\n"
        "print(sorted({'torch', 'diffusers', 'transformers', 'safetensors', 'cv2', 'av'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments.split()], cwd=folder, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]"

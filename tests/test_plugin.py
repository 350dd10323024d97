"""A model and a method from a package of its own: installed they work like ours; without them a record still opens."""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from contract import scene
from plugged import PLUGIN, write_entry_points
from sgi2v import load_video, save_scene
from toy_motion.saving import save_toy

ROOT = Path(__file__).parents[1]


def python(*arguments: str, path: tuple[Path, ...] = (), cwd: Path) -> "subprocess.CompletedProcess[str]":
    """Runs an interpreter that knows sgi2v and what else lies in some folders, and nothing of tests/."""
    known = os.pathsep.join(str(folder) for folder in (*path, ROOT / "src"))
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env={**os.environ, "PYTHONPATH": known}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder in which pip has installed the package."""
    folder = tmp_path_factory.mktemp("site")
    command = (
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-index",
        "--no-build-isolation",
    )
    done = python(*command, "--no-deps", "--target", str(folder), str(PLUGIN), cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def made(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the toy model, a scene, and the video that the command line made of both."""
    folder = tmp_path_factory.mktemp("made")
    save_toy(folder / "toy")
    save_scene(scene("a red ball"), folder / "scene")
    done = python(
        "-m", "sgi2v.cli", "generate", "scene", "--backbone", "toy", "--output", "out.mp4", "--device", "cpu",
        "--settings.guidance-scale", "1.5", "controller:toy-nudge", "--controller.strength", "0.4",
        "--controller.guided", "0.6", "1", "noise-level",
        path=(site,), cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_what_an_installer_writes_is_what_the_other_tests_write(site: Path, tmp_path: Path) -> None:
    def points(folder: Path) -> list[tuple[str, str, str]]:
        (found,) = importlib.metadata.distributions(path=[str(folder)])
        return sorted((point.group, point.name, point.value) for point in found.entry_points)

    assert points(site) == points(write_entry_points(tmp_path / "by hand"))
    assert (site / "toy_motion" / "nudge.py").is_file()


SHOW = """
import json, sys
from sgi2v import Run
from sgi2v.video import read_run
run = Run.from_dict(read_run(sys.argv[1]))
assert "torch" not in sys.modules and "toy_motion" not in sys.modules
print(json.dumps({"controller": run.controller, "settings": run.backbone["settings"], "scene": run.scene["prompt"]}))
"""


def test_the_record_can_be_read_without_the_package(made: Path) -> None:
    done = python("-c", SHOW, str(made / "out.mp4"), cwd=made)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["controller"]["name"] == "toy-nudge" and said["controller"]["strength"] == 0.4
    assert said["controller"]["guided"] == {"low": 0.6, "high": 1.0, "unit": "noise-level"}
    assert said["settings"]["guidance_scale"] == 1.5 and said["scene"] == "a red ball"


def test_only_replay_asks_for_the_package(made: Path) -> None:
    done = python("-m", "sgi2v.cli", "replay", "out.mp4", "--backbone", "toy", cwd=made)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "no known kind" in done.stderr and done.stderr.count("\n") == 1


def test_with_it_replay_makes_the_same_video(made: Path, site: Path) -> None:
    done = python(
        "-m", "sgi2v.cli", "replay", "out.mp4", "--backbone", "toy", "--output", "again.mp4", "--device", "cpu",
        path=(site,), cwd=made,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    again, before = (load_video(made / name) for name in ("again.mp4", "out.mp4"))
    assert torch.equal(again.frames, before.frames) and again.run == before.run  # the files differ by their signatures


OUTLINE = """
import sys
from sgi2v.backbones.registry import outline_of
outline = outline_of(sys.argv[1])
assert outline.kind == "toy-flow" and outline.levels(4, outline.grid(64, 48, 9))
assert not {"torch", "diffusers", "transformers"} & set(sys.modules), sorted(sys.modules)
"""


def test_its_outline_is_read_without_torch(made: Path, site: Path) -> None:
    done = python("-c", OUTLINE, "toy", path=(site,), cwd=made)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (("--width", "60"), "width"),
        (("--num-frames", "10"), "num_frames"),
        (("controller:toy-nudge", "--controller.guided", "0", "0.001", "noise-level"), "controller.guided"),
        (("controller:freetraj", "--controller.edit-spatial"), "mixes frames and places"),
    ],
)
def test_a_mistake_is_answered_in_one_line(made: Path, site: Path, said: tuple[str, ...], wanted: str) -> None:
    done = python("-m", "sgi2v.cli", "generate", "scene", "--backbone", "toy", *said, path=(site,), cwd=made)
    assert done.returncode == 2 and wanted in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1

"""Recordings of other people's pipelines are met; tests/recordings.py says how, and runs by itself too."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from recordings import PHOTOGRAPHS, answer, main, recordings_in, run
from recordings import Recording as Kept
from sgi2v import load_backbone
from tiny import tiny_svd

SHARED = Path(__file__).parents[2] / "shared" / "golden" / "dit"
FILES = recordings_in(SHARED) if SHARED.is_dir() else []


def test_the_recordings_are_there() -> None:
    if not FILES:
        pytest.skip("the folder shared/ with recordings of other pipelines is not beside this checkout")
    assert len({file.parent for file in FILES}) > 1


@pytest.mark.long
@pytest.mark.parametrize("file", FILES, ids=[f"{file.parent.name}-{file.stem}" for file in FILES])
def test_a_recording_is_met(file: Path) -> None:
    met, line = answer(file)
    if met is None:
        pytest.skip(line)
    assert met, line


def recorded(folder: Path, **changes: Any) -> Kept:
    """A recording of our own making on a tiny model, as the others are laid out."""
    folder.mkdir()
    (folder / "model").symlink_to(tiny_svd(3, light=True), target_is_directory=True)
    meta = {
        "image": "cat", "width": 48, "height": 32, "num_frames": 3, "steps": 3, "seed": 1, "tweak_index": 1,
        "tstrong_index": 1, "scheduler": "EulerDiscreteScheduler", "solver_order": None,
        "extra": {"motion_bucket_id": "30"}, **changes,
    }  # fmt: skip
    with Image.open(PHOTOGRAPHS / "cat" / "photo.jpg") as photo:
        small = np.asarray(photo.convert("RGB").resize((48, 32), Image.Resampling.BICUBIC))
    draws = np.random.default_rng(0)
    mask = np.zeros((3, 32, 48), dtype=np.uint8)
    mask[:, 10:20, 10:30] = 255
    arrays = {
        "signal": np.stack([np.roll(small, 4 * k, 1) for k in range(3)]),
        "mask": mask,
        "fixed_noise": draws.standard_normal((1, 3, 4, 4, 6), dtype=np.float32),
        "ref_latents": draws.standard_normal((1, 3, 4, 4, 6), dtype=np.float32),
        "latent_mask": mask[None, :, None, ::8, ::8] / np.float32(255),
        "steps_kept": np.array([0, 1]),
    }
    recording = Kept(folder / "own.npz", meta, arrays)
    video, seen = run(recording, load_backbone(str(folder / "model"), device="cpu", dtype="float32"))
    assert video.latents is not None
    arrays["steps_latents"] = np.stack([seen[1][1].numpy(), video.latents.numpy()])[:, None]
    arrays["frames_every_2nd_pixel"] = video.frames[:, :, ::2, ::2].numpy().astype(np.float16)
    return replace(recording, arrays=arrays)


@pytest.mark.parametrize(
    ("spoilt", "met"),
    [("", True), ("steps_latents", False), ("frames_every_2nd_pixel", False), ("latent_mask", False)],
)
def test_a_difference_is_seen_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoilt: str, met: bool
) -> None:
    recording = recorded(tmp_path / "tiny")
    arrays = {name: array + (name == spoilt) * np.ones((), array.dtype) for name, array in recording.arrays.items()}
    np.savez(recording.file, meta=json.dumps(recording.meta), **arrays)
    assert main([str(tmp_path)]) == int(not met)
    line, sums = capsys.readouterr().out.splitlines()
    assert line.startswith(f"tiny/own: {'met' if met else 'MISSED'}: latents at kept steps")
    assert sums == f"{int(met)} met, {int(not met)} missed, 0 cannot be met or run"


def test_what_no_solver_here_can_meet_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a" / "model").mkdir(parents=True)
    for name, scheduler in (("unipc", "UniPCMultistepScheduler"), ("dpm", "CogVideoXDPMScheduler")):
        meta = {"scheduler": scheduler, "scheduler_config": {"solver_order": 2}}
        np.savez(tmp_path / "a" / f"{name}.npz", meta=json.dumps(meta))
    assert main([str(tmp_path)]) == 1, "nothing was compared"
    first, second, _ = capsys.readouterr().out.splitlines()
    assert first.startswith("a/dpm: cannot be met: the scheduler is a stochastic one")
    assert second.startswith("a/unipc: cannot be met: UniPC of second order corrects x from its own memory")

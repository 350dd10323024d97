"""Files that earlier versions wrote are still read: videos with their records, a model's settings, rows."""

import json
import lzma
from pathlib import Path
from typing import Any

import pytest
import torch

from sgi2v import SGI2V, Run, load_backbone, load_video, replay
from sgi2v.backbones import Backbone, settings_of, settings_with_recipe
from sgi2v.backbones.base import Settings, settings_with
from sgi2v.backbones.svd.outline import SVDSettings
from sgi2v.controllers import COMBINATIONS, controller_from_dict, controller_to_dict, controllers, recommended
from sgi2v.evaluation.row_maker import older_identity
from sgi2v.evaluation.rows import row_key
from sgi2v.migrations import flat
from sgi2v.planning import Range
from sgi2v.video import read_run

DATA = Path(__file__).parent / "data" / "records"
STUDIES = Path(__file__).parents[1] / "experiments"
NAMES = ("none", "sg-i2v", "freetraj", "drag-diffusion", "time-to-move", *COMBINATIONS)


def old_video(name: str) -> Path:
    """A clip of 4 frames of 64x64 by the bundled model, written when records had version 1."""
    return DATA / f"run-1-{name.replace('+', '-and-')}.mp4"


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone(device="cpu", dtype="float32")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.long
def test_a_video_of_version_1_is_made_again(backbone: Backbone, name: str) -> None:
    record = read_run(old_video(name))
    run = Run.from_dict(record)
    assert run.version == 1 and record["version"] == 1
    made = replay(run, backbone=backbone)
    written = load_video(old_video(name)).frames
    # The file went through H.264, and another processor rounds otherwise; another video is farther off by far.
    assert float((made.frames - written).abs().mean()) < 0.02
    again = dict(made.run or {})
    assert again["version"] == 1, "a run of version 1 is written as one"
    assert {k: v for k, v in again.items() if k != "versions"} == {k: v for k, v in record.items() if k != "versions"}


def test_freetraj_of_version_1_draws_as_it_did(backbone: Backbone) -> None:
    old = read_run(old_video("freetraj"))
    as_then = replay(Run.from_dict(old), backbone=backbone).frames
    new = Run.from_dict(
        {**old, "version": 2, "controller": controller_to_dict(controller_from_dict(old["controller"]))}
    )
    as_now = replay(new, backbone=backbone).frames
    written = load_video(old_video("freetraj")).frames
    assert float((as_then - written).abs().mean()) < 0.5 * float((as_now - written).abs().mean())
    assert not torch.equal(as_then, as_now)


def test_a_models_settings_of_then_mean_what_they_meant() -> None:
    old = settings_with(SVDSettings(recipes={}), json.loads((DATA / "sgi2v-1.json").read_text()), "sgi2v.json")
    now: Settings = settings_of()
    for recipe in (None, *now.recipes):
        before, after = (settings_with_recipe(one, recipe) for one in (old, now))
        for name in (*controllers(), *COMBINATIONS):
            if (recipe, name) != (
                "paper",
                "time-to-move+sg-i2v",
            ):  # sigma 0.5 to 2.9 were taken for steps there
                assert recommended(name, before.recommended) == recommended(name, after.recommended)
    paper = settings_with_recipe(old, "paper").recommended
    made = recommended("sg-i2v", paper)
    assert isinstance(made, SGI2V) and made.guided == Range(low=30.0, high=45.0, unit="step")


def laid_over(base: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """A row's fields over all of them: rows leave out what was not there yet, at every depth."""
    both = {k: laid_over(base[k], v) if isinstance(v, dict) and k in base else v for k, v in given.items()}
    return {**base, **both}


@pytest.mark.parametrize("study", sorted(path.parent.name for path in STUDIES.glob("*/rows.jsonl.xz")))
def test_committed_rows_are_known_by_the_same_keys(study: str) -> None:
    """A row's key is the hash of its identity: what a method is called today must come to the same."""
    with lzma.open(STUDIES / study / "rows.jsonl.xz", "rt") as file:
        lines = file.read().splitlines()
    found = 0
    for line in lines[:200]:
        row = json.loads(line)
        if "controller" not in row:
            continue
        controller = controller_from_dict(row["controller"])
        said = flat(controller_to_dict(controller))
        today = json.loads(json.dumps(said))
        assert laid_over(today, row["controller"]) == today, "a field is called or means otherwise"
        found += 1
    assert found


def test_rows_of_freetraj_are_found_whatever_they_drew() -> None:
    identity = {"controller": {"name": "freetraj", "draws": "generator"}, "seed": 1}
    assert row_key(older_identity(identity)) == row_key({"controller": {"name": "freetraj"}, "seed": 1})

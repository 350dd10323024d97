"""A study's scenes in several processes give the rows of one, and a study half done shows what is there, no more."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from sgi2v.backbones import settings_of, settings_with_recipe
from sgi2v.backbones.base import settings_with
from sgi2v.controllers import Controller
from sgi2v.evaluation.row_maker import RowMaker, older_identity
from sgi2v.evaluation.rows import read_rows, row_key
from sgi2v.evaluation.store import Store
from sgi2v.evaluation.tracker import TemplateTracker
from sgi2v.planning import Sampling
from tiny import small_bundled

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
RUN = """
from dataclasses import replace
from experiments.study import Options, Study, base_of, main

def variants(backbone):
    return {"sg-i2v": replace(base_of(backbone), iterations=1)}

STUDY = Study(folder="trial", axis="method", variants=variants, options=Options(recipe=None, limit=2))

if __name__ == "__main__":
    main(STUDY)
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the experiments' common part and one study, whose files go nowhere else."""
    folder = tmp_path / "experiments"
    (folder / "trial").mkdir(parents=True)
    (folder / "study").symlink_to(EXPERIMENTS / "study", target_is_directory=True)
    (folder / "trial" / "run.py").write_text(RUN, encoding="utf-8")
    (folder / "trial" / "README.md").write_text("<!-- table -->\n<!-- end -->\n", encoding="utf-8")
    return tmp_path


def run(place: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "experiments.trial.run",
            "--backbone",
            str(small_bundled()),
            "--dtype",
            "float32",
            *options,
        ],
        cwd=place,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.long
def test_shares_give_the_rows_of_one_process_and_a_report_makes_nothing(place: Path) -> None:
    folder = place / "out" / "studies" / "trial"
    first = run(place, "--jobs", "2", "--share", "1")  # as if killed but for this share
    assert first.returncode == 0, first.stderr
    assert [row["case"] for row in read_rows(folder / "rows.share-1.jsonl")] == ["world-0-01"] * 4
    nothing = run(place, "--seeds", "818", "--report")
    assert nothing.returncode != 0 and "nothing to show" in nothing.stderr
    several = run(place, "--jobs", "2")
    assert several.returncode == 0, several.stderr
    rows = read_rows(folder / "rows.jsonl")
    assert len(rows) == len({row["key"] for row in rows}) == 2 * 4
    assert not list(folder.glob("rows.share-*"))
    before = (folder / "rows.jsonl").read_bytes()
    report = run(place, "--limit", "3", "--seeds", "817", "818", "--report")
    assert report.returncode == 0, report.stderr
    assert (folder / "rows.jsonl").read_bytes() == before
    assert "\n2 held-out rendered scenes (set 0), 8 frames of 64×64, one seed (817), " in report.stdout
    assert "not measured yet: 10 of 18 rows" in report.stderr
    (place / "out").rename(place / "before")
    alone = run(place)
    assert alone.returncode == 0, alone.stderr
    figures = [{row["key"]: row["metrics"] for row in found} for found in (rows, read_rows(folder / "rows.jsonl"))]
    assert figures[0] == figures[1]


def test_only_runs_that_every_method_made_compare(experiment: Callable[[str], ModuleType]) -> None:
    study = experiment("study")

    def row(method: str, case: str, seed: int | None) -> dict[str, object]:
        return {"method": method, "case": case, "seed": seed}

    rows = [row("true", case, None) for case in "abcd"]
    rows += [row("none", case, 1) for case in "abcd"] + [row("none", case, 2) for case in "ab"]
    rows += [row("sg-i2v", case, 1) for case in "ab"] + [row("sg-i2v", "b", 2)]

    def kept(rows: list[dict[str, object]]) -> list[tuple[object, ...]]:
        return [(one["method"], one["case"], one["seed"]) for one in study.comparable(rows, ["none", "sg-i2v"])]

    alone = [(m, c, seed) for m, seed in (("true", None), ("none", 1), ("sg-i2v", 1)) for c in "ab"]
    assert kept(rows) == alone
    both = kept([*rows, row("sg-i2v", "a", 2)])
    assert sorted(set(both) - set(alone), key=str) == [(m, c, 2) for m in ("none", "sg-i2v") for c in "ab"]
    assert kept(rows[:-3]) == kept(rows[:4]) == kept([]) == []


def test_shares_hold_every_scene_once(experiment: Callable[[str], ModuleType]) -> None:
    study = experiment("study")
    for num in (1, 2, 3, 8):
        parts = [study.Share(list(range(7)), index, num) for index in range(num)]
        held = [part[k] for part in parts for k in range(len(part))]
        assert sorted(held) == list(range(7))
    with pytest.raises(IndexError):
        study.Share(list(range(7)), 1, 2)[3]


def test_rows_of_another_number_format_are_not_committed(experiment: Callable[[str], ModuleType]) -> None:
    study = experiment("study")
    one = study.Study(folder="trial", axis="method", variants=dict, options=study.Options(limit=64))
    assert one.ships(study.Options(limit=64, threads=2, jobs=2, variety="mixed"))
    assert not one.ships(study.Options(limit=64, dtype="bfloat16"))
    assert not one.ships(study.Options(limit=64, dtype=None))
    assert not one.ships(study.Options(limit=32))


def test_every_committed_row_is_still_found(experiment: Callable[[str], ModuleType]) -> None:
    """By its key, of the first scene: whatever is renamed in the package, nothing measured is measured again."""
    running, shipped = experiment("study.running"), experiment("study.shipped")
    options = experiment("study").Options()
    backbone = options.opened()
    for folder in experiment("all").STUDIES:
        study = experiment(f"{folder}.run").STUDY
        known = shipped.packed_rows(EXPERIMENTS / folder / "rows.jsonl.xz")
        own = backbone.with_settings(settings_with_recipe(settings_of(), study.options.recipe))
        case = study.options.scenes(running.grid_of(own))[0]
        methods = {"true": "true", "still": "still", "none": Controller()}
        for changes, variants in running._by_settings(study, study.variants(own.outline)):
            made = RowMaker(
                store=Store(rows=Path("nowhere")),
                backbone=own.with_settings(settings_with(own.settings, changes, folder)),
                sampling=Sampling(),
                tracker=TemplateTracker(),
                extractors=(),
                recipe=study.options.recipe,
                cancelled=lambda: False,
            )
            for label, method in (methods | variants).items():
                seed = None if isinstance(method, str) else study.options.seeds[0]
                identity, _ = made.identity(case, made.check(case), label, method, seed)
                keys = {row_key(identity), row_key(older_identity(identity))}
                assert keys & {row["key"] for row in known}, f"{folder}: {label}"
            methods = {}

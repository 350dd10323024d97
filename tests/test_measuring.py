"""The commands that measure: benchmark, report and features, as a person types them."""

from dataclasses import replace
from pathlib import Path

import pytest

from sgi2v.backbones import outline_of, settings_with_recipe
from sgi2v.backbones.svd.outline import SVDSettings
from sgi2v.cli import main
from sgi2v.cli.common import parse
from sgi2v.cli.measuring import default_methods
from sgi2v.cli.measuring_options import BenchmarkOptions, ExtractorOptions
from sgi2v.controllers import SGI2V, Controller
from sgi2v.evaluation.benchmark import methods_of
from sgi2v.evaluation.held_out import HeldOutWorld
from sgi2v.evaluation.rows import read_rows
from sgi2v.opening import ModelChoice
from sgi2v.planning import Sampling
from sgi2v.scene_io import save_scene
from tiny import tiny_svd

SMALL = "--width 64 --height 64 --num-frames 4 --num-steps 1 --device cpu --dtype float32 --quiet".split()


def benchmark(rows: Path, *more: str) -> int:
    model = str(tiny_svd(4, light=True))
    return main(
        [
            "benchmark",
            "--rows",
            str(rows),
            "--backbone",
            model,
            "--extractors.no-clip-features",
            *SMALL,
            *more,
        ]
    )


def test_a_benchmark_then_its_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "rows.jsonl"
    methods = ["still", "true", "none", 'same={"name": "none"}']
    assert benchmark(rows, "--limit", "2", "--scene-set", "1", "--methods", *methods) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(rows) and "8 rows, 8 of them new" in said.err
    assert [row["method"] for row in read_rows(rows)[:4]] == ["still", "true", "none", "same"]
    assert benchmark(rows, "--limit", "2", "--scene-set", "1", "--methods", *methods) == 0
    assert "8 rows, 0 of them new" in capsys.readouterr().err

    assert main(["report", str(rows), "--no-page"]) == 0
    said = capsys.readouterr()
    assert "| same | 2 |" in said.out and "Not comparable with the paper" in said.out
    assert (tmp_path / "rows.report" / "table.html").is_file()


def test_features_are_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = save_scene(HeldOutWorld(limit=1, num_frames=4)[0].scene, tmp_path / "thing")
    output = tmp_path / "f.png"
    arguments = ["features", str(scene), "--output", str(output), "--backbone", str(tiny_svd(14, light=True))]
    assert main([*arguments, "--num-steps", "2", "--remaining", "3", "--device", "cpu", "--quiet"]) == 2
    assert "3 is no step of 2" in capsys.readouterr().err and not output.exists()
    with pytest.raises(ValueError, match="nonsense"):
        methods_of(["nonsense"], {})


def test_what_cannot_run_together_on_a_model_does_not_stop_the_rest() -> None:
    # The published values of both, at the published schedule: one sets back what the other has optimised.
    published = outline_of(tiny_svd(14, light=True)).with_settings(SVDSettings())
    names, absent = default_methods(published, Sampling(num_steps=50))
    assert "freetraj+sg-i2v" in names and "sg-i2v" in names and "time-to-move+sg-i2v" not in names
    assert list(absent) == ["time-to-move+sg-i2v"] and "overwrites" in absent["time-to-move+sg-i2v"]


@pytest.mark.parametrize("recipe", [None, "quick", "study"])
def test_every_method_runs_on_the_bundled_model_as_it_recommends(recipe: str | None) -> None:
    bundled = outline_of("bundled")
    outline = bundled.with_settings(settings_with_recipe(bundled.settings, recipe))
    names, absent = default_methods(outline, Sampling())
    assert absent == {} and {"sg-i2v", "time-to-move", "time-to-move+sg-i2v"} <= set(names)


def test_weights_go_by_the_short_name_too() -> None:
    default = BenchmarkOptions(model=ModelChoice(), extractors=ExtractorOptions())
    files = ("--inception", "a", "--i3d-sha256", "0f", "--extractors.i3d", "b")
    found = parse(BenchmarkOptions, "benchmark", files, default).extractors
    assert found == ExtractorOptions(inception=Path("a"), i3d=Path("b"), i3d_sha256="0f")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "nonsense"], "unknown 'nonsense'"),
        (["--methods", "none", "none"], "there twice"),
        (["--methods", "a={"], "not JSON"),
        (["--methods", 'sg-i2v={"nonsense": 1}'], "unknown field 'nonsense'"),
        (["--methods", 'still={"x": 1}'], "has no fields"),
        (["--limit", "0"], "limit"),
        (["--scenes", "nowhere"], "nowhere is no folder"),
        (["--vipseg", "nowhere"], "holds neither imgs/"),
        (["--scenes", "a", "--vipseg", "b"], "give one of them"),
        (["--vipseg-clips", "a.json"], "give its folder with --vipseg"),
        (["--recipe", "nonsense"], "nonsense"),
        (["--width", "63"], "63"),
    ],
)
def test_mistakes_are_found_before_anything_is_loaded(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_svd(4, light=True)
    capsys.readouterr()  # making it draws a bar where no test before has
    assert benchmark(tmp_path / "rows.jsonl", *arguments) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_scene_without_motions_makes_rows_that_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moving = HeldOutWorld(limit=1, num_frames=4)[0].scene
    for name, scene in (("moves", moving), ("rests", replace(moving, motions=()))):
        save_scene(scene, tmp_path / "scenes" / name)
    rows = tmp_path / "rows.jsonl"
    guided = 'guided={"name": "sg-i2v", "guided": [0, 1000], "iterations": 1}'
    assert benchmark(rows, "--scenes", str(tmp_path / "scenes"), "--methods", "still", "none", guided) == 0
    said = capsys.readouterr().err
    wanted = "FieldError: motions: the scene has none, and sg-i2v steers by them; draw one, or choose controller:none"
    assert "5 rows, 6 of them new" in said and f"failed: rests guided: {wanted}" in said
    found = {(row["case"], row["method"]): row for row in read_rows(rows)}
    assert len(found) == 6 and found["rests", "guided"]["error"] == wanted
    assert found["moves", "guided"]["metrics"]["objmc"] is not None
    for method in ("still", "none"):
        assert found["rests", method]["metrics"]["objmc"] is None
        assert found["rests", method]["metrics"]["temporal_consistency"] is not None


def test_a_benchmark_that_makes_no_row_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    resting = replace(HeldOutWorld(limit=1, num_frames=4)[0].scene, motions=())
    save_scene(resting, tmp_path / "scenes" / "rests")
    rows = tmp_path / "rows.jsonl"
    guided = 'guided={"name": "sg-i2v", "guided": [0, 1000]}'
    arguments = ("--scenes", str(tmp_path / "scenes"), "--methods", guided)
    for more in ((), (), ("--retry",)):
        assert benchmark(rows, *arguments, *more) == 2
        out, err = capsys.readouterr()
        last = err.splitlines()[-1]
        assert out == "" and last.startswith("sgi2v: benchmark: no row was made: FieldError: motions: the scene has")
        assert last.endswith("; put it right and run the same command with --retry")


def test_methods_as_people_type_them() -> None:
    values = {"sg-i2v": {"lr": 0.5}}
    found = methods_of(["still", "none", "sg-i2v", 'x={"name": "sg-i2v", "iterations": 2}'], values)
    assert list(found) == ["still", "none", "sg-i2v", "x"]
    assert found["still"] == "still" and type(found["none"]) is Controller
    assert found["sg-i2v"] == SGI2V(lr=0.5) and found["x"] == SGI2V(lr=0.5, iterations=2)


def test_a_report_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "rows.jsonl")]) == 2
    assert "cannot read" in capsys.readouterr().err
    (tmp_path / "rows.jsonl").write_text('{"case": "old"}\n')
    assert main(["report", str(tmp_path / "rows.jsonl")]) == 2
    assert "line 1" in capsys.readouterr().err

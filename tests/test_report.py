"""A report's figures are the rows', its faults are named, its page asks nothing of the outside."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from sgi2v.evaluation.benchmark import run_benchmark
from sgi2v.evaluation.held_out import HeldOutWorld
from sgi2v.evaluation.metrics import bootstrap_ratio
from sgi2v.evaluation.report import COLUMNS, make_report
from sgi2v.evaluation.report_page import write_report
from sgi2v.evaluation.report_rows import read_for_report
from sgi2v.evaluation.report_sets import comparable, names_of, set_columns
from sgi2v.evaluation.report_text import latex, markdown, tables
from sgi2v.evaluation.store import Store
from sgi2v.evaluation.tracker import TemplateTracker
from sgi2v.planning import Sampling


def row(
    case: str, method: str, objmc: float, *, seed: int | None = 1, kinds: tuple[str, ...] = (), **more: Any
) -> dict[str, Any]:
    modelless = {"without_model": method} if method in ("still", "paste", "true") else {"controller": {"name": method}}
    metrics = {column.name: 0.5 for column in COLUMNS} | {"objmc": objmc, "tracks": []}
    return {
        "format": "sgi2v-row", "version": 1, "key": f"{case} {method} {seed} {more}", "clip": f"{case}-{method}",
        "case": case, "method": method, "seed": seed, "size": [64, 48, 8], "kinds": list(kinds), "boxes": [],
        "tracker": {"name": "T"}, "measures": 1, "metrics": metrics, "seconds": 2.0, "peak_memory": 2**30,
        "source": {"dataset": "world"}, **modelless, **more,
    }  # fmt: skip


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def some() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    rows = []
    for k in range(6):
        kinds = ("camera",) if k % 2 else ()
        rows += [row(f"s{k}", "true", 0.1 + 0.01 * k, seed=None, kinds=kinds)]
        rows += [row(f"s{k}", "still", 9.0 + k, seed=None, kinds=kinds)]
        for seed in (1, 2):
            rows += [row(f"s{k}", "none", 8.0 + rng.normal(), seed=seed, kinds=kinds)]
            rows += [row(f"s{k}", "ours", 4.0 + rng.normal(), seed=seed, kinds=kinds)]
    return rows


def test_figures_are_those_of_the_rows(tmp_path: Path) -> None:
    rows = some()
    report = make_report(read_for_report(written(tmp_path / "rows.jsonl", rows)))
    line = next(one for one in report.lines if one.method == "ours")

    def by_scene(method: str) -> torch.Tensor:
        values = [
            [r["metrics"]["objmc"] for r in rows if r["case"] == f"s{k}" and r["method"] == method] for k in range(6)
        ]
        return torch.tensor(values, dtype=torch.float64).mean(1)

    cell = line.cells["objmc"]
    assert cell is not None and cell.value == pytest.approx(float(by_scene("ours").mean()))
    assert cell.low < cell.value < cell.high
    assert line.ratio == bootstrap_ratio(by_scene("ours"), by_scene("none"))
    assert (line.num_scenes, line.num_seeds, line.num_pairs) == (6, 2, 6)
    assert line.floor == pytest.approx(0.125) and line.seconds == 2 and line.memory == 2**30
    assert next(one for one in report.lines if one.method == "still").ratio is None
    assert report.size == (64, 48, 8) and "objmc" not in report.untrusted and not report.problems
    cameras = [one for one in report.kinds if one.kind == "camera" and one.method == "ours"]
    assert cameras[0].num_scenes == 3 and cameras[0].floor == pytest.approx(0.13)
    assert [one.kind for one in report.kinds][-1] == "none of these"


def test_a_ratio_is_over_the_scenes_that_both_have(tmp_path: Path) -> None:
    rows = [row("a", "none", 10.0), row("b", "none", 10.0), row("b", "ours", 5.0), row("c", "ours", 500.0)]
    report = make_report(read_for_report(written(tmp_path / "rows.jsonl", rows)))
    line = next(one for one in report.lines if one.method == "ours")
    assert line.ratio is not None and line.ratio.value == 0.5 and line.num_pairs == 1
    assert any("true clips" in note for note in report.notes)


def test_a_metric_that_ranks_known_rows_wrongly_is_flagged(tmp_path: Path) -> None:
    rows = some()
    for one in rows:
        one["metrics"]["iou"] = {"true": 0.4, "still": 0.6}.get(one["method"], 0.5)
        one["metrics"]["path_end"] = {"true": 0.2, "still": 0.6}.get(one["method"], 0.5)
        one["metrics"]["psnr"] = None
    report = make_report(read_for_report(written(tmp_path / "rows.jsonl", rows)))
    assert "ranks still above true over 6 scenes" in report.untrusted["iou"]
    assert "path_end" not in report.untrusted and "objmc" not in report.untrusted
    # Equal where they must differ is wrong too; where both may be perfect it is not.
    assert "as high as" in report.untrusted["objmc_of_diagonal"] and "background_motion" not in report.untrusted
    head = tables(report, [])[0].head
    assert "box IoU (!)" in head and "ObjMC, px" in head


def test_faults_are_named_by_file_and_line(tmp_path: Path) -> None:
    good = some()
    lines = [json.dumps(one) for one in good]
    lines[1] = lines[1][:40]
    lines[3] = json.dumps({"case": "old", "objmc": 3})
    lines[5] = json.dumps({**good[5], "version": 2})
    lines[7] = json.dumps({k: v for k, v in good[7].items() if k != "boxes"})
    lines += [
        json.dumps({"format": "sgi2v-row", "version": 1, "key": "x", "left_out": "b.png: 3 pixels; give more"}),
        json.dumps(
            {
                "format": "sgi2v-row",
                "version": 1,
                "key": "y",
                "case": "z",
                "method": "ours",
                "error": "ValueError: no",
            }
        ),
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(lines) + '\n{"half')
    before = file.read_bytes()
    rows = read_for_report(file)
    told = "\n".join(rows.problems)
    for number, words in (
        (2, "not JSON"),
        (4, "before its rows had a version"),
        (6, "a row of version 2"),
        (8, "boxes"),
    ):
        assert re.search(rf"rows\.jsonl, line {number}: .*{words}", told), (number, told)
    assert f"line {len(lines) + 1}: not finished" in told
    report = make_report(rows)
    assert "left out: b.png: 3 pixels; give more" in report.problems
    assert "failed: z, ours: ValueError: no" in report.problems
    assert file.read_bytes() == before  # a benchmark may be writing there
    with pytest.raises(ValueError, match=r"no row that a report can be made of.*line 1"):
        read_for_report(written(tmp_path / "old.jsonl", [{"case": "old"}]))
    with pytest.raises(ValueError, match="cannot read"):
        read_for_report(tmp_path / "none.jsonl")


def test_rows_that_do_not_belong_together_are_told_apart(tmp_path: Path) -> None:
    rows = [row(f"s{k}", "none", 8.0) for k in range(3)]
    rows += [row("s0", "none", 80.0, tracker={"name": "other"}), row("s1", "none", 80.0, size=[128, 64, 8])]
    rows += [row(f"s{k}", "ours", 4.0, controller={"name": "ours", "lr": 1}) for k in range(3)]
    rows += [row("s2", "ours", 2.0, controller={"name": "ours", "lr": 2})]
    found = read_for_report(written(tmp_path / "rows.jsonl", rows))
    assert list(found.by_method) == ["none", "ours", "ours (2)"]
    assert [len(cases) for cases in found.by_method.values()] == [3, 3, 1]
    assert len(found.problems) == 2 and "another tracker" in found.problems[1]
    # As are other settings of the model: its guidance, its frame rate.
    rows = [row("s0", "none", 8.0, backbone={"settings": {"fps": fps}}) for fps in (7, 9)]
    assert list(read_for_report(written(tmp_path / "rows.jsonl", rows)).by_method) == ["none", "none (2)"]
    # Tried again, a row that failed is made good; the later row of a key counts.
    rows = [{**row("s0", "none", 1.0), "error": "x"}, row("s0", "none", 3.0)]
    found = read_for_report(written(tmp_path / "rows.jsonl", rows))
    assert not found.failed and found.by_method["none"]["s0"][0]["metrics"]["objmc"] == 3


def test_tables_say_everything_in_every_form(tmp_path: Path) -> None:
    rows = [{**one, "method": one["method"].replace("ours", "o|u_r$s<b>")} for one in some()]
    report = make_report(read_for_report(written(tmp_path / "rows.jsonl", rows)))
    found = tables(report, [])
    text = markdown(found, ["a < b"], ["left | out"])
    assert "o\\|u_r$s&lt;b&gt;" in text and "## By kind of scene" in text and "a &lt; b" in text
    widths = {
        line.count("|") - line.count("\\|") for line in text.split("## By")[0].splitlines() if line.startswith("|")
    }
    assert len(widths) == 1
    tex = latex(found, ["50 %"])
    assert "o|u\\_r\\$s<b>" in tex and "\\%" in tex and "–" not in tex
    assert tex.count("\\begin{tabular}") == len(found) == tex.count("\\end{tabular}")


def test_the_paper_is_near_only_where_no_control_comes_out_as_there(tmp_path: Path) -> None:
    report = make_report(read_for_report(written(tmp_path / "rows.jsonl", [row("a", "none", 39.0)])))
    assert comparable(report, [], on_vipseg=True).startswith("Not comparable with the paper's table")
    assert "ObjMC 39.00" in comparable(report, [], on_vipseg=True)
    rows = written(tmp_path / "rows.jsonl", [row("a", "ours", 14.0), row("a", "none", 39.0)])
    report = make_report(read_for_report(rows), baseline="ours")
    assert "here it has no FID, no FVD, ObjMC 39.00" in comparable(report, [], on_vipseg=True)
    assert names_of("inception-v3-2015") == ("FID", "KID") and names_of("i3d-kinetics-400") == ("FVD", "KVD")
    assert all("stand-in" in name for name in names_of("sgi2v-clip-64"))


class Middles:
    """Colours of some places: few features that tell clips apart, as a stand-in for an extractor."""

    name = "middles"
    sha256 = "ab" * 32
    unit: Literal["frame", "clip"] = "clip"
    resize = "4x4"

    def features(self, frames: torch.Tensor) -> torch.Tensor:
        small = torch.nn.functional.adaptive_avg_pool2d(frames, 4)
        return torch.cat([small.mean((0, 2, 3)), (small[1:] - small[:-1]).abs().mean((0, 2, 3))])[None]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real little benchmark."""
    folder = tmp_path_factory.mktemp("measured") / "small & <b>bold</b>"
    run_benchmark(
        HeldOutWorld(scene_set=2, limit=6, num_frames=4, variety="mixed"),
        {"still": "still", "paste": "paste", "true": "true", "cut <i>": "paste"},
        store=Store(rows=folder / "rows.jsonl"),
        sampling=Sampling(width=64, height=64, num_frames=4),
        tracker=TemplateTracker(scales=(), turns=()),
        extractors=[Middles()],
    )
    return folder / "rows.jsonl"


def test_sets_are_compared_by_what_was_stored(measured: Path) -> None:
    columns, notes = set_columns(read_for_report(measured), Store(rows=measured), num_resamples=50)
    assert not notes and len(columns) == 1
    column = columns[0]
    assert set(column.by_method) == {"still", "paste", "cut <i>"} and column.untrusted is None
    assert column.by_method["still"].frechet.value > column.by_method["paste"].frechet.value
    assert column.by_method["paste"].num_clips == (6, 6)
    for said in ("middles", "abababababab", "6 clips of 4 frames", "4x4"):
        assert said in column.said


def test_the_page_is_whole_and_asks_nothing_of_the_outside(measured: Path) -> None:
    done = write_report(measured, num_resamples=20)
    assert {p.name for p in done.folder.iterdir()} == {
        "table.md",
        "table.tex",
        "table.html",
        "index.html",
        "clips",
    }
    assert len(list((done.folder / "clips").iterdir())) == 6 * 4
    assert "stand-in Fréchet distance (middles)" in done.text and not done.problems
    page = (done.folder / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"<script>.*?</script>", "", page, flags=re.S))
    assert "<i>" not in page.split("<script>")[0] and "<b>bold" not in page
    # Once more over the old one; but never over something else.
    write_report(measured, page=False, num_resamples=20)
    assert not (done.folder / "clips").exists()
    with pytest.raises(ValueError, match="holds other things"):
        write_report(measured, output=measured.parent)


def test_the_page_works_in_a_browser(measured: Path, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium here")
    done = write_report(measured, output=tmp_path / "report", num_resamples=20)
    flags = "--headless --no-sandbox --disable-gpu --virtual-time-budget=3000 --dump-dom".split()
    found = subprocess.run(
        [
            chromium,
            *flags,
            f"--user-data-dir={tmp_path / 'profile'}",
            (done.folder / "index.html").as_uri() + "?frame=2",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert found.stdout.count("<canvas") == 6 * 4
    captions = re.findall(r"<b>still</b> ([\d.]+)", found.stdout)
    assert len(captions) == 6
    chosen = re.findall(r"<b>true</b> ([\d.]+)", found.stdout)
    # Best first by ObjMC, of the first method where no model was run.
    values = [float(value) for value in captions]
    assert values == sorted(values)
    assert "frame 3 of 4" in found.stdout and len(chosen) == 6


def test_rows_of_before_the_match_was_kept_are_reported_as_they_were(tmp_path: Path) -> None:
    """And rows with it have a column more."""
    heads = {}
    for name in ("old", "new"):
        rows = [row(f"s{k}", method, 3.0 + k) for k in range(3) for method in ("none", "ours")]
        for one in rows:
            one["metrics"].pop("match")
            one["metrics"] |= {"match": 0.5} if name == "new" else {}
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps(one) + "\n" for one in rows))
        heads[name] = tables(make_report(read_for_report(file)), [])[0].head
    assert set(heads["new"]) - set(heads["old"]) == {"still there, %"} and len(heads["new"]) == len(heads["old"]) + 1

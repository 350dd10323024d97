"""A benchmark survives kill -9 at any moment, goes on after a failing scene, and writes down what decides a row."""

import dataclasses
import errno
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sgi2v.backbones.svd.model import SVD
from sgi2v.controllers import SGI2V, Controller, InTurn
from sgi2v.evaluation.benchmark import BenchmarkProgress, Method, Summary, run_benchmark
from sgi2v.evaluation.clip_features import load_clip_features
from sgi2v.evaluation.datasets import Case
from sgi2v.evaluation.held_out import HeldOutWorld
from sgi2v.evaluation.origin import git_commit
from sgi2v.evaluation.rows import read_rows
from sgi2v.evaluation.store import Store, StoreFull, read_clip
from sgi2v.evaluation.tracker import TemplateTracker
from sgi2v.pipeline import generate
from sgi2v.planning import Range, Sampling
from sgi2v.scene import Box, Key, Motion, Scene
from sgi2v.step import Cancelled
from sgi2v.video import to_uint8
from tiny import load_svd, tiny_svd

SAMPLING = Sampling(num_steps=2, width=64, height=64, num_frames=4)
QUICK = TemplateTracker(scales=(), turns=())
WORLD = HeldOutWorld(scene_set=1, limit=2, num_frames=4)
FREE: dict[str, Method] = {"still": "still", "paste": "paste", "true": "true"}


@pytest.fixture(scope="module")
def backbone() -> SVD:
    return load_svd(tiny_svd(4, light=True), device="cpu", dtype="float32")


def bench(folder: Path, cases: Any = WORLD, methods: Mapping[str, Method] = FREE, **more: Any) -> Summary:
    return run_benchmark(
        cases,
        methods,
        store=Store(rows=folder / "rows.jsonl"),
        sampling=SAMPLING,
        tracker=QUICK,
        **more,
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.long
def test_killed_at_twenty_moments_it_loses_nothing(tmp_path: Path) -> None:
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, str(here / "victim.py"), str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(here)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    whole = read_rows(tmp_path / "whole" / "rows.jsonl")
    killed = read_rows(tmp_path / "killed" / "rows.jsonl")
    assert len(whole) == 10 * 4
    # Once each, in the same order, with the same figures of the same clips.
    assert [row["key"] for row in killed] == [row["key"] for row in whole]
    assert [row["metrics"] for row in killed] == [row["metrics"] for row in whole]
    stores = [Store(rows=tmp_path / name / "rows.jsonl") for name in ("whole", "killed")]
    for row in whole:
        (a, _), (b, _) = (found for s in stores if (found := s.load_clip(row["clip"])) is not None)
        assert (a == b).all()
    names = [sorted(p.name for p in s.clip_folder.rglob("*")) for s in stores]
    assert names[0] == names[1], "strays"
    assert len([name for name in names[0] if name.endswith(".npy")]) == len({row["clip"] for row in whole})


def test_rows_say_what_decides_them_and_are_made_once(tmp_path: Path, backbone: SVD) -> None:
    methods: dict[str, Method] = {**FREE, "reconstructed": "reconstructed", "none": Controller()}
    told: list[BenchmarkProgress] = []
    summary = bench(tmp_path, methods=methods, backbone=backbone, seeds=(1, 2), recipe="quick", progress=told.append)
    assert summary.num_new == len(summary.rows) == 2 * (4 + 2) and not summary.failed
    assert told[0].seconds_left is None and told[-1].seconds_left is not None
    assert told[-1].total == 12 and [t.done for t in told] == sorted(t.done for t in told)
    row = next(r for r in summary.rows if r["method"] == "none" and r["seed"] == 2)
    assert row["controller"] == {"name": "none"} and row["sampling"]["seed"] == 2 and row["recipe"] == "quick"
    assert row["backbone"]["weights_sha256"] == backbone.weights_sha256
    assert row["size"] == [64, 64, 4] and row["seconds"] > 0 and row["versions"]["torch"]
    assert row["device"].startswith("cpu") and row["kinds"] == list(WORLD[0].kinds)
    if row["peak_memory"] is not None:
        assert row["peak_memory"] > 2**26
    # What is stored is what the library makes, in 8 bits.
    found = Store(rows=tmp_path / "rows.jsonl").load_clip(row["clip"])
    assert found is not None
    video = generate(
        WORLD[0].scene,
        backbone=backbone,
        controller=Controller(),
        sampling=dataclasses.replace(SAMPLING, seed=2),
    )
    assert (found[0] == to_uint8(video.frames)).all()
    again = bench(tmp_path, methods=methods, backbone=backbone, seeds=(1, 2), recipe="quick")
    assert again.num_new == 0 and again.rows == read_rows(tmp_path / "rows.jsonl") == [
        {**r, "format": "sgi2v-row", "version": 1} for r in summary.rows
    ]
    # The true clip is as good as can be; another tracker is another row of the same clip.
    true = next(r for r in summary.rows if r["method"] == "true")
    assert true["metrics"]["psnr"] == 99 and true["metrics"]["objmc"] < 1.5
    times = {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*.npz")}
    other = run_benchmark(
        WORLD,
        {"true": "true"},
        store=Store(rows=tmp_path / "rows.jsonl"),
        sampling=SAMPLING,
        tracker=TemplateTracker(scales=(), turns=(), threshold=0.5),
    )
    assert other.num_new == 2 and other.rows[0]["clip"] == true["clip"]
    assert {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*.npz")} == times


def test_rows_from_before_a_field_was_there_are_still_found(tmp_path: Path, backbone: SVD) -> None:
    one = Case(name="one", scene=WORLD[0].scene)
    guided = SGI2V(guided=Range(low=0.0, high=1000.0), iterations=1)
    pair = InTurn(first=Controller(), second=guided)
    methods: dict[str, Method] = {"off": guided, "on": dataclasses.replace(guided, settled=0.5), "pair": pair}
    rows = {row["method"]: row for row in bench(tmp_path, [one], methods, backbone=backbone).rows}
    assert {"settled", "reuse_deep", "shrink"}.isdisjoint(rows["off"]["controller"])
    assert {"settled", "reuse_deep", "shrink"}.isdisjoint(rows["pair"]["controller"]["second"])
    assert "guidance_interval" not in rows["off"]["backbone"]["settings"]
    assert rows["on"]["controller"]["settled"] == 0.5 and "shrink" not in rows["on"]["controller"]


def test_a_scene_made_by_rule_is_known_however_a_processor_rounds(tmp_path: Path) -> None:
    case = WORLD[0]
    assert case.truth is not None and case.masks is not None
    num = bench(tmp_path, [case]).num_new
    pixels = np.array(case.scene.image)
    pixels[0, 0, 0] ^= 1
    truth = case.truth.clone()
    truth[0, 0, 0, 0] = pixels[0, 0, 0] / 255
    scene = dataclasses.replace(case.scene, image=Image.fromarray(pixels))
    rounded = dataclasses.replace(case, scene=scene, truth=truth, masks=case.masks * (1 - 1e-6))
    assert num > 1 and bench(tmp_path, [rounded]).num_new == 0
    # Drawn by another version, or known by its bytes, it is another scene; and so is a changed one known by its bytes.
    assert bench(tmp_path, [dataclasses.replace(case, rule="world 0")]).num_new == num
    assert bench(tmp_path, [dataclasses.replace(case, rule="")]).num_new == num
    assert bench(tmp_path, [dataclasses.replace(rounded, rule="")]).num_new == num


def test_a_field_of_the_controller_is_another_clip(tmp_path: Path, backbone: SVD) -> None:
    one = Case(name="one", scene=WORLD[0].scene)
    guided = SGI2V(guided=Range(low=0.0, high=1000.0), iterations=1)
    methods: dict[str, Method] = {"a": guided, "b": dataclasses.replace(guided, lr=0.5), "c": guided}
    rows = bench(tmp_path, [one], methods, backbone=backbone).rows
    assert [row["method"] for row in rows] == ["a", "b", "c"]
    assert rows[0]["clip"] == rows[2]["clip"] != rows[1]["clip"]
    assert rows[1]["controller"]["lr"] == 0.5 and rows[0]["metrics"]["psnr"] is None


class Unusable:
    """A data set with one bad case."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Case:
        if index == 1:
            raise ValueError("b.png: 3 pixels; give more")
        return dataclasses.replace(WORLD[0], name=str(index), truth=None)


def test_what_fails_is_written_down_and_the_rest_goes_on(tmp_path: Path, backbone: SVD) -> None:
    summary = bench(tmp_path, Unusable())
    assert summary.left_out == ["b.png: 3 pixels; give more"]
    assert len(summary.rows) == 4 and summary.without_truth == 2
    assert [r.get("left_out") for r in read_rows(tmp_path / "rows.jsonl")].count("b.png: 3 pixels; give more") == 1
    bench(tmp_path, Unusable())
    assert len(read_rows(tmp_path / "rows.jsonl")) == 5

    # A box at the far left of a wide picture is cut away when the picture is cropped to the model's square.
    wide = Image.fromarray(np.tile(np.arange(200, dtype=np.uint8)[None, :, None], (64, 1, 3)))
    motion = Motion(
        box=Box(left=0, top=0, right=20, bottom=20), path=(Key(time=0, x=10, y=10), Key(time=1, x=20, y=10))
    )
    bad = Case(name="bad", scene=Scene(image=wide, motions=(motion,), fit="cover"))
    good = Case(name="good", scene=WORLD[0].scene)
    other = tmp_path / "other"
    for retry, num_new in ((False, 2), (False, 0), (True, 1)):
        summary = bench(other, [bad, good], {"none": Controller()}, backbone=backbone, retry=retry)
        assert summary.num_new == num_new
        assert [row["case"] for row in summary.rows] == ["good"]
        assert [row["case"] for row in summary.failed] == ["bad"]
        assert "leaves the 64x64 picture" in summary.failed[0]["error"]
    assert len(read_rows(other / "rows.jsonl")) == 3


def test_a_truth_of_another_size_is_left_out(tmp_path: Path) -> None:
    short = dataclasses.replace(WORLD[0], truth=torch.zeros(3, 3, 64, 64), masks=None)
    summary = bench(tmp_path, [short, WORLD[1]])
    assert "(3, 3, 64, 64); the model makes (4, 3, 64, 64)" in summary.left_out[0] and len(summary.rows) == 3


def test_what_can_never_work_is_refused_before_anything_is_made(tmp_path: Path, backbone: SVD) -> None:
    for methods, message in (
        ({"none": Controller()}, "needs a model"),
        ({"reconstructed": "reconstructed"}, "needs a model"),
        ({}, "give at least one"),
    ):
        with pytest.raises(ValueError, match=message):
            bench(tmp_path, methods=methods)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"methods: 'sg-i2v' cannot run: controller\.guided: no step of 2 "):
        bench(tmp_path, methods={"sg-i2v": SGI2V(guided=Range(low=1e-9, high=1e-8))}, backbone=backbone)
    with pytest.raises(ValueError, match="say width, height and num_frames"):
        run_benchmark(WORLD, FREE, store=Store(rows=tmp_path / "rows.jsonl"))
    assert not list(tmp_path.iterdir())


def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    store = Store(rows=tmp_path / "rows.jsonl")
    with store.open(), pytest.raises(ValueError, match="another process is writing"), store.open():
        pass
    with store.open() as rows:
        assert rows == {}


def test_stopping_keeps_what_is_there(tmp_path: Path) -> None:
    def stop(progress: BenchmarkProgress) -> None:
        if progress.done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench(tmp_path, progress=stop)
    assert len(read_rows(tmp_path / "rows.jsonl")) == 4
    answers = iter([False] * 5 + [True])
    with pytest.raises(Cancelled):
        bench(tmp_path, cancelled=lambda: next(answers))
    assert bench(tmp_path).num_new == 1


def test_a_damaged_clip_is_made_again(tmp_path: Path) -> None:
    summary = bench(tmp_path)
    store = Store(rows=tmp_path / "rows.jsonl")
    file = store.clip_file(summary.rows[0]["clip"])
    file.write_bytes(file.read_bytes()[:100])
    assert read_clip(file) is None
    store.rows.unlink()
    assert bench(tmp_path).num_new == 6 and read_clip(file) is not None


def test_the_commit_is_this_checkouts() -> None:
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    if found.returncode:
        pytest.skip("not a git checkout")
    commit = git_commit()
    assert commit is not None and commit.rstrip("+") == found.stdout.strip()


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("what", ["clip", "features", "row"])
def test_a_full_disk_ends_a_benchmark_at_once(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or every clip from there on would be made in vain."""
    with monkeypatch.context() as patch:
        target = {"clip": "numpy.savez_compressed", "features": "pathlib.Path.write_bytes"}
        patch.setattr(target.get(what, "sgi2v.evaluation.store.append_row"), full)
        with pytest.raises(StoreFull, match=r"rows: cannot write .*: No space left on device; make room"):
            bench(tmp_path, extractors=(load_clip_features(),))
    assert read_rows(tmp_path / "rows.jsonl") == []
    assert len(bench(tmp_path, extractors=(load_clip_features(),)).rows) == 6


def test_a_file_system_without_locks_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("sgi2v.evaluation.store.fcntl.flock", unknown)
    assert len(bench(tmp_path).rows) == 6


def test_a_scene_is_known_by_its_pixels_however_they_are_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = WORLD[0].scene
    mask = Image.new("L", scene.image.size, 255)
    masked = dataclasses.replace(scene, motions=(dataclasses.replace(scene.motions[0], mask=mask),))

    def sources(one: Scene) -> set[str]:
        case = Case(name="one", scene=one)
        return {row["scene_sha256"] for row in bench(tmp_path, [case], {"still": "still"}).rows}

    known = sources(masked)
    assert len(known) == 1
    monkeypatch.setattr("sgi2v.images.png_bytes", lambda *_, **__: b"packed otherwise")
    assert sources(masked) == known
    brighter = masked.image.point(lambda value: min(255, value + 1))
    mask.putpixel((0, 0), 0)
    changed = dataclasses.replace(masked.motions[0], mask=mask.copy())
    for other in (
        dataclasses.replace(masked, image=brighter),
        dataclasses.replace(masked, motions=(changed,)),
        scene,
    ):
        assert not sources(other) & known


def test_what_has_no_mask_is_tracked_by_its_box_whatever_others_have(tmp_path: Path) -> None:
    scene = WORLD[0].scene
    mask = Image.new("L", scene.image.size, 255)
    pin = Motion(box=Box(left=2, top=2, right=14, bottom=14))
    both = dataclasses.replace(scene, motions=(dataclasses.replace(scene.motions[0], mask=mask), pin))
    seen: list[Any] = []

    class Watched(TemplateTracker):
        def track(self, frames: Any, boxes: Any, masks: Any = None) -> Any:
            seen.append(masks)
            return super().track(frames, boxes, masks)

    run_benchmark(
        [Case(name="both", scene=both)],
        {"still": "still", "paste": "paste"},
        store=Store(rows=tmp_path / "rows.jsonl"),
        sampling=SAMPLING,
        tracker=Watched(scales=(), turns=()),
    )
    assert len(seen) == 2
    for masks in seen:
        assert masks[0] is not None and masks[1] is None


def test_the_background_of_a_camera_that_may_move_is_not_judged(tmp_path: Path) -> None:
    for still, judged in ((None, True), (True, True), (False, False)):
        case = dataclasses.replace(WORLD[0], kinds=(), still_camera=still)
        (found,) = bench(tmp_path / str(still), [case], {"true": "true"}).rows
        assert (found["metrics"]["background_motion"] is not None) is judged

"""The probe: a layer that sees is told from a blind one, only what moves counts, and advice is kept with care."""

import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from plugged import write_entry_points
from sgi2v import SGI2V, Box, Key, Motion, Scene, save_scene
from sgi2v.advice import advice_folder, advice_on, advised, save_advice
from sgi2v.attention import own_positions
from sgi2v.backbones import Backbone, Text, outline_of
from sgi2v.cli import main
from sgi2v.cli.common import parse
from sgi2v.cli.generate_options import chosen_controller, default_options
from sgi2v.controllers import recommended
from sgi2v.errors import FieldError
from sgi2v.evaluation.correspondence import (
    Found,
    Watched,
    distances,
    guided_levels,
    least_moves,
    looks,
    losses,
    nearest_levels,
)
from sgi2v.evaluation.held_out import HeldOutWorld
from sgi2v.evaluation.tracker import TemplateTracker, TrackResult
from sgi2v.grid import Grid, Track, Tracks, tracks_of
from sgi2v.opening import ModelChoice
from sgi2v.planning import Range
from sgi2v.step import Level
from tiny import load_svd, save_tiny_svd, tiny_svd
from tiny_dit import tiny_dit
from toy_motion.saving import save_toy

TRUTH = HeldOutWorld(scene_set=1, limit=1, width=96, height=64, num_frames=4)


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration folder of the test's own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config"


# ---------------------------------------------------------------- the measure


def test_of_positions_the_loss_is_least_where_the_path_came_from() -> None:
    """A map that finds every place where it was, all of it moved by two cells right and one down."""
    maps = torch.stack([torch.full((2, 6, 8), 9.0), own_positions((6, 8)) - torch.tensor([2.0, 1])[:, None, None]])
    shown = looks(maps, "up:match")
    assert torch.equal(shown[0], own_positions((6, 8))) and looks(maps, "up:output") is maps
    costs = losses(shown, (1, 2, 4, 5), 0.4, (6, 8))
    assert least_moves(costs, (1, 2)).tolist() == [[2.0, 1.0]]
    assert float(costs[1, 2, 4]) == pytest.approx(0, abs=1e-4)


@dataclasses.dataclass
class _Told:
    """A tracker that answers what it was told to."""

    centers: Tensor
    lost: Tensor

    def track(self, frames: Tensor, boxes: Tensor, masks: Sequence[Tensor | None] | None = None) -> TrackResult:
        return TrackResult(centers=self.centers, lost=self.lost)


def test_only_what_was_seen_moves_and_stays_inside_counts() -> None:
    grid = Grid(width=64, height=64, num_frames=9, frame_stride=4)
    moved = {"stays": [0] * 9, "moves": [0] + [4] * 4 + [16] * 4, "leaves": [0] * 5 + [45] * 4, "lost": [16] * 9}
    first = np.array([[8.0, 8, 24, 24]], dtype=np.float32)
    tracks = Tracks(
        image=Image.new("RGB", (64, 64)),
        tracks=tuple(Track(boxes=np.repeat(first, 9, 0)) for _ in moved),
    )
    way = torch.tensor(list(moved.values()), dtype=torch.float64)
    centers = torch.stack([16 + way, torch.full_like(way, 16)], -1)
    lost = torch.zeros(4, 9, dtype=torch.bool)
    lost[3, 6] = True
    clip = Watched.of(torch.zeros(9, 3, 64, 64), tracks, grid, _Told(centers, lost))
    assert clip.moves[1].tolist() == [[0, 0], [4, 0], [16, 0]], "four pictures on average"
    assert clip.counts.tolist() == [[False] * 3, [False, False, True], [False] * 3, [False] * 3]


def seeing(monkeypatch: pytest.MonkeyPatch) -> Backbone:
    """A model of which one layer is the clip itself, and another noise."""
    backbone = load_svd(tiny_svd(4, light=True))

    def encode_frames(frames: Tensor, grid: Grid) -> Tensor:
        return torch.nn.functional.pad(torch.nn.functional.avg_pool2d(frames, grid.stride), (0, 0, 0, 0, 0, 1))

    def features(x: Tensor, level: Level, condition: object, layers: Sequence[str]) -> Mapping[str, Tensor]:
        blind = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
        return {layer: x if layer.startswith("seeing") else blind for layer in layers}

    monkeypatch.setattr(backbone, "encode_frames", encode_frames)
    monkeypatch.setattr(backbone, "features", features)
    return backbone


def test_a_layer_that_sees_is_told_from_one_that_is_blind(monkeypatch: pytest.MonkeyPatch) -> None:
    case, grid = TRUTH[0], Grid(width=96, height=64, num_frames=4)
    assert case.truth is not None
    clip = Watched.of(case.truth, tracks_of(case.scene, grid), grid, TemplateTracker())
    assert clip.counts.any()
    done: list[int] = []
    levels = (Level(signal=1.0, noise=1e-4), Level(signal=1.0, noise=100.0))
    model, told = seeing(monkeypatch), done.append
    read = distances(
        clip, model, grid, ["seeing:output", "blind:output"], levels, text=Text(), heatmap_std=0.4, seed=0,
        told=told,
    )  # fmt: skip
    assert done == [1, 2]
    ways = clip.moves[clip.counts]
    found = Found(
        levels=levels, distances=read, whole_cells=torch.zeros(len(ways)).double(), stays=ways.norm(dim=-1), cell=8,
        num_clips=1,
    )  # fmt: skip
    clear, drowned = found.mean("seeing:output").tolist()
    assert clear < 7 < float(found.mean("blind:output")[0]) and drowned > clear + 5
    assert found.near("seeing:output")[0] > 0.5
    assert found.best("output", 1) == ("seeing:output",) and found.best("match", 2) == ()


def test_levels_are_the_schedules_own() -> None:
    levels = outline_of(tiny_svd(2)).levels(12, Grid(width=32, height=32, num_frames=2))
    inside = [level for level in levels[:-1] if 1.0 <= level.sigma <= 300.0]
    picked = guided_levels(SGI2V(guided=Range(low=1.0, high=300.0)), levels, 3)
    assert picked[0] == inside[0] and picked[-1] == inside[-1] and len(picked) == 3
    near = nearest_levels((0.95, 0.95, 0.5), levels)
    assert len(near) == 2 and set(near) <= set(levels)
    assert abs(near[0].noise_level - 0.95) == min(abs(level.noise_level - 0.95) for level in levels)
    with pytest.raises(FieldError, match="noise_levels: 1 does not lie between"):
        nearest_levels((1.0,), levels)


# ---------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures, each with a box."""
    folder = tmp_path_factory.mktemp("scenes")
    for seed in range(2):
        coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        box = Box(left=20, top=16, right=52, bottom=48)
        motion = Motion(box=box, path=(Key(time=0.0, x=36, y=32), Key(time=1.0, x=60, y=40)))
        image = Image.fromarray(coarse).resize((96, 72), Image.Resampling.BICUBIC)
        save_scene(Scene(image=image, motions=(motion,)), folder / f"{seed}.json")
    return folder


@pytest.fixture
def restless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracker that sees things go right: random weights move nothing that could be followed."""

    class _Right:
        def track(self, frames: Tensor, boxes: Tensor, masks: object = None) -> TrackResult:
            middle = ((boxes[:, :2] + boxes[:, 2:]) / 2).double()[:, None].repeat(1, len(frames), 1)
            middle[..., 0] += torch.linspace(0, 30, len(frames))
            return TrackResult(centers=middle, lost=torch.zeros(len(boxes), len(frames), dtype=torch.bool))

    monkeypatch.setattr("sgi2v.evaluation.trackers.load_tracker", lambda name: _Right())


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(write_entry_points(tmp_path_factory.mktemp("site"))))
        yield


FOLDERS: Mapping[str, Callable[[Path], Path]] = {
    "svd": lambda _: tiny_svd(4, light=True),
    "toy-flow": lambda place: save_toy(place / "toy"),
    "ti2v-5b": lambda _: tiny_dit("ti2v-5b"),
}


@pytest.mark.parametrize("kind", FOLDERS)
@pytest.mark.usefixtures("installed", "restless")
def test_a_probe_prints_every_layer_and_keeps_the_best(
    kind: str, scenes: Path, tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = FOLDERS[kind](tmp_path)
    said = [
        "probe", "--backbone", str(folder), "--scenes", str(scenes), "--width", "96", "--height", "64", "--num-frames",
        "4" if kind == "svd" else "9", "--num-steps", "3", "--noise-levels", "0.5", "0.9", "--device", "cpu", "--quiet",
        *(["--blocks", "up_blocks.2"] if kind == "svd" else []),
    ]  # fmt: skip
    assert main(said) == 0
    first, heads, *lines, last = capsys.readouterr().out.splitlines()
    assert first.startswith("2 clips, ") and heads.split()[0] == "layer" and not config.exists()
    listed = outline_of(folder).layers()
    wanted = [f"{b}:{s}" for b, sources in listed.items() for s in sources if kind != "svd" or "up_blocks.2" in b]
    assert [line.split()[0] for line in lines[:-2]] == wanted
    assert [line.split("  ")[0] for line in lines[-2:]] == ["a box that stays", "moves by whole cells"]
    chosen = last.removeprefix("nearest of source first-frame: ").split()
    assert len(chosen) == 2 and set(chosen) <= set(wanted)

    assert main([*said, "--write", "--source", "match", "--num-layers", "1"]) == 0
    written = Path(capsys.readouterr().out.splitlines()[-1])
    assert written.parent == config / "sgi2v" / "advice"
    settings = ModelChoice(backbone=str(folder)).outline().settings
    controller = recommended("sg-i2v", settings.recommended)
    assert isinstance(controller, SGI2V)
    assert controller.loss == "matching" and controller.layers[0].endswith(":match") and len(controller.layers) == 1
    assert "sgi2v probe on" in settings.notes["sg-i2v"]
    assert ModelChoice(backbone=str(folder), probed=False).outline().settings == outline_of(folder).settings


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (["--blocks", "up_blocks.9"], "blocks: .* has no block 'up_blocks.9'; known are down_blocks.0"),
        (["--source", "smell"], "source: no block read has 'smell'; known are .*first-frame"),
        (["--num-layers", "0"], "num_layers: must be at least 1"),
        (["--noise-levels", "2"], "noise_levels: 2 does not lie between 0 and 1"),
        (["--width", "33"], "width: must be a multiple of 8"),
        (["--scenes", "nowhere"], "nowhere"),
    ],
)
def test_a_mistake_gets_one_line_and_no_model_is_loaded(
    said: list[str], message: str, scenes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ModelChoice, "load", None)
    given = ["--scenes", str(scenes)] if "--scenes" not in said else []
    assert main(["probe", "--backbone", str(tiny_svd(4, light=True)), *given, *said]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error), error


def test_clips_in_which_nothing_moves_say_so(scenes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = "--width 64 --height 64 --num-frames 4 --num-steps 1 --noise-levels 0.9 --blocks mid_block --quiet".split()
    model = ["--backbone", str(tiny_svd(4, light=True)), "--device", "cpu", "--seeds", "1"]
    assert main(["probe", *model, "--scenes", str(scenes), *said]) in (0, 2)
    seen = capsys.readouterr()
    assert "places of things" in seen.out or "in none of 2 clips did a tracked thing move" in seen.err


# ---------------------------------------------------------------- advice

BEST = {"sg-i2v": {"layers": ["up_blocks.1.attentions.0:first-frame"], "loss": "alignment"}}


def test_advice_comes_back_for_the_same_weights_alone(tmp_path: Path) -> None:
    mine, other = (outline_of(save_tiny_svd(tmp_path / n, num_frames=2, seed=s)) for n, s in (("a", 0), ("b", 1)))
    assert advice_on(mine) is None
    file = save_advice(mine, BEST, "a test")
    assert file == advice_folder() / f"{mine.hash_weights()}.json"
    assert [one.name for one in advice_folder().iterdir()] == [file.name], "nothing half written is left"
    found = advice_on(mine)
    assert found is not None and found.recommended == BEST and found.said == "a test"
    assert advice_on(other) is None, "of the same sizes, but not the same"
    settings = advised(mine).settings
    assert recommended("sg-i2v", settings.recommended) == SGI2V(layers=("up_blocks.1.attentions.0:first-frame",))
    assert settings.notes["sg-i2v"].startswith("Layers, loss as found by a test; --no-probed")
    assert advised(other) is other


def test_weights_are_hashed_only_where_it_must_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outline = outline_of(save_tiny_svd(tmp_path / "m", num_frames=2, light=True))
    save_advice(outline, BEST, "a test")
    hashed: list[object] = []
    plain = type(outline).hash_weights
    monkeypatch.setattr(type(outline), "hash_weights", lambda self: hashed.append(self) or plain(self))  # type: ignore[func-returns-value]
    assert advice_on(outline) is not None and not hashed
    for file in outline.folder.glob("*/*.safetensors"):
        os.utime(file)  # as a copy would be
    assert advice_on(outline) is not None and len(hashed) == 1
    other = outline_of(save_tiny_svd(tmp_path / "n", num_frames=2))
    assert advice_on(other) is None and len(hashed) == 1, "files of other sizes are other weights"


def test_a_recipe_that_names_layers_and_what_is_typed_win() -> None:
    choice = ModelChoice()
    save_advice(choice.outline(), {"sg-i2v": {"layers": ["up_blocks.1.attentions.0:match"], "loss": "matching"}}, "x")
    layers = {
        recipe: recommended("sg-i2v", dataclasses.replace(choice, recipe=recipe).outline().settings.recommended)
        for recipe in (None, "paper", "study")
    }
    found = {recipe: (one.loss, one.layers[0]) for recipe, one in layers.items() if isinstance(one, SGI2V)}
    assert found[None] == found["study"] == ("matching", "up_blocks.1.attentions.0:match")
    assert found["paper"] == ("alignment", "up_blocks.2.attentions.1:first-frame")
    for arguments, loss in ([], "matching"), (["--no-probed"], "alignment"):
        default = default_options(arguments)
        typed = parse(type(default), "generate", ["a.json", *arguments, "controller:sg-i2v"], default)
        assert getattr(typed.controller, "loss", None) == loss


@pytest.mark.parametrize("pair", [False, True])
def test_what_is_typed_is_laid_over_what_is_known_only_when_the_model_is_there(pair: bool) -> None:
    """A hub's model: its options are shown before its folder, and so what was found for it, is known."""
    method, prefix = ("time-to-move+sg-i2v", "--controller.second") if pair else ("sg-i2v", "--controller")
    default = default_options(["--no-probed"])
    typed = parse(type(default), "generate", ["a.json", f"controller:{method}", f"{prefix}.lr", "0.7"], default)
    left = parse(type(default), "generate", ["a.json"], default)
    save_advice(ModelChoice().outline(), BEST, "a test")
    outline = ModelChoice().outline()
    found: Any = chosen_controller(typed, default, outline)
    wanted: Any = recommended(method, outline.settings.recommended)
    if pair:
        assert found.first == wanted.first
        found, wanted = found.second, wanted.second
    assert found == dataclasses.replace(wanted, lr=0.7) and list(found.layers) == BEST["sg-i2v"]["layers"]
    assert chosen_controller(left, default, outline) is None
    assert chosen_controller(typed, default, ModelChoice(probed=False).outline()) == typed.controller


DAMAGED = {
    "no JSON": b"{",
    "no object": b"[]",
    "of something else": b'{"format": "x"}',
    "newer": b'{"format": "sgi2v-advice", "version": 2}',
    "empty": b'{"format": "sgi2v-advice", "version": 1}',
    "no text": b"\xff\xfe",
    "deep": b"[" * 100_000,
    "large": b" " * (2**20 + 1),
}


@pytest.mark.parametrize("how", DAMAGED)
def test_damaged_advice_is_named(how: str, tmp_path: Path) -> None:
    outline = outline_of(tiny_svd(2, light=True))
    advice_folder().mkdir(parents=True)
    file = advice_folder() / f"{'0' * 64}.json"
    file.write_bytes(DAMAGED[how])
    with pytest.raises(FieldError, match=f"advice: {file}.*delete it"):
        advice_on(outline)


@pytest.mark.parametrize(
    "changes",
    [
        {"weights_sha256": "1" * 64},
        {"files": {"a": [1]}},
        {"files": {"a": [1, True]}},
        {"said": 3},
        {"recommended": {"sg-i2v": {"colour": 1}}},
        {"recommended": {"sg-i2v": {"loss": "matching"}}},
        {"recommended": {"magic": {}}},
        {"recommended": {"sg-i2v": {"name": "none"}}},
        {"recommended": {"sg-i2v": []}},
    ],
)
def test_advice_with_a_part_that_is_wrong_is_refused(changes: dict[str, object]) -> None:
    outline = outline_of(tiny_svd(2, light=True))
    file = save_advice(outline, BEST, "a test")
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(FieldError, match=r"advice: .*\.json"):
        advice_on(outline)


def test_where_nothing_can_be_written_it_is_said_before_any_compute(
    tmp_path: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(ModelChoice, "load", None)
    model = ["--backbone", str(tiny_svd(4, light=True)), "--width", "64", "--height", "64", "--num-steps", "3"]
    assert main(["probe", *model, "--scenes", str(scenes), "--noise-levels", "0.9", "--write"]) == 2
    assert "is a file, not a folder" in capsys.readouterr().err


def test_the_folder_is_where_the_system_keeps_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert advice_folder() == tmp_path / "config" / "sgi2v" / "advice"
    monkeypatch.setenv("HOME", str(tmp_path))
    for said in ("", "relative/path"):
        monkeypatch.setenv("XDG_CONFIG_HOME", said)
        monkeypatch.setattr("sys.platform", "linux")
        assert advice_folder() == tmp_path / ".config" / "sgi2v" / "advice"
    monkeypatch.setattr("sys.platform", "darwin")
    assert advice_folder() == tmp_path / "Library" / "Application Support" / "sgi2v" / "advice"

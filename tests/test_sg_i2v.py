"""What SG-I2V can do beside what was published: off it changes no bit, on each does what its field says."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import sgi2v.backbones.dit.features
import sgi2v.backbones.svd.features
import toy_motion.model
from plugged import write_entry_points
from sgi2v import SGI2V, Range, load_backbone
from sgi2v.alignment import alignment_loss, alignment_plan, matching_loss
from sgi2v.attention import first_frame_attention, match_positions
from sgi2v.backbones import Backbone
from sgi2v.controllers import Setup, controller_from_dict
from sgi2v.dragging import editable_cells
from sgi2v.errors import FieldError
from sgi2v.grid import Track, Tracks
from sgi2v.spectrum import merge_frequencies, with_statistics_of
from sgi2v.step import Level, Reporter, Step
from tiny import load_svd, setup_of, tiny_svd
from tiny_dit import tiny_dit
from toy_motion.saving import save_toy

GUIDED = Range(low=0.5, high=0.999, unit="noise-level")
LAYERS = {
    "svd": ("up_blocks.2.attentions.1", "up_blocks.3.attentions.0"),
    "toy-flow": ("blocks.0", "blocks.1"),
    "ti2v-5b": ("blocks.0", "blocks.1"),
    "a14b": ("blocks.0", "blocks.1"),
    "ltx": ("transformer_blocks.0", "transformer_blocks.1"),
}
NUM_STEPS = 6


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Backbone]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(write_entry_points(tmp_path_factory.mktemp("site"))))
        toy = load_backbone(save_toy(tmp_path_factory.mktemp("toy")), device="cpu", dtype="float32")
        models = {name: load_backbone(tiny_dit(name), device="cpu", dtype="float32") for name in list(LAYERS)[2:]}
        yield {"svd": load_svd(tiny_svd(3), dtype="float32"), "toy-flow": toy, **models}


@dataclasses.dataclass(frozen=True)
class Bench:
    """A model with a scene of two boxes that move."""

    name: str
    backbone: Backbone
    setup: Setup

    def controller(self, source: str = "first-frame", **fields: Any) -> SGI2V:
        layers = tuple(f"{block}:{source}" for block in LAYERS[self.name])
        values: dict[str, Any] = {"guided": GUIDED, "iterations": 3, "lr": 0.1, "layers": layers}
        return SGI2V(**(values | fields))

    def step(self, index: int = 1, reporter: Reporter | None = None) -> Step:
        level, following = self.setup.levels[index : index + 2]
        return Step(index=index, count=NUM_STEPS, level=level, next_level=following, reporter=reporter or Reporter())

    def x(self, index: int = 1) -> Tensor:
        drawn = torch.randn(self.setup.grid.latent_shape, generator=torch.Generator().manual_seed(5))
        return drawn * self.setup.levels[index].init_noise_sigma

    def steered(self, controller: SGI2V, index: int = 1, reporter: Reporter | None = None) -> Tensor:
        with torch.no_grad():
            return controller.steer(self.x(index), self.step(index, reporter), controller.prepare(self.setup))


@pytest.fixture(params=LAYERS)
def bench(request: pytest.FixtureRequest, backbones: Mapping[str, Backbone]) -> Bench:
    name = request.param
    larger = 4 if name == "ltx" else 1  # its cells are of 32 pixels: some must lie outside both boxes
    grid = backbones[name].grid(64 * larger, 96 * larger, {"svd": 3, "ltx": 17}.get(name, 9))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (grid.height, grid.width, 3), dtype=np.uint8))
    first = larger * np.array([[9.0, 17, 40, 60], [30, 50, 55, 80]], dtype=np.float32)
    moves = (
        larger
        * np.linspace(0, 1, grid.num_frames)[:, None]
        * np.array([[16, 14, 16, 14], [-20, -30, -20, -30]])[:, None]
    )
    tracks = tuple(Track(boxes=(box + move).astype(np.float32)) for box, move in zip(first, moves, strict=True))
    backbone = backbones[name]
    return Bench(name, backbone, setup_of(backbone, Tracks(image=image, tracks=tracks), grid, num_steps=NUM_STEPS))


# ---------------------------------------------------------------- off


def plain_step(bench: Bench, controller: SGI2V) -> Tensor:
    """A guided step as it was before there were other ways, written out."""
    plan = alignment_plan(bench.setup.tracks, bench.setup.grid, controller.heatmap_std)
    x, level = bench.x(), bench.setup.levels[1]
    optimised = x.clone()
    optimiser = torch.optim.AdamW([optimised], lr=controller.lr * level.signal, weight_decay=controller.weight_decay)
    for _ in range(controller.iterations):
        leaf = optimised.detach().requires_grad_(True)
        features = bench.backbone.features(leaf, level, bench.setup.condition, controller.layers)
        (optimised.grad,) = torch.autograd.grad(alignment_loss(features.values(), plan), leaf)
        optimiser.step()
    state = controller.prepare(bench.setup)
    merged = merge_frequencies(optimised.detach(), x, state.low_pass)
    return merged if state.free is None else torch.where(state.free, merged, x)


def test_with_all_of_it_off_a_step_is_to_the_bit_what_it_was(bench: Bench) -> None:
    controller = bench.controller()
    found = bench.steered(controller)
    assert torch.equal(found, plain_step(bench, controller)) and not torch.equal(found, bench.x())


@pytest.mark.parametrize(
    "field",
    [
        {"lr_unit": "noise"},
        {"clip_gradient": 1e-6, "iterations": 1, "lr": 1e-9},
        {"keep_statistics": True},
        {"hold_background": 10.0},
        {"path_parts": 2},
        {"backward": "direct"},
    ],
)  # fmt: skip
def test_each_of_it_on_changes_something_and_no_frame_that_is_kept(bench: Bench, field: dict[str, Any]) -> None:
    found = bench.steered(bench.controller(**field))
    assert bool(found.isfinite().all()) and not torch.equal(found, bench.steered(bench.controller()))
    kept = ~bench.backbone.free(bench.setup.grid)
    assert torch.equal(found[kept], bench.x()[kept])


# ---------------------------------------------------------------- gradients against slopes


@contextmanager
def frozen_first_frame(known: dict[int, tuple[Tensor, ...]]) -> Iterator[None]:
    """First keys and values are those of the first pass, call by call: what stop-gradients mean to a slope."""
    calls = 0

    def keys(*parts: Tensor) -> list[Tensor]:
        nonlocal calls
        first = known.setdefault(calls, tuple(part[:1].detach() for part in parts))
        calls += 1
        return [torch.cat([a, part[1:]]) for a, part in zip(first, parts, strict=True)]

    def attending(query: Tensor, key: Tensor, value: Tensor, num_heads: int) -> Tensor:
        key, value = keys(key, value)
        return first_frame_attention(query, key, value, num_heads)

    def matching(query: Tensor, key: Tensor, num_heads: int, size: tuple[int, int]) -> Tensor:
        return match_positions(query, keys(key)[0], num_heads, size)

    with pytest.MonkeyPatch.context() as patch:
        for module in (sgi2v.backbones.svd.features, sgi2v.backbones.dit.features, toy_motion.model):
            patch.setattr(module, "first_frame_attention", attending)
            patch.setattr(module, "match_positions", matching)
        yield


@pytest.mark.parametrize(("loss", "source"), [("alignment", "first-frame"), ("matching", "match")])
def test_a_gradient_is_the_slope_with_what_is_frozen_in_place(bench: Bench, loss: str, source: str) -> None:
    controller, level = bench.controller(source, loss=loss), bench.setup.levels[2]
    state, x = controller.prepare(bench.setup), bench.x(2)
    value, gradient = controller.loss_and_gradient(x, level, state)
    known: dict[int, tuple[Tensor, ...]] = {}
    targets: list[Tensor] = []

    def at(moved: Tensor) -> float:
        with frozen_first_frame(known), torch.no_grad():
            features = bench.backbone.features(moved, level, bench.setup.condition, controller.layers)
        if not targets:
            targets.extend(maps[:1] for maps in features.values())
        maps = [torch.cat([first, maps[1:]]) for first, maps in zip(targets, features.values(), strict=True)]
        return (matching_loss if loss == "matching" else alignment_loss)(maps, state.plan).item()

    assert at(x) == pytest.approx(value.item(), rel=1e-5)
    assert value > 0 and gradient.any()
    draws = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    for direction in (gradient / gradient.norm(), draws / draws.norm() + gradient / gradient.norm()):
        length = 0.02 * level.init_noise_sigma
        slope = (at(x + length * direction) - at(x - length * direction)) / (2 * length)
        assert slope == pytest.approx(float((gradient * direction).sum()), rel=2e-2)


def test_the_loss_falls_under_either_loss(bench: Bench) -> None:
    class Losses(Reporter):
        seen: tuple[float, ...] = ()

        def iteration(self, step: Step, index: int, count: int, loss: Tensor) -> None:
            self.seen += (loss.item(),)

    for loss, source in (("alignment", "first-frame"), ("matching", "match")):
        losses = Losses()
        lr = 0.003 if bench.name == "svd" else 0.01
        bench.steered(bench.controller(source, loss=loss, lr=lr, lr_unit="noise", iterations=15), reporter=losses)
        assert losses.seen[3] < losses.seen[0] and losses.seen[-1] < 0.97 * losses.seen[0], (loss, losses.seen)


# ---------------------------------------------------------------- without a pass back


def test_direct_keeps_no_graph_and_its_gradient_is_that_of_the_clean_latents(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller, level = bench.controller(backward="direct", hold_background=0.5), bench.setup.levels[1]
    assert controller.uses().features == ("x0",)
    state, x, features = controller.prepare(bench.setup), bench.x(), bench.backbone.features
    saved: list[Tensor] = []
    asked: list[Sequence[str]] = []

    def watched(x: Tensor, level: Level, condition: object, layers: Sequence[str]) -> Mapping[str, Tensor]:
        asked.append(layers)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):  # type: ignore[func-returns-value]
            found = features(x, level, condition, layers)
        assert not any(maps.requires_grad for maps in found.values())
        return found

    monkeypatch.setattr(bench.backbone, "features", watched)
    value, gradient = controller.loss_and_gradient(x, level, state)
    assert asked == [("x0",)] and not saved
    clean = features(x, level, bench.setup.condition, ["x0"])["x0"].detach().requires_grad_(True)
    wanted = alignment_loss([clean], state.plan)
    (slope,) = torch.autograd.grad(wanted, clean)
    assert value.item() == pytest.approx(wanted.item(), rel=1e-5) and slope.any()
    assert torch.allclose(gradient, slope, atol=1e-7)

    monkeypatch.undo()
    watching = bench.controller()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):  # type: ignore[func-returns-value]
        watching.loss_and_gradient(bench.x(), level, watching.prepare(bench.setup))
    assert saved, "the watch sees a pass that is kept"


# ---------------------------------------------------------------- the fields, each by its definition


def test_the_step_is_as_long_as_its_unit_says(bench: Bench) -> None:
    """AdamW's first step is as long as lr wherever there is a gradient."""
    level = bench.setup.levels[2]
    for unit, share in (("signal", level.signal), ("noise", level.noise)):
        controller = bench.controller(lr=0.01, lr_unit=unit, iterations=1, weight_decay=0.0, cutoff=100.0)
        moved = (bench.steered(controller, index=2) - bench.x(2)).abs()
        assert float(moved.quantile(0.9)) == pytest.approx(0.01 * share, rel=0.05)


def test_a_gradient_is_cut_to_the_largest_norm_and_a_shorter_one_is_left(bench: Bench) -> None:
    gradient = torch.randn(bench.setup.grid.latent_shape)
    longest = float(gradient.norm())
    cut = bench.controller(clip_gradient=0.5)._clipped(gradient)
    assert float(cut.norm()) == pytest.approx(0.5, rel=1e-5)
    assert torch.allclose(cut * longest / 0.5, gradient, atol=1e-5)
    assert torch.equal(bench.controller(clip_gradient=2 * longest)._clipped(gradient), gradient)


def test_statistics_are_given_back_after_an_iteration(bench: Bench) -> None:
    one = bench.controller(iterations=1, lr=1.0, cutoff=100.0)
    found = bench.steered(dataclasses.replace(one, keep_statistics=True))
    wanted = with_statistics_of(bench.x(), bench.steered(one))
    free = bench.backbone.free(bench.setup.grid)
    scale = float(bench.x().std())
    assert torch.allclose(found[free], wanted[free], atol=1e-4 * scale)
    for statistic in (torch.mean, torch.std):
        assert torch.allclose(statistic(found, dim=(2, 3)), statistic(bench.x(), dim=(2, 3)), atol=1e-4 * scale)


def test_what_lies_outside_changes_less_when_it_is_held(bench: Bench) -> None:
    level, grid = bench.setup.levels[1], bench.setup.grid
    outside = 1 - editable_cells(bench.setup.tracks, grid, "frame")

    def changed(controller: SGI2V) -> float:
        with torch.no_grad():
            before, after = (
                bench.backbone.features(x, level, bench.setup.condition, ["x0"])["x0"]
                for x in (bench.x(), bench.steered(controller))
            )
        return float(((after - before).square() * outside).sum())

    base = bench.controller(iterations=6, lr=0.02, lr_unit="noise", weight_decay=0.0, cutoff=100.0)
    assert changed(dataclasses.replace(base, hold_background=1e4)) < 0.7 * changed(base)


def test_the_path_is_walked_in_parts_and_whole_in_the_end(bench: Bench) -> None:
    controller = bench.controller(path_parts=2)
    acts = controller.schedule(bench.setup.levels).acts
    state, grid = controller.prepare(bench.setup), bench.setup.grid
    whole, half = (alignment_plan(bench.setup.tracks.part(share), grid, 0.4) for share in (1.0, 0.5))
    guided = [index for index, acting in enumerate(acts) if acting]
    assert len(guided) >= 2
    for place, index in enumerate(guided):
        wanted = whole if 2 * (place + 1) > len(guided) else half
        assert np.array_equal(state.plans[index].cells, wanted.cells)
    assert state.plan is state.plans[guided[-1]] and not np.array_equal(half.cells, whole.cells)
    assert bench.controller().prepare(bench.setup).plans[guided[0]].num_rows == whole.num_rows
    with pytest.raises(FieldError, match=rf"controller\.path_parts: 9 for {len(guided)} guided steps"):
        bench.controller(path_parts=9).schedule(bench.setup.levels)


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"loss": "matching"}, r"controller\.layers: matching reads places, and 'a:first-frame' gives looks"),
        ({"layers": ("a:match",)}, r"controller\.loss: alignment compares looks, and 'a:match' gives places"),
        ({"loss": "matching", "layers": ("a:match",), "backward": "direct"}, r"controller\.backward: direct"),
        ({"backward": "direct", "reuse_deep": True}, r"controller\.reuse_deep: a direct pass"),
        ({"loss": "likeness"}, r"controller\.loss: 'likeness' is not known"),
        ({"backward": "never"}, r"controller\.backward: 'never' is not known"),
        ({"lr_unit": "px"}, r"controller\.lr_unit: 'px' is not known"),
        ({"clip_gradient": -1.0}, r"controller\.clip_gradient"),
        ({"hold_background": float("nan")}, r"controller\.hold_background"),
        ({"path_parts": 0}, r"controller\.path_parts"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(FieldError, match=message):
        controller_from_dict({"name": "sg-i2v", "layers": ("a:first-frame",), **fields})


def test_after_rotation_is_a_place_too() -> None:
    assert SGI2V(loss="matching", layers=("a:match-rope", "a:match")).uses().features == ("a:match-rope", "a:match")

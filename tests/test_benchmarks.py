"""What the benchmarks count is right, and the yardstick they measure against computes what it stands for."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sgi2v import SGI2V, SVDSettings
from sgi2v.controllers import Setup
from sgi2v.grid import Grid, Track, Tracks
from sgi2v.step import Reporter, Step
from tiny import tiny_unet

ROOT = Path(__file__).parents[1]
NAMES = ("counting", "architecture", "timing", "phases", "yardstick", "full_size", "video_transformers")


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    """The modules of benchmarks/, which are no part of the package."""
    sys.path.insert(0, str(ROOT))
    try:
        yield SimpleNamespace(**{name: importlib.import_module(f"benchmarks.{name}") for name in NAMES})
    finally:
        sys.path.remove(str(ROOT))
        for name in NAMES:
            sys.modules.pop(f"benchmarks.{name}", None)


def forward_and_backward(bench: Any, layer: nn.Module, x: Tensor) -> tuple[int, int]:
    """Operations of a frozen layer on a leaf that takes a gradient."""
    layer.requires_grad_(False)
    leaf = x.requires_grad_(True)

    def run(lap: Any) -> None:
        lap("forward")
        value = layer(leaf).square().sum()
        lap("backward")
        torch.autograd.grad(value, leaf)

    counts = bench.counting.count_phases(run)
    return counts["forward"].flop, counts["backward"].flop


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_backward_pass_through_frozen_weights_costs_what_the_hand_says(bench: Any, device: str) -> None:
    """No gradient of a weight is computed, so a layer's backward pass costs what its forward pass does."""
    with torch.device(device):
        linear = nn.Linear(24, 40)
        assert forward_and_backward(bench, linear, torch.ones(6, 7, 24)) == (2 * 6 * 7 * 24 * 40,) * 2
        convolution = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        expected = 2 * 5 * 6 * 4 * 16 * 8 * 9  # pictures, output places, channels, taps
        assert forward_and_backward(bench, convolution, torch.ones(5, 8, 12, 8)) == (expected,) * 2


class Attention(nn.Module):
    def __init__(self, key: Tensor, value: Tensor) -> None:
        super().__init__()
        self.key, self.value = key, value

    def forward(self, query: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(query, self.key, self.value)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_fused_attention_is_two_products_forward_and_five_backward(bench: Any, device: str) -> None:
    """torch's own counter takes a CPU's fused kernel for free, and has no fused kernel on meta."""
    query, key, value = torch.ones(3, 2, 4, 48, 8, device=device)
    product = 2 * 2 * 4 * 48 * 48 * 8
    assert forward_and_backward(bench, Attention(key, value), query) == (2 * product, 5 * product)


def test_what_a_checkpoint_computes_again_counts_again(bench: Any) -> None:
    class Again(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 8))

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = checkpoint(self.inner, x, use_reentrant=False)
            return out

    with torch.device("meta"):
        forward, backward = forward_and_backward(bench, Again(), torch.ones(4, 8))
    # The last layer's output is not needed again, so only the first is certain to be.
    assert forward == 2 * (2 * 4 * 8 * 8)
    assert forward < backward <= 2 * forward


def tiny(bench: Any, monkeypatch: pytest.MonkeyPatch, device: torch.device, dtype: torch.dtype) -> Any:
    """The published architecture's builder with the tests' denoiser in it."""
    monkeypatch.setattr(bench.architecture, "published_unet", lambda scale: tiny_unet())
    return bench.architecture.published_svd(dtype, device=device, scale="small")


def scene(grid: Grid) -> Tracks:
    """A box that grows and one that leaves the picture."""
    way = np.linspace(0, 1, grid.num_frames)[:, None]
    grows = np.concatenate([8 + 0 * way, 8 + 8 * way, 40 + 24 * way, 40 + 16 * way], axis=1)
    leaves = np.concatenate([72 + 60 * way, 16 + 0 * way, 112 + 60 * way, 48 + 0 * way], axis=1)
    boxes = [b.astype(np.float32) for b in (grows, leaves)]
    image = Image.new("RGB", (grid.width, grid.height), "green")
    return Tracks(image=image, tracks=tuple(Track(boxes=b) for b in boxes))


@pytest.mark.long
def test_meta_counts_the_operations_that_a_cpu_really_runs(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: dict[str, dict[str, int]] = {}
    for device in ("cpu", "meta"):
        backbone = tiny(bench, monkeypatch, torch.device(device), torch.float32)
        grid = backbone.grid(128, 64, 3)
        generation = bench.phases.Generation(
            backbone=backbone, controller=SGI2V(iterations=1), grid=grid, tracks=scene(grid), num_steps=8
        )
        monkeypatch.setattr(type(generation), "_encode", lambda self, _: self.made)
        # One branch: of two, an accelerator with memory of its own makes one pass where latents are as small as these.
        generation.made = bench.architecture.condition_of(backbone, grid, guided=False)
        generation.prepare()
        for part in (generation.plain, generation.guided):
            found = bench.counting.count_phases(part)
            counts.setdefault(device, {}).update({name: phase.flop for name, phase in found.items()})
    assert counts["cpu"] == counts["meta"]
    assert counts["cpu"][bench.phases.BACKWARD] > counts["cpu"][bench.phases.FORWARD] > 0


def test_the_published_size_comes_to_what_is_known_of_it(bench: Any) -> None:
    """About 45 TFLOP a full forward pass at 576x1024x14; 1.52 B parameters (asserted where it is built)."""
    backbone = bench.architecture.published_svd()
    grid = backbone.grid(1024, 576, 14)
    x = torch.empty(grid.latent_shape, device="meta")
    condition = bench.architecture.condition_of(backbone, grid, guided=False)
    with bench.yardstick.Yardstick().during(None, SimpleNamespace(setup=SimpleNamespace(backbone=backbone))):
        as_diffusers = bench.counting.count(lambda: backbone.denoise(x, backbone.levels(50, grid)[10], condition))
    assert 44.5e12 < as_diffusers.flop < 45.5e12
    assert 8e12 < as_diffusers.kinds["attention"] < 10e12


def a_guided_step(bench: Any, backbone: Any, grid: Grid) -> tuple[Step, Tensor, Setup]:
    levels = backbone.levels(50, grid)
    step = Step(index=10, count=50, level=levels[10], next_level=levels[11], reporter=Reporter())
    x = torch.randn(grid.latent_shape) * levels[10].init_noise_sigma
    setup = Setup(
        backbone=backbone,
        condition=bench.architecture.condition_of(backbone, grid),
        tracks=scene(grid),
        grid=grid,
        levels=levels,
        generator=torch.Generator(),
    )
    return step, x, setup


def test_the_yardstick_has_our_loss_and_our_gradient(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fair restatement: the same arithmetic done the published way, boxes that grow and leave included."""
    backbone = tiny(bench, monkeypatch, torch.device("cpu"), torch.float32)
    grid = backbone.grid(128, 64, 4)
    step, x, setup = a_guided_step(bench, backbone, grid)
    ours, theirs = SGI2V(iterations=2), bench.yardstick.Yardstick(paper=SGI2V(iterations=2))
    states = [c.prepare(setup) for c in (ours, theirs)]

    value, gradient = ours.loss_and_gradient(x, step.level, states[0])
    leaf = x.clone().requires_grad_(True)
    their_value = theirs.loss(leaf, step.level, states[1])
    (their_gradient,) = torch.autograd.grad(their_value, leaf)
    torch.testing.assert_close(their_value.detach(), value, rtol=1e-4, atol=0.0)
    torch.testing.assert_close(their_gradient, gradient, rtol=1e-3, atol=1e-3 * float(gradient.abs().max()))

    with torch.no_grad():
        moved, their_moved = (c.steer(x, step, state) for c, state in zip((ours, theirs), states, strict=True))
    assert float((moved - x).abs().max()) > 0.1
    assert float((moved - their_moved).abs().max()) < 0.02


def test_the_yardstick_in_16_bit_is_near_and_leaves_the_network_as_it_was(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = tiny(bench, monkeypatch, torch.device("cpu"), torch.bfloat16)
    grid = backbone.grid(128, 64, 3)
    step, x, setup = a_guided_step(bench, backbone, grid)
    before = {name: value.clone() for name, value in backbone.denoiser.state_dict().items()}
    seen = []

    class Listening(Reporter):
        def iteration(self, step: Step, index: int, count: int, loss: Tensor) -> None:
            seen.append((backbone.dtype, float(loss)))

    step = Step(
        index=step.index,
        count=step.count,
        level=step.level,
        next_level=step.next_level,
        reporter=Listening(),
    )
    for controller in (SGI2V(iterations=1), bench.yardstick.Yardstick(paper=SGI2V(iterations=1))):
        state = controller.prepare(setup)
        with torch.no_grad():
            controller.steer(x, step, state)
    (ours_in, ours), (theirs_in, theirs) = seen
    assert (ours_in, theirs_in) == (torch.bfloat16, torch.float32)
    assert theirs == pytest.approx(ours, rel=0.1)
    assert backbone.dtype == torch.bfloat16
    assert not backbone.denoiser.is_gradient_checkpointing
    after = backbone.denoiser.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.long
def test_a_whole_benchmark_at_small_scale(
    bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.full_size, "matrix_peak", lambda device, dtype: 1e12)
    settings = SVDSettings(num_steps=4, recommended={"sg-i2v": {"iterations": 1}})
    monkeypatch.setattr(bench.full_size, "_settings", lambda recipe: settings)
    file = tmp_path / "rows.jsonl"
    options = bench.full_size.Options(
        scale="small",
        device="cpu",
        width=64,
        height=64,
        num_frames=(2,),
        recipes=("paper",),
        repeats=1,
        warm_up=0,
        rows=file,
    )
    bench.full_size.main(options)
    printed = capsys.readouterr().out
    for run in ("sum", "whole run"):
        assert f"| paper, fast, 2 frames | {run} |" in printed
    for phase in bench.phases.PHASES:
        assert f"| {phase} |" in printed
    assert "did not run" not in printed
    lines = file.read_text().splitlines()
    assert lines == [line for line in printed.splitlines() if line.startswith("{")]


def test_the_memory_plan_of_transformers_is_within_a_tenth_of_what_was_counted(bench: Any) -> None:
    module = bench.video_transformers
    rows = module.read_rows()
    assert {row.model for row in rows} == set(module.MODELS)
    for row in rows:
        for mode, planned in module.planned(row).items():
            assert abs(planned / module.SLACK / row.peak[mode] - 1) < 0.1, (row.model, row.size, mode)


def test_a_counted_row_is_what_is_counted_now(bench: Any) -> None:
    module = bench.video_transformers
    row = next(row for row in module.read_rows() if row.model == "ltx-video")
    backbone = module.full_size(row.model)
    grid = backbone.grid(*row.size)
    found = module.Subject(backbone=backbone, grid=grid).counts("fast", "step")["step"]
    assert (found.flop // 2, found.added) == (row.forward, row.live["step"])
    assert sum(one.numel() for one in backbone.denoiser.parameters()) == row.numbers["transformer"]

"""Memory modes: all give the same video and gradients, weights really leave the device, nothing stays behind."""

import dataclasses
import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from imprint import nothing_is_left
from sgi2v import SVD, Box, FreeTraj, Key, Motion, Sampling, Scene, generate
from sgi2v.backbones import MODES, Mode, Text, arrangement, outline_of
from sgi2v.backbones import memory as planning_module
from sgi2v.backbones.memory import plan_memory
from sgi2v.backbones.offloading import Checkpointing, OffloadedWeights, checkpoint_blocks
from sgi2v.backbones.svd import model as model_module
from sgi2v.backbones.svd.compiling import compile_blocks
from sgi2v.backbones.svd.decoding import decode_in_slices
from sgi2v.backbones.svd.memory import Sizes, attention_blocks, fine_blocks, memory_needed
from sgi2v.backbones.svd.outline import SVDOutline
from sgi2v.cli.common import opened
from sgi2v.grid import tracks_of
from sgi2v.opening import ModelChoice
from test_no_trace import CONTROLLER, Broken, broken_layer
from tiny import load_svd, setup_of, tiny_svd

SMALL = Sampling(width=64, height=64, num_frames=2, num_steps=3, seed=1)
ROUNDING = 1e-5  # of values in 0..1: a convolution of one frame against one of several


class Strict(OffloadedWeights):
    """Offloaded weights whose home is another place even on a CPU: what has left reads as nothing but NaN."""

    def __init__(self, modules: Sequence[nn.Module], device: torch.device) -> None:
        super().__init__(modules, device)
        for resident in self:
            resident.data = torch.full_like(resident, torch.nan if resident.is_floating_point() else 0)


class Swapped(Strict):
    """The usual way: a parameter's data comes and goes."""

    @contextmanager
    def fetched(self, index: int) -> Iterator[None]:
        residents = [resident for *_, resident in self._places[index]]
        away = [resident.data for resident in residents]
        for resident, home in zip(residents, self._homes[index], strict=True):
            resident.data = home
        try:
            yield
        finally:
            for resident, nothing in zip(residents, away, strict=True):
                resident.data = nothing


@contextmanager
def weights_apart(kind: type[OffloadedWeights] = Strict) -> Iterator[None]:
    """Models arranged inside behave as on a device with memory of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrangement, "has_own_memory", lambda _: True)
        patch.setattr(arrangement, "OffloadedWeights", kind)
        yield


def model(mode: str, *, apart: bool = False) -> SVD:
    backbone = load_svd(tiny_svd(2, light=True), device="cpu", dtype="float32", memory="fast")
    for parameter in backbone.denoiser.parameters():
        parameter.data = parameter.data.clone()  # where a file's tensors begin decides how kernels round
    with weights_apart() if apart else nullcontext():
        backbone.use_memory(mode)  # type: ignore[arg-type]
    return backbone


@pytest.fixture(scope="module")
def fast() -> SVD:
    return model("fast")


@pytest.fixture(scope="module")
def low() -> SVD:
    """Weights away from the device, as on a GPU."""
    return model("low", apart=True)


@pytest.fixture(scope="module")
def scene() -> Scene:
    noise = np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8)
    path = (Key(time=0.0, x=20.0, y=19.0), Key(time=1.0, x=50.0, y=25.0))
    motion = Motion(box=Box(left=8, top=8, right=32, bottom=30), path=path)
    return Scene(image=Image.fromarray(noise), motions=(motion,))


def loss_and_gradient(backbone: SVD, scene: Scene) -> tuple[Tensor, Tensor]:
    grid = backbone.grid(64, 64, 2)
    tracks = tracks_of(scene, grid)
    setup = setup_of(backbone, tracks, grid, num_steps=6)
    x = torch.randn(grid.latent_shape, generator=torch.Generator().manual_seed(1)) * 190
    return CONTROLLER.loss_and_gradient(x, setup.levels[1], CONTROLLER.prepare(setup))


@pytest.fixture(scope="module")
def right(fast: SVD, scene: Scene) -> tuple[Tensor, Tensor]:
    value, gradient = loss_and_gradient(fast, scene)
    assert gradient.abs().max() > 0
    return value, gradient


# ---------------------------------------------------------------- the same numbers


@pytest.mark.parametrize(("mode", "apart"), [("balanced", True), ("low", False)])
def test_a_mode_changes_no_bit_of_loss_and_gradient(
    right: tuple[Tensor, Tensor], scene: Scene, mode: str, apart: bool
) -> None:
    value, gradient = loss_and_gradient(model(mode, apart=apart), scene)
    assert torch.equal(value, right[0]) and torch.equal(gradient, right[1])


def test_a_run_is_the_same_in_every_mode(fast: SVD, low: SVD, scene: Scene) -> None:
    controller = dataclasses.replace(CONTROLLER, iterations=1)
    videos = [
        generate(scene, backbone=backbone, controller=controller, sampling=SMALL)
        for backbone in (fast, model("balanced", apart=True), low)
    ]
    assert torch.equal(videos[0].frames, videos[1].frames)
    assert (videos[0].frames - videos[2].frames).abs().max() < ROUNDING
    assert videos[0].run == videos[2].run, "the record knows nothing of it"


def test_edited_attention_is_the_same_where_weights_visit(fast: SVD, low: SVD, scene: Scene) -> None:
    short = dataclasses.replace(SMALL, num_steps=1)
    a, b = (generate(scene, backbone=m, controller=FreeTraj(), sampling=short).frames for m in (fast, low))
    assert (a - b).abs().max() < ROUNDING


@pytest.mark.parametrize("num_frames", [1, 3])
@pytest.mark.parametrize("at_a_time", [1, 2])
def test_frames_decoded_few_at_a_time_are_those_of_the_whole_chunk(fast: SVD, num_frames: int, at_a_time: int) -> None:
    vae = fast._pipeline.vae
    latents = torch.randn(num_frames, 4, 4, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = vae.decode(latents, num_frames=num_frames).sample
        sliced = decode_in_slices(vae.decoder, latents, frames_at_a_time=at_a_time)
        alone = vae.decode(latents[:1], num_frames=1).sample
    assert sliced.shape == whole.shape and (sliced - whole).abs().max() < ROUNDING * whole.abs().max()
    assert num_frames == 1 or not torch.allclose(alone, whole[:1], atol=1e-3), "frames are mixed"


@pytest.mark.parametrize("own", [False, True])
def test_where_memory_is_the_hosts_frames_are_decoded_one_by_one(
    fast: SVD, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sgi2v.backbones.svd.model.has_own_memory", lambda _: own)
    sizes: list[int] = []
    hook = fast._pipeline.vae.decoder.conv_in.register_forward_pre_hook(lambda _, x: sizes.append(len(x[0])))
    fast.decode(torch.randn(3, 4, 4, 5, generator=torch.Generator().manual_seed(0)))
    hook.remove()
    assert sizes == ([3] if own else [1, 1, 1])


def test_both_branches_in_one_pass_are_those_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64, since guidance and a small network make much of a last bit."""
    fast = model("fast")
    fast.denoiser.double()
    grid = fast.grid(32, 32, 2)
    image = Image.linear_gradient("L").resize((32, 32)).convert("RGB")
    condition = fast.encode(image, Text(), grid, torch.Generator().manual_seed(0))
    x, level = torch.randn(grid.latent_shape) * 30, fast.levels(6, grid)[2]
    passes: list[int] = []
    hook = fast.denoiser.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0])))
    in_turn = fast.denoise(x, level, condition)
    monkeypatch.setattr(model_module, "has_own_memory", lambda _: True)
    at_once = fast.denoise(x, level, condition)
    with fast.editing(lambda _: None, grid):
        edited = fast.denoise(x, level, condition)
    monkeypatch.setattr(model_module, "_FILLS_A_DEVICE", 31)
    fast.denoise(x, level, condition)
    hook.remove()
    assert passes == [1, 1, 2, 1, 1, 1, 1]
    torch.testing.assert_close(at_once, in_turn, rtol=0, atol=1e-6)
    torch.testing.assert_close(edited, in_turn, rtol=0, atol=1e-6)


# ---------------------------------------------------------------- offloaded weights


def test_gradients_where_only_the_data_is_swapped_are_wrong_and_ours_are_right(
    scene: Scene, right: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trap: a swap of data is invisible to autograd, which reads in the backward pass what is then there.

    Without checkpointing, since what that keeps of a frozen parameter is torch's affair: itself in 2.13, so wrong too.
    """
    monkeypatch.setattr(Checkpointing, "new_forward", lambda self, module, *a, **k: self._run(*a, **k))
    outcomes = []
    for kind in (Swapped, Strict):
        backbone = model("fast")
        blocks = fine_blocks(backbone.denoiser)
        checkpoint_blocks(blocks, kind(blocks, backbone.device))
        outcomes.append(loss_and_gradient(backbone, scene))
    assert all(torch.equal(value, right[0]) for value, _ in outcomes), "the forward pass is right either way"
    swapped, ours = (gradient for _, gradient in outcomes)
    assert torch.equal(ours, right[1])
    assert not torch.allclose(swapped, right[1], rtol=0.5)


class Watched(OffloadedWeights):
    """Notes which modules had to be waited for."""

    def __init__(self, num: int) -> None:
        self.modules = [nn.Linear(2, 2) for _ in range(num)]
        self.waited: list[int] = []
        super().__init__(self.modules, torch.device("cpu"))

    def run(self, *indices: int) -> None:
        for index in indices:
            if index not in self._there:
                self.waited.append(index)
            with self.fetched(index):
                assert len(self._there) <= 1, "no more than the next one"


def test_the_next_module_is_called_ahead_forwards_and_backwards() -> None:
    weights = Watched(6)
    weights.run(0, 1, 2, 3)  # a pass that ends early, whose gradients run it again from the end
    weights.run(3, 2, 1, 0)
    weights.run(*range(6))
    weights.run(*range(6))
    assert weights.waited == [0, 3, 0, 0], "only where a pass begins or turns"
    assert not weights._there, "after a whole pass nothing is there"


def test_a_module_that_fails_has_its_own_weights_again() -> None:
    weights = Watched(3)
    before = [*weights]
    with pytest.raises(Broken), weights.fetched(1):
        assert weights.modules[1].weight is not before[2]
        raise Broken
    assert all(a is b for a, b in zip(weights, before, strict=True))
    assert all(m.weight is w for m, w in zip(weights.modules, before[::2], strict=True))
    assert len(weights._there) == 1
    weights.release()
    assert not weights._there
    weights.run(0, 1)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_the_run_after_a_failure_is_the_run_before(
    low: SVD, scene: Scene, right: tuple[Tensor, Tensor], backward: bool
) -> None:
    """Failing here stands for cancelling too, which leaves a run between two passes."""
    with (
        nothing_is_left(low.denoiser),
        broken_layer(low.denoiser, "up_blocks.2.resnets.1", backward=backward),
        pytest.raises(Broken),
    ):
        loss_and_gradient(low, scene)
    (weights,) = low._arranged._block_weights
    assert len(weights._there) <= 1
    with nothing_is_left(low.denoiser):
        value, gradient = loss_and_gradient(low, scene)
    assert torch.equal(value, right[0]) and torch.equal(gradient, right[1])
    with low._arranged.using("decoder"):
        assert not weights._there


def test_a_mode_can_be_changed_and_leaves_nothing(scene: Scene) -> None:
    backbone = load_svd(tiny_svd(2, light=True), device="cpu", dtype="float32", memory="fast")
    with nothing_is_left(backbone.denoiser):
        with weights_apart(OffloadedWeights):
            for mode in ("low", "balanced"):
                backbone.use_memory(mode)
                assert backbone.memory == mode
                assert sum(hasattr(m, "_diffusers_hook") for m in backbone.denoiser.modules()) > 5
        backbone.use_memory("fast")
    assert backbone.memory == "fast"


# ---------------------------------------------------------------- which one fits


def test_auto_takes_the_first_mode_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    outline = SVDOutline.of(tiny_svd(2, light=True))
    grid = outline.grid(256, 256, 8)
    card, dtype = torch.device("meta"), torch.float16
    needed = memory_needed(Sizes.of(outline), grid, 8, card, dtype)
    assert needed["fast"] > needed["balanced"] > needed["low"]
    for mode in MODES:
        monkeypatch.setattr(planning_module, "free_memory", lambda _, free=needed[mode]: free)
        assert plan_memory("auto", outline, grid, card, dtype).mode == mode
    assert str(plan_memory("low", outline, grid, card, dtype)).startswith("low, about 0.")
    with pytest.raises(ValueError, match=r"memory: fast takes about .* GB free; use --memory low, about"):
        plan_memory("fast", outline, grid, card, dtype)
    monkeypatch.setattr(planning_module, "free_memory", lambda _: needed["low"] - 1)
    with pytest.raises(ValueError, match=r"memory: low takes .*256x256, and meta has .* free; lower --num-fr"):
        plan_memory("auto", outline, grid, card, dtype)
    assert plan_memory("auto", outline, grid, card, dtype, must_fit=False).mode == "low"
    monkeypatch.setattr(planning_module, "free_memory", lambda _: None)
    assert plan_memory("auto", outline, grid, card, dtype).mode == "fast"


def test_a_command_says_what_it_picked(capsys: pytest.CaptureFixture[str]) -> None:
    outline = outline_of(tiny_svd(2, light=True))
    for memory, mode, quiet in (("auto", "fast", False), ("low", "low", True)):
        choice = ModelChoice(device="cpu", dtype="float32", memory=memory)  # type: ignore[arg-type]
        assert opened(choice, outline, SMALL, quiet=quiet).memory == mode
    err = capsys.readouterr().err
    assert err.startswith("memory: fast, about 0.0 GB") and "low" not in err


@pytest.fixture(scope="module")
def benchmark() -> Iterator[Any]:
    """benchmarks/memory_modes.py, which is no part of the package."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    try:
        yield importlib.import_module("benchmarks.memory_modes")
    finally:
        sys.path.pop(0)


@pytest.mark.long
def test_at_full_size_balanced_fits_14_gb_and_low_8(benchmark: Any) -> None:
    """A whole guided run at 576x1024x14, counted; and auto's estimate is on the safe side of it, not far."""
    backbone = benchmark.published_svd(torch.float16)
    grid = backbone.grid(1024, 576, 14)
    needed = memory_needed(benchmark.sizes_of(backbone), grid, 8, backbone.device, torch.float16)
    goals: dict[Mode, float] = {"balanced": 14e9, "low": 8e9}
    for mode, most in goals.items():
        peak = max(c.total for c in benchmark.peaks_of(backbone, mode, grid).values())
        assert peak < most
        assert peak < needed[mode] < 1.25 * peak


# ---------------------------------------------------------------- compiled


def test_what_is_compiled_gives_the_same_and_taps_are_heard(right: tuple[Tensor, Tensor], scene: Scene) -> None:
    """By torch's tracing without its code generator, which takes minutes; taps come after compiling, as in a run."""
    backbone = model("balanced")
    compile_blocks(backbone.denoiser, backend="eager")
    value, gradient = loss_and_gradient(backbone, scene)
    torch.testing.assert_close(value, right[0])
    assert (gradient - right[1]).abs().max() < 1e-4 * right[1].abs().max()
    block = "up_blocks.2.resnets.1"
    grid = backbone.grid(64, 64, 2)
    condition = backbone.encode(scene.image.resize((64, 64)), Text(), grid, torch.Generator())
    x, level = torch.randn(grid.latent_shape, requires_grad=True), backbone.levels(2, grid)[0]
    assert backbone.features(x, level, condition, [f"{block}:output"])[f"{block}:output"].abs().max() > 0
    with pytest.raises(ValueError, match=rf"lies inside '{block}', which is compiled; leave --compile out"):
        backbone.features(x, level, condition, [f"{block}.spatial_res_block:output"])
    with pytest.raises(ValueError, match="compile: under low memory weights come and go"):
        backbone.use_memory("low")
    assert backbone.memory == "balanced" and hasattr(attention_blocks(backbone.denoiser)[0], "_diffusers_hook")


def test_low_and_compiled_is_refused_before_loading() -> None:
    with pytest.raises(ValueError, match=r"compile: .* use --memory balanced or fast with it"):
        load_svd(tiny_svd(2, light=True), device="cpu", memory="low", compiled=True)

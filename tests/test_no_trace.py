"""Nothing is left in the network after a run, however it ends; and nothing waits for the device inside an iteration."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from imprint import nothing_is_left
from sgi2v import (
    SGI2V,
    SVD,
    Box,
    Cancelled,
    Key,
    Motion,
    Progress,
    Sampling,
    Scene,
    alignment,
    attention,
    generate,
    sparse,
    sparse_product,
    spectrum,
)
from sgi2v.alignment import alignment_loss, alignment_plan
from sgi2v.grid import Grid, Track, Tracks, tracks_of
from sgi2v.planning import Range
from sgi2v.step import Reporter, Step
from tiny import load_svd, setup_of, tiny_svd

SMALL = Sampling(width=64, height=64, num_frames=2, num_steps=4, seed=1)
CONTROLLER = SGI2V(iterations=2, guided=Range(low=1.0, high=400.0))
PLANNED = 4  # guided iterations of a run: two steps of two


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "checkpointing"])
def backbone(request: pytest.FixtureRequest) -> SVD:
    model = load_svd(tiny_svd(2, light=True), device="cpu", dtype="float32")
    if request.param:
        model.denoiser.enable_gradient_checkpointing()  # type: ignore[operator]
    return model


@pytest.fixture(scope="module")
def scene() -> Scene:
    noise = np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8)
    paths = (
        (Box(left=8, top=8, right=32, bottom=30), (20.0, 19.0), (50.0, 25.0)),
        (Box(left=40, top=5, right=70, bottom=20), (55.0, 12.0), (75.0, 30.0)),
    )
    motions = tuple(
        Motion(box=box, path=(Key(time=0.0, x=a[0], y=a[1]), Key(time=1.0, x=b[0], y=b[1]))) for box, a, b in paths
    )
    return Scene(image=Image.fromarray(noise), motions=motions)


# ---------------------------------------------------------------- nothing is left


class Broken(Exception):
    """What the tests throw."""


def test_checkpointing_changes_no_bit(scene: Scene) -> None:
    model = load_svd(tiny_svd(2, light=True), device="cpu", dtype="float32")
    plain = generate(scene, backbone=model, controller=CONTROLLER, sampling=SMALL)
    model.denoiser.enable_gradient_checkpointing()  # type: ignore[operator]
    checkpointed = generate(scene, backbone=model, controller=CONTROLLER, sampling=SMALL)
    assert torch.equal(plain.frames, checkpointed.frames)


@pytest.mark.parametrize("at", [1, 2, PLANNED])
def test_after_an_error_in_the_callers_own_code(backbone: SVD, scene: Scene, at: int) -> None:
    iterations = 0

    def progress(now: Progress) -> None:
        nonlocal iterations
        iterations += now.iteration > 0
        if iterations == at:
            raise Broken

    with nothing_is_left(backbone.denoiser), pytest.raises(Broken):
        generate(scene, backbone=backbone, controller=CONTROLLER, sampling=SMALL, progress=progress)


@pytest.mark.parametrize("asked", [1, 2, 3, 6])
def test_after_cancelling(backbone: SVD, scene: Scene, asked: int) -> None:
    times = 0

    def cancelled() -> bool:
        nonlocal times
        times += 1
        return times >= asked

    with nothing_is_left(backbone.denoiser), pytest.raises(Cancelled):
        generate(scene, backbone=backbone, controller=CONTROLLER, sampling=SMALL, cancelled=cancelled)
    assert times == asked, "a run that was cancelled asked again"


@contextmanager
def broken_layer(network: nn.Module, name: str, *, backward: bool) -> Iterator[None]:
    """A layer that fails when it runs with gradients on, or when its gradient is computed."""

    def fail(*_: object) -> None:
        raise Broken

    def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        if torch.is_grad_enabled():
            if not backward:
                raise Broken
            output.register_hook(fail)

    handle = network.get_submodule(name).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("layer", ["down_blocks.1.resnets.0", "up_blocks.2.resnets.1"])
def test_after_a_network_that_fails(backbone: SVD, scene: Scene, layer: str, backward: bool) -> None:
    with (
        nothing_is_left(backbone.denoiser),
        broken_layer(backbone.denoiser, layer, backward=backward),
        pytest.raises(Broken),
    ):
        generate(scene, backbone=backbone, controller=CONTROLLER, sampling=SMALL)


def test_after_success_and_the_run_after_failures_is_the_run_before_them(backbone: SVD, scene: Scene) -> None:
    with nothing_is_left(backbone.denoiser):
        before = generate(scene, backbone=backbone, controller=CONTROLLER, sampling=SMALL)
    for backward in (False, True):
        with (
            broken_layer(backbone.denoiser, "up_blocks.2.resnets.1", backward=backward),
            pytest.raises(Broken),
        ):
            generate(scene, backbone=backbone, controller=CONTROLLER, sampling=SMALL)
    with nothing_is_left(backbone.denoiser):
        after = generate(scene, backbone=backbone, controller=CONTROLLER, sampling=SMALL)
    assert torch.equal(before.frames, after.frames)


# ---------------------------------------------------------------- nothing waits


class NoWaiting(TorchDispatchMode):
    """Fails at every operation whose result the host must read before it can go on."""

    waits = (
        "_local_scalar_dense",
        "nonzero",
        "is_nonzero",
        "equal",
        "masked_select",
        "unique",
        "item",
        "_unique2",
    )

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.enabled = True
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        if self.enabled:
            name = func.overloadpacket.__name__
            assert name not in self.waits, f"{name} waits for the device"
            if name in ("index", "index_put", "index_put_"):
                masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
                assert not masks, "indexing with a mask waits for the device"
        return func(*args, **(kwargs or {}))


class NoCopies(TorchFunctionMode):
    """Fails at every call that makes a tensor of host data or host data of a tensor: on a GPU each waits."""

    forbidden = (
        torch.tensor,
        torch.as_tensor,
        torch.from_numpy,
        Tensor.item,
        Tensor.tolist,
        Tensor.cpu,
        Tensor.numpy,
        Tensor.__bool__,
        Tensor.__float__,
        Tensor.__int__,
        Tensor.__index__,
    )

    def __init__(self) -> None:
        super().__init__()
        self.enabled = True

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not (self.enabled and func in self.forbidden), f"{getattr(func, '__name__', func)} waits for the device"
        return func(*args, **(kwargs or {}))


def guided_state(backbone: SVD, scene: Scene) -> tuple[Any, Tensor, Step]:
    grid = backbone.grid(64, 64, 2)
    tracks = tracks_of(scene, grid)
    setup = setup_of(backbone, tracks, grid, num_steps=6)
    level, next_level = setup.levels[1:3]
    step = Step(index=1, count=6, level=level, next_level=next_level, reporter=Reporter())
    return CONTROLLER.prepare(setup), torch.randn(grid.latent_shape) * 190, step


def test_a_guided_step_never_waits_for_the_device(backbone: SVD, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward, loss, backward, optimiser and merge. Only AdamW's own step counter, kept on the host, is read."""
    state, x, step = guided_state(backbone, scene)
    dispatch, function = NoWaiting(), NoCopies()
    update: Callable[..., Any] = torch.optim.AdamW.step

    def unwatched(*args: Any, **kwargs: Any) -> Any:
        dispatch.enabled = function.enabled = False
        try:
            return update(*args, **kwargs)
        finally:
            dispatch.enabled = function.enabled = True

    monkeypatch.setattr(torch.optim.AdamW, "step", unwatched)
    CONTROLLER.steer(x, step, state)  # the first iteration learns the features' size and makes its tables
    with torch.no_grad(), function, dispatch:
        steered = CONTROLLER.steer(x, step, state)
    assert not torch.equal(steered, x)
    assert dispatch.count > 1000, "the watch saw nothing"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_guided_step_never_waits_for_a_real_device(scene: Scene) -> None:
    backbone = load_svd(tiny_svd(2, light=True), device="cuda", dtype="float32")
    state, x, step = guided_state(backbone, scene)
    x = x.to(backbone.device)
    CONTROLLER.steer(x, step, state)  # libraries may wait while they are set up
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.no_grad():
            CONTROLLER.steer(x, step, state)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_watch_notices_waiting() -> None:
    x = torch.arange(3.0)
    for wait in (
        lambda: x.sum().item(),
        lambda: float(x.sum()),
        lambda: bool(x.sum()),
        lambda: x[x > 1],
        lambda: x.nonzero(),
        lambda: torch.tensor(1.0),
        lambda: x.tolist(),
    ):
        with pytest.raises(AssertionError, match="waits"), NoCopies(), NoWaiting():
            wait()


def num_operations(boxes: np.ndarray, num_frames: int, size: tuple[int, int]) -> int:
    """Tensor operations of one loss and its gradient."""
    width, height = size
    tracks = Tracks(image=Image.new("RGB", size), tracks=tuple(Track(boxes=track) for track in boxes))
    plan = alignment_plan(tracks, Grid(width=width, height=height, num_frames=num_frames), 0.4)
    maps = [torch.randn(num_frames, 5, height // 16, width // 16, requires_grad=True) for _ in range(2)]
    alignment_loss(maps, plan)  # makes its tables
    with NoWaiting() as counter:
        torch.autograd.grad(alignment_loss(maps, plan), maps)
        count: int = counter.count
    return count


def test_more_frames_boxes_and_cells_take_no_more_operations() -> None:
    def boxes(num_boxes: int, num_frames: int, side: float) -> np.ndarray:
        start = np.array([8, 8, 8 + side, 8 + side], dtype=np.float32)
        moves = np.arange(num_frames, dtype=np.float32)[:, None] * 8  # whole cells: the box keeps its size in them
        return np.stack([start + n + moves for n in range(num_boxes)]).astype(np.float32)

    few = num_operations(boxes(1, 2, 10), 2, (64, 64))
    assert few == num_operations(boxes(1, 25, 10), 25, (64, 64))
    several = num_operations(boxes(2, 2, 10), 2, (64, 64))  # that share cells: their targets' spread is added
    assert several == num_operations(boxes(7, 2, 10), 2, (64, 64)) < 2 * few
    assert few == num_operations(boxes(1, 2, 90), 2, (160, 160))


def test_what_an_iteration_runs_has_no_loop_but_over_layers() -> None:
    """By the source: no for, while or comprehension, except over the feature maps of the named layers."""
    loops = (ast.For, ast.While, ast.ListComp, ast.GeneratorExp, ast.SetComp, ast.DictComp)
    functions: list[Callable[..., Any]] = [
        alignment.alignment_loss,
        alignment.Places.loss,
        alignment.Spread.__call__,
        sparse.DifferentiableRows.__matmul__,
        sparse.SparseRows.__matmul__,
        sparse_product.SparseProduct.forward,
        sparse_product.SparseProduct.backward,
        attention.attend,
        attention.first_frame_attention,
        spectrum.merge_frequencies,
    ]
    for function in functions:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        for node in (n for n in ast.walk(tree) if isinstance(n, loops)):
            over = node.iter if isinstance(node, ast.For) else getattr(node, "generators", [None])[0]
            over = over.iter if isinstance(over, ast.comprehension) else over
            names = ast.unparse(over) if over is not None else "while"
            assert names in ("features", "(key, value)", "(query, key, value)"), (
                f"{function.__name__} loops over {names}"
            )

"""DragDiffusion: its step against the literal twin, when it stops, what it leaves alone, and that nothing is left."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from imprint import nothing_is_left
from reference import drag_diffusion as twin
from reference import svd as plain
from sgi2v import SVD, Box, Cancelled, Controller, Key, Motion, Progress, Sampling, Scene, SVDSettings, generate
from sgi2v.controllers.drag_diffusion import DragDiffusion, DragState
from sgi2v.device import HostCopy
from sgi2v.grid import Track, Tracks
from sgi2v.planning import Uses
from sgi2v.step import Level, Reporter, Step
from test_controllers import flow_levels, svd_levels
from test_no_trace import Broken, NoCopies, NoWaiting, broken_layer
from tiny import load_svd, setup_of, tiny_svd

WIDTH, HEIGHT, NUM_FRAMES, NUM_STEPS = 128, 64, 3, 4
DRAGGED = 1  # sigma 70.6 of 700, 70.6, 2.27, 0.002
NO_REFERENCE = DragDiffusion(at=70.0, iterations=3, lr=0.05, reference_attention=False)
SMALL = Sampling(width=128, height=64, num_frames=3, num_steps=NUM_STEPS, seed=1)
Boxes = NDArray[np.float32]


def picture() -> Image.Image:
    coarse = np.random.default_rng(0).integers(0, 256, (4, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def moving() -> Boxes:
    """One box goes right, one stands still, one leaves: by its half at first, then wholly."""
    right = [(16, 16, 48, 40), (40, 16, 72, 40), (64, 24, 96, 48)]
    still = [(90, 30, 110, 50)] * 3
    leaves = [(100, 4, 124, 20), (118, 4, 142, 20), (200, 4, 224, 20)]
    return np.array([right, still, leaves], dtype=np.float32)


def tracks_from(boxes: Boxes) -> Tracks:
    return Tracks(image=picture(), tracks=tuple(Track(boxes=track) for track in boxes))


# Without guidance: one pass a step.
ONE_PASS = SVDSettings(num_frames=NUM_FRAMES, max_guidance_scale=1.0)


@pytest.fixture(scope="module")
def backbone() -> SVD:
    return load_svd(tiny_svd(NUM_FRAMES, light=True), device="cpu", dtype="float32", settings=ONE_PASS)


@pytest.fixture(scope="module")
def models() -> plain.Models:
    return plain.load_models(tiny_svd(NUM_FRAMES, light=True))


@pytest.fixture(scope="module")
def scene() -> Scene:
    boxes = moving()[:2]
    motions = []
    for track in boxes:
        keys = [Key(time=j / 2, x=float(b[0] + b[2]) / 2, y=float(b[1] + b[3]) / 2) for j, b in enumerate(track)]
        left, top, right, bottom = (float(v) for v in track[0])
        motions.append(Motion(box=Box(left=left, top=top, right=right, bottom=bottom), path=tuple(keys)))
    return Scene(image=picture(), motions=tuple(motions))


@dataclasses.dataclass
class Losses(Reporter):
    """Keeps what it is told; cancels when asked for the ``cancel``-th time."""

    cancel: float = math.inf
    asked: int = 0
    values: list[Tensor] = dataclasses.field(default_factory=list)

    def iteration(self, step: Step, index: int, count: int, loss: Tensor) -> None:
        assert index == len(self.values) < count
        self.values.append(loss)

    def check_cancelled(self) -> None:
        self.asked += 1
        if self.asked >= self.cancel:
            raise Cancelled


def prepared(
    backbone: SVD,
    controller: DragDiffusion,
    boxes: Boxes,
    reporter: Reporter | None = None,
    num_steps: int = NUM_STEPS,
) -> tuple[DragState, Tensor, Step]:
    grid = backbone.grid(WIDTH, HEIGHT, NUM_FRAMES)
    setup = setup_of(backbone, tracks_from(boxes), grid, num_steps=num_steps)
    index = controller.dragged_step(setup.levels)
    level, next_level = setup.levels[index : index + 2]
    step = Step(index=index, count=num_steps, level=level, next_level=next_level, reporter=reporter or Reporter())
    x = torch.randn(grid.latent_shape, generator=torch.Generator().manual_seed(3)) * level.noise
    return controller.prepare(setup), x, step


# ---------------------------------------------------------------- the twin


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pulled": "first-frame", "editable": "frame", "outside_weight": 0.02},
        {"tracked": "own-frame", "cell": 5.0, "track_radius": 1, "patch_radius": 0, "reach": 4.0},
    ],
    ids=["published", "first-frame", "other numbers"],
)
def test_a_whole_drag_is_that_of_the_loops(backbone: SVD, models: plain.Models, changes: dict[str, Any]) -> None:
    # Of six steps, at sigma 40: at more noise last bits turn more of the gradient's signs.
    controller = dataclasses.replace(NO_REFERENCE, at=40.0, lr=0.002, **changes)
    reporter = Losses()
    state, x, step = prepared(backbone, controller, moving(), reporter, num_steps=6)
    steered = controller.steer(x, step, state)

    drag = twin.Drag(
        width=WIDTH,
        height=HEIGHT,
        iterations=controller.iterations,
        lr=controller.lr,
        cell=controller.cell,
        reach=controller.reach,
        patch_radius=controller.patch_radius,
        track_radius=controller.track_radius,
        arrived=controller.arrived,
        pulled_from_first=controller.pulled == "first-frame",
        tracked_in_first=controller.tracked == "first-frame",
        outside_weight=controller.outside_weight,
        per_frame_mask=controller.editable == "frame",
    )
    settings = plain.Settings(width=WIDTH, height=HEIGHT, num_frames=NUM_FRAMES, num_steps=step.count)
    models.scheduler.set_timesteps(step.count)
    condition = plain.encode(models, picture(), settings, torch.Generator().manual_seed(0))
    wanted, losses, _ = twin.dragged(models, x[None], step.index, condition, moving(), drag)
    assert [float(v) for v in reporter.values] == pytest.approx(losses, rel=1e-3)
    change, expected = steered - x, wanted[0] - x
    assert expected.abs().max() > 0.5 * controller.lr * step.level.noise
    # Adam's step is the sign of a gradient at first: where that is nearly zero, a last bit may turn it.
    same = (change - expected).abs() < 0.02 * expected.abs().max()
    assert same.float().mean() > 0.99


# ---------------------------------------------------------------- what it does and leaves alone


def test_dragging_brings_the_content_on_its_way(backbone: SVD) -> None:
    """The loss that is lowered is the one that is meant: with the target fixed, it falls."""
    controller = dataclasses.replace(
        NO_REFERENCE, iterations=12, lr=0.01, pulled="first-frame", outside_weight=0.0, track_radius=0
    )
    reporter = Losses()
    state, x, step = prepared(backbone, controller, moving()[:1], reporter)
    controller.steer(x, step, state)
    assert float(reporter.values[-1]) < 0.8 * float(reporter.values[0])


def test_paths_that_stand_still_leave_everything_untouched(backbone: SVD) -> None:
    reporter = Losses()
    state, x, step = prepared(backbone, NO_REFERENCE, moving()[1:2], reporter)
    assert state.at_rest and torch.equal(NO_REFERENCE.steer(x, step, state), x)
    gone = moving()[2:].copy()
    gone[0, 1] = gone[0, 2]  # no later box in the picture
    state, x, step = prepared(backbone, NO_REFERENCE, gone, reporter)
    assert torch.equal(NO_REFERENCE.steer(x, step, state), x)
    assert torch.equal(NO_REFERENCE.steer(x, *reversed(prepared(backbone, NO_REFERENCE, moving()[:0])[::2])), x)
    assert not reporter.values and not reporter.asked


def test_it_stops_when_all_have_arrived_and_the_last_look_changes_nothing(
    backbone: SVD, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Handles that are found at their targets at the third look: two updates, and one iteration to notice."""
    found = 0

    def at_target_the_second_time(
        features: Any, handles: Any, places: Tensor, template: Tensor, offsets: Tensor
    ) -> Tensor:
        nonlocal found
        found += 1
        target: Tensor = handles.target if found == 2 else places
        return target

    controller = dataclasses.replace(NO_REFERENCE, iterations=9)
    reporter = Losses()
    state, x, step = prepared(backbone, controller, moving()[:1], reporter)
    monkeypatch.setattr("sgi2v.controllers.drag_diffusion.track", at_target_the_second_time)
    stopped = controller.steer(x, step, state)
    assert found == 2 and len(reporter.values) == 3
    found = -10
    two = dataclasses.replace(controller, iterations=2)
    assert torch.equal(stopped, two.steer(x, dataclasses.replace(step, reporter=Reporter()), state))
    assert not torch.equal(stopped, x)


def test_what_changes_inside_the_editable_cells_costs_nothing(backbone: SVD) -> None:
    """With the motion's part switched off by its reach, only held cells can pull; and at first they do not."""
    from sgi2v.controllers.drag_diffusion import _Drag

    controller = dataclasses.replace(NO_REFERENCE, reach=0.0, pulled="own-frame", outside_weight=1.0, editable="path")
    state, x, step = prepared(backbone, controller, moving()[:1])
    drag = _Drag(controller=controller, state=state, step=step, places=state.handles.start)
    value, gradient, _ = drag.iterate(x)
    assert value == 0 and not gradient.any()
    assert drag.before is not None
    for region, costs in ((1 - state.held, False), (state.held, True)):
        changed = _Drag(controller=controller, state=state, step=step, places=state.handles.start)
        changed.before = drag.before + region
        value, _, _ = changed.iterate(x)
        assert (float(value) > 0.5 * float(region.sum()) * 4) == costs
        assert costs or value == 0
    held = dataclasses.replace(controller, editable="everything")
    state, x, step = prepared(backbone, held, moving()[:1])
    assert not state.held.any()


def test_the_identity_setting_is_no_control(backbone: SVD, scene: Scene) -> None:
    nothing = generate(scene, backbone=backbone, controller=Controller(), sampling=SMALL).frames
    for changes in ({"lr": 0.0, "iterations": 1}, {"iterations": 0}):
        controller = dataclasses.replace(NO_REFERENCE, **changes)
        assert torch.equal(nothing, generate(scene, backbone=backbone, controller=controller, sampling=SMALL).frames)


def test_reference_attention_acts_from_the_dragged_step_until_told(backbone: SVD) -> None:
    """It changes later frames, never the first, and only where it is asked to."""
    controller = DragDiffusion(at=70.0, iterations=0, reference_until=2.0)
    state, x, step = prepared(backbone, controller, moving()[:1])
    levels, condition = state.setup.levels, state.setup.condition
    plain_x0 = backbone.denoise(x, step.level, condition)
    steps = [dataclasses.replace(step, index=k, level=levels[k], next_level=levels[k + 1]) for k in range(NUM_STEPS)]
    with nothing_is_left(backbone.denoiser):
        for k, at in enumerate(steps):
            with controller.during(at, state):
                seen = backbone.denoise(x, step.level, condition)
            acts = k >= DRAGGED and levels[k].sigma >= 2.0
            assert torch.equal(seen, plain_x0) != acts, k
    nowhere = dataclasses.replace(controller, reference_layers=("down_blocks",))
    only = dataclasses.replace(controller, reference_layers=("up_blocks.2.attentions.2",))
    outputs = []
    for other in (nowhere, only, controller):
        with other.during(step, state):
            outputs.append(backbone.features(x, step.level, condition, ["up_blocks.2.attentions.1:output"]))
    (a,), (b,), (c,) = (tuple(output.values()) for output in outputs)
    assert not torch.allclose(a, b) and not torch.allclose(b, c)


# ---------------------------------------------------------------- nothing is left, nothing waits


@pytest.mark.long
@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
def test_nothing_is_left_however_it_ends(scene: Scene, checkpointing: bool) -> None:
    backbone = load_svd(tiny_svd(NUM_FRAMES, light=True), device="cpu", dtype="float32", settings=ONE_PASS)
    # Of three steps: sigma 700, 15.6, 0.002.
    controller = dataclasses.replace(NO_REFERENCE, at=15.0, iterations=2, reference_attention=True)
    sampling = dataclasses.replace(SMALL, num_steps=3)
    plain_frames = generate(scene, backbone=backbone, controller=controller, sampling=sampling).frames
    if checkpointing:
        backbone.denoiser.enable_gradient_checkpointing()  # type: ignore[operator]

    def run(**kwargs: Any) -> Tensor:
        frames: Tensor = generate(scene, backbone=backbone, controller=controller, sampling=sampling, **kwargs).frames
        return frames

    with nothing_is_left(backbone.denoiser):
        assert torch.equal(run(), plain_frames)
    times = 0

    def cancelled() -> bool:
        nonlocal times
        times += 1
        return times == DRAGGED + 3  # every step asks once, then every iteration

    with nothing_is_left(backbone.denoiser), pytest.raises(Cancelled):
        run(cancelled=cancelled)

    def progress(now: Progress) -> None:
        if now.iteration == 2 or now.step == DRAGGED + 2:
            raise Broken

    with nothing_is_left(backbone.denoiser), pytest.raises(Broken):
        run(progress=progress)
    for backward in (False, True):
        with (
            nothing_is_left(backbone.denoiser),
            broken_layer(backbone.denoiser, "up_blocks.2.resnets.1", backward=backward),
            pytest.raises(Broken),
        ):
            run()
    with nothing_is_left(backbone.denoiser):
        assert torch.equal(run(), plain_frames)


def unwatched(function: Callable[..., Any], *watches: Any) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        for watch in watches:
            watch.enabled = False
        try:
            return function(*args, **kwargs)
        finally:
            for watch in watches:
                watch.enabled = True

    return call


def test_an_iteration_waits_for_nothing_but_the_answer_of_the_one_before(
    backbone: SVD, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, x, step = prepared(backbone, NO_REFERENCE, moving())
    dispatch, function = NoWaiting(), NoCopies()
    monkeypatch.setattr(torch.optim.Adam, "step", unwatched(torch.optim.Adam.step, dispatch, function))
    asked: list[int] = []
    read = HostCopy.read

    def counted(self: HostCopy) -> bool:
        asked.append(1)
        return read(self)

    monkeypatch.setattr(HostCopy, "read", unwatched(counted, dispatch, function))
    with torch.no_grad(), function, dispatch:
        steered = NO_REFERENCE.steer(x, step, state)
    assert not torch.equal(steered, x) and dispatch.count > 1000
    assert len(asked) == NO_REFERENCE.iterations - 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_an_iteration_waits_for_no_real_device(dtype: str) -> None:
    backbone = load_svd(tiny_svd(NUM_FRAMES, light=True), device="cuda", dtype=dtype)
    state, x, step = prepared(backbone, NO_REFERENCE, moving())
    x = x.to(backbone.device)
    NO_REFERENCE.steer(x, step, state)  # libraries may wait while they are set up
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.no_grad():
            steered = NO_REFERENCE.steer(x, step, state)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert steered.isfinite().all() and not torch.equal(steered, x)


def test_more_boxes_take_no_more_operations(backbone: SVD) -> None:
    counts = []
    controller = dataclasses.replace(NO_REFERENCE, iterations=2)
    for boxes in (moving()[:1], np.concatenate([moving()] * 3)):
        state, x, step = prepared(backbone, controller, boxes)
        counter = NoWaiting()
        counter.enabled = False
        with torch.no_grad(), counter:
            controller.steer(x, step, state)
        counts.append(counter.count)
    assert counts[0] == counts[1]


# ---------------------------------------------------------------- fields


def test_the_default_step_is_the_published_one_in_every_unit() -> None:
    levels = svd_levels(50)
    for controller in (
        DragDiffusion(),
        DragDiffusion(at=0.98873, unit="noise-level"),
        DragDiffusion(at=35.0, unit="step"),
    ):
        schedule = controller.schedule(levels)
        assert {k: v for k, v in enumerate(schedule.iterations) if v} == {50 - 35: 80}
        assert [k for k, acts in enumerate(schedule.acts) if acts] == [50 - 35]
        assert (schedule.first, schedule.overwrites, schedule.changes_noise) == (0, 0, False)
    assert DragDiffusion().dragged_step(svd_levels(25)) == 7
    assert DragDiffusion(at=0.7, unit="noise-level").dragged_step(flow_levels(50)) == 15


def test_a_step_that_is_not_near_is_an_error_that_shows_the_sigmas() -> None:
    low = [Level(signal=1.0, noise=s) for s in (20.0, 5.0, 0.1, 0.0)]
    with pytest.raises(ValueError, match=r"controller\.at: no step of 3 is near sigma 87\.7; .* 20, 5, 0\.1"):
        DragDiffusion().schedule(low)
    with pytest.raises(ValueError, match=r"controller\.at"):
        DragDiffusion(at=35.0, unit="step").schedule(low)
    assert DragDiffusion(at=3.0).dragged_step(low) == 1


def test_it_says_what_it_uses() -> None:
    both = Uses(features=("up_blocks.2:output",), blocks=("up_blocks.2", "up_blocks.3"), edits=True, motions=True)
    both = dataclasses.replace(both, edited_by=("reference_attention",))
    assert DragDiffusion().uses() == both
    alone = Uses(features=("up_blocks.2:output",), motions=True)
    assert NO_REFERENCE.uses() == DragDiffusion(reference_layers=()).uses() == alone


@pytest.mark.parametrize("field", ["unit", "editable", "pulled", "tracked"])
def test_an_unknown_word_is_named(field: str) -> None:
    made = DragDiffusion()
    object.__setattr__(made, field, "first")  # run-time type checks would refuse it sooner
    with pytest.raises(ValueError, match=rf"controller\.{field}: 'first' is not known"):
        made.__post_init__()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("at", 0.0),
        ("at", math.nan),
        ("iterations", -1),
        ("lr", -0.1),
        ("cell", 0.0),
        ("reach", math.inf),
        ("patch_radius", -1),
        ("track_radius", -1),
        ("arrived", math.nan),
        ("outside_weight", -1.0),
        ("reference_until", -1.0),
        ("layers", ()),
    ],
)
def test_a_bad_field_is_named(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"controller\.{field}"):
        DragDiffusion(**{field: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"controller\.at"):
        DragDiffusion(at=1.0, unit="noise-level")
    with pytest.raises(ValueError, match=r"controller\.unit: share grows as noise falls"):
        DragDiffusion(at=0.3, unit="share")


def test_a_first_box_outside_and_a_layer_that_is_not_there_are_refused(backbone: SVD, scene: Scene) -> None:
    outside = moving()[:1] - np.float32(20)
    with pytest.raises(ValueError, match=r"motions\[0\]\.box"):
        prepared(backbone, NO_REFERENCE, outside)
    for changes in ({"layers": ("up_blocks.7:output",)}, {"reference_layers": ("up_blocks.7",)}):
        controller = dataclasses.replace(NO_REFERENCE, reference_attention=True, **changes)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"no layer 'up_blocks\.7'"):
            backbone.outline.check(scene, controller, SMALL)

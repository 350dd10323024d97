"""Trained systems: their weights are strict, their additions exact, and nothing of them stays in the network."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import contract
from imprint import nothing_is_left
from sgi2v import SVD, Cancelled, Controller, Run, Sampling, generate, replay
from sgi2v.backbones.svd.adapters.drag_anything import multiplicities, released_order
from sgi2v.backbones.svd.parts import SVDCondition
from sgi2v.controllers.drag_nuwa import DragNUWA
from sgi2v.errors import FieldError
from sgi2v.pipeline import plan
from test_memory import model, weights_apart
from tiny import EMBEDDING, load_svd, tiny_svd
from tiny_adapters import anything, entities, nuwa

NUM_FRAMES = 2
SMALL = Sampling(width=64, height=64, num_frames=NUM_FRAMES, num_steps=2, seed=1)
ADAPTERS: dict[str, Callable[..., Any]] = {"drag-nuwa": nuwa, "drag-anything": anything}


class Broken(Exception):
    """Thrown inside the network."""


@contextmanager
def broken(layer: nn.Module) -> Iterator[None]:
    def throw(*_: object) -> None:
        raise Broken

    hook = layer.register_forward_hook(throw)
    try:
        yield
    finally:
        hook.remove()


def flow() -> Tensor:
    return 4 * torch.randn(NUM_FRAMES, 2, 64, 64, generator=torch.Generator().manual_seed(7))


def signal_of(kind: str) -> Any:
    return flow() if kind == "drag-nuwa" else entities(NUM_FRAMES, 64, 64)


@pytest.fixture(scope="module")
def backbone() -> SVD:
    return load_svd(tiny_svd(NUM_FRAMES), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def condition() -> SVDCondition:
    generator = torch.Generator().manual_seed(2)
    return SVDCondition(
        image_latents=torch.randn(4, 8, 8, generator=generator),
        embedding=torch.randn(1, 1, EMBEDDING, generator=generator),
        time_ids=torch.tensor([[6.0, 127.0, 0.02]]),
        guidance=torch.linspace(1, 3, NUM_FRAMES)[:, None, None, None],
        guided=True,
    )


@pytest.fixture(scope="module")
def x() -> Tensor:
    return 30 * torch.randn(NUM_FRAMES, 4, 8, 8, generator=torch.Generator().manual_seed(3))


def denoised(
    backbone: SVD, x: Tensor, condition: SVDCondition, opened: AbstractContextManager[None] | None = None
) -> Tensor:
    level = backbone.levels(6, backbone.grid(64, 64, NUM_FRAMES))[2]
    with opened or nullcontext():
        return backbone.denoise(x, level, condition)


@pytest.mark.parametrize("kind", list(ADAPTERS))
def test_last_layers_of_zeros_change_no_bit_and_others_do(
    backbone: SVD, x: Tensor, condition: SVDCondition, kind: str
) -> None:
    plain = denoised(backbone, x, condition)
    nothing = denoised(backbone, x, condition, backbone.adapted(ADAPTERS[kind](last=0.0), signal_of(kind)))
    assert torch.equal(nothing, plain)
    assert not torch.allclose(denoised(backbone, x, condition, backbone.adapted(ADAPTERS[kind](), signal_of(kind))),
                              plain, rtol=1e-2)  # fmt: skip


@pytest.mark.parametrize("kind", list(ADAPTERS))
def test_nothing_is_left_after_an_error(backbone: SVD, x: Tensor, condition: SVDCondition, kind: str) -> None:
    plain = denoised(backbone, x, condition)
    with (
        nothing_is_left(backbone.denoiser),
        pytest.raises(Broken),
        backbone.adapted(ADAPTERS[kind](), signal_of(kind)),
        broken(backbone.denoiser.get_submodule("up_blocks.2.resnets.1")),
    ):
        denoised(backbone, x, condition)
    assert backbone._networks.num_paired == 0
    assert torch.equal(denoised(backbone, x, condition), plain)


def test_adapters_one_after_the_other_do_not_mix(backbone: SVD, x: Tensor, condition: SVDCondition) -> None:
    made: dict[str, Any] = {"nuwa": nuwa(), "other": nuwa(1), "anything": anything()}
    given = {name: flow() if name != "anything" else entities(NUM_FRAMES, 64, 64) for name in made}
    alone = {}
    for name, adapter in made.items():
        fresh = load_svd(tiny_svd(NUM_FRAMES), device="cpu", dtype="float32")
        alone[name] = denoised(fresh, x, condition, fresh.adapted(adapter, given[name]))
    assert not torch.allclose(alone["nuwa"], alone["other"], rtol=1e-2)
    for name in ("nuwa", "anything", "other", "nuwa", "other", "anything"):
        assert torch.equal(denoised(backbone, x, condition, backbone.adapted(made[name], given[name])), alone[name])


@pytest.mark.parametrize("kind", list(ADAPTERS))
def test_every_memory_mode_gives_the_same(x: Tensor, condition: SVDCondition, kind: str) -> None:
    """Weights away from the device as on a GPU, the system's own among them: where they are not, all is NaN."""
    found = {}
    for mode in ("fast", "balanced", "low"):
        backbone = model(mode, apart=mode != "fast")
        with weights_apart(), nothing_is_left(backbone.denoiser):
            found[mode] = denoised(backbone, x, condition, backbone.adapted(ADAPTERS[kind](), signal_of(kind)))
    assert not found["fast"].isnan().any()
    assert torch.equal(found["balanced"], found["fast"]) and torch.equal(found["low"], found["fast"])


def test_compiled_blocks_are_refused(x: Tensor, condition: SVDCondition) -> None:
    compiled = load_svd(tiny_svd(NUM_FRAMES, light=True), compiled=True)
    with pytest.raises(FieldError, match=r"^compile: nuwa-0 changes"), compiled.adapted(nuwa(), flow()):
        pytest.fail("it was attached")


@pytest.mark.parametrize("make", [nuwa, anything])
def test_a_signal_or_a_network_of_another_kind_is_refused(backbone: SVD, make: Callable[[], Any]) -> None:
    for wrong in (None, torch.zeros(2, 3, 8, 8)):
        with (
            nothing_is_left(backbone.denoiser),
            pytest.raises(FieldError, match=r"^adapter: .* is given no"),
            backbone.adapted(make(), wrong),
        ):
            pytest.fail("it was attached")


# ---------------------------------------------------------------- the released order and the multiplicities


def test_residuals_are_added_as_often_as_the_release_does() -> None:
    assert multiplicities(4, 2) == [4, 4, 4, 4, 3, 3, 3, 2, 2, 2, 1, 1]


@pytest.mark.parametrize("places", [4, 5])
@pytest.mark.parametrize("branches", [(True, False), (False, True)])
def test_the_released_order_is_that_of_a_loop(places: int, branches: tuple[bool, bool]) -> None:
    tokens = {True: torch.ones(1, 3), False: -torch.ones(1, 3)}
    context = torch.stack([tokens[branch] for branch in branches for _ in range(places)])
    found = released_order(branches, context)
    for index, branch in enumerate(branches):
        for place in range(places):
            number = place + (places if branch else 0)  # the unconditional branch comes first there
            assert torch.equal(found[index * places + place], tokens[number % 2 == 1])
    alone = context[:places]
    assert torch.equal(released_order((True,), alone), alone)


def test_the_released_order_puts_both_branches_into_one_pass(backbone: SVD, x: Tensor, condition: SVDCondition) -> None:
    adapter = anything()
    fixed = denoised(backbone, x, condition, backbone.adapted(adapter, entities(NUM_FRAMES, 64, 64)))
    given = entities(NUM_FRAMES, 64, 64, context_order="release")
    seen = []
    hook = backbone.denoiser.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[0]))
    try:
        released = denoised(backbone, x, condition, backbone.adapted(adapter, given))
    finally:
        hook.remove()
    assert seen == [2] and not torch.allclose(released, fixed, rtol=1e-3)


# ---------------------------------------------------------------- runs and records


def test_a_run_is_recorded_with_its_weights_and_made_again(backbone: SVD) -> None:
    adapter, other = nuwa(), nuwa(1)
    scene = contract.scene()
    video = generate(scene, backbone=backbone, controller=DragNUWA(), sampling=SMALL, adapters=[adapter])
    plain = generate(scene, backbone=backbone, controller=Controller(), sampling=SMALL)
    assert not torch.allclose(video.frames, plain.frames, atol=1e-3)
    assert video.run is not None
    run = Run.from_dict(video.run)
    assert [one["sha256"] for one in run.adapters] == [adapter.sha256]
    assert torch.equal(replay(run, backbone=backbone, adapters=[adapter]).frames, video.frames)
    for wrong in ([], [other], [adapter, other]):
        with pytest.raises(FieldError, match=r"^adapters: the video was made with nuwa-0"):
            replay(run, backbone=backbone, adapters=wrong)
    unused = generate(scene, backbone=backbone, controller=Controller(), sampling=SMALL, adapters=[adapter])
    assert torch.equal(unused.frames, plain.frames), "weights that the method does not steer take no part"
    assert unused.run is not None and not Run.from_dict(unused.run).adapters


def test_nothing_is_left_after_a_run_that_was_cancelled(backbone: SVD, x: Tensor, condition: SVDCondition) -> None:
    plain = denoised(backbone, x, condition)
    asked = []

    def cancelled() -> bool:
        asked.append(1)
        return len(asked) > 1

    with nothing_is_left(backbone.denoiser), pytest.raises(Cancelled):
        generate(contract.scene(), backbone=backbone, controller=DragNUWA(), sampling=SMALL, adapters=[nuwa()],
                 cancelled=cancelled)  # fmt: skip
    assert torch.equal(denoised(backbone, x, condition), plain)


def test_weights_that_are_not_there_are_asked_for_before_anything_is_loaded(backbone: SVD) -> None:
    scene = contract.scene()
    with pytest.raises(FieldError, match=r"^adapter: drag-nuwa steers weights of drag-nuwa, and they are not there"):
        plan(scene, backbone.outline, controller=DragNUWA(), sampling=SMALL)
    with pytest.raises(FieldError, match="2 of them are there"):
        plan(scene, backbone.outline, controller=DragNUWA(), sampling=SMALL, adapters=[nuwa(), nuwa(1)])
    planned = plan(scene, backbone.outline, controller=Controller(), sampling=SMALL, adapters=[nuwa()])
    assert any("the weights of drag-nuwa" in warning for warning in planned.warnings)


def test_a_path_that_leaves_the_picture_is_told_or_refused(backbone: SVD) -> None:
    scene = contract.scene()
    first = scene.motions[0]
    away = replace(first, path=(first.path[0], replace(first.path[-1], x=first.path[0].x + 10 * scene.image.width)))
    scene = replace(scene, motions=(away, *scene.motions[1:]))
    planned = plan(scene, backbone.outline, controller=DragNUWA(), sampling=SMALL, adapters=[nuwa()])
    told = [one for one in planned.warnings if "leaves the picture of 64x64 in frame" in one]
    assert len(told) == 1 and "at pixel (" in told[0] and told[0].startswith("motions[0] ")
    with pytest.raises(FieldError, match=r"^motions\[0\]: leaves the picture of 64x64 in frame \d+, at pixel"):
        plan(scene, backbone.outline, controller=DragNUWA(outside="refuse"), sampling=SMALL, adapters=[nuwa()])
    video = generate(scene, backbone=backbone, controller=DragNUWA(), sampling=SMALL, adapters=[nuwa()])
    assert np.isfinite(video.frames.numpy()).all()

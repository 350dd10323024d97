"""What makes a guided run cheaper: each setting against its own definition, and off at its identity."""

import dataclasses
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sgi2v import SGI2V, SVD, Range, SVDSettings
from sgi2v.alignment import alignment_loss
from sgi2v.backbones import Text
from sgi2v.controllers.sg_i2v import SGI2VState
from sgi2v.grid import Grid, Track, Tracks
from sgi2v.step import Level, Reporter, Step
from tiny import load_svd, setup_of, tiny_svd

BASE = SGI2V(iterations=5, guided=Range(low=1.0, high=1000.0))
GRID = Grid(width=64, height=96, num_frames=3)


@pytest.fixture(scope="module")
def backbone() -> SVD:
    settings = SVDSettings(num_frames=3, min_guidance_scale=1.5, max_guidance_scale=3.0)
    return load_svd(tiny_svd(3, light=True), device="cpu", dtype="float32", settings=settings)


@pytest.fixture(scope="module")
def tracks() -> Tracks:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 64, 3), dtype=np.uint8))
    boxes = np.array([[9.0, 17, 40, 60], [15, 20, 46, 63], [25, 31, 56, 74]], dtype=np.float32)
    return Tracks(image=image, tracks=(Track(boxes=boxes),))


class Losses(Reporter):
    """Keeps what a step reports."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def iteration(self, step: Step, index: int, count: int, loss: Tensor) -> None:
        self.seen.append(loss.item())


def steered(backbone: SVD, controller: SGI2V, tracks: Tracks, index: int = 1) -> tuple[Tensor, list[float]]:
    """Latents after one guided step, and its losses."""
    losses, state = Losses(), prepared(backbone, controller, tracks)
    level, next_level = state.setup.levels[index : index + 2]
    step = Step(index=index, count=6, level=level, next_level=next_level, reporter=losses)
    x = level.noise * torch.randn(GRID.latent_shape, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        return controller.steer(x, step, state), losses.seen


def prepared(backbone: SVD, controller: SGI2V, tracks: Tracks, grid: Grid = GRID) -> SGI2VState:
    return controller.prepare(setup_of(backbone, tracks, grid, num_steps=6))


# ---------------------------------------------------------------- early stop


def test_a_step_ends_one_iteration_after_the_loss_was_seen_to_settle(backbone: SVD, tracks: Tracks) -> None:
    eager = dataclasses.replace(BASE, iterations=5, lr=20.0)
    whole, losses = steered(backbone, eager, tracks)
    falls = [1 - b / a for a, b in pairwise(losses)]
    assert len(losses) == 5 and max(falls) > 0.01, "a loss that stands still shows nothing"
    known = {5: whole}
    for share in (1e-9, float(np.median(falls)), 2.0):
        controller = dataclasses.replace(eager, settled=share)
        # The fall to iteration k is asked for before iteration k + 2.
        wanted = next((k + 3 for k, fall in enumerate(falls) if fall < share and k + 3 < 5), 5)
        found, seen = steered(backbone, controller, tracks)
        assert seen == losses[:wanted]
        if wanted not in known:
            known[wanted], _ = steered(backbone, dataclasses.replace(eager, iterations=wanted), tracks)
        assert torch.equal(found, known[wanted])
    assert {3, 5} <= set(known)


# ---------------------------------------------------------------- reuse


def test_reuse_changes_only_iterations_after_the_first(backbone: SVD, tracks: Tracks) -> None:
    one = dataclasses.replace(BASE, iterations=1)
    plain, reused = (steered(backbone, dataclasses.replace(one, reuse_deep=r), tracks)[0] for r in (False, True))
    assert torch.equal(plain, reused)
    three = dataclasses.replace(BASE, iterations=3)
    many, later = (steered(backbone, dataclasses.replace(three, reuse_deep=r), tracks)[1] for r in (False, True))
    assert later[0] == many[0] and later[1:] != many[1:]
    assert later[-1] < later[0], "the loss falls all the same"


# ---------------------------------------------------------------- half the size


def test_shrunk_the_loss_is_that_of_averaged_latents_at_half_the_noise(backbone: SVD, tracks: Tracks) -> None:
    controller = dataclasses.replace(BASE, shrink=2)
    state = prepared(backbone, controller, tracks)
    level = state.setup.levels[1]
    x = level.noise * torch.randn(GRID.latent_shape, generator=torch.Generator().manual_seed(5))
    value, gradient = controller.loss_and_gradient(x, level, state)

    small = torch.empty(3, 4, 6, 4)
    for row in range(6):
        for column in range(4):
            small[:, :, row, column] = x[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].mean((2, 3))
    small.requires_grad_(True)
    half = Grid(width=32, height=48, num_frames=3)
    image = tracks.image.resize((32, 48), Image.Resampling.BICUBIC)
    halved = Tracks(image=image, tracks=tuple(Track(boxes=track.boxes / 2) for track in tracks.tracks))
    at_half = prepared(backbone, BASE, halved, half)
    with torch.enable_grad():
        quieter = Level(signal=1.0, noise=level.noise / 2)
        found = backbone.features(small, quieter, at_half.condition, controller.layers)
        wanted = alignment_loss(found.values(), at_half.plan)
        (below,) = torch.autograd.grad(wanted, small)
    assert value.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert torch.allclose(gradient, F.interpolate(below, scale_factor=2.0) / 4, atol=1e-5 * float(below.abs().max()))
    assert gradient.any()


def test_a_run_on_a_smaller_picture_draws_nothing_from_the_runs_generator(backbone: SVD, tracks: Tracks) -> None:
    setup = setup_of(backbone, tracks, GRID, num_steps=6)
    before = setup.generator.get_state()
    dataclasses.replace(BASE, shrink=2).prepare(setup)
    assert torch.equal(setup.generator.get_state(), before)


def test_a_size_that_does_not_divide_is_refused(backbone: SVD, tracks: Tracks) -> None:
    with pytest.raises(ValueError, match=r"controller\.shrink: 3 does not divide the 8x12 latent cells"):
        prepared(backbone, dataclasses.replace(BASE, shrink=3), tracks)


@pytest.mark.parametrize(("field", "value"), [("settled", -0.1), ("shrink", 0)])
def test_values_that_make_no_sense_are_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"controller\.{field}"):
        SGI2V(**{field: value})  # type: ignore[arg-type]


# ---------------------------------------------------------------- guidance in an interval


def test_guidance_outside_its_interval_is_the_conditional_branch_alone(backbone: SVD, tracks: Tracks) -> None:
    def denoised(level: Level, num_passes: int, **changes: object) -> Tensor:
        changed, ran = backbone.with_settings(dataclasses.replace(backbone.settings, **changes)), []
        handle = backbone.denoiser.register_forward_pre_hook(lambda *_: ran.append(1))
        try:
            condition = changed.encode(tracks.image, Text(), GRID, torch.Generator().manual_seed(0))
            x0 = changed.denoise(x, level, condition)
        finally:
            handle.remove()
        assert len(ran) == num_passes
        return x0

    x = 9 * torch.randn(GRID.latent_shape, generator=torch.Generator().manual_seed(5))
    for level in backbone.levels(6, GRID)[1:4:2]:
        everywhere = denoised(level, 2)
        alone = denoised(level, 1, min_guidance_scale=1.0, max_guidance_scale=1.0)
        assert not torch.equal(everywhere, alone)
        s = level.noise_level
        for interval, inside in (((0.0, 1.0), 1), ((s, s), 1), ((0.0, s * 0.99), 0), ((s + 1e-4, 1.0), 0)):
            found = denoised(level, 1 + inside, guidance_interval=interval)
            assert torch.equal(found, everywhere if inside else alone)


@pytest.mark.parametrize("interval", [(0.5, 0.2), (-0.1, 0.5), (0.5, 1.5)])
def test_an_interval_that_is_none_is_refused(interval: Any) -> None:
    with pytest.raises(ValueError, match=r"settings\.guidance_interval"):
        SVDSettings(guidance_interval=interval)

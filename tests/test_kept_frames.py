"""Latent frames that a model keeps, such as a clean first one, are no variables of any method that changes latents."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sgi2v import SGI2V, SVD, Controller, DragDiffusion, FreeTraj, Range, SVDSettings
from sgi2v.backbones.svd.parts import SVDCondition
from sgi2v.controllers import Setup
from sgi2v.grid import Grid, Track, Tracks
from sgi2v.sampling import sample
from sgi2v.spectrum import merge_frequencies
from sgi2v.step import Level, Reporter, Step
from tiny import load_svd, setup_of, tiny_svd

GRID = Grid(width=64, height=48, num_frames=3)
NUM_STEPS = 3  # sigma 700, 15.6, 0.002
AT = 1
METHODS: Mapping[str, Controller] = {
    "sg-i2v": SGI2V(guided=Range(low=10.0, high=20.0), iterations=3),
    "drag-diffusion": DragDiffusion(at=15.0, iterations=3, lr=0.05),
    "freetraj": FreeTraj(),
}


def keeping_first(backbone: SVD, picture: Tensor) -> SVD:
    """The same networks behind a contract that keeps frame 0: there they see the picture, whatever ``x`` holds."""
    other = backbone.with_settings(backbone.settings)

    def seen(x: Tensor) -> Tensor:
        return torch.cat([picture, x[1:]])

    def free(grid: Grid) -> Tensor:
        return torch.arange(grid.latent_frames) > 0

    def denoise(x: Tensor, level: Level, condition: SVDCondition) -> Tensor:
        return torch.cat([picture, backbone.denoise(seen(x), level, condition)[1:]])

    def features(x: Tensor, level: Level, condition: SVDCondition, layers: Sequence[str]) -> Mapping[str, Tensor]:
        return backbone.features(seen(x), level, condition, layers)

    vars(other).update(free=free, denoise=denoise, features=features)
    return other


@pytest.fixture(scope="module")
def tracks() -> Tracks:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    boxes = np.array([[8, 8, 28, 28], [16, 12, 36, 32], [28, 18, 48, 38]], dtype=np.float32)
    return Tracks(image=image, tracks=(Track(boxes=boxes),))


@pytest.fixture(scope="module")
def everything_free() -> SVD:
    """Without guidance: one pass a step."""
    settings = SVDSettings(num_frames=3, max_guidance_scale=1.0)
    return load_svd(tiny_svd(3, light=True), dtype="float32", settings=settings)


@pytest.fixture(scope="module")
def setup(everything_free: SVD, tracks: Tracks) -> Setup:
    picture = torch.from_numpy(np.asarray(tracks.image, dtype=np.float32) / 255).permute(2, 0, 1)[None]
    backbone = keeping_first(everything_free, everything_free.encode_frames(picture, GRID))
    return setup_of(backbone, tracks, GRID, num_steps=NUM_STEPS)


def fresh(setup: Setup) -> Setup:
    """The same with a generator of its own, so that every run draws alike."""
    return dataclasses.replace(setup, generator=torch.Generator().manual_seed(8))


def step_of(setup: Setup) -> tuple[Step, Tensor]:
    level, next_level = setup.levels[AT : AT + 2]
    x = level.noise * torch.randn(GRID.latent_shape, generator=torch.Generator().manual_seed(5))
    return Step(index=AT, count=NUM_STEPS, level=level, next_level=next_level, reporter=Reporter()), x


def run(setup: Setup, controller: Controller) -> list[Tensor]:
    """What the model was shown at each step, and the clean latents."""
    seen: list[Tensor] = []
    watched = setup.backbone.with_settings(setup.backbone.settings)

    def denoise(x: Tensor, level: Level, condition: SVDCondition) -> Tensor:
        seen.append(x.clone())
        return setup.backbone.denoise(x, level, condition)

    vars(watched).update(denoise=denoise)
    noise = torch.randn(GRID.latent_shape, generator=torch.Generator().manual_seed(2))
    return [*seen, sample(controller, dataclasses.replace(fresh(setup), backbone=watched), noise=noise)]


@pytest.fixture(scope="module")
def uncontrolled(setup: Setup) -> list[Tensor]:
    return run(setup, Controller())


@pytest.mark.parametrize("name", METHODS)
def test_a_kept_frame_goes_through_a_run_as_without_control(
    setup: Setup, uncontrolled: list[Tensor], name: str
) -> None:
    steered = run(setup, METHODS[name])
    for plain, x in zip(uncontrolled, steered, strict=True):
        assert torch.equal(x[0], plain[0])
    assert all(not torch.equal(a, b) for a, b in zip(uncontrolled[-1][1:], steered[-1][1:], strict=True))


@pytest.mark.parametrize("name", ["sg-i2v", "drag-diffusion"])
def test_where_all_is_free_the_first_frame_is_a_variable_too(everything_free: SVD, tracks: Tracks, name: str) -> None:
    """What is kept above is not kept by chance."""
    setup, controller = setup_of(everything_free, tracks, GRID, num_steps=NUM_STEPS), METHODS[name]
    step, x = step_of(setup)
    with torch.no_grad():
        assert not torch.equal(controller.steer(x, step, controller.prepare(setup))[0], x[0])


def test_sg_i2v_optimises_the_free_frames_alone(setup: Setup) -> None:
    """Against the same iterations on variables that the kept frame is none of."""
    controller = METHODS["sg-i2v"]
    assert isinstance(controller, SGI2V)
    state = controller.prepare(setup)
    step, x = step_of(setup)
    variables = x[1:].clone()
    optimiser = torch.optim.AdamW([variables], lr=controller.lr, weight_decay=controller.weight_decay)
    for _ in range(controller.iterations):
        _, gradient = controller.loss_and_gradient(torch.cat([x[:1], variables]), step.level, state)
        assert not gradient[0].any()
        variables.grad = gradient[1:]
        optimiser.step()
    wanted = merge_frequencies(variables.detach(), x[1:], state.low_pass)
    with torch.no_grad():
        found = controller.steer(x, step, state)
    assert torch.equal(found[0], x[0])
    assert torch.allclose(found[1:], wanted, atol=1e-5) and not torch.allclose(wanted, x[1:], atol=1e-2)


def test_freetraj_lays_noise_in_the_free_frames_alone(setup: Setup) -> None:
    """What it lays there is what it would lay in a clip of those frames."""
    controller = FreeTraj()
    noise = torch.randn(GRID.latent_shape, generator=torch.Generator().manual_seed(2))
    own = fresh(setup)
    state = controller.prepare(own)
    start = controller.start(noise, state) / setup.levels[0].init_noise_sigma
    again = fresh(setup).generator
    laid = controller.steered_noise(noise[1:], state.cells[:, 1:], again)
    assert torch.allclose(start[0], noise[0]) and torch.allclose(start[1:], laid, atol=1e-5)
    assert not torch.allclose(laid, noise[1:], atol=1e-2)
    assert torch.equal(own.generator.get_state(), again.get_state()), "nothing is drawn for the kept frame"

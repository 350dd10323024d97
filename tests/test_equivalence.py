"""The package against what it must equal: diffusers' own pipeline without control, a literal slow twin with it."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableVideoDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor2_0
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from reference import sg_i2v as twin
from reference import svd as plain
from sgi2v import (
    SGI2V,
    SVD,
    Box,
    Controller,
    Key,
    Motion,
    Range,
    Sampling,
    Scene,
    SVDSettings,
    generate,
    load_scene,
)
from sgi2v.alignment import alignment_loss, alignment_plan
from sgi2v.backbones import Text
from sgi2v.grid import Grid, Track, Tracks, tracks_of
from sgi2v.step import Reporter, Step
from tiny import load_svd, setup_of, tiny_svd

EXAMPLES = Path(__file__).parents[1].parent / "shared" / "examples"
WIDTH, HEIGHT, NUM_FRAMES, NUM_STEPS = 128, 64, 4, 6
GUIDED = 1  # of six steps 1 and 2 lie in the published range: sigma 193.65 and 40.08
SOURCE = (192, 80)

Boxes = NDArray[np.float32]

# First box (left, top, right, bottom) and centre per frame, pixels of a 192 x 80 image; a cell is 12 x 10 of them.
MOTIONS: dict[str, list[tuple[tuple[float, float, float, float], list[tuple[float, float]]]]] = {
    "several": [
        ((24, 20, 72, 50), [(48, 35), (60, 35), (74, 37), (90, 40)]),
        ((120, 10, 156, 40), [(138, 25), (130, 29), (120, 34), (111, 40)]),
        ((36, 30, 60, 60), [(48, 45)] * 4),
    ],
    "less than a cell": [((31, 17, 79, 49), [(55, 33), (57.5, 33.9), (58.1, 36.2), (60.3, 34.7)])],
    "leaves": [
        ((12, 10, 60, 50), [(36, 30), (12, 22), (-6, 5), (-400, 30)]),
        ((140, 40, 190, 78), [(165, 59), (176, 66), (188, 75), (190, 100)]),
    ],
    "smaller than a cell": [((100, 41, 104, 47), [(102, 44), (109, 40), (113, 35), (121, 30)])],
    "first box touches the border": [((0, 0, 192, 80), [(96, 40), (97, 43), (104, 38), (85, 40)])],
}


def picture(seed: int = 0) -> Image.Image:
    """Something with edges and texture, of an odd shape against the model's."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (5, 12, 3), dtype=np.uint8)).resize(SOURCE)
    fine = generator.integers(-25, 26, (SOURCE[1], SOURCE[0], 3))
    return Image.fromarray(np.clip(np.asarray(coarse) + fine, 0, 255).astype(np.uint8))


def traj_of(name: str) -> NDArray[np.float64]:
    return np.array([[box[:2], box[2:], *centres] for box, centres in MOTIONS[name]], dtype=np.float64)


def scene_of(name: str) -> Scene:
    times = np.linspace(0, 1, NUM_FRAMES).tolist()
    motions = [
        Motion(
            box=Box(left=left, top=top, right=right, bottom=bottom),
            path=tuple(Key(time=t, x=x, y=y) for t, (x, y) in zip(times, centres, strict=True)),
        )
        for (left, top, right, bottom), centres in MOTIONS[name]
    ]
    return Scene(image=picture(), motions=tuple(motions))


def resized(image: Image.Image, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    return image.resize((width, height), Image.Resampling.BICUBIC)


def growing_boxes() -> Boxes:
    """A box that grows from 4 x 3 to 9 x 5 cells and hangs over the border, and one that shrinks to one cell."""
    grows = [(16, 8, 48, 32), (20, 4, 62, 40), (33, 9, 90, 52), (70, 30, 142, 71)]
    shrinks = [(80, 24, 112, 56), (82, 22, 108, 50), (84, 20, 103, 39), (86, 18, 90, 22)]
    return np.array([grows, shrinks], dtype=np.float32)


def boxes_of(name: str) -> Boxes:
    if name == "grows and shrinks":
        return growing_boxes()
    return twin.boxes_of(traj_of(name), SOURCE, WIDTH, HEIGHT)


def tracks_from(boxes: Boxes, width: int = WIDTH, height: int = HEIGHT) -> Tracks:
    image = resized(picture(), width, height)
    return Tracks(image=image, tracks=tuple(Track(boxes=track) for track in boxes))


SCENES = [*MOTIONS, "grows and shrinks"]


@pytest.fixture(scope="module")
def backbone() -> SVD:
    return load_svd(tiny_svd(NUM_FRAMES), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def models() -> plain.Models:
    return plain.load_models(tiny_svd(NUM_FRAMES))


def settings(**changes: object) -> plain.Settings:
    """The twin's published settings at this file's size."""
    small = plain.Settings(width=WIDTH, height=HEIGHT, num_frames=NUM_FRAMES, num_steps=NUM_STEPS)
    return dataclasses.replace(small, **changes)  # type: ignore[arg-type]


def controller_of(s: plain.Settings) -> SGI2V:
    """The package's controller with the twin's settings."""
    low, high = s.remaining or s.sigmas
    return SGI2V(
        guided=Range(low=float(low), high=float(high), unit="step" if s.remaining else "sigma"),
        iterations=s.iterations,
        lr=s.lr,
        weight_decay=s.weight_decay,
        layers=tuple(f"{layer}:first-frame" for layer in s.layers),
        heatmap_std=s.heatmap_std,
        cutoff=s.gamma,
    )


# ---------------------------------------------------------------- no control


@pytest.mark.parametrize(
    ("num_frames", "num_steps", "size", "chunk", "guidance", "seed"),
    [
        (4, 6, (128, 64), 3, (1.0, 3.0), 817),
        (4, 5, (64, 96), 2, (1.5, 2.5), 1),
        (4, 2, (72, 88), 4, (1.0, 1.0), 2),
        (14, 3, (128, 64), 8, (1.0, 3.0), 3),
        (25, 2, (96, 64), 14, (1.0, 2.0), 4),
    ],
)
def test_without_control_the_frames_are_those_of_diffusers(
    num_frames: int,
    num_steps: int,
    size: tuple[int, int],
    chunk: int,
    guidance: tuple[float, float],
    seed: int,
) -> None:
    folder = tiny_svd(NUM_FRAMES)
    chosen = SVDSettings(
        num_frames=num_frames,
        decode_chunk_size=chunk,
        min_guidance_scale=guidance[0],
        max_guidance_scale=guidance[1],
        fps=9,
        motion_bucket_id=44,
        noise_aug_strength=0.1,
    )
    ours = generate(
        Scene(image=picture(seed)),
        backbone=load_svd(folder, device="cpu", dtype="float32", settings=chosen),
        controller=Controller(),
        sampling=Sampling(width=size[0], height=size[1], num_frames=num_frames, num_steps=num_steps, seed=seed),
    ).frames

    pipeline = StableVideoDiffusionPipeline.from_pretrained(folder, use_safetensors=True)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        resized(picture(seed), *size),
        width=size[0],
        height=size[1],
        num_frames=num_frames,
        num_inference_steps=num_steps,
        min_guidance_scale=guidance[0],
        max_guidance_scale=guidance[1],
        fps=9,
        motion_bucket_id=44,
        noise_aug_strength=0.1,
        decode_chunk_size=chunk,
        generator=torch.Generator().manual_seed(seed),
        output_type="pt",
    ).frames[0]
    assert ours.shape == theirs.shape and ours.std(dim=0).mean() > 0.01
    assert (ours - theirs).abs().max() <= 1e-3


# ---------------------------------------------------------------- boxes, features, loss


@pytest.mark.parametrize("name", MOTIONS)
def test_boxes_of_a_scene_are_the_twins(name: str) -> None:
    grid = Grid(width=WIDTH, height=HEIGHT, num_frames=NUM_FRAMES)
    tracks = tracks_of(scene_of(name), grid)
    assert np.array_equal(tracks.boxes(range(NUM_FRAMES)), boxes_of(name))
    assert tracks.image.tobytes() == resized(picture()).tobytes()


@pytest.mark.parametrize("folder", sorted(EXAMPLES.glob("[0-9]*")) or [None], ids=lambda f: f.name if f else "absent")
@pytest.mark.parametrize(("width", "height"), [(1024, 576), (320, 192), (640, 320)])
def test_boxes_of_published_scenes_are_the_twins(folder: Path | None, width: int, height: int) -> None:
    if folder is None:
        pytest.skip("shared/examples is not beside this checkout")
    scene, traj = load_scene(folder), np.load(folder / "traj.npy")
    grid = Grid(width=width, height=height, num_frames=14)
    theirs = twin.boxes_of(traj, scene.image.size, width, height)
    ours = tracks_of(scene, grid).boxes(range(14))
    assert np.array_equal(ours, theirs)
    for box, cells in zip(theirs.reshape(-1, 4), grid.cells(ours).reshape(-1, 4).tolist(), strict=True):
        top, bottom, left, right = twin.cells_of(box)
        assert cells == [top, left, bottom, right]


@pytest.mark.parametrize("index", [0, GUIDED, NUM_STEPS - 1])
def test_features_are_exactly_those_of_a_replaced_attention_processor(
    backbone: SVD, models: plain.Models, index: int
) -> None:
    """Bit for bit with diffusers' own attention in the network; with the lean one up to rounding."""
    layers = [f"up_blocks.{k}.attentions.{i}" for k in (1, 2, 3) for i in (0, 1, 2)]
    denoiser: Any = backbone.denoiser
    lean = dict(denoiser.attn_processors)
    with torch.no_grad():
        condition, _ = plain.start(models, resized(picture()), settings())
        timestep = models.scheduler.timesteps[index]
        x = torch.randn(1, NUM_FRAMES, 4, HEIGHT // 8, WIDTH // 8) * float(models.scheduler.sigmas[index])
        theirs = twin.native_features(models, x, timestep, condition, layers)

        image = resized(picture())
        grid = backbone.grid(WIDTH, HEIGHT, NUM_FRAMES)
        own_condition = backbone.encode(image, Text(), grid, torch.Generator().manual_seed(817))
        names = [f"{layer}:first-frame" for layer in layers]
        level = backbone.levels(NUM_STEPS, grid)[index]
        ours = backbone.features(x[0], level, own_condition, names)
        denoiser.set_attn_processor(AttnProcessor2_0())
        try:
            same = backbone.features(x[0], level, own_condition, names)
        finally:
            denoiser.set_attn_processor(lean)
    for name, feature in zip(names, theirs, strict=True):
        assert feature.std(dim=(0, 2, 3)).mean() > 1e-3, "a feature that does not vary compares nothing"
        assert torch.equal(same[name], feature), f"{name}: {(same[name] - feature).abs().max()}"
        assert torch.allclose(ours[name], feature, rtol=1e-4, atol=1e-4 * float(feature.std()))


def some_features(seed: int, height: int, width: int, num_frames: int = NUM_FRAMES) -> list[Tensor]:
    """Maps of two layers, one at half the latents' size."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(num_frames, 6, height // 2, width // 2, generator=generator),
        torch.randn(num_frames, 3, height, width, generator=generator),
    ]


def compare_losses(boxes: Boxes, features: list[Tensor], heatmap_std: float, width: int, height: int) -> None:
    grid = Grid(width=width, height=height, num_frames=boxes.shape[1])
    plan = alignment_plan(tracks_from(boxes, width, height), grid, heatmap_std)
    theirs_of = [f.clone().requires_grad_(True) for f in features]
    ours_of = [f.clone().requires_grad_(True) for f in features]
    theirs = twin.alignment_loss(twin.upsampled(theirs_of, *plan.size[1:]), boxes, heatmap_std)
    if theirs is None:
        assert plan.num_rows == 0
        return
    ours = alignment_loss(ours_of, plan)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    theirs.backward()
    ours.backward()
    for a, b in zip(ours_of, theirs_of, strict=True):
        assert a.grad is not None and b.grad is not None
        assert (a.grad - b.grad).abs().max() <= 1e-5 * b.grad.abs().max()


@pytest.mark.parametrize("heatmap_std", [0.1, 0.4, 1.0])
@pytest.mark.parametrize("name", SCENES)
def test_loss_and_its_gradient_are_the_twins(name: str, heatmap_std: float) -> None:
    compare_losses(boxes_of(name), some_features(3, HEIGHT // 8, WIDTH // 8), heatmap_std, WIDTH, HEIGHT)


@pytest.mark.parametrize("seed", range(25))
def test_loss_is_the_twins_on_boxes_anywhere(seed: int) -> None:
    """Random sizes that change, random places that may lie far outside, edges that lie on cell borders."""
    generator = np.random.default_rng(seed)
    width, height, num_frames = 8 * int(generator.integers(4, 12)), 8 * int(generator.integers(4, 9)), 3
    boxes = []
    for _ in range(generator.integers(1, 4)):
        corner = generator.uniform(0, 0.7, 2) * (width, height)
        first = np.concatenate([corner, corner + generator.uniform(0.1, 1, 2) * ((width, height) - corner)])
        track = [first]
        for _ in range(1, num_frames):
            middle = generator.uniform(-0.3, 1.3, 2) * (width, height)
            half = generator.uniform(0.5, 1.6, 2) * (first[2:] - first[:2]) / 2
            track.append(np.concatenate([middle - half, middle + half]))
        boxes.append(track)
    moved = np.array(boxes)
    if seed % 2:
        moved = np.round(moved / 8) * 8
        moved[..., 2:] = np.maximum(moved[..., 2:], moved[..., :2] + 1)
        moved[:, 0] = np.clip(moved[:, 0], 0, np.tile((width, height), 2))
        moved[:, 0, :2] = np.minimum(moved[:, 0, :2], moved[:, 0, 2:] - 1)
    features = some_features(seed, height // 8 // 2 * 2, width // 8 // 2 * 2, num_frames)
    compare_losses(moved.astype(np.float32), features, 0.4, width, height)


# ---------------------------------------------------------------- one guided step


@dataclasses.dataclass
class Losses(Reporter):
    """Keeps what a run reports."""

    seen: list[Tensor] = dataclasses.field(default_factory=list)

    def iteration(self, step: Step, index: int, count: int, loss: Tensor) -> None:
        self.seen.append(loss)


def guided_step(backbone: SVD, boxes: Boxes, chosen: plain.Settings) -> tuple[Tensor, list[float], Tensor]:
    """Latents and losses of the package, and the latents before."""
    controller, losses = controller_of(chosen), Losses()
    grid = backbone.grid(WIDTH, HEIGHT, NUM_FRAMES)
    setup = setup_of(backbone, tracks_from(boxes), grid, num_steps=NUM_STEPS, seed=817)
    level, next_level = setup.levels[GUIDED : GUIDED + 2]
    x = level.noise * torch.randn(grid.latent_shape, generator=torch.Generator().manual_seed(0))
    step = Step(index=GUIDED, count=NUM_STEPS, level=level, next_level=next_level, reporter=losses)
    with torch.no_grad():
        latents = controller.steer(x, step, controller.prepare(setup))
    return latents, [loss.item() for loss in losses.seen], x


def guided_step_of_twin(
    models: plain.Models, boxes: Boxes, chosen: plain.Settings, x: Tensor
) -> tuple[Tensor, list[float]]:
    """Latents and losses of the twin at the same latents."""
    condition, _ = plain.start(models, resized(picture()), chosen)
    timestep = models.scheduler.timesteps[GUIDED]
    latents, losses = twin.guided_step(models, x[None], timestep, condition, boxes, chosen)
    return latents[0], losses


def tolerance(latents: Tensor) -> float:
    return 1e-4 + 1e-6 * float(latents.abs().max())


VARIATIONS: dict[str, tuple[str, dict[str, object]]] = {
    "published": ("several", {"iterations": 5}),
    "one iteration": ("several", {"iterations": 1}),
    "less than a cell": ("less than a cell", {}),
    "leaves": ("leaves", {"iterations": 3}),
    "grows and shrinks": ("grows and shrinks", {}),
    "smaller than a cell": ("smaller than a cell", {}),
    "layers of three levels": (
        "several",
        {"layers": ("up_blocks.3.attentions.2", "up_blocks.1.attentions.1", "up_blocks.2.attentions.0")},
    ),
    "one top layer": ("several", {"layers": ("up_blocks.3.attentions.1",)}),
    "gamma 0": ("several", {"gamma": 0.0}),
    "gamma 1": ("leaves", {"gamma": 1.0}),
    "narrow heat map": ("several", {"heatmap_std": 0.1}),
    "wide heat map": ("leaves", {"heatmap_std": 1.5}),
    "no weight decay, small steps": ("several", {"weight_decay": 0.0, "lr": 0.03}),
}


@pytest.mark.parametrize("variation", VARIATIONS)
def test_one_guided_step_is_the_twins(backbone: SVD, models: plain.Models, variation: str) -> None:
    name, changes = VARIATIONS[variation]
    chosen = settings(**{"iterations": 2, **changes})
    ours, our_losses, before = guided_step(backbone, boxes_of(name), chosen)
    theirs, their_losses = guided_step_of_twin(models, boxes_of(name), chosen, before)
    assert len(our_losses) == chosen.iterations
    assert our_losses == pytest.approx(their_losses, rel=1e-5)
    assert (ours - theirs).abs().max() <= tolerance(theirs)
    moved = (theirs - before).abs().max()
    assert moved < 1e-3 if variation == "gamma 0" else moved > 20 * tolerance(theirs)


def test_a_step_without_any_cell_left_is_not_guided(backbone: SVD, models: plain.Models) -> None:
    boxes = boxes_of("several")
    boxes[:, 1:] += 1000
    ours, our_losses, before = guided_step(backbone, boxes, settings())
    theirs, their_losses = guided_step_of_twin(models, boxes, settings(), before)
    assert our_losses == their_losses == []
    assert torch.equal(ours, before) and torch.equal(theirs, before)


@pytest.fixture(scope="module")
def right(backbone: SVD) -> tuple[Tensor, Tensor]:
    """Latents after a step at the right settings, and before it."""
    after, _, before = guided_step(backbone, boxes_of("several"), settings(iterations=2))
    return after, before


@pytest.mark.parametrize(
    "change",
    [
        {"heatmap_std": 0.44},
        {"gamma": 0.55},
        {"lr": 0.22},
        {"weight_decay": 0.0},
        {"iterations": 3},
        {"layers": ("up_blocks.2.attentions.2", "up_blocks.2.attentions.0")},
        {"motion_bucket": 100},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_wrong_setting_would_be_noticed(
    right: tuple[Tensor, Tensor], models: plain.Models, change: dict[str, object]
) -> None:
    """The comparison above has teeth: a tenth more or less of anything is far outside its tolerance."""
    ours, before = right
    wrong = settings(**{"iterations": 2, **change})
    theirs, _ = guided_step_of_twin(models, boxes_of("several"), wrong, before)
    assert (ours - theirs).abs().max() > 3 * tolerance(theirs)


@pytest.mark.parametrize("num_steps", [6, 25, 50, 100])
@pytest.mark.parametrize("remaining", [None, (30, 45), (3, 5), (6, 6)])
def test_the_guided_steps_are_the_twins(
    backbone: SVD, models: plain.Models, num_steps: int, remaining: tuple[int, int] | None
) -> None:
    chosen = settings(num_steps=num_steps, remaining=remaining, iterations=2)
    models.scheduler.set_timesteps(num_steps)
    theirs = [2 * twin.is_guided(models, index, chosen) for index in range(num_steps)]
    levels = backbone.levels(num_steps, backbone.grid(WIDTH, HEIGHT, NUM_FRAMES))
    if not any(theirs):
        with pytest.raises(ValueError, match="guided"):
            controller_of(chosen).schedule(levels)
        return
    assert list(controller_of(chosen).schedule(levels).iterations) == theirs
    if num_steps == 50 and remaining in (None, (30, 45)):
        assert [50 - index for index, planned in enumerate(theirs) if planned] == list(range(45, 29, -1))


# ---------------------------------------------------------------- whole runs


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("several", {}),
        ("leaves", {"num_steps": 4, "iterations": 2, "gamma": 1.0, "remaining": (2, 3), "seed": 5}),
        (
            "less than a cell",
            {
                "num_steps": 4,
                "sigmas": (1.0, 100.0),
                "layers": ("up_blocks.1.attentions.2",),
                "iterations": 2,
            },
        ),
    ],
    ids=["several", "leaves", "less-than-a-cell"],
)
def test_a_whole_run_is_the_twins(backbone: SVD, models: plain.Models, name: str, changes: dict[str, object]) -> None:
    chosen = settings(**changes)
    trace = twin.Trace()
    theirs = twin.run(models, resized(picture()), boxes_of(name), chosen, trace)
    assert trace.guided == [1, 2]
    size: dict[str, Any] = {"width": WIDTH, "height": HEIGHT, "num_frames": NUM_FRAMES}
    sampling = Sampling(**size, num_steps=chosen.num_steps, seed=chosen.seed)
    ours = generate(scene_of(name), backbone=backbone, controller=controller_of(chosen), sampling=sampling)
    assert (ours.frames - theirs).abs().max() <= 1e-3
    if not changes:
        uncontrolled = twin.run(models, resized(picture()), None, chosen)
        assert (theirs - uncontrolled).abs().max() > 5e-3, "steering that does nothing compares nothing"


@pytest.mark.parametrize(
    ("number", "num_steps", "iterations", "guided"), [("107", 6, 2, [1, 2]), ("111", 4, 1, [1]), ("114", 4, 1, [1])]
)
@pytest.mark.long
def test_a_published_scene_is_the_twins(number: str, num_steps: int, iterations: int, guided: list[int]) -> None:
    """Fourteen frames at 320 x 192, at which runs of the published code are compared."""
    folder = EXAMPLES / number
    if not folder.is_dir():
        pytest.skip("shared/examples is not beside this checkout")
    model, image = tiny_svd(14, light=True), Image.open(folder / "img.png").convert("RGB")
    chosen = plain.Settings(width=320, height=192, num_steps=num_steps, iterations=iterations)
    boxes = twin.boxes_of(np.load(folder / "traj.npy"), image.size, 320, 192)
    trace = twin.Trace()
    theirs = twin.run(plain.load_models(model), resized(image, 320, 192), boxes, chosen, trace)
    ours = generate(
        load_scene(folder),
        backbone=load_svd(model, device="cpu", dtype="float32"),
        controller=SGI2V(iterations=iterations),
        sampling=Sampling(width=320, height=192, num_steps=num_steps, seed=817),
    )
    assert trace.guided == guided
    assert (ours.frames - theirs).abs().max() <= 1e-3

"""Time-to-Move: its two clocks, what is held and what is free, its cost, and a literal twin of a whole run."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor

from reference import svd as plain
from reference import time_to_move as twin
from sgi2v import SVD, Progress, Run, Sampling, generate, replay
from sgi2v.backbones.svd.parts import SVDCondition
from sgi2v.controllers import Controller, Setup, TimeToMove, controller_from_dict, controller_to_dict
from sgi2v.controllers.time_to_move import held_cells
from sgi2v.cut_and_drag import dragged_clip
from sgi2v.grid import Grid, tracks_of
from sgi2v.reference import Reference
from sgi2v.sampling import sample
from sgi2v.scene import Box, Key, Motion, Scene
from sgi2v.step import Level, Reporter, Step
from test_controllers import flow_levels, svd_levels
from tiny import load_svd, setup_of, tiny_svd

WIDTH, HEIGHT, FRAMES, STEPS = 64, 48, 3, 6
# Sigmas of six steps on SVD: 700, 193, 40, 5.2, 0.29, 0.002.
TTM = TimeToMove(t_weak=200.0, t_strong=30.0)
# Of three: 700, 15.6, 0.002.
LATE = TimeToMove(t_weak=20.0, t_strong=10.0)


def picture(seed: int = 0) -> PIL.Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return PIL.Image.fromarray(small).resize((WIDTH, HEIGHT), PIL.Image.Resampling.BICUBIC)


MOVES = Motion(box=Box(left=8, top=8, right=24, bottom=24), path=(Key(time=0, x=16, y=16), Key(time=1, x=46, y=30)))
SCENE = Scene(image=picture(), motions=(MOVES,))
SMALL = Sampling(seed=5, num_steps=STEPS, width=WIDTH, height=HEIGHT, num_frames=FRAMES)


@pytest.fixture(scope="module")
def guided() -> SVD:
    return load_svd(tiny_svd(FRAMES, light=True), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def backbone(guided: SVD) -> SVD:
    """The same without guidance: one pass a step is enough where nothing is compared with the twin."""
    return guided.with_settings(dataclasses.replace(guided.settings, max_guidance_scale=1.0))


def watched(backbone: SVD) -> tuple[SVD, list[tuple[Level, Tensor]]]:
    """The same networks, and a list of the latents that they are shown."""
    other, seen = backbone.with_settings(backbone.settings), list[tuple[Level, Tensor]]()

    def denoise(x: Tensor, level: Level, condition: SVDCondition) -> Tensor:
        seen.append((level, x.clone()))
        return backbone.denoise(x, level, condition)

    vars(other).update(denoise=denoise)
    return other, seen


def prepared(backbone: SVD, scene: Scene = SCENE, num_steps: int = STEPS) -> Setup:
    grid = backbone.grid(WIDTH, HEIGHT, FRAMES)
    return setup_of(backbone, tracks_of(scene, grid), grid, num_steps=num_steps, seed=5)


def run(
    backbone: SVD, controller: Controller, scene: Scene = SCENE, num_steps: int = STEPS
) -> tuple[Tensor, list[tuple[Level, Tensor]], Tensor, Setup]:
    """Clean latents, what the model was shown at each step, the unit noise, and what the method was given."""
    other, seen = watched(backbone)
    setup = prepared(other, scene, num_steps)
    noise = backbone.noise(setup.grid, setup.generator)
    return sample(controller, setup, noise=noise), seen, noise, setup


def test_the_default_clocks_are_steps_16_and_21_of_50_on_svd_xt() -> None:
    controller, levels = TimeToMove(), svd_levels(50)
    schedule = controller.schedule(levels)
    assert schedule.first == 16
    # Set back after the steps 16 to 20, that is at the top of 17 to 21.
    assert schedule.overwrites == 22
    assert not any(schedule.iterations) and not any(schedule.acts) and not schedule.changes_noise
    assert TimeToMove(t_weak=34.0, t_strong=29.0, unit="step").schedule(levels) == schedule
    level = TimeToMove(t_weak=levels[16].noise_level, t_strong=levels[21].noise_level, unit="noise-level")
    assert level.schedule(levels) == schedule
    # Another number of steps keeps to the noise, not to the number.
    for count in (10, 25, 100):
        few = svd_levels(count)
        found = controller.schedule(few)
        assert few[found.first].sigma <= 75 < few[found.first - 1].sigma
        assert few[found.overwrites - 1].sigma >= 30 > few[found.overwrites].sigma
    assert TimeToMove(t_weak=0.8, t_strong=0.5, unit="noise-level").schedule(flow_levels(10)).first == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"t_weak": 0.0}, r"controller\.t_weak: must be a finite number > 0"),
        ({"t_strong": float("nan")}, r"controller\.t_strong: must be"),
        (
            {"t_weak": 10.0, "t_strong": 20.0},
            r"controller\.t_strong: 20 lies before .* controller\.t_weak, 10",
        ),
        ({"unit": "share"}, r"controller\.unit: share grows as noise falls"),
        ({"coverage": 0.0}, r"controller\.coverage"),
        ({"coverage": 0.25, "mask_rule": "published"}, r"controller\.coverage: the rule published looks at one pixel"),
    ],
)
def test_a_bad_field_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TimeToMove(**fields)


def test_clocks_that_meet_no_step_are_refused_before_anything_is_computed() -> None:
    levels = svd_levels(50)
    with pytest.raises(ValueError, match=r"controller\.t_weak: no step of 50 is as low as sigma 0.001"):
        TimeToMove(t_weak=0.001, t_strong=None).schedule(levels)
    with pytest.raises(ValueError, match=r"controller\.t_strong: no step of 50 falls between sigma 75 and"):
        TimeToMove(t_weak=75.5, t_strong=75.0).schedule(levels)
    with pytest.raises(ValueError, match=r"controller\.t_strong"):
        TimeToMove(t_weak=None, t_strong=900.0).schedule(levels)
    for free in (TimeToMove(t_strong=None), TimeToMove(t_weak=75.0, t_strong=75.0)):
        assert free.schedule(levels).overwrites <= free.schedule(levels).first == 16


def test_without_either_clock_it_is_no_control_bit_for_bit(backbone: SVD) -> None:
    off = TimeToMove(t_weak=None, t_strong=None)
    plainly = run(backbone, Controller(), num_steps=3)[0]
    assert torch.equal(run(backbone, off, num_steps=3)[0], plainly)
    # Either clock alone does something.
    for one in (TimeToMove(t_weak=20.0, t_strong=None), TimeToMove(t_weak=None, t_strong=10.0)):
        assert not torch.equal(run(backbone, one, num_steps=3)[0], plainly)


def test_a_whole_run_is_the_twins(guided: SVD, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four steps: sigma 700, 70.6, 2.27, 0.002."""
    settings = plain.Settings(width=WIDTH, height=HEIGHT, num_frames=FRAMES, num_steps=4, seed=5)
    models = plain.load_models(tiny_svd(FRAMES, light=True))
    tracks = tracks_of(SCENE, guided.grid(WIDTH, HEIGHT, FRAMES))
    clip = dragged_clip(tracks, FRAMES)
    shown: list[Tensor] = []

    def watched_step(models: Any, latents: Tensor, *rest: Any) -> Tensor:
        shown.append(latents[0].clone())
        return plain.denoising_step(models, latents, *rest)

    monkeypatch.setattr(twin, "denoising_step", watched_step)

    def theirs(strong: int) -> list[Tensor]:
        shown.clear()
        end = twin.run(models, tracks.image, clip.frames, clip.masks, settings, begin=1, strong=strong)[0]
        return [*shown, end]

    end, seen, *_ = run(guided, TimeToMove(t_weak=200.0, t_strong=2.0), num_steps=4)
    ours, same, other = [*(x for _, x in seen), end], theirs(2), theirs(3)
    off, off_by_one = (
        [float((a - b).abs().max() / b.abs().max()) for a, b in zip(ours, found, strict=True)]
        for found in (same, other)
    )
    # A network of random weights makes of a last bit a hundred last bits at every step.
    assert all(error < most for error, most in zip(off, (1e-6, 2e-5, 2e-3, 0.1), strict=True)), off
    # The comparison has teeth: a clock that is off by a step is seen where it is.
    assert off_by_one[:2] == off[:2] and off_by_one[2] > 0.03, off_by_one


def test_inside_the_mask_is_the_noised_clip_until_t_strong_and_outside_is_free(backbone: SVD) -> None:
    _, seen, noise, setup = run(backbone, TTM)
    clip, grid = dragged_clip(setup.tracks, FRAMES), setup.grid
    wanted = backbone.encode_frames(clip.frames, grid)
    held = torch.from_numpy(grid.coverage(clip.masks.numpy()) >= 0.5)[:, None].expand_as(wanted)
    assert held.any() and not held.all()
    assert [level.sigma for level, _ in seen] == pytest.approx([193.6, 40.0, 5.22, 0.29, 0.002], rel=0.02)
    for index, (level, x) in enumerate(seen):
        noised = wanted + level.sigma * noise
        assert torch.equal(x, noised) == (index == 0)
        assert torch.equal(x[held], noised[held]) == (level.sigma >= 30)
    # Outside the mask, and everywhere later, steering leaves the latents as they are.
    state = TTM.prepare(setup)
    TTM.start(noise, state)
    x = torch.randn_like(noise)
    step = Step(index=2, count=STEPS, level=seen[1][0], next_level=seen[2][0], reporter=Reporter())
    assert torch.equal(TTM.steer(x, step, state)[~held], x[~held])
    later = dataclasses.replace(step, index=3, level=seen[2][0], next_level=seen[3][0])
    assert TTM.steer(x, later, state) is x


def test_it_costs_what_plain_sampling_costs_less_the_steps_left_out(backbone: SVD) -> None:
    passes = [len(run(backbone, controller, num_steps=3)[1]) for controller in (Controller(), LATE)]
    assert passes == [3, 2]
    seen: list[Progress] = []
    generate(SCENE, backbone=backbone, controller=TTM, sampling=SMALL, progress=seen.append)
    fractions = [p.fraction for p in seen if p.phase == "sample"]
    assert fractions == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    assert [p.step for p in seen if p.phase == "sample"] == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("motions", [(), (dataclasses.replace(MOVES, path=()),)], ids=["nothing", "a pin"])
def test_a_scene_in_which_nothing_moves_is_held_to_its_image(backbone: SVD, motions: Sequence[Motion]) -> None:
    scene = dataclasses.replace(SCENE, motions=tuple(motions))
    _, seen, noise, setup = run(backbone, LATE, scene, num_steps=3)
    image = torch.from_numpy(np.asarray(setup.tracks.image, dtype=np.float32) / 255).permute(2, 0, 1)
    clip = dragged_clip(setup.tracks, FRAMES)
    assert torch.equal(clip.frames[0], image)
    assert float((clip.frames - image).abs().max()) < 1e-6
    state = LATE.prepare(setup)
    assert int(state.inside.sum()) == (FRAMES * 4 if motions else 0)
    assert torch.allclose(seen[0][1], state.latents + seen[0][0].sigma * noise)


def test_the_mask_is_symmetric_as_the_box_and_lies_inside_it(backbone: SVD) -> None:
    middle = Box.around(WIDTH / 2, HEIGHT / 2, 30)
    grows = (Key(time=0, x=0, y=0), Key(time=1, x=0, y=0, scale=1.4))
    for path in ((), grows):
        setup = prepared(backbone, Scene(image=picture(), motions=(Motion(box=middle, path=path),)))
        whole, inside, everything = (TimeToMove(coverage=share).prepare(setup).inside for share in (1.0, 0.5, 1e-6))
        assert torch.equal(inside, inside.flip(-1)) and torch.equal(inside, inside.flip(-2))
        assert (whole <= inside).all() and (inside <= everything).all()
        for j, (left, top, right, bottom) in enumerate(setup.tracks.tracks[0].boxes.tolist()):
            rows, columns = torch.nonzero(inside[j, 0], as_tuple=True)
            assert rows.min() * 8 >= top - 4.5 and (rows.max() + 1) * 8 <= bottom + 4.5
            assert columns.min() * 8 >= left - 4.5 and (columns.max() + 1) * 8 <= right + 4.5


@pytest.mark.parametrize(("stride", "frame_stride", "frames"), [(8, 1, 3), (8, 4, 9), (16, 4, 13), (32, 8, 17)])
def test_both_mask_rules_are_their_literal_twins(stride: int, frame_stride: int, frames: int) -> None:
    grid = Grid(width=96, height=64, num_frames=frames, stride=stride, frame_stride=frame_stride)
    masks = torch.rand(frames, 64, 96, generator=torch.Generator().manual_seed(frames)).numpy() ** 0.5
    # As published: every fourth frame after the first (its second on), then to the nearest pixel of the smaller size.
    kept = torch.from_numpy(np.concatenate([masks[:1], masks[1::frame_stride]]))[:, None]
    nearest = torch.nn.functional.interpolate(kept, size=(grid.rows, grid.columns), mode="nearest")
    assert np.array_equal(held_cells(masks, grid, "published"), (nearest[:, 0] > 0.5).numpy())
    for k in range(grid.latent_frames):
        group = [0] if k == 0 else range(frame_stride * (k - 1) + 1, frame_stride * k + 1)
        for row in range(grid.rows):
            for column in range(grid.columns):
                y, x = row * stride, column * stride
                mean = np.mean([masks[f, y : y + stride, x : x + stride].astype(np.float64) for f in group])
                if abs(mean - 0.6) > 1e-4:
                    assert held_cells(masks, grid, "coverage", 0.6)[k, row, column] == (mean >= 0.6)


def test_the_published_rule_holds_other_cells(backbone: SVD) -> None:
    """A box that reaches less than half into cells at its right and bottom has their corners nevertheless."""
    beside = dataclasses.replace(MOVES, box=Box(left=8, top=8, right=26, bottom=26))
    setup = prepared(backbone, dataclasses.replace(SCENE, motions=(beside,)))
    published = dataclasses.replace(TTM, mask_rule="published")
    masks = dragged_clip(setup.tracks, FRAMES).masks.numpy()
    inside = published.prepare(setup).inside[:, 0].numpy()
    assert np.array_equal(inside, held_cells(masks, setup.grid, "published"))
    assert not np.array_equal(inside, TTM.prepare(setup).inside[:, 0].numpy())


def test_a_scenes_own_clip_stands_instead_of_the_motions_and_travels_in_the_record(backbone: SVD) -> None:
    mask = PIL.Image.new("L", (WIDTH, HEIGHT))
    mask.paste(255, (32, 0, WIDTH, HEIGHT))
    clip = Reference(frames=tuple(picture(k) for k in range(FRAMES)), masks=(mask,))
    scene = dataclasses.replace(SCENE, reference=clip)
    _, seen, noise, setup = run(backbone, LATE, scene, num_steps=3)
    frames = torch.stack([torch.from_numpy(np.asarray(f, dtype=np.float32) / 255) for f in clip.frames])
    wanted = backbone.encode_frames(frames.permute(0, 3, 1, 2), setup.grid)
    assert torch.allclose(seen[0][1], wanted + seen[0][0].sigma * noise)
    inside = LATE.prepare(setup).inside
    assert inside[..., 4:].all() and not inside[..., :4].any()

    short = dataclasses.replace(SMALL, num_steps=3)
    video = generate(scene, backbone=backbone, controller=LATE, sampling=short)
    assert video.run is not None
    again = replay(Run.from_dict(video.run), backbone=backbone)
    assert torch.equal(again.frames, video.frames)
    other = generate(SCENE, backbone=backbone, controller=LATE, sampling=short)
    assert not torch.equal(other.frames, video.frames)


def test_its_record_gives_it_back() -> None:
    for controller in (
        TTM,
        TimeToMove(t_weak=None, t_strong=None, unit="step", coverage=0.25),
        TimeToMove(mask_rule="published"),
    ):
        assert controller_from_dict(controller_to_dict(controller)) == controller

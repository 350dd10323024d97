"""The built-in tracker: finds what moved, says what it lost, and ranks clips made without a model rightly."""

import math
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from sgi2v.evaluation.baselines import paste, still
from sgi2v.evaluation.matching import Pose, Score, best_scores, peaks
from sgi2v.evaluation.metrics import motion_error
from sgi2v.evaluation.tracker import TemplateTracker, _Clip
from sgi2v.world import Clip, World

TRACKER = TemplateTracker()


def square_clip(path: list[tuple[int, int]], size: int = 14, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A textured square at each (left, top) of the path over a smooth background, and its first box [1, 4]."""
    generator = torch.Generator().manual_seed(seed)
    content = torch.rand(3, size, size, generator=generator)
    ground = torch.rand(3, 3, 4, generator=generator)[None] * 0.5
    ground = torch.nn.functional.interpolate(ground, (64, 96), mode="bilinear")[0]
    frames = ground.repeat(len(path), 1, 1, 1)
    for frame, (left, top) in zip(frames, path, strict=True):
        frame[:, top : top + size, left : left + size] = content
    left, top = path[0]
    return frames, torch.tensor([[left, top, left + size, top + size]], dtype=torch.float32)


def clip_of(kind: str, number: int) -> Clip:
    """A clip of shapes and textures that training never sees."""
    world = World(kind="simple" if kind == "simple" else "rich", held_out=True, still=0.0)
    return world.render(1, 1_000_003 * 8 + number)[0]


def error_of(frames: Tensor, clip: Clip) -> float:
    result = TRACKER.track(frames, clip.boxes[:1, 0])
    height, width = frames.shape[-2:]
    return motion_error(clip.centers[:1], result, width=width, height=height).scene


@settings(max_examples=6, phases=[Phase.explicit, Phase.generate])
@given(st.lists(st.tuples(st.integers(22, 60), st.integers(8, 42)), min_size=3, max_size=3), st.integers(0, 99))
def test_finds_a_square_wherever_it_goes(corners: list[tuple[int, int]], seed: int) -> None:
    times = np.linspace(0, 2, 9)
    x, y = (np.interp(times, range(3), [corner[k] for corner in corners]).round().astype(int) for k in (0, 1))
    path = list(zip(x.tolist(), y.tolist(), strict=True))
    frames, box = square_clip(path, seed=seed)
    result = TRACKER.track(frames, box)
    wanted = torch.tensor(path, dtype=torch.float64)[None] + 7
    assert not result.lost.any()
    assert (result.centers - wanted).norm(dim=-1).max() < 1.5


def test_is_exact_on_frame_0_and_the_same_every_time() -> None:
    frames, box = square_clip([(10, 10), (13, 11), (16, 12)])
    first, second = TRACKER.track(frames, box), TRACKER.track(frames, box)
    assert torch.equal(first.centers[0, 0], torch.tensor([17.0, 17.0], dtype=torch.float64))
    assert torch.equal(first.centers, second.centers) and torch.equal(first.lost, second.lost)


def test_an_object_that_vanishes_is_lost_where_it_last_was_and_found_again() -> None:
    path = [(20 + 4 * j, 20) for j in range(8)]
    frames, box = square_clip(path)
    empty = square_clip(path)[0]
    for j in (3, 4):
        frames[j] = empty[0] * 0 + 0.3
    result = TRACKER.track(frames, box)
    assert result.lost[0].tolist() == [False] * 3 + [True] * 2 + [False] * 3
    held = result.centers[0, 2]
    assert torch.equal(result.centers[0, 3], held) and torch.equal(result.centers[0, 4], held)
    assert result.share_lost == pytest.approx(2 / 7)
    assert (result.centers[0, 7] - torch.tensor([55.0, 27.0])).norm() < 1.0


def test_what_the_first_frame_has_elsewhere_is_not_taken_for_an_object_that_vanishes() -> None:
    frames, box = square_clip([(20, 20)] * 8)
    cousin = frames[0, :, 20:34, 20:34].mean((1, 2), keepdim=True) + 0.6 * torch.rand(3, 14, 14) - 0.3
    cousin = 0.6 * frames[0, :, 20:34, 20:34] + 0.4 * cousin.clamp(0, 1)
    frames[:, :, 40:54, 60:74] = cousin
    there = TRACKER.track(frames, box)
    assert not there.lost.any() and (there.centers - 27).norm(dim=-1).max() < 0.5
    frames[3:, :, 20:34, 20:34] = frames[3:, :, 10:11, 10:11]
    gone = TRACKER.track(frames, box)
    assert not gone.lost[0, :3].any() and gone.lost[0, 3:].all()


def test_a_flat_box_on_a_still_picture_stays_and_is_not_lost() -> None:
    frames = torch.full((4, 3, 48, 64), 0.5)
    frames[:, :, 30:] = 0.2
    result = TRACKER.track(frames, torch.tensor([[8.0, 6.0, 20.0, 18.0]]))
    assert not result.lost.any()
    assert (result.centers - result.centers[:, :1]).norm(dim=-1).max() < 1.0


def test_large_frames_and_several_boxes_in_their_own_pixels() -> None:
    frames, box = square_clip([(20 + 3 * j, 20 + j) for j in range(5)])
    large = torch.nn.functional.interpolate(frames, scale_factor=4, mode="bilinear").clamp(0, 1)
    fixed = torch.tensor([[4.0, 40.0, 16.0, 60.0]])
    result = TRACKER.track(large, torch.cat([box, fixed]) * 4)
    assert (result.centers[0, -1] - 4 * torch.tensor([39.0, 31.0])).norm() < 3.0
    assert (result.centers[1] - result.centers[1, :1]).norm(dim=-1).max() < 4.0


def test_no_box_is_no_track() -> None:
    result = TRACKER.track(torch.zeros(3, 3, 32, 32), torch.zeros(0, 4))
    assert result.centers.shape == (0, 3, 2) and result.share_lost == 0


@pytest.mark.parametrize("box", [[4.0, 4.0, 4.0, 9.0], [-9.0, 0.0, -1.0, 5.0], [math.nan, 0.0, 5.0, 5.0]])
def test_a_box_without_area_in_the_frame_is_refused(box: list[float]) -> None:
    with pytest.raises(ValueError, match=r"boxes\[0\]"):
        TRACKER.track(torch.zeros(2, 3, 32, 32), torch.tensor([box]))


def test_the_same_motion_costs_the_same_in_half_as_many_frames() -> None:
    path = [(10 + 4 * j, 12 + 2 * j) for j in range(9)]
    for clip in (path, path[::2]):
        frames, _ = square_clip(clip)
        seen = _Clip.of(frames, 256)
        places = np.array(clip, dtype=np.float64)
        steps = [TRACKER._price(seen, before[None], before[None], after[None]) for before, after in pairwise(places)]
        length = np.hypot(4, 2) * 8
        share = length / (TRACKER.speed * np.hypot(96, 64))
        assert np.concatenate(steps) == pytest.approx(TRACKER.jump_price * share**2)


@pytest.mark.parametrize("field", [{"threshold": 0.0}, {"speed": 0.0}, {"num_candidates": 0}])
def test_settings_out_of_range_are_refused(field: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(field))):
        TemplateTracker(**field)  # type: ignore[arg-type]


@pytest.mark.long
@pytest.mark.parametrize(("kind", "floor"), [("simple", 0.5), ("rich", 2.5)])
def test_ranks_clips_made_without_a_model(kind: str, floor: float) -> None:
    errors = []
    for number in range(3):
        clip = clip_of(kind, number)
        pasted = paste(clip.frames[0], clip.boxes[:1], clip.masks[:1, 0])
        fixed = still(clip.frames[0], len(clip.frames))
        errors.append([error_of(frames, clip) for frames in (clip.frames, pasted, fixed)])
    true, pasted_error, still_error = np.mean(errors, axis=0)
    assert true < floor
    assert pasted_error < floor
    assert still_error > 4 * max(true, pasted_error)


def test_survives_the_blur_and_colour_drift_of_a_rough_model() -> None:
    clip = clip_of("simple", 1)
    frames = clip.frames.clone()
    small = torch.nn.functional.interpolate(frames, scale_factor=0.4, mode="bilinear", antialias=True)
    rough = torch.nn.functional.interpolate(small, frames.shape[-2:], mode="bilinear")
    rough = (rough * torch.tensor([0.85, 0.95, 1.0]).view(3, 1, 1) + 0.05).clamp(0, 1)
    frames[1:] = rough[1:]
    assert error_of(frames, clip) < 1.5


def literal_match(frame: np.ndarray, score: Score, x: int, y: int) -> float:
    """The match at one pixel, by sums over the crop's pixels."""
    best = -math.inf
    height, width, _ = frame.shape
    for one in score.templates:
        rows, columns, _ = one.kernel.shape
        weights = np.outer(one.column, one.row) if one.window is None else one.window
        weights = weights.astype(np.float64)
        patch = np.zeros((rows, columns, 3))
        for i in range(rows):
            for j in range(columns):
                row = min(max(y + i - rows // 2, 0), height - 1)
                column = min(max(x + j - columns // 2, 0), width - 1)
                patch[i, j] = frame[row, column]
        mean = (weights[..., None] * patch).sum((0, 1))
        variance = (weights[..., None] * (patch - mean) ** 2).sum()
        shared = (one.kernel.astype(np.float64) * patch).sum()
        noise = 3 * 0.02**2
        structure = (2 * shared + noise) / (variance + one.variance + noise)
        if one.figure is not None:
            stands = sum(
                one.figure.weights[i, j] * likeness(patch[i, j], one.mean) for i in range(rows) for j in range(columns)
            )
            structure += one.figure.share * (min(1.0, stands / one.figure.at_home) - structure)
        best = max(best, structure * likeness(mean, one.mean) - one.price)
    return best


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    return math.exp(-float(((one - other) ** 2).mean()) / (2 * 0.2**2))


def test_match_equals_its_literal_twin_and_is_one_at_home() -> None:
    frame = torch.rand(24, 30, 3).numpy()
    poses = (Pose(), Pose(scale=1.25), Pose(turn=0.5))
    score = Score.of(frame, np.array([12.5, 10.5]), np.array([9.0, 7.0]), poses)
    match = best_scores(score, frame)
    for x, y in ((12, 10), (0, 0), (29, 23), (5, 17), (20, 3)):
        assert match[y, x] == pytest.approx(literal_match(frame, score, x, y), abs=1e-4)
    assert match[10, 12] == pytest.approx(1.0, abs=1e-4)
    places, scores = peaks(match, 3, radius=2)
    assert np.abs(places[0] - (12.5, 10.5)).max() < 0.5 and scores[0] == match.max()


def test_a_masked_match_equals_its_literal_twin_and_is_one_at_home() -> None:
    frame = torch.rand(24, 30, 3).numpy()
    mask = np.zeros((24, 30), dtype=np.float32)
    mask[7:14, 8:17] = 1
    mask[7:10, 8:11] = 0
    frame[mask > 0] = 0.3 * frame[mask > 0] + [0.7, 0.0, 0.1]  # of a colour of its own
    poses = (Pose(), Pose(scale=1.25), Pose(turn=0.5))
    score = Score.of(frame, np.array([12.5, 10.5]), np.array([9.0, 7.0]), poses, mask)
    match = best_scores(score, frame)
    for x, y in ((12, 10), (0, 0), (29, 23), (5, 17), (20, 3)):
        assert match[y, x] == pytest.approx(literal_match(frame, score, x, y), abs=1e-4)
    assert match[10, 12] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("plain", [True, False])
def test_how_an_object_stands_out_equals_its_literal_twin(plain: bool) -> None:
    """By sums over the pixels of the unchanged pose: of the mask, and of all within a fifth of its side outside."""
    frame = torch.rand(40, 40, 3).double().numpy() * 0.3
    y, x = np.mgrid[:40, :40] + 0.5
    mask = ((x - 20.5) ** 2 + (y - 20.5) ** 2 < 10**2).astype(np.float32)
    frame[mask > 0] = [0.7, 0.4, 0.5] if plain else frame[mask > 0] + [0.4, 0.1, 0.2]
    frame = frame.astype(np.float32)
    (one,) = Score.of(frame, np.array([20.5, 20.5]), np.array([20.0, 20.0]), (Pose(),), mask).templates
    assert one.figure is not None
    soft = cv2.GaussianBlur(mask, (0, 0), 1.0).astype(np.float64)
    around = np.zeros_like(soft)
    for row in range(4, 36):
        for column in range(4, 36):
            near = [soft[row + i, column + j] for i in range(-4, 5) for j in range(-4, 5) if i * i + j * j <= 16]
            around[row, column] = max(near) * (1 - soft[row, column])
    inside, around = soft / soft.sum(), around / around.sum()
    mean = (inside[..., None] * frame).sum((0, 1))
    alike = np.exp(-((frame - mean) ** 2).mean(-1) / (2 * 0.2**2))
    at_home = ((inside - around) * alike).sum()
    variance = (inside[..., None] * (frame - mean) ** 2).sum()
    between = at_home * ((mean - (around[..., None] * frame).sum((0, 1))) ** 2).sum() / 4
    assert one.figure.at_home == pytest.approx(at_home, rel=5e-3)
    assert one.figure.share == pytest.approx(between / (between + variance / 2 + 0.0012), rel=5e-3)
    assert (one.figure.share > 0.6) == plain


def ring_clip(path: list[tuple[int, int]]) -> tuple[Tensor, Tensor, Tensor]:
    """A textured ring moving over a textured wall: frames, first box [1, 4] and first mask."""
    generator = torch.Generator().manual_seed(5)
    coarse = torch.rand(2, 3, 22, 32, generator=generator)
    wall, content = torch.nn.functional.interpolate(coarse, (64, 96), mode="bilinear")
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(96.0), indexing="ij")
    frames, masks = [], []
    for left, top in path:
        away = torch.hypot(x - left - 11.5, y - top - 11.5)
        masks.append(((away < 12) & (away > 6)).float())
        moved = content.roll((top - path[0][1], left - path[0][0]), dims=(1, 2))
        frames.append(torch.where(masks[-1] > 0, moved, wall))
    left, top = path[0]
    return torch.stack(frames), torch.tensor([[left, top, left + 24.0, top + 24.0]]), masks[0]


def test_a_mask_keeps_the_background_in_a_box_from_being_followed() -> None:
    path = [(10 + 8 * j, 12 + 4 * j) for j in range(8)]
    frames, box, mask = ring_clip(path)
    wanted = torch.tensor(path, dtype=torch.float64)[None] + 12
    # Most of the box is the wall seen through the ring, which does not move: that is what the box alone finds.
    alone = TRACKER.track(frames, box)
    assert (alone.centers - wanted).norm(dim=-1)[0, -1] > 20
    inside = TRACKER.track(frames, box, [mask])
    assert not inside.lost.any() and (inside.centers - wanted).norm(dim=-1).max() < 1.0
    assert torch.equal(TRACKER.track(frames, box, [None]).centers, alone.centers)


def test_a_mask_of_another_place_or_number_is_refused() -> None:
    frames, box, mask = ring_clip([(10, 10), (12, 10)])
    with pytest.raises(ValueError, match=r"masks\[0\]"):
        TRACKER.track(frames, box, [mask.roll(50, dims=1)])
    with pytest.raises(ValueError, match="masks: 2 for 1 boxes"):
        TRACKER.track(frames, box, [mask, mask])


def test_the_match_says_how_much_of_the_thing_is_still_there() -> None:
    """A thing of which half is gone is still followed, and matches worse; one that is lost does not match at all."""
    path = [(20 + 4 * k, 20) for k in range(6)]
    frames, box = square_clip(path)
    whole = TRACKER.track(frames, box)
    assert whole.match is not None and whole.match.shape == whole.lost.shape
    assert whole.match.min() > 0.7, "the ground in the box is another in every frame"
    ground = square_clip([(0, 0)] * 6, seed=0)[0][:, :, 62:, 94:].mean((2, 3))[..., None, None]
    broken = frames.clone()
    for index, (left, top) in enumerate(path[1:], start=1):
        broken[index, :, top : top + 14, left : left + 5] = ground[index]
    half = TRACKER.track(broken, box)
    assert half.match is not None and not half.lost[0, :3].any()
    assert half.match[:, 1:].mean() < 0.85 * whole.match[:, 1:].mean()
    gone = frames.clone()
    gone[3:] = ground[3:]
    lost = TRACKER.track(gone, box)
    assert lost.match is not None and lost.lost[0, 3:].all() and not lost.match[0, 3:].any()
    error = motion_error(torch.tensor(path, dtype=torch.float64)[None] + 7, half, width=96, height=64)
    assert error.match is not None and torch.allclose(error.match, half.match[:, 1:].mean(1))

"""The metrics against their literal twins, and what must hold for any tracks and frames."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from sgi2v.evaluation.baselines import paste, still
from sgi2v.evaluation.flow import sampled
from sgi2v.evaluation.metrics import (
    background_change,
    background_motion,
    bootstrap_mean,
    bootstrap_ratio,
    box_iou,
    iou_over_time,
    motion_error,
    outside,
    psnr,
    ssim,
    temporal_consistency,
)
from sgi2v.evaluation.tracker import TrackResult
from sgi2v.world import World

seeds = st.integers(0, 2**31)


def random_tracks(seed: int) -> tuple[Tensor, TrackResult]:
    generator = torch.Generator().manual_seed(seed)
    num, frames = (int(torch.randint(low, 6, (), generator=generator)) for low in (1, 2))
    wanted = torch.randn(num, frames, 2, generator=generator) * 30
    tracked = torch.randn(num, frames, 2, generator=generator, dtype=torch.float64) * 30
    lost = torch.rand(num, frames, generator=generator) < 0.3
    return wanted, TrackResult(centers=tracked, lost=lost)


@given(seeds)
def test_motion_error_equals_its_literal_twin(seed: int) -> None:
    wanted, result = random_tracks(seed)
    error = motion_error(wanted, result, width=30, height=40)
    num, frames = wanted.shape[:2]
    scene = 0.0
    for n in range(num):
        ways = [math.dist(wanted[n, j].tolist(), result.centers[n, j].tolist()) for j in range(frames)]  # lost or not
        assert float(error.objmc[n]) == pytest.approx(sum(ways[1:]) / (frames - 1), rel=1e-12)
        assert float(error.objmc_with_first[n]) == pytest.approx(sum(ways) / frames, rel=1e-12)
        assert float(error.path_end[n]) == pytest.approx(ways[-1], rel=1e-12)
        gone = sum(bool(result.lost[n, j]) for j in range(1, frames))
        assert float(error.lost[n]) == pytest.approx(gone / (frames - 1))
        scene += sum(ways[1:]) / (frames - 1) / num
    assert error.scene == pytest.approx(scene, rel=1e-12)
    assert error.scene_of_diagonal == pytest.approx(scene / 50, rel=1e-12)


@given(seeds, st.floats(-50, 50), st.floats(-50, 50), st.floats(0.1, 10))
def test_objmc_is_a_distance(seed: int, dx: float, dy: float, factor: float) -> None:
    wanted, result = random_tracks(seed)
    error = motion_error(wanted, result, width=9, height=9).scene
    shift = torch.tensor([dx, dy], dtype=torch.float64)
    moved = TrackResult(centers=(result.centers + shift) * factor, lost=result.lost)
    there = motion_error((wanted.double() + shift) * factor, moved, width=9, height=9).scene
    assert there == pytest.approx(error * factor, rel=1e-9)
    perfect = TrackResult(centers=wanted.double(), lost=result.lost)
    assert motion_error(wanted, perfect, width=9, height=9).scene == 0


def test_motion_error_refuses_what_has_no_motion() -> None:
    one = TrackResult(centers=torch.zeros(1, 1, 2, dtype=torch.float64), lost=torch.zeros(1, 1, dtype=torch.bool))
    with pytest.raises(ValueError, match="at least 2 frames"):
        motion_error(torch.zeros(1, 1, 2), one, width=8, height=8)
    with pytest.raises(ValueError, match="does not match"):
        motion_error(torch.zeros(1, 3, 2), one, width=8, height=8)


@given(st.lists(st.tuples(*[st.integers(0, 12)] * 4), min_size=2, max_size=2))
def test_box_iou_counts_cells(corners: list[tuple[int, int, int, int]]) -> None:
    boxes = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in corners]
    cells = [{(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])} for box in boxes]
    union = len(cells[0] | cells[1])
    expected = len(cells[0] & cells[1]) / union if union else 0.0
    first, second = (torch.tensor([box], dtype=torch.float32) for box in boxes)
    assert float(box_iou(first, second)) == pytest.approx(expected, abs=1e-12)
    assert torch.equal(box_iou(first, second), box_iou(second, first))


def test_iou_over_time_judges_the_place() -> None:
    wanted = torch.tensor([[[0.0, 0.0, 4.0, 4.0], [2.0, 0.0, 6.0, 4.0], [4.0, 0.0, 12.0, 8.0]]])
    centers = torch.tensor([[[2.0, 2.0], [2.0, 2.0], [8.0, 4.0]]], dtype=torch.float64)
    result = TrackResult(centers=centers, lost=torch.zeros(1, 3, dtype=torch.bool))
    assert iou_over_time(wanted, result)[0].tolist() == pytest.approx([1.0, 8 / 24, 1.0])


@given(seeds)
def test_outside_equals_its_literal_twin(seed: int) -> None:
    boxes = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(seed)) * 8
    boxes[..., 2:] += boxes[..., :2]
    stays = outside(boxes, width=9, height=7)
    for j in range(3):
        for y in range(7):
            for x in range(9):
                inside = any(
                    boxes[n, k, 0] <= x + 0.5 < boxes[n, k, 2] and boxes[n, k, 1] <= y + 0.5 < boxes[n, k, 3]
                    for n in range(2)
                    for k in (0, j)
                )
                assert bool(stays[j, y, x]) is not inside


def ground(height: int = 64, width: int = 96) -> Tensor:
    coarse = torch.rand(1, 3, height // 6, width // 6)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0].clamp(0, 1)


def test_background_is_still_in_a_still_and_a_pasted_clip_and_moves_with_the_camera() -> None:
    image = ground()
    boxes = torch.tensor([[[10.0 + 6 * j, 20.0, 30.0 + 6 * j, 40.0] for j in range(5)]])
    nothing = still(image, 5)
    assert background_motion(nothing, boxes) < 0.05 and background_change(nothing, boxes) == 0
    pasted = paste(image, boxes)
    assert background_motion(pasted, boxes) < 0.5 and background_change(pasted, boxes) < 0.01
    panned = torch.stack([image.roll(3 * j, dims=-1) for j in range(5)])
    assert background_motion(panned, boxes) > 3 and background_change(panned, boxes) > 0.05
    everything = torch.tensor([[[0.0, 0.0, 96.0, 64.0]] * 5])
    assert background_motion(panned, everything) == 0 and background_change(panned, everything) == 0


def test_paste_drags_the_content_and_fills_the_hole() -> None:
    image = torch.full((3, 32, 48), 0.25)
    image[:, 10:18, 8:16] = torch.rand(3, 8, 8)
    boxes = torch.tensor([[[8.0, 10.0, 16.0, 18.0], [20.0, 6.0, 28.0, 14.0]]])
    frames = paste(image, boxes)
    assert torch.equal(frames[0], image)
    assert torch.allclose(frames[1, :, 6:14, 20:28], image[:, 10:18, 8:16], atol=1e-3)
    assert (frames[1, :, 10:18, 8:16] - 0.25).abs().max() < 0.01
    assert torch.equal(frames[1, :, 20:], image[:, 20:])


@given(seeds, st.floats(1e-3, 0.5))
def test_psnr_of_a_known_error(seed: int, error: float) -> None:
    a = torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert psnr(a, a + error) == pytest.approx(-20 * math.log10(error), rel=1e-6)
    assert psnr(a, a) == math.inf


def literal_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """SSIM of two grey pictures by sums over each window."""
    bell = np.exp(-0.5 * ((np.arange(11) - 5) / 1.5) ** 2)
    weights = np.outer(bell, bell) / bell.sum() ** 2
    found = []
    for top in range(a.shape[0] - 10):
        for left in range(a.shape[1] - 10):
            x, y = (picture[top : top + 11, left : left + 11] for picture in (a, b))
            mean_x, mean_y = (weights * x).sum(), (weights * y).sum()
            spread = (weights * (x - mean_x) ** 2).sum() + (weights * (y - mean_y) ** 2).sum()
            shared = (weights * (x - mean_x) * (y - mean_y)).sum()
            light = (2 * mean_x * mean_y + 1e-4) / (mean_x**2 + mean_y**2 + 1e-4)
            found.append(light * (2 * shared + 9e-4) / (spread + 9e-4))
    return float(np.mean(found))


def test_ssim_equals_its_literal_twin_and_two_libraries() -> None:
    generator = torch.Generator().manual_seed(4)
    a = torch.nn.functional.interpolate(torch.rand(2, 3, 6, 8, generator=generator), (24, 33), mode="bicubic")
    a = a.clamp(0, 1).double()
    b = (a + 0.1 * torch.randn(a.shape, generator=generator)).clamp(0, 1)
    found = ssim(a, b)
    pairs = [(a[j, c].numpy(), b[j, c].numpy()) for j in range(2) for c in range(3)]
    assert found == pytest.approx(np.mean([literal_ssim(x, y) for x, y in pairs]), abs=1e-9)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    scikit = [structural_similarity(x, y, **options) for x, y in pairs]  # type: ignore[no-untyped-call]
    assert found == pytest.approx(np.mean(scikit), abs=1e-3)
    # Their mean counts windows that reach over the edge; their map has all others too.
    _, theirs = structural_similarity_index_measure(a, b, data_range=1.0, return_full_image=True)
    assert isinstance(theirs, Tensor)
    assert found == pytest.approx(float(theirs[..., 5:-5, 5:-5].mean()), abs=1e-3)
    assert ssim(a, a) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="at least 11"):
        ssim(a[..., :10], b[..., :10])


def test_consistency_ranks_still_true_and_spoilt_clips() -> None:
    generator = torch.Generator().manual_seed(0)
    for kind in ("simple", "rich"):
        clips = World(num_frames=8, kind=kind).render(3, 5)
        figures = []
        for number in range(3):
            true = clips[number].frames
            flicker = true * (1 + 0.15 * torch.randn(8, 1, 1, 1, generator=generator))
            noise = true + 0.1 * torch.randn(true.shape, generator=generator)
            shuffled = true[[0, 5, 2, 7, 1, 6, 3, 4]]
            gone = true.clone()
            gone[4] = gone[4].mean((1, 2), keepdim=True)
            spoilt = [flicker.clamp(0, 1), noise.clamp(0, 1), shuffled, gone]
            figures.append([temporal_consistency(frames) for frames in (still(true[0], 8), true, *spoilt)])
        stays, real, *rest = np.mean(figures, axis=0)
        assert stays == 1.0 and stays > real > 0.97, (kind, figures)
        assert all(real > figure + 0.002 for figure in rest), (kind, figures)


@given(seeds)
def test_values_between_pixels_equal_their_literal_twin(seed: int) -> None:
    generator = np.random.default_rng(seed)
    values, places = generator.random((4, 5, 2)), generator.random((6, 2)) * 9 - 2
    for (x, y), read in zip(places.tolist(), sampled(values, places), strict=True):
        x, y = min(max(x, 0), 4), min(max(y, 0), 3)
        expected = sum(
            max(0, 1 - abs(x - column)) * max(0, 1 - abs(y - row)) * values[row, column]
            for row in range(4)
            for column in range(5)
        )
        assert read == pytest.approx(expected)


def test_consistency_undoes_motion_and_counts_what_vanishes() -> None:
    image = ground(64, 96)
    panned = torch.stack([image.roll(2 * j, dims=-1) for j in range(4)])
    plain = float((panned[1:] - panned[:-1]).abs().mean())
    assert 1 - temporal_consistency(panned) < 0.25 * plain
    assert temporal_consistency(image[None]) == 1.0
    tiny = torch.rand(2, 3, 8, 8)
    assert 1 - temporal_consistency(tiny) == pytest.approx(float((tiny[1] - tiny[0]).abs().mean()), abs=1e-6)
    vanished = torch.stack([image, image])
    vanished[1, :, 20:40, 30:60] = 1 - vanished[1, :, 20:40, 30:60]
    assert 1 - temporal_consistency(vanished) > 0.5 * float((vanished[1] - vanished[0]).abs().mean())


@settings(max_examples=15)
@given(seeds, st.floats(0.1, 5))
def test_bootstrap_ratio_of_pairs(seed: int, factor: float) -> None:
    below = torch.rand(12, generator=torch.Generator().manual_seed(seed)) + 0.1
    exact = bootstrap_ratio(below.double() * factor, below, num_resamples=500)
    # Scenes are drawn in pairs, so a constant ratio has no spread, however much the scenes differ.
    assert [exact.value, exact.low, exact.high] == pytest.approx([factor] * 3, rel=1e-9)
    noisy = bootstrap_ratio(below.flip(0), below, num_resamples=500)
    assert noisy.low <= noisy.value * (1 + 1e-9) and noisy.value <= noisy.high * (1 + 1e-9)
    assert noisy == bootstrap_ratio(below.flip(0), below, num_resamples=500)


def test_bootstrap_mean_equals_its_literal_twin_and_covers() -> None:
    values = torch.randn(9, dtype=torch.float64)
    generator = torch.Generator().manual_seed(3)
    draw = torch.randint(9, (200, 9), generator=generator).tolist()
    means = sorted(sum(float(values[k]) for k in row) / 9 for row in draw)
    found = bootstrap_mean(values, num_resamples=200, seed=3)
    assert found.value == pytest.approx(float(values.mean()))
    assert found.low == pytest.approx(float(np.quantile(means, 0.025)))
    assert found.high == pytest.approx(float(np.quantile(means, 0.975)))
    hits = sum(
        interval.low <= 0 <= interval.high
        for interval in (bootstrap_mean(torch.randn(40), num_resamples=300) for _ in range(100))
    )
    assert 85 <= hits <= 100


def test_bootstrap_refuses_what_it_cannot_resample() -> None:
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_mean(torch.zeros(0))
    with pytest.raises(ValueError, match="same scenes"):
        bootstrap_ratio(torch.ones(3), torch.ones(2))
    with pytest.raises(ValueError, match="mean is 0"):
        bootstrap_ratio(torch.ones(3), torch.zeros(3))

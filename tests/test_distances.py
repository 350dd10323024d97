"""The distances of feature sets against SciPy, torchmetrics and literal twins; their intervals; bad input."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from sgi2v.evaluation.distances import (
    feature_distance,
    frechet_distance,
    frechet_interval,
    is_singular,
    kernel_distance,
    kernel_interval,
)

seeds = st.integers(0, 2**31)


def features(num: int, dimensions: int, seed: int, *, offset: float = 0.0) -> Tensor:
    """Correlated features, away from 0, of unequal spread."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(dimensions, dimensions, generator=generator, dtype=torch.float64)
    spread = torch.logspace(-2, 0.3, dimensions, dtype=torch.float64)
    rows = torch.randn(num, dimensions, generator=generator, dtype=torch.float64)
    return rows @ mix * spread + offset + 1


class Itself(nn.Module):
    """Features that are their own features."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, rows: Tensor) -> Tensor:
        """The rows as they are."""
        return rows


def scipy_frechet(a: np.ndarray, b: np.ndarray) -> float:
    """The formula as it stands in the paper."""
    spread_a, spread_b = (np.cov(rows, rowvar=False) for rows in (a, b))
    root = scipy.linalg.sqrtm(spread_a @ spread_b).real
    offset = a.mean(0) - b.mean(0)
    return float(offset @ offset + np.trace(spread_a + spread_b - 2 * root))


@settings(max_examples=15)
@given(seeds, st.integers(2, 24))
def test_frechet_distance_equals_scipy(seed: int, dimensions: int) -> None:
    a, b = features(60, dimensions, seed), features(45, dimensions, seed + 1, offset=0.3)
    assert frechet_distance(a, b) == pytest.approx(scipy_frechet(a.numpy(), b.numpy()), rel=1e-6)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_equals_torchmetrics() -> None:
    a, b = features(80, 16, 3), features(70, 16, 4, offset=0.5)
    theirs = FrechetInceptionDistance(feature=Itself(16)).set_dtype(torch.float64)
    theirs.update(a, real=True)
    theirs.update(b, real=False)
    assert frechet_distance(a, b) == pytest.approx(float(theirs.compute()), rel=1e-3)


def test_frechet_distance_of_known_normals() -> None:
    # Exactly mean 0 and spread 1, times factors, moved: |offset|² + Σ(s_a - s_b)².
    plain = features(50, 3, 0) - 1
    plain = plain - plain.mean(0)
    white = plain @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(plain.T)).T)
    factors, offset = torch.tensor([0.5, 2.0, 3.0]), torch.tensor([1.0, 0.0, -2.0])
    expected = 5 + 0.25 + 1 + 4
    assert frechet_distance(white, white * factors + offset) == pytest.approx(expected, rel=1e-9)


def test_too_few_rows_are_flagged_and_still_measured() -> None:
    a, b = features(6, 12, 1), features(30, 12, 2)
    assert is_singular(a, b) and is_singular(b, b[:12]) and not is_singular(b, b[:13])
    covariances = [np.cov(rows.numpy(), rowvar=False) for rows in (a, b)]
    # sqrt(B) A sqrt(B) has the eigenvalues of A B and is symmetric, so that its root needs no care.
    half = scipy.linalg.sqrtm(covariances[1])
    values = np.linalg.eigvalsh(half @ covariances[0] @ half).clip(0)
    offset = (a.mean(0) - b.mean(0)).square().sum()
    expected = float(offset) + np.trace(covariances[0] + covariances[1]) - 2 * np.sqrt(values).sum()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-5)


def literal_kernel(a: Tensor, b: Tensor) -> float:
    """The sums of the paper's Eq. 4."""

    def kernel(x: list[float], y: list[float]) -> float:
        return (sum(p * q for p, q in zip(x, y, strict=True)) / len(x) + 1) ** 3

    rows, others = a.tolist(), b.tolist()
    within = []
    for group in (rows, others):
        pairs = [kernel(x, y) for i, x in enumerate(group) for j, y in enumerate(group) if i != j]
        within.append(sum(pairs) / len(pairs))
    return sum(within) - 2 * sum(kernel(x, y) for x in rows for y in others) / (len(rows) * len(others))


@settings(max_examples=15)
@given(seeds, st.integers(2, 9), st.integers(2, 9))
def test_kernel_distance_equals_its_literal_twin(seed: int, num_a: int, num_b: int) -> None:
    a, b = features(num_a, 4, seed), features(num_b, 4, seed + 1)
    expected = literal_kernel(a, b)
    assert kernel_distance(a, b) == pytest.approx(expected, rel=1e-9, abs=1e-9 * float(a.abs().max()) ** 6)


def test_kernel_distance_equals_torchmetrics() -> None:
    a, b = features(40, 8, 5), features(40, 8, 6, offset=0.2)
    theirs = KernelInceptionDistance(feature=Itself(8), subsets=1, subset_size=40).set_dtype(torch.float64)
    theirs.update(a, real=True)
    theirs.update(b, real=False)
    assert kernel_distance(a, b) == pytest.approx(float(theirs.compute()[0]), rel=1e-3)


def test_kernel_distance_is_unbiased_where_the_frechet_distance_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = [tuple(torch.randn(2, 12, 6, generator=generator).unbind(0)) for _ in range(300)]
    kernels = torch.tensor([kernel_distance(a, b) for a, b in draws])
    frechets = torch.tensor([frechet_distance(a, b) for a, b in draws])
    error = float(kernels.std()) / math.sqrt(len(kernels))
    assert abs(float(kernels.mean())) < 4 * error
    assert float(frechets.mean()) > 1.0


def test_intervals_hold_their_figure_are_repeatable_and_cover() -> None:
    a, b = features(40, 4, 1), features(40, 4, 1, offset=0.4).flip(0)
    for interval, figure in ((frechet_interval, frechet_distance), (kernel_interval, kernel_distance)):
        found = interval(a, b, num_resamples=200)
        assert found == interval(a, b, num_resamples=200)
        assert found.value == pytest.approx(figure(a, b), rel=1e-9)
        assert found.low <= found.value <= found.high
    generator = torch.Generator().manual_seed(0)
    # What the interval must hold is taken from a large sample.
    one, two = torch.randn(2, 4000, 3, generator=generator, dtype=torch.float64).unbind(0)
    expected = kernel_distance(one, two + 0.5)
    hits = 0
    for _ in range(60):
        one, two = torch.randn(2, 60, 3, generator=generator, dtype=torch.float64).unbind(0)
        found = kernel_interval(one, two + 0.5, num_resamples=200)
        hits += found.low <= expected <= found.high
    assert hits >= 48


def test_clips_are_drawn_whole() -> None:
    # Five clips of six equal frames: drawn by frames, the spread would be that of thirty independent rows.
    a, b = (features(5, 3, seed).repeat_interleave(6, 0) for seed in (1, 2))
    whole, torn = (frechet_interval(a, b, rows_per_clip=rows, num_resamples=300) for rows in (6, 1))
    assert whole.value == torn.value
    assert whole.high - whole.low > 1.5 * (torn.high - torn.low)
    whole, torn = (kernel_interval(a, b, rows_per_clip=rows, num_resamples=300) for rows in (6, 1))
    assert whole.value == pytest.approx(torn.value, rel=1e-9)
    assert whole.high - whole.low > 1.5 * (torn.high - torn.low)


def test_feature_distance_says_what_it_was_made_of() -> None:
    a, b = features(12, 8, 1), features(20, 8, 2)
    found = feature_distance(a, b, rows_per_clip=4, num_resamples=20)
    assert found.num_clips == (3, 5) and found.num_rows == (12, 20) and found.num_dimensions == 8
    assert not found.singular and feature_distance(a[:8], b, rows_per_clip=4, num_resamples=5).singular
    assert found.kernel.value == pytest.approx(kernel_distance(a, b), rel=1e-9)


def test_what_cannot_be_compared_is_refused() -> None:
    rows = features(6, 3, 0)
    with pytest.raises(ValueError, match="b: 1 rows"):
        frechet_distance(rows, rows[:1])
    with pytest.raises(ValueError, match="not finite"):
        kernel_distance(rows * math.nan, rows)
    with pytest.raises(ValueError, match="rows_per_clip: 6 rows"):
        kernel_interval(rows, rows, rows_per_clip=4)
    with pytest.raises(ValueError, match="rows_per_clip: 6 rows"):
        frechet_interval(rows, rows, rows_per_clip=4)

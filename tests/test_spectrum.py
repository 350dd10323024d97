"""The Butterworth filter against its formula, and the frequency merge against a literal one."""

import cmath
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sgi2v.spectrum import low_pass, merge_frequencies

SIZES = st.integers(1, 9)


def literal_low_pass(height: int, width: int, cutoff: float, order: int) -> torch.Tensor:
    mask = torch.zeros(height, width, dtype=torch.float64)
    for h in range(height):
        for w in range(width):
            distance = (2 * h / height - 1) ** 2 + (2 * w / width - 1) ** 2
            mask[h, w] = 1 / (1 + (distance / cutoff**2) ** order)
    return mask


@given(height=SIZES, width=SIZES, cutoff=st.floats(0.05, 3), order=st.integers(1, 6))
def test_low_pass_is_the_formula(height: int, width: int, cutoff: float, order: int) -> None:
    assert torch.allclose(
        low_pass(height, width, cutoff, order=order).double(),
        literal_low_pass(height, width, cutoff, order),
        atol=1e-6,
    )


def test_a_cutoff_of_zero_keeps_nothing_and_a_negative_one_is_refused() -> None:
    assert not low_pass(4, 6, 0.0).any()
    with pytest.raises(ValueError, match="cutoff"):
        low_pass(4, 6, -0.1)


def literal_merge(low: torch.Tensor, high: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """One channel, both transforms written out; the mask's centre is the constant component."""
    height, width = low.shape

    def spectrum(picture: torch.Tensor) -> dict[tuple[int, int], complex]:
        return {
            (u, v): sum(
                picture[y, x].item() * cmath.exp(-2j * math.pi * (u * y / height + v * x / width))
                for y in range(height)
                for x in range(width)
            )
            for u in range(height)
            for v in range(width)
        }

    lows, highs = spectrum(low), spectrum(high)
    merged = torch.zeros(height, width, dtype=torch.float64)
    for y in range(height):
        for x in range(width):
            total = 0j
            for u in range(height):
                for v in range(width):
                    share = mask[(u + height // 2) % height, (v + width // 2) % width].item()
                    value = share * lows[u, v] + (1 - share) * highs[u, v]
                    total += value * cmath.exp(2j * math.pi * (u * y / height + v * x / width))
            merged[y, x] = (total / (height * width)).real
    return merged


@pytest.mark.parametrize("size", [(4, 6), (5, 3), (1, 4)])
@pytest.mark.parametrize("cutoff", [0.3, 0.5, 1.0])
def test_merge_is_the_literal_one(size: tuple[int, int], cutoff: float) -> None:
    low, high = torch.randn(2, *size)
    mask = low_pass(*size, cutoff)
    assert torch.allclose(
        merge_frequencies(low, high, mask).double(), literal_merge(low, high, mask), atol=1e-5
    )


@given(height=SIZES, width=SIZES, cutoff=st.floats(0, 3))
def test_merging_with_itself_changes_nothing(height: int, width: int, cutoff: float) -> None:
    x = torch.randn(2, 3, height, width)
    assert torch.equal(merge_frequencies(x, x, low_pass(height, width, cutoff)), x)


def test_the_ends_of_the_mask_give_one_or_the_other() -> None:
    low, high = torch.randn(2, 2, 3, 6, 8)
    assert torch.equal(merge_frequencies(low, high, torch.zeros(6, 8)), high)
    assert torch.allclose(merge_frequencies(low, high, torch.ones(6, 8)), low, atol=1e-5)

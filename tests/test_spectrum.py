"""The Butterworth filter against its formula, and the frequency merge against a literal one."""

import cmath
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from sgi2v.spectrum import low_pass, low_pass_3d, merge_frequencies, merge_frequencies_3d, with_statistics_of

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
    assert torch.allclose(merge_frequencies(low, high, mask).double(), literal_merge(low, high, mask), atol=1e-5)


@given(height=SIZES, width=SIZES, cutoff=st.floats(0, 3))
def test_merging_with_itself_changes_nothing(height: int, width: int, cutoff: float) -> None:
    x = torch.randn(2, 3, height, width)
    assert torch.equal(merge_frequencies(x, x, low_pass(height, width, cutoff)), x)


def test_the_ends_of_the_mask_give_one_or_the_other() -> None:
    low, high = torch.randn(2, 2, 3, 6, 8)
    assert torch.equal(merge_frequencies(low, high, torch.zeros(6, 8)), high)
    assert torch.allclose(merge_frequencies(low, high, torch.ones(6, 8)), low, atol=1e-5)


# ---------------------------------------------------------------- over time, height and width


def literal_low_pass_3d(size: tuple[int, int, int], spatial: float, temporal: float, order: int) -> torch.Tensor:
    """FreeInit's way of writing it: time is stretched by the ratio of the cutoffs."""
    mask = torch.zeros(size, dtype=torch.float64)
    for t in range(size[0]):
        for h in range(size[1]):
            for w in range(size[2]):
                # Even sizes: 2 t / T - 1, as published.
                times, heights, widths = (2 * (i - n // 2) / n for i, n in zip((t, h, w), size, strict=True))
                distance = (spatial / temporal * times) ** 2 + heights**2 + widths**2
                mask[t, h, w] = 1 / (1 + (distance / spatial**2) ** order)
    return mask


VOLUMES = st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6))


@given(size=VOLUMES, spatial=st.floats(0.05, 3), temporal=st.floats(0.05, 3), order=st.integers(1, 5))
def test_low_pass_over_time_is_the_formula(
    size: tuple[int, int, int], spatial: float, temporal: float, order: int
) -> None:
    found = low_pass_3d(*size, spatial, temporal, order=order).double()
    assert torch.allclose(found, literal_low_pass_3d(size, spatial, temporal, order), atol=1e-6)


def test_either_cutoff_of_zero_keeps_nothing_and_a_negative_one_is_refused() -> None:
    assert not low_pass_3d(2, 4, 6, 0.0, 0.1).any() and not low_pass_3d(2, 4, 6, 0.1, 0.0).any()
    for cutoffs in ((-0.1, 0.1), (0.1, -0.1)):
        with pytest.raises(ValueError, match="cutoff"):
            low_pass_3d(2, 4, 6, *cutoffs)


@given(size=VOLUMES, spatial=st.floats(0.05, 3), temporal=st.floats(0.05, 3))
def test_low_pass_over_time_passes_the_mean_and_treats_both_signs_of_a_frequency_alike(
    size: tuple[int, int, int], spatial: float, temporal: float
) -> None:
    """So a merge of real clips is real before the real part is taken."""
    mask = torch.fft.ifftshift(low_pass_3d(*size, spatial, temporal))
    assert mask[0, 0, 0] == 1
    opposite = mask
    for axis in range(3):
        opposite = opposite.flip(axis).roll(1, axis)
    assert torch.equal(mask, opposite)


@pytest.mark.parametrize("size", [(2, 4, 6), (3, 3, 2), (5, 1, 4)])
def test_merge_over_time_is_the_literal_one(size: tuple[int, int, int]) -> None:
    """A transform over three axes is one over the last two of each frame, then one over time, here as a matrix."""
    low, high = torch.randn(2, size[0], 1, *size[1:])
    mask = low_pass_3d(*size, 0.5, 0.6)
    frames = torch.arange(size[0], dtype=torch.float64)
    over_time = torch.exp(-2j * math.pi * frames[:, None] * frames / size[0])
    merged = torch.zeros(size, dtype=torch.complex128)
    for t in range(size[0]):
        share = mask[(t + size[0] // 2) % size[0]].double()
        bins = [
            torch.fft.fft2(torch.einsum("s,shw->hw", over_time[t], clip[:, 0].to(torch.complex128)))
            for clip in (low, high)
        ]
        unshifted = torch.roll(share, (-(size[1] // 2), -(size[2] // 2)), (0, 1))
        kept = torch.fft.ifft2(unshifted * bins[0] + (1 - unshifted) * bins[1])
        merged += over_time[t].conj()[:, None, None] * kept / size[0]
    found = merge_frequencies_3d(low, high, mask)[:, 0].double()
    assert torch.allclose(found, merged.real, atol=1e-5)


@given(size=VOLUMES, spatial=st.floats(0, 3), temporal=st.floats(0, 3))
def test_merging_a_clip_with_itself_changes_nothing(
    size: tuple[int, int, int], spatial: float, temporal: float
) -> None:
    x = torch.randn(size[0], 2, *size[1:])
    assert torch.equal(merge_frequencies_3d(x, x, low_pass_3d(*size, spatial, temporal)), x)


def test_a_merged_bins_variance_is_the_sum_of_squared_shares_unless_it_is_kept() -> None:
    """Of two independent white noises, measured over many channels."""
    size, channels = (5, 8, 8), 3000
    generator = torch.Generator().manual_seed(0)
    low, high = torch.randn(2, size[0], channels, *size[1:], generator=generator)
    mask = low_pass_3d(*size, 0.6, 0.7)
    wanted = mask**2 + (1 - mask) ** 2
    for keep, variance in ((False, wanted), (True, torch.ones_like(wanted))):
        merged = merge_frequencies_3d(low, high, mask, keep_variance=keep)
        power = torch.fft.fftshift(torch.fft.fftn(merged, dim=(0, 2, 3)), dim=(0, 2, 3)).abs().square().mean(1)
        measured = power / math.prod(size)
        assert torch.allclose(measured, variance, rtol=0.15)
    assert wanted.min() < 0.55


def test_masks_ask_no_device_for_float64() -> None:
    """Apple's MPS has none; the device "meta" stands for it here."""

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = func(*args, **(kwargs or {}))
            if isinstance(found, torch.Tensor):
                seen.add((found.device.type, found.dtype))
            return found

    seen: set[tuple[str, torch.dtype]] = set()
    with Watch():  # type: ignore[no-untyped-call]
        masks = low_pass(4, 6, 0.5, device="meta"), low_pass_3d(3, 4, 6, 0.5, 0.5, device="meta")
    assert all(mask.device.type == "meta" and mask.dtype == torch.float32 for mask in masks)
    assert ("meta", torch.float32) in seen and ("meta", torch.float64) not in seen


# ---------------------------------------------------------------- statistics


def test_statistics_are_those_of_the_other_and_what_was_there_goes_on() -> None:
    like, x = 3 * torch.randn(2, 3, 4, 5) + 1, torch.randn(2, 3, 4, 5)
    x[0, 1] = 7.0  # no deviation to be stretched
    found = with_statistics_of(like, x)
    for frame in range(2):
        for channel in range(3):
            here, wanted, before = (t[frame, channel].flatten().tolist() for t in (found, like, x))
            mean, old = sum(wanted) / 20, sum(before) / 20
            deviation = math.sqrt(sum((v - mean) ** 2 for v in wanted) / 20)
            own = math.sqrt(sum((v - old) ** 2 for v in before) / 20)
            scale = 0.0 if (frame, channel) == (0, 1) else deviation / own
            assert here == pytest.approx([mean + scale * (v - old) for v in before], abs=1e-4)
    assert torch.allclose(with_statistics_of(like, like), like, atol=1e-5)

"""How well a matched filter finds a thing in a noised clip: the filter and its paths against slow literal twins."""

import itertools
from collections.abc import Callable
from types import ModuleType

import pytest
import torch


@pytest.fixture
def limit(experiment: Callable[[str], ModuleType]) -> ModuleType:
    """experiments/bundled_model/limit.py."""
    return experiment("bundled_model.limit")


@pytest.mark.parametrize("shape", [(2, 3), (3, 2), (1, 4)])
def test_evidence_is_the_difference_of_squared_errors(limit: ModuleType, shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(3)
    noisy, first = (torch.randn(*size, 2, 6, 7, generator=generator) for size in ((3,), ()))
    cover = torch.zeros(6, 7)
    cover[2 : 2 + shape[0], 1 : 1 + shape[1]] = 1
    cover[2, 1] = float(shape[0] == 1)  # no corner, unless that would make the extent smaller
    scores = limit.evidence(noisy, first, cover)
    cells = torch.nonzero(cover).tolist()
    for frame, y, x in itertools.product(range(3), range(6), range(7)):
        down, right = y - (2 + shape[0] // 2), x - (1 + shape[1] // 2)
        expected = 0.0
        for row, column in cells:
            if 0 <= row + down < 6 and 0 <= column + right < 7:
                seen = noisy[frame, :, row + down, column + right]
                lying, thing = first[:, row + down, column + right], first[:, row, column]
                expected += float((seen - lying).square().sum() - (seen - thing).square().sum())
        assert float(scores[frame, y, x]) == pytest.approx(expected, abs=1e-4)


def test_paths_are_the_best_of_all_paths(limit: ModuleType) -> None:
    scores = torch.randn(4, 3, 4, generator=torch.Generator().manual_seed(5))
    start, places = (1, 2), list(itertools.product(range(3), range(4)))
    best = torch.full_like(scores, -torch.inf)
    for path in itertools.product(places, repeat=3):
        whole = (start, *path)
        if all(max(abs(a - c), abs(b - d)) <= 1 for (a, b), (c, d) in itertools.pairwise(whole)):
            total = sum(float(scores[frame][place]) for frame, place in enumerate(whole) if frame)
            for frame, place in enumerate(whole):
                best[frame][place] = max(float(best[frame][place]), total)
    found = limit.along_paths(scores, start, 1)
    torch.testing.assert_close(found[1:], best[1:])


def test_a_thing_that_slid_is_found_without_noise(limit: ModuleType) -> None:
    first = torch.randn(4, 8, 12, generator=torch.Generator().manual_seed(7))
    cover = torch.zeros(8, 12)
    cover[2:5, 3:6] = 1
    moved = first.clone()
    moved[:, 3:6, 7:10] = first[:, 2:5, 3:6]
    scores = limit.evidence(moved[None], first, cover)[0]
    assert divmod(int(scores.argmax()), scores.shape[-1]) == (3 + 1, 7 + 1)

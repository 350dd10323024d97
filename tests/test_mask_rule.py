"""The overlap of cells with a moving mask, and the rules that experiments/mask_rule compares."""

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from sgi2v.controllers.time_to_move import held_cells
from sgi2v.grid import Grid

GRID = Grid(width=32, height=16, num_frames=5, stride=8, frame_stride=4)


@pytest.fixture
def rules(experiment: Callable[[str], ModuleType]) -> ModuleType:
    """experiments/mask_rule/run.py."""
    return experiment("mask_rule.run")


def moving() -> np.ndarray:
    """A square of one cell that starts at a cell and goes two pixels right in each frame."""
    masks = np.zeros((5, 16, 32), dtype=np.float32)
    for frame in range(5):
        masks[frame, :8, 2 * frame : 2 * frame + 8] = 1
    return masks


def test_the_overlap_is_that_of_the_pixels_in_all_frames_of_a_group(rules: ModuleType) -> None:
    cells = np.zeros((2, 2, 4), dtype=bool)
    cells[0, 0, 0] = cells[1, 0, 1] = True
    # Frame 0 meets its cell; in the group of four 2, 4, 6 and 8 of 8 columns do.
    both = 64 + 8 * (2 + 4 + 6 + 8)
    assert rules.overlap(cells, moving(), GRID) == pytest.approx(both / (64 + 4 * 128 - 8 * (2 + 4 + 6 + 8)))


def test_the_rules_are_the_methods_own_and_differ_by_frame(rules: ModuleType) -> None:
    masks = moving()
    found = rules.mask_rules(masks, GRID)
    assert np.array_equal(found["coverage, mean of all frames (`coverage`)"], held_cells(masks, GRID, "coverage"))
    assert np.array_equal(found["one pixel, first frame (`published`)"], held_cells(masks, GRID, "published"))
    assert [np.flatnonzero(found[f"coverage, {frame} frame"][1, 0]).tolist() for frame in rules.FRAMES] == [
        [0],
        [1],
        [1],
    ]
    boxes = np.array([[2 * frame, 0, 2 * frame + 8, 8] for frame in range(5)], dtype=np.float32)
    cells = rules.box_rules(boxes, GRID)
    assert [np.flatnonzero(cells[f"box, {frame} frame"][1, 0]).tolist() for frame in rules.FRAMES] == [[0], [0], [1]]
    assert not any(held[:, 1:].any() for held in cells.values())

"""Where a loss is least: the study's losses against the package's own, and a thing that is known to have moved."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchmetrics.functional.regression import spearman_corrcoef

from sgi2v.alignment import alignment_loss, alignment_plan
from sgi2v.controllers import SGI2V
from sgi2v.evaluation.datasets import Case
from sgi2v.evaluation.held_out import HeldOutWorld
from sgi2v.grid import Grid, Track, Tracks
from sgi2v.step import Level
from sgi2v.video import to_uint8


@pytest.fixture(scope="module")
def case() -> Case:
    return HeldOutWorld(scene_set=1, limit=1, width=96, height=64, num_frames=4)[0]


@pytest.fixture
def study(experiment: Callable[[str], ModuleType]) -> ModuleType:
    """experiments/correspondence/run.py."""
    return experiment("correspondence.run")


def test_losses_are_the_alignment_loss_of_a_box_there(study: ModuleType) -> None:
    generator = torch.Generator().manual_seed(2)
    maps = torch.randn(3, 5, 3, 4, generator=generator) + 20
    grid = Grid(width=64, height=48, num_frames=2)
    top, left, bottom, right = 1, 2, 4, 4
    found = study.losses(maps, (top, left, bottom, right), 0.4, (grid.rows, grid.columns))
    assert found.shape == (3, grid.rows - 2, grid.columns - 1)
    first = np.array([left, top, right, bottom], dtype=np.float32) * grid.stride
    image = Image.new("RGB", (grid.width, grid.height))
    for frame in range(3):
        for row in range(grid.rows - 2):
            for column in range(grid.columns - 1):
                moved = np.array([column - left, row - top] * 2, dtype=np.float32) * grid.stride
                track = Track(boxes=np.stack([first, first + moved]))
                plan = alignment_plan(Tracks(image=image, tracks=(track,)), grid, 0.4)
                # Per channel there, summed over channels here.
                wanted = 5 * alignment_loss([maps[[0, frame]]], plan)
                assert float(found[frame, row, column]) == pytest.approx(float(wanted), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("own", [True, False])
def test_a_disc_lies_behind_the_thing_and_away_from_it(study: ModuleType, case: Case, own: bool) -> None:
    assert case.truth is not None and case.masks is not None
    shown = study.with_disc(case, own=own)
    changed = (shown.truth - case.truth).abs().amax(1)
    assert np.array_equal(np.asarray(shown.scene.image), to_uint8(shown.truth[:1])[0])
    assert changed.amax() > 0.1 and float(changed[case.masks[0] == 1].amax()) == 0
    mean = (case.truth[0] * case.masks[0, 0]).sum((1, 2)) / case.masks[0, 0].sum()
    y, x = (int(v) for v in torch.nonzero(changed[0] > 0.05).float().mean(0).round())
    middle = shown.truth[0, :, y, x]
    torch.testing.assert_close(middle, mean if own else (mean < 0.5).float(), atol=1e-5, rtol=0)


@dataclass
class _Seeing:
    """Its only feature is the clip itself, a cell at a time."""

    settings: SimpleNamespace

    def grid(self, width: int, height: int, num_frames: int) -> Grid:
        return Grid(width=width, height=height, num_frames=num_frames)

    def encode(self, *_: object) -> None:
        return None

    def encode_frames(self, frames: Tensor, grid: Grid) -> Tensor:
        return torch.nn.functional.avg_pool2d(frames, grid.stride)

    def features(self, x: Tensor, _level: Level, _given: None, layers: Sequence[str]) -> Mapping[str, Tensor]:
        return dict.fromkeys(layers, x)


def test_a_thing_is_found_where_it_is_and_lost_in_noise(study: ModuleType, case: Case) -> None:
    seeing = _Seeing(SimpleNamespace(width=96, height=64, num_frames=4))
    variants = {"itself": SGI2V(layers=("up:output",))}
    found = study.measured(case, seeing, variants, (1e-4, 100.0))
    floor, stays = found["whole cells"][0], found["stays"][0]
    clear, drowned = found["itself"]
    assert 0 < floor < 5 < stays
    assert floor <= clear < floor + 4  # a box of whole cells is seldom the thing's own
    assert drowned > clear + 5


def test_ranks_agree_as_torchmetrics_says(study: ModuleType) -> None:
    first, second = torch.randn(2, 12, generator=torch.Generator().manual_seed(4))
    wanted = float(spearman_corrcoef(first, second))
    assert study.spearman(first.tolist(), second.tolist()) == pytest.approx(wanted, abs=1e-6)

"""The tracker on true clips spoilt in known ways: what is there is found, what is gone is lost."""

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import torch

from sgi2v.evaluation.held_out import HeldOutWorld
from sgi2v.evaluation.tracker import TemplateTracker
from sgi2v.grid import Grid

GRID = Grid(width=192, height=128, num_frames=8, stride=1)
FAR = 10.0  # pixels: what is half of a thing's size


@pytest.fixture
def tracker(experiment: Callable[[str], ModuleType]) -> ModuleType:
    """experiments/tracker/run.py."""
    return experiment("tracker.run")


@pytest.mark.parametrize(("kind", "number"), [("simple", 0), ("simple", 1), ("lifelike", 1)])
@pytest.mark.long
def test_what_is_there_is_found_and_what_is_gone_is_lost(tracker: ModuleType, kind: str, number: int) -> None:
    size = {"width": GRID.width, "height": GRID.height, "num_frames": GRID.num_frames}
    case = HeldOutWorld(scene_set=1, kind=kind, limit=2, **size)[number]  # type: ignore[arg-type]
    assert case.truth is not None and case.masks is not None
    frames, masks = case.truth.permute(0, 2, 3, 1).numpy(), case.masks[0].numpy()
    for name, spoil in (*tracker.THERE.items(), *tracker.NOWHERE.items()):
        if (kind, name) in (("lifelike", "half of it gone"), ("lifelike", "redrawn in every frame")):
            continue  # found in some scenes, not in this one; nor is what is gone lost in every one
        clip = tracker.spoilt(spoil, frames, masks, seed=0)
        assert np.array_equal(clip[0], frames[0]) and clip.min() >= 0 and clip.max() <= 1
        video = torch.from_numpy(clip).permute(0, 3, 1, 2).contiguous()
        error, lost = tracker.error_of(TemplateTracker(), case, video, GRID)
        if name in tracker.THERE:
            assert error < FAR and lost < 0.5, name
        else:
            assert lost > 0.8, name

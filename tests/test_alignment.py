"""The vectorised loss against loops written from the method's description, on boxes of every awkward kind."""

import math

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sgi2v.alignment import Weighting, alignment_errors, alignment_loss, alignment_plan
from sgi2v.grid import Grid, Track, Tracks

GRID = Grid(width=96, height=64, num_frames=4)  # 8 rows, 12 columns


def tracks_from(boxes: NDArray[np.float64], masks: list[PIL.Image.Image | None] | None = None) -> Tracks:
    image = PIL.Image.new("RGB", (GRID.width, GRID.height))
    masks = masks or [None] * len(boxes)
    tracks = (Track(boxes=b.astype(np.float32), mask=m) for b, m in zip(boxes, masks, strict=True))
    return Tracks(image=image, tracks=tuple(tracks))


def random_mask(rng: np.random.Generator) -> PIL.Image.Image:
    """Blotches with soft edges, somewhere in every box."""
    small = rng.integers(0, 256, (GRID.height // 4, GRID.width // 4), dtype=np.uint8)
    return PIL.Image.fromarray(small).resize((GRID.width, GRID.height), PIL.Image.Resampling.BILINEAR)


def literal_loss(
    features: list[torch.Tensor], tracks: Tracks, std: float, weighting: Weighting
) -> torch.Tensor | None:
    rows, columns = GRID.rows, GRID.columns
    maps = torch.cat([F.interpolate(f, size=(rows, columns), mode="bilinear") for f in features], dim=1)
    total, weight = torch.zeros((), dtype=torch.float64), 0.0
    for track in tracks.tracks:
        cells = [[math.floor(v / 8) for v in box] for box in track.boxes.tolist()]
        cells = [[x0, y0, max(x0 + 1, x1), max(y0 + 1, y1)] for x0, y0, x1, y1 in cells]
        left, top, right, bottom = cells[0]
        crop = maps[:1, :, top:bottom, left:right].detach()
        cover = torch.zeros(1, 1, bottom - top, right - left, dtype=torch.float64)
        if track.mask is not None:
            for i in range(bottom - top):
                for j in range(right - left):
                    cell = (8 * (left + j), 8 * (top + i), 8 * (left + j) + 8, 8 * (top + i) + 8)
                    cover[0, 0, i, j] = np.asarray(track.mask.crop(cell), dtype=np.float64).mean()
        for frame in range(1, GRID.num_frames):
            x0, y0, x1, y1 = cells[frame]
            height, width = y1 - y0, x1 - x0
            target = F.interpolate(crop, size=(height, width), mode="bilinear", align_corners=False)[0]
            heat = torch.ones(height, width, dtype=torch.float64)
            if weighting == "mask" and track.mask is not None:
                heat = F.interpolate(cover, size=(height, width), mode="bilinear", align_corners=False)[0, 0]
                heat = heat / cover.max()
            elif weighting != "uniform":
                for i in range(height):
                    for j in range(width):
                        dy = (i + 0.5 - height / 2) / (std * height / 2)
                        dx = (j + 0.5 - width / 2) / (std * width / 2)
                        heat[i, j] = math.exp(-0.5 * (dy * dy + dx * dx))
                heat = heat / heat.max()
            for i in range(height):
                for j in range(width):
                    if 0 <= y0 + i < rows and 0 <= x0 + j < columns:
                        error = (maps[frame, :, y0 + i, x0 + j] - target[:, i, j]).square().mean()
                        total = total + heat[i, j] * error.double()
                        weight += heat[i, j].item()
    return total / weight if weight else None


@given(
    seed=st.integers(0, 10_000),
    num_boxes=st.integers(1, 4),
    resizing=st.booleans(),
    weighting=st.sampled_from(["gaussian", "uniform", "mask"]),
    std=st.floats(0.2, 2),
)
def test_the_loss_and_its_gradient_are_the_literal_ones(
    seed: int, num_boxes: int, resizing: bool, weighting: Weighting, std: float
) -> None:
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    boxes = np.empty((num_boxes, GRID.num_frames, 4))
    for box in boxes:
        corner, size = rng.uniform(0, (60, 40)), rng.uniform(1, (36, 24))
        for frame in range(GRID.num_frames):
            move = rng.uniform(-90, 90, 2) * (frame > 0)  # often partly, sometimes wholly outside
            grown = size * (rng.uniform(0.4, 2.0, 2) if resizing and frame else 1)
            box[frame] = [*(corner + move), *(corner + move + grown)]
    masks = [random_mask(rng) if number % 2 == 0 else None for number in range(num_boxes)]
    tracks = tracks_from(boxes, masks)
    features = [
        torch.randn(GRID.num_frames, c, h, w, generator=generator, requires_grad=True)
        for c, h, w in ((5, 4, 6), (3, 8, 12), (4, 2, 3))
    ]
    plan = alignment_plan(tracks, GRID, std, weighting)
    slow = literal_loss(features, tracks, std, weighting)
    if slow is None:
        assert plan.num_rows == 0
        return
    fast = alignment_loss(features, plan)
    assert fast.item() == pytest.approx(slow.item(), rel=1e-5)
    for ours, theirs in zip(
        torch.autograd.grad(fast, features), torch.autograd.grad(slow, features), strict=True
    ):
        assert torch.allclose(ours, theirs, atol=1e-6 + 1e-4 * float(theirs.abs().max()))


def test_a_still_box_over_still_features_costs_nothing_and_the_target_takes_no_gradient() -> None:
    boxes = np.tile(np.array([16.0, 8, 40, 40]), (1, GRID.num_frames, 1))
    plan = alignment_plan(tracks_from(boxes), GRID, 0.4)
    first = torch.randn(1, 3, 8, 12)
    still = first.expand(GRID.num_frames, -1, -1, -1).clone().requires_grad_(True)
    assert alignment_loss([still], plan).item() == 0
    moved = torch.cat([first, torch.randn(GRID.num_frames - 1, 3, 8, 12)]).requires_grad_(True)
    (gradient,) = torch.autograd.grad(alignment_loss([moved], plan), moved)
    assert not gradient[0].any() and gradient[1:].any()
    assert alignment_errors([moved], plan).shape == (plan.num_rows,)


def test_boxes_that_have_all_left_give_an_empty_plan() -> None:
    boxes = np.array([[[0.0, 0, 16, 16]] + [[-200.0, -200, -184, -184]] * 3])
    assert alignment_plan(tracks_from(boxes), GRID, 0.4).num_rows == 0


def test_a_first_box_outside_and_a_width_of_nothing_are_refused() -> None:
    boxes = np.tile(np.array([-9.0, 8, 40, 40]), (1, GRID.num_frames, 1))
    with pytest.raises(ValueError, match=r"motions\[0\]\.box"):
        alignment_plan(tracks_from(boxes), GRID, 0.4)
    with pytest.raises(ValueError, match="heatmap_std"):
        alignment_plan(tracks_from(boxes + 20), GRID, 0.0)


def test_a_mask_that_misses_its_box_is_refused_only_where_it_shall_weigh() -> None:
    boxes = np.tile(np.array([16.0, 8, 40, 40]), (2, GRID.num_frames, 1))
    mask = PIL.Image.new("L", (GRID.width, GRID.height))
    mask.paste(255, (56, 0, 96, 64))
    tracks = tracks_from(boxes, [None, mask])
    assert alignment_plan(tracks, GRID, 0.4).num_rows
    with pytest.raises(ValueError, match=r"motions\[1\]\.mask: nothing of it lies in the motion's box"):
        alignment_plan(tracks, GRID, 0.4, "mask")

"""The vectorised loss against loops written from the method's description, on boxes of every awkward kind."""

import math

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sgi2v.alignment import AlignmentPlan, Kept, Weighting, alignment_loss, alignment_plan, matching_loss
from sgi2v.attention import own_positions
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


def literal_loss(features: list[torch.Tensor], tracks: Tracks, std: float, weighting: Weighting) -> torch.Tensor | None:
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


def upsampling_loss(features: list[torch.Tensor], plan: AlignmentPlan) -> torch.Tensor:
    """The loss by upsampling whole maps and taking every row's two vectors out of them, in float64."""
    total, num_channels = torch.zeros((), dtype=torch.float64), 0
    for feature in features:
        maps = F.interpolate(feature.double(), size=plan.size[1:], mode="bilinear", align_corners=False)
        vectors = maps.movedim(1, -1).flatten(0, 2)
        target = (vectors.detach()[plan.sources] * torch.from_numpy(plan.mixture)[..., None]).sum(dim=1)
        error = (vectors[plan.cells] - target).square().sum(dim=-1)
        total = total + (error * torch.from_numpy(plan.weights)).sum()
        num_channels += feature.shape[1]
    return total / (num_channels * float(plan.weights.sum()))


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
    for ours, theirs in zip(torch.autograd.grad(fast, features), torch.autograd.grad(slow, features), strict=True):
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


def crowd(num_boxes: int, grid: Grid, *, resizing: bool) -> Tracks:
    """Large boxes all over the picture and over one another, each on its way, some half outside."""
    rng = np.random.default_rng(num_boxes)
    size = np.array([grid.width, grid.height])
    boxes = np.empty((num_boxes, grid.num_frames, 4))
    for track in boxes:
        side = rng.uniform(0.2, 0.5, 2) * size
        start = rng.uniform(0, 1, 2) * (size - side)
        way = rng.uniform(-0.4, 0.4, 2) * size
        for frame, time in enumerate(np.linspace(0, 1, grid.num_frames)):
            grown = side * (1 + 0.5 * time * resizing)
            track[frame] = [*(start + time * way), *(start + time * way + grown)]
    tracks = tuple(Track(boxes=track.astype(np.float32)) for track in boxes)
    return Tracks(image=PIL.Image.new("RGB", (grid.width, grid.height)), tracks=tracks)


@pytest.mark.parametrize("resizing", [False, True])
@pytest.mark.parametrize("num_boxes", [1, 2, 64])
def test_a_crowd_of_boxes_costs_what_upsampling_whole_maps_says(num_boxes: int, resizing: bool) -> None:
    grid = Grid(width=200, height=136, num_frames=5)  # 17 rows of 25: halved, rounded up
    plan = alignment_plan(crowd(num_boxes, grid, resizing=resizing), grid, 0.4)
    generator = torch.Generator().manual_seed(num_boxes)
    shared = torch.randn(1, 6, 1, 1, generator=generator) * 5  # what all places have in common
    features = [
        (torch.randn(5, 6, h, w, generator=generator) + shared).requires_grad_(True)
        for h, w in ((9, 13), (17, 25), (5, 7))
    ]
    fast, slow = alignment_loss(features, plan), upsampling_loss(features, plan)
    assert fast.item() == pytest.approx(slow.item(), rel=1e-5)
    for ours, theirs in zip(torch.autograd.grad(fast, features), torch.autograd.grad(slow, features), strict=True):
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def test_half_precision_features_lose_nothing_on_the_way() -> None:
    grid = Grid(width=96, height=64, num_frames=4)
    plan = alignment_plan(crowd(3, grid, resizing=True), grid, 0.4)
    coarse = torch.randn(4, 8, 4, 6).to(torch.bfloat16).requires_grad_(True)
    value = alignment_loss([coarse], plan)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(upsampling_loss([coarse], plan).item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(value, coarse)
    assert gradient.dtype == torch.bfloat16 and gradient[1:].any() and not gradient[0].any()


def test_many_boxes_keep_no_more_than_one_that_fills_the_picture() -> None:
    """What the loss keeps for its gradient, and the most it mixes, follow the picture and not the boxes."""
    grid = Grid(width=200, height=136, num_frames=5)
    whole = np.tile(np.array([0.0, 0, 200, 136], dtype=np.float32), (5, 1))
    one = Tracks(image=PIL.Image.new("RGB", (200, 136)), tracks=(Track(boxes=whole),))
    kept = []
    for tracks in (one, crowd(64, grid, resizing=True)):
        plan = alignment_plan(tracks, grid, 0.4)
        largest = 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal largest
            largest = max(largest, tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            alignment_loss([torch.randn(5, 32, 9, 13, requires_grad=True)], plan)
        kept.append(largest)
    assert plan.num_rows > 10 * 4 * 17 * 25
    assert kept[1] <= kept[0] == 4 * 17 * 25 * 32


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


# ---------------------------------------------------------------- where places come from


def literal_matching(positions: list[torch.Tensor], tracks: Tracks, std: float) -> torch.Tensor:
    """Squared distances in latent cells, cell by cell: each map's positions and its own places, both upsampled."""
    rows, columns = GRID.rows, GRID.columns
    total, weight = torch.zeros((), dtype=torch.float64), 0.0
    for maps in positions:
        height, width = maps.shape[2:]
        own = torch.tensor([[[float(x) for x in range(width)]] * height, [[float(y)] * width for y in range(height)]])
        scale = torch.tensor([columns / width, rows / height])[None, :, None, None]
        found, wanted = (F.interpolate(t * scale, size=(rows, columns), mode="bilinear") for t in (maps, own[None]))
        for track in tracks.tracks:
            cells = [[math.floor(v / 8) for v in box] for box in track.boxes.tolist()]
            cells = [[x0, y0, max(x0 + 1, x1), max(y0 + 1, y1)] for x0, y0, x1, y1 in cells]
            left, top, right, bottom = cells[0]
            for frame in range(1, GRID.num_frames):
                x0, y0, x1, y1 = cells[frame]
                size = (y1 - y0, x1 - x0)
                target = F.interpolate(wanted[:, :, top:bottom, left:right], size=size, mode="bilinear")[0]

                def bell(index: int, length: int) -> float:
                    return math.exp(-0.5 * ((index + 0.5 - length / 2) / (std * length / 2)) ** 2)

                heat = [[bell(i, size[0]) * bell(j, size[1]) for j in range(size[1])] for i in range(size[0])]
                largest = max(max(row) for row in heat)
                for i in range(size[0]):
                    for j in range(size[1]):
                        if 0 <= y0 + i < rows and 0 <= x0 + j < columns:
                            gap = (found[frame, :, y0 + i, x0 + j] - target[:, i, j]).square().sum().double()
                            total = total + heat[i][j] / largest * gap
                            weight += heat[i][j] / largest
    return total / weight


@given(seed=st.integers(0, 999), num_boxes=st.integers(1, 3), resizing=st.booleans())
@settings(max_examples=15)
def test_the_matching_loss_and_its_gradient_are_the_literal_ones(seed: int, num_boxes: int, resizing: bool) -> None:
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    boxes = np.empty((num_boxes, GRID.num_frames, 4))
    for box in boxes:
        corner, size = rng.uniform(0, (60, 40)), rng.uniform(8, (36, 24))
        for frame in range(GRID.num_frames):
            move, grown = rng.uniform(-30, 30, 2) * (frame > 0), rng.uniform(0.5, 2, 2) if resizing and frame else 1
            box[frame] = [*(corner + move), *(corner + move + size * grown)]
    tracks = tracks_from(boxes)
    positions = [
        (6 * torch.rand(GRID.num_frames, 2, h, w, generator=generator)).requires_grad_(True)
        for h, w in ((4, 6), (8, 12))
    ]
    fast, slow = (
        matching_loss(positions, alignment_plan(tracks, GRID, 0.4)),
        literal_matching(positions, tracks, 0.4),
    )
    assert fast.item() == pytest.approx(slow.item(), rel=1e-4)
    for ours, theirs in zip(torch.autograd.grad(fast, positions), torch.autograd.grad(slow, positions), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6 + 1e-4 * float(theirs.abs().max()))
        assert not ours[0].any(), "what the first frame finds does not matter"


def test_places_that_came_from_where_the_path_says_cost_nothing() -> None:
    first = np.array([16.0, 8, 48, 40])
    boxes = np.stack([first + np.array([8.0, 8, 8, 8]) * frame for frame in range(GRID.num_frames)])[None]
    moved = torch.stack([own_positions((8, 12)) - frame for frame in range(GRID.num_frames)])
    plan = alignment_plan(tracks_from(boxes), GRID, 0.4)
    assert matching_loss([moved], plan).item() == pytest.approx(0, abs=1e-6)
    assert matching_loss([moved + 2], plan).item() == pytest.approx(8, rel=1e-5), "two cells off, both ways"


def test_what_is_kept_is_held_to_the_first_call_alone() -> None:
    where = torch.zeros(2, 1, 3, 4)
    where[1, 0, 2, :3] = 1
    kept, first = Kept(where=where), torch.randn(2, 5, 3, 4)
    assert kept.change(first).item() == 0
    later = first.clone().requires_grad_(True)
    with torch.no_grad():
        later += 1
        later[1, :, 2, 0] += 1
    changed = kept.change(later)
    assert changed.item() == pytest.approx((4 + 1 + 1) / 3, rel=1e-5)
    (gradient,) = torch.autograd.grad(changed, later)
    assert torch.equal(gradient != 0, where.expand(-1, 5, -1, -1) != 0)
    assert Kept(where=torch.zeros(1, 1, 3, 4)).change(first[:1]).item() == 0

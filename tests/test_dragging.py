"""Point dragging on feature maps against loops over frames, boxes and cells, with boxes that leave the picture."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from reference import drag_diffusion as twin
from sgi2v.dragging import editable_cells, handles_of, read_places, square, toward, track
from sgi2v.grid import Grid, Track, Tracks

GRID = Grid(width=96, height=64, num_frames=4)  # 8 rows, 12 columns
DRAG = twin.Drag(width=96, height=64, cell=3.0)


def tracks_from(boxes: NDArray[np.float32]) -> Tracks:
    image = Image.new("RGB", (GRID.width, GRID.height))
    return Tracks(image=image, tracks=tuple(Track(boxes=track) for track in boxes))


@st.composite
def some_boxes(draw: st.DrawFn) -> NDArray[np.float32]:
    """First boxes inside the picture; later ones anywhere, also wholly outside."""
    tracks = []
    for _ in range(draw(st.integers(1, 3))):
        left, top = draw(st.floats(0, 60)), draw(st.floats(0, 40))
        width, height = draw(st.floats(1, 36)), draw(st.floats(1, 24))
        moves = [(0.0, 0.0)]
        moves += [(draw(st.floats(-150, 150)), draw(st.floats(-120, 120))) for _ in range(GRID.num_frames - 1)]
        tracks.append([(left + x, top + y, left + width + x, top + height + y) for x, y in moves])
    return np.array(tracks, dtype=np.float32)


def maps_of(seed: int) -> list[torch.Tensor]:
    """Two layers of different size."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(GRID.num_frames, c, h, w, generator=generator) for c, h, w in ((5, 8, 12), (3, 2, 3))]


def value_at(maps: list[torch.Tensor], frame: int, x: float, y: float) -> torch.Tensor:
    return torch.cat([twin.value_at(m[frame], x, y, DRAG) for m in maps])


@settings(max_examples=25)
@given(boxes=some_boxes(), seed=st.integers(0, 1000))
def test_handles_places_and_steps_are_those_of_the_loops(boxes: NDArray[np.float32], seed: int) -> None:
    handles = handles_of(tracks_from(boxes), GRID)
    maps, offsets = maps_of(seed), square(1, 3.0, torch.device("cpu"))
    ahead = handles.start + toward(handles, handles.start, 3.0)
    read = read_places(maps, ahead[:, :, None] + offsets, handles.size)
    unfinished = handles.unfinished(handles.start, 6.0)
    for n, box in enumerate(boxes):
        start = twin.centre(box[0])
        for j in range(GRID.num_frames):
            target = twin.target_of(box[j], DRAG)
            assert bool(handles.seen[n, j]) == (target is not None)
            assert handles.start[n, j].tolist() == pytest.approx(start, abs=1e-4)
            if target is None:
                assert not unfinished[n, j]
                continue
            far = twin.distance(start, target)
            assert handles.target[n, j].tolist() == pytest.approx(target, abs=1e-4)
            if abs(far - 6) > 1e-3:
                assert bool(unfinished[n, j]) == (far > 6)
            if far > 0.1:
                step = [min(3, far) * (t - s) / far for s, t in zip(start, target, strict=True)]
                for k, (dx, dy) in enumerate((x, y) for y in (-3, 0, 3) for x in (-3, 0, 3)):
                    wanted = value_at(maps, j, start[0] + step[0] + dx, start[1] + step[1] + dy)
                    assert torch.allclose(read[n, j, k], wanted, atol=1e-3)


@settings(max_examples=15)
@given(boxes=some_boxes(), seed=st.integers(0, 1000), first=st.booleans())
def test_a_handle_is_found_where_the_loops_find_it(boxes: NDArray[np.float32], seed: int, first: bool) -> None:
    handles = handles_of(tracks_from(boxes), GRID)
    before, now = maps_of(seed), maps_of(seed + 1)
    template = read_places(before, handles.start[:, :, None], handles.size)[:, :, 0]
    known = template[:, :1] if first else template
    found = track(now, handles, handles.start, known, square(2, 3.0, torch.device("cpu")))
    small = twin.Drag(width=96, height=64, cell=3.0, track_radius=2)
    for n, box in enumerate(boxes):
        start = twin.centre(box[0])
        for j in range(GRID.num_frames):
            at = value_at(before, 0 if first else j, *start)

            def far(place: list[float] | tuple[float, float], j: int = j, at: torch.Tensor = at) -> float:
                return float((value_at(now, j, *place) - at).abs().sum())

            # Both layers side by side as one map, which is what the loops search in, has no resolution of its own:
            # so the loops are asked at every candidate.
            candidates = [(start[0] + 3.0 * dx, start[1] + 3.0 * dy) for dy in range(-2, 3) for dx in range(-2, 3)]
            inside = [(x, y) for x, y in candidates if 0 <= x <= small.width and 0 <= y <= small.height]
            assert far(found[n, j].tolist()) == pytest.approx(min(map(far, inside)), abs=1e-3)
            assert 0 <= found[n, j, 0] <= 96 and 0 <= found[n, j, 1] <= 64


def test_a_handle_is_found_where_its_content_went() -> None:
    """Content that moved by whole cells of the map is found there, to the pixel."""
    box = np.array([[(24, 24, 40, 40)] * 4], dtype=np.float32)
    handles = handles_of(tracks_from(box), GRID)
    before = torch.randn(4, 6, 8, 12, generator=torch.Generator().manual_seed(0))
    moved = before.roll((-1, 2), dims=(2, 3))  # one cell up, two to the right: 8 and 16 pixels
    template = read_places([before], handles.start[:, :, None], handles.size)[:, :, 0]
    found = track([moved], handles, handles.start, template, square(4, 4.0, torch.device("cpu")))
    assert torch.equal(found, handles.start + torch.tensor([16.0, -8.0]))


@settings(max_examples=25)
@given(boxes=some_boxes())
def test_held_cells_are_those_of_the_loops(boxes: NDArray[np.float32]) -> None:
    for where in ("path", "frame"):
        cells = editable_cells(tracks_from(boxes), GRID, where)
        drag = twin.Drag(width=96, height=64, per_frame_mask=where == "frame")
        wanted = twin.held_cells(boxes, GRID.rows, GRID.columns, drag)
        assert torch.equal((1 - cells[:, 0]).expand(4, -1, -1), wanted)
    assert editable_cells(tracks_from(boxes), GRID, "everything").min() == 1


def test_places_between_cells_take_gradients_from_both_sides() -> None:
    maps = torch.zeros(1, 1, 1, 4, requires_grad=True)
    place = torch.tensor([[[[40.0, 30.0]]]])  # 96 pixels, 4 cells of 24: index 40 / 24 - 0.5 = 1.1667
    (gradient,) = torch.autograd.grad(read_places([maps], place, (96, 64)).sum(), maps)
    assert gradient.flatten().tolist() == pytest.approx([0, 5 / 6, 1 / 6, 0], abs=1e-5)

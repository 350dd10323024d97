"""What trained systems are given of a scene: points, displacement maps, heat, looks, against literal twins."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import contract
from sgi2v import Box, Key, Motion, Scene
from sgi2v.controllers import Controller, controller_from_dict
from sgi2v.controllers.drag_anything import (
    DragAnything,
    heat_maps,
    labels_of,
    look_of,
    middle_of,
    radius_of,
    stamp,
    table_of,
)
from sgi2v.controllers.drag_nuwa import DragNUWA, displacements, flow_maps
from sgi2v.errors import FieldError
from sgi2v.grid import Grid, tracks_of
from sgi2v.points import paths_of
from test_recordings import SHARED

GRID = Grid(width=96, height=64, num_frames=5)


def test_a_point_goes_with_its_box_whatever_the_boxs_size() -> None:
    box = Box(left=10, top=10, right=30, bottom=20)
    keys = (Key(time=0, x=20, y=15, easing="ease-in-out"), Key(time=1, x=60, y=35, scale=2))
    scene = Scene(image=Image.new("RGB", (96, 64)), motions=(Motion(box=box, path=keys), Motion(box=box)))
    places = paths_of(tracks_of(scene, GRID).tracks).places
    assert np.allclose(places[:, 0], scene.motions[0].centers(5), atol=1e-4), "easing and all"
    assert np.allclose(places[:, 1], (20, 15)), "a pin stays"
    assert DragNUWA().unheeded(tracks_of(scene, GRID), GRID) == ("changes of size",)
    assert DragNUWA().unheeded(tracks_of(contract.scene(), GRID), GRID) == ()


def test_a_masked_thing_is_held_by_a_pixel_of_its_own() -> None:
    ring = np.zeros((64, 96), np.uint8)
    ring[10:40, 10:40] = 255
    ring[12:38, 12:38] = 0
    motion = Motion(box=Box(left=10, top=10, right=40, bottom=40), mask=Image.fromarray(ring))
    scene = Scene(image=Image.new("RGB", (96, 64)), motions=(motion,))
    x, y = paths_of(tracks_of(scene, GRID).tracks).places[0, 0].astype(int)
    assert ring[y, x] == 255


def test_points_outside_are_told_with_their_pixel_and_wait_on_the_border() -> None:
    keys = (Key(time=0, x=20, y=15), Key(time=1, x=120, y=15))
    motion = Motion(box=Box(left=10, top=10, right=30, bottom=20), path=keys)
    scene = Scene(image=Image.new("RGB", (96, 64)), motions=(motion,))
    paths = paths_of(tracks_of(scene, GRID).tracks)
    assert paths.outside(96, 64) == ("motions[0] leaves the picture of 96x64 in frame 4, at pixel (120.0, 15.0)",)
    assert paths.clipped(96, 64).places[:, 0].tolist() == [[20, 15], [45, 15], [70, 15], [95, 15], [95, 15]]


@pytest.mark.parametrize("seed", range(3))
def test_displacements_are_those_of_a_loop(seed: int) -> None:
    draws = np.random.default_rng(seed)
    places = draws.uniform(0, 8, (4, 6, 2))
    twin = np.zeros((3, 8, 8, 2), np.float32)
    for frame in range(3):
        for point in range(6):
            x, y = places[frame, point]
            twin[frame, int(y), int(x)] = places[frame + 1, point] - places[frame, point]
    assert np.array_equal(displacements(places, 8, 8), twin)


def test_flow_maps_are_those_of_a_loop() -> None:
    """A picture wider than the bell reaches, so that its cut is seen."""
    draws = np.random.default_rng(0)
    sparse = np.zeros((2, 4, 130, 2), np.float32)
    for _ in range(5):
        sparse[draws.integers(2), draws.integers(4), draws.integers(130)] = draws.normal(0, 5, 2)
    sparse[0, 0, 0] = (3, -2)
    maps = flow_maps(sparse)
    assert maps.shape == (3, 2, 4, 130) and not maps[0].any()
    for frame, y, x in [(0, 0, 99), (0, 0, 100), (0, 3, 98), (1, 2, 64), (1, 0, 0), (0, 1, 129)]:
        total = np.zeros(2)
        for row in range(4):
            for column in range(130):
                if abs(column - x) <= 99 and abs(row - y) <= 99:
                    bell = math.exp(-((column - x) ** 2 + (row - y) ** 2) / (2 * 20**2))
                    total += bell * sparse[frame, row, column]
        assert np.allclose(maps[frame + 1, :, y, x], total, atol=1e-5)


def test_a_circle_inside_a_mask() -> None:
    mask = np.zeros((64, 96), bool)
    mask[10:31, 20:41] = True
    assert radius_of(mask) in (10, 11) and middle_of(mask).tolist() == [30, 20]


def test_heat_is_a_stamp_at_every_place_squeezed_at_the_border() -> None:
    spot = stamp()
    assert spot.shape == (200, 200) and spot.max() == 255 and spot[0, 0] == 0 and spot[100, 0] > 0
    places = np.array([[[30, 30], [2, 60], [90, 5]]])
    maps = heat_maps(places, np.array([10, 8, 1]), 64, 96)
    assert maps[0, 30, 30] > 250 and maps[0, 20:40, 20:40].min() >= 0 and not maps[0, :18].any()
    assert maps[0, 52:63, 0:10].max() > 200, "at the border it is squeezed, so its middle is there"
    assert not maps[0, :12, 84:].any(), "too small for a stamp"
    labels = labels_of(places, np.array([10, 8, 1]), 64, 96)
    assert [int(labels[0, y, x]) for y, x in ((30, 30), (60, 2), (5, 90), (40, 60))] == [1, 2, 3, 0]
    above = labels_of(np.array([[[30, 30], [30, 30]]]), np.array([10, 5]), 64, 96)[0]
    assert (above[30, 30], above[30, 38]) == (2, 1), "a later thing covers an earlier one"


def test_looks_are_means_over_the_thing_in_pairs_of_channels() -> None:
    features = torch.arange(4 * 8 * 12, dtype=torch.float32).reshape(4, 8, 12)
    mask = np.zeros((64, 96), bool)
    mask[16:32, 8:24] = True
    found = look_of(features, mask, GRID)
    assert torch.allclose(found, features[:, 2:4, 1:3].mean(dim=(1, 2)))
    tiny = np.zeros((64, 96), bool)
    tiny[17, 25] = True
    assert torch.equal(look_of(features, tiny, GRID), features[:, 2, 3]), "the cell below it"
    table = table_of(torch.tensor([[1.0, 3.0, 5.0, 7.0]]), "vector")
    assert table.tolist() == [[0, 0], [2, 6]]
    assert table_of(torch.tensor([[1.0, 3.0, 5.0, 7.0]]), "release-scalar").tolist() == [[0, 0], [1, 1]]


def test_masks_are_the_scenes_else_cut_out_before_anything_is_loaded() -> None:
    picture = np.full((64, 96, 3), 40, np.uint8)
    picture[20:40, 20:40] = (220, 60, 30)
    box = Box(left=14, top=14, right=46, bottom=46)
    path = (Key(time=0, x=30, y=30), Key(time=1, x=60, y=30))
    scene = Scene(image=Image.fromarray(picture), motions=(Motion(box=box, path=path), Motion(box=box)))
    tracks = tracks_of(scene, GRID)
    cut, whole = DragAnything().masks(tracks).values()
    thing = np.zeros((64, 96), bool)
    thing[20:40, 20:40] = True
    assert (cut ^ thing).sum() < 60 and whole.sum() == 32 * 32, "a pin is its whole box"
    plain = replace(scene, image=Image.new("RGB", (96, 64), (9, 9, 9)))
    with pytest.raises(FieldError, match=r"^motions\[0\]\.box: .*or give the motion a mask"):
        DragAnything().remarks(tracks_of(plain, GRID), GRID)


def test_camera_motions_are_left_out_by_drag_anything_and_said() -> None:
    box = Box(left=14, top=14, right=46, bottom=46)
    path = (Key(time=0, x=30, y=30), Key(time=1, x=60, y=30))
    camera = Motion(box=box, path=path, kind="camera")
    both = Scene(image=Image.new("RGB", (96, 64)), motions=(camera, Motion(box=box)))
    tracks = tracks_of(both, GRID)
    assert DragAnything().unheeded(tracks, GRID) == ("camera motions",)
    assert len(DragAnything().masks(tracks)) == 1 and DragNUWA().unheeded(tracks, GRID) == ()
    alone = tracks_of(replace(both, motions=(camera,)), GRID)
    with pytest.raises(FieldError, match=r"^motions: drag-anything follows object motions, and there are none"):
        DragAnything().remarks(alone, GRID)


@pytest.mark.parametrize(
    ("kind", "values", "field"),
    [
        (DragNUWA, {"outside": "wrap"}, "outside"),
        (DragAnything, {"entity": "scalar"}, "entity"),
        (DragAnything, {"context_order": "old"}, "context_order"),
        (DragAnything, {"largest_radius": 0}, "largest_radius"),
    ],
)
def test_fields_are_checked(kind: type[Controller], values: dict[str, object], field: str) -> None:
    with pytest.raises(FieldError, match=rf"^controller\.{field}"):
        controller_from_dict({"name": kind.name, **values})


@pytest.mark.long
@pytest.mark.parametrize("system", ["dragnuwa", "draganything"])
def test_a_recording_of_a_trained_system_is_met(system: str, tmp_path: Path) -> None:
    folder = SHARED.parent / "peers" / system
    if not folder.is_dir():
        pytest.skip("the folder shared/ with recordings of other systems is not beside this checkout")
    from peer_recordings import system_of

    parts = system_of(folder)
    assert parts is not None
    found = list(parts(folder, tmp_path))
    assert len(found) > 10 and [str(part) for part in found if not part.met] == []

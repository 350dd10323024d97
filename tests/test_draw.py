"""Drawings: they show what they should where they should, and leave the rest of the picture alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sgi2v.camera import Camera, camera_motions
from sgi2v.draw import CAMERA_COLOR, PALETTE, draw_tracks, preview, side_by_side
from sgi2v.grid import Grid, Track, tracks_of
from sgi2v.scene import Box, Key, Motion, Scene
from sgi2v.scene_io import load_scene

PUBLISHED = Path(__file__).parents[1].parent / "shared" / "examples"
SHIPPED = Path(__file__).parents[1] / "src" / "sgi2v" / "assets" / "scenes"
GREY = torch.full((5, 3, 96, 160), 0.5)


def moving(kind: str = "object") -> Track:
    left = np.linspace(20, 100, 5)
    boxes = np.stack([left, np.full(5, 30.0), left + 40, np.full(5, 60.0)], axis=1).astype(np.float32)
    return Track(boxes=boxes, kind="camera" if kind == "camera" else "object")


def is_near(pixel: torch.Tensor, color: tuple[int, int, int], tolerance: float = 0.25) -> bool:
    return bool((pixel - torch.tensor(color) / 255).abs().max() < tolerance)


def test_the_box_is_where_it_is_at_that_frame() -> None:
    drawn = draw_tracks(GREY, [moving()])
    for frame, left in enumerate((20, 40, 60, 80, 100)):
        for x, y in ((left, 45), (left + 39, 45), (left + 20, 30), (left + 20, 59)):
            window = drawn[frame, :, y - 1 : y + 2, x - 1 : x + 2].flatten(1).T
            assert any(is_near(pixel, PALETTE[0]) for pixel in window), (frame, x, y)
        assert drawn[frame, :, 2:20].eq(0.5).all() and drawn[frame, :, 70:].eq(0.5).all()


def test_frames_stay_in_range_and_the_given_ones_untouched() -> None:
    frames = torch.rand(5, 3, 96, 160)
    before = frames.clone()
    drawn = draw_tracks(frames, [moving(), moving("camera")])
    assert torch.equal(frames, before)
    assert drawn.dtype == torch.float32 and drawn.shape == frames.shape
    assert drawn.min() >= 0 and drawn.max() <= 1
    assert torch.equal(draw_tracks(frames, []), frames)


def test_what_leaves_the_picture_is_cut() -> None:
    track = moving()
    far = Track(boxes=track.boxes + np.float32(1000))
    drawn = draw_tracks(GREY, [far])
    assert torch.equal(drawn, GREY)


def test_objects_differ_in_colour_and_camera_boxes_are_white_and_dashed() -> None:
    assert len({*PALETTE, CAMERA_COLOR}) == len(PALETTE) + 1
    still = np.tile(np.array([[20, 30, 140, 70]], dtype=np.float32), (5, 1))
    edge = draw_tracks(GREY, [Track(boxes=still, kind="camera")])[0, :, 30, 24:136]
    solid = draw_tracks(GREY, [Track(boxes=still)])[0, :, 30, 24:136]
    assert (edge > 0.6).all(0).any() and (edge <= 0.5).all(0).any()
    assert solid.std(dim=1).max() < 0.01


def test_a_track_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"tracks\[0\]: 5 frames; give 4"):
        draw_tracks(GREY[:4], [moving()])


def test_lines_grow_with_the_frame() -> None:
    def thickness(scale: int) -> int:
        boxes = np.tile(np.array([[20, 30, 140, 70]], dtype=np.float32), (1, 1)) * scale
        frames = torch.zeros(1, 3, 100 * scale, 160 * scale)
        column = draw_tracks(frames, [Track(boxes=boxes)])[0, 0, : 50 * scale, 40 * scale]
        return int((column > 0.5).sum())

    assert thickness(1) <= 2 < thickness(8) <= 8


def test_clips_stand_side_by_side_under_their_titles() -> None:
    one, other = torch.rand(3, 3, 33, 47), torch.rand(3, 3, 33, 47)
    sheet = side_by_side([("no control", one), ("controlled", other)])
    assert sheet.shape[0] == 3 and sheet.shape[2] % 2 == 0 and sheet.shape[3] % 2 == 0
    bar = next(top for top in range(60) if torch.equal(sheet[:, :, top : top + 33, :47], one))
    assert any(torch.equal(sheet[:, :, bar : bar + 33, left : left + 47], other) for left in range(47, 60))
    for half in (sheet[0, :, :bar, :47], sheet[0, :, :bar, -47:]):
        assert half.max() > 0.7  # there is something written


def test_a_long_title_stays_over_its_clip() -> None:
    clip = torch.zeros(1, 3, 64, 96)
    sheet = side_by_side([("a title that is far too long for a clip of this size", clip), ("", clip)])
    assert sheet[0, :, :, 98:].max() < 0.2


def test_clips_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"clips\[1\]: \(3, 3, 8, 9\) is another shape"):
        side_by_side([("a", torch.zeros(3, 3, 8, 8)), ("b", torch.zeros(3, 3, 8, 9))])
    with pytest.raises(ValueError, match=r"clips: none"):
        side_by_side([])


def test_a_preview_shows_box_path_mask_and_end() -> None:
    image = Image.new("RGB", (300, 200), (128, 128, 128))
    mask = Image.new("L", (300, 200))
    mask.paste(255, (210, 150, 250, 180))
    path = (Key(time=0, x=60, y=60), Key(time=1, x=200, y=60))
    motion = Motion(box=Box(left=40, top=40, right=80, bottom=80), path=path, mask=mask)
    shown = np.asarray(preview(Scene(image=image, motions=(motion,))), dtype=float)
    assert shown.shape == (200, 300, 3)
    assert np.abs(shown[60, 130] - PALETTE[0]).max() < 90  # on the path
    assert np.abs(shown[40, 52] - PALETTE[0]).max() < 90  # on the box
    assert np.abs(shown[40, 190] - 128).max() > 20  # on the faint box at its end
    assert np.allclose(shown[165, 230], 0.65 * 128 + 0.35 * np.array(PALETTE[0]), atol=1)  # on the mask
    assert (shown[120, 20] == 128).all()


def test_a_large_image_is_previewed_small() -> None:
    scene = Scene(image=Image.new("RGB", (4000, 1000)), motions=camera_motions(Camera(), (4000, 1000)))
    assert preview(scene).size == (1600, 400)
    assert preview(scene, max_side=100).size == (100, 25)


@pytest.mark.parametrize("name", ["cat", "coffee", "galaxies", "rocket", "shapes"])
def test_shipped_scenes_are_previewed(name: str) -> None:
    scene = load_scene(SHIPPED / name)
    shown = preview(scene)
    assert shown.size == scene.image.size and shown != scene.image


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="shared/examples, the scenes published with SG-I2V, are not here")
def test_published_scenes_are_previewed_and_drawn_small() -> None:
    for folder in sorted(path.parent for path in PUBLISHED.glob("*/traj.npy")):
        scene = load_scene(folder)
        shown = preview(scene, max_side=400)
        assert shown.size == (400, 225)
        tracks = tracks_of(scene, Grid(width=192, height=128, num_frames=14))
        frames = torch.from_numpy(np.array(tracks.image)).permute(2, 0, 1).float().expand(14, -1, -1, -1) / 255
        drawn = draw_tracks(frames, tracks.tracks)
        changed = (drawn != frames).any(1).float().mean()
        assert 0 < changed < 0.5  # seen, and the picture not covered

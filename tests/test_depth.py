"""Depth on a photo: sizes along the ground, who passes in front, a picture or a tiny real network."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tiny_vision
from sgi2v.cli import main
from sgi2v.cut_and_drag import dragged_clip
from sgi2v.errors import FieldError
from sgi2v.grid import Grid, tracks_of
from sgi2v.prompting.depth import FAR, LARGEST, depth_of, with_depth
from sgi2v.scene import Scene
from sgi2v.scene_io import load_scene

SIZE = (200, 160)


@pytest.fixture
def plane(tmp_path: Path) -> Path:
    """Ground that comes nearer from the horizon, at the top, to the lower edge."""
    values = np.tile(np.linspace(0, 255, 160)[:, None], (1, 200)).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "depth.png")
    return tmp_path / "depth.png"


def photo() -> Image.Image:
    picture = np.full((160, 200, 3), 120, dtype=np.uint8)
    picture[60:80, 20:40] = (200, 30, 30)
    picture[90:120, 120:150] = (30, 30, 200)
    return Image.fromarray(picture)


def near_at(y: float) -> float:
    return FAR + (1 - FAR) * y / 159


def test_a_thing_grows_as_its_foot_comes_nearer(plane: Path) -> None:
    scene = Scene.of(photo(), drags=["20,60,40,80 -> by 60,50"])
    near = depth_of(plane, scene.image)
    assert near.shape == (160, 200) and near.min() == FAR and near.max() == 1
    (motion,) = with_depth(scene, near).motions
    scales = motion.scales(5)
    wanted = [near_at(80 + 50 * k / 4) / near_at(80) for k in range(5)]
    assert np.allclose(scales, wanted, rtol=0.02)
    for k, box in enumerate(motion.boxes_at([0, 0.25, 0.5, 0.75, 1])):  # its foot keeps to the way
        assert box.bottom == pytest.approx(80 + 50 * k / 4, abs=0.3)
        assert box.center[0] == pytest.approx(30 + 60 * k / 4, abs=1e-6)
    away = with_depth(Scene.of(photo(), drags=["20,60,40,80 -> by 0,-70"]), near).motions[0]
    assert away.scales(2)[1] == pytest.approx(near_at(10) / near_at(80), rel=0.1)
    assert 1 / LARGEST <= away.scales(9).min() < 0.5


def test_a_size_that_is_said_and_what_does_not_move_are_left(plane: Path) -> None:
    drags = ["20,60,40,80 -> by 60,50 scale 2"]
    scene = Scene.of(photo(), drags=drags, pins=["120,90,150,120"], camera="zoom 1.1")
    assert with_depth(scene, depth_of(plane, scene.image)) == scene


def test_the_nearer_passes_in_front(plane: Path) -> None:
    """Two things that cross: the one that stands lower is on top, whichever was named first."""
    texts = ["blue: 120,90,150,120 -> by -60,0", "red: 20,60,40,80 -> by 60,20"]
    near = depth_of(plane, photo())
    for drags in (texts, texts[::-1]):
        scene = with_depth(Scene.of(photo(), drags=drags), near)
        assert [motion.name for motion in scene.motions] == ["blue", "red"]
        grid = Grid(width=200, height=160, num_frames=9, stride=1)
        tracks = tracks_of(scene, grid)
        frame = dragged_clip(tracks, 9).frames[-1]
        blue, red = (track.boxes[-1] for track in tracks.tracks)
        left, top = max(red[0], blue[0]), max(red[1], blue[1])
        right, bottom = min(red[2], blue[2]), min(red[3], blue[3])
        assert right - left > 4 and bottom - top > 4
        x, y = int((left + right) / 2), int((top + bottom) / 2)
        assert frame[2, y, x] > 0.6 > frame[0, y, x]


def test_depth_anything_is_asked(tmp_path: Path) -> None:
    """Weights are random: that the network's own answer is taken, at the photo's size, is what is looked at."""
    import torch
    from transformers import AutoImageProcessor, DepthAnythingForDepthEstimation

    folder = tiny_vision.depth_anything(tmp_path / "depth")
    near = depth_of(folder, photo(), device="cpu")
    assert near.shape == (160, 200) and near.min() == pytest.approx(FAR) and near.max() == pytest.approx(1)
    network = DepthAnythingForDepthEstimation.from_pretrained(folder).eval()
    with torch.no_grad():
        answer = network(**AutoImageProcessor.from_pretrained(folder)(images=photo(), return_tensors="pt"))
    raw = answer.predicted_depth[0].numpy()
    wide = np.asarray(Image.fromarray(raw).resize(SIZE, Image.Resampling.BILINEAR), dtype=np.float64)
    assert np.corrcoef(wide.ravel(), near.ravel())[0, 1] > 0.9999


def test_what_is_no_depth_is_refused(tmp_path: Path, plane: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("L", (9, 9), 70).save(tmp_path / "flat.png")
    with pytest.raises(FieldError, match="is the same everywhere"):
        depth_of(tmp_path / "flat.png", photo())
    with pytest.raises(FieldError, match=r"^depth: \(160, 200\) is not the photo's shape"):
        with_depth(Scene.of(Image.new("RGB", (9, 9)), drags=["1,1 -> 2,2"]), np.ones((160, 200)))
    photo().save(tmp_path / "photo.png")
    for wrong, line in ((tmp_path, "holds no config.json"), (tmp_path / "no.png", "is no picture and no folder")):
        assert main(["preview", str(tmp_path / "photo.png"), "--drag", "9,9 -> 20,20", "--depth", str(wrong)]) == 2
        assert line in capsys.readouterr().err
    out = tmp_path / "made.json"
    words = ["convert", str(tmp_path / "photo.png"), str(out), "--drag", "20,60,40,80 -> 80,120", "--depth", str(plane)]
    assert main(words) == 0
    assert load_scene(out).motions[0].path[-1].scale > 1.3

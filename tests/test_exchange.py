"""Other people's files of wanted motion: read, written and read again, and refused in one line."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from sgi2v.cli import main
from sgi2v.cut_and_drag import dragged_clip
from sgi2v.errors import FieldError
from sgi2v.exchange import read_scene, write_scene
from sgi2v.exchange.forms import form_of
from sgi2v.exchange.paths import PointPaths, ati_bytes, read_ati, read_splines, splines_json
from sgi2v.grid import Grid, tracks_of
from sgi2v.reference import Reference
from sgi2v.scene import Scene
from sgi2v.scene_io import load_scene

SIZE = (96, 64)


@pytest.fixture
def scene() -> Scene:
    """A red block that goes right and grows, a blue one that stays, and a prompt."""
    image = Image.new("RGB", SIZE, (120, 130, 120))
    draw = ImageDraw.Draw(image)
    draw.rectangle((10, 20, 29, 39), fill=(200, 30, 30))
    draw.rectangle((60, 40, 79, 59), fill=(30, 30, 200))
    drags = ["red: 10,20,30,40 -> 40,30 -> 50,20 scale 1.5"]
    return Scene.of(image, drags=drags, pins=["60,40,80,60"], prompt="two blocks")


def centers(made: Scene, num_frames: int) -> np.ndarray:
    """Of every motion the middle of its box in every frame."""
    times = np.linspace(0, 1, num_frames)
    return np.array([[box.center for box in motion.boxes_at(times)] for motion in made.motions])


@pytest.mark.parametrize(
    ("form", "name", "num_frames"),
    [("splines", "a.json", 9), ("wan-move", "a_tracks.npy", 9), ("ati", "a.pth", 121), ("drag-anything", "a.json", 9)],
)
def test_points_come_back(scene: Scene, tmp_path: Path, form: str, name: str, num_frames: int) -> None:
    lost = write_scene(scene, tmp_path / name, form, num_frames=num_frames)  # type: ignore[arg-type]
    found = read_scene(tmp_path / name)
    assert found.form == form and found.scene.image == scene.image and found.lost == ()
    tolerance = 1e-12 if form in ("splines", "drag-anything") else 1e-4
    assert np.allclose(centers(found.scene, num_frames), centers(scene, num_frames), atol=tolerance)
    assert "growing and shrinking" in lost and "names" in lost
    assert [bool(motion.path) for motion in found.scene.motions] == [True, False]


def test_drag_anything_keeps_boxes_as_masks(scene: Scene, tmp_path: Path) -> None:
    write_scene(scene, tmp_path / "a.json", "drag-anything")
    data = json.loads((tmp_path / "a.json").read_text())
    assert set(data) == {"1", "2"} and len(data["1"]["trajectory"]) == 14
    boxes = [motion.box for motion in read_scene(tmp_path / "a.json").scene.motions]
    assert boxes == [motion.box for motion in scene.motions]
    data["1"]["mask_name"] = "../../etc/passwd"  # is not followed: the thing is a point then
    (tmp_path / "a.json").write_text(json.dumps(data))
    assert read_scene(tmp_path / "a.json").scene.motions[0].mask is None


def test_the_forms_are_those_that_others_read(scene: Scene, tmp_path: Path) -> None:
    """Shapes, units and types as the projects' own readers take them."""
    write_scene(scene, tmp_path / "t_tracks.npy", "wan-move", num_frames=81)
    tracks, seen = np.load(tmp_path / "t_tracks.npy"), np.load(tmp_path / "t_visibility.npy")
    assert tracks.shape == (81, 2, 2) and seen.shape == (81, 2) and tracks.dtype == np.float32
    write_scene(scene, tmp_path / "t.pth", "ati")
    packed = torch.load(tmp_path / "t.pth", weights_only=True)
    array = np.load(io.BytesIO(packed))["array"]
    assert array.shape == (2, 121, 1, 3)
    assert np.allclose(array[:, 0, 0], [[20 * 8, 30 * 8, 8], [70 * 8, 50 * 8, 8]])
    write_scene(scene, tmp_path / "s.json", "splines", num_frames=5)
    splines = json.loads((tmp_path / "s.json").read_text())
    assert [len(one) for one in splines] == [5, 5] and splines[0][0] == {"x": 20.0, "y": 30.0}


places = st.floats(-50, 150).map(lambda x: round(x, 3))


@given(st.lists(st.lists(st.tuples(places, places), min_size=3, max_size=3), min_size=1, max_size=4))
@settings(max_examples=30)
def test_splines_and_tracks_are_their_own_opposites(ways: list[list[tuple[float, float]]]) -> None:
    paths = PointPaths(places=np.array(ways, dtype=np.float64), visible=np.ones((len(ways), 3)))
    again = read_splines(json.loads(splines_json(paths)))
    assert (again.places == paths.places).all()
    for wrapped in ({"coordinates": splines_json(paths)}, splines_json(paths)):
        assert (read_splines(wrapped).places == paths.places).all()


def test_a_single_spline_and_splines_of_several_lengths() -> None:
    assert read_splines([{"x": 1, "y": 2}, {"x": 3, "y": 4}]).places.tolist() == [[[1, 2], [3, 4]]]
    two = read_splines([[{"x": 0, "y": 0}, {"x": 4, "y": 8}], [{"x": 0, "y": 0}] * 5])
    assert two.places.shape == (2, 5, 2) and two.places[0, 2].tolist() == [2, 4]


def test_points_unseen_or_off_the_picture_are_told_of(scene: Scene, tmp_path: Path) -> None:
    tracks = np.zeros((4, 300, 2)) + 5
    tracks[:, :, 0] += np.arange(4)[:, None]
    tracks[0, 0] = (-3, 5)
    seen = np.ones((4, 300), dtype=bool)
    seen[0, 1] = seen[2, 5] = False
    np.save(tmp_path / "x_tracks.npy", tracks)
    np.save(tmp_path / "x_visibility.npy", seen)
    scene.image.save(tmp_path / "x_tracks.png")
    found = read_scene(tmp_path / "x_tracks.npy")
    assert len(found.scene.motions) == 256
    assert found.lost[0] == "2 points that begin unseen or off the picture"
    assert found.lost[1].startswith("42 of 298 points") and found.lost[2] == "when points are not seen"


def test_time_to_moves_folder_is_the_cut_and_drag_clip(scene: Scene, tmp_path: Path) -> None:
    lost = write_scene(scene, tmp_path / "ttm", "time-to-move", num_frames=6)
    assert lost == ["boxes and paths: only the clip that they make is there"]
    assert {file.name for file in (tmp_path / "ttm").iterdir()} == {
        "first_frame.png", "motion_signal.mp4", "mask.mp4", "prompt.txt",
    }  # fmt: skip
    found = read_scene(tmp_path / "ttm").scene
    assert found.image == scene.image and found.prompt == "two blocks" and found.reference is not None
    grid = Grid(width=96, height=64, num_frames=6, stride=1)
    clip = dragged_clip(tracks_of(scene, grid), 6)
    wanted = clip.frames.permute(0, 2, 3, 1).numpy()
    read = np.stack([np.asarray(frame) for frame in found.reference.frames]) / 255
    assert np.abs(read - wanted).mean() < 0.02
    masks = np.stack([np.asarray(mask) for mask in found.reference.masks]) > 127
    assert (masks == (clip.masks.numpy() > 0.5)).mean() > 0.99
    again = write_scene(found, tmp_path / "again", "time-to-move", num_frames=6)
    assert again == [] and isinstance(read_scene(tmp_path / "again").scene.reference, Reference)


def test_a_video_of_boxes_comes_back_with_their_sizes(scene: Scene, tmp_path: Path) -> None:
    lost = write_scene(scene, tmp_path / "boxes.mp4", "magic-motion", num_frames=9)
    assert lost == ["names"]
    found = read_scene(tmp_path / "boxes.mp4")
    assert found.form == "magic-motion" and len(found.scene.motions) == 2
    times = np.linspace(0, 1, 9)
    for wanted, read in zip(scene.motions, sorted(found.scene.motions, key=lambda m: m.box.left), strict=True):
        for one, other in zip(wanted.boxes_at(times), read.boxes_at(times), strict=True):
            assert np.allclose([*one.center, one.width], [*other.center, other.width], atol=2.5)


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    """Five masks of two things in DAVIS's folders: one moves right, one goes out of sight, a third comes later."""
    frames, masks = (tmp_path / name / "480p" / "clip" for name in ("JPEGImages", "Annotations"))
    frames.mkdir(parents=True)
    masks.mkdir(parents=True)
    Image.new("RGB", SIZE, "gray").save(frames / "00000.jpg")
    for index in range(5):
        values = np.zeros((64, 96), dtype=np.uint8)
        values[10:30, 5 + 10 * index : 25 + 10 * index] = 1
        if index < 3:
            values[40:60, 60:90] = 2
        if index:
            values[0:5, 80:96] = 3
        mask = Image.fromarray(values, "P")
        mask.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0, 0, 0, 200])
        mask.save(masks / f"{index:05d}.png")
    return masks


def test_masks_of_a_data_set_become_boxes_and_paths(davis: Path) -> None:
    found = read_scene(davis)
    assert found.form == "masks"
    one, two = found.scene.motions
    assert (one.box.left, one.box.top, one.box.right, one.box.bottom) == (5, 10, 25, 30)
    assert one.centers(5)[:, 0].tolist() == [15, 25, 35, 45, 55] and set(one.scales(5)) == {1.0}
    assert one.mask is not None and one.mask.getbbox() == (5, 10, 25, 30)
    assert len(two.path) == 3
    assert found.lost == (
        "1 things that come later",
        "frames in which thing 2 is hidden",
        "outlines after the first frame",
    )


def test_the_command_converts_both_ways_and_says_what_was_lost(
    davis: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["convert", str(davis), "made.json"]) == 0
    told = capsys.readouterr()
    assert told.out.strip() == "made.json" and "lost: clip: frames in which thing 2 is hidden" in told.err
    assert len(load_scene("made.json").motions) == 2
    for name, words in (
        ("t.npy", []), ("t.pth", []), ("t.mp4", []), ("t.json", ["--to", "splines"]),
        ("u.json", ["--to", "drag-anything"]), ("ttm", ["--to", "time-to-move"]), ("published", []),
    ):  # fmt: skip
        if name == "published":
            assert main(["convert", "made.json", name, "--num-frames", "5"]) == 0
            assert (tmp_path / name / "traj.npy").is_file()
            continue
        assert main(["convert", "made.json", name, *words]) == 0, capsys.readouterr().err
        assert main(["convert", name, f"back-{name.replace('.', '-')}.json"]) == 0, capsys.readouterr().err
    assert main(["convert", "made.json", "a.gif"]) == 2
    assert "output: 'a.gif' is neither" in capsys.readouterr().err


def test_what_is_no_such_file_is_refused_in_one_line(scene: Scene, tmp_path: Path) -> None:
    scene.image.save(tmp_path / "x.png")

    def refused(name: str, data: bytes, line: str) -> None:
        (tmp_path / name).write_bytes(data)
        with pytest.raises(FieldError, match=line) as error:
            read_scene(tmp_path / name)
        assert "\n" not in str(error.value)

    refused("x.json", b"[]", r"^splines: \[\] is no list of points")
    refused("x.json", b'[[{"x": 1}]]', r"^splines\[0\]\[0\]: .* is no point")
    refused("x.json", b'[[{"x": 1, "y": 1e400}]]', r"^splines\[0\]\[0\]: .* is no point")
    refused("x.json", b'{"coordinates": "[["}', r"^splines: no JSON")
    refused("x.json", b'{"1": {"trajectory": 3}}', r"^1\.trajectory: 3 is no list of points")
    refused("x.json", b"{}", r"^format: None is not a scene")
    refused("x.npy", b"\x93NUMPY", r"^tracks: no NumPy array")
    array = io.BytesIO()
    np.save(array, np.zeros((3, 4)))
    refused("x.npy", array.getvalue(), r"^tracks: its shape is \(3, 4\)")
    pickled = io.BytesIO()
    np.save(pickled, np.array([{}], dtype=object), allow_pickle=True)
    refused("x.npy", pickled.getvalue(), r"^tracks: no NumPy array")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("other.npy", b"x")
    refused("x.pth", archive.getvalue(), r"^tracks: .* holds no array of bearable size")
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("array.npy", bytes(70 * 2**20))
    refused("x.pth", bomb.getvalue(), r"^tracks: .* unpacks to more than")
    code = io.BytesIO()
    torch.save({"f": print}, code)
    refused("x.pth", code.getvalue(), r"^tracks: .* cannot be read")
    (tmp_path / "y.npy").write_bytes(array.getvalue())
    with pytest.raises(FieldError, match=r"^photo: y.npy holds no picture; give it with --photo"):
        read_scene(tmp_path / "y.npy")


def test_forms_are_told_by_content(scene: Scene, tmp_path: Path) -> None:
    for form, name in (("splines", "a.json"), ("ati", "b.bin"), ("wan-move", "c.bin"), ("magic-motion", "d.mp4")):
        write_scene(scene, tmp_path / name, form)  # type: ignore[arg-type]
        assert form_of(tmp_path / name) == form
    points = read_ati(tmp_path / "b.bin")
    assert ati_bytes(points) and points.places.shape == (2, 121, 2)

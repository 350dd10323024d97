"""The published folders of img.png and traj.npy: bit by bit both ways, and nothing else is taken for one."""

import io
import pickle
import struct
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sgi2v.images import png_bytes
from sgi2v.scene import Box, Key, Motion, Scene
from sgi2v.scene_io import load_scene, load_traj, save_scene, save_traj

PUBLISHED = Path(__file__).parents[1].parent / "shared" / "examples"
published = sorted(path.parent for path in PUBLISHED.glob("*/traj.npy"))


@pytest.mark.skipif(not published, reason="shared/examples, the scenes published with SG-I2V, are not here")
@pytest.mark.parametrize("folder", published, ids=lambda path: path.name)
def test_published_scenes_survive_json_and_traj_bit_by_bit(folder: Path, tmp_path: Path) -> None:
    scene = load_scene(folder)
    tracks = np.load(folder / "traj.npy")
    assert len(scene.motions) == len(tracks)
    save_scene(scene, tmp_path / "json")
    again = load_scene(tmp_path / "json")
    assert again == scene
    save_traj(again, tmp_path / "traj")
    written = np.load(tmp_path / "traj" / "traj.npy")
    assert written.dtype == tracks.dtype and written.tobytes() == np.ascontiguousarray(tracks).tobytes()
    assert load_scene(tmp_path / "traj") == scene
    with Image.open(folder / "img.png") as image:
        assert scene.image.tobytes() == image.convert("RGB").tobytes()


def test_all_published_scenes_are_here_or_none() -> None:
    if not published:
        pytest.skip("shared/examples, the scenes published with SG-I2V, are not here")
    assert len(published) == 16


def folder_with(tmp_path: Path, traj: bytes) -> Path:
    (tmp_path / "img.png").write_bytes(png_bytes(Image.new("RGB", (40, 30))))
    (tmp_path / "traj.npy").write_bytes(traj)
    return tmp_path


def npy(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


TRACKS = np.array([[[2, 3], [8, 9], [5, 6], [7.5, 6], [39, -4]]], dtype=np.float64)


def test_published_centres_become_keys_verbatim(tmp_path: Path) -> None:
    scene = load_scene(folder_with(tmp_path, npy(TRACKS + 0.25)))
    (motion,) = scene.motions
    assert motion.box == Box(left=2.25, top=3.25, right=8.25, bottom=9.25)
    assert [(key.time, key.x, key.y) for key in motion.path] == [
        (0, 5.25, 6.25),
        (0.5, 7.75, 6.25),
        (1, 39.25, -3.75),
    ]
    assert motion.centers(3).tolist() == (TRACKS[0, 2:] + 0.25).tolist()
    assert motion.centers(5)[1].tolist() == [6.5, 6.25]


@pytest.mark.parametrize("kind", ["i2", "i4", "<i8", ">i8", "u1", "u8", "f2", "f4", ">f4", ">f8", "g"])
def test_every_real_type_is_read_exactly(kind: str, tmp_path: Path) -> None:
    tracks = TRACKS.clip(0).astype(kind)
    scene = load_scene(folder_with(tmp_path, npy(tracks)))
    assert scene == load_scene(folder_with(tmp_path, npy(np.array(tracks.tolist(), dtype=np.float64))))
    assert [key.x for key in scene.motions[0].path] == [5, 7.5 if tracks.dtype.kind == "f" else 7, 39]


def test_single_precision_is_kept_to_the_bit(tmp_path: Path) -> None:
    tracks = (TRACKS + 0.1).astype(np.float32)
    (motion,) = load_scene(folder_with(tmp_path, npy(tracks))).motions
    assert motion.path[0].x == float(tracks[0, 2, 0]) != 5.1


def lying_header(shape: str) -> bytes:
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}"
    header = header.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(80)


@pytest.mark.parametrize(
    ("traj", "message"),
    [
        (npy(TRACKS.astype(np.complex128)), r"traj.npy: its type is 'complex128'; give numbers \[boxes"),
        (npy(TRACKS.astype("U4")), r"traj.npy: its type is '<U4'"),
        (npy(TRACKS > 5), r"traj.npy: its type is 'bool'"),
        (npy((TRACKS + 2**53 + 1).astype(np.int64) + 1), r"traj.npy: it holds numbers of type int64 that float64"),
        (npy(TRACKS.astype(np.longdouble) + np.longdouble("1e-18")), r"traj.npy: it holds numbers of type"),
        (npy(TRACKS[0]), r"traj.npy: its shape is \(5, 2\)"),
        (npy(TRACKS[..., :1]), r"traj.npy: its shape is \(1, 5, 1\)"),
        (npy(TRACKS[:, :3]), r"traj.npy: its shape is \(1, 3, 2\).* with 2 frames or more"),
        (npy(np.float64(3)), r"traj.npy: its shape is \(\)"),
        (npy(np.zeros((300, 5, 2))), r"traj.npy: its shape is \(300, 5, 2\); give at most 256"),
        (npy(np.array([{"a": 1}]), allow_pickle=True), r"traj.npy: its type is 'object'"),
        (pickle.dumps(TRACKS), r"traj.npy: .* is not a NumPy array file"),
        (b"", r"traj.npy: .* is not a NumPy array file"),
        (npy(TRACKS)[:-1], r"traj.npy: .* bytes are not what its shape"),
        (lying_header("(200, 9999, 2)"), r"traj.npy: .* bytes are not what its shape"),
        (lying_header(f"({10**15}, 9999, 2)"), r"traj.npy: its shape is .* give at most 256"),
        (lying_header("(-1, -5, 2)"), r"traj.npy: its shape is"),
        (npy(TRACKS * np.nan), r"traj.npy\[0\]\.left: nan is not finite"),
        (npy(TRACKS * [[[1], [1], [1], [np.inf], [1]]]), r"traj.npy\[0\]\.x: inf is not finite"),
        (npy(TRACKS[:, [1, 0, 2, 3]]), r"traj.npy\[0\]\.right: 2\.0 is not right of left"),
        (npy(TRACKS + np.array([33, 0])), r"motions\[0\]\.box\.right: 41\.0 leaves the image of 40x30"),
    ],
)
def test_a_bad_traj_is_refused(traj: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as error:
        load_scene(folder_with(tmp_path, traj))
    assert "\n" not in str(error.value)


def test_a_zipped_traj_is_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.savez(file, TRACKS)
    with pytest.raises(ValueError, match=r"is not a NumPy array file"):
        load_traj(folder_with(tmp_path, file.getvalue()))


@given(st.data())
def test_no_traj_gives_any_other_error(data: st.DataObject) -> None:
    raw = bytearray(npy(TRACKS))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw
    with TemporaryDirectory() as folder:
        try:
            load_traj(folder_with(Path(folder), bytes(raw)))
        except ValueError as error:
            assert "\n" not in str(error)


def test_traj_refuses_a_scale_it_cannot_hold(tmp_path: Path) -> None:
    path = (Key(time=0, x=3, y=4), Key(time=1, x=9, y=4, scale=2))
    box = Box(left=1, top=2, right=5, bottom=6)
    scene = Scene(image=Image.new("RGB", (12, 8)), motions=(Motion(box=box, path=path),))
    with pytest.raises(ValueError, match=r"motions\[0\]\.path: its scale changes, which traj.npy cannot hold"):
        save_traj(scene, tmp_path / "new")
    with pytest.raises(ValueError, match=r"num_frames: 1 is too few"):
        save_traj(scene, tmp_path / "new", num_frames=1)
    assert not (tmp_path / "new").exists()

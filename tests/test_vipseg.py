"""A miniature VIPSeg on disk: what the protocol chooses, in both layouts, and what it says about each fault."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sgi2v.evaluation.datasets import Cases
from sgi2v.evaluation.vipseg import Protocol, load_vipseg
from sgi2v.evaluation.vipseg_list import load_list, save_list
from sgi2v.grid import Grid, fit_image, tracks_of

SIZE: dict[str, Any] = {"width": 64, "height": 32, "num_frames": 4}
WIDTH, HEIGHT = 128, 64


def video(root: Path, name: str, *, num_frames: int = 5, layout: str = "imgs", step: int = 8) -> None:
    """A car (value 12603) of 24x16 pixels that moves by `step` a frame over a pinned chair (value 13001), road and
    void; a value of 200 and a fly too small to count."""
    images, masks = root / layout / name, root / "panomasks" / name
    images.mkdir(parents=True)
    masks.mkdir(parents=True)
    for frame in range(num_frames):
        ids = np.full((HEIGHT, WIDTH), 7, dtype=np.uint16)
        ids[:4] = 0
        ids[40:60, 100:120] = 13001
        ids[20:36, 8 + step * frame : 32 + step * frame] = 12603
        ids[60:, :40] = 200
        ids[10:12, 10:12] = 15002
        pixels = np.stack([ids % 251, ids // 100, ids % 13 * 10], -1).astype(np.uint8)
        Image.fromarray(pixels).save(images / f"{frame:08d}.jpg", quality=95)
        Image.fromarray(ids).save(masks / f"{frame:08d}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "VIPSeg"
    for name in ("a_1", "b_2"):
        video(folder, name)
    video(folder, "in_training")
    (folder / "val.txt").write_text("a_1\nb_2\n")
    return folder


def test_boxes_and_paths_are_the_masks(root: Path) -> None:
    data = load_vipseg(root, **SIZE)
    assert isinstance(data, Cases) and len(data) == 2 and not data.left_out
    clip = data.clips[0]
    assert clip.frames == tuple(f"{k:08d}" for k in range(4)) and clip.size == (WIDTH, HEIGHT)
    car, chair = clip.things
    assert (car.id, car.box) == (12603, (8, 20, 32, 36)) and (chair.id, chair.path) == (13001, ())
    assert car.path == tuple((20.0 + 8 * k, 28.0) for k in range(4))

    case = data[0]
    assert case.name == "vipseg-a_1" and case.kinds == ("several objects",) and case.still_camera is False
    assert case.truth is not None and case.truth.shape == (4, 3, 32, 64)
    grid = Grid(width=64, height=32, num_frames=4, stride=1)
    boxes = tracks_of(case.scene, grid).boxes(range(4))
    assert boxes[0].tolist() == [[4 + 4 * k, 10, 16 + 4 * k, 18] for k in range(4)]
    assert case.masks is not None and case.masks.shape == (2, 4, 32, 64)
    for frame in range(4):
        rows, columns = torch.nonzero(case.masks[0, frame], as_tuple=True)
        inside = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert [int(v) for v in inside] == boxes[0, frame].tolist()


def test_the_720p_form_and_the_folder_above(tmp_path: Path) -> None:
    video(tmp_path / "VIPSeg_720P", "a_1", layout="images")
    (tmp_path / "val.txt").write_text("a_1\n")
    assert [clip.video for clip in load_vipseg(tmp_path, **SIZE).clips] == ["a_1"]
    (tmp_path / "val.txt").unlink()
    assert len(load_vipseg(tmp_path / "VIPSeg_720P", **SIZE)) == 1


def test_the_protocol_decides(root: Path) -> None:
    assert len(load_vipseg(root, **SIZE, protocol=Protocol(max_things=1)).clips[0].things) == 1
    still = load_vipseg(root, **SIZE, protocol=Protocol(moving=0.5))
    assert len(still.left_out) == 2 and "moves" in still.left_out[0]
    tiny = load_vipseg(root, **SIZE, protocol=Protocol(min_share=1e-4)).clips[0]
    assert [thing.id for thing in tiny.things] == [12603, 13001, 15002]  # never 200
    with pytest.raises(ValueError, match="min_share"):
        Protocol(min_share=0.5)


def test_a_thing_that_vanishes_is_not_asked_for(root: Path) -> None:
    file = root / "panomasks" / "a_1" / f"{2:08d}.png"
    ids = np.asarray(Image.open(file)).copy()
    ids[ids == 12603] = 7
    Image.fromarray(ids).save(file)
    assert "seen in all 4 frames" in load_vipseg(root, **SIZE).left_out[0]


def test_a_list_is_saved_shared_and_reloaded(root: Path, tmp_path: Path) -> None:
    data = load_vipseg(root, **SIZE)
    file = save_list(data.clips, tmp_path / "clips.json", protocol={"min_share": 0.01})
    assert load_list(file) == (data.clips, {"min_share": 0.01})
    again = load_vipseg(root, **SIZE, clips=file)
    # A row says how its clips were really chosen.
    assert again[1].source["protocol"] == {"min_share": 0.01} != data[1].source["protocol"]
    a, b = again[1], data[1]
    assert a.scene == b.scene and a.truth is not None and b.truth is not None and torch.equal(a.truth, b.truth)
    # Another form of the same frames is not what the list was made from.
    frame = root / "imgs" / "b_2" / f"{0:08d}.jpg"
    Image.open(frame).save(frame, quality=50)
    with pytest.raises(ValueError, match=r"b_2/00000000\.jpg: is not the frame that the list"):
        again[1]
    with pytest.raises(ValueError, match="have not 3 frames"):
        load_vipseg(root, width=64, height=32, num_frames=3, clips=file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "x"}, "not a list of VIPSeg clips"),
        ({"version": 2}, "not a list of VIPSeg clips"),
        ({"clips": [{"video": "../../x"}]}, r"clips\[0\] is damaged"),
        ({"clips": 5}, "clips or protocol is missing"),
        ({"protocol": None}, "clips or protocol is missing"),
        (
            {"clips": [{"video": "x", "frames": [], "things": [], "size": [1, 1]}]},
            r"clips\[0\] is damaged .*nothing in it",
        ),
    ],
)
def test_a_bad_list_is_named(root: Path, tmp_path: Path, change: dict[str, object], message: str) -> None:
    file = save_list(load_vipseg(root, **SIZE).clips, tmp_path / "clips.json", protocol={})
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ValueError, match=rf"clips\.json: .*{message}"):
        load_list(file)
    file.write_text("{")
    with pytest.raises(ValueError, match=r"clips\.json: not a list"):
        load_list(file)


def test_a_list_leads_nowhere_else(root: Path, tmp_path: Path) -> None:
    file = save_list(load_vipseg(root, **SIZE).clips, tmp_path / "clips.json", protocol={})
    file.write_text(file.read_text().replace("a_1", "../a_1"))
    with pytest.raises(ValueError, match="leads out of its folder"):
        load_list(file)


def test_faults_are_named_and_the_rest_goes_on(root: Path) -> None:
    masks, images = root / "panomasks" / "a_1", root / "imgs" / "a_1"
    (masks / f"{1:08d}.png").rename(root / "kept.png")
    assert "a_1/00000001.png: missing, but its frame is there" in load_vipseg(root, **SIZE).left_out[0]
    assert len(load_vipseg(root, **SIZE).clips) == 1
    assert load_vipseg(root, **SIZE)[1].name == "vipseg-b_2"
    with pytest.raises(ValueError, match="missing"):
        load_vipseg(root, **SIZE)[0]

    Image.open(root / "kept.png").resize((64, 32)).save(masks / f"{1:08d}.png")
    assert "00000001.png: 64x32 pixels, the first frame has 128x64" in load_vipseg(root, **SIZE).left_out[0]
    Image.new("RGB", (WIDTH, HEIGHT)).save(masks / f"{1:08d}.png")
    assert "00000001.png: a mask of kind RGB" in load_vipseg(root, **SIZE).left_out[0]
    (masks / f"{1:08d}.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    assert "00000001.png: cannot be read" in load_vipseg(root, **SIZE).left_out[0]

    (root / "kept.png").rename(masks / f"{1:08d}.png")
    (images / f"{1:08d}.jpg").unlink()
    assert "a_1/00000001.jpg: missing, but its mask is there" in load_vipseg(root, **SIZE).left_out[0]

    for folder in (images, masks):
        for file in sorted(folder.iterdir())[1:]:
            file.unlink()
    assert "imgs/a_1: 1 frames are too short a clip; it needs 4" in load_vipseg(root, **SIZE).left_out[0]


def test_names_are_read_as_cameras_and_editors_write_them(root: Path) -> None:
    wanted = load_vipseg(root, **SIZE)
    (root / "val.txt").write_bytes(b"\xef\xbb\xbfa_1\r\nb_2\r\n")
    endings = (".JPG", ".jpeg", ".JPEG", ".jpg", ".Jpg")
    for name in ("a_1", "b_2"):
        for k, ending in enumerate(endings):
            frame = root / "imgs" / name / f"{k:08d}.jpg"
            frame.rename(frame.with_suffix(ending))
            mask = root / "panomasks" / name / f"{k:08d}.png"
            mask.rename(mask.with_suffix(".PNG" if k % 2 else ".png"))
            for file in (frame, mask):
                (file.parent / f"._{file.name}").write_bytes(b"\x00\x05\x16\x07")
        (root / "imgs" / name / ".DS_Store").write_bytes(b"Bud1")
    (root / "imgs" / "._a_1").write_bytes(b"\x00\x05\x16\x07")
    found = load_vipseg(root, **SIZE)
    assert found.clips == wanted.clips and not found.left_out
    assert torch.equal(found[1].truth, wanted_truth(found))  # type: ignore[arg-type]
    (root / "val.txt").unlink()
    assert [clip.video for clip in load_vipseg(root, **SIZE).clips] == ["a_1", "b_2", "in_training"]
    (root / "imgs" / "a_1" / f"{0:08d}.jpg").write_bytes(b"another")
    assert "has the same name; keep one" in load_vipseg(root, **SIZE).left_out[0]


def wanted_truth(data: Any) -> torch.Tensor:
    """The second clip's frames, each found by its number alone."""
    frames = [next((data.root / "imgs" / "b_2").glob(f"{k:08d}.*")) for k in range(4)]
    small = [fit_image(Image.open(file).convert("RGB"), 64, 32, "stretch") for file in frames]
    return torch.from_numpy(np.stack([np.asarray(s) for s in small])).permute(0, 3, 1, 2).float() / 255


def test_frames_are_taken_by_their_numbers(root: Path) -> None:
    wanted = [clip.things for clip in load_vipseg(root, **SIZE).clips]
    for place in (root / "imgs" / "a_1", root / "panomasks" / "a_1"):
        for k, file in enumerate(sorted(place.iterdir())):
            file.rename(place / f"f{k + 8}{file.suffix}")
    clip = load_vipseg(root, **SIZE).clips[0]
    assert clip.frames == ("f8", "f9", "f10", "f11") and clip.things == wanted[0]


@pytest.mark.parametrize(
    ("value", "taken"), [(0, True), (124, True), (125, False), (200, False), (254, False), (255, True)]
)
def test_masks_cut_to_8_bits_are_left_out(root: Path, value: int, taken: bool) -> None:
    """12501 becomes 213 where a tool saves 8 bits; 255 is void in masks of that depth."""
    file = root / "panomasks" / "a_1" / f"{1:08d}.png"
    ids = np.asarray(Image.open(file)).copy()
    whole = ids.copy()
    whole[whole == 200] = 0
    Image.fromarray(np.where(whole > 255, 7, whole).astype(np.uint8)).save(file)
    assert "seen in all 4 frames" in load_vipseg(root, **SIZE).left_out[0], "what is stuff and void alone is read"
    spoilt = np.full(ids.shape, 7, np.uint8)
    spoilt[20:36, 16:40] = value
    Image.fromarray(spoilt).save(file)
    said = load_vipseg(root, **SIZE).left_out[0]
    assert ("a_1/00000001.png: 8 bits" in said and "give the 16-bit masks" in said) != taken


def test_a_folder_that_is_no_vipseg(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds neither imgs/"):
        load_vipseg(tmp_path, **SIZE)
    (tmp_path / "imgs").mkdir()
    (tmp_path / "panomasks").mkdir()
    with pytest.raises(ValueError, match="no videos"):
        load_vipseg(tmp_path, **SIZE)
    (tmp_path / "val.txt").write_text("../x\n")
    with pytest.raises(ValueError, match=r"val\.txt"):
        load_vipseg(tmp_path, **SIZE)

"""Folders are listed as a person sees them: numbers as numbers, a system's litter left out, everywhere."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sgi2v.evaluation.datasets import SceneFolder
from sgi2v.listing import listed, natural_key
from sgi2v.reference import load_reference
from sgi2v.scene import Scene
from sgi2v.scene_io import save_scene
from sgi2v.video import Video, check_video, load_video

LITTER = (".DS_Store", "._.DS_Store", "Thumbs.db", "desktop.ini")


def littered(folder: Path) -> None:
    """Leave in a folder what macOS and Windows leave there, beside every file too."""
    for name in (*LITTER, *(f"._{place.name}" for place in list(folder.iterdir()))):
        (folder / name).write_bytes(b"\x00\x05\x16\x07 no picture")


@given(st.lists(st.integers(0, 10**30), min_size=1, max_size=20), st.sampled_from(["", "frame", "a1_"]))
def test_numbers_in_names_count_as_numbers(numbers: list[int], before: str) -> None:
    names = [f"{before}{number}.png" for number in numbers]
    assert sorted(names, key=natural_key) == [f"{before}{number}.png" for number in sorted(numbers)]


@given(st.lists(st.text(max_size=8), max_size=20))
def test_any_names_have_an_order_and_keep_it(names: list[str]) -> None:
    once = sorted(names, key=natural_key)
    assert once == sorted(reversed(names), key=natural_key)


@given(st.lists(st.text("abc", max_size=4), max_size=20), st.lists(st.integers(0, 9999), max_size=20))
def test_names_without_numbers_and_of_one_width_go_by_text(words: list[str], numbers: list[int]) -> None:
    assert sorted(words, key=natural_key) == sorted(words)
    names = [f"{number:05d}" for number in numbers]
    assert sorted(names, key=natural_key) == sorted(names)


@pytest.mark.parametrize("name", ["{}", "frame_{}", "shot 2 ({})", "{}_final"])
def test_a_reference_and_its_masks_go_by_their_numbers(name: str, tmp_path: Path) -> None:
    for part in ("frames", "masks"):
        (tmp_path / part).mkdir()
    for k in range(1, 13):
        Image.new("RGB", (16, 8), (20 * k, 0, 0)).save(tmp_path / "frames" / f"{name.format(k)}.png")
        Image.new("L", (16, 8), 20 * k).save(tmp_path / "masks" / f"{name.format(k)}.PNG")
    for part in ("frames", "masks"):
        littered(tmp_path / part)
    reference = load_reference(tmp_path / "frames", tmp_path / "masks")
    assert [np.asarray(frame)[0, 0, 0] for frame in reference.frames] == [20 * k for k in range(1, 13)]
    assert [np.asarray(mask)[0, 0] for mask in reference.masks] == [20 * k for k in range(1, 13)]


def test_an_output_folder_is_read_and_replaced_whatever_a_system_leaves_in_it(tmp_path: Path) -> None:
    frames = torch.arange(3)[:, None, None, None].expand(3, 3, 8, 8) / 3
    path = Video(frames=frames).save(tmp_path / "out")
    littered(path)
    check_video(path)
    assert len(load_video(path).frames) == 3
    (path / "frame_0010.png").write_bytes((path / "frame_0002.png").read_bytes())
    (path / "frame_9.png").write_bytes((path / "frame_0000.png").read_bytes())
    assert (load_video(path).frames[:, 0, 0, 0] * 3).round().tolist() == [0, 1, 2, 0, 2]
    Video(frames=frames[:1]).save(path)
    assert sorted(p.name for p in path.iterdir()) == ["frame_0000.png", "run.json"]
    for kept in (".gitignore", ".git/config", "thesis.txt"):
        (path / kept).parent.mkdir(exist_ok=True)
        (path / kept).write_text("mine")
        with pytest.raises(ValueError, match="holds other things than frames"):
            Video(frames=frames).save(path)
        (path / kept).unlink()


def test_a_folder_of_scenes_holds_scenes_alone(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_scene(Scene(image=Image.new("RGB", (16, 8))), tmp_path / f"{name}.json")
    littered(tmp_path)
    assert [file.name for file in SceneFolder(folder=tmp_path).files] == ["a.json", "b.json"]
    assert not [place for place in listed(tmp_path) if place.name.startswith(".")]

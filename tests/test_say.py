"""sgi2v say: a sentence in, an ordinary scene and its preview out; nothing is written where it is not understood."""

from pathlib import Path

import pytest
from PIL import Image, ImageDraw

import tiny_vision
from sgi2v.cli import main
from sgi2v.prompting.cameras import parse_camera, with_camera
from sgi2v.prompting.drags import Drag
from sgi2v.scene_io import load_scene

SIZE = (400, 300)


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    image = Image.new("RGB", SIZE, (120, 130, 120))
    ImageDraw.Draw(image).ellipse((110, 110, 150, 170), fill=(200, 30, 30))
    image.save("my photo.png")
    return Path("my photo.png")


def test_a_scene_and_its_preview_are_written(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = photo.read_bytes()
    sentence = "the cup moves to the right and grows, then it falls, the camera zooms in slowly"
    assert main(["say", photo.name, sentence, "--box", "Cup=100,100,160,60%", "--mask"]) == 0
    told = capsys.readouterr()
    assert told.out.split("\n")[:2] == ["out/my photo-said/scene.json", "out/my photo-said/preview.png"]
    assert "understood: --drag cup: 100,100,160,180 -> 210,140 " in told.err
    assert "understood: --camera zoom 1.1" in told.err
    assert "note: the camera moves from the first frame to the last" in told.err
    scene = load_scene("out/my photo-said")
    drag = Drag.parse("cup: 100,100,160,180 -> 210,140 @0.5 scale 1.5 -> 210,260 ease in @1").motion(SIZE)
    thing, *camera = scene.motions
    assert (thing.path, thing.name, scene.fit) == (drag.path, "cup", "aspect")
    assert thing.mask is not None and thing.mask.getbbox() == (110, 110, 151, 171)
    assert tuple(camera) == with_camera((drag,), parse_camera("zoom 1.1", SIZE), SIZE)[1:]
    with Image.open("out/my photo-said/preview.png") as picture:
        assert min(picture.size) >= 300
    assert photo.read_bytes() == before
    assert main(["say", "out/my photo-said", "the cup moves up", "--output", "again"]) == 0  # among named things
    again = load_scene("again")
    assert again.motions[0].mask == thing.mask and again.motions[0].path[-1].y == 140 - 60


def test_a_detector_of_ones_own_is_asked(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its weights are random: that all it finds is moved, and nothing of a word that it does not find."""
    folder = str(tiny_vision.grounding_dino(tmp_path / "detector"))
    words = ["--detector", folder, "--device", "cpu"]
    assert main(["say", photo.name, "all dogs move to the left", *words, "--threshold", "0.0"]) == 0
    motions = load_scene("out/my photo-said").motions
    assert motions and {motion.name for motion in motions} == {"dogs"}
    assert main(["say", photo.name, "the dog moves to the left", *words, "--threshold", "1"]) == 2
    assert "'dog' is not found on the picture" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["the cup moves left"], "sentence: not understood: 'cup' is not found on the picture"),
        (["the cup sings", "--box", "cup=1,1,9,9"], "sentence: not understood: "),
        (["zoom in", "--box", "cup"], "box[0]: 'cup' is no name and box"),
        (["zoom in", "--box", "cup=1,1,9999,9"], "box[0]: 1,1,9999,9 is not on the picture"),
        (["zoom in", "--threshold", "3"], "threshold: 3.0 must lie in 0..1"),
        (["zoom in", "--output", "a.json"], "output: 'a.json' is no folder"),
        (["zoom in", "--detector", "."], "detector: . holds no config.json"),
        (["zoom in", "--segmenter", "."], "segmenter: . holds no config.json"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(
    photo: Path, words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["say", photo.name, *words]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"sgi2v: {line}") and told.count("\n") == 1
    assert not Path("out").exists()

"""A click makes a mask, and a name finds a box: GrabCut on drawn pictures, the networks as tiny real classes."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image, ImageDraw

import tiny_vision
from scene_strategies import boxes
from sgi2v.cli import main
from sgi2v.errors import FieldError
from sgi2v.prompting.clicks import box_of, clicked, grab_cut_at, sam2, segmenter, with_outlines
from sgi2v.prompting.detection import MAX_FOUND, detector, distinct, inside, overlap
from sgi2v.prompting.said import empty_scene
from sgi2v.scene import Box, Scene
from sgi2v.scene_io import load_scene

SIZE = (320, 240)
DISC = (90, 60, 170, 140)


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """A red disc and a blue square on a noisy grey ground."""
    noise = np.random.default_rng(0).integers(90, 130, (240, 320, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    draw = ImageDraw.Draw(image)
    draw.ellipse(DISC, fill=(210, 40, 30))
    draw.rectangle((230, 150, 300, 220), fill=(30, 60, 200))
    return image


def share_right(mask: Image.Image) -> float:
    """Intersection over union of a mask with the disc."""
    wanted = Image.new("L", SIZE)
    ImageDraw.Draw(wanted).ellipse(DISC, fill=255)
    one, other = np.asarray(mask) > 0, np.asarray(wanted) > 0
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("point", [(130, 100), (100, 100), (130, 68), (150, 125)])
def test_a_click_anywhere_on_a_thing_gives_its_outline(picture: Image.Image, point: tuple[int, int]) -> None:
    mask = grab_cut_at(picture, (float(point[0]), float(point[1])))
    assert mask.mode == "L" and mask.size == SIZE
    assert share_right(mask) > 0.95


def test_a_click_on_the_ground_is_refused(picture: Image.Image) -> None:
    with pytest.raises(FieldError, match=r"^at: nothing stands out at 20,200; click"):
        grab_cut_at(picture, (20.0, 200.0))


def test_clicks_make_pins_and_drags_with_masks(picture: Image.Image) -> None:
    scene = clicked(empty_scene(picture), ["130,100 -> by 20%,0", "sign: 82%,77%"], segmenter())
    disc, square = scene.motions
    assert (disc.name, square.name, bool(disc.path), bool(square.path)) == ("thing 1", "sign", True, False)
    assert disc.mask is not None and share_right(disc.mask) > 0.95
    assert disc.path[-1].x - disc.path[0].x == 64
    assert np.allclose([square.box.left, square.box.bottom], [227, 223], atol=2)


def test_a_click_in_the_box_of_a_motion_gives_it_its_mask(picture: Image.Image) -> None:
    scene = Scene.of(picture, drags=["80,50,180,150 -> 250,100"], pins=["220,140,310,230"])
    made = clicked(scene, ["130,100"], segmenter())
    assert made.motions[0].mask is not None and made.motions[0].path == scene.motions[0].path
    assert len(made.motions) == 2
    outlined, failed = with_outlines(scene, segmenter())
    assert not failed and outlined.motions[0].mask == made.motions[0].mask and outlined.motions[1].mask is None


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", r"at\[0\]: is empty"),
        ("1,2,3,4", r"at\[0\]: 1,2,3,4 begins with no point"),
        ("9999,2", r"at\[0\]: 9999,2 is not on the picture"),
        ("there", r"at\[0\]: 'there' is no place"),
    ],
)
def test_what_is_no_click_is_refused(picture: Image.Image, text: str, line: str) -> None:
    with pytest.raises(FieldError, match=f"^{line}"):
        clicked(empty_scene(picture), [text], segmenter())


def test_the_command_takes_clicks(
    picture: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    picture.save("photo.png")
    assert main(["mask", "photo.png", "--at", "130,100 -> 80%,40%", "--output", "made"]) == 0
    (motion,) = load_scene("made").motions
    assert motion.mask is not None and share_right(motion.mask) > 0.95
    for words, line in (
        (["--at", "20,200"], "at[0].at: nothing stands out"),
        (["--segmenter", "nowhere", "--at", "1,1"], "segmenter: nowhere holds no config.json"),
        (["--segmenter", "nowhere"], "segmenter: it takes clicks, and there is none"),
    ):
        assert main(["mask", "photo.png", *words]) == 2
        assert line in capsys.readouterr().err


def test_sam2_is_asked_by_point_and_box(picture: Image.Image, tmp_path: Path) -> None:
    """Weights are random, so what it finds means nothing; that it is the network's own answer is looked at."""
    import torch
    from transformers import Sam2Model

    folder = tiny_vision.sam2(tmp_path / "sam2")
    segment = sam2(folder, device="cpu")
    mask = segment(picture, (130.0, 100.0))
    assert mask.size == SIZE and set(np.unique(np.asarray(mask))) <= {0, 255}
    assert segment(picture, (130.0, 100.0)) == mask  # opened once, the same again
    network = Sam2Model.from_pretrained(folder).eval()
    small = np.asarray(picture.resize((64, 64), Image.Resampling.BILINEAR), dtype=np.float64) / 255
    small = (small - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    with torch.no_grad():
        out = network(
            pixel_values=torch.tensor(small, dtype=torch.float32).permute(2, 0, 1)[None],
            input_points=torch.tensor([[[[130 * 64 / 320, 100 * 64 / 240]]]]),
            input_labels=torch.ones(1, 1, 1, dtype=torch.int32),
        )
    best = out.pred_masks[0, 0, out.iou_scores[0, 0].argmax()]
    wide = torch.nn.functional.interpolate(best[None, None], size=(240, 320), mode="bilinear")[0, 0] > 0
    assert (wide.numpy() == (np.asarray(mask) > 0)).mean() > 0.995
    boxed = segment(picture, (130.0, 100.0), Box(left=90, top=60, right=170, bottom=140))
    assert boxed.size == SIZE


@pytest.mark.parametrize("make", [tiny_vision.grounding_dino, tiny_vision.owlv2])
def test_a_detector_finds_boxes_on_the_picture(make: object, picture: Image.Image, tmp_path: Path) -> None:
    folder = make(tmp_path / "detector")  # type: ignore[operator]
    find = detector(folder, picture, threshold=0.0, device="cpu")
    found = find("red cup")
    assert 0 < len(found) <= MAX_FOUND
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    for one in found:
        assert one.name == "red cup" and 0 <= one.score <= 1
        assert 0 <= one.box.left < one.box.right <= 320 and 0 <= one.box.top < one.box.bottom <= 240
    assert list(find("red cup")) == list(found)
    assert detector(folder, picture, threshold=1.0, device="cpu")("red cup") == ()


def test_a_folder_without_a_fitting_network_is_refused_at_once(picture: Image.Image, tmp_path: Path) -> None:
    with pytest.raises(FieldError, match=r"^detector: .* holds no config.json; give a folder"):
        detector(tmp_path, picture)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(FieldError, match=r"^detector: .* holds a 'bert'"):
        detector(tmp_path, picture)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "sam2"}))
    with pytest.raises(FieldError, match=r"^segmenter: .* holds no .safetensors"):
        segmenter(tmp_path)
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(FieldError, match=r"^segmenter: .* cannot be read"):
        segmenter(tmp_path)


@given(boxes(40, 30), boxes(40, 30))
@settings(max_examples=30)
def test_overlap_is_counted_in_pixels(one: Box, other: Box) -> None:
    """Against a fine raster."""
    ys, xs = np.mgrid[0:30:0.25, 0:40:0.25] + 0.125

    def inside_of(box: Box) -> np.ndarray:
        held: np.ndarray = (box.left <= xs) & (xs < box.right) & (box.top <= ys) & (ys < box.bottom)
        return held

    a, b = inside_of(one), inside_of(other)
    if (a | b).sum() > 400:
        assert overlap(one, other) == pytest.approx((a & b).sum() / (a | b).sum(), abs=0.12)


def test_of_boxes_on_each_other_the_best_is_kept_and_what_is_outside_is_cut() -> None:
    a, b, c = (Box(left=x, top=0, right=x + 10, bottom=10) for x in (0.0, 1.0, 30.0))
    assert distinct([(0.2, b), (0.9, a), (0.5, c)]) == [(0.9, a), (0.5, c)]
    assert inside([-5.0, -5.0, 10.0, 500.0], (40, 30)) == Box(left=0, top=0, right=10, bottom=30)
    assert inside([-5.0, -5.0, -1.0, 5.0], (40, 30)) is None


def test_a_box_is_had_of_a_mask() -> None:
    mask = Image.new("L", (40, 30))
    mask.paste(255, (10, 5, 30, 15))
    assert box_of(mask) == Box(left=10, top=5, right=30, bottom=15)
    assert box_of(mask, 0.6) == Box(left=0, top=0, right=40, bottom=21)
    with pytest.raises(FieldError, match="nothing is in it"):
        box_of(Image.new("L", (4, 4)))

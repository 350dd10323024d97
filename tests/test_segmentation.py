"""GrabCut finds a thing that stands out, the same every time, and says so when there is none."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from sgi2v.scene import Box, Key, Motion, Scene
from sgi2v.segmentation import grab_cut, touching, with_masks


def disc_on_wall(x: int, y: int, radius: int, size: tuple[int, int] = (120, 90)) -> tuple[Image.Image, np.ndarray]:
    """A reddish disc on a greenish wall, both noisy, and where it is."""
    rng = np.random.default_rng(1)
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    inside = np.asarray(mask) > 0
    wall = np.where(inside[..., None], (190, 60, 50), (60, 130, 70)) + rng.normal(0, 18, (size[1], size[0], 3))
    return Image.fromarray(wall.clip(0, 255).astype(np.uint8)), inside


@settings(max_examples=6)
@given(x=st.integers(24, 96), y=st.integers(24, 66), radius=st.integers(9, 20), scale=st.sampled_from([1, 7]))
def test_finds_a_disc_and_nothing_outside_its_box(x: int, y: int, radius: int, scale: int) -> None:
    image, inside = disc_on_wall(x, y, radius)
    image = image.resize((120 * scale, 90 * scale), Image.Resampling.NEAREST)
    inside = np.kron(inside, np.ones((scale, scale), dtype=bool))
    box = Box.around(x, y, 2 * radius + 7)
    box = Box(left=max(box.left, 0) * scale, top=max(box.top, 0) * scale,
              right=min(box.right, 120) * scale, bottom=min(box.bottom, 90) * scale)  # fmt: skip
    mask = grab_cut(image, box)
    found = np.asarray(mask) > 0
    assert mask.mode == "L" and mask.size == image.size and set(np.unique(np.asarray(mask))) == {0, 255}
    assert (found & inside).sum() / (found | inside).sum() > 0.9
    rows, columns = np.nonzero(found)
    assert rows.min() >= box.top - scale and columns.max() <= box.right + scale
    assert grab_cut(image, box) == mask


def test_a_box_without_surroundings_and_one_without_a_thing_are_refused() -> None:
    image, _ = disc_on_wall(60, 45, 20)
    with pytest.raises(ValueError, match=r"^box: fills the image"):
        grab_cut(image, Box(left=0, top=0, right=120, bottom=90))
    flat = Image.new("RGB", (120, 90), (90, 90, 90))
    with pytest.raises(ValueError, match=r"^box: nothing in it stands out"):
        grab_cut(flat, Box(left=40, top=30, right=60, bottom=50))


def test_every_object_that_moves_gets_a_mask_and_keeps_the_one_it_has() -> None:
    image, _ = disc_on_wall(60, 45, 20)
    box, path = Box.around(60, 45, 48), (Key(time=0, x=0, y=0), Key(time=1, x=9, y=0))
    own = Image.new("L", image.size, 255)
    motions = (
        Motion(box=box, path=path),
        Motion(box=box, path=path, mask=own),
        Motion(box=box, path=path, kind="camera"),
        Motion(box=Box(left=2, top=2, right=20, bottom=20)),
    )
    scene = Scene(image=image, motions=motions)
    made = [motion.mask for motion in with_masks(scene).motions]
    assert made[0] == grab_cut(image, box) and made[1:] == [own, None, None]
    assert with_masks(scene, anew=True).motions[1].mask == made[0]
    whole = Motion(box=Box(left=0, top=0, right=120, bottom=90), path=path)
    with pytest.raises(ValueError, match=r"^motions\[0\]\.box: fills the image"):
        with_masks(Scene(image=image, motions=(whole,)))


def test_a_mask_that_ends_at_its_boxs_side_is_told_of() -> None:
    """A side of the image cuts nothing, nor does a corner that merely touches."""

    def told(left: int, right: int) -> tuple[str, ...]:
        pixels = np.zeros((90, 120), np.uint8)
        pixels[30:60, left:right] = 255
        before = Motion(
            box=Box(left=0, top=20, right=50, bottom=70), path=(Key(time=0, x=1, y=1), Key(time=1, x=2, y=1))
        )
        scene = Scene(image=Image.new("RGB", (120, 90)), motions=(before,))
        return touching(replace(scene, motions=(replace(before, mask=Image.fromarray(pixels)),)), scene)

    assert told(10, 40) == told(0, 40) == ()
    (remark,) = told(10, 50)
    assert remark == "motions[0].box: its right cuts the thing, whose mask ends there; widen the box"

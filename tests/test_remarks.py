"""Remarks before a run: the same sentences from a plan, the command and the page's own numbers."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sgi2v import SGI2V, Box, Key, Motion, Range, Scene, recommended
from sgi2v.backbones import outline_of
from sgi2v.controllers import Controller, InTurn, TimeToMove
from sgi2v.errors import FieldError
from sgi2v.pipeline import plan
from sgi2v.studio.engine import LibraryEngine
from sgi2v.studio.settings import StudioSettings

BUNDLED = outline_of("bundled")
ADVICE = BUNDLED.settings.recommended


def scene(x: float = 168, mask: Image.Image | None = None) -> Scene:
    """A picture of the bundled model's size, in which a box goes right."""
    path = (Key(time=0, x=160, y=96), Key(time=1, x=x, y=96))
    box = Box(left=140, top=76, right=180, bottom=116)
    motion = Motion(box=box, path=path, name="cup", mask=mask)
    return Scene(image=Image.new("RGB", (320, 192), "teal"), motions=(motion,))


def test_published_values_on_a_model_that_recommends_others_are_remarked() -> None:
    (remark,) = plan(scene(), BUNDLED, controller=SGI2V(lr=0.3)).warnings
    assert remark.startswith("sg-i2v guides 1 of 10 steps, with the published guided, iterations, layers; ")
    assert "it guides 4: recommended('sg-i2v', backbone.settings.recommended)" in remark
    changed = recommended("sg-i2v", ADVICE, lr=0.3)
    assert isinstance(changed, SGI2V) and changed == replace(recommended("sg-i2v", ADVICE), lr=0.3)  # type: ignore[call-arg]
    assert not plan(scene(), BUNDLED, controller=changed).warnings
    # A range of one's own is meant; a pair is looked into.
    narrow = recommended("sg-i2v", ADVICE, guided=Range(low=20.0, high=41.0))
    assert not plan(scene(), BUNDLED, controller=narrow).warnings
    for fine in (Controller(), TimeToMove(t_weak=1.2, t_strong=0.05)):
        assert not plan(scene(), BUNDLED, controller=fine).warnings
    pair = recommended("time-to-move+sg-i2v", ADVICE, second={"lr": 0.1})
    assert isinstance(pair, InTurn) and pair.second.lr == 0.1  # type: ignore[attr-defined]
    with pytest.raises(FieldError, match="unknown field 'speed' of sg-i2v"):
        recommended("sg-i2v", ADVICE, speed=1)


def test_too_fast_is_said_by_the_plan_as_by_the_page(tmp_path: object) -> None:
    slow, fast = plan(scene(), BUNDLED), plan(scene(x=600), BUNDLED)
    assert not slow.warnings
    (remark,) = fast.warnings
    assert remark.startswith(
        "motions[0] (cup) goes 33.8 pixels of the video from one frame to the next, and 19.2 can be"
    )
    assert fast.too_fast == (remark,) and not fast.unused
    assert not plan(scene(x=600), BUNDLED, controller=Controller()).warnings  # nothing is asked to follow
    engine = LibraryEngine(StudioSettings(data=tmp_path))  # type: ignore[arg-type]
    page = engine.plan({}, scene(x=600))
    assert page["max_speed"] == pytest.approx(19.2) and page["motions"][0]["too_fast"] and not page["warnings"]
    assert page["motions"][0]["max_speed"] == pytest.approx(33.85, abs=0.01)


def test_a_box_that_cuts_its_thing_is_said_by_both(tmp_path: object) -> None:
    pixels = np.zeros((192, 320), np.uint8)
    pixels[80:110, 150:210] = 255
    half, whole = Image.fromarray(pixels), Image.fromarray(np.where(np.arange(320) < 180, pixels, 0).astype(np.uint8))
    (remark,) = plan(scene(mask=half), BUNDLED).warnings
    assert remark == "the box of motions[0] (cup) cuts the thing: 50% of its mask lie outside; widen the box"
    assert not plan(scene(mask=whole), BUNDLED).warnings
    engine = LibraryEngine(StudioSettings(data=tmp_path))  # type: ignore[arg-type]
    assert engine.plan({}, scene(mask=half))["warnings"] == [remark]

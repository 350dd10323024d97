"""Sentences about motion: the table of what each means, and that any text is read or refused in one line."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sgi2v.errors import FieldError
from sgi2v.prompting.cameras import parse_camera
from sgi2v.prompting.drags import Drag
from sgi2v.prompting.photo import motions_of
from sgi2v.prompting.said import among, empty_scene, named_in, say, scene_said
from sgi2v.prompting.sentences import EXAMPLE, Found
from sgi2v.scene import Box, Motion, Scene

SIZE = (400, 300)
THINGS = {
    "cup": (100, 100, 160, 180),
    "dog": (200, 150, 280, 250),
    "car": (20, 200, 120, 270),
    "ball": (300, 40, 340, 80),
    "bird 1": (20, 20, 60, 50),
    "bird 2": (320, 120, 380, 170),
}
BOXES = {
    name: Box(left=left, top=top, right=right, bottom=bottom) for name, (left, top, right, bottom) in THINGS.items()
}
SCENE = empty_scene(Image.new("RGB", SIZE))
FIND = among(BOXES)


def rows() -> list[tuple[str, str]]:
    """Sentence and meaning of each row of the table."""
    text = (Path(__file__).parent / "data" / "sentences.txt").read_text(encoding="utf-8")
    pairs = [line.split(" | ") for line in text.splitlines() if line and not line.startswith("#")]
    return [(sentence.strip(), meaning.strip()) for sentence, meaning in pairs]


def meant(meaning: str) -> tuple[list[Motion], str]:
    """The motions and camera that a row's right side says, which are the notation's own."""
    drags, camera = [], ""
    for part in meaning.split(";"):
        part = part.strip()
        if part.startswith("camera "):
            camera = part.removeprefix("camera ")
            continue
        name, _, rest = part.removeprefix("pin ").partition(" ")
        if name in THINGS:
            part = f"{','.join(map(str, THINGS[name]))} {rest}"
        drags.append(Drag.parse(part).motion(SIZE))
    return drags, camera


def test_the_table_has_two_hundred_rows() -> None:
    assert len(rows()) >= 200 and len({sentence for sentence, _ in rows()}) == len(rows())


def faults() -> list[str]:
    """Rows that are not read as they are meant."""
    found = []
    for sentence, meaning in rows():
        try:
            said = say(sentence, SCENE, find=FIND)
        except FieldError as error:
            if not (meaning.startswith("? ") and re.search(re.escape(meaning[2:]), error.problem)):
                found.append(f"{sentence}: {error}")
            continue
        if meaning.startswith("? "):
            found.append(f"{sentence}: understood as {said.lines()}")
            continue
        drags, camera = meant(meaning)
        if not same(drags, [drag.motion(SIZE) for drag in said.drags]):
            found.append(f"{sentence}: {said.lines()}, not {meaning}")
        elif (parse_camera(camera, SIZE) if camera else None) != (
            parse_camera(said.camera, SIZE) if said.camera else None
        ):
            found.append(f"{sentence}: {said.camera!r}, not {camera!r}")
    return found


def same(wanted: Sequence[Motion], found: Sequence[Motion]) -> bool:
    """Equal but for names, order and rounding."""

    def values(motion: Motion) -> tuple[object, ...]:
        box = motion.box
        keys = tuple((round(k.time, 6), round(k.x, 6), round(k.y, 6), round(k.scale, 6), k.easing) for k in motion.path)
        return box.left, box.top, box.right, box.bottom, motion.curve, keys

    return sorted(map(values, wanted), key=repr) == sorted(map(values, found), key=repr)


def test_every_sentence_of_the_table_means_its_scene() -> None:
    wrong = faults()
    assert not wrong, f"{len(wrong)} of {len(rows())}\n" + "\n".join(wrong)

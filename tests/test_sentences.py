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
from sgi2v.prompting.sentences import EXAMPLE
from sgi2v.prompting.things import Found
from sgi2v.scene import Box, Motion

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


def test_it_is_the_last_thing_and_the_table_is_read_alike_in_any_case() -> None:
    for sentence, meaning in rows()[::7]:
        if not meaning.startswith("? "):
            assert say(f"  {sentence.upper()}!", SCENE, find=FIND).lines() == say(sentence, SCENE, find=FIND).lines()
    one, other = (
        say(text, SCENE, find=FIND) for text in ("the cup moves up, then it falls", "the cup moves up, then falls")
    )
    assert one.drags == other.drags


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        say(text, SCENE, find=FIND)
    except FieldError as error:
        assert error.field.startswith("sentence") and "\n" not in str(error)


parts = st.lists(
    st.sampled_from(
        "the a cup dog birds camera it moves grows falls jumps zooms pans stays to left right up down in out by 30% "
        "20px half a little slowly smoothly and then , . while both towards corner edge twice its size back forth "
        "first".split()
    ),
    max_size=14,
).map(" ".join)


@given(parts)
def test_any_words_of_the_grammar_are_read_or_refused(text: str) -> None:
    try:
        said = say(text, SCENE, find=FIND)
    except FieldError:
        return
    scene = scene_said(said, SCENE)
    for drag in said.drags:
        assert Drag.parse(str(drag)).motion(SIZE) == drag.motion(SIZE)
    drags = [str(drag) for drag in said.drags if drag.stops]
    pins = [str(drag) for drag in said.drags if not drag.stops]
    assert set(map(repr, scene.motions)) == set(map(repr, motions_of(SIZE, drags=drags, pins=pins, camera=said.camera)))


amounts = st.integers(1, 60)


@given(st.sampled_from(["left", "right", "up", "down"]), amounts, st.sampled_from(["%", " percent", "px", " pixels"]))
def test_a_way_is_as_long_as_is_said(way: str, amount: int, unit: str) -> None:
    (drag,) = say(f"the cup moves {way} by {amount}{unit}", SCENE, find=FIND).drags
    first, last = drag.motion(SIZE).path
    sign, axis = {"left": (-1, 0), "right": (1, 0), "up": (-1, 1), "down": (1, 1)}[way]
    moved = (last.x - first.x, last.y - first.y)
    wanted = sign * amount * (1 if unit in ("px", " pixels") else SIZE[axis] / 100)
    assert moved[axis] == pytest.approx(wanted) and moved[1 - axis] == 0


@given(st.permutations(["cup", "dog", "ball"]), st.permutations(["moves left", "falls", "grows a lot"]))
def test_clauses_may_stand_in_any_order(things: list[str], deeds: list[str]) -> None:
    clauses = [f"the {thing} {deed}" for thing, deed in zip(things, deeds, strict=True)]
    one, other = say(", ".join(clauses), SCENE, find=FIND), say(" while ".join(reversed(clauses)), SCENE, find=FIND)
    assert sorted(map(str, one.drags)) == sorted(map(str, other.drags))


def test_what_was_and_was_not_understood_is_said() -> None:
    with pytest.raises(FieldError) as error:
        say("the cup moves to the right, the dog sings, the camera zooms in", SCENE, find=FIND)
    text = str(error.value)
    assert "not understood: 'the dog sings'" in text or "dog sings" in error.value.problem
    assert "understood is 'the cup moves to the right', 'the camera zooms in'" in error.value.remedy
    with pytest.raises(FieldError, match=r"'bird' may be any of 2: say the left, the right"):
        say("the bird flies up", SCENE, find=FIND)
    with pytest.raises(FieldError, match=r"two things at once of cup: say 'then' between them"):
        say("the cup moves left and the cup moves right", SCENE, find=FIND)
    with pytest.raises(FieldError, match="the camera stays, and zoom"):
        say("the camera zooms in, the background stays", SCENE, find=FIND)
    with pytest.raises(FieldError, match=r"^sentence: is empty"):
        say("  ", SCENE, find=FIND)
    with pytest.raises(FieldError, match=r"clauses; say at most"):
        say("the cup grows," * 500, SCENE, find=FIND)


def test_a_scenes_named_things_keep_their_masks_and_the_others_their_ways() -> None:
    mask = Image.new("L", SIZE, 255)
    cup = Motion(box=BOXES["cup"], name="Cup", mask=mask)
    dog = Drag.parse("dog: 200,150,280,250 -> 9,9").motion(SIZE)
    scene = replace(SCENE, motions=(cup, dog))
    made = scene_said(say("the cup falls, the camera zooms in", scene, find=named_in(scene)), scene)
    assert made.motions[0].mask is mask and made.motions[0].path and made.motions[1] == dog
    assert {motion.kind for motion in made.motions[2:]} == {"camera"}
    again = scene_said(say("the cup rises, the camera zooms out", made, find=named_in(made)), made)
    assert [motion.name for motion in again.motions if motion.kind == "object"] == ["Cup", "dog"]
    assert again.motions[0].path[-1].y < made.motions[0].path[-1].y


def test_a_function_may_put_free_words_into_the_grammar() -> None:
    asked = []

    def rewrite(text: str, names: Sequence[str]) -> str:
        asked.append((text, tuple(names)))
        return "the cup moves to the right"

    said = say("schieb mal die Tasse rüber", SCENE, find=FIND, rewrite=rewrite, names=["cup"])
    assert said.drags == say("the cup moves to the right", SCENE, find=FIND).drags
    assert asked == [("schieb mal die Tasse rüber", ("cup",))]
    with pytest.raises(FieldError, match="not understood"):
        say("x", SCENE, find=FIND, rewrite=lambda text, names: "no idea")


def test_the_example_that_errors_show_is_understood() -> None:
    said = say(EXAMPLE.strip('"'), SCENE, find=FIND)
    assert np.allclose(said.drags[0].motion(SIZE).scales(2), [1, 1.5]) and said.camera == "zoom 1.1"


def test_things_are_named_by_their_words() -> None:
    find = among({"red cup": BOXES["cup"], "cup 2": BOXES["dog"]})
    assert [one.name for one in find("red cup")] == ["red cup"]
    assert {one.name for one in find("cup")} == {"red cup", "cup 2"}
    assert not find("up") and isinstance(find("red cup")[0], Found)


def test_a_word_behind_an_article_is_a_thing_though_it_is_a_verb_elsewhere() -> None:
    find = among({"head": BOXES["cup"], "fly 1": BOXES["dog"], "fly 2": BOXES["car"]})
    said = say("the head moves a little to the left and grows, the left fly flies up", SCENE, find=find)
    assert [drag.name for drag in said.drags] == ["head", "fly 2"]
    assert said.drags[0].motion(SIZE).path[-1].x == 130 - 40

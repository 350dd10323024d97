"""Camera moves as short texts, ``zoom 1.2, pan right 10%``: one parser, one printer, and a scene's boxes read back."""

import cmath
import math
import re
from dataclasses import replace
from decimal import Decimal
from typing import Final, cast, get_args

from sgi2v.camera import Camera, camera_motions
from sgi2v.checks import shown
from sgi2v.errors import FieldError
from sgi2v.prompting.drags import EASINGS
from sgi2v.prompting.notation import MEASURE, Measure, check_prompt, plain_number, real
from sgi2v.scene import Easing, Motion, Scene

EXAMPLE: Final = '"zoom 1.2, pan right 10%"'
_MOVE: Final = re.compile(
    rf"(?:zoom\s+(?P<zoom>{MEASURE})|pan\s+(?P<side>left|right|up|down)\s+(?P<pan>{MEASURE})"
    rf"|roll\s+(?P<roll>{MEASURE})|ease[\s-]+(?P<ease>[\w-]+))"
)
_SAME: Final = 1e-6
"""Pixels, and shares of a scale, by which a camera read back from boxes may miss them."""


def parse_camera(text: str, size: tuple[int, int]) -> Camera:
    """The camera that a text says, of a picture of ``size`` (width, height); FieldError for any other text.

    Moves stand between commas, each once: ``zoom F`` (above 1 moves in), ``pan left|right|up|down N%`` (of the frame's
    width or height; without % pixels), ``roll N`` (degrees clockwise), ``ease in|out|in-out``.
    """
    said: dict[str, float | str] = {}
    for part in check_prompt(text, EXAMPLE).split(","):
        found = _MOVE.fullmatch(part.strip())
        if not found:
            remedy = f"say zoom F, pan left|right|up|down N%, roll DEGREES, ease in-out, as in {EXAMPLE}"
            raise FieldError("", f"{shown(part.strip())} is not understood", remedy)
        field, value = _move(found, size)
        if field in said:
            raise FieldError("", f"{shown(part.strip())} comes on top of what is said before it", "say each move once")
        said[field] = value
    return Camera(**said)  # type: ignore[arg-type]


def _move(found: re.Match[str], size: tuple[int, int]) -> tuple[str, float | str]:
    if found["zoom"]:
        return "zoom", real(found["zoom"], "the zoom")
    if found["roll"]:
        if found["roll"].endswith("%"):
            raise FieldError("", f"roll {found['roll']} is no turn", "give degrees, as in roll 10")
        return "roll", real(found["roll"], "the roll")
    if found["ease"]:
        if found["ease"] not in EASINGS:
            raise FieldError("", f"ease {shown(found['ease'])} is not known", f"give one of {', '.join(EASINGS)}")
        return "easing", EASINGS[found["ease"]]
    measure, side = Measure.read(found["pan"]), found["side"]
    across = side in ("left", "right")
    extent = Decimal(100) if measure.percent else Decimal(size[0] if across else size[1])
    share = float(measure.value / extent)
    return "dx" if across else "dy", share if side in ("right", "down") else -share


def camera_text(camera: Camera) -> str:
    """The text that :func:`parse_camera` reads as this camera; a camera that stands still is ``zoom 1``."""
    moves = [f"zoom {plain_number(camera.zoom)}"] if camera.zoom != 1 or camera.still else []
    for value, sides in ((camera.dx, ("right", "left")), (camera.dy, ("down", "up"))):
        share = Decimal(repr(abs(value))) * 100
        moves += [f"pan {sides[value < 0]} {plain_number(share)}%"] if value else []
    moves += [f"roll {plain_number(camera.roll)}"] if camera.roll else []
    moves += [f"ease {camera.easing.removeprefix('ease-')}"] if camera.easing != "linear" else []
    return ", ".join(moves)


def with_camera(motions: tuple[Motion, ...], camera: Camera, size: tuple[int, int]) -> tuple[Motion, ...]:
    """Motions and behind them the camera's boxes, on background that no object meets."""
    return *motions, *camera_motions(camera, size, avoid=[motion for motion in motions if motion.kind == "object"])


def camera_in(scene: Scene) -> Camera | None:
    """The camera whose boxes are a scene's motions of kind camera, all of them and behind the rest; None for none.

    Two boxes give zoom, roll and pan; the camera is taken where its own boxes are the scene's again.
    """
    things = tuple(motion for motion in scene.motions if motion.kind == "object")
    boxes = scene.motions[len(things) :]
    moving = [motion for motion in boxes if motion.path]
    if len(moving) < 2 or any(motion.kind == "object" for motion in boxes):
        return None
    one, other = moving[0], moving[-1]
    starts, ends = ([complex(*_at(motion, last)) for motion in (one, other)] for last in (False, True))
    if starts[0] == starts[1] or ends[0] == ends[1]:
        return None
    turn = (ends[1] - ends[0]) / (starts[1] - starts[0])
    width, height = scene.image.size
    middle = complex(width / 2, height / 2)
    shift = middle + turn * (starts[0] - middle) - ends[0]
    read = Camera(
        dx=round(shift.real / width, 9),
        dy=round(shift.imag / height, 9),
        zoom=round(abs(turn), 9),
        roll=round(-math.degrees(cmath.phase(turn)), 9),
    )
    for easing in get_args(Easing):
        camera = replace(read, easing=cast(Easing, easing))
        try:
            again = with_camera(things, camera, scene.image.size)[len(things) :]
        except FieldError:
            continue
        if len(again) == len(boxes) and all(_same(*pair) for pair in zip(again, boxes, strict=True)):
            return camera
    return None


def _at(motion: Motion, last: bool) -> tuple[float, float]:
    x, y = motion.centers(2)[-1 if last else 0]
    return float(x), float(y)


def _same(one: Motion, other: Motion) -> bool:
    values = [
        [*(box := motion.box).center, box.width, box.height]
        + [value for key in motion.path for value in (key.time, key.x, key.y, key.scale)]
        for motion in (one, other)
    ]
    if len(values[0]) != len(values[1]) or (one.name, one.curve) != (other.name, other.curve):
        return False
    return all(abs(a - b) <= _SAME * max(1.0, abs(b)) for a, b in zip(*values, strict=True))

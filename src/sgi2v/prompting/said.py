"""A sentence becomes a scene: what was read of it as drags, pins and a camera on a picture."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sgi2v.errors import FieldError, within
from sgi2v.prompting.cameras import parse_camera, with_camera
from sgi2v.prompting.deeds import Clause
from sgi2v.prompting.drags import Drag, Stop
from sgi2v.prompting.notation import Measure
from sgi2v.prompting.photo import PHOTO_FIT
from sgi2v.prompting.sentences import Reading, read_sentence
from sgi2v.prompting.things import Finder, Found
from sgi2v.scene import Box, Motion, Scene

Rewrite = Callable[[str, Sequence[str]], str]
"""A language model, or anything else: a free text and the names of known things in, a sentence of the grammar out."""
_DIGITS: Final = 9
"""Decimals to which places and sizes that were reckoned are rounded, so that 1.5 * 0.7 is 1.05."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """A sentence's meaning on one picture."""

    drags: tuple[Drag, ...]
    """Pins are those without stops."""
    camera: str
    """Empty for none."""
    understood: tuple[str, ...]
    """The clauses of the sentence."""
    remarks: tuple[str, ...]

    def lines(self) -> list[str]:
        """All that was understood, a line each, in the notation of ``--drag``, ``--pin`` and ``--camera``."""
        found = [f"{'--drag' if drag.stops else '--pin '} {drag}" for drag in self.drags]
        return [*found, *([f"--camera {self.camera}"] if self.camera else [])]


def say(text: str, scene: Scene, *, find: Finder, rewrite: Rewrite | None = None, names: Sequence[str] = ()) -> Said:
    """The meaning of a sentence about a scene's picture, whose things ``find`` knows.

    ``rewrite`` may turn free words into a sentence of the grammar first, told the ``names`` of known things; what it
    writes is read like any other. FieldError, naming what was understood and what was not.
    """
    with within("sentence"):
        reading = read_sentence(rewrite(text, names) if rewrite else text, scene.image.size, find)
        drags = _drags(reading, scene.image.size)
        camera = ", ".join(sorted(reading.camera, key=lambda move: move.startswith("ease")))
        if camera and reading.still and camera != "zoom 1":
            raise FieldError("", f"not understood: the camera stays, and {camera}", "say one of the two")
        camera = camera or ("zoom 1" if reading.still else "")
        if camera:
            parse_camera(camera, scene.image.size)
    return Said(drags=drags, camera=camera, understood=reading.understood, remarks=reading.remarks)


def scene_said(said: Said, scene: Scene) -> Scene:
    """The scene with the motions said: those of its named things, pins among them, are replaced, others are kept.

    A mask that a thing has stays its. A camera takes the place of an earlier one.
    """
    size = scene.image.size
    made = [drag.motion(size) for drag in said.drags]
    told = {_sides(motion.box): motion for motion in made}
    kept: list[Motion] = []
    for motion in scene.motions:
        new = told.pop(_sides(motion.box), None)
        if new is not None:
            kept.append(replace(motion, path=new.path, curve=new.curve))
        elif motion.kind == "object" or not said.camera:
            kept.append(motion)
    motions = (*kept, *told.values())
    if said.camera:
        motions = with_camera(motions, parse_camera(said.camera, size), size)
    return replace(scene, motions=motions)


def named_in(scene: Scene) -> Finder:
    """A finder among a scene's named objects: by name, or by a name's last word."""
    things = [motion for motion in scene.motions if motion.kind == "object" and motion.name]
    return among({}, [(motion.name, motion.box) for motion in things])


def among(boxes: Mapping[str, Box], others: Sequence[tuple[str, Box]] = ()) -> Finder:
    """A finder of named boxes; ``cup 2`` and ``the red cup`` are both a ``cup``."""
    things = [Found(box=box, name=name) for name, box in (*boxes.items(), *others)]

    def find(phrase: str) -> Sequence[Found]:
        exact = [thing for thing in things if _plain(thing.name) == phrase]
        return exact or [thing for thing in things if phrase in (_kind(thing.name), _kind(thing.name).split(" ")[-1])]

    return find


def first_of(*finders: Finder) -> Finder:
    """Asks one finder after the other, until one knows something."""

    def find(phrase: str) -> Sequence[Found]:
        return next((found for finder in finders if (found := finder(phrase))), ())

    return find


def empty_scene(image: object) -> Scene:
    """A photo in which nothing moves yet."""
    return Scene(image=image, fit=PHOTO_FIT)  # type: ignore[arg-type]


def _plain(name: str) -> str:
    return " ".join(name.lower().split()).removeprefix("the ")


def _kind(name: str) -> str:
    return _plain(name).rstrip("0123456789 ")


def _sides(box: Box) -> tuple[float, ...]:
    return box.left, box.top, box.right, box.bottom


def _drags(reading: Reading, size: tuple[int, int]) -> tuple[Drag, ...]:
    """One drag a thing, its clauses in order of time."""
    spoken: dict[tuple[float, ...], list[tuple[float, float, Clause]]] = {}
    for phase in reading.phases:
        for clause in phase.clauses:
            spoken.setdefault(_sides(clause.things[0].box), []).append((phase.start, phase.end, clause))
    return tuple(_drag(each, size) for each in spoken.values())


def _drag(spoken: Sequence[tuple[float, float, Clause]], size: tuple[int, int]) -> Drag:
    thing = spoken[0][2].things[0]
    drag = Drag(place=tuple(Measure.of(side) for side in _sides(thing.box)), name=thing.name)
    if all(clause.stays for _, _, clause in spoken):
        return drag
    spoken = sorted(spoken, key=lambda one: one[0])
    while spoken[0][2].stays:
        spoken = spoken[1:]
    (x, y), scale, now = thing.box.center, 1.0, spoken[0][0]
    stops: list[Stop] = []

    def stop(time: float, easing: str = "linear") -> None:
        middle = Measure.of(round(x, _DIGITS)), Measure.of(round(y, _DIGITS))
        stops.append(Stop(x=middle[0], y=middle[1], time=time, scale=scale, easing=easing))  # type: ignore[arg-type]

    for start, end, clause in spoken:
        if start < now:
            raise FieldError("", f"not understood: {thing.name} does two things at once", "say 'then' between them")
        if start > now:
            stop(start)
        first, legs = scale, clause.legs
        for leg in legs:
            x, y = leg.to if leg.to is not None else (x + leg.by[0], y + leg.by[1])
            scale = round(first * clause.scale**leg.share, _DIGITS)
            stop(start + leg.share * (end - start), leg.easing)
        if not legs:
            scale = round(first * clause.scale, _DIGITS)
            stop(end, clause.easing or "linear")
        now = end
    smooth = any(clause.smooth for _, _, clause in spoken)
    return Drag.of(replace(drag, stops=tuple(stops), begins=spoken[0][0] or None, smooth=smooth).motion(size))

"""Drags and pins as short texts, ``210,160,400,330 -> 430,220 @0.5 scale 1.2``: one parser, one printer."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Final, cast, get_args

from sgi2v.checks import shown
from sgi2v.errors import FieldError
from sgi2v.prompting.notation import (
    MAX_PROMPT,
    MEASURE,
    NUMBER,
    Measure,
    check_prompt,
    named,
    plain_number,
    real,
    with_name,
)
from sgi2v.scene import MAX_KEYS, Box, Easing, Key, Motion

EXAMPLE: Final = '"30%,40%,60%,80% -> 70%,60%"'
POINT_BOX: Final = 0.15
"""Side of the box around a point, as a share of the picture's shorter side."""
EASINGS: Final = MappingProxyType({name.removeprefix("ease-"): name for name in get_args(Easing)})
"""The word after ``ease`` -> a key's easing."""
_ARROW: Final = re.compile(r"->|→")
_PLACE: Final = re.compile(rf"\s*(by\s+)?({MEASURE}(?:\s*,\s*{MEASURE})*)")
_WORD: Final = re.compile(
    rf"\s*(?:@\s*(?P<time>{MEASURE})|scale\s+(?P<scale>{NUMBER}\s*%?)|ease[\s-]+(?P<ease>[\w-]+)|(?P<flag>smooth|camera))"
    r"(?=\s|@|$)"
)


@dataclass(frozen=True, kw_only=True)
class Stop:
    """A place on the way: the box's centre, or with ``relative`` its distance from where it was before."""

    x: Measure
    y: Measure
    relative: bool = False
    time: float | None = None
    """0 to 1; None: stops without a time share what lies between their neighbours' evenly, the last is at 1."""
    scale: float | None = None
    """Size of the box, as a multiple of its first; None: as before."""
    easing: Easing = "linear"
    """Of the way here."""

    def __str__(self) -> str:
        words = [f"{'by ' * self.relative}{self.x},{self.y}"]
        words += [f"@{plain_number(self.time)}"] if self.time is not None else []
        words += [f"scale {plain_number(self.scale)}"] if self.scale is not None else []
        words += [f"ease {self.easing.removeprefix('ease-')}"] if self.easing != "linear" else []
        return " ".join(words)


@dataclass(frozen=True, kw_only=True)
class Drag:
    """A box or point of the first frame and the stops of its way; without stops a pin. ``str`` of it is its text.

    A place is ``x,y`` or ``left,top,right,bottom``, in pixels of the picture or, with %, of its width and height. ::

        [name:] place [@time] [smooth] [camera] { -> [by] x,y [@time] [scale S] [ease in|out|in-out] }

    ``by`` counts from the stop before; ``@time`` runs from 0 to 1, at the place it is when the way begins; ``smooth``
    takes a spline through the stops; ``camera`` says that the box is background (docs/say.md).
    """

    place: tuple[Measure, ...]
    """2 or 4: x, y or left, top, right, bottom."""
    stops: tuple[Stop, ...] = ()
    name: str = ""
    begins: float | None = None
    """Time at which the way begins; None: 0."""
    smooth: bool = False
    camera: bool = False

    def __str__(self) -> str:
        words = [",".join(str(one) for one in self.place)]
        words += [f"@{plain_number(self.begins)}"] if self.begins is not None else []
        words += ["smooth"] if self.smooth else []
        words += ["camera"] if self.camera else []
        return with_name(self.name, " -> ".join([" ".join(words), *map(str, self.stops)]))

    @classmethod
    def parse(cls, text: str) -> "Drag":
        """The drag that a text says; FieldError, in one line with an example, for any other text."""
        name, rest = named(check_prompt(text, EXAMPLE, MAX_PROMPT))
        first, *ways = _ARROW.split(rest)
        if len(ways) >= MAX_KEYS:
            raise FieldError("", f"{len(ways)} stops", f"give at most {MAX_KEYS - 1}")
        relative, place, words = _segment(first)
        if relative or len(place) not in (2, 4) or "scale" in words or "ease" in words:
            remedy = f"begin with x,y or left,top,right,bottom, in pixels or %, as in {EXAMPLE}"
            raise FieldError("", f"{shown(first.strip())} is no box or point", remedy)
        flags: set[str] = {flag for flag in ("smooth", "camera") if flag in words}
        begins = real(words["time"], "the time") if "time" in words else None
        stops = []
        for way in ways:
            stop, own = _stop(way)
            flags |= own
            stops.append(stop)
        return cls(
            place=place,
            stops=tuple(stops),
            name=name,
            begins=begins,
            smooth="smooth" in flags,
            camera="camera" in flags,
        )

    @classmethod
    def of(cls, motion: Motion) -> "Drag":
        """A motion as a drag in pixels. A path beside the box's centre is moved onto it, masks have no place."""
        box = motion.box
        place = tuple(Measure.of(side) for side in (box.left, box.top, box.right, box.bottom))
        drag = cls(place=place, name=motion.name, smooth=motion.curve == "spline", camera=motion.kind == "camera")
        if not motion.path:
            return replace(drag, smooth=False)
        first = motion.path[0]
        even = _even([first.time, *[None] * (len(motion.path) - 2), 1.0])
        stops = []
        for index, (before, key) in enumerate(zip(motion.path, motion.path[1:], strict=False), start=1):
            ends = (
                value if start == middle else value - start + middle
                for value, start, middle in zip((key.x, key.y), (first.x, first.y), box.center, strict=True)
            )
            x, y = (Measure.of(end) for end in ends)
            time = None if key.time == even[index] else key.time
            scale = None if key.scale == before.scale else key.scale
            stops.append(Stop(x=x, y=y, time=time, scale=scale, easing=before.easing))
        if any(stop.time is not None for stop in stops):  # times left out would be shared out anew between these
            stops = [replace(stop, time=key.time) for stop, key in zip(stops, motion.path[1:], strict=True)]
        return replace(drag, stops=tuple(stops), begins=first.time or None)

    def box(self, size: tuple[int, int]) -> Box:
        """The box on a picture of ``size`` (width, height); around a point a square of :data:`POINT_BOX`, cut at the
        picture's edge. FieldError for a place that is not on the picture."""
        sides = [one.pixels(size[index % 2]) for index, one in enumerate(self.place)]
        spelt = ",".join(str(one) for one in self.place)
        off = f"{spelt} is not on the picture of {size[0]}x{size[1]}"
        if not all(0 <= side <= size[index % 2] for index, side in enumerate(sides)):
            raise FieldError("", off, "give a box or point that is")
        if len(sides) == 4:
            return Box(left=sides[0], top=sides[1], right=sides[2], bottom=sides[3])
        around = Box.around(sides[0], sides[1], max(POINT_BOX * min(size), 1.0))
        return Box(
            left=max(around.left, 0.0),
            top=max(around.top, 0.0),
            right=min(around.right, float(size[0])),
            bottom=min(around.bottom, float(size[1])),
        )

    def motion(self, size: tuple[int, int]) -> Motion:
        """The motion on a picture of ``size``; FieldError for a box that is not on it and for times out of order."""
        box = self.box(size)
        given = [self.begins or 0.0, *(stop.time for stop in self.stops)]
        times = _even([*given[:-1], 1.0 if given[-1] is None else given[-1]])
        x, y = (
            (one.pixels(side) for one, side in zip(self.place, size, strict=True))
            if len(self.place) == 2
            else box.center
        )
        scale = 1.0
        keys: list[Key] = []
        for stop, time in zip(self.stops, times[1:], strict=True):
            if not keys:
                keys.append(Key(time=times[0], x=x, y=y, easing=stop.easing))
            else:
                keys[-1] = replace(keys[-1], easing=stop.easing)
            dx, dy = stop.x.pixels(size[0]), stop.y.pixels(size[1])
            x, y = (x + dx, y + dy) if stop.relative else (dx, dy)
            scale = scale if stop.scale is None else stop.scale
            keys.append(Key(time=time, x=x, y=y, scale=scale))
        return Motion(
            box=box,
            path=tuple(keys),
            kind="camera" if self.camera else "object",
            curve="spline" if self.smooth else "polyline",
            name=self.name,
        )


def _segment(text: str) -> tuple[bool, tuple[Measure, ...], dict[str, str]]:
    """The text between two arrows: relative or not, its numbers, and its words with what they say."""
    found = _PLACE.match(text)
    if not found:
        raise FieldError("", f"{shown(text.strip())} is no place", f"say x,y in pixels or %, as in {EXAMPLE}")
    measures = tuple(Measure.read(one.strip()) for one in found[2].split(","))
    words: dict[str, str] = {}
    at = found.end()
    while text[at:].strip():
        word = _WORD.match(text, at)
        if not word:
            known = "@TIME, scale S, ease in-out, smooth, camera"
            raise FieldError("", f"{shown(text[at:].strip())} is not understood", f"behind a place stand {known}")
        kind = str(word.lastgroup)
        value = word[kind].strip()
        kind = value if kind == "flag" else kind
        if kind in words:
            raise FieldError("", f"{kind} is said twice in {shown(text.strip())}", "say it once")
        words[kind] = value
        at = word.end()
    return bool(found[1]), measures, words


def _stop(text: str) -> tuple[Stop, set[str]]:
    relative, place, words = _segment(text)
    if len(place) != 2:
        raise FieldError("", f"{shown(text.strip())} is no point", f"behind -> say x,y, as in {EXAMPLE}")
    ease = words.get("ease", "linear")
    if ease not in EASINGS:
        raise FieldError("", f"ease {shown(ease)} is not known", f"give one of {', '.join(EASINGS)}")
    stop = Stop(
        x=place[0],
        y=place[1],
        relative=relative,
        time=real(words["time"], "the time") if "time" in words else None,
        scale=real(words["scale"], "the scale") if "scale" in words else None,
        easing=cast(Easing, EASINGS[ease]),
    )
    return stop, {"smooth", "camera"} & set(words)


def _even(times: Sequence[float | None]) -> list[float]:
    """Times in which those that are None lie evenly between their neighbours; the first and last are given."""
    known = [index for index, time in enumerate(times) if time is not None]
    found = [0.0 if time is None else time for time in times]
    for before, after in pairwise(known):
        for index in range(before + 1, after):
            share = (index - before) / (after - before)
            found[index] = found[before] + share * (found[after] - found[before])
    return found

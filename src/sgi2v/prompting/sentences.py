"""A sentence as drags, pins and a camera: a small grammar of motion, without a language model."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Final, Literal, Protocol, cast, runtime_checkable

from sgi2v.errors import FieldError
from sgi2v.prompting import lexicon as words
from sgi2v.prompting.notation import check_prompt
from sgi2v.scene import Box, Easing

EXAMPLE: Final = '"the cup moves to the right and grows, the camera zooms in slowly"'
MAX_CLAUSES: Final = 100
Vector = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Found:
    """A thing on the picture."""

    box: Box
    name: str
    score: float = 1.0
    """0 to 1: how sure whoever found it is."""


@runtime_checkable
class Finder(Protocol):
    """Whoever knows where things are on the picture."""

    def __call__(self, phrase: str) -> Sequence[Found]:
        """All that a noun phrase such as ``red car`` may mean, in any order; none where there is nothing like it."""


@dataclass(frozen=True, kw_only=True)
class Leg:
    """A part of a way: to a place, or by a distance; both in pixels."""

    share: float
    """Of its phase's time, 0 to 1, at which it ends."""
    by: Vector = (0.0, 0.0)
    to: Vector | None = None
    easing: Easing = "linear"


@dataclass(frozen=True, kw_only=True)
class Clause:
    """One thing said of some things: a way, a change of size, an easing, or that they stay."""

    things: tuple[Found, ...]
    legs: tuple[Leg, ...] = ()
    scale: float = 1.0
    smooth: bool = False
    stays: bool = False
    easing: Easing | None = None


@dataclass(frozen=True, kw_only=True)
class Phase:
    """What happens between two times, all at once."""

    start: float
    end: float
    clauses: tuple[Clause, ...]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a sentence was understood to say."""

    phases: tuple[Phase, ...]
    camera: tuple[str, ...]
    """Moves as :func:`sgi2v.prompting.cameras.parse_camera` reads them."""
    still: bool
    """The camera, or the background, is to stay."""
    understood: tuple[str, ...]
    """The clauses, as they were split."""
    remarks: tuple[str, ...] = ()


@dataclass
class _Reader:
    """The state of reading one sentence: who was spoken of last, what was understood and what was not."""

    size: tuple[int, int]
    find: Finder
    last: tuple[Found, ...] = ()
    camera: dict[str, str] = field(default_factory=dict)
    still: bool = False
    is_camera: bool = False
    """The last subject was the camera."""
    waiting: tuple[Found, ...] = ()
    """Things named before ``and`` that have no verb yet."""
    waited: list[str] = field(default_factory=list)
    understood: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)


def read_sentence(text: str, size: tuple[int, int], find: Finder) -> Reading:
    """What a sentence says about the things on a picture of ``size`` (width, height), each found by ``find``.

    The grammar is that of docs/say.md. FieldError in one line that names what was understood and what was not; nothing
    is guessed.
    """
    text = _normal(check_prompt(text, EXAMPLE))
    reader = _Reader(size=size, find=find)
    parts = [part for part in re.split(_THEN, text) if part.strip(" ,;.")]
    phases: list[Phase] = []
    moved: list[bool] = []
    for index, part in enumerate(parts):
        before = dict(reader.camera)
        start, end = index / len(parts), (index + 1) / len(parts)
        clauses: dict[tuple[float, float], list[Clause]] = {}
        pieces = [piece.strip(" ,;.") for piece in re.split(_AND, re.sub(r"^\s*first,? ", "", part.strip(" ,;.")))]
        if len(pieces) > MAX_CLAUSES:
            raise FieldError("", f"{len(pieces)} clauses", f"say at most {MAX_CLAUSES}")
        for piece in filter(None, pieces):
            for clause, half in _clause(reader, piece):
                middle = (start + end) / 2
                window = {"first": (start, middle), "second": (middle, end)}.get(half, (start, end))
                clauses.setdefault(window, []).append(clause)
        if reader.waited:
            reader.missed += reader.waited
            reader.waiting, reader.waited = (), []
        moved.append(before != reader.camera)
        phases += [Phase(start=low, end=high, clauses=_merged(reader, each)) for (low, high), each in clauses.items()]
    if reader.missed or not (phases or reader.camera or reader.still):
        missed = "; ".join(dict.fromkeys(reader.missed)) or "nothing is said in it"
        understood = f"understood is {', '.join(repr(one) for one in reader.understood)}; " if reader.understood else ""
        raise FieldError("", f"not understood: {missed}"[:400], f"{understood}say for instance {EXAMPLE}"[:400])
    remarks = ["the camera moves from the first frame to the last"] if len(parts) > 1 and any(moved) else []
    return Reading(
        phases=tuple(phases),
        camera=tuple(reader.camera.values()),
        still=reader.still,
        understood=tuple(reader.understood),
        remarks=tuple(remarks),
    )


_THEN: Final = r"[,;.]?\s*\b(?:and )?(?:then|after that|afterwards|finally)\b,?"
_AND: Final = r";|,|\.(?=\s|$)|\bwhile\b|\bwhereas\b|\bas\b|\bbut\b|\band\b"


def _normal(text: str) -> str:
    """Lower case, numbers in figures, and phrases that hold commas or ``and`` in brackets, so that none is split."""
    text = " ".join(text.lower().replace("’", "'").split()).strip(" .!")
    text = re.sub(r"\b[a-z]+\b", lambda found: words.NUMBERS.get(found[0], found[0]), text)
    text = re.sub(r"\s*\b(?:per cent|percent)\b|\s+%", "%", text)
    text = re.sub(r"(?<=\d)\s*(?:pixels|pixel|px)\b", "px", text)
    text = re.sub(r"\bto ([\d.]+ ?%?) ?, ?([\d.]+ ?%?)", r"to [\1 \2]", text)
    text = re.sub(r"\b1 (?=third|quarter|half|fifth|tenth)", "a ", text)
    text = re.sub(r"\b(faster|slower) and \1\b", r"\1_and_\1", text)
    text = re.sub(
        r",? and (?:then )?(?:comes? |goes |moves? |flies |walks )?back(?: again)?\b(?! and)|,? and returns?\b",
        " <back>",
        text,
    )
    side = r"(?:to the )?(left|right|up|down)(?:wards?)?"
    text = re.sub(rf"\b{side} and {side}\b", r"<\1 \2>", text)
    text = re.sub(r"\b(up|down) to the (left|right)\b", r"<\1 \2>", text)
    text = re.sub(r"^(slowly|quickly|gently|smoothly|softly),? ", r"\1 ", text)
    return re.sub(r"\b(back|to) and (forth|fro)\b", r"\1_and_\2", text)


def _clause(reader: _Reader, piece: str) -> Iterator[tuple[Clause, str]]:
    """The clause that one piece of a sentence is, and the half of its phase, if one is named; what is not understood is
    put down."""
    clean = piece.replace("_and_", " and ")
    named, rest = _which(clean)
    said, rest = _phrases(rest)
    tokens = [one for one in re.findall(r"[\w'<>|-]+", rest) if one not in words.HELPERS]
    # Behind an article the same word is a thing: the head, the swing.
    verbs = [one for before, one in pairwise(["", *tokens]) if _is_verb(one) and before not in words.ARTICLES]
    subject, after = _parts(tokens, verbs)
    target = _target(reader, rest, said, bool(subject))
    if target is not None:
        after = ()
    if set(verbs) & words.CAMERA and set(subject) <= _DEPTH:
        subject, after = (), (*subject, *after)
    if subject == ("camera",) or ((not subject and (reader.is_camera or set(verbs) & words.CAMERA)) and not named):
        reader.is_camera = True
        problem = _camera(reader, said, verbs, after)
        _put_down(reader, clean, problem)
        return
    if set(verbs) & words.CAMERA:
        return _put_down(reader, clean, f"{clean!r}: only the camera does that")
    if " ".join(subject) in words.REST and (said.keys() & {"stay"} or set(verbs) & words.STAY):
        reader.still = True
        return _put_down(reader, clean, "")
    things, problem = _things(reader, " ".join(subject), named)
    if problem and not subject and not verbs and not said:
        problem = repr(clean)
    if not problem and after:
        problem = repr(" ".join(_tail(clean, after)))
    if problem:
        return _put_down(reader, clean, problem)
    reader.is_camera = False
    if subject and not verbs and not said and target is None:
        reader.waiting += things
        reader.waited.append(repr(clean))
        return
    things = (*reader.waiting, *things) if subject else things
    reader.waiting, reader.waited = (), []
    reader.last = things
    meant: list[Clause] = []
    for thing in things:
        clause = _deed(reader.size, thing, said, verbs, target)
        if isinstance(clause, str):
            return _put_down(reader, clean, clause or repr(clean))
        meant.append(clause)
    _put_down(reader, clean, "")
    for clause in meant:
        yield clause, said.get("half", "")


def _put_down(reader: _Reader, clean: str, problem: str) -> None:
    if problem:
        reader.missed.append(problem)
    else:
        reader.understood.append(re.sub(r"[<>\[\]]", "", clean))


def _is_verb(word: str) -> bool:
    return any(
        word in kind
        for kind in (
            words.MOVE, words.RISE, words.SINK, words.FALL, words.JUMP, words.SHAKE, words.ZIGZAG, words.GROW,
            words.SHRINK, words.DOUBLE, words.HALVE, words.STAY, words.CAMERA, words.BECOME, {"rotate", "rotates"},
        )
    )  # fmt: skip


def _phrases(text: str) -> tuple[dict[str, str], str]:
    """The phrases of the lexicon in a text, by name, and the text with bars where they stood."""
    said: dict[str, str] = {}
    text = text.replace("<back>", " |back ") if "<back>" in text else text
    if "|back" in text:
        said["back"] = ""
        text = text.replace("|back", "|")
    for name, pattern in words.PHRASES:
        found = re.search(rf"(?<![\w'])(?:{pattern})(?![\w'])", text)
        if found and not (name == "little" and "lot" in said):
            said[name] = (found.groupdict().get(name) or "").replace("-", " ")
            text = f"{text[: found.start()]} | {text[found.end() :]}"
    return said, text


_WHICH: Final = re.compile(
    r"\b(?:the |both |all )?(?P<which>left|right|upper|lower|top|bottom|leftmost|rightmost|larger|largest|bigger|"
    r"biggest|smaller|smallest|first|second|third|both|all)(?: of the| the)? "
    r"(?P<noun>(?!corner|edge|side|half|of\b|left|right|and\b)[a-z]+)"
    r"(?P<from> from the (?:left|right))?"
)
_ON: Final = re.compile(
    r"\b(?P<noun>(?!picture|frame|image|view|screen|photo)[a-z]+) on the (?P<which>left|right|top|bottom)\b"
)


def _which(text: str) -> tuple[str, str]:
    """Which of several things is meant, and the text without that: ``the left bird`` is ``the bird``."""
    found = _ON.search(text) or _WHICH.search(text)
    if not found or (
        re.search(r"\bto(?:wards?)? (?:the )?$", text[: found.start() + text[found.start() :].index(found["which"])])
    ):
        return "", text
    if (_is_verb(found["noun"]) and not found[0].startswith("the ")) or (
        _is_verb(text[: found.start()].strip().rpartition(" ")[2]) and not text.startswith("let")
    ):
        return "", text
    which = found["which"] + (found.groupdict().get("from") or "")
    return which, f"{text[: found.start()]}the {found['noun']}{text[found.end() :]}"


def _parts(tokens: Sequence[str], verbs: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words of the subject, and those that are left behind the verb: of ``move the cup`` the cup is the subject."""
    plain = [one for one in tokens if one not in words.ARTICLES]
    first = next((k for k, one in enumerate(plain) if one in verbs), None)
    bare = [[one for one in part if one != "|" and one not in verbs] for part in _around(plain, first)]
    before, behind = bare
    if before and before[0] in words.PREPOSITIONS:
        return (), tuple(before)
    if first is not None and not before:
        cut = next((k for k, one in enumerate(behind) if one in words.PREPOSITIONS), len(behind))
        return tuple(behind[:cut]), tuple(behind[cut:])
    return tuple(before), tuple(behind)


def _around(tokens: Sequence[str], at: int | None) -> tuple[Sequence[str], Sequence[str]]:
    return (tokens, ()) if at is None else (tokens[:at], tokens[at:])


def _tail(clean: str, after: Sequence[str]) -> Sequence[str]:
    """The end of a clause from the first of the words that were not understood."""
    found = re.search(rf"\b{re.escape(after[0])}\b", clean)
    return clean[found.start() :].split() if found else after


def _things(reader: _Reader, phrase: str, which: str) -> tuple[tuple[Found, ...], str]:
    """What a noun phrase means, or the problem with it."""
    if not phrase or phrase in words.IT:
        return (reader.last, "") if reader.last else ((), "nobody is named before " + repr(phrase or "the verb"))
    found = list(reader.find(phrase))
    if not found and phrase.endswith("s"):
        found = list(reader.find(phrase.removesuffix("s"))) or list(reader.find(phrase.removesuffix("es")))
    if not found:
        return (), f"{phrase!r} is not found on the picture"
    if which in ("both", "all"):
        return (
            (tuple(found), "")
            if which == "all" or len(found) == 2
            else ((), f"{phrase!r}: there are {len(found)}, not 2")
        )
    if which:
        chosen = _chosen(found, which)
        return ((chosen,), "") if chosen else ((), f"{phrase!r}: there are but {len(found)}")
    if len(found) > 1:
        return (
            (),
            f"{phrase!r} may be any of {len(found)}: say the left, the right, the upper, the larger {phrase}, or all",
        )
    return (found[0],), ""


def _chosen(found: Sequence[Found], which: str) -> Found | None:
    order, _, side = which.partition(" from the ")
    along: Mapping[str, Callable[[Found], float]] = MappingProxyType(
        {
            "left": lambda one: one.box.center[0],
            "right": lambda one: -one.box.center[0],
            "upper": lambda one: one.box.center[1],
            "lower": lambda one: -one.box.center[1],
            "large": lambda one: -one.box.width * one.box.height,
            "small": lambda one: one.box.width * one.box.height,
        }
    )
    places = {"first": 0, "second": 1, "third": 2}
    alike = {"top": "upper", "bottom": "lower", "leftmost": "left", "rightmost": "right"}
    kind = "large" if order[:3] in ("lar", "big") else "small" if order.startswith("small") else alike.get(order, order)
    ranked = sorted(found, key=along[(side or "left") if order in places else kind])
    place = places.get(order, 0)
    return ranked[place] if place < len(ranked) else None


def _target(reader: _Reader, rest: str, said: Mapping[str, str], subject: bool) -> tuple[Vector, bool] | None:
    """The middle of a thing that another moves to, and true where only towards it."""
    found = re.search(r"\b(to|towards?) (?:the|a|an|my) ([a-z ]+?)\s*(?:\||$)", rest)
    if not found or not subject:
        return None
    things, problem = _things(reader, found[2], "")
    return None if problem else (things[0].box.center, found[1] != "to")


LITTLE, USUAL, LOT = 10.0, 20.0, 40.0
"""Ways, in per cent of the picture's side."""


def _measure(said: Mapping[str, str], usual: tuple[float, float, float]) -> tuple[float, bool]:
    """How much is said: a number and whether it is of pixels, else of per cent; little, usual and a lot otherwise."""
    if "amount" in said:
        amount = said["amount"].replace(" ", "")
        return float(amount.removesuffix("%").removesuffix("px")), amount.endswith("px")
    if "share" in said:
        return float(words.SHARES[said["share"]]), False
    return (usual[0] if "little" in said else usual[2] if "lot" in said else usual[1]), False


def _easing(said: Mapping[str, str]) -> Easing | None:
    for name in ("ease_in_out", "ease_in", "ease_out"):
        if name in said:
            return cast(Easing, name.replace("_", "-"))
    return None


def _deed(
    size: tuple[int, int],
    thing: Found,
    said: Mapping[str, str],
    verbs: Sequence[str],
    target: tuple[Vector, bool] | None,
) -> Clause | str:
    """What a thing does, or the problem with that."""
    done = set(verbs)
    easing = _easing(said) or ("ease-in" if done & (words.FALL | words.forms("accelerate")) else None)
    scale = _scale(said, done)
    if scale is not None and not 0.001 <= scale <= 1000:
        return f"a size of {scale:g} times"
    if "stay" in said or done & words.STAY:
        return Clause(things=(thing,), stays=True)
    step = _step(size, said, done)
    place = _place(size, thing.box, said, done)
    if target is not None:
        (x, y), halfway = target
        place = ((thing.box.center[0] + x) / 2, (thing.box.center[1] + y) / 2) if halfway else (x, y)
    if done & words.JUMP:
        legs = _jumps(size, said)
    elif done & words.SHAKE:
        legs = _zigzag((0.02 * size[0], 0.0), _SHAKES)
    elif "swing" in said:
        legs = _zigzag(step if step else (0.1 * size[0], 0.0), _SWINGS)
    elif place is not None:
        legs = (Leg(share=1.0, to=place),)
    elif step is not None:
        legs = _shaped(size, step, said, done)
    else:
        legs = ()
    if not legs and scale is None and not (easing and not done & words.MOVE - words.forms("accelerate")):
        left = [one for one in verbs if one not in words.BECOME]
        return f"{' '.join(left)!r} without where to, how far or how large" if left else ""
    if easing is not None:
        legs = tuple(replace(leg, easing=easing) if leg.easing == "linear" else leg for leg in legs)
    smooth = bool(said.keys() & {"arc", "wave"})
    return Clause(things=(thing,), legs=legs, scale=scale or 1.0, smooth=smooth, easing=easing)


def _scale(said: Mapping[str, str], done: set[str]) -> float | None:
    if done & words.DOUBLE:
        return 2.0
    if done & words.HALVE:
        return 0.5
    if "multiple" in said:
        multiple = said["multiple"]
        return {"twice": 2.0, "double": 2.0, "half": 0.5}.get(multiple) or float(multiple.split()[0])
    if "percent_size" in said:
        return float(said["percent_size"]) / 100
    larger, smaller = bool(done & words.GROW) or "bigger" in said, bool(done & words.SHRINK) or "smaller" in said
    if not (larger or smaller):
        return None
    if said.keys() & {"amount", "share"} and not said.keys() & {"way", "diagonal", "pair"}:
        amount = _measure(said, (0.0, 0.0, 0.0))[0] / 100
        return round(1 + amount if larger else 1 - amount, 9)
    little, lot = "little" in said, "lot" in said
    return (1.2 if little else 2.0 if lot else 1.5) if larger else (0.85 if little else 0.5 if lot else 0.7)


def _step(size: tuple[int, int], said: Mapping[str, str], done: set[str]) -> Vector | None:
    """The way in pixels, of a direction and how far."""
    usual = (LITTLE, LOT, LOT) if done & words.FALL else (LITTLE, USUAL, LOT)
    amount, pixels = _measure(said, usual)
    if "pair" in said or "diagonal" in said:
        one, other = (words.WAYS[name] for name in (said.get("pair") or said["diagonal"]).split())
        way = one if one[0] == -other[0] and one[1] == -other[1] else (one[0] + other[0], one[1] + other[1])
    elif "way" in said:
        way = words.WAYS[said["way"]]
    elif done & (words.SINK | words.FALL):
        way = (0, 1)
    elif done & words.RISE:
        way = (0, -1)
    else:
        return None
    return tuple(way[k] * (amount if pixels else amount * size[k] / 100) for k in (0, 1))  # type: ignore[return-value]


def _place(size: tuple[int, int], box: Box, said: Mapping[str, str], done: set[str]) -> Vector | None:
    """A named place, at which the box lies within the picture, or just outside of it."""
    x, y = box.center
    half = box.width / 2, box.height / 2
    if "point" in said:
        ends = said["point"].split()
        return tuple(float(one.rstrip("%")) * (size[k] / 100 if "%" in one else 1) for k, one in enumerate(ends))  # type: ignore[return-value]
    if "middle" in said:
        return size[0] / 2, size[1] / 2
    side = said.get("out") or said.get("leave")
    if not side and said.keys() & {"out", "leave"}:
        side = said.get("way")
    inside = said.get("corner") or said.get("edge") or said.get("end")
    if not (side or inside):
        return None
    sign = 1 if inside else -1
    for name in (inside or side or "").split():
        dx, dy = words.WAYS[name]
        x = x if not dx else (size[0] - sign * half[0] if dx > 0 else sign * half[0])
        y = y if not dy else (size[1] - sign * half[1] if dy > 0 else sign * half[1])
    return x, y


_SHAKES: Final = ((0.2, 1), (0.4, -2), (0.6, 2), (0.8, -2), (1.0, 1))
_SWINGS: Final = ((0.25, 1), (0.75, -2), (1.0, 1))


def _zigzag(step: Vector, turns: Sequence[tuple[float, int]]) -> tuple[Leg, ...]:
    return tuple(Leg(share=share, by=(step[0] * times, step[1] * times)) for share, times in turns)


def _jumps(size: tuple[int, int], said: Mapping[str, str]) -> tuple[Leg, ...]:
    amount, pixels = _measure(said, (8.0, 15.0, 30.0))
    height = amount if pixels else amount * size[1] / 100
    times = said.get("times", "once")
    count = {"once": 1, "twice": 2}.get(times) or min(int(times.split()[0]), 50)
    along = _step(size, {name: value for name, value in said.items() if name in ("way", "amount")}, set())
    dx = along[0] / (2 * count) if along else 0.0
    legs: list[Leg] = []
    for number in range(count):
        legs.append(Leg(share=(2 * number + 1) / (2 * count), by=(dx, -height), easing="ease-out"))
        legs.append(Leg(share=(number + 1) / count, by=(dx, height), easing="ease-in"))
    return tuple(legs)


def _shaped(size: tuple[int, int], step: Vector, said: Mapping[str, str], done: set[str]) -> tuple[Leg, ...]:
    """A way in its shape: straight, there and back, an arc, or to either side of the line."""
    dx, dy = step
    level = abs(dx) >= abs(dy)
    if "arc" in said:
        side = (0.0, -0.1 * size[1]) if level else (0.1 * size[0], 0.0)
        return (
            Leg(share=0.5, by=(dx / 2 + side[0], dy / 2 + side[1])),
            Leg(share=1.0, by=(dx / 2 - side[0], dy / 2 - side[1])),
        )
    if said.keys() & {"zigzag", "wave"} or done & words.ZIGZAG:
        side = (0.0, -0.05 * size[1]) if level else (0.05 * size[0], 0.0)
        turns = (1, -2, 2, -1)
        return tuple(
            Leg(share=(k + 1) / 4, by=(dx / 4 + turn * side[0], dy / 4 + turn * side[1]))
            for k, turn in enumerate(turns)
        )
    one, other = (words.WAYS[name] for name in said["pair"].split()) if "pair" in said else ((0, 0), (1, 1))
    if "back" in said or (one[0] == -other[0] and one[1] == -other[1]):
        return Leg(share=0.5, by=step), Leg(share=1.0, by=(-dx, -dy))
    return (Leg(share=1.0, by=step),)


_INWARD: Final = frozenset({"in", "forward", "forwards"})
_DEPTH: Final = _INWARD | {"out", "back", "backward", "backwards"}


def _camera(reader: _Reader, said: Mapping[str, str], verbs: Sequence[str], after: Sequence[str]) -> str:
    """Puts down a move of the camera; returns what is not understood of it."""
    done, left = set(verbs), set(after) - {"camera"}
    inward, outward = bool(left & _INWARD), bool(left & (_DEPTH - _INWARD))
    if left - _DEPTH:
        return repr(" ".join(after))
    if "stay" in said or done & words.STAY:
        reader.still = True
        return ""
    easing = _easing(said)
    moves: dict[str, str] = {"ease": f"ease {easing.removeprefix('ease-')}"} if easing else {}
    amount, pixels = _measure(said, (0.0, 0.0, 0.0))
    size: Literal[0, 1, 2] = 0 if "little" in said else 2 if "lot" in said else 1
    ways = said.get("pair") or said.get("diagonal") or said.get("way")
    if said.keys() & {"clockwise", "anticlockwise"}:
        degrees = said.get("degrees") or f"{(5, 10, 20)[size]}"
        moves["roll"] = f"roll {'-' * ('anticlockwise' in said)}{degrees}"
    elif inward or outward:
        share = amount / 100 if amount else 0.0
        factor = (1 + share if inward else 1 - share) if share else ((1.1, 1.25, 1.5), (0.9, 0.8, 0.67))[outward][size]
        moves["zoom"] = f"zoom {factor:g}"
    elif ways and not done & words.forms("zoom"):
        shown_amount = f"{amount:g}" + "%" * (not pixels) if amount else f"{(8, 15, 30)[size]}%"
        for way in ways.split():
            side = {"upper": "up", "top": "up", "lower": "down", "bottom": "down"}.get(way, way)
            moves["pan" + str(bool(words.WAYS[way][0]))] = f"pan {side} {shown_amount}"
    elif not easing:
        return f"the camera: {' '.join(verbs) or 'it'} without in, out or a direction"
    for name, move in moves.items():
        if reader.camera.get(name, move) != move:
            return f"{move} on top of {reader.camera[name]}"
    reader.camera |= moves
    return ""


def _merged(reader: _Reader, clauses: Sequence[Clause]) -> tuple[Clause, ...]:
    """One clause a thing: a way, a size and an easing that are said of it at once belong together."""
    merged: dict[int, Clause] = {}
    for clause in clauses:
        (thing,) = clause.things
        key = id(thing)
        before = merged.get(key)
        if before is None:
            merged[key] = clause
        elif (before.legs and clause.legs) or before.stays or clause.stays or 1.0 not in (before.scale, clause.scale):
            reader.missed.append(f"two things at once of {thing.name}: say 'then' between them")
        else:
            easing = before.easing or clause.easing
            legs = before.legs or clause.legs
            if easing is not None:
                legs = tuple(replace(leg, easing=easing) if leg.easing == "linear" else leg for leg in legs)
            merged[key] = replace(
                before,
                legs=legs,
                scale=before.scale * clause.scale,
                smooth=before.smooth or clause.smooth,
                easing=easing,
            )
    return tuple(merged.values())

"""A sentence as drags, pins and a camera: a small grammar of motion, without a language model."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Final

from sgi2v.errors import FieldError
from sgi2v.prompting import lexicon as words
from sgi2v.prompting.deeds import DEPTH, Clause, Vector, camera_moves, deed
from sgi2v.prompting.notation import check_prompt
from sgi2v.prompting.things import Finder, Found, is_verb, things_meant, which_of

EXAMPLE: Final = '"the cup moves to the right and grows, the camera zooms in slowly"'
MAX_CLAUSES: Final = 100


@dataclass(frozen=True, kw_only=True)
class Phase:
    """All that happens at once, between two times."""

    start: float
    end: float
    clauses: tuple[Clause, ...]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A sentence as it was understood."""

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
    """The meaning of a sentence about the things on a picture of ``size`` (width, height), each found by ``find``.

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
    named, rest = which_of(clean)
    said, rest = _phrases(rest)
    tokens = [one for one in re.findall(r"[\w'<>|-]+", rest) if one not in words.HELPERS]
    # Behind an article the same word is a thing: the head, the swing.
    verbs = [one for before, one in pairwise(["", *tokens]) if is_verb(one) and before not in words.ARTICLES]
    subject, after = _parts(tokens, verbs)
    target = _target(reader, rest, said, bool(subject))
    if target is not None:
        after = ()
    if set(verbs) & words.CAMERA and set(subject) <= DEPTH:
        subject, after = (), (*subject, *after)
    if subject == ("camera",) or ((not subject and (reader.is_camera or set(verbs) & words.CAMERA)) and not named):
        reader.is_camera = True
        _put_down(reader, clean, _camera(reader, camera_moves(said, verbs, after)))
        return
    if set(verbs) & words.CAMERA:
        return _put_down(reader, clean, f"{clean!r}: only the camera does that")
    if " ".join(subject) in words.REST and (said.keys() & {"stay"} or set(verbs) & words.STAY):
        reader.still = True
        return _put_down(reader, clean, "")
    things, problem = things_meant(reader.find, reader.last, " ".join(subject), named)
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
        clause = deed(reader.size, thing, said, verbs, target)
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


def _target(reader: _Reader, rest: str, said: Mapping[str, str], subject: bool) -> tuple[Vector, bool] | None:
    """The middle of a thing that another moves to, and true where only towards it."""
    found = re.search(r"\b(to|towards?) (?:the|a|an|my) ([a-z ]+?)\s*(?:\||$)", rest)
    if not found or not subject:
        return None
    things, problem = things_meant(reader.find, reader.last, found[2], "")
    return None if problem else (things[0].box.center, found[1] != "to")


def _camera(reader: _Reader, moves: Mapping[str, str] | str) -> str:
    """Puts down the camera's moves, or that it stays; returns the problem with them."""
    if isinstance(moves, str):
        return moves
    reader.still |= not moves
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

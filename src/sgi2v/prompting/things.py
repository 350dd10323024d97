"""Things that a sentence names: found on the picture, and of several the one that is meant."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from sgi2v.prompting import lexicon as words
from sgi2v.scene import Box


@dataclass(frozen=True, kw_only=True)
class Found:
    """A thing on the picture."""

    box: Box
    name: str
    score: float = 1.0
    """0 to 1: how sure whoever found it is."""


Finder = Callable[[str], Sequence[Found]]
"""All on the picture that a noun phrase such as ``red car`` may mean, in any order; none where nothing is like it."""


def is_verb(word: str) -> bool:
    """True for a word of the lexicon that says a deed."""
    return any(
        word in kind
        for kind in (
            words.MOVE, words.RISE, words.SINK, words.FALL, words.JUMP, words.SHAKE, words.ZIGZAG, words.GROW,
            words.SHRINK, words.DOUBLE, words.HALVE, words.STAY, words.CAMERA, words.BECOME, {"rotate", "rotates"},
        )
    )  # fmt: skip


_WHICH: Final = re.compile(
    r"\b(?:the |both |all )?(?P<which>left|right|upper|lower|top|bottom|leftmost|rightmost|larger|largest|bigger|"
    r"biggest|smaller|smallest|first|second|third|both|all)(?: of the| the)? "
    r"(?P<noun>(?!corner|edge|side|half|of\b|left|right|and\b)[a-z]+)"
    r"(?P<from> from the (?:left|right))?"
)
_ON: Final = re.compile(
    r"\b(?P<noun>(?!picture|frame|image|view|screen|photo)[a-z]+) on the (?P<which>left|right|top|bottom)\b"
)


def which_of(text: str) -> tuple[str, str]:
    """The word for one of several things, and the text without that: ``the left bird`` is ``the bird``."""
    found = _ON.search(text) or _WHICH.search(text)
    if not found or (
        re.search(r"\bto(?:wards?)? (?:the )?$", text[: found.start() + text[found.start() :].index(found["which"])])
    ):
        return "", text
    if (is_verb(found["noun"]) and not found[0].startswith("the ")) or (
        is_verb(text[: found.start()].strip().rpartition(" ")[2]) and not text.startswith("let")
    ):
        return "", text
    which = found["which"] + (found.groupdict().get("from") or "")
    return which, f"{text[: found.start()]}the {found['noun']}{text[found.end() :]}"


def things_meant(find: Finder, last: tuple[Found, ...], phrase: str, which: str) -> tuple[tuple[Found, ...], str]:
    """The things that a noun phrase means, ``last`` those spoken of before, or the problem with it."""
    if not phrase or phrase in words.IT:
        return (last, "") if last else ((), "nobody is named before " + repr(phrase or "the verb"))
    found = list(find(phrase))
    if not found and phrase.endswith("s"):
        found = list(find(phrase.removesuffix("s"))) or list(find(phrase.removesuffix("es")))
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

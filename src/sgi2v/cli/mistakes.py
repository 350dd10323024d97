"""Plain words for arguments of `sgi2v generate` that the parser has refused: what stands where it should not."""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile

from sgi2v.backbones import Settings
from sgi2v.controllers import COMBINATIONS, Controller, controllers
from sgi2v.errors import FieldError

_OWN = "controller:"
_FIELD = "--controller."


def explain(arguments: Sequence[str], settings: Settings, options: Sequence[type]) -> None:
    """FieldError naming the mistake in arguments that the parser has refused; nothing where none is recognised.

    ``options`` are the classes whose fields are options that stand before the method.
    """
    methods = {name: _fields(kind) for name, kind in controllers().items()}
    for name in COMBINATIONS:
        sides = zip(("first", "second"), name.split("+"), strict=True)
        methods[name] = tuple(f"{side}.{field}" for side, part in sides for field in methods[part])
    chosen = [place for place, word in enumerate(arguments) if word.startswith(_OWN)]
    for place in chosen:
        _known("controller", arguments[place].removeprefix(_OWN), methods)
    if len(chosen) > 1:
        names = " and ".join(arguments[place] for place in chosen)
        raise FieldError("controller", f"{names} are both named", f"give one; of two in turn {', '.join(COMBINATIONS)}")
    _check_settings(arguments, settings)
    for place, word in enumerate(arguments):
        if word.startswith(_FIELD):
            _check_field(arguments, place, chosen, methods)
    plain = [_plain(field.name) for kind in options for field in dataclasses.fields(kind)]
    if chosen:
        _check_after(arguments[chosen[0] :], plain)
    for place, word in enumerate(arguments):
        bare = word.lstrip("-").removeprefix("controller").lstrip("=: ").lower()
        before = arguments[place - 1] if place else ""
        if word == "--controller" or (bare in methods and not before.startswith("-") and not word.startswith(_OWN)):
            raise FieldError(
                "controller", f"{word!r} names no method", f"say {_OWN}{bare or 'NAME'}, after the options"
            )


def explain_missing(message: str) -> None:
    """FieldError where the parser's message says that no scene was given."""
    if "required" in message and ("SCENE" in message or "PATH" in message):
        raise FieldError(
            "scene",
            "none was given",
            "say sgi2v generate SCENE [options] [controller:NAME …]: a scene.json, a folder that holds one, or a "
            "folder with img.png and traj.npy",
        )


def _check_settings(arguments: Iterable[str], settings: Settings) -> None:
    unsaid = (*Settings.SIZE, *Settings.ADVICE)
    known = [f.name for f in dataclasses.fields(settings) if f.name not in unsaid]
    for word in arguments:
        kind, _, name = word.partition("=")[0].partition(".")
        if kind == "--settings" and name.removeprefix("no-").replace("-", "_") not in known:
            raise FieldError("settings", f"unknown setting {name!r}", f"known are {', '.join(known)}")


def _check_field(
    arguments: Sequence[str], place: int, chosen: Sequence[int], methods: Mapping[str, Sequence[str]]
) -> None:
    """FieldError for an option of a method without one, before it, or of another."""
    spelt = arguments[place].partition("=")[0]
    field = _plain(spelt.removeprefix(_FIELD))
    of = [name for name, fields in methods.items() if field in fields]
    if not chosen:
        named = f", as in {_OWN}{of[0]} {spelt}" if of else ""
        raise FieldError(f"controller.{field}", "no method is named that it could be of", f"say one before it{named}")
    name = arguments[chosen[0]].removeprefix(_OWN)
    if place < chosen[0]:
        raise FieldError(
            f"controller.{field}", f"{spelt} stands before {_OWN}{name}", "put options of a method after its name"
        )
    if field not in methods[name]:
        near = difflib.get_close_matches(field, methods[name], 1)
        hints = [f"did you mean {near[0]}?"] if near else []
        hints += [f"{', '.join(of)} would take it;"] if of else []
        hints.append(f"known are {', '.join(methods[name]) or 'none'}")
        raise FieldError(f"controller.{field}", f"{name} has no such field", " ".join(hints))


def _check_after(words: Sequence[str], plain: Sequence[str]) -> None:
    """FieldError for an option of the command, or its scene, behind the method that `words` begin with."""
    for word in words[1:]:
        name = _plain(word.partition("=")[0].lstrip("-"))
        if word.startswith("--settings.") or (word.startswith("--") and name.removeprefix("no_") in plain):
            remedy = "the method and its own options come last"
            raise FieldError(name, f"{word} stands behind {words[0]}", f"put it before; {remedy}")
    early = list(takewhile(lambda word: not word.startswith("-"), words[1:]))
    if early:
        raise FieldError("scene", f"{early[0]} stands behind {words[0]}", "put the scene first, the method last")


def _known(field: str, name: str, known: Iterable[str]) -> None:
    if name not in (names := list(known)):
        near = difflib.get_close_matches(name.lower().replace("_", "-"), names, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise FieldError(field, f"unknown {name!r}", f"{hint}known are {', '.join(names)}")


def _fields(kind: type[Controller]) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


def _plain(name: str) -> str:
    """An option as its field is called: of a range too, and without the no- of a flag."""
    side, dot, last = name.rpartition(".")
    return f"{side}{dot}{last.removeprefix('no-')}".replace("-", "_")

"""Checks of the values that a person gives; an error names the field, the value and the remedy in one line."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Final, TypeVar, get_args

import numpy as np
from PIL import Image

from sgi2v.errors import FieldError

T = TypeVar("T")

MAX_TEXT: Final = 10_000
"""Characters of a name or a prompt."""
LARGEST: Final = 1e6
"""Of a number in a form whose class says no bounds of its own."""
Bounds = Mapping[str, tuple[int | float, int | float]]
"""Field -> its lowest and its highest value: what a dataclass has as ``BOUNDS``, the one place where they are said."""


def shown(value: object) -> str:
    """A value as an error message shows it: one line, at most 80 characters."""
    text = repr(value).replace("\n", " ")
    return text if len(text) <= 80 else text[:77] + "..."


def finite(field: str, value: object, remedy: str) -> float:
    """`value` as a float; ValueError naming `field` for anything that is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise FieldError(field, f"{shown(value)} is not a number", remedy)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise FieldError(field, f"{shown(value)} is not finite", remedy)
    return number


def choice(field: str, value: object, allowed: object) -> None:
    """Raise ValueError naming `field` unless `value` is one of the words of the Literal `allowed`."""
    words = get_args(allowed)
    if not isinstance(value, str) or value not in words:
        raise FieldError(field, f"{shown(value)} is not known", f"give one of {', '.join(words)}")


def own_bounds(kind: type) -> dict[str, tuple[int | float, int | float]]:
    """The bounds that a dataclass and its parents say, the nearest first."""
    found: dict[str, tuple[int | float, int | float]] = {}
    for parent in reversed(kind.__mro__):
        found |= parent.__dict__.get("BOUNDS", {})
    return found


def bounds_of(kind: type, name: str) -> tuple[int | float, int | float]:
    """Lowest and highest value of a dataclass's field, as forms show them."""
    return own_bounds(kind).get(name, (-LARGEST, LARGEST))


def check_bounds(where: str, value: object) -> None:
    """Raise ValueError for a number of a dataclass, or of one inside it, that lies outside `bounds_of` its field."""
    assert dataclasses.is_dataclass(value)
    for field in dataclasses.fields(value):
        inner, name = getattr(value, field.name), f"{where}.{field.name}" if where else field.name
        if dataclasses.is_dataclass(inner):
            check_bounds(name, inner)
        low, high = bounds_of(type(value), field.name)
        for number in inner if isinstance(inner, tuple) else (inner,):
            if isinstance(number, int | float) and not isinstance(number, bool) and not low <= number <= high:
                raise FieldError(name, f"must lie in {low:g}..{high:g}, got {number:g}")


def check_text(field: str, value: object) -> None:
    """Raise ValueError naming `field` unless `value` is a text of bearable length that every file can hold."""
    if not isinstance(value, str):
        raise FieldError(field, f"{shown(value)} is not a text", "give one in quotes, or leave it out")
    if len(value) > MAX_TEXT:
        raise FieldError(field, f"{len(value)} characters", f"give at most {MAX_TEXT}")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise FieldError(field, f"{shown(value)} holds half a character", "give whole Unicode characters")


def check_picture(field: str, value: object, remedy: str, *modes: str) -> None:
    """Raise ValueError naming `field` unless `value` is a picture of one of some modes, with pixels."""
    if not isinstance(value, Image.Image) or value.mode not in modes or min(value.size) < 1:
        raise FieldError(field, f"{shown(value)} is no picture of mode {' or '.join(modes)}", remedy)


def tuple_of(field: str, value: object, kind: type[T], remedy: str) -> tuple[T, ...]:
    """A list or tuple as a tuple; ValueError naming `field` for anything else or for a member of another kind."""
    if not isinstance(value, tuple | list) or not all(isinstance(item, kind) for item in value):
        raise FieldError(field, f"{shown(value)} is not a list of {kind.__name__}", remedy)
    return tuple(value)


def plain(field: str, image: Image.Image) -> Image.Image:
    """The decoded pixels alone, without file or metadata, so that equal pictures compare equal."""
    if type(image) is Image.Image and not image.info:
        return image
    try:
        copy = image.copy()
    except (OSError, SyntaxError) as error:  # a file opened but not yet decoded
        raise FieldError(field, f"{shown(image)} cannot be decoded ({error})", "give another file") from error
    copy.info = {}
    return copy

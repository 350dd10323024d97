"""Fields of a model's configurations, checked before any weight is read: every refusal names the file and the field."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

from sgi2v.checks import shown
from sgi2v.errors import FieldError

Config = Mapping[str, object]


def wrong(file: Path, name: str, must: str, value: object, remedy: str = "") -> FieldError:
    """The mistake of a configuration whose field ``must`` be something else."""
    return FieldError("backbone", f"{file}: {name} must {must}, got {shown(value)}", remedy)


def check_class(config: Config, wanted: str, file: Path) -> None:
    """FieldError where a part is of another class."""
    if config.get("_class_name") != wanted:
        raise wrong(file, "_class_name", f"be {wanted!r}", config.get("_class_name"))


def check_values(config: Config, wanted: Config, file: Path) -> None:
    """FieldError for a field that is there and says anything but what is wanted."""
    for name, value in wanted.items():
        found = config.get(name, value)
        if found != value or isinstance(found, bool) != isinstance(value, bool):
            raise wrong(file, name, f"be {value!r}", found)


def number(config: Config, name: str, file: Path, default: int | None = None) -> int:
    """A whole number above 0 in a configuration, the default where the field is absent; FieldError for all else."""
    value = config.get(name, default)
    if not _whole(value):
        raise wrong(file, name, "be a whole number above 0", value)
    assert isinstance(value, int)
    return value


def positive(config: Config, name: str, file: Path, default: float | None = None) -> int | float:
    """A finite number above 0 in a configuration, likewise."""
    value = config.get(name, default)
    if not (_real(value) and value > 0):  # type: ignore[operator]
        raise wrong(file, name, "be a number above 0", value)
    assert isinstance(value, int | float)
    return value


def numbers(
    config: Config, name: str, file: Path, *, count: int | None = None, real: bool = False
) -> list[int | float]:
    """A list of whole numbers above 0, or of ``real`` ones, as many as ``count`` or at least one; else FieldError."""
    value = config.get(name)
    check: Callable[[object], bool] = _real if real else _whole
    right = isinstance(value, list) and bool(value) and all(check(one) for one in value)
    if not right or (count is not None and len(value) != count):  # type: ignore[arg-type]
        kind = "numbers" if real else "whole numbers above 0"
        raise wrong(file, name, f"be a list of {count if count else 'some'} {kind}", value)
    assert isinstance(value, list)
    return value


def one_or_each(config: Config, name: str, file: Path, count: int, default: int) -> None:
    """FieldError unless a field is one whole number above 0, or a list of ``count`` of them."""
    if isinstance(config.get(name), list):
        numbers(config, name, file, count=count)
    else:
        number(config, name, file, default)


def flag(config: Config, name: str, file: Path) -> None:
    """FieldError for a field that is there and is neither true nor false."""
    if not isinstance(config.get(name, False), bool):
        raise wrong(file, name, "be true or false", config[name])


def _real(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31

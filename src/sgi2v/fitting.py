"""JSON values as the fields of a dataclass want them, or an error that names the field."""

import dataclasses
import math
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from sgi2v.checks import shown
from sgi2v.errors import FieldError, within
from sgi2v.records import Json


def fitted(kind: type, values: Mapping[str, object], where: str) -> Json:
    """JSON values as a dataclass's fields want them: 2 as 2.0, a list as a tuple.

    Raises ValueError naming the field for a value of another type; unknown names are left for the class to refuse.
    """
    hints = get_type_hints(kind)
    return {
        name: _fit(hints[name], value, f"{where}.{name}" if where else name) if name in hints else value
        for name, value in values.items()
    }


def without_none(hint: object) -> Any:
    """A type without its None, where that leaves one."""
    if get_origin(hint) in (Union, UnionType) and NoneType in get_args(hint):
        others = [other for other in get_args(hint) if other is not NoneType]
        return others[0] if len(others) == 1 else hint
    return hint


def _fit(hint: object, value: object, field: str) -> object:
    bare = without_none(hint)
    if value is None and bare is not hint:
        return None
    if bare is float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise FieldError(field, f"{shown(value)} is not a number", "give one")
        return _float(value, field)
    if bare is int:
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise FieldError(field, f"{shown(value)} is not a whole number", "give one")
        return value
    if bare is bool and not isinstance(value, bool):
        raise FieldError(field, f"{shown(value)} is neither true nor false", "give one of them")
    if bare is str and not isinstance(value, str):
        raise FieldError(field, f"{shown(value)} is not a text", "give one")
    if get_origin(bare) is Literal and (isinstance(value, list | dict) or value not in get_args(bare)):
        known = ", ".join(str(choice) for choice in get_args(bare))
        raise FieldError(field, f"{shown(value)} is not known", f"give one of {known}")
    if get_origin(bare) is tuple:
        return _fit_tuple(get_args(bare), value, field)
    if dataclasses.is_dataclass(bare) and isinstance(bare, type):
        if isinstance(value, bare):
            return value
        if not isinstance(value, Mapping):
            known = ", ".join(f.name for f in dataclasses.fields(bare))
            raise FieldError(field, f"{shown(value)} is no object", f"give one with {known}")
        unknown = sorted(set(value) - {f.name for f in dataclasses.fields(bare)})
        if unknown:
            raise FieldError(f"{field}.{unknown[0]}", "there is no such field", "leave it out")
        with within(field):
            return bare(**fitted(bare, value, ""))
    if get_origin(bare) is Mapping:
        if not isinstance(value, Mapping):
            raise FieldError(field, f"{shown(value)} is no object", "give names with their values")
        return {name: _fit(get_args(bare)[1], item, f"{field}.{name}") for name, item in value.items()}
    return value


def _fit_tuple(inner: tuple[object, ...], value: object, field: str) -> tuple[object, ...]:
    if not isinstance(value, list | tuple) or len(value) > 1000:
        raise FieldError(field, f"{shown(value)} is not a list", "give one of bearable length")
    if inner[-1] is Ellipsis:
        inner = (inner[0],) * len(value)
    if len(value) != len(inner):
        raise FieldError(field, f"{len(value)} values", f"give {len(inner)}")
    return tuple(_fit(kind, item, f"{field}[{k}]") for k, (kind, item) in enumerate(zip(inner, value, strict=True)))


def _float(value: int | float, field: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise FieldError(field, f"{shown(value)} is not finite", "give a number")
    return number

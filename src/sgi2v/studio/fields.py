"""A dataclass's fields as a form needs them: type, choices, default and the explanation written under each."""

import ast
import dataclasses
import inspect
import math
import textwrap
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from sgi2v.checks import shown

SIMPLE: Final = frozenset(
    {"seed", "num_steps", "iterations", "lr", "strength", "tweak", "t_strong", "cutoff", "learning_rate"}
)
"""Fields of the small panel, whatever dataclass they are in: the seed, the steps, how strongly a method steers."""


def describe(
    kind: type[Any], values: Mapping[str, Any], leave_out: frozenset[str] = frozenset()
) -> list[dict[str, Any]]:
    """The fields of a dataclass in their order; `values` are the defaults to show in place of the class's own."""
    hints = get_type_hints(kind)
    helps = explanations(kind)
    fields = []
    for field in dataclasses.fields(kind):
        if field.name in leave_out or not field.init:
            continue
        known = _type(hints[field.name])
        if known is None:
            continue
        fields.append(
            {
                "name": field.name,
                **known,
                "default": _plain(values.get(field.name, _default(field))),
                "published": _plain(_default(field)),
                "help": helps.get(field.name, ""),
                "simple": field.name in SIMPLE,
            }
        )
    return fields


def explanations(kind: type[Any]) -> dict[str, str]:
    """The string under each field of a dataclass and of its parents, on one line."""
    found: dict[str, str] = {}
    for parent in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(parent):
            continue
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(parent))).body
        assert isinstance(body, ast.ClassDef)
        for node, after in zip(body.body, body.body[1:], strict=False):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                match after:
                    case ast.Expr(value=ast.Constant(value=str(text))):
                        found[node.target.id] = " ".join(text.split())
    return found


def fitted(kind: type[Any], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """JSON values as a dataclass's fields want them: 2 as 2.0, a list as a tuple.

    Raises ValueError naming the field for a value of another type; unknown names are left for the class to refuse.
    """
    hints = get_type_hints(kind)
    return {
        name: _fit(hints[name], value, f"{where}.{name}" if where else name) if name in hints else value
        for name, value in values.items()
    }


def _type(hint: Any) -> dict[str, Any] | None:
    """What a form needs to know of a type; None for one that no form can hold."""
    bare = _without_none(hint)
    optional = bare is not hint
    simple = {bool: "boolean", int: "integer", float: "number", str: "text"}.get(bare)
    if simple:
        return {"type": simple, "optional": optional}
    if get_origin(bare) is Literal:
        return {"type": "choice", "choices": list(get_args(bare)), "optional": optional}
    if get_origin(bare) is tuple:
        inner = get_args(bare)
        item = {float: "numbers", int: "numbers", str: "strings"}.get(inner[0])
        if item is None:
            return None
        length = {} if inner[-1] is Ellipsis else {"length": len(inner)}
        return {"type": item, **length, "optional": optional}
    return None


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, UnionType) and NoneType in get_args(hint):
        others = [other for other in get_args(hint) if other is not NoneType]
        return others[0] if len(others) == 1 else hint
    return hint


def _fit(hint: Any, value: Any, field: str) -> Any:
    bare = _without_none(hint)
    if value is None and bare is not hint:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if bare is float:
        if not number:
            raise ValueError(f"{field}: {shown(value)} is not a number; give one")
        return _float(value, field)
    if bare is int:
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"{field}: {shown(value)} is not a whole number; give one")
        return value
    if bare is bool and not isinstance(value, bool):
        raise ValueError(f"{field}: {shown(value)} is neither true nor false; give one of them")
    if bare is str and not isinstance(value, str):
        raise ValueError(f"{field}: {shown(value)} is not a text; give one")
    if get_origin(bare) is Literal and (isinstance(value, list | dict) or value not in get_args(bare)):
        known = ", ".join(str(choice) for choice in get_args(bare))
        raise ValueError(f"{field}: {shown(value)} is not known; give one of {known}")
    if get_origin(bare) is tuple:
        return _fit_tuple(get_args(bare), value, field)
    return value


def _fit_tuple(inner: tuple[Any, ...], value: Any, field: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple) or len(value) > 1000:
        raise ValueError(f"{field}: {shown(value)} is not a list; give one of bearable length")
    if inner[-1] is Ellipsis:
        inner = (inner[0],) * len(value)
    if len(value) != len(inner):
        raise ValueError(f"{field}: {len(value)} values; give {len(inner)}")
    return tuple(
        _fit(kind, item, f"{field}[{k}]") for k, (kind, item) in enumerate(zip(inner, value, strict=True))
    )


def _float(value: int | float, field: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{field}: {shown(value)} is not finite; give a number")
    return number


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return None if field.default_factory is dataclasses.MISSING else field.default_factory()


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value

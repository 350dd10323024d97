"""A dataclass's fields as a form needs them: type, choices, default and the explanation written under each."""

import ast
import dataclasses
import inspect
import math
import textwrap
from collections.abc import Mapping
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

from sgi2v.checks import MAX_TEXT, bounds_of
from sgi2v.fitting import without_none
from sgi2v.planning import Range, Unit

SIMPLE: Final = frozenset(
    {"seed", "num_steps", "iterations", "lr", "strength", "t_weak", "t_strong", "cutoff", "learning_rate"}
)
"""Fields of the small panel, whatever dataclass they are in: the seed, the steps, how strongly a method steers."""


def describe(
    kind: type[Any], values: Mapping[str, Any], leave_out: frozenset[str] = frozenset()
) -> list[dict[str, Any]]:
    """The fields of a dataclass in their order; `values` are the defaults to show in place of the class's own."""
    hints = get_type_hints(kind) or {field.name: field.type for field in dataclasses.fields(kind)}
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
                **_limits(kind, field.name, known["type"]),
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


def _type(hint: Any) -> dict[str, Any] | None:
    """Facts that a form needs of a type; None for one that no form can hold."""
    bare = without_none(hint)
    optional = bare is not hint
    simple = {bool: "boolean", int: "integer", float: "number", str: "text"}.get(bare)
    if simple:
        return {"type": simple, "optional": optional}
    if get_origin(bare) is Literal:
        return {"type": "choice", "choices": list(get_args(bare)), "optional": optional}
    if bare is Range:
        return {"type": "range", "choices": list(get_args(Unit)), "optional": optional}
    if get_origin(bare) is tuple:
        inner = get_args(bare)
        item = {float: "numbers", int: "numbers", str: "strings"}.get(inner[0])
        if item is None:
            return None
        length = {} if inner[-1] is Ellipsis else {"length": len(inner)}
        return {"type": item, **length, "optional": optional}
    return None


def _limits(kind: type[Any], name: str, shown: str) -> dict[str, Any]:
    """Limits that a form keeps to, by the class's own word."""
    if shown == "text":
        return {"max_length": MAX_TEXT}
    low, high = bounds_of(kind, name)
    return {"low": low, "high": high} if shown in ("integer", "number", "numbers", "range") else {}


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return None if field.default_factory is dataclasses.MISSING else field.default_factory()


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, Range):
        return dataclasses.asdict(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value

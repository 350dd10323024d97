"""Ways of steering, by the names people type; and how one is written into a record and read back."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from sgi2v.controllers.base import Controller
from sgi2v.controllers.drag_diffusion import DragDiffusion
from sgi2v.controllers.freetraj import FreeTraj
from sgi2v.controllers.in_turn import InTurn
from sgi2v.controllers.sg_i2v import SGI2V
from sgi2v.controllers.time_to_move import TimeToMove
from sgi2v.fitting import fitted

__all__ = [
    "COMBINATIONS",
    "CONTROLLERS",
    "SGI2V",
    "Controller",
    "DragDiffusion",
    "FreeTraj",
    "InTurn",
    "TimeToMove",
    "controller_class",
    "controller_from_dict",
    "controller_name",
    "controller_to_dict",
    "recommended",
]

CONTROLLERS: Mapping[str, type[Controller]] = MappingProxyType(
    {
        "none": Controller,
        "sg-i2v": SGI2V,
        "freetraj": FreeTraj,
        "drag-diffusion": DragDiffusion,
        "time-to-move": TimeToMove,
    }
)
COMBINATIONS: Final = ("time-to-move+sg-i2v", "freetraj+sg-i2v")
"""Pairs that make sense, for lists of choices; any names joined by + can be built."""
MAX_JOINED: Final = 4
"""Controllers in one combination."""


def controller_class(name: str) -> type[Controller]:
    """The class behind a name, :class:`InTurn` for names joined by +; ValueError listing the names otherwise."""
    parts = name.split("+")
    for part in parts:
        if part not in CONTROLLERS:
            known = ", ".join(CONTROLLERS)
            raise ValueError(f"controller: unknown {part!r}; known are {known}, and any of them joined by +")
    if len(parts) > MAX_JOINED:
        raise ValueError(f"controller: {len(parts)} joined by +; give at most {MAX_JOINED}")
    return CONTROLLERS[name] if len(parts) == 1 else InTurn


def controller_name(controller: Controller) -> str:
    """The name of a controller's class, of a combination both joined by +; ValueError for a class without one."""
    if isinstance(controller, InTurn):
        return f"{controller_name(controller.first)}+{controller_name(controller.second)}"
    for name, kind in CONTROLLERS.items():
        if type(controller) is kind:
            return name
    raise ValueError(
        f"controller: {type(controller).__name__} has no name; known are {', '.join(CONTROLLERS)}"
    )


def controller_to_dict(controller: Controller) -> dict[str, Any]:
    """Name and all fields, as JSON holds them; a combination's ``first`` and ``second`` are such objects too."""
    values = {f.name: getattr(controller, f.name) for f in dataclasses.fields(controller)}
    return {
        "name": controller_name(controller),
        **{k: controller_to_dict(v) if isinstance(v, Controller) else v for k, v in values.items()},
    }


def controller_from_dict(data: Mapping[str, Any]) -> Controller:
    """The controller of a record; ValueError naming an unknown name or field, or a value of the wrong kind.

    A part of a combination may leave out its name, which the combination's says already.
    """
    values = dict(data)
    name = str(values.pop("name", None))
    kind = controller_class(name)
    known = {f.name for f in dataclasses.fields(kind)}
    if (
        kind is SGI2V and "heatmap" in values and "weighting" not in values
    ):  # a record from before there were masks
        values["weighting"] = "gaussian" if values.pop("heatmap") else "uniform"
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(
            f"controller: unknown field {unknown[0]!r}; known are {', '.join(sorted(known)) or 'none'}"
        )
    if kind is InTurn:
        return InTurn(**_both(name, values))
    return kind(**fitted(kind, values, "controller"))


def _both(name: str, values: Mapping[str, Any]) -> dict[str, Controller]:
    """The parts of a combination by the name of their field."""
    made = {}
    for side, part in zip(("first", "second"), name.rsplit("+", 1), strict=True):
        own = values.get(side, {})
        if not isinstance(own, Mapping) or own.get("name", part) != part:
            raise ValueError(
                f"controller.{side}: is not the {part} that {name} names; give its fields, or none"
            )
        try:
            made[side] = controller_from_dict({**own, "name": part})
        except ValueError as error:
            raise ValueError(str(error).replace("controller", f"controller.{side}", 1)) from None
    return made


def recommended(name: str, values: Mapping[str, Mapping[str, Any]]) -> Controller:
    """The named controller with a model's recommended values (``Settings.recommended``) over the published ones.

    A combination's parts have what the model recommends for each alone, and over that what it recommends for them
    together: ``{"a+b": {"first": {...}, "second": {...}}}``.
    """
    return controller_from_dict(_recommended(name, values))


def _recommended(name: str, values: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    own = values.get(name, {})
    if "+" not in name:
        return {"name": name, **own}
    parts = zip(("first", "second"), name.rsplit("+", 1), strict=True)
    sides = {side: {**_recommended(part, values), **own.get(side, {})} for side, part in parts}
    return {**own, "name": name, **sides}

"""Ways of steering, by the names people type; and how one is written into a record and read back."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from sgi2v.controllers.base import Controller
from sgi2v.controllers.sg_i2v import SGI2V

__all__ = [
    "CONTROLLERS",
    "SGI2V",
    "Controller",
    "controller_class",
    "controller_from_dict",
    "controller_name",
    "controller_to_dict",
    "recommended",
]

CONTROLLERS: Mapping[str, type[Controller]] = MappingProxyType({"none": Controller, "sg-i2v": SGI2V})


def controller_class(name: str) -> type[Controller]:
    """The class behind a name; ValueError listing the names when there is none."""
    if name not in CONTROLLERS:
        raise ValueError(f"controller: unknown {name!r}; known are {', '.join(CONTROLLERS)}")
    return CONTROLLERS[name]


def controller_name(controller: Controller) -> str:
    """The name of a controller's class; ValueError for a class that is not registered."""
    for name, kind in CONTROLLERS.items():
        if type(controller) is kind:
            return name
    raise ValueError(
        f"controller: {type(controller).__name__} has no name; known are {', '.join(CONTROLLERS)}"
    )


def controller_to_dict(controller: Controller) -> dict[str, Any]:
    """Name and all fields, as JSON holds them."""
    return {"name": controller_name(controller), **dataclasses.asdict(controller)}


def controller_from_dict(data: Mapping[str, Any]) -> Controller:
    """The controller of a record; ValueError naming an unknown name or field, or a value of the wrong kind."""
    values = dict(data)
    kind = controller_class(str(values.pop("name", None)))
    known = {f.name for f in dataclasses.fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(
            f"controller: unknown field {unknown[0]!r}; known are {', '.join(sorted(known)) or 'none'}"
        )
    frozen = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    try:
        return kind(**frozen)
    except TypeError as error:
        raise ValueError(f"controller: a field has a value of the wrong kind ({error})") from None


def recommended(name: str, values: Mapping[str, Mapping[str, Any]]) -> Controller:
    """The named controller with a model's recommended values (``Settings.recommended``) over the published ones."""
    return controller_from_dict({"name": name, **values.get(name, {})})

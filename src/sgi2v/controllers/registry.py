"""Ways of steering by the names people type, those of installed packages too; how one is written down and read."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, Final

from sgi2v.controllers.ati import ATI
from sgi2v.controllers.base import Controller
from sgi2v.controllers.drag_anything import DragAnything
from sgi2v.controllers.drag_diffusion import DragDiffusion
from sgi2v.controllers.drag_nuwa import DragNUWA
from sgi2v.controllers.freetraj import FreeTraj
from sgi2v.controllers.image_conductor import ImageConductor
from sgi2v.controllers.in_turn import InTurn
from sgi2v.controllers.sg_i2v import SGI2V
from sgi2v.controllers.time_to_move import TimeToMove
from sgi2v.controllers.wan_move import WanMove
from sgi2v.errors import FieldError, within
from sgi2v.fitting import fitted
from sgi2v.migrations import controller_from_1
from sgi2v.planning import Range
from sgi2v.plugins import brought
from sgi2v.records import Json

GROUP: Final = "sgi2v.controllers"
"""Entry points by which a package brings ways of steering; each names a class."""
OWN: Final[tuple[type[Controller], ...]] = (
    Controller, SGI2V, FreeTraj, DragDiffusion, TimeToMove, WanMove, ATI, DragNUWA, DragAnything, ImageConductor,
)  # fmt: skip
COMBINATIONS: Final = ("time-to-move+sg-i2v", "freetraj+sg-i2v")
"""Pairs that make sense, for lists of choices; any names joined by + can be built."""
MAX_JOINED: Final = 4
"""Controllers in one combination."""
_SIDES: Final = ("first", "second")


def controllers() -> Mapping[str, type[Controller]]:
    """Name -> class: our own, then those of installed packages in the order of their names.

    FieldError where a package's class has no name of its own, or one that is taken.
    """
    found: dict[str, type[Controller]] = {kind.name: kind for kind in OWN}
    for place, kind in brought(GROUP):
        if "name" not in vars(kind) or found.setdefault(kind.name, kind) is not kind or "+" in kind.name:
            raise FieldError(
                "controller",
                f"{place} of an installed package has no name of its own",
                "ask its authors for one, or remove the package",
            )
    return found


def controller_class(name: str) -> type[Controller]:
    """The class behind a name, :class:`InTurn` for names joined by +; FieldError listing the names otherwise."""
    parts = name.split("+")
    known = controllers()
    for part in parts:
        if part not in known:
            near = difflib.get_close_matches(part, known, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise FieldError(
                "controller",
                f"unknown {part!r}",
                f"{hint}known are {', '.join(known)}, any of them joined by +, and those of packages, once installed",
            )
    if len(parts) > MAX_JOINED:
        raise FieldError("controller", f"{len(parts)} joined by +", f"give at most {MAX_JOINED}")
    return known[name] if len(parts) == 1 else InTurn


def controller_name(controller: Controller) -> str:
    """The name of a controller's class, of a combination both joined by +; of a class without one, where it stands."""
    if isinstance(controller, InTurn):
        return f"{controller_name(controller.first)}+{controller_name(controller.second)}"
    kind = type(controller)
    return str(kind.name) if "name" in vars(kind) else f"{kind.__module__}:{kind.__qualname__}"


def controller_to_dict(controller: Controller) -> Json:
    """Name and all fields, as JSON holds them; a combination's ``first`` and ``second`` are such objects too."""

    def plain(value: object) -> object:
        if isinstance(value, Controller):
            return controller_to_dict(value)
        return dataclasses.asdict(value) if isinstance(value, Range) else value

    values = {f.name: plain(getattr(controller, f.name)) for f in dataclasses.fields(controller)}
    return {"name": controller_name(controller), **values}


def controller_from_dict(data: Mapping[str, object], *, over: Controller | None = None) -> Controller:
    """The controller of a record, or of some fields laid over another controller of the same name.

    FieldError naming an unknown name or field, or a value of the wrong kind. Fields of older records are read as what
    they are now. A part of a combination may leave out its name, which the combination's says already.
    """
    values = dict(data)
    said = values.pop("name", None if over is None else controller_name(over))
    if not isinstance(said, str):
        raise FieldError("controller.name", "is not a text", "give the name of a method")
    kind = controller_class(said)
    if kind is InTurn:
        return InTurn(**_parts(said, values, over))
    # The unit alone, an older form, is said of a range that is there already.
    before = getattr(kind() if over is None and "guided_as" in values else over, "guided", None)
    values = controller_from_1(said, values, before=before if isinstance(before, Range) else None)
    known = {f.name for f in dataclasses.fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise FieldError(
            "controller",
            f"unknown field {unknown[0]!r} of {said}",
            f"known are {', '.join(sorted(known)) or 'none'}",
        )
    fields = fitted(kind, values, "controller")
    return kind(**fields) if over is None else dataclasses.replace(over, **fields)


def _parts(name: str, values: Mapping[str, object], over: Controller | None) -> dict[str, Controller]:
    """The parts of a combination by the name of their field."""
    unknown = sorted(set(values) - set(_SIDES))
    if unknown:
        raise FieldError("controller", f"unknown field {unknown[0]!r} of {name}", "known are first, second")
    made = {}
    for side, part in zip(_SIDES, name.rsplit("+", 1), strict=True):
        own = values.get(side, {})
        if not isinstance(own, Mapping) or own.get("name", part) != part:
            raise FieldError(f"controller.{side}", f"is not the {part} that {name} names", "give its fields, or none")
        try:
            made[side] = controller_from_dict({**own, "name": part}, over=getattr(over, side, None))
        except FieldError as error:
            field = error.field.removeprefix("controller").removeprefix(".")
            with within(f"controller.{side}"):
                raise FieldError(field, error.problem, error.remedy) from error
    return made


def recommended(name: str, values: Mapping[str, Mapping[str, object]], **changed: object) -> Controller:
    """The named controller with a model's recommended values (``Settings.recommended``) over the published ones.

    ``changed`` are fields of one's own over both: ``recommended("sg-i2v", backbone.settings.recommended, lr=0.3)``, of
    a combination ``first={"lr": 0.3}``. FieldError for a field or value that there is not.

    A combination's parts have what the model recommends for each alone, and over that what it recommends for them
    together: ``{"a+b": {"first": {...}, "second": {...}}}``.
    """
    own = {**values.get(name, {}), "name": name}
    if controller_class(name) is not InTurn:
        made = controller_from_dict(own)
    else:
        first, second = (recommended(part, values) for part in name.rsplit("+", 1))
        made = controller_from_dict(own, over=InTurn(first=first, second=second))
    return controller_from_dict({**changed, "name": name}, over=made) if changed else made


def default_controller(settings: Any) -> Controller:
    """The method of a model for whoever names none (``Settings.default``), with the values that it recommends.

    FieldError where the model's folder names one that there is not.
    """
    try:
        controller_class(settings.default)
    except FieldError as error:
        raise FieldError("default (in the model's sgi2v.json)", error.problem, error.remedy) from error
    return recommended(settings.default, settings.recommended)

"""Older forms of what is written down, read as today's; and today's written as an older version can say it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from jaxtyping import Float

from sgi2v.lazy import torch
from sgi2v.planning import Range
from sgi2v.records import Json

_UNITS: Final[Mapping[str, str]] = MappingProxyType({"sg-i2v": "sigma", "freetraj": "share"})
"""Methods with a guided range, and its unit where version 1 said none."""
_RENAMED: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "time-to-move": MappingProxyType({"tweak": "t_weak", "clocks_as": "unit"}),
        "drag-diffusion": MappingProxyType({"at_as": "unit"}),
    }
)
"""Fields of a method by their names in version 1."""
_SINCE_2_1: Final[Mapping[str, Mapping[str, object]]] = MappingProxyType(
    {
        "time-to-move": MappingProxyType({"mask_rule": "coverage"}),
        "sg-i2v": MappingProxyType(
            {
                "loss": "alignment",
                "backward": "network",
                "lr_unit": "signal",
                "clip_gradient": 0.0,
                "keep_statistics": False,
                "hold_background": 0.0,
                "path_parts": 1,
            }
        ),
    }
)
"""Fields of a method that version 2.1 of a record brought, with what says nothing new: then they are left out."""
_SIDES: Final = ("first", "second")


def controller_from_1(name: str, values: Json, *, before: Range | None = None) -> dict[str, object]:
    """Fields of a method as they are today; those of version 1 of a record are changed, others left.

    Version 1 had ``guided`` and ``guided_as`` for a range, ``tweak`` and ``clocks_as`` of Time-to-Move, ``at_as`` of
    DragDiffusion; before there were masks, ``heatmap`` of SG-I2V. What a range leaves out is that of the range
    ``before``, its unit else the method's own. A field under both its names keeps the old one, which nobody knows. A
    combination's parts are not entered.
    """
    renamed = _RENAMED.get(name, {})
    fields = {key if renamed.get(key) in values else renamed.get(key, key): value for key, value in values.items()}
    if name == "sg-i2v" and "heatmap" in fields and "weighting" not in fields:
        fields["weighting"] = "gaussian" if fields.pop("heatmap") else "uniform"
    if name in _UNITS:
        guided, unit = fields.get("guided"), fields.pop("guided_as", None)
        if guided is None and unit is not None and before is not None:
            guided = [before.low, before.high]
        if isinstance(guided, list | tuple) and len(guided) in (2, 3):
            low, high, said = guided if len(guided) == 3 else (*guided, unit)
            own = _UNITS[name] if before is None else before.unit
            fields["guided"] = {"low": low, "high": high, "unit": own if said is None else said}
        elif isinstance(guided, dict) and unit is not None:
            fields["guided"] = {**guided, "unit": unit}
    return fields


def controller_to_1(data: Json, *, drawn_from_noise: bool = False) -> dict[str, object] | None:
    """A method with all its fields as version 1 of a record says it; None where version 1 cannot.

    It cannot say a method that it did not know, nor a field that came later and is not off, nor that SG-I2V is guided
    in a share of the steps, nor that FreeTraj draws from the run's own generator; in version 1 it does so from one of
    the noise (:func:`generator_of_1`).
    """
    name = str(data["name"])
    if "+" in name:
        parts = {
            side: controller_to_1(part, drawn_from_noise=drawn_from_noise)
            for side in _SIDES
            if isinstance(part := data[side], dict)
        }
        return None if None in parts.values() else {**data, **parts}
    if name not in ("none", "sg-i2v", "freetraj", "drag-diffusion", "time-to-move"):
        return None
    if name == "freetraj" and data["inject_noise"] and not drawn_from_noise:
        return None
    older = flat(data)
    if newer_fields(older):
        return None
    return None if name == "sg-i2v" and older["guided_as"] == "share" else older


def without_newer(data: Json) -> Json:
    """A method as version 2 of a record says it, but for fields that say what version 2 cannot."""
    newer = _SINCE_2_1.get(str(data["name"]), {})
    return {
        key: without_newer(value) if key in _SIDES and isinstance(value, dict) else value
        for key, value in data.items()
        if key not in newer or value != newer[key]
    }


def newer_fields(data: Json, place: str = "controller") -> list[str]:
    """Names of a method's fields that version 2 of a record cannot say, as ``required`` lists them."""
    own = [f"{place}.{key}" for key in _SINCE_2_1.get(str(data["name"]), {}) if key in data]
    parts = [(key, part) for key in _SIDES if isinstance(part := data.get(key), dict)]
    return own + [name for key, part in parts for name in newer_fields(part, f"{place}.{key}")]


def flat(data: Json) -> dict[str, object]:
    """A method under the field names of version 1, whether or not version 1 means the same by them."""
    data = without_newer(data)
    name = str(data["name"])
    if "+" in name:
        return {key: flat(part) if isinstance(part, dict) else part for key, part in data.items()}
    old = {new: before for before, new in _RENAMED.get(name, {}).items()}
    fields: dict[str, object] = {}
    for key, value in data.items():
        if key == "guided" and name in _UNITS and isinstance(value, Mapping):
            fields |= {"guided": [value["low"], value["high"]], "guided_as": value["unit"]}
        else:
            fields[old.get(key, key)] = value
    return fields


def generator_of_1(noise: Float[torch.Tensor, "n c y x"]) -> torch.Generator:
    """The generator of FreeTraj's extra draws in version 1 of a record: seeded by the SHA-256 of the run's noise."""
    digest = hashlib.sha256(noise.float().cpu().contiguous().numpy().tobytes()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))

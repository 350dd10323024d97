"""Deeds that a sentence tells: ways, sizes and moves of the camera, reckoned on a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, cast

from sgi2v.prompting import lexicon as words
from sgi2v.prompting.things import Found
from sgi2v.scene import Box, Easing

Vector = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Leg:
    """A part of a way: to a place, or by a distance; both in pixels."""

    share: float
    """Of its phase's time, 0 to 1, at which it ends."""
    by: Vector = (0.0, 0.0)
    to: Vector | None = None
    easing: Easing = "linear"


@dataclass(frozen=True, kw_only=True)
class Clause:
    """One thing said of some things: a way, a change of size, an easing, or that they stay."""

    things: tuple[Found, ...]
    legs: tuple[Leg, ...] = ()
    scale: float = 1.0
    smooth: bool = False
    stays: bool = False
    easing: Easing | None = None


LITTLE, USUAL, LOT = 10.0, 20.0, 40.0
"""Ways, in per cent of the picture's side."""


def measure(said: Mapping[str, str], usual: tuple[float, float, float]) -> tuple[float, bool]:
    """The amount that is said, and True where it is in pixels, else in per cent; unsaid, one of ``usual``."""
    if "amount" in said:
        amount = said["amount"].replace(" ", "")
        return float(amount.removesuffix("%").removesuffix("px")), amount.endswith("px")
    if "share" in said:
        return float(words.SHARES[said["share"]]), False
    return (usual[0] if "little" in said else usual[2] if "lot" in said else usual[1]), False


def _easing(said: Mapping[str, str]) -> Easing | None:
    for name in ("ease_in_out", "ease_in", "ease_out"):
        if name in said:
            return cast(Easing, name.replace("_", "-"))
    return None


def deed(
    size: tuple[int, int],
    thing: Found,
    said: Mapping[str, str],
    verbs: Sequence[str],
    target: tuple[Vector, bool] | None,
) -> Clause | str:
    """The clause of what a thing does, or the problem with that."""
    done = set(verbs)
    easing = _easing(said) or ("ease-in" if done & (words.FALL | words.forms("accelerate")) else None)
    scale = _scale(said, done)
    if scale is not None and not 0.001 <= scale <= 1000:
        return f"a size of {scale:g} times"
    if "stay" in said or done & words.STAY:
        return Clause(things=(thing,), stays=True)
    step = _step(size, said, done)
    place = _place(size, thing.box, said, done)
    if target is not None:
        (x, y), halfway = target
        place = ((thing.box.center[0] + x) / 2, (thing.box.center[1] + y) / 2) if halfway else (x, y)
    if done & words.JUMP:
        legs = _jumps(size, said)
    elif done & words.SHAKE:
        legs = _zigzag((0.02 * size[0], 0.0), _SHAKES)
    elif "swing" in said:
        legs = _zigzag(step if step else (0.1 * size[0], 0.0), _SWINGS)
    elif place is not None:
        legs = (Leg(share=1.0, to=place),)
    elif step is not None:
        legs = _shaped(size, step, said, done)
    else:
        legs = ()
    if not legs and scale is None and not (easing and not done & words.MOVE - words.forms("accelerate")):
        left = [one for one in verbs if one not in words.BECOME]
        return f"{' '.join(left)!r} without where to, how far or how large" if left else ""
    if easing is not None:
        legs = tuple(replace(leg, easing=easing) if leg.easing == "linear" else leg for leg in legs)
    smooth = bool(said.keys() & {"arc", "wave"})
    return Clause(things=(thing,), legs=legs, scale=scale or 1.0, smooth=smooth, easing=easing)


def _scale(said: Mapping[str, str], done: set[str]) -> float | None:
    if done & words.DOUBLE:
        return 2.0
    if done & words.HALVE:
        return 0.5
    if "multiple" in said:
        multiple = said["multiple"]
        return {"twice": 2.0, "double": 2.0, "half": 0.5}.get(multiple) or float(multiple.split()[0])
    if "percent_size" in said:
        return float(said["percent_size"]) / 100
    larger, smaller = bool(done & words.GROW) or "bigger" in said, bool(done & words.SHRINK) or "smaller" in said
    if not (larger or smaller):
        return None
    if said.keys() & {"amount", "share"} and not said.keys() & {"way", "diagonal", "pair"}:
        amount = measure(said, (0.0, 0.0, 0.0))[0] / 100
        return round(1 + amount if larger else 1 - amount, 9)
    little, lot = "little" in said, "lot" in said
    return (1.2 if little else 2.0 if lot else 1.5) if larger else (0.85 if little else 0.5 if lot else 0.7)


def _step(size: tuple[int, int], said: Mapping[str, str], done: set[str]) -> Vector | None:
    """The way in pixels, of a direction and how far."""
    usual = (LITTLE, LOT, LOT) if done & words.FALL else (LITTLE, USUAL, LOT)
    amount, pixels = measure(said, usual)
    if "pair" in said or "diagonal" in said:
        one, other = (words.WAYS[name] for name in (said.get("pair") or said["diagonal"]).split())
        way = one if one[0] == -other[0] and one[1] == -other[1] else (one[0] + other[0], one[1] + other[1])
    elif "way" in said:
        way = words.WAYS[said["way"]]
    elif done & (words.SINK | words.FALL):
        way = (0, 1)
    elif done & words.RISE:
        way = (0, -1)
    else:
        return None
    return tuple(way[k] * (amount if pixels else amount * size[k] / 100) for k in (0, 1))  # type: ignore[return-value]


def _place(size: tuple[int, int], box: Box, said: Mapping[str, str], done: set[str]) -> Vector | None:
    """A named place, at which the box lies within the picture, or just outside of it."""
    x, y = box.center
    half = box.width / 2, box.height / 2
    if "point" in said:
        ends = said["point"].split()
        return tuple(float(one.rstrip("%")) * (size[k] / 100 if "%" in one else 1) for k, one in enumerate(ends))  # type: ignore[return-value]
    if "middle" in said:
        return size[0] / 2, size[1] / 2
    side = said.get("out") or said.get("leave")
    if not side and said.keys() & {"out", "leave"}:
        side = said.get("way")
    inside = said.get("corner") or said.get("edge") or said.get("end")
    if not (side or inside):
        return None
    sign = 1 if inside else -1
    for name in (inside or side or "").split():
        dx, dy = words.WAYS[name]
        x = x if not dx else (size[0] - sign * half[0] if dx > 0 else sign * half[0])
        y = y if not dy else (size[1] - sign * half[1] if dy > 0 else sign * half[1])
    return x, y


_SHAKES: Final = ((0.2, 1), (0.4, -2), (0.6, 2), (0.8, -2), (1.0, 1))
_SWINGS: Final = ((0.25, 1), (0.75, -2), (1.0, 1))


def _zigzag(step: Vector, turns: Sequence[tuple[float, int]]) -> tuple[Leg, ...]:
    return tuple(Leg(share=share, by=(step[0] * times, step[1] * times)) for share, times in turns)


def _jumps(size: tuple[int, int], said: Mapping[str, str]) -> tuple[Leg, ...]:
    amount, pixels = measure(said, (8.0, 15.0, 30.0))
    height = amount if pixels else amount * size[1] / 100
    times = said.get("times", "once")
    count = {"once": 1, "twice": 2}.get(times) or min(int(times.split()[0]), 50)
    along = _step(size, {name: value for name, value in said.items() if name in ("way", "amount")}, set())
    dx = along[0] / (2 * count) if along else 0.0
    legs: list[Leg] = []
    for number in range(count):
        legs.append(Leg(share=(2 * number + 1) / (2 * count), by=(dx, -height), easing="ease-out"))
        legs.append(Leg(share=(number + 1) / count, by=(dx, height), easing="ease-in"))
    return tuple(legs)


def _shaped(size: tuple[int, int], step: Vector, said: Mapping[str, str], done: set[str]) -> tuple[Leg, ...]:
    """A way in its shape: straight, there and back, an arc, or to either side of the line."""
    dx, dy = step
    level = abs(dx) >= abs(dy)
    if "arc" in said:
        side = (0.0, -0.1 * size[1]) if level else (0.1 * size[0], 0.0)
        return (
            Leg(share=0.5, by=(dx / 2 + side[0], dy / 2 + side[1])),
            Leg(share=1.0, by=(dx / 2 - side[0], dy / 2 - side[1])),
        )
    if said.keys() & {"zigzag", "wave"} or done & words.ZIGZAG:
        side = (0.0, -0.05 * size[1]) if level else (0.05 * size[0], 0.0)
        turns = (1, -2, 2, -1)
        return tuple(
            Leg(share=(k + 1) / 4, by=(dx / 4 + turn * side[0], dy / 4 + turn * side[1]))
            for k, turn in enumerate(turns)
        )
    one, other = (words.WAYS[name] for name in said["pair"].split()) if "pair" in said else ((0, 0), (1, 1))
    if "back" in said or (one[0] == -other[0] and one[1] == -other[1]):
        return Leg(share=0.5, by=step), Leg(share=1.0, by=(-dx, -dy))
    return (Leg(share=1.0, by=step),)


_INWARD: Final = frozenset({"in", "forward", "forwards"})
DEPTH: Final = _INWARD | {"out", "back", "backward", "backwards"}
"""Of the camera alone."""


def camera_moves(said: Mapping[str, str], verbs: Sequence[str], after: Sequence[str]) -> dict[str, str] | str:
    """Moves of the camera by their kind, none where it stays; or the problem with them."""
    done, left = set(verbs), set(after) - {"camera"}
    inward, outward = bool(left & _INWARD), bool(left & (DEPTH - _INWARD))
    if left - DEPTH:
        return repr(" ".join(after))
    if "stay" in said or done & words.STAY:
        return {}
    easing = _easing(said)
    moves: dict[str, str] = {"ease": f"ease {easing.removeprefix('ease-')}"} if easing else {}
    amount, pixels = measure(said, (0.0, 0.0, 0.0))
    size: Literal[0, 1, 2] = 0 if "little" in said else 2 if "lot" in said else 1
    ways = said.get("pair") or said.get("diagonal") or said.get("way")
    if said.keys() & {"clockwise", "anticlockwise"}:
        degrees = said.get("degrees") or f"{(5, 10, 20)[size]}"
        moves["roll"] = f"roll {'-' * ('anticlockwise' in said)}{degrees}"
    elif inward or outward:
        share = amount / 100 if amount else 0.0
        factor = (1 + share if inward else 1 - share) if share else ((1.1, 1.25, 1.5), (0.9, 0.8, 0.67))[outward][size]
        moves["zoom"] = f"zoom {factor:g}"
    elif ways and not done & words.forms("zoom"):
        shown_amount = f"{amount:g}" + "%" * (not pixels) if amount else f"{(8, 15, 30)[size]}%"
        for way in ways.split():
            side = {"upper": "up", "top": "up", "lower": "down", "bottom": "down"}.get(way, way)
            moves["pan" + str(bool(words.WAYS[way][0]))] = f"pan {side} {shown_amount}"
    elif not easing:
        return f"the camera: {' '.join(verbs) or 'it'} without in, out or a direction"
    return moves

"""Remarks on a plan, to be read before the run: what goes too fast, is cut, is guided less or is squashed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from jaxtyping import Float64

from sgi2v.controllers import Controller, controller_name, recommended
from sgi2v.errors import FieldError
from sgi2v.grid import Grid, Track, Tracks
from sgi2v.scene import Motion, Scene
from sgi2v.step import Level

MAX_SPEED: Final = 0.1
"""Of a frame's shorter side, a frame: a thing that moves faster is seldom followed (a rule of thumb)."""
MAX_CUT: Final = 0.1
"""Share of a thing's mask outside its box from which on the box cuts it."""
MAX_SQUASH: Final = 0.02
"""Share of its shape by which a picture is stretched unseen."""


def max_speed(grid: Grid) -> float:
    """Speed in pixels of the video a frame that a model can be expected to follow."""
    return MAX_SPEED * min(grid.width, grid.height)


def speeds(track: Track) -> Float64[np.ndarray, " steps"]:
    """Way of a box's centre from each frame to the next, in pixels of the video."""
    centers = np.asarray(track.centers, dtype=np.float64)
    found: Float64[np.ndarray, " steps"] = np.hypot(*np.diff(centers, axis=0).T)
    return found


def too_fast(scene: Scene, tracks: Tracks, grid: Grid) -> tuple[str, ...]:
    """A remark on each motion that is faster than :func:`max_speed` somewhere."""
    limit = max_speed(grid)
    return tuple(
        f"{_called(scene.motions[index], index)} goes {fastest:.1f} pixels of the video from one frame to the next, "
        f"and {limit:.1f} can be followed; slow it down or shorten its path"
        for index, track in enumerate(tracks.tracks)
        if (fastest := float(speeds(track).max(initial=0.0))) > limit
    )


def cut(scene: Scene) -> tuple[str, ...]:
    """A remark on each thing of which more than :data:`MAX_CUT` lies outside its box, as its mask tells."""
    found = []
    for index, motion in enumerate(scene.motions):
        share = share_outside(motion)
        if motion.kind == "object" and share > MAX_CUT:
            called = _called(motion, index)
            found.append(f"the box of {called} cuts the thing: {share:.0%} of its mask lie outside; widen the box")
    return tuple(found)


def share_outside(motion: Motion) -> float:
    """Share of a motion's mask whose pixels' centres lie outside its box, 0..1; 0 without a mask."""
    if motion.mask is None:
        return 0.0
    rows, columns = np.nonzero(np.asarray(motion.mask))
    if not len(rows):
        return 0.0
    box = motion.box
    x, y = columns + 0.5, rows + 0.5
    inside = (x >= box.left) & (x < box.right) & (y >= box.top) & (y < box.bottom)
    return float(1 - inside.mean())


def less_guided(controller: Controller, settings: Any, levels: Sequence[Level]) -> tuple[str, ...]:
    """A remark where a method guides fewer steps than with the model's recommendation, some of which it leaves out.

    So does ``SGI2V()``, whose values are the published ones, on a model that recommends others.
    """
    name = controller_name(controller)
    try:
        advised = recommended(name, settings.recommended)
        wanted = sum(count > 0 for count in advised.schedule(levels).iterations)
    except FieldError:  # a method of no name, or advice that has no step at this number of steps
        return ()
    guided = sum(count > 0 for count in controller.schedule(levels).iterations)
    left_out = _left_out(controller, advised)
    if guided >= wanted or not left_out:
        return ()
    return (
        f"{name} guides {guided} of {len(levels) - 1} steps, with the published {', '.join(left_out)}; with the "
        f"model's recommendation it guides {wanted}: recommended({name!r}, backbone.settings.recommended)",
    )


def _left_out(controller: Controller, advised: Controller) -> list[str]:
    """Fields that the model recommends a value for and that hold the class's own."""
    found = []
    for field in dataclasses.fields(controller):
        ours, theirs = getattr(controller, field.name), getattr(advised, field.name)
        factory = field.default_factory
        if isinstance(ours, Controller):
            found += [f"{field.name}.{name}" for name in _left_out(ours, theirs)]
        elif ours != theirs and ours == (field.default if factory is dataclasses.MISSING else factory()):
            found.append(field.name)
    return found


def squashed(scene: Scene, grid: Grid) -> tuple[str, ...]:
    """A remark on a picture that is stretched to a shape of which one sees that it is another."""
    width, height = scene.image.size
    ratio = (grid.width / grid.height) / (width / height)
    if scene.fit != "stretch" or abs(ratio - 1) <= MAX_SQUASH:
        return ()
    return (
        f"the picture of {width}x{height} is stretched to {grid.width}x{grid.height}, things to {ratio:.2f} times "
        "their width for their height; fit: cover cuts it instead, fit: contain pads it, fit: aspect "
        "gives the video its shape",
    )


def _called(motion: Motion, index: int) -> str:
    return f"motions[{index}]" + (f" ({motion.name})" if motion.name else "")

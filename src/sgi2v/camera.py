"""Camera presets (pan, zoom, roll), compiled to ordinary motions of kind camera: boxes on the background."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from sgi2v.checks import Bounds, choice, finite
from sgi2v.curves import ease
from sgi2v.errors import FieldError
from sgi2v.scene import Box, Easing, Key, Motion, Number


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A motion of the camera from the first frame to the last; the picture's content moves the opposite way.

    At time t a point p of the first frame is seen at `c + zoom^t · R(−t · roll) · (p − c) − t · (dx · width,
    dy · height)`, c the middle of the picture and R(a) a turn by a, clockwise on the screen. Two cameras are
    joined with `+`: pans and rolls add, zooms multiply. Raises ValueError for a value out of range.
    """

    __no_type_check__: ClassVar = True  # checks its fields itself, see scene.Box

    dx: float = 0.0
    """Widths of the frame that the camera moves right; content moves left."""
    dy: float = 0.0
    """Heights of the frame that the camera moves down; content moves up."""
    zoom: float = 1.0
    """Content is this many times larger on the last frame; above 1 the camera moves in. Same rate throughout."""
    roll: float = 0.0
    """Degrees that the camera turns clockwise; content turns anticlockwise."""
    easing: Easing = "linear"
    """Change of the camera's speed between the first and the last frame."""

    BOUNDS: ClassVar[Bounds] = MappingProxyType(
        {"dx": (-10, 10), "dy": (-10, 10), "zoom": (0.01, 100), "roll": (-3600, 3600)}
    )

    def __post_init__(self) -> None:
        for field, remedy in (
            ("dx", "give frame widths, as in 0.2"),
            ("dy", "give frame heights, as in 0.2"),
            ("zoom", "give a factor, as in 1.3"),
            ("roll", "give degrees"),
        ):
            low, high = self.BOUNDS[field]
            value = finite(field, getattr(self, field), remedy)
            if not low <= value <= high:
                raise FieldError(field, f"{value!r} is out of range {low} to {high}", remedy)
            object.__setattr__(self, field, value)
        choice("easing", self.easing, Easing)

    def __add__(self, other: "Camera") -> "Camera":
        """Both at once; they must be eased alike."""
        if self.easing != other.easing:
            raise FieldError("easing", f"{other.easing!r} does not go with {self.easing!r}", "ease both alike")
        zoom, roll = self.zoom * other.zoom, self.roll + other.roll
        return replace(self, dx=self.dx + other.dx, dy=self.dy + other.dy, zoom=zoom, roll=roll)

    @property
    def still(self) -> bool:
        """True if nothing moves."""
        return (self.dx, self.dy, self.zoom, self.roll) == (0, 0, 1, 0)

    def warp(self, image_size: tuple[int, int], time: Number) -> Float64[np.ndarray, "2 3"]:
        """The affine map (x, y, 1) -> (x, y), in pixels, from the first frame to the one at a time 0..1."""
        width, height = image_size
        at = float(ease(self.easing, np.float64(time)))
        grow, turn = self.zoom**at, math.radians(-self.roll * at)
        linear = grow * np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        middle = np.array([width / 2, height / 2])
        shift = middle - linear @ middle - at * np.array([self.dx * width, self.dy * height])
        return np.column_stack([linear, shift])


def pan(dx: Number = 0.0, dy: Number = 0.0) -> Camera:
    """The camera moves right by `dx` frame widths and down by `dy` frame heights; content goes the other way."""
    return Camera(dx=dx, dy=dy)


def zoom(factor: Number) -> Camera:
    """The camera moves in (factor above 1) or out until content is `factor` times as large."""
    return Camera(zoom=factor)


def roll(degrees: Number) -> Camera:
    """The camera turns clockwise; content turns anticlockwise about the middle of the picture."""
    return Camera(roll=degrees)


def camera_motions(
    camera: Camera,
    image_size: tuple[int, int],
    *,
    avoid: Sequence[Motion] = (),
    columns: int = 4,
    rows: int = 3,
    fraction: Number = 0.15,
    num_keys: int = 25,
) -> tuple[Motion, ...]:
    """A camera as motions: square boxes on a grid over the picture, each following the one affine warp.

    `fraction` is a box's side as a share of the picture's shorter side, at most a grid cell. A box that would
    meet one of the motions in `avoid` at any of the `num_keys` times is left out, for it does not show
    background. Between keys positions run straight and scales log-linearly. A camera that stands still gives
    boxes without a path: pins. ValueError for values out of range and when no box is left.
    """
    width, height = image_size
    if not (1 <= columns <= 16 and 1 <= rows <= 16):
        raise FieldError("columns, rows", f"{columns}, {rows} is no grid", "give 1 to 16 each")
    if not 2 <= num_keys <= 1000:
        raise FieldError("num_keys", f"{num_keys} is out of range", "give 2 to 1000")
    fraction = finite("fraction", fraction, "give more than 0 and at most 1")
    if not 0 < fraction <= 1:
        raise FieldError("fraction", f"{fraction!r} is out of range", "give more than 0 and at most 1")
    side = min(fraction * min(width, height), width / columns, height / rows)
    times = [index / (num_keys - 1) for index in range(num_keys)]
    warps = [camera.warp(image_size, time) for time in times]
    taken = [motion.boxes_at(times) for motion in avoid]
    motions = []
    for row in range(rows):
        for column in range(columns):
            x, y = (column + 0.5) * width / columns, (row + 0.5) * height / rows
            motion = Motion(
                box=Box.around(x, y, side),
                path=() if camera.still else _path(camera, times, warps, x, y),
                kind="camera",
                name=f"camera {row + 1}.{column + 1}",
            )
            boxes = motion.boxes_at(times)
            if not any(_overlap(box, other) for boxes_of in taken for box, other in zip(boxes, boxes_of, strict=True)):
                motions.append(motion)
    if not motions:
        raise FieldError("camera", f"no box of the {columns}x{rows} grid is free of objects", "give a finer grid")
    return tuple(motions)


def _path(
    camera: Camera, times: Sequence[float], warps: Sequence[Float64[np.ndarray, "2 3"]], x: float, y: float
) -> tuple[Key, ...]:
    keys = []
    for time, warp in zip(times, warps, strict=True):
        at_x, at_y = warp @ (x, y, 1.0)
        scale = camera.zoom ** float(ease(camera.easing, np.float64(time)))
        keys.append(Key(time=time, x=float(at_x), y=float(at_y), scale=scale))
    return tuple(keys)


def _overlap(one: Box, other: Box) -> bool:
    return one.left < other.right and other.left < one.right and one.top < other.bottom and other.top < one.bottom

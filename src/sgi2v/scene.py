"""Box, Key, Motion and Scene: what a person asks for, in pixels of the source image and times 0..1."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray
from PIL import Image

from sgi2v.checks import check_picture, check_text, choice, finite, plain, shown, tuple_of
from sgi2v.curves import EASE_SLOPES, along
from sgi2v.errors import FieldError
from sgi2v.reference import Reference

Number = float | int
Easing = Literal["linear", "ease-in", "ease-out", "ease-in-out"]
Kind = Literal["object", "camera"]
Curve = Literal["polyline", "spline"]
Fit = Literal["stretch", "cover", "contain", "aspect"]

MAX_MOTIONS: Final = 256
MAX_KEYS: Final = 10_000
"""Keys on one path."""
MAX_COORDINATE: Final = 1e8
"""Pixels; beyond it float64 no longer tells small boxes from empty ones."""
MIN_SIDE: Final = 0.01
"""Pixels; a thinner first box counts as one without area."""
MIN_SCALE: Final = 1e-3
MAX_SCALE: Final = 1e3
MIN_GAP: Final = 1e-6
"""Time between two keys of a path."""
_ORIENTATION: Final = 0x0112
"""The EXIF tag that says which side of a photo is up."""
SAME_TIME: Final = 1e-9
"""A time this close to a key's is that key's time, so that sampling returns the key untouched."""


@dataclass(frozen=True, kw_only=True)
class Box:
    """A rectangle in pixels of the source image, half-open (left, top, right, bottom).

    Raises ValueError for numbers that are not finite and for a box without area.
    """

    # jaxtyping leaves __init__ alone: fields are checked here, and what is wrong with them is a ValueError.
    __no_type_check__: ClassVar = True

    left: float
    top: float
    right: float
    bottom: float

    def __post_init__(self) -> None:
        for field in ("left", "top", "right", "bottom"):
            object.__setattr__(self, field, finite(field, getattr(self, field), "give pixels of the image"))
        if self.right <= self.left:
            raise FieldError("right", f"{self.right!r} is not right of left {self.left!r}", "give the box a width")
        if self.bottom <= self.top:
            raise FieldError("bottom", f"{self.bottom!r} is not below top {self.top!r}", "give the box a height")

    @property
    def width(self) -> float:
        """Pixels."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """Pixels."""
        return self.bottom - self.top

    @property
    def center(self) -> tuple[float, float]:
        """(x, y) in pixels."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def moved(self, dx: Number, dy: Number) -> "Box":
        """The box moved right by `dx` and down by `dy` pixels."""
        return Box(left=self.left + dx, top=self.top + dy, right=self.right + dx, bottom=self.bottom + dy)

    def scaled(self, factor: Number) -> "Box":
        """The box grown `factor` times about its centre; exactly itself for 1."""
        dx, dy = (factor - 1) * self.width / 2, (factor - 1) * self.height / 2
        return Box(left=self.left - dx, top=self.top - dy, right=self.right + dx, bottom=self.bottom + dy)

    @classmethod
    def around(cls, x: Number, y: Number, size: Number) -> "Box":
        """The square of side `size` pixels with its centre at (x, y)."""
        half = size / 2
        return cls(left=x - half, top=y - half, right=x + half, bottom=y + half)


@dataclass(frozen=True, kw_only=True)
class Key:
    """The place and size of a motion at one time. Raises ValueError for a value out of its range."""

    __no_type_check__: ClassVar = True  # checks its fields itself, see scene.Box

    time: float
    """0 (the first frame) to 1 (the last)."""
    x: float
    """Pixels. Only the difference to the path's first key moves the box."""
    y: float
    """Pixels. Only the difference to the path's first key moves the box."""
    scale: float = 1.0
    """Size of the box here, as a multiple of its size on the first frame; log-linear between keys."""
    easing: Easing = "linear"
    """Change of speed on the way from this key to the next."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "time", finite("time", self.time, "give a time from 0 to 1"))
        if not 0 <= self.time <= 1:
            raise FieldError("time", f"{self.time!r} is outside 0 to 1", "0 is the first frame and 1 the last")
        for field in ("x", "y"):
            value = finite(field, getattr(self, field), "give pixels of the image")
            if abs(value) > MAX_COORDINATE:
                raise FieldError(field, f"{value!r} is too far away", f"stay within {MAX_COORDINATE:.0f} pixels")
            object.__setattr__(self, field, value)
        object.__setattr__(self, "scale", finite("scale", self.scale, "give 1 for an unchanged size"))
        if not MIN_SCALE <= self.scale <= MAX_SCALE:
            raise FieldError("scale", f"{self.scale!r} is out of range", f"give {MIN_SCALE:g} to {MAX_SCALE:g}")
        choice("easing", self.easing, Easing)


@dataclass(frozen=True, kw_only=True)
class Motion:
    """A box on the first frame and where it goes. Without a path it pins what is under it.

    The box at time t is `box`, scaled about its centre by the path's scale, moved by centre(t) - centre(0).
    A path need not start at the box's centre: published scenes start up to half a pixel beside it, and
    their centres are kept verbatim (SG-I2V, arXiv 2411.04989). Before the first key and after the last one
    the value is held. Raises ValueError for a path that cannot be followed.
    """

    __no_type_check__: ClassVar = True  # checks its fields itself, see scene.Box

    box: Box
    """On the first frame."""
    path: tuple[Key, ...] = ()
    """Empty, or two or more keys in order of time, the first with scale 1."""
    kind: Kind = "object"
    """object: moves a thing. camera: sits on background and moves the opposite way to the camera."""
    curve: Curve = "polyline"
    """polyline: straight between keys. spline: PCHIP through them, which never leaves their bounding box."""
    name: str = ""
    """A name for people; need not be unique."""
    mask: Image.Image | None = None
    """Mode L or 1, as large as the image: the thing's pixels on the first frame are not 0."""

    def __post_init__(self) -> None:
        if not isinstance(self.box, Box):
            raise FieldError("box", f"{shown(self.box)} is not a Box", "give left, top, right, bottom")
        for field in ("left", "top", "right", "bottom"):
            if abs(value := getattr(self.box, field)) > MAX_COORDINATE:
                raise FieldError(f"box.{field}", f"{value!r} is too far away", "stay within the image")
        if min(self.box.width, self.box.height) < MIN_SIDE:
            raise FieldError("box", f"{shown(self.box)} has no area", f"make its sides at least {MIN_SIDE} pixels")
        choice("kind", self.kind, Kind)
        choice("curve", self.curve, Curve)
        check_text("name", self.name)
        object.__setattr__(self, "path", tuple_of("path", self.path, Key, "leave it out to pin the box"))
        self._check_path()
        if self.mask is not None:
            check_picture("mask", self.mask, "read it with sgi2v.scene_io.load_mask", "L", "1")
            object.__setattr__(self, "mask", plain("mask", self.mask))

    def _check_path(self) -> None:
        if len(self.path) == 1:
            raise FieldError("path", "1 key", "give two or more, or none to pin the box")
        if len(self.path) > MAX_KEYS:
            raise FieldError("path", f"{len(self.path)} keys", f"give at most {MAX_KEYS}")
        if self.path and self.path[0].scale != 1:
            raise FieldError(
                "path[0].scale", f"{self.path[0].scale!r}", "the first key's scale must be 1, change the box"
            )
        for index in range(1, len(self.path)):
            before, time = self.path[index - 1].time, self.path[index].time
            if time - before < MIN_GAP:
                raise FieldError(
                    f"path[{index}].time",
                    f"{time!r} is not after {before!r}",
                    "put the keys in order of time",
                )

    def centers(self, num_frames: int) -> Float64[np.ndarray, "num_frames 2"]:
        """Wanted centres of the box at the times j / (num_frames - 1): (x, y) in source pixels.

        Exactly a key's value where a frame's time is the key's; the box's centre throughout without a path.
        """
        return self._sample(frame_times(num_frames))[0]

    def scales(self, num_frames: int) -> Float64[np.ndarray, " num_frames"]:
        """The box's size at the same times, as a multiple of its size on the first frame."""
        return self._sample(frame_times(num_frames))[1]

    def boxes_at(self, times: Iterable[Number]) -> list[Box]:
        """The box at each of some times 0..1."""
        wanted = np.array([finite("times", time, "give times from 0 to 1") for time in times], dtype=np.float64)
        centers, scales = self._sample(wanted)
        x0, y0 = self._sample(np.zeros(1))[0][0]
        return [
            self.box.scaled(float(scale)).moved(float(x - x0), float(y - y0))
            for (x, y), scale in zip(centers, scales, strict=True)
        ]

    def _sample(self, times: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Centres [T, 2] and scales [T] at times [T]."""
        if not self.path:
            return np.tile(np.array(self.box.center, dtype=np.float64), (len(times), 1)), np.ones(len(times))
        knots = np.array([key.time for key in self.path])
        exact = np.array([(key.x, key.y, key.scale) for key in self.path])
        eases = np.array([EASE_SLOPES[key.easing] for key in self.path])
        values = np.column_stack([exact[:, :2], np.log(exact[:, 2])])
        times = np.clip(times, knots[0], knots[-1])
        segment = np.clip(np.searchsorted(knots, times, side="right") - 1, 0, len(knots) - 2)
        sampled = along(knots, values, eases, times, segment, smooth=self.curve == "spline")
        sampled[:, 2] = np.exp(sampled[:, 2])
        for key in (segment, segment + 1):
            hit = np.abs(times - knots[key]) < SAME_TIME
            sampled[hit] = exact[key[hit]]
        return sampled[:, :2], sampled[:, 2]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """An image and the motions wanted in it: everything a person says about the video.

    Raises ValueError, naming the motion by its place, for a box that leaves the image or a mask of another
    size.
    """

    __no_type_check__: ClassVar = True  # checks its fields itself, see scene.Box

    image: Image.Image
    """RGB, upright; `scene_io.load_image` makes it so."""
    motions: tuple[Motion, ...] = ()
    """In the order of the file."""
    fit: Fit = "stretch"
    """Treatment of an image whose shape is not the model's: stretched (as published), cut, padded, or (aspect) the
    video takes the image's shape where the model can and none is asked for; a remainder is cut."""
    prompt: str = ""
    """For models that read text; others leave it unread."""
    negative_prompt: str = ""
    """Words that guidance leads away from, for models that read text; empty: the model's own, if it has any."""
    reference: Reference | None = None
    """A crude clip of what is wanted, for Time-to-Move, which else makes one from the motions."""

    def __post_init__(self) -> None:
        check_picture("image", self.image, "read it with sgi2v.scene_io.load_image", "RGB")
        if self.image.info.get("exif") and self.image.getexif().get(_ORIENTATION, 1) != 1:
            raise FieldError(
                "image", "its EXIF data says it lies on its side", "read it with sgi2v.scene_io.load_image"
            )
        object.__setattr__(self, "image", plain("image", self.image))
        object.__setattr__(self, "motions", tuple_of("motions", self.motions, Motion, "give none, one or more"))
        if len(self.motions) > MAX_MOTIONS:
            raise FieldError("motions", f"{len(self.motions)} of them", f"give at most {MAX_MOTIONS}")
        choice("fit", self.fit, Fit)
        check_text("prompt", self.prompt)
        check_text("negative_prompt", self.negative_prompt)
        if self.reference is not None and not isinstance(self.reference, Reference):
            raise FieldError(
                "reference",
                f"{shown(self.reference)} is no Reference",
                "read one with sgi2v.reference.load_reference",
            )
        for index, motion in enumerate(self.motions):
            self._check_inside(f"motions[{index}]", motion)

    @classmethod
    def of(
        cls,
        photo: "str | os.PathLike[str] | bytes | Image.Image",
        *,
        drags: Sequence[str] = (),
        pins: Sequence[str] = (),
        camera: str = "",
        prompt: str = "",
        fit: Fit = "aspect",
    ) -> "Scene":
        """The scene of a photo (its path, bytes or pixels) and what short texts say should move in it.

        ``drags``: a box or point and where it goes, as in ``"30%,40%,60%,80% -> 70%,60%"``; ``pins``: boxes that stay;
        ``camera``: as in ``"zoom 1.2, pan right 10%"`` (docs/say.md). FieldError, in one line that names the text, for
        one that is not understood or lies off the picture.
        """
        from sgi2v.prompting.photo import scene_of  # which makes motions of texts, from these classes

        return scene_of(photo, drags=drags, pins=pins, camera=camera, prompt=prompt, fit=fit)

    def _check_inside(self, field: str, motion: Motion) -> None:
        width, height = self.image.size
        for side, limit in (("left", width), ("top", height), ("right", width), ("bottom", height)):
            value = getattr(motion.box, side)
            if not 0 <= value <= limit:
                raise FieldError(
                    f"{field}.box.{side}",
                    f"{value!r} leaves the image of {width}x{height}",
                    f"give 0 to {limit}",
                )
        if motion.mask is not None and motion.mask.size != self.image.size:
            raise FieldError(
                f"{field}.mask",
                f"{motion.mask.size} is not the image's size",
                f"give {width}x{height} pixels",
            )


def frame_times(num_frames: int) -> Float64[np.ndarray, " num_frames"]:
    """The time of each frame, j / (num_frames - 1); 0 for a single one."""
    if num_frames < 1:
        raise FieldError("num_frames", f"{num_frames} is too few", "give 1 or more")
    return np.arange(num_frames, dtype=np.float64) / max(num_frames - 1, 1)

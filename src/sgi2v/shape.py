"""The shape of a clip: which of a model's sizes suits a picture, and what is done with the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from sgi2v.errors import FieldError
from sgi2v.grid import placement
from sgi2v.planning import Sampling
from sgi2v.remarks import MAX_SQUASH
from sgi2v.scene import MIN_SIDE, Box, Motion, Scene

if TYPE_CHECKING:
    from sgi2v.backbones.base import Outline

MAX_AREA: Final = 1.15
"""Most pixels of a clip, as a multiple of the model's own size's."""
MIN_AREA: Final = 0.6
"""Fewest, likewise."""
_AREA_WEIGHT: Final = 0.25
"""Weight of a size's area beside its shape, both as logarithms of ratios: half as many pixels are as bad as a shape
that is a fifth off."""
_INSET: Final = 1e-3
"""Pixels by which a box is kept within what is shown, for rounding."""


@runtime_checkable
class Shapely(Protocol):
    """An outline of a model that makes clips of other shapes than its own; one that is none keeps its size."""

    @property
    def aspects(self) -> tuple[float, float]:
        """Least and greatest width of a frame as a multiple of its height that the model was made for."""

    @property
    def multiple(self) -> int:
        """Number of pixels of which a width and a height must be multiples."""


def nearest_size(
    picture: tuple[int, int], own: tuple[int, int], multiple: int, aspects: tuple[float, float]
) -> tuple[int, int]:
    """The (width, height) for a picture's shape among the multiples about the model's ``own`` area.

    Of those whose width over height lies within ``aspects`` the one whose shape is nearest, as the logarithm of the
    ratio has it, with a quarter of the weight its area; the model's own where there is none.
    """
    wanted, area = math.log(picture[0] / picture[1]), own[0] * own[1]

    def badness(size: tuple[int, int]) -> float:
        shape = abs(math.log(size[0] / size[1]) - wanted)
        return shape + _AREA_WEIGHT * abs(math.log(size[0] * size[1] / area))

    longest = int(math.sqrt(MAX_AREA * area * max(aspects[1], 1 / aspects[0])))
    sides = range(multiple, longest + 1, multiple)
    sizes = [
        (width, height)
        for width in sides
        for height in sides
        if aspects[0] <= width / height <= aspects[1] and MIN_AREA <= width * height / area <= MAX_AREA
    ]
    return min([own, *sizes], key=badness)  # of equals its own


def shaped(scene: Scene, outline: Outline, sampling: Sampling) -> tuple[Scene, Sampling]:
    """A scene of fit ``aspect`` with the fit that does it on this model, and the sampling with the clip's size.

    Without a size asked for, the model's nearest to the picture's shape: the picture is stretched to it where nobody
    sees that, else padded (whose padding is cut off the frames). With one the picture is cut to it, and the first boxes
    with it. Other scenes are left as they are. FieldError for a box that is cut off entirely.
    """
    if scene.fit != "aspect":
        return scene, sampling
    settings = outline.settings
    own = settings.width, settings.height
    asked = sampling.width is not None or sampling.height is not None
    if asked:
        size = sampling.width or own[0], sampling.height or own[1]
    elif isinstance(outline, Shapely):
        size = nearest_size(scene.image.size, own, outline.multiple, outline.aspects)
    else:
        size = own
    width, height = scene.image.size
    unseen = abs(size[0] / size[1] / (width / height) - 1) <= MAX_SQUASH
    sampling = replace(sampling, width=size[0], height=size[1])
    if unseen or not asked:
        return replace(scene, fit="stretch" if unseen else "contain"), sampling
    return replace(scene, fit="cover", motions=_cut(scene, size)), sampling


def _cut(scene: Scene, size: tuple[int, int]) -> tuple[Motion, ...]:
    """Motions whose first boxes are cut to the part of the picture that ``cover`` shows at a size."""
    place = placement(scene.image.size, size, "cover")
    low: Sequence[float] = [-offset * side / whole for offset, side, whole in _axes(scene, place)]
    high = [(end - offset) * side / whole for end, (offset, side, whole) in zip(size, _axes(scene, place), strict=True)]
    motions = []
    for index, motion in enumerate(scene.motions):
        box = motion.box
        left, top = (max(side, end + _INSET) for side, end in zip((box.left, box.top), low, strict=True))
        right, bottom = (min(side, end - _INSET) for side, end in zip((box.right, box.bottom), high, strict=True))
        if right - left < MIN_SIDE or bottom - top < MIN_SIDE:
            raise FieldError(
                f"motions[{index}].box",
                f"lies where the picture is cut off to fill {size[0]}x{size[1]}",
                "leave --width and --height out, or say --fit contain",
            )
        if (left, top, right, bottom) != (box.left, box.top, box.right, box.bottom):
            motion = replace(motion, box=Box(left=left, top=top, right=right, bottom=bottom))
        motions.append(motion)
    return tuple(motions)


def _axes(scene: Scene, place: Any) -> list[tuple[int, int, int]]:
    return list(zip(place.offset, scene.image.size, place.size, strict=True))

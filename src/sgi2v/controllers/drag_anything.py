"""DragAnything: things as spots of heat and painted circles of their own look, for a ControlNet trained on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Final, Literal

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, UInt8, UInt16

from sgi2v.checks import Bounds, choice
from sgi2v.controllers.base import Setup
from sgi2v.controllers.trained import Trained
from sgi2v.errors import FieldError, within
from sgi2v.grid import Grid, Track, Tracks
from sgi2v.lazy import cv2, torch
from sgi2v.planning import Uses, check_numbers
from sgi2v.points import Paths, paths_from
from sgi2v.scene import Box
from sgi2v.segmentation import grab_cut
from sgi2v.signals import ContextOrder, Entities, Look

FEATURES: Final = "entity-features"
"""Kind of the network that says how a thing looks."""
Entity = Literal["vector", "release-scalar"]
_STAMP, _RADIUS, _DEVIATION = 200, 100, 40
_STRIDE: Final = 8  # pixels per cell of the features


@dataclass(frozen=True, kw_only=True)
class DragAnything(Trained):
    """DragAnything, for its ControlNet (--adapter drag-anything) and a Stable Diffusion 1.5 folder for entities' looks.

    A thing is its mask's largest inner circle, moved with its box; where the scene has no mask GrabCut makes one.
    Source: DragAnything (Wu et al. 2024, arXiv 2403.07420) and the published demo.py.
    """

    name: ClassVar[str] = "drag-anything"
    kinds: ClassVar[Sequence[Literal["object", "camera"]]] = ("object",)

    entity: Entity = "vector"
    """Look of a thing: vector, the mean of its features, as it was trained; or release-scalar, that mean's first number
    everywhere, as the published demo paints it."""
    context_order: ContextOrder = "fixed"
    """Order of the image's tokens in the temporal attention: fixed, or release, in which the published code mixes the
    two branches of guidance (diffusers' mistake of then)."""
    largest_radius: int = 50
    """Pixels at most of a thing's circle, 50 as in the release."""

    BOUNDS: ClassVar[Bounds] = MappingProxyType({"largest_radius": (1, 4096)})

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("controller.entity", self.entity, Entity)
        choice("controller.context_order", self.context_order, ContextOrder)
        check_numbers(self)

    def uses(self) -> Uses:
        """Motions with their masks, its ControlNet, and the network for looks."""
        return Uses(motions=True, masks=True, adapters=(self.name, FEATURES))

    def masks(self, tracks: Tracks) -> dict[int, Bool[np.ndarray, "h w"]]:
        """Pixels of each thing in the first frame, by its motion's index.

        The scene's, else GrabCut's in its box, of a pin the whole box. FieldError where GrabCut finds none.
        """
        return {
            index: _mask(tracks, track, f"motions[{index}]")
            for index, track in enumerate(tracks.tracks)
            if track.kind in self.kinds
        }

    def points(self, tracks: Tracks) -> Paths:
        """The middle of each thing's largest inner circle, which goes with its box."""
        return _points(self.masks(tracks), tracks)

    def signal(self, setup: Setup) -> Entities:
        """The maps for the ControlNet; the looks are drawn from the run's generator, after the model's own noise."""
        grid, backbone = setup.grid, setup.backbone
        masks = self.masks(setup.tracks)
        look = Look(image=setup.tracks.image, generator=setup.generator)
        with backbone.adapted(setup.adapters[FEATURES], look):
            pass
        assert look.seen is not None, "the weights for looks put down what they see"
        places = _points(masks, setup.tracks).clipped(grid.width, grid.height).places.astype(np.int64)
        sides = np.array([min(radius_of(mask), self.largest_radius) for mask in masks.values()])
        vectors = [look_of(look.seen, mask, grid) for mask in masks.values()]
        return Entities(
            heat=torch.from_numpy(heat_maps(places, sides, grid.height, grid.width)),
            labels=torch.from_numpy(labels_of(places, sides, grid.height, grid.width).astype(np.int32)),
            table=table_of(torch.stack(vectors), self.entity),
            context_order=self.context_order,
        )


def _points(masks: Mapping[int, Bool[np.ndarray, "h w"]], tracks: Tracks) -> Paths:
    return paths_from({index: middle_of(mask) for index, mask in masks.items()}, tracks.tracks)


def _mask(tracks: Tracks, track: Track, name: str) -> Bool[np.ndarray, "h w"]:
    width, height = tracks.image.size
    left, top, right, bottom = track.boxes[0].clip(0, (width, height, width, height)).tolist()
    whole = np.zeros((height, width), dtype=bool)
    whole[int(top) : max(int(bottom), int(top) + 1), int(left) : max(int(right), int(left) + 1)] = True
    if track.mask is not None:
        own: Bool[np.ndarray, "h w"] = np.asarray(track.mask) > 127
        return own if own.any() else whole
    if not np.ptp(track.boxes, axis=0).any():
        return whole
    with within(name):
        try:
            cut = grab_cut(tracks.image, Box(left=left, top=top, right=right, bottom=bottom))
        except FieldError as error:
            raise FieldError(error.field, error.problem, f"{error.remedy}, or give the motion a mask") from error
    found: Bool[np.ndarray, "h w"] = np.asarray(cut) > 127
    return found


def _distances(mask: Bool[np.ndarray, "h w"]) -> np.ndarray:
    found: np.ndarray = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    return found


def radius_of(mask: Bool[np.ndarray, "h w"]) -> int:
    """Whole pixels of the largest circle inside a mask."""
    return int(_distances(mask).max())


def middle_of(mask: Bool[np.ndarray, "h w"]) -> Float64[np.ndarray, " 2"]:
    """(x, y) of that circle's middle; of several such pixels the mean pixel's nearest."""
    distances = _distances(mask)
    best = np.argwhere(distances == distances.max())[:, ::-1].astype(np.float64)
    nearest: Float64[np.ndarray, " 2"] = best[((best - best.mean(axis=0)) ** 2).sum(axis=1).argmin()]
    return nearest


def stamp() -> UInt8[np.ndarray, "n n"]:
    """A spot of heat, ``exp(-d^2 / (2 * 40^2))`` in a circle of radius 100, in 0..255."""
    offsets = np.arange(_STAMP) - _STAMP // 2
    spot = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * _DEVIATION**2))
    circle = np.zeros((_STAMP, _STAMP), np.uint8)
    cv2.circle(circle, (_STAMP // 2, _STAMP // 2), _RADIUS, 1, -1)
    spot = spot * circle
    whole: UInt8[np.ndarray, "n n"] = (spot / spot.max() * 255).astype(np.uint8)
    return whole


def heat_maps(
    places: Int64[np.ndarray, "f p 2"], sides: Int64[np.ndarray, " p"], height: int, width: int
) -> UInt8[np.ndarray, "f h w"]:
    """A stamp at each place, as large as its circle; a later thing covers an earlier one.

    As published: at the picture's border the stamp is squeezed, not cut, and below 4 pixels there is none.
    """
    maps = np.zeros((len(places), height, width), np.uint8)
    spot = stamp()
    for one, frame in zip(maps, places.tolist(), strict=True):
        for (x, y), side in zip(frame, sides.tolist(), strict=True):
            left, top = max(x - side, 0), max(y - side, 0)
            right, bottom = min(x + side, width - 1), min(y + side, height - 1)
            if right - left > 3 and bottom - top > 3:
                one[top:bottom, left:right] = cv2.resize(spot, (right - left, bottom - top))
    return maps


def labels_of(
    places: Int64[np.ndarray, "f p 2"], sides: Int64[np.ndarray, " p"], height: int, width: int
) -> UInt16[np.ndarray, "f h w"]:
    """The thing whose circle covers each pixel, counted from 1, the last of several; 0 for none."""
    maps = np.zeros((len(places), height, width), np.uint16)
    for one, frame in zip(maps, places.tolist(), strict=True):
        for index, ((x, y), side) in enumerate(zip(frame, sides.tolist(), strict=True)):
            cv2.circle(one, (x, y), side, index + 1, -1)
    return maps


def look_of(
    features: Float[torch.Tensor, "d v u"], mask: Bool[np.ndarray, "h w"], grid: Grid
) -> Float[torch.Tensor, " d"]:
    """The mean of the features over a thing; of one too small for any cell of theirs, the cell below its middle."""
    columns, rows = grid.width // _STRIDE, grid.height // _STRIDE
    inside = cv2.resize(mask.astype(np.uint8), (columns, rows)) != 0
    if not inside.any():
        x, y = middle_of(mask)
        inside[min(int(y) // _STRIDE, rows - 1), min(int(x) // _STRIDE, columns - 1)] = True
    return features[:, torch.from_numpy(inside).to(features.device)].mean(dim=1)


def table_of(vectors: Float[torch.Tensor, "p d"], entity: Entity) -> Float[torch.Tensor, "e c"]:
    """Look of every label, neighbouring channels averaged in pairs, zeros for label 0."""
    if entity == "release-scalar":
        vectors = vectors[:, :1].expand_as(vectors)
    pairs = vectors.unflatten(1, (-1, 2)).mean(dim=2)
    return torch.cat([torch.zeros_like(pairs[:1]), pairs])

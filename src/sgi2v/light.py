"""Records that hold no more of a photo than the model saw: the scene at the model's size, exact enough for a replay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from PIL import Image

from sgi2v.errors import FieldError
from sgi2v.grid import Grid, Track, Tracks, placement, shown_part, tracks_of
from sgi2v.images import data_bytes, data_uri, load_mask
from sgi2v.records import Json
from sgi2v.reference import Reference
from sgi2v.run import FORMAT, Run, embedded
from sgi2v.scene import MAX_COORDINATE, MIN_SIDE, Box, Key, Motion, Scene
from sgi2v.scene_io import scene_from_dict

_DAMAGED: Final = "the record is damaged"


def lightened(record: Json) -> Json:
    """The record of a run with its scene at the model's size, from which :func:`sgi2v.replay` makes the same clip.

    Picture, masks and reference are those that the model was given, lossless; boxes and paths are carried over, and
    the exact boxes stand under ``seen``, with soft-edged masks and the key of the full record. A light record, and one
    that is not of this project, is returned as it is. FieldError where the record is damaged.
    """
    if record.get("format") != FORMAT:
        return record
    run = Run.from_dict(record)
    if run.seen is not None:
        return record
    scene = scene_from_dict(dict(run.scene), base_dir=None)
    grid = _grid_of(run)
    tracks = tracks_of(scene, grid)
    seen: Json = {
        "key": run.key,
        "boxes": [[[float(side) for side in box] for box in track.boxes] for track in tracks.tracks],
        "masks": [None if track.mask is None else data_uri(track.mask) for track in tracks.tracks],
    }
    if run.sampling.get("padding") == "cut":
        seen["shown"] = list(shown_part(scene.image.size, (grid.width, grid.height), scene.fit))
    return replace(run, scene=embedded(_carried(scene, tracks, grid)), seen=seen).to_dict()


def tracks_seen(scene: Scene, run: Run) -> Tracks | None:
    """The tracks that a light record kept, for the scene in it; None for a full record. FieldError for damage."""
    if run.seen is None:
        return None
    grid = _grid_of(run)
    boxes, masks = run.seen.get("boxes"), run.seen.get("masks")
    try:
        places = np.array(boxes, dtype=np.float64).reshape(len(scene.motions), grid.num_frames, 4)
    except (ValueError, TypeError, OverflowError):
        raise FieldError("run.seen.boxes", "not a box for every motion and frame", _DAMAGED) from None
    if scene.image.size != (grid.width, grid.height) or not np.isfinite(places).all():
        raise FieldError("run.seen", f"does not fit the clip's {grid.width}x{grid.height} pixels", _DAMAGED)
    if not isinstance(masks, list) or len(masks) != len(scene.motions):
        raise FieldError("run.seen.masks", "not one for every motion", _DAMAGED)
    tracks = [
        Track(boxes=box.astype(np.float32), kind=motion.kind, name=motion.name, mask=_mask(mask, index, grid))
        for index, (motion, box, mask) in enumerate(zip(scene.motions, places, masks, strict=True))
    ]
    return Tracks(image=scene.image, tracks=tuple(tracks), reference=_reference_seen(scene.reference, grid))


def part_seen(run: Run) -> tuple[int, int, int, int] | None:
    """The part (left, top, right, bottom) of what the model makes that a light record says is shown; None for all."""
    part = None if run.seen is None else run.seen.get("shown")
    if part is None:
        return None
    if isinstance(part, list) and len(part) == 4 and all(type(side) is int for side in part):
        left, top, right, bottom = part
        grid = _grid_of(run)
        if 0 <= left < right <= grid.width and 0 <= top < bottom <= grid.height:
            return left, top, right, bottom
    raise FieldError("run.seen.shown", "no part of the clip", _DAMAGED)


def _grid_of(run: Run) -> Grid:
    """The clip's size; how many pixels a cell has does not matter to boxes and pictures."""
    size = {name: run.sampling.get(name) for name in ("width", "height", "num_frames")}
    for name, value in size.items():
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1_000_000:
            raise FieldError(f"run.sampling.{name}", f"{value!r} is no size", _DAMAGED)
    sizes: Any = size
    return Grid(**sizes, stride=1)


def _carried(scene: Scene, tracks: Tracks, grid: Grid) -> Scene:
    """The scene in pixels of the video: as near as its own numbers can say it, for whoever opens it again."""
    place = placement(scene.image.size, (grid.width, grid.height), scene.fit)
    factors = np.array(place.size) / np.array(scene.image.size)
    motions = tuple(
        _motion(motion, track, factors, place.offset, grid)
        for motion, track in zip(scene.motions, tracks.tracks, strict=True)
    )
    reference = tracks.reference
    if reference is not None and all(mask.getextrema() == (255, 255) for mask in reference.masks):
        reference = replace(reference, masks=())
    return replace(scene, image=tracks.image, motions=motions, fit="stretch", reference=reference)


def _motion(motion: Motion, track: Track, factors: np.ndarray, offset: Sequence[int], grid: Grid) -> Motion:
    def carried(value: float, axis: int, low: float, high: float) -> float:
        return float(min(max(value * factors[axis] + offset[axis], low), high))

    sides: dict[str, float] = {}
    for axis, (first, last, limit) in enumerate((("left", "right", grid.width), ("top", "bottom", grid.height))):
        start, end = (carried(getattr(motion.box, name), axis, 0.0, float(limit)) for name in (first, last))
        if end - start < 2 * MIN_SIDE:  # a scene may hold no box so thin; the exact one is kept beside it
            start = min(max((start + end) / 2 - MIN_SIDE, 0.0), limit - 2 * MIN_SIDE)
            end = start + 2 * MIN_SIDE
        sides |= {first: start, last: end}
    path = tuple(
        Key(
            time=key.time,
            x=carried(key.x, 0, -MAX_COORDINATE, MAX_COORDINATE),
            y=carried(key.y, 1, -MAX_COORDINATE, MAX_COORDINATE),
            scale=key.scale,
            easing=key.easing,
        )
        for key in motion.path
    )
    mask = None if track.mask is None else track.mask.point(lambda value: 255 if value > 127 else 0)
    return replace(motion, box=Box(**sides), path=path, mask=mask)


def _mask(uri: object, index: int, grid: Grid) -> Image.Image | None:
    field = f"run.seen.masks[{index}]"
    if uri is None:
        return None
    if not isinstance(uri, str):
        raise FieldError(field, "no picture", _DAMAGED)
    mask = load_mask(data_bytes(field, uri), field=field).convert("L")
    if mask.size != (grid.width, grid.height):
        raise FieldError(field, "of another size than the clip", _DAMAGED)
    return mask


def _reference_seen(reference: Reference | None, grid: Grid) -> Reference | None:
    """As :func:`sgi2v.grid.tracks_of` makes it of the full one: a frame and a mask for every frame of the video."""
    if reference is None:
        return None
    size = (grid.width, grid.height)
    masks = tuple(mask.convert("L") for mask in reference.masks) or (Image.new("L", size, 255),) * grid.num_frames
    if len(reference.frames) != grid.num_frames or reference.frames[0].size != size or len(masks) != grid.num_frames:
        raise FieldError("run.scene.reference", "not a frame and mask for every frame of the clip", _DAMAGED)
    return Reference(frames=reference.frames, masks=masks)

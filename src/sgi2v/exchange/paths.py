"""Paths of points and boxes in other people's files, as motions, and motions as such paths."""

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float64

from sgi2v.checks import shown
from sgi2v.errors import FieldError
from sgi2v.files import MAX_BYTES, read_file
from sgi2v.prompting.drags import Drag
from sgi2v.prompting.notation import Measure
from sgi2v.scene import MAX_KEYS, MAX_MOTIONS, Box, Key, Motion, Scene, frame_times

ATI_FRAMES: Final = 121
"""Of a file for ATI, at 24 a second."""
_ATI_SCALE: Final = 8.0
"""Its numbers are pixels times this."""


@dataclass(frozen=True, kw_only=True)
class PointPaths:
    """Points that move: what splines and tracks hold."""

    places: Float64[np.ndarray, "points frames 2"]
    """(x, y) in pixels of the picture."""
    visible: Float64[np.ndarray, "points frames"]
    """1 where a point is seen, 0 where not."""


def motions_of_points(paths: PointPaths, size: tuple[int, int]) -> tuple[tuple[Motion, ...], list[str]]:
    """A motion for each point, its box around where it begins, a key a frame; and what was lost.

    Points that begin off the picture or unseen have nothing to move; of more than a scene may hold an even choice is
    taken. Where a point is not seen it stays on its way.
    """
    places, visible = paths.places, paths.visible
    if not np.isfinite(places).all():
        raise FieldError("tracks", "some places are NaN or infinite", "write the file again")
    starts = (places[:, 0] >= 0).all(axis=1) & (places[:, 0] < np.array(size)).all(axis=1) & (visible[:, 0] > 0)
    kept = np.flatnonzero(starts)
    lost = [f"{len(starts) - len(kept)} points that begin unseen or off the picture"] if len(kept) < len(starts) else []
    if len(kept) > MAX_MOTIONS:
        lost.append(f"{len(kept) - MAX_MOTIONS} of {len(kept)} points: a scene has at most {MAX_MOTIONS} motions")
        kept = kept[np.linspace(0, len(kept) - 1, MAX_MOTIONS).round().astype(int)]
    if not (visible[kept] > 0).all():
        lost.append("when points are not seen")
    times = frame_times(places.shape[1]).tolist()
    motions = []
    for index in kept.tolist():
        (x, y), *_ = places[index].tolist()
        box = Drag(place=(Measure.of(x), Measure.of(y))).box(size)
        keys = tuple(Key(time=t, x=x, y=y) for t, (x, y) in zip(times, places[index].tolist(), strict=True))
        moves = len(keys) > 1 and bool((places[index] != places[index, :1]).any())
        motions.append(Motion(box=box, path=keys if moves else (), name=f"point {index + 1}"))
    return tuple(motions), lost


def points_of_scene(scene: Scene, num_frames: int) -> tuple[PointPaths, list[str]]:
    """The middle of each motion's box at each frame, and what of the scene has no place in points."""
    boxes = [motion.boxes_at(frame_times(num_frames)) for motion in scene.motions]
    places = np.array([[box.center for box in each] for each in boxes], dtype=np.float64)
    places = places.reshape(len(boxes), num_frames, 2)
    lost = ["the sizes of boxes"] if boxes else []
    lost += ["growing and shrinking"] if any(key.scale != 1 for motion in scene.motions for key in motion.path) else []
    return PointPaths(places=places, visible=np.ones(places.shape[:2])), lost + lost_always(scene)


def lost_always(scene: Scene, *, masks: bool = True) -> list[str]:
    """Parts of a scene that no other file has a place for."""
    lost = ["masks"] if masks and any(motion.mask is not None for motion in scene.motions) else []
    lost += ["names"] if any(motion.name for motion in scene.motions) else []
    lost += ["the difference between things and camera"] if any(m.kind == "camera" for m in scene.motions) else []
    return lost + [name.replace("_", " ") for name in ("negative_prompt",) if getattr(scene, name)]


def read_splines(data: object) -> PointPaths:
    """Splines of ComfyUI's editors (KJNodes): a list of ``{"x": …, "y": …}``, or a list of such lists; or that as text.

    A file may hold it under ``coordinates``. Splines of several lengths are resampled along their index to the longest.
    """
    if isinstance(data, dict):
        data = data.get("coordinates", data.get("points_store"))
    if isinstance(data, str):
        data = loads(data, "splines")
    if isinstance(data, list) and data and all(isinstance(one, str) for one in data):
        data = [loads(one, "splines") for one in data]
    splines = [data] if isinstance(data, list) and data and isinstance(data[0], dict) else data
    if not isinstance(splines, list) or not splines:
        raise FieldError("splines", f"{shown(data)} is no list of points", 'give [{"x": 1, "y": 2}, …]')
    if len(splines) > 10 * MAX_MOTIONS:
        raise FieldError("splines", f"{len(splines)} of them", f"give at most {10 * MAX_MOTIONS}")
    rows = [points_in(spline, f"splines[{index}]") for index, spline in enumerate(splines)]
    longest = max(len(row) for row in rows)
    steps = np.linspace(0, 1, longest)
    places = [
        np.stack([np.interp(steps, np.linspace(0, 1, len(row)), row[:, k]) for k in (0, 1)], axis=1)
        if len(row) < longest
        else row
        for row in rows
    ]
    stacked = np.stack(places).astype(np.float64)
    return PointPaths(places=stacked, visible=np.ones(stacked.shape[:2]))


def points_in(values: object, field: str) -> Float64[np.ndarray, "frames 2"]:
    """Points of JSON: objects with x and y, or pairs. FieldError for others, none, and more than a path may have."""
    if not isinstance(values, list) or not 1 <= len(values) <= MAX_KEYS:
        raise FieldError(field, f"{shown(values)} is no list of points", f"give 1 to {MAX_KEYS} of them")
    pairs = [[one.get("x"), one.get("y")] if isinstance(one, dict) else one for one in values]
    for index, pair in enumerate(pairs):
        right = isinstance(pair, list) and len(pair) == 2
        if not right or not all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e8 for v in pair):
            raise FieldError(f"{field}[{index}]", f"{shown(values[index])} is no point", 'give {"x": 1, "y": 2}')
    return np.array(pairs, dtype=np.float64)


def splines_json(paths: PointPaths) -> str:
    """The opposite of :func:`read_splines`: a list of lists of points."""
    return json.dumps([[{"x": x, "y": y} for x, y in spline] for spline in paths.places.tolist()])


def read_wan_move(path: Path) -> PointPaths:
    """Wan-Move's tracks: a .npy of (x, y) [frames, points, 2], and beside it one of the same name with ``visibility``.

    A leading axis of 1 is taken off. Without the second file all points are seen.
    """
    tracks = array_in(read_file(path, "tracks"), "tracks")
    tracks = tracks[0] if tracks.ndim == 4 and len(tracks) == 1 else tracks
    if tracks.ndim != 3 or tracks.shape[2] != 2 or not (1 <= tracks.shape[0] <= MAX_KEYS) or not tracks.shape[1]:
        raise FieldError("tracks", f"its shape is {tracks.shape}", "give (x, y) as [frames, points, 2]")
    visible = np.ones(tracks.shape[:2])
    beside = path.with_name(path.name.replace("tracks", "visibility"))
    if beside != path and beside.is_file():
        visible = array_in(read_file(beside, "visibility"), "visibility")
        visible = visible.reshape(visible.shape[-2:]) if visible.ndim == 3 and len(visible) == 1 else visible
        if visible.shape != tracks.shape[:2]:
            raise FieldError(
                "visibility", f"its shape is {visible.shape}", f"give {tracks.shape[:2]}, as the tracks are"
            )
    return PointPaths(places=tracks.transpose(1, 0, 2), visible=visible.T)


def read_ati(path: Path) -> PointPaths:
    """ATI's tracks: an .npz of [points, 121, 1, 3] (x, y, seen) in eighths of pixels, or its bytes in a torch file."""
    data = read_file(path, "tracks")
    if not zipfile.is_zipfile(io.BytesIO(data)):
        raise FieldError("tracks", f"{path} is no file of ATI's", "give the .pth or .npz that it reads")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(one.file_size for one in archive.infolist()) > MAX_BYTES:
            raise FieldError("tracks", f"{path} unpacks to more than {MAX_BYTES} bytes", "give fewer points")
        names = archive.namelist()
    if not any(name.endswith(".npy") for name in names):
        data = _bytes_in_torch(data, path)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if "array.npy" not in archive.namelist() or archive.getinfo("array.npy").file_size > MAX_BYTES:
            raise FieldError("tracks", f"{path} holds no array of bearable size", "give the file that ATI reads")
        array = array_in(archive.read("array.npy"), "tracks")
    if array.ndim == 4 and array.shape[0] == ATI_FRAMES and array.shape[1] != ATI_FRAMES:
        array = array.transpose(1, 0, 2, 3)
    if array.ndim != 4 or array.shape[2:] != (1, 3) or not array.shape[0] or not 1 <= array.shape[1] <= MAX_KEYS:
        raise FieldError("tracks", f"its shape is {array.shape}", f"give [points, {ATI_FRAMES}, 1, 3]")
    flat = array[:, :, 0] / _ATI_SCALE
    return PointPaths(places=flat[..., :2], visible=flat[..., 2])


def _bytes_in_torch(data: bytes, path: Path) -> bytes:
    import torch

    try:
        inner: Any = torch.load(io.BytesIO(data), weights_only=True)
    except Exception as error:  # torch raises almost anything on a file that is none of its own
        raise FieldError("tracks", f"{path} cannot be read ({shown(str(error))})", "give ATI's own form") from error
    if isinstance(inner, torch.Tensor) and inner.dtype == torch.uint8:
        inner = inner.numpy().tobytes()
    if not isinstance(inner, bytes) or len(inner) > MAX_BYTES or not zipfile.is_zipfile(io.BytesIO(inner)):
        raise FieldError("tracks", f"{path} holds no bytes of an .npz", "give ATI's own form")
    return inner


def ati_bytes(paths: PointPaths) -> bytes:
    """The opposite of :func:`read_ati`, of 121 frames; as bytes in a torch file, as ATI reads them."""
    import torch

    packed = np.concatenate([paths.places, paths.visible[..., None]], axis=2)[:, :, None] * _ATI_SCALE
    file, whole = io.BytesIO(), io.BytesIO()
    np.savez_compressed(file, array=packed.astype(np.float32))
    torch.save(file.getvalue(), whole)
    return whole.getvalue()


def array_in(data: bytes, field: str) -> Float64[np.ndarray, "..."]:
    """The numbers of a .npy file, as float64; FieldError for another type, and for less data than its header says."""
    try:
        array: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError, MemoryError, SyntaxError, TypeError) as error:
        raise FieldError(field, f"no NumPy array ({shown(str(error))})", "write it with numpy.save") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        raise FieldError(field, "it holds no numbers", "write it with numpy.save")
    return array.astype(np.float64)


def loads(text: str, field: str) -> Any:
    """JSON, or a FieldError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FieldError(field, f"no JSON ({shown(str(error))})", "give the file as it was written") from error


def motion_of_boxes(boxes: Sequence[Box | None], size: tuple[int, int], name: str) -> tuple[Motion | None, list[str]]:
    """A motion of a box in each frame; None for one that is not on the first. And what was lost.

    Frames without a box are skipped. The box keeps its shape: what changes of it is lost, its size is the root of the
    areas' ratio.
    """
    first = boxes[0]
    if first is None:
        return None, [f"{name}, which is not on the first frame"]
    inside = Box(
        left=max(first.left, 0.0),
        top=max(first.top, 0.0),
        right=min(first.right, float(size[0])),
        bottom=min(first.bottom, float(size[1])),
    )
    times = frame_times(len(boxes)).tolist()
    area, ratio = first.width * first.height, first.width / first.height
    keys: list[Key] = []
    bent = False
    for time, box in zip(times, boxes, strict=True):
        if box is not None:
            scale = ((box.width * box.height) / area) ** 0.5 if keys else 1.0
            bent |= abs(box.width / box.height / ratio - 1) > 0.1
            keys.append(Key(time=time, x=box.center[0], y=box.center[1], scale=min(max(scale, 1e-3), 1e3)))
    lost = [f"frames in which {name} is hidden"] if len(keys) < len(boxes) else []
    lost += [f"how the box of {name} changes its shape"] if bent else []
    return Motion(box=inside, path=tuple(keys) if len(keys) > 1 else (), name=name), lost

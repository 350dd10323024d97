"""The forms in which others keep wanted motion, told by content; one door in, one out."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, cast, get_args

import numpy as np
from PIL import Image

from sgi2v.checks import shown
from sgi2v.errors import FieldError, within
from sgi2v.exchange import paths as p
from sgi2v.exchange import pictures as pic
from sgi2v.files import read_file
from sgi2v.images import load_image, load_mask, png_bytes
from sgi2v.prompting.clicks import box_of
from sgi2v.scene import MAX_MOTIONS, Key, Motion, Scene, frame_times
from sgi2v.scene_io import load_scene
from sgi2v.signatures import is_clip_file
from sgi2v.writing import write_files

Form = Literal["scene", "time-to-move", "splines", "ati", "wan-move", "drag-anything", "magic-motion", "masks"]
FORMS: Final = get_args(Form)


@dataclass(frozen=True, kw_only=True)
class Exchanged:
    """A scene that was read of another form."""

    scene: Scene
    form: Form
    lost: tuple[str, ...]
    """Parts of the file that have no place in a scene."""


def form_of(path: Path) -> Form:
    """The form that a file or folder has, by what is in it; a scene where it is none of the others'."""
    if path.is_dir():
        if (path / "scene.json").is_file() or (path / "traj.npy").is_file():
            return "scene"
        if (path / pic.TTM[0]).is_file() and (path / pic.TTM[1]).is_file():
            return "time-to-move"
        if any(path.glob("*.png")):
            return "masks"
        return "scene"
    if is_clip_file(path):
        return "magic-motion"
    data = read_file(path, "scene")
    if data.startswith(b"\x93NUMPY"):
        return "wan-move"
    if data.startswith(b"PK"):
        return "ati"
    try:
        found = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return "scene"  # whose reader says what is wrong
    if isinstance(found, list) or (isinstance(found, dict) and found.keys() & {"coordinates", "points_store"}):
        return "splines"
    things = list(found.values()) if isinstance(found, dict) else []
    return "drag-anything" if any(isinstance(one, dict) and "trajectory" in one for one in things) else "scene"


def read_scene(path: Path, *, photo: Path | None = None) -> Exchanged:
    """The scene in a file or folder of any form; ``photo`` is its picture, where the form holds none.

    FieldError for a form that is not known, a picture that is missing, and whatever is wrong with the file.
    """
    form = form_of(path)
    if form == "scene":
        return Exchanged(scene=load_scene(path), form=form, lost=())
    if form == "time-to-move":
        return Exchanged(scene=pic.read_time_to_move(path), form=form, lost=())
    if form == "masks":
        scene, lost = pic.read_masks(path, photo)
        return Exchanged(scene=scene, form=form, lost=tuple(lost))
    if form == "drag-anything":
        scene, lost = _read_drag_anything(path, photo)
        return Exchanged(scene=scene, form=form, lost=tuple(lost))
    image = load_image(_photo_beside(path, photo), "photo")
    if form == "magic-motion":
        scene, lost = pic.read_box_video(path, image)
        return Exchanged(scene=scene, form=form, lost=tuple(lost))
    if form == "ati":
        points = p.read_ati(path)
    elif form == "wan-move":
        points = p.read_wan_move(path)
    else:
        points = p.read_splines(p.loads(read_file(path, "splines").decode("utf-8-sig", "replace"), "splines"))
    motions, lost = p.motions_of_points(points, image.size)
    return Exchanged(scene=Scene(image=image, motions=motions), form=form, lost=tuple(lost))


def _photo_beside(path: Path, photo: Path | None) -> Path:
    """The picture of a file that holds none: given, or of the same name beside it."""
    if photo is not None:
        return photo
    for ending in (".png", ".jpg", ".jpeg", ".webp"):
        if (found := path.with_suffix(ending)).is_file():
            return found
    raise FieldError(
        "photo", f"{path.name} holds no picture", "give it with --photo, or lay it beside under the same name"
    )


def _read_drag_anything(path: Path, photo: Path | None) -> tuple[Scene, list[str]]:
    """DragAnything's demo file: ``{"1": {"mask_name": …, "trajectory": [[x, y], …]}}``, in pixels of the photo."""
    data = p.loads(read_file(path, "scene").decode("utf-8-sig", "replace"), "scene")
    image = load_image(_photo_beside(path, photo), "photo")
    motions, lost = [], []
    if len(data) > MAX_MOTIONS:
        raise FieldError("scene", f"{len(data)} things", f"give at most {MAX_MOTIONS}")
    for name, thing in data.items():
        with within(shown(name)[1:-1]):
            if not isinstance(thing, dict):
                raise FieldError("", f"{shown(thing)} is no object", "give mask_name and trajectory")
            way = p.points_in(thing.get("trajectory"), "trajectory")
            mask = _mask_named(thing.get("mask_name"), path.parent, image.size)
            times = frame_times(len(way)).tolist()
            keys = tuple(Key(time=t, x=x, y=y) for t, (x, y) in zip(times, way.tolist(), strict=True))
            points = p.PointPaths(places=way[None], visible=np.ones((1, len(way))))
            found, more = p.motions_of_points(points, image.size)
            if mask is not None:
                box = box_of(mask)
                moves = len(keys) > 1 and bool((way != way[:1]).any())
                found, more = (Motion(box=box, path=keys if moves else (), mask=mask),), []
            motions += [replace(one, name=str(name)) for one in found]
            lost += more
    return Scene(image=image, motions=tuple(motions)), lost


def _mask_named(name: object, folder: Path, size: tuple[int, int]) -> Image.Image | None:
    """A mask beside the file; only a plain name is followed."""
    if not isinstance(name, str) or not name or Path(name).name != name or "\\" in name:
        return None
    file = folder / name
    if not file.is_file() or file.is_symlink():
        return None
    mask = load_mask(file, size).convert("L").point(lambda value: 255 if value else 0)
    return mask if mask.getbbox() else None


def write_scene(scene: Scene, path: Path, form: Form, *, num_frames: int = 14) -> list[str]:
    """Writes a scene in another's form; returns what had no place there.

    ``path`` is a folder for time-to-move, else a file; a picture that the form holds not is laid beside it as PNG.
    """
    if form not in _WRITERS:
        raise FieldError("to", f"{form} is not written by this", f"give one of {', '.join(_WRITERS)}")
    if form == "time-to-move":
        return pic.write_time_to_move(scene, path, num_frames)
    if not scene.motions:
        raise FieldError("motions", "the scene has none to be written", "say what should move")
    if form == "magic-motion":
        return pic.write_box_video(scene, path, num_frames)
    return _WRITERS[form](scene, path, num_frames)


def _write_splines(scene: Scene, path: Path, num_frames: int) -> list[str]:
    points, lost = p.points_of_scene(scene, num_frames)
    return _with_photo(scene, path, p.splines_json(points).encode(), lost)


def _write_ati(scene: Scene, path: Path, num_frames: int) -> list[str]:
    points, lost = p.points_of_scene(scene, p.ATI_FRAMES)
    return _with_photo(scene, path, p.ati_bytes(points), lost)


def _write_wan_move(scene: Scene, path: Path, num_frames: int) -> list[str]:
    points, lost = p.points_of_scene(scene, num_frames)
    tracks, visible = io.BytesIO(), io.BytesIO()
    np.save(tracks, points.places.transpose(1, 0, 2).astype(np.float32), allow_pickle=False)
    np.save(visible, points.visible.T.astype(bool), allow_pickle=False)
    beside = path.name.replace("tracks", "visibility")
    files = {path.name: tracks.getvalue()} | ({beside: visible.getvalue()} if beside != path.name else {})
    write_files(path.parent, {**files, f"{path.stem}.png": png_bytes(scene.image)})
    return lost


def _write_drag_anything(scene: Scene, path: Path, num_frames: int) -> list[str]:
    points, lost = p.points_of_scene(scene, num_frames)
    data, files = {}, {}
    for index, (motion, way) in enumerate(zip(scene.motions, points.places.tolist(), strict=True)):
        mask = motion.mask or _box_mask(motion, scene.image.size)
        name = f"{path.stem}_mask_{index + 1}.png"
        data[str(index + 1)] = {"mask_name": name, "trajectory": way}
        files[name] = png_bytes(mask.convert("L").point(lambda value: 255 if value else 0))
    files |= {path.name: json.dumps(data).encode(), f"{path.stem}.png": png_bytes(scene.image)}
    write_files(path.parent, files)
    return [one for one in lost if one not in ("masks", "the sizes of boxes")]


def _box_mask(motion: Motion, size: tuple[int, int]) -> Image.Image:
    box = motion.box
    mask = Image.new("L", size)
    mask.paste(255, (int(box.left), int(box.top), int(np.ceil(box.right)), int(np.ceil(box.bottom))))
    return mask


def _with_photo(scene: Scene, path: Path, data: bytes, lost: list[str]) -> list[str]:
    write_files(path.parent, {path.name: data, f"{path.stem}.png": png_bytes(scene.image)})
    return lost


_WRITERS: Final = MappingProxyType(
    cast(
        dict[str, Callable[[Scene, Path, int], list[str]]],
        {
            "time-to-move": pic.write_time_to_move,
            "splines": _write_splines,
            "ati": _write_ati,
            "wan-move": _write_wan_move,
            "drag-anything": _write_drag_anything,
            "magic-motion": pic.write_box_video,
        },
    )
)

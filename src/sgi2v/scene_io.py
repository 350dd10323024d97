"""Scene <-> JSON (versioned, docs/scene.md) and <-> the published traj.npy folders."""

import json
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar

from PIL import Image

from sgi2v.checks import shown
from sgi2v.errors import FieldError, joined, within
from sgi2v.files import MAX_BYTES, check_is_scene, read_file
from sgi2v.images import Source, data_bytes, data_uri, load_image, load_mask, png_bytes, stays
from sgi2v.records import Json, RecordReader, version_text
from sgi2v.reference import MAX_FRAMES, Reference, check_pixels, files_of, frame_in, load_reference, read_clip
from sgi2v.scene import MAX_KEYS, MAX_MOTIONS, Box, Key, Motion, Scene
from sgi2v.traj import load_traj, save_traj
from sgi2v.writing import write_files

__all__ = [
    "load_image",
    "load_mask",
    "load_scene",
    "load_traj",
    "pictures_of",
    "save_scene",
    "save_traj",
    "scene_from_dict",
    "scene_to_dict",
    "with_reference",
]
FORMAT: Final = "sgi2v-scene"
NEWEST: Final = (2, 2)
"""2 knows a reference, 2.1 a negative prompt, 2.2 the fit aspect, which is what a scene of it has unsaid; a scene
without these is written as 1, which older readers understand (docs/records.md)."""
MAX_MASK_PIXELS: Final = 1_000_000_000
"""Of all masks of a scene together: a byte each in memory."""
_SINGULAR: Final = MappingProxyType({"": "scene", "motions": "motion", "path": "key"})
T = TypeVar("T")


def load_scene(path: str | os.PathLike[str]) -> Scene:
    """The scene of a JSON file, of a folder holding scene.json, or of one holding img.png and traj.npy.

    Raises ValueError, one line naming the field, for whatever is wrong with it.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / "scene.json").is_file():
            return load_traj(path)
        path = path / "scene.json"
    return scene_from_dict(_json_of(path), path.parent)


def pictures_of(path: str | os.PathLike[str]) -> frozenset[Path]:
    """Files of the pictures and clips that a scene names, which :func:`load_scene` has read without a fault."""
    path = Path(path)
    if path.is_dir() and not (path / "scene.json").is_file():
        return frozenset({(path / "img.png").resolve()})
    path = path / "scene.json" if path.is_dir() else path
    data: Any = _json_of(path)
    named = [data["image"], *(motion.get("mask") for motion in data["motions"])]
    for part in data.get("reference", {}).values():
        named += part if isinstance(part, list) else [part]
    files = [path.parent / name for name in named if isinstance(name, str) and not name.startswith("data:")]
    files += [inner for file in files if file.is_dir() for inner in file.iterdir()]
    return frozenset(file.resolve() for file in files)


def _json_of(path: Path) -> object:
    check_is_scene(path)
    text = read_file(path, "scene")
    try:
        return json.loads(text.decode("utf-8-sig"), object_pairs_hook=_no_twice)  # NaN is found with its field
    except RecursionError:
        raise FieldError(
            "scene", f"{path} is nested too deeply", "give a scene as docs/scene.md describes it"
        ) from None
    except ValueError as error:
        raise FieldError("scene", f"{path} is not JSON as a scene needs it ({error})") from error


def save_scene(
    scene: Scene, path: str | os.PathLike[str], *, embed: bool = False, keep: Collection[Path] = frozenset()
) -> Path:
    """Writes a scene as JSON to `path` (a folder gets scene.json) and returns the file.

    Image and masks go beside it as PNG, named after it, or with `embed` into it. Every file is written whole
    under another name and then renamed, the JSON last, so a reader never meets half a scene. A file that is one of
    `keep` (:func:`pictures_of` the scene that was read) is left as it is. Raises ValueError for a place that cannot be
    written, and where a file of `keep` would have to hold another picture.
    """
    path = Path(path)
    if path.suffix != ".json":
        path = path / "scene.json"
    data = scene_to_dict(scene, embed=embed, stem=re.sub(r"[^\w.-]", "_", path.stem))
    files = {path.name: (_dumps(data) + "\n").encode()}
    if len(files[path.name]) > MAX_BYTES:
        raise FieldError(
            "scene", f"{len(files[path.name])} bytes of JSON, {MAX_BYTES} at most", "save without embedding"
        )
    if not embed:
        pictures = [(data["image"], scene.image)]
        pictures += [(d["mask"], m.mask) for d, m in zip(data["motions"], scene.motions, strict=True) if m.mask]
        for part, names in data.get("reference", {}).items():
            pictures += zip(names, getattr(scene.reference, part), strict=True)
        fresh = [(name, picture) for name, picture in pictures if not stays(path.parent / name, picture, keep)]
        files = {name: png_bytes(picture) for name, picture in fresh} | files
    write_files(path.parent, files)
    return path


def with_reference(scene: Scene, frames: str | os.PathLike[str] | None, masks: str | os.PathLike[str] | None) -> Scene:
    """The scene with another clip, other masks of the clip that it has, or both; ValueError for masks of no clip."""
    if frames is None and masks is None:
        return scene
    if frames is not None:
        return replace(scene, reference=load_reference(frames, masks))
    if scene.reference is None:
        raise FieldError("reference_mask", "there is no reference that it could be of", "give --reference too")
    assert masks is not None
    read = read_clip("reference.masks", files_of("reference.masks", Path(masks)), mask=True)
    return replace(scene, reference=replace(scene.reference, masks=read))


def scene_to_dict(scene: Scene, *, embed: bool = True, stem: str = "scene") -> Json:
    """A scene as JSON values; `scene_from_dict` gives back an equal one.

    With `embed` image and masks are `data:` URIs; else the names that `save_scene` writes beside `stem`.json.
    """
    motions = []
    for index, motion in enumerate(scene.motions):
        data: Json = {"name": motion.name} if motion.name else {}
        data |= {"kind": motion.kind, "box": _values(motion.box)}
        if motion.path:
            data |= {"curve": motion.curve, "path": [_values(key) for key in motion.path]}
        elif motion.curve != "polyline":
            data |= {"curve": motion.curve}
        if motion.mask is not None:
            data["mask"] = data_uri(motion.mask) if embed else f"{stem}-mask-{index}.png"
        motions.append(data)
    image = data_uri(scene.image) if embed else f"{stem}-image.png"
    version = "2.2" if scene.fit == "aspect" else "2.1" if scene.negative_prompt else 2 if scene.reference else 1
    data = {"format": FORMAT, "version": version, "image": image, "fit": scene.fit}
    data |= {name: text for name in ("prompt", "negative_prompt") if (text := getattr(scene, name))}
    if scene.reference:
        data["reference"] = {
            name: [
                data_uri(picture) if embed else f"{stem}-reference-{name}-{index:03d}.png"
                for index, picture in enumerate(pictures)
            ]
            for name in ("frames", "masks")
            if (pictures := getattr(scene.reference, name))
        }
    return data | {"motions": motions}


def scene_from_dict(data: object, base_dir: str | os.PathLike[str] | None = None) -> Scene:
    """The scene that JSON values describe; relative paths are looked up within `base_dir`.

    Raises ValueError naming the field for unknown fields, a newer major version, wrong types and values, and for a
    path that leads out of `base_dir` (any relative path if that is None). Of a newer minor version it warns
    (:class:`sgi2v.records.NewerRecord`) what it leaves out.
    """
    reader = _reader(data)
    optional = {"fit", "prompt"} | ({"reference"} if reader.version >= (2, 0) else set())
    optional |= {"negative_prompt"} if reader.version >= (2, 1) else set()
    data = _object(reader, "", data, {"format", "version", "image", "motions"}, optional)
    motions = _list("motions", data["motions"], MAX_MOTIONS)
    image = _picture("image", data["image"], base_dir, load_image)
    num_masks = sum(isinstance(motion, dict) and "mask" in motion for motion in motions)
    if num_masks * image.width * image.height > MAX_MASK_PIXELS:
        raise FieldError(
            "motions", f"{num_masks} masks of {image.width}x{image.height} pixels", "give fewer or smaller"
        )

    def mask_of_image(source: Source, field: str) -> Image.Image:
        return load_mask(source, image.size, field=field)

    made = [
        _motion(reader, f"motions[{index}]", motion, base_dir, mask_of_image) for index, motion in enumerate(motions)
    ]
    others: dict[str, object] = {"fit": "aspect"} if reader.version >= (2, 2) else {}
    if data.get("fit") == "aspect" and reader.version < (2, 2):
        raise FieldError("fit", f"version {version_text(reader.version)} knows no aspect", 'say "version": "2.2"')
    others |= {k: data[k] for k in ("fit", "prompt", "negative_prompt") if k in data}
    if "reference" in data:
        others["reference"] = _reference(reader, data["reference"], base_dir)
    _check_version(reader, data)
    reader.warn()
    return _built(Scene, {"image": image, "motions": tuple(made), **others})


def _check_version(reader: RecordReader, data: Mapping[str, object]) -> None:
    """FieldError for a version that is for a field which is not there: the field may have been misspelt, or lost."""
    needed = {(2, 0): "reference", (2, 1): "negative_prompt"}.get(reader.version)
    if needed and needed not in data:
        said = version_text(reader.version)
        remedy = "say 1" if needed == "reference" else "say 1, or 2 with a reference"
        raise FieldError("version", f"{said} is for a scene with a {needed}, and there is none", remedy)


def _reader(data: object) -> RecordReader:
    if not isinstance(data, dict):
        needed = "format, image, motions, version"
        raise FieldError("scene", f"{shown(data)} is not an object", f"give {{...}} with {needed}")
    if data.get("format") != FORMAT:
        raise FieldError("format", f"{shown(data.get('format'))} is not a scene", f'say "{FORMAT}"')
    return RecordReader(data, newest=NEWEST)


def _motion(
    reader: RecordReader,
    field: str,
    value: object,
    base_dir: str | os.PathLike[str] | None,
    load: Callable[[Source, str], Image.Image],
) -> Motion:
    data = dict(_object(reader, field, value, {"box"}, {"name", "kind", "curve", "path", "mask"}))
    data["box"] = _make(reader, f"{field}.box", data["box"], Box)
    if "path" in data and data["path"] == []:
        raise FieldError(f"{field}.path", "0 keys", "give two or more, or leave path out to pin the box")
    keys = _list(f"{field}.path", data.get("path", []), MAX_KEYS)
    data["path"] = tuple(_make(reader, f"{field}.path[{index}]", key, Key) for index, key in enumerate(keys))
    if "mask" in data:
        data["mask"] = _picture(f"{field}.mask", data["mask"], base_dir, load)
    with within(field):
        return _built(Motion, data)


def _reference(reader: RecordReader, value: object, base_dir: str | os.PathLike[str] | None) -> Reference:
    data = _object(reader, "reference", value, {"frames"}, {"masks"})
    return Reference(
        **{name: _clip(f"reference.{name}", part, base_dir, mask=name == "masks") for name, part in data.items()}
    )


def _clip(field: str, value: object, base_dir: str | os.PathLike[str] | None, *, mask: bool) -> tuple[Image.Image, ...]:
    """A reference's pictures: a list of them, or the path of a video, a folder or a picture."""
    if isinstance(value, str) and not value.startswith("data:"):
        path = _inside(field, value, base_dir)
        names = [f"{value}/{file.name}" for file in files_of(field, path)] if path.is_dir() else [value]
        return read_clip(field, [_inside(field, name, base_dir) for name in names], mask=mask)
    parts = [value] if isinstance(value, str) else _list(field, value, MAX_FRAMES)
    made: list[Image.Image] = []
    for index, part in enumerate(parts):
        made.append(_picture(f"{field}[{index}]", part, base_dir, partial(frame_in, mask=mask)))
        check_pixels(field, len(parts), made[0].size)
    return tuple(made)


def _make(reader: RecordReader, field: str, value: object, kind: Callable[..., T]) -> T:
    """A Box or a Key of the object of the same fields."""
    needed = {f.name for f in fields(kind) if f.name not in ("scale", "easing")}  # type: ignore[arg-type]
    data = _object(reader, field, value, needed, {f.name for f in fields(kind)} - needed)  # type: ignore[arg-type]
    with within(field):
        return _built(kind, data)


def _built(kind: Callable[..., T], data: Mapping[str, object]) -> T:
    return kind(**data)  # which checks the fields' types


def _object(
    reader: RecordReader, field: str, value: object, needed: set[str], optional: set[str]
) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise FieldError(field, f"{shown(value)} is not an object", f"give {{...}} with {', '.join(sorted(needed))}")
    found = reader.known(value, needed | optional, field)
    for name in sorted(needed - set(found)):
        word = field.split(".")[-1].split("[")[0]
        raise FieldError(joined(field, name), "missing", f"every {_SINGULAR.get(word, word)} needs it")
    return found


def _list(field: str, value: object, most: int) -> Sequence[object]:
    if not isinstance(value, list | tuple):
        raise FieldError(field, f"{shown(value)} is not a list", "give [...], maybe empty")
    if len(value) > most:
        raise FieldError(field, f"{len(value)} entries", f"give at most {most}")
    return value


def _picture(
    field: str,
    value: object,
    base_dir: str | os.PathLike[str] | None,
    load: Callable[[Source, str], Image.Image],
) -> Image.Image:
    """The picture a JSON text points at: a `data:` URI, or a path that stays within the folder."""
    if not isinstance(value, str):
        raise FieldError(field, f"{shown(value)} is not a text", "give a path within the scene's folder")
    embedded = value.startswith("data:")
    source = data_bytes(field, value) if embedded else _inside(field, value, base_dir)
    return load(source, field)


def _inside(field: str, value: str, base_dir: str | os.PathLike[str] | None) -> Path:
    remedy = "give a path within the scene's folder, as in photo.jpg"
    if base_dir is None:
        raise FieldError(field, f"{shown(value)} is a path, but this scene has no folder", "embed it as a data: URI")
    parts = value.split("/")
    if not value.isprintable() or re.match(r"[A-Za-z][\w+.-]*:", value) or "\\" in value or "" in parts:
        raise FieldError(field, f"{shown(value)} is not a plain relative path", remedy)
    base = Path(base_dir).resolve()
    try:
        path = (base / value).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise FieldError(field, f"{shown(value)} cannot be followed ({error})", remedy) from error
    if ".." in parts or not path.is_relative_to(base):
        raise FieldError(field, f"{shown(value)} leads out of the scene's folder", remedy)
    return path


def _values(thing: Box | Key) -> dict[str, object]:
    """Its fields in order, without those that hold their default."""
    return {f.name: value for f in fields(thing) if (value := getattr(thing, f.name)) != f.default}


def _dumps(value: object, indent: str = "") -> str:
    """JSON with one line for every object that holds no other: a key, a box."""
    inner = indent + "  "
    if isinstance(value, dict) and any(isinstance(v, dict | list) for v in value.values()):
        rows = [f"{inner}{json.dumps(k)}: {_dumps(v, inner)}" for k, v in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(inner + _dumps(v, inner) for v in value) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _no_twice(pairs: list[tuple[str, object]]) -> dict[str, object]:
    data = dict(pairs)
    if len(data) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the field {next(shown(n) for n in names if names.count(n) > 1)} is there twice; keep one")
    return data

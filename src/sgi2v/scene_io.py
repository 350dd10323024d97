"""Scene <-> JSON (versioned) and <-> the published traj.npy folders; reading images from files nobody vouches for."""

import base64
import binascii
import io
import json
import os
import re
import tempfile
import tokenize
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from jaxtyping import Float64
from PIL import Image, ImageOps

from .scene import MAX_KEYS, MAX_MOTIONS, Box, Key, Motion, Scene, frame_times, shown

FORMAT: Final = "sgi2v-scene"
VERSION: Final = 1
MAX_PIXELS: Final = 64_000_000
"""Of an image, as its header declares them: checked before anything is decoded."""
MAX_BYTES: Final = 64 * 2**20
"""Of a scene.json (with what it embeds) and of a traj.npy."""
IMAGE_FORMATS: Final = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
"""What is read; of a GIF or TIFF the first frame."""

Source = str | os.PathLike[str] | bytes
T = TypeVar("T")


def load_image(source: Source) -> Image.Image:
    """An image file (a path, or its bytes) as upright RGB pixels, transparency laid over white.

    EXIF rotation is applied, 16-bit grey becomes 8-bit; colour profiles are not applied. Raises ValueError for
    a missing, undecodable or unknown file, and for more than 64 megapixels by its header, before decoding.
    """
    image = _open("image", source)
    if image.mode.startswith("I;16") or image.mode == "I":
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return _bare(image.convert("RGB"))


def load_mask(source: Source) -> Image.Image:
    """A mask file as mode 1 where it has one bit a pixel, else as mode L. Raises as `load_image` does."""
    image = _open("mask", source)
    return _bare(image if image.mode in ("1", "L") else image.convert("L"))


def _open(field: str, source: Source) -> Image.Image:
    """Decoded and upright, in the file's own mode."""
    name = f"{len(source)} bytes" if isinstance(source, bytes) else shown(os.fspath(source))
    try:
        if not isinstance(source, bytes) and not Path(source).is_file():
            raise ValueError(f"{field}: {name} is no file; give the path of a picture")
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=IMAGE_FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ValueError(
                    f"{field}: {name} declares {width}x{height} pixels; give at most {MAX_PIXELS // 1_000_000} megapixels"
                )
            image.load()
            return ImageOps.exif_transpose(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(f"{field}: {name} declares too many pixels; give at most 64 megapixels") from None
    except ValueError as error:
        if str(error).startswith(f"{field}: "):
            raise
        raise ValueError(f"{field}: {name} cannot be decoded ({shown(str(error))}); give another file") from error
    except Exception as error:  # Pillow's readers raise almost anything on a corrupt file
        kinds = ", ".join(IMAGE_FORMATS)
        raise ValueError(f"{field}: {name} cannot be read as a picture; give one of {kinds}") from error


def _bare(image: Image.Image) -> Image.Image:
    copy = image.copy()
    copy.info = {}
    return copy


def load_scene(path: str | os.PathLike[str]) -> Scene:
    """The scene of a JSON file, of a folder holding scene.json, or of one holding img.png and traj.npy.

    Raises ValueError, one line naming the field, for whatever is wrong with it.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / "scene.json").is_file():
            return load_traj(path)
        path = path / "scene.json"
    text = _read(path, "scene")
    try:
        data = json.loads(text.decode("utf-8-sig"), object_pairs_hook=_no_twice, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError(f"scene: {path} is nested too deeply; give a scene as docs/scene.md describes it") from None
    except ValueError as error:
        raise ValueError(f"scene: {path} is not JSON as a scene needs it ({error})") from error
    return scene_from_dict(data, path.parent)


def save_scene(scene: Scene, path: str | os.PathLike[str], *, embed: bool = False) -> Path:
    """Writes a scene as JSON to `path` (a folder gets scene.json) and returns the file.

    Image and masks go beside it as PNG, named after it, or with `embed` into it. Every file is written whole under
    another name and then renamed, the JSON last, so a reader never meets half a scene.
    """
    path = Path(path)
    if path.suffix != ".json":
        path = path / "scene.json"
    data = scene_to_dict(scene, embed=embed, stem=path.stem)
    files = {path.name: (_dumps(data) + "\n").encode()}
    if len(files[path.name]) > MAX_BYTES:
        raise ValueError(f"scene: {len(files[path.name])} bytes of JSON, {MAX_BYTES} at most; save without embedding")
    if not embed:
        pictures = [(data["image"], scene.image)]
        pictures += [(d["mask"], m.mask) for d, m in zip(data["motions"], scene.motions, strict=True) if m.mask]
        files = {name: _png(picture) for name, picture in pictures} | files
    _write(path.parent, files)
    return path


def scene_to_dict(scene: Scene, *, embed: bool = True, stem: str = "scene") -> dict[str, Any]:
    """A scene as JSON values; `scene_from_dict` gives back an equal one.

    With `embed` image and masks are `data:` URIs; else they are the names `save_scene` writes beside `stem`.json.
    """
    motions = []
    for index, motion in enumerate(scene.motions):
        data: dict[str, Any] = {"name": motion.name} if motion.name else {}
        data |= {"kind": motion.kind, "box": _values(motion.box)}
        if motion.path:
            data |= {"curve": motion.curve, "path": [_values(key) for key in motion.path]}
        elif motion.curve != "polyline":
            data |= {"curve": motion.curve}
        if motion.mask is not None:
            data["mask"] = _data_uri(motion.mask) if embed else f"{stem}-mask-{index}.png"
        motions.append(data)
    image = _data_uri(scene.image) if embed else f"{stem}-image.png"
    data = {"format": FORMAT, "version": VERSION, "image": image, "fit": scene.fit}
    return data | ({"prompt": scene.prompt} if scene.prompt else {}) | {"motions": motions}


def scene_from_dict(data: object, base_dir: str | os.PathLike[str] | None = None) -> Scene:
    """The scene that JSON values describe; relative paths are looked up within `base_dir`.

    Raises ValueError naming the field for unknown fields, a newer version, wrong types and values, and for a
    path that leads out of `base_dir` (any relative path if that is None).
    """
    data = _object("scene", data, {"format", "version", "image", "motions"}, {"fit", "prompt"})
    if data["format"] != FORMAT:
        raise ValueError(f'format: {shown(data["format"])} is not a scene; say "{FORMAT}"')
    version = data["version"]
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ValueError(f"version: {shown(version)} is not a version; say {VERSION}")
    if version > VERSION:
        raise ValueError(f"version: {version} is newer than {VERSION}, the newest known here; update sgi2v")
    motions = _list("motions", data["motions"], MAX_MOTIONS)
    image = _picture("image", data["image"], base_dir, load_image)
    made = [_motion(f"motions[{index}]", motion, base_dir) for index, motion in enumerate(motions)]
    return Scene(image=image, motions=tuple(made), **{k: data[k] for k in ("fit", "prompt") if k in data})


def load_traj(folder: str | os.PathLike[str]) -> Scene:
    """A scene as published with SG-I2V (arXiv 2411.04989): a folder of img.png and traj.npy.

    traj.npy: float64 [N, 2+F, 2], (x, y) in pixels of img.png: rows 0-1 the top-left and bottom-right corners of
    the box on frame 0, then its centre at each of F frames. Every frame becomes a key, so nothing is lost.
    Raises ValueError for another shape or type, pickled objects, and boxes that no scene may have.
    """
    folder = Path(folder)
    if not (folder / "traj.npy").is_file():
        raise ValueError(f"scene: {folder} holds neither scene.json nor traj.npy; give a scene's file or folder")
    tracks = _read_traj(folder / "traj.npy")
    times = [float(time) for time in frame_times(tracks.shape[1] - 2)]
    motions = []
    for index, ((left, top), (right, bottom), *centers) in enumerate(tracks.tolist()):
        with _within(f"traj.npy[{index}]."):
            box = Box(left=left, top=top, right=right, bottom=bottom)
            path = tuple(Key(time=time, x=x, y=y) for time, (x, y) in zip(times, centers, strict=True))
            motions.append(Motion(box=box, path=path))
    return Scene(image=load_image(folder / "img.png"), motions=tuple(motions))


def save_traj(scene: Scene, folder: str | os.PathLike[str], num_frames: int = 14) -> Path:
    """Writes a scene as the published img.png and traj.npy (see `load_traj`) with `num_frames` centres a box.

    Names, kinds, masks, prompt and fit have no place there and are left out; a changing scale is refused.
    """
    if num_frames < 2:
        raise ValueError(f"num_frames: {num_frames} is too few; give 2 or more")
    tracks = np.zeros((len(scene.motions), 2 + num_frames, 2))
    for index, motion in enumerate(scene.motions):
        if any(key.scale != 1 for key in motion.path):
            raise ValueError(f"motions[{index}].path: its scale changes, which traj.npy cannot hold; save as JSON")
        tracks[index, :2] = (motion.box.left, motion.box.top), (motion.box.right, motion.box.bottom)
        tracks[index, 2:] = motion.centers(num_frames)
    file = io.BytesIO()
    np.save(file, tracks, allow_pickle=False)
    _write(Path(folder), {"img.png": _png(scene.image), "traj.npy": file.getvalue()})
    return Path(folder)


def _read_traj(path: Path) -> Float64[np.ndarray, "motions rows 2"]:
    data = _read(path, "traj.npy")
    wanted = "give float64 [boxes, 2 + frames, 2], saved with numpy.save"
    try:
        file = io.BytesIO(data)
        version = np.lib.format.read_magic(file)
        # The header is looked at first: it may declare more than the file holds, or than there is memory.
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = read_header[version](file)
    except (ValueError, KeyError, EOFError, SyntaxError, TypeError, tokenize.TokenError) as error:
        raise ValueError(f"traj.npy: {path} is not a NumPy array file; {wanted}") from error
    if dtype != np.float64:
        raise ValueError(f"traj.npy: its type is {shown(str(dtype))}; {wanted}")
    if len(shape) != 3 or shape[0] < 0 or shape[1] < 4 or shape[2] != 2:
        raise ValueError(f"traj.npy: its shape is {shown(shape)}; {wanted}, with 2 frames or more")
    if shape[0] > MAX_MOTIONS or shape[1] - 2 > MAX_KEYS:
        raise ValueError(f"traj.npy: its shape is {shape}; give at most {MAX_MOTIONS} boxes and {MAX_KEYS} frames")
    if len(data) - file.tell() != 8 * shape[0] * shape[1] * shape[2]:
        raise ValueError(f"traj.npy: {len(data)} bytes are not what its shape {shape} needs; copy the file again")
    array: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
    return array


def _motion(field: str, value: object, base_dir: str | os.PathLike[str] | None) -> Motion:
    data = dict(_object(field, value, {"box"}, {"name", "kind", "curve", "path", "mask"}))
    data["box"] = _make(f"{field}.box", data["box"], Box)
    keys = _list(f"{field}.path", data.get("path", []), MAX_KEYS)
    data["path"] = tuple(_make(f"{field}.path[{index}]", key, Key) for index, key in enumerate(keys))
    if "mask" in data:
        data["mask"] = _picture(f"{field}.mask", data["mask"], base_dir, load_mask)
    with _within(f"{field}."):
        return Motion(**data)


def _make(field: str, value: object, kind: Callable[..., T]) -> T:
    """A Box or a Key of the object of the same fields."""
    needed = {f.name for f in fields(kind) if f.name not in ("scale", "easing")}  # type: ignore[arg-type]
    data = _object(field, value, needed, {f.name for f in fields(kind)} - needed)  # type: ignore[arg-type]
    with _within(f"{field}."):
        return kind(**data)


def _object(field: str, value: object, needed: set[str], optional: set[str]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{field}: {shown(value)} is not an object; give {{...}} with {', '.join(sorted(needed))}")
    prefix = "" if field == "scene" else f"{field}."
    for name in value:
        if name not in needed | optional:
            known = ", ".join(sorted(needed | optional))
            raise ValueError(f"{prefix}{shown(name)[1:-1]}: {shown(value[name])} under an unknown field; known are {known}")
    for name in sorted(needed - set(value)):
        raise ValueError(f"{prefix}{name}: missing; every {field.split('.')[-1].split('[')[0]} needs it")
    return value


def _list(field: str, value: object, most: int) -> Sequence[object]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{field}: {shown(value)} is not a list; give [...], maybe empty")
    if len(value) > most:
        raise ValueError(f"{field}: {len(value)} entries; give at most {most}")
    return value


def _picture(
    field: str, value: object, base_dir: str | os.PathLike[str] | None, load: Callable[[Source], Image.Image]
) -> Image.Image:
    """The picture a JSON text points at: a `data:` URI, or a path that stays within the folder."""
    if not isinstance(value, str):
        raise ValueError(f"{field}: {shown(value)} is not a text; give a path within the scene's folder")
    source: Source
    if value.startswith("data:"):
        match = re.match(r"data:image/[\w.+-]+;base64,", value)
        if not match or len(value) > MAX_BYTES:
            raise ValueError(f"{field}: {shown(value)}; give data:image/png;base64,... of at most {MAX_BYTES} bytes")
        try:
            source = base64.b64decode(value[match.end() :], validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"{field}: {shown(value)} is not base64 ({error}); embed the picture again") from error
    else:
        source = _inside(field, value, base_dir)
    with _within(field.removesuffix("image").removesuffix("mask")):
        return load(source)


def _inside(field: str, value: str, base_dir: str | os.PathLike[str] | None) -> Path:
    remedy = "give a path within the scene's folder, as in photo.jpg"
    if base_dir is None:
        raise ValueError(f"{field}: {shown(value)} is a path, but this scene has no folder; embed it as a data: URI")
    parts = value.split("/")
    if not value.isprintable() or re.match(r"[A-Za-z][\w+.-]*:", value) or "\\" in value or "" in parts:
        raise ValueError(f"{field}: {shown(value)} is not a plain relative path; {remedy}")
    base = Path(base_dir).resolve()
    try:
        path = (base / value).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"{field}: {shown(value)} cannot be followed ({error}); {remedy}") from error
    if ".." in parts or not path.is_relative_to(base):
        raise ValueError(f"{field}: {shown(value)} leads out of the scene's folder; {remedy}")
    return path


@contextmanager
def _within(prefix: str) -> Iterator[None]:
    """Puts where it happened in front of a ValueError that names its own field."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{prefix}{error}") from error


def _read(path: Path, field: str) -> bytes:
    try:
        if not path.is_file():
            raise ValueError(f"{field}: {path} is no file; give a scene.json, or a folder with img.png and traj.npy")
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{field}: {path} is larger than {MAX_BYTES} bytes; keep the image beside it, as a file")
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{field}: {path} cannot be read ({error.strerror}); check its name and rights") from error


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """All of the files or none: each whole under a temporary name first, then renamed in order."""
    waiting: list[tuple[str, Path]] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{name}.")
            waiting.append((temporary, folder / name))
            with os.fdopen(handle, "wb") as file:
                file.write(data)
        umask = os.umask(0)
        os.umask(umask)
        for temporary, path in waiting:
            os.chmod(temporary, 0o666 & ~umask)  # mkstemp's own mode would hide it from everybody else
            os.replace(temporary, path)
    except OSError as error:
        raise ValueError(f"output: {folder} cannot be written ({error.strerror}); give another folder") from error
    finally:
        for temporary, _ in waiting:
            Path(temporary).unlink(missing_ok=True)


def _values(thing: Box | Key) -> dict[str, Any]:
    """Its fields in order, without those that hold their default."""
    return {f.name: value for f in fields(thing) if (value := getattr(thing, f.name)) != f.default}


def _png(picture: Image.Image | None) -> bytes:
    assert picture is not None
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _data_uri(picture: Image.Image) -> str:
    return "data:image/png;base64," + base64.b64encode(_png(picture)).decode()


def _dumps(value: object, indent: str = "") -> str:
    """JSON with one line for every object that holds no other: a key, a box."""
    inner = indent + "  "
    if isinstance(value, dict) and any(isinstance(v, dict | list) for v in value.values()):
        rows = [f"{inner}{json.dumps(k)}: {_dumps(v, inner)}" for k, v in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(inner + _dumps(v, inner) for v in value) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the field {next(shown(n) for n in names if names.count(n) > 1)} is there twice; keep one")
    return data


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no number in JSON; give a finite one")

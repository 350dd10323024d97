"""Pictures the studio keeps, named by the hash of their bytes; and scenes that point at them."""

import hashlib
import io
import os
import re
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Final

from PIL import Image

from sgi2v.checks import shown
from sgi2v.errors import FieldError
from sgi2v.images import MAX_URI, data_bytes, load_image, load_mask, png_bytes
from sgi2v.records import Json
from sgi2v.scene import Scene
from sgi2v.scene_io import scene_from_dict
from sgi2v.studio.settings import Limits
from sgi2v.writing import writing

PREFIX: Final = "upload:"
TYPES: Final = MappingProxyType({".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"})
"""Endings of the files that are kept, and what they are."""
_ID: Final = re.compile(r"[0-9a-f]{64}")
_PICTURE: Final = re.compile(r"image|motions\[\d+\]\.mask|reference\.(frames|masks)(\[\d+\])?")
_DEPTH: Final = 12
_TURNED: Final = 0x0112  # Exif's orientation


class Pictures:
    """A folder of pictures, each named by the SHA-256 of its bytes: the same file is kept once."""

    def __init__(self, folder: Path, limits: Limits, check_room: Callable[[], None] = lambda: None) -> None:
        """`check_room` raises where nothing more may be kept; what is here already needs no room."""
        self.folder = folder
        self.limits = limits
        self._check_room = check_room
        self._decoding = threading.Lock()  # one at a time: 64 megapixels take half a gigabyte while they are read

    def add(self, source: bytes | Path, field: str = "image", *, mask: bool = False) -> tuple[str, Image.Image]:
        """Keep a picture file, as bytes or as a path that may be moved away; its id and pixels.

        What a browser shows as it is read here is kept as it came, anything else as PNG. ValueError naming `field` for
        what is no picture or too large.
        """
        with self._decoding:
            image = load_mask(source, field=field) if mask else load_image(source, field)
            self._check_pixels(image, field)
            suffix = _kept_as(source)
            if suffix is None:
                return self.add_pixels(image, field)
            self._check_record(image, field)
            with source.open("rb") if isinstance(source, Path) else io.BytesIO(source) as file:
                name = hashlib.file_digest(file, "sha256").hexdigest()
            self._put(name, suffix, source)
            return name, image

    def add_pixels(self, image: Image.Image, field: str = "image") -> tuple[str, Image.Image]:
        """Keep a picture; its id and itself. ValueError naming `field` for one that is too large."""
        self._check_pixels(image, field)
        png = self._check_record(image, field) or _png(image)
        name = hashlib.sha256(png).hexdigest()
        self._put(name, ".png", png)
        return name, image

    def _check_pixels(self, image: Image.Image, field: str) -> None:
        if image.width * image.height > self.limits.image_pixels:
            raise FieldError(
                field,
                f"{image.width}x{image.height} pixels",
                f"give at most {self.limits.image_pixels // 1_000_000} megapixels",
            )

    @staticmethod
    def _check_record(image: Image.Image, field: str) -> bytes | None:
        """FieldError where no record could hold the picture without loss: said now, not after the video is made.

        Gives the PNG where one had to be made to know.
        """
        most = (MAX_URI - 64) // 4 * 3
        if len(image.getbands()) * image.width * image.height * 1.01 + 4096 <= most:
            return None
        png = _png(image)
        if most < len(png) < 1.4 * most:  # the slow way saves a fifth
            png = png_bytes(image)
        if len(png) > most:
            raise FieldError(
                field,
                f"{image.width}x{image.height} pixels are {len(png) >> 20} MiB without loss, and a "
                f"record holds {MAX_URI * 3 // 4 >> 20}",
                "shrink the picture",
            )
        return png

    def _put(self, name: str, suffix: str, source: bytes | Path) -> None:
        if self.path(name) is not None:
            return
        self._check_room()
        with writing(self.folder / f"{name}{suffix}") as temporary:
            if isinstance(source, Path):
                source.replace(temporary)
            else:
                temporary.write_bytes(source)

    def path(self, name: str) -> Path | None:
        """The file of a picture, which is as young as a new one then; None for one that is not here, or for no id."""
        for suffix in TYPES if _ID.fullmatch(name) else ():
            path = self.folder / f"{name}{suffix}"
            if path.is_file():
                with suppress(OSError):
                    os.utime(path)  # asked for again, so that it is not removed as long unused
                return path
        return None

    def take_in(self, scene: object) -> object:
        """Scene JSON with every embedded picture kept here and named `upload:<id>`; ValueError naming the field.

        What is wrong elsewhere in it is left for :meth:`scene_of` to find.
        """
        return self._walk(scene, "", self._keep, _DEPTH)

    def scene_of(self, data: object) -> Scene:
        """The scene of JSON values whose pictures are all kept here; ValueError naming the field."""
        return scene_from_dict(self._walk(data, "", self._file_name, _DEPTH), self.folder)

    def checked(self, data: object) -> tuple[Json, Scene]:
        """A scene's JSON with its pictures taken in, and the scene; ValueError naming the field."""
        inside = self.take_in(data)
        scene = self.scene_of(inside)
        assert isinstance(inside, dict)
        return inside, scene

    def remove_unused(self, used: Iterable[str], age: float) -> None:
        """Remove pictures that no one names and that are older than `age` seconds."""
        names = set(used)
        for path in self.folder.iterdir():
            if path.stem not in names and time.time() - path.stat().st_mtime > age:
                path.unlink(missing_ok=True)

    def _walk(self, value: object, place: str, change: Callable[[str, str], object], depth: int) -> object:
        """A copy in which every text that names a picture is what `change` makes of it."""
        if depth == 0:
            raise FieldError("scene", "nested too deeply", "give a scene as docs/scene.md describes it")
        if isinstance(value, dict):
            return {
                key: self._walk(v, f"{place}.{key}" if place else str(key), change, depth - 1)
                for key, v in value.items()
            }
        if isinstance(value, list):
            return [self._walk(v, f"{place}[{index}]", change, depth - 1) for index, v in enumerate(value)]
        return change(place, value) if isinstance(value, str) and _PICTURE.fullmatch(place) else value

    def _keep(self, field: str, text: str) -> str:
        if text.startswith(PREFIX):
            return text
        if not text.startswith("data:"):
            raise FieldError(
                field,
                f"{shown(text)} is a path or an address, which the studio does not follow",
                "embed the picture as a data: URI, or upload it",
            )
        name, _ = self.add(data_bytes(field, text), field, mask="mask" in field)
        return PREFIX + name

    def _file_name(self, field: str, text: str) -> str:
        name = text.removeprefix(PREFIX)
        if not text.startswith(PREFIX) or not _ID.fullmatch(name):
            raise FieldError(field, f"{shown(text)} is no upload", "give upload:<id> or a data: URI")
        path = self.path(name)
        if path is None:
            raise FieldError(field, f"{shown(text)} is not here any more", "upload the picture again")
        return path.name


def _png(image: Image.Image) -> bytes:
    """A PNG at the quickest level: a fifth of the time for a tenth more bytes."""
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _kept_as(source: bytes | Path) -> str | None:
    """The ending under which a picture file is kept as it came; None where a browser would show other pixels."""
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
        suffix = {"PNG": ".png", "JPEG": ".jpg", "MPO": ".jpg", "WEBP": ".webp"}.get(image.format or "")
        # Browsers show the first picture of a JPEG, upright; of other formats they may do neither.
        moves = suffix != ".jpg" and (getattr(image, "n_frames", 1) > 1 or image.getexif().get(_TURNED, 1) != 1)
        info = image.info
        profile = info.get("icc_profile") or b"sRGB"
        coloured = ("gamma" in info and "srgb" not in info) or not (b"sRGB" in profile or b"s\0R\0G\0B" in profile)
        plain = image.mode in ("1", "L", "P", "RGB") and not image.has_transparency_data
        return suffix if plain and not moves and not coloured else None


def picture_json(name: str, image: Image.Image) -> Json:
    """The API's description of a kept picture."""
    return {
        "id": name,
        "image": PREFIX + name,
        "url": f"/api/images/{name}",
        "width": image.width,
        "height": image.height,
    }


def named_pictures(value: object) -> Iterable[str]:
    """The ids of all `upload:` texts in JSON values."""
    if isinstance(value, str) and value.startswith(PREFIX):
        yield value.removeprefix(PREFIX)
    elif isinstance(value, dict):
        for item in value.values():
            yield from named_pictures(item)
    elif isinstance(value, list):
        for item in value:
            yield from named_pictures(item)

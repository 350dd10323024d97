"""Pictures the studio keeps, named by the hash of their pixels; and scenes that point at them."""

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
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
_ID: Final = re.compile(r"[0-9a-f]{64}")
_PICTURE: Final = re.compile(r"image|motions\[\d+\]\.mask|reference\.(frames|masks)(\[\d+\])?")
_DEPTH: Final = 12


class Pictures:
    """A folder of PNG files, each named by the SHA-256 of its bytes: the same picture is kept once."""

    def __init__(self, folder: Path, limits: Limits, check_room: Callable[[], None] = lambda: None) -> None:
        """`check_room` raises where nothing more may be kept; what is here already needs no room."""
        self.folder = folder
        self.limits = limits
        self._check_room = check_room
        self._decoding = threading.Lock()  # one at a time: 64 megapixels take half a gigabyte while they are read

    def add(self, data: bytes, field: str = "image", *, mask: bool = False) -> tuple[str, Image.Image]:
        """Keep a picture file's bytes; its id and pixels. ValueError naming `field` for what is none or too large."""
        with self._decoding:
            return self.add_pixels(load_mask(data, field=field) if mask else load_image(data, field), field)

    def add_pixels(self, image: Image.Image, field: str = "image") -> tuple[str, Image.Image]:
        """Keep a picture; its id and itself. ValueError naming `field` for one that is too large."""
        if image.width * image.height > self.limits.image_pixels:
            raise FieldError(
                field,
                f"{image.width}x{image.height} pixels",
                f"give at most {self.limits.image_pixels // 1_000_000} megapixels",
            )
        png = png_bytes(image)
        if len(png) > (MAX_URI - 64) // 4 * 3:  # no record could hold it: said now, not after the video is made
            raise FieldError(
                field,
                f"{image.width}x{image.height} pixels are {len(png) >> 20} MiB without loss, and a "
                f"record holds {MAX_URI * 3 // 4 >> 20}",
                "shrink the picture",
            )
        name = hashlib.sha256(png).hexdigest()
        path = self.folder / f"{name}.png"
        if path.exists():
            os.utime(path)  # asked for again: as young as a new one, so that it is not removed as long unused
        else:
            self._check_room()
            with writing(path) as temporary:
                temporary.write_bytes(png)
        return name, image

    def path(self, name: str) -> Path | None:
        """The file of a picture; None for one that is not here, and for what is no id."""
        if not _ID.fullmatch(name):
            return None
        path = self.folder / f"{name}.png"
        return path if path.is_file() else None

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
        for path in self.folder.glob("*.png"):
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
        if not (self.folder / f"{name}.png").is_file():
            raise FieldError(field, f"{shown(text)} is not here any more", "upload the picture again")
        return f"{name}.png"


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

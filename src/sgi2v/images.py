"""Reading images and masks from files nobody vouches for, and embedding them as `data:` URIs."""

import base64
import io
import os
import re
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageOps

from sgi2v.checks import shown
from sgi2v.errors import FieldError
from sgi2v.signatures import Kind, is_clip, is_clip_file, kind_of

MAX_PIXELS: Final = 64_000_000
"""Of an image, as its header declares them: checked before anything is decoded."""
MAX_URI: Final = 64 * 2**20
"""Characters of a `data:` URI."""
IMAGE_FORMATS: Final = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")
"""Formats that are read, of several pictures the first; HEIC besides where pillow-heif is installed."""

Source = str | os.PathLike[str] | bytes


def load_image(source: Source, field: str = "image") -> Image.Image:
    """An image file (a path, or its bytes) as upright RGB pixels, transparency laid over white.

    EXIF rotation is applied, 16-bit grey becomes 8-bit; colour profiles are not applied. ValueError naming `field`
    for a missing, undecodable or unknown file, and for one whose header declares more than 64 megapixels
    (checked before decoding).
    """
    image = _open(field, source)
    if image.mode.startswith("I;16") or image.mode == "I":
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return _bare(image.convert("RGB"))


def load_mask(source: Source, size: tuple[int, int] | None = None, *, field: str = "mask") -> Image.Image:
    """A mask file as mode 1 where it has one bit a pixel, else as mode L.

    Raises as `load_image` does, and for another size (width, height) than the one asked for, before decoding.
    """
    image = _open(field, source, size)
    return _bare(image if image.mode in ("1", "L") else image.convert("L"))


def _open(field: str, source: Source, size: tuple[int, int] | None = None) -> Image.Image:
    """Decoded and upright, in the file's own mode."""
    name = f"{len(source)} bytes" if isinstance(source, bytes) else repr(os.fspath(source))
    try:
        if not isinstance(source, bytes) and not Path(source).is_file():
            raise FieldError(field, f"{name} is no file", "give the path of a picture")
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(file, formats=(*IMAGE_FORMATS, *_heic(field, name, source))) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                limit = MAX_PIXELS // 1_000_000
                raise FieldError(field, f"{name} declares {width}x{height} pixels", f"give at most {limit} megapixels")
            if size not in (
                None,
                (width, height),
                (height, width),
            ):  # the other way round before it is turned
                raise FieldError(field, f"{name} has {width}x{height} pixels", f"give {size}, as the image has")
            image.load()
            return ImageOps.exif_transpose(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise FieldError(field, f"{name} declares too many pixels", "give at most 64 megapixels") from None
    except FieldError:
        raise
    except ValueError as error:
        raise FieldError(field, f"{name} cannot be decoded ({shown(str(error))})", "give another file") from error
    except Exception as error:  # Pillow's readers raise almost anything on a corrupt file
        kinds = ", ".join(IMAGE_FORMATS)
        raise FieldError(field, f"{name} cannot be read as a picture", f"give one of {kinds}") from error


def _heic(field: str, name: str, source: Source) -> tuple[str, ...]:
    """The format of a HEIC file, which phones write and Pillow alone cannot read; FieldError without the library."""
    if _kind(source) != "HEIC":
        return ()
    if find_spec("pillow_heif") is None:
        raise FieldError(field, f"{name} is HEIC: it needs pillow-heif", "pip install 'sgi2v[heic]' or save it as JPEG")
    import pillow_heif

    pillow_heif.register_heif_opener()
    return ("HEIF",)


def _kind(source: Source) -> Kind:
    with io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb") as file:
        return kind_of(file)


def several(source: Source) -> bool:
    """True for an animated WebP, PNG or AVIF, or a video; a GIF is taken for its first picture, as it always was."""
    if isinstance(source, bytes):
        return kind_of(io.BytesIO(source)) != "GIF" and is_clip(io.BytesIO(source))
    return is_clip_file(Path(source)) and _kind(source) != "GIF"


def _bare(image: Image.Image) -> Image.Image:
    copy = image.copy()
    copy.info = {}
    return copy


def png_bytes(picture: Image.Image) -> bytes:
    """A PNG file's bytes: lossless, so what is read back is equal."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def stays(file: Path, picture: Image.Image, keep: Collection[Path]) -> bool:
    """True where a picture about to be written is one of the files `keep`, and so need not be.

    What a person has drawn may say more than is read of it (16 bits, EXIF data), so it is never written over:
    ValueError where the file is to be kept and holds another picture.
    """
    if file.resolve() not in keep:
        return False
    found = load_mask(file) if picture.mode in ("1", "L") else load_image(file)
    if found != picture:
        raise FieldError("output", f"{file} is a picture of the scene that is read", "choose another name or folder")
    return True


def data_uri(picture: Image.Image) -> str:
    """A picture as a `data:` URI, for a scene that travels without its folder; ValueError when it is too large."""
    uri = "data:image/png;base64," + base64.b64encode(png_bytes(picture)).decode()
    if len(uri) > MAX_URI:
        width, height = picture.size
        raise FieldError(
            "image",
            f"{width}x{height} pixels are {len(uri) >> 20} MiB inside a record",
            f"shrink the picture until they are at most {MAX_URI >> 20}",
        )
    return uri


def data_bytes(field: str, uri: str) -> bytes:
    """The bytes in a `data:` URI; ValueError naming `field` unless it is a picture in base64 of bearable size."""
    match = re.match(r"data:image/[\w.+-]+;base64,", uri)
    if not match or len(uri) > MAX_URI:
        raise FieldError(
            field, f"{shown(uri)} is no picture", f"give data:image/png;base64,... of at most {MAX_URI} bytes"
        )
    try:
        return base64.b64decode(uri[match.end() :], validate=True)
    except ValueError as error:
        raise FieldError(field, f"{shown(uri)} is not base64 ({error})", "embed the picture again") from error

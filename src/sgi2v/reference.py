"""A rough clip of the wanted motion and masks of where it counts, for Time-to-Move."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from PIL import Image

from sgi2v.checks import check_picture, plain, tuple_of
from sgi2v.errors import FieldError
from sgi2v.images import Source, load_image, load_mask, several
from sgi2v.listing import listed
from sgi2v.signatures import CLIP_SUFFIXES, is_clip_file

MAX_FRAMES: Final = 256
"""Of a reference."""
MAX_PIXELS: Final = 64_000_000
"""Of all frames of a reference together."""
PICTURES: Final = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif")
"""Endings of the names of a folder's frames; other files are left alone."""
_VIDEOS: Final = CLIP_SUFFIXES - {".webp"}


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A rough clip of what is wanted, which begins with the scene's image, and masks of where it counts.

    Times run 0..1 as a scene's do: a model's frame takes the nearest of these, so any number of frames serves.
    Raises ValueError for no frame or too many, frames of several sizes, and masks of another size or number.
    """

    __no_type_check__: ClassVar = True  # checks its fields itself, see scene.Box

    frames: tuple[Image.Image, ...]
    """RGB, all of one size; the scene's `fit` brings them to a model's size, as it does the image."""
    masks: tuple[Image.Image, ...] = ()
    """Mode L or 1, of the frames' size: above half where the clip is meant. One a frame, one for all of them, or
    none: then the clip is meant everywhere."""

    def __post_init__(self) -> None:
        for name, modes in (("frames", ("RGB",)), ("masks", ("L", "1"))):
            pictures = tuple_of(f"reference.{name}", getattr(self, name), Image.Image, "give a list of pictures")
            for index, picture in enumerate(pictures):
                check_picture(f"reference.{name}[{index}]", picture, "read it with sgi2v.reference", *modes)
            decoded = (plain(f"reference.{name}[{index}]", picture) for index, picture in enumerate(pictures))
            object.__setattr__(self, name, tuple(decoded))
        check_count("reference.frames", len(self.frames))
        width, height = self.frames[0].size
        check_pixels("reference.frames", len(self.frames), (width, height))
        for name in ("frames", "masks"):
            for index, picture in enumerate(getattr(self, name)):
                if picture.size != (width, height):
                    raise FieldError(
                        f"reference.{name}[{index}]",
                        f"{picture.size} is not the first frame's size",
                        f"give {width}x{height} pixels",
                    )
        if len(self.masks) not in (0, 1, len(self.frames)):
            raise FieldError(
                "reference.masks",
                f"{len(self.masks)} for {len(self.frames)} frames",
                "give one a frame, one for all, or none",
            )

    def at(self, num_frames: int) -> list[tuple[Image.Image, Image.Image]]:
        """Frame and mask (mode L, 0 or 255) nearest to each of the times j / (num_frames - 1)."""
        white = Image.new("L", self.frames[0].size, 255)
        made = []
        for j in range(num_frames):
            nearest = int(j * (len(self.frames) - 1) / max(num_frames - 1, 1) + 0.5)
            mask = self.masks[nearest if len(self.masks) > 1 else 0] if self.masks else white
            made.append((self.frames[nearest], mask.convert("L").point(lambda value: 255 if value > 127 else 0)))
        return made


def check_count(field: str, count: int) -> None:
    """Raise ValueError naming `field` for no picture, or more than a reference may have."""
    if not 1 <= count <= MAX_FRAMES:
        raise FieldError(field, f"{count} of them", f"give 1 to {MAX_FRAMES}")


def check_pixels(field: str, count: int, size: tuple[int, int]) -> None:
    """Raise ValueError naming `field` for pictures that are too large together."""
    width, height = size
    if count * width * height > MAX_PIXELS:
        raise FieldError(
            field,
            f"{count} of {width}x{height} pixels",
            f"give at most {MAX_PIXELS // 1_000_000} megapixels in all",
        )


def load_reference(frames: str | os.PathLike[str], masks: str | os.PathLike[str] | None = None) -> Reference:
    """A reference of a video or gif, a folder of pictures in the order of their names, or one picture.

    The kind of a file is told by its content; numbers in names count as numbers: frame2 comes before frame10.

    The masks come likewise. ValueError, one line naming the field, for whatever is wrong with them.
    """
    return Reference(
        frames=read_clip("reference.frames", files_of("reference.frames", Path(frames))),
        masks=()
        if masks is None
        else read_clip("reference.masks", files_of("reference.masks", Path(masks)), mask=True),
    )


def files_of(field: str, path: Path) -> list[Path]:
    """The pictures of a folder in the order of their names, or the file itself; ValueError naming `field`."""
    if not path.is_dir():
        return [path]
    files = listed(path, PICTURES)
    if not files:
        raise FieldError(field, f"{path} holds no pictures", f"their names end in one of {', '.join(PICTURES)}")
    return files


def read_clip(field: str, files: Sequence[Path], *, mask: bool = False) -> tuple[Image.Image, ...]:
    """RGB pictures, or grey ones of a mask, of some files or of one video; ValueError naming `field`."""
    check_count(field, len(files))
    if len(files) == 1 and (is_clip_file(files[0]) or files[0].suffix.lower() in _VIDEOS):
        return _video(field, files[0], "L" if mask else "RGB")
    made: list[Image.Image] = []
    for file in files:
        made.append(frame_in(file, field, mask=mask))
        check_pixels(field, len(files), made[0].size)  # before the others are decoded
    return tuple(made)


def frame_in(source: Source, field: str, *, mask: bool = False) -> Image.Image:
    """One picture of a list of them; ValueError naming `field` for a clip, of which one frame would be taken."""
    if several(source):
        name = f"{len(source)} bytes" if isinstance(source, bytes) else Path(source).name
        raise FieldError(field, f"{name} holds several pictures", "give the clip by itself, or one picture a frame")
    return load_mask(source, field=field) if mask else load_image(source, field)


def _video(field: str, path: Path, mode: str) -> tuple[Image.Image, ...]:
    from sgi2v.video import load_video, to_uint8  # reading a scene without a video costs no torch

    try:
        frames = load_video(path, max_pixels=MAX_PIXELS).frames
    except FieldError as error:
        raise FieldError(field, error.problem, error.remedy) from error
    check_count(field, len(frames))
    return tuple(Image.fromarray(frame).convert(mode) for frame in to_uint8(frames))

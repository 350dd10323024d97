"""The list of VIPSeg clips with their boxes and paths, as a JSON file that others can measure the same clips with."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from sgi2v.errors import FieldError
from sgi2v.files import read_file
from sgi2v.records import Json
from sgi2v.writing import writing

FORMAT: Final = "sgi2v-vipseg-clips"
VERSION: Final = 1


@dataclass(frozen=True, kw_only=True)
class Thing:
    """Something to move or to pin, in pixels of the clip's own frames."""

    id: int
    """Its value in the masks."""
    box: tuple[float, float, float, float]
    """(left, top, right, bottom) of its mask on the first frame, half-open."""
    path: tuple[tuple[float, float], ...]
    """Centre (x, y) of its mask's box in every frame; empty for what is pinned."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A clip of a video."""

    video: str
    frames: tuple[str, ...]
    """Names of its frames, without their endings."""
    first_frame_sha256: str
    """Of the first frame's file."""
    size: tuple[int, int]
    """(width, height) of the frames in pixels."""
    things: tuple[Thing, ...]


def save_list(clips: Sequence[Clip], file: Path, *, protocol: Mapping[str, object]) -> Path:
    """Write clips to a file that `load_list` reads; `protocol` says how they were chosen."""
    data = {
        "format": FORMAT,
        "version": VERSION,
        "protocol": dict(protocol),
        "clips": [asdict(clip) for clip in clips],
    }
    with writing(file) as temporary:
        temporary.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return file


def load_list(file: Path) -> tuple[list[Clip], Json]:
    """The clips of a file, and how they were chosen; ValueError naming it, and the clip, for anything that is wrong."""
    try:
        data = json.loads(read_file(file, "vipseg_clips"))
    except (ValueError, RecursionError) as error:
        raise FieldError(str(file), f"not a list of VIPSeg clips ({error})") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT or data.get("version") != VERSION:
        raise FieldError(str(file), f"not a list of VIPSeg clips of version {VERSION} (format {FORMAT})")
    listed, protocol = data.get("clips"), data.get("protocol")
    if not isinstance(listed, list) or not isinstance(protocol, dict):
        raise FieldError(str(file), "not a list of VIPSeg clips (clips or protocol is missing)", "fetch it again")
    clips = []
    for number, clip in enumerate(listed):
        try:
            clips.append(_clip(clip))
        except (KeyError, TypeError, ValueError) as error:
            raise FieldError(str(file), f"clips[{number}] is damaged ({error!r})", "fetch the list again") from error
    return clips, protocol


def _clip(data: Json) -> Clip:
    frames = tuple(str(name) for name in data["frames"])
    names = (str(data["video"]), *frames)
    if any(not name or name in (".", "..") or "/" in name or "\\" in name for name in names):
        raise ValueError("a name leads out of its folder")
    things = []
    for thing in data["things"]:
        left, top, right, bottom = (float(value) for value in thing["box"])
        path = tuple((float(x), float(y)) for x, y in thing["path"])
        if path and len(path) != len(frames):
            raise ValueError(f"a path of {len(path)} places for {len(frames)} frames")
        things.append(Thing(id=int(thing["id"]), box=(left, top, right, bottom), path=path))
    if not things:
        raise ValueError("nothing in it is to move or to stay")
    width, height = (int(side) for side in data["size"])
    return Clip(
        video=names[0],
        frames=frames,
        first_frame_sha256=str(data["first_frame_sha256"]),
        size=(width, height),
        things=tuple(things),
    )

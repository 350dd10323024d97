"""The JSON that a gif or a folder of frames carries beside its pictures: a note, the frame rate, the run."""

import json
from pathlib import Path
from typing import Final, Literal

from PIL import Image

from sgi2v.errors import FieldError
from sgi2v.records import Json

Recording = Literal["full", "light", "none"]
"""Records that a saved clip can carry: ``full``, with the picture as it was given; ``light``, with the picture as the
model saw it; or ``none``."""
Provenance = Literal["on", "off"]
"""``on``: credentials in the file and, in an mp4 or gif, a mark in the pixels (docs/provenance.md); ``off``: none."""
NOTE: Final = "AI-generated video: made by sgi2v from one image and drawn paths. It is not a recording."
RUN_FILE: Final = "run.json"  # beside the frames of a folder
MAX_RUN_BYTES: Final = 256 << 20  # files that are read may come from anybody


def tag(fps: float, run: Json | None, provenance: Json) -> Json:
    """The JSON that a gif and a folder carry beside the pictures."""
    return {"note": NOTE, "fps": fps, "run": run, "provenance": provenance}


def folder_tag(path: Path) -> Json:
    """The frame rate, run and remark on provenance of a folder of frames, None for what it does not say."""
    file = path / RUN_FILE
    if not file.is_file():
        return _known(None)
    if file.stat().st_size > MAX_RUN_BYTES:
        raise FieldError("video", f"{file} is larger than {MAX_RUN_BYTES >> 20} MiB")
    return _known(parsed(file.read_text(encoding="utf-8", errors="replace")))


def gif_tag(image: Image.Image) -> Json:
    """The frame rate, run and remark on provenance of an open gif, None for what it does not say."""
    comment = image.info.get("comment", b"")
    return _known(parsed(comment.decode("utf-8", "replace") if isinstance(comment, bytes) else str(comment)))


def _known(found: Json | None) -> Json:
    said = found or {}
    run = said.get("run")
    return {
        "fps": _rate(said.get("fps")),
        "run": run if isinstance(run, dict) else None,
        "provenance": said.get("provenance"),
    }


def parsed(text: str) -> Json | None:
    """The JSON object in `text`, or None: another program's comment is not an error."""
    if len(text) > MAX_RUN_BYTES:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _rate(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 < value <= 1000 else None

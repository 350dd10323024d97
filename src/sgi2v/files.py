"""Files of bearable size, and the folder for what can be made again."""

import os
from pathlib import Path
from typing import Final

from sgi2v.errors import FieldError

MAX_BYTES: Final = 64 * 2**20
"""Of a scene.json (with what it embeds) and of a traj.npy."""


def read_file(path: Path, field: str) -> bytes:
    """A file's bytes; ValueError naming `field` if it is missing, unreadable or larger than MAX_BYTES."""
    try:
        if not path.is_file():
            raise FieldError(field, f"{path} is no file", "give a scene.json, or a folder with img.png and traj.npy")
        if path.stat().st_size > MAX_BYTES:
            raise FieldError(field, f"{path} is larger than {MAX_BYTES} bytes", "keep the image beside it, as a file")
        return path.read_bytes()
    except OSError as error:
        raise FieldError(field, f"{path} cannot be read ({error.strerror})", "check its name and rights") from error


def cache_folder() -> Path:
    """Folder for what can be made again: encoded texts, hashes of large files; ``XDG_CACHE_HOME`` moves it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sgi2v"

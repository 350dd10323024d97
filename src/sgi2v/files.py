"""Files of bearable size, and a person's folders: for what can be made again, and for their configuration."""

import os
import sys
from pathlib import Path
from types import MappingProxyType
from typing import Final

from sgi2v.errors import FieldError

MAX_BYTES: Final = 64 * 2**20
"""Of a scene.json (with what it embeds) and of a traj.npy."""

_INSTEAD: Final = MappingProxyType(
    {
        "a picture": "say what should move in it, with --drag or in Python with Scene.of (docs/say.md)",
        "a video": "give a scene.json (docs/scene.md); sgi2v replay makes a video of sgi2v's again",
        "an array": "give the folder that holds it, with the img.png that it is for",
    }
)


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


def check_is_scene(path: Path) -> None:
    """ValueError, saying what to do instead, for a picture, a video or an array in place of a scene's JSON."""
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError:
        return  # said by whoever reads it
    kind = _kind(start)
    if kind:
        raise FieldError("scene", f"{path} is {kind}, not a scene", _INSTEAD[kind])


def is_picture(path: Path) -> bool:
    """True for a file that begins as a picture does."""
    try:
        with path.open("rb") as file:
            return _kind(file.read(16)) == "a picture"
    except OSError:
        return False


def _kind(start: bytes) -> str:
    """A file's kind by its first bytes; empty for one that is none of these."""
    if start.startswith((b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"\0\0\x01\0")):
        return "a picture"
    if start.startswith(b"RIFF"):
        return "a picture" if start[8:12] == b"WEBP" else "a video"
    if start[4:8] == b"ftyp":
        return "a picture" if start[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis") else "a video"
    if start.startswith(b"\x1aE\xdf\xa3"):
        return "a video"
    return "an array" if start.startswith(b"\x93NUMPY") else ""


def cache_folder() -> Path:
    """Folder for what can be made again: encoded texts, hashes of large files; ``XDG_CACHE_HOME`` moves it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sgi2v"


def config_folder() -> Path:
    """A person's configuration: sgi2v in XDG_CONFIG_HOME, or where the system keeps such things."""
    said = os.environ.get("XDG_CONFIG_HOME", "")
    if os.path.isabs(said):  # another path is to be ignored, as the XDG base directory specification has it
        return Path(said) / "sgi2v"
    if sys.platform == "win32":
        base = Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path.home() / ".config"
    return base / "sgi2v"

"""Kinds of pictures and clips, told by a file's first bytes: names lie, and nothing is opened on a guess."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

Kind = Literal["mov", "matroska", "avi", "GIF", "WEBP", "PNG", "AVIF", "HEIC", ""]
"""Containers by the names of FFmpeg's demuxers, picture formats by Pillow's; empty for all others."""
Bytes = io.BufferedReader | io.BytesIO
"""An open file."""
CONTAINERS: Final = ("mov", "matroska", "avi")
"""Kinds that FFmpeg reads; the others are Pillow's."""
CLIP_SUFFIXES: Final = frozenset({".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".gif", ".webp", ".apng"})
"""Endings of names under which clips are looked for in a folder."""
_ATOMS: Final = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
_HEIC: Final = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_MAX_CHUNKS: Final = 1000  # of a PNG, before its picture begins


def kind_of(file: Bytes) -> Kind:
    """The kind of an open file, which is left at its beginning."""
    file.seek(0)
    head = file.read(64)
    file.seek(0)
    if head[4:8] == b"ftyp" and (still := _still(head)):
        return still
    if head[4:8] in _ATOMS:
        return "mov"
    if head[:4] == b"\x1aE\xdf\xa3":
        return "matroska"
    if head[:4] == b"RIFF" and head[8:12] in (b"AVI ", b"WEBP"):
        return "avi" if head[8:12] == b"AVI " else "WEBP"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    return "PNG" if head[:8] == _PNG else ""


def _still(head: bytes) -> Kind:
    """AVIF or HEIC by the brands of an ISO file, which are those of pictures; empty for a film's."""
    size = int.from_bytes(head[:4], "big")
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, min(size, len(head)), 4))]
    if brands[0] in (b"avif", b"avis") or (brands[0] in _HEIC and {b"avif", b"avis"} & set(brands)):
        return "AVIF"
    return "HEIC" if brands[0] in _HEIC else ""


def is_clip(file: Bytes) -> bool:
    """True for a container, a GIF, and a WebP, PNG or AVIF of several pictures; the file is left at its beginning."""
    kind = kind_of(file)
    looks: dict[str, Callable[[Bytes], bool]] = {"WEBP": _webp_moves, "PNG": _png_moves, "AVIF": _avif_moves}
    found = kind in (*CONTAINERS, "GIF") or (kind in looks and looks[kind](file))
    file.seek(0)
    return found


def is_clip_file(path: Path) -> bool:
    """As of :func:`is_clip`; False for what is no file or cannot be read."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return is_clip(file)
    except OSError:
        return False


def _webp_moves(file: Bytes) -> bool:
    head = file.read(21)
    return head[12:16] == b"VP8X" and bool(head[20] & 2)


def _png_moves(file: Bytes) -> bool:
    """True where a chunk says so before the first picture's data."""
    file.seek(8)
    for _ in range(_MAX_CHUNKS):
        head = file.read(8)
        if len(head) < 8 or head[4:] in (b"IDAT", b"IEND"):
            return False
        if head[4:] == b"acTL":
            return True
        file.seek(int.from_bytes(head[:4], "big") + 4, 1)
    return False


def _avif_moves(file: Bytes) -> bool:
    head = file.read(64)
    return b"avis" in head[8 : max(12, int.from_bytes(head[:4], "big"))]

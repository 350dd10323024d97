"""Answers on where a clip is from: its credentials, the mark in its pixels, and the record of the run that made it."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

import numpy as np

from sgi2v import clip_files, clip_pictures
from sgi2v.errors import FieldError
from sgi2v.images import load_image
from sgi2v.provenance import watermark
from sgi2v.provenance.credentials import Credentials, read, record_hash
from sgi2v.provenance.identity import read_certificates
from sgi2v.records import Json
from sgi2v.run import FORMAT
from sgi2v.signatures import is_clip, kind_of
from sgi2v.video import load_video, read_run, to_uint8

Mark = Literal["found", "not found", "unreadable"]
RecordState = Literal["ours", "another", "none"]
_MEDIA: Final[Mapping[str, str]] = MappingProxyType(
    {"mov": "video/mp4", "avi": "video/avi", "GIF": "image/gif", "PNG": "image/png", "WEBP": "image/webp",
     "AVIF": "image/avif", "HEIC": "image/heic", "JPEG": "image/jpeg"}
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """All that could be found out about one file."""

    file: str
    """Its name, as it was given."""
    credentials: Credentials | None
    """None where the file has none."""
    mark: Mark
    """Mark in the pixels; unreadable where the pictures cannot be decoded."""
    frames: int
    """Pictures that were looked at."""
    share: float
    """Share of these in which the mark is seen by itself, once it is found in all of them together."""
    score: float
    """Agreement with the pattern in standard deviations of unmarked pictures; above `threshold` it is found."""
    threshold: float
    record: RecordState
    """Record of a run: ours; another than the one that was signed; or none."""
    model: str
    """Model that the record, or else the credentials, name."""
    method: str
    """Method, likewise."""
    says: Json
    """Remark in the file on the provenance that it was meant to get; empty where there is none."""

    @property
    def is_changed(self) -> bool:
        """True where something in the file is not what was signed."""
        return self.record == "another" or (self.credentials is not None and self.credentials.state != "valid")

    def to_dict(self) -> Json:
        """A JSON object."""
        return {**asdict(self), "is_changed": self.is_changed, "answers": dict(self.answers())}

    def answers(self) -> tuple[tuple[str, str], ...]:
        """A plain sentence each on credentials, watermark and record."""
        return (("credentials", self._credentials()), ("watermark", self._mark()), ("record", self._record()))

    def _credentials(self) -> str:
        found = self.credentials
        if found is None:
            meant = self.says.get("provenance") == "on"
            return "none" + (
                "; the file was meant to get some: it was not signed, or they were removed" if meant else ""
            )
        signer = f"“{_plain(found.signer)}”" if found.signer else "somebody unnamed"
        if found.state == "changed":
            return f"the file was changed since {signer} signed it ({', '.join(found.failures)})"
        if found.state == "broken":
            return f"do not hold: {', '.join(found.failures)}"
        by = {
            "trusted": "vouched for by an authority that you trust",
            "own": "known: signed on this machine, by its own authority",
            "unknown": "its authority is known to nobody here: anybody can call themselves so",
        }
        what = "made by a trained model" if found.is_generated else "they do not say that a trained model made it"
        return f"valid, unchanged since {signer} signed it with {_plain(found.made_by)}; {by[found.authority]}; {what}"

    def _mark(self) -> str:
        if self.mark == "unreadable":
            return "not sought: the pictures cannot be read"
        figures = f"score {self.score:.1f}, found from {self.threshold:.1f} on"
        if self.mark == "found":
            return f"found, seen by itself in {self.share:.0%} of {self.frames} frames ({figures})"
        meant = self.says.get("watermark")
        return f"not found ({figures})" + ("; the file says that it was put in" if meant else "")

    def _record(self) -> str:
        if self.record == "none":
            return "none"
        what = (
            f"a run of sgi2v: {_plain(self.method) or 'unknown method'} on {_plain(self.model) or 'an unknown model'}"
        )
        return what + ("; it is not the record that was signed" if self.record == "another" else "")


def verify(path: str | Path, *, trusted: str | Path | None = None) -> Provenance:
    """All that a file, or a folder of PNG frames, tells of where it is from; nothing is fetched.

    trusted: a PEM file of roots whose word counts. Damaged files are answered on, not refused.
    Raises: FieldError for a path that is not there, a file that is neither clip nor picture, or roots that are none.
    """
    path = Path(path)
    roots = _roots(Path(trusted)) if trusted is not None else ""
    credentials = _credentials(path, roots)
    says, run = _said(path)
    state: RecordState = "none"
    if run is not None:
        signed = (credentials.run if credentials else {}).get("record_sha256")
        state = "another" if signed and signed != record_hash(run) else "ours"
    found, frames = _mark(path)
    known: Json = dict(credentials.run) if credentials and credentials.state == "valid" else {}
    return Provenance(
        file=str(path),
        credentials=credentials,
        mark="unreadable" if found is None else "found" if found.is_marked else "not found",
        frames=frames,
        share=found.share if found else 0.0,
        score=round(found.score, 2) if found else 0.0,
        threshold=round(watermark.THRESHOLD, 2),
        record=state,
        model=_name(run, "backbone") or str(known.get("model", "")),
        method=_name(run, "controller") or str(known.get("method", "")),
        says=says,
    )


def _credentials(path: Path, roots: str) -> Credentials | None:
    """Of a file; of a folder those of the first frame that has been changed, or else of the first."""
    if not path.is_dir():
        return _of_file(path, roots)
    found = [_of_file(frame, roots) for frame in clip_pictures.frames_of(path)]
    return next((one for one in found if one is not None and one.state != "valid"), found[0])


def _of_file(path: Path, roots: str) -> Credentials | None:
    try:
        with path.open("rb") as file:
            kind = kind_of(file) or ("JPEG" if file.read(3) == b"\xff\xd8\xff" else "")
    except OSError as error:
        raise FieldError("file", f"{path} cannot be read ({error.strerror})", "check its name") from error
    if kind not in _MEDIA:
        if kind:
            return None  # a kind that can hold none
        raise FieldError("file", f"{path} is no clip or picture of a known kind, or damaged at its beginning")
    found = read(path, _MEDIA[kind], roots)
    if found is not None and found.state != "valid" and not found.signer and not _mentions(path):
        return None  # a file that C2PA's library cannot read for other reasons
    return found


def _mentions(path: Path) -> bool:
    """True if a file has a box of C2PA's in it, in whatever state."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(b"jumd") >= 0 and data.find(b"c2pa") >= 0


def _said(path: Path) -> tuple[Json, Json | None]:
    """The remark on provenance and the run in a clip's file, as far as it can be read."""
    try:
        says = clip_files.read_said(path) if path.is_file() else {}
    except (FieldError, *clip_files.UNREADABLE):
        says = {}
    try:
        return says, read_run(path)
    except FieldError:
        return says, None


def _mark(path: Path) -> tuple[watermark.Found | None, int]:
    try:
        if path.is_file() and not _moves(path):
            frames = np.asarray(load_image(path))[None]
        else:
            frames = to_uint8(load_video(path).frames)
    except (FieldError, MemoryError):
        return None, 0
    return watermark.find(list(frames)), len(frames)


def _moves(path: Path) -> bool:
    with path.open("rb") as file:
        return is_clip(file)


def _roots(file: Path) -> str:
    try:
        text = file.read_text(encoding="ascii")
    except (OSError, ValueError) as error:
        raise FieldError("trust", f"{file} cannot be read as PEM", "give a file of root certificates") from error
    read_certificates(text, str(file))
    return text


def _name(run: Json | None, part: str) -> str:
    found = (run or {}).get(part)
    return str(found.get("name", "")) if isinstance(found, Mapping) and (run or {}).get("format") == FORMAT else ""


def _plain(text: str) -> str:
    """A text from a file without what a terminal would act on."""
    return "".join(c if c.isprintable() else " " for c in text)[:200]

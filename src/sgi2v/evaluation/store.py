"""A benchmark's files: rows, the clips they were measured on, and those clips' features, safe at any interruption."""

import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float32, UInt8

from sgi2v.errors import FieldError
from sgi2v.evaluation.rows import append_row, read_rows
from sgi2v.records import Json
from sgi2v.writing import reason, writing

try:
    import fcntl
except ImportError:  # not on Windows: there two processes on one file are the person's own affair
    fcntl = None  # type: ignore[assignment]

FORMAT: Final = "sgi2v-row"
VERSION: Final = 1


class StoreFull(FieldError):
    """Nothing more can be kept: whatever is made from here on would be lost."""

    def __init__(self, file: Path, error: OSError) -> None:
        super().__init__(
            "rows",
            f"cannot write {file}: {reason(error)}",
            "make room, or choose another place with --rows; what is finished stays, and the same command goes on",
        )


@dataclass(frozen=True, kw_only=True)
class Store:
    """Files of a benchmark: its rows, and beside them its clips and their features.

    A clip is written whole before the row that speaks of it, so that a row never lacks its clip; a clip without a row
    is found again by its key and only measured anew.
    """

    rows: Path
    """The file of rows, one JSON object a line."""
    clips: Path | None = None
    """Folder of the clips; by default beside the rows: rows.jsonl and rows.clips."""

    @property
    def clip_folder(self) -> Path:
        """Folder of the clips."""
        return self.clips or self.rows.with_name(f"{self.rows.stem}.clips")

    @contextmanager
    def open(self) -> Iterator[dict[str, Json]]:
        """The last row of every key, with the file locked for this process; a torn last line is dropped.

        Raises ValueError when another process writes the same file, or when it cannot be written.
        """
        try:
            self.rows.parent.mkdir(parents=True, exist_ok=True)
            lock = self.rows.with_name(f".{self.rows.name}.lock").open("a")
        except OSError as error:
            raise FieldError(
                "rows", f"cannot write {self.rows} ({error.strerror})", "choose another place with --rows"
            ) from error
        with lock:
            if fcntl is not None:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise FieldError(
                        "rows",
                        f"another process is writing {self.rows}",
                        "wait for it, or choose another file with --rows",
                    ) from None
                except OSError:
                    pass  # a file system without locks: as on Windows
            yield {str(row.get("key")): row for row in read_rows(self.rows)}

    def append(self, row: Mapping[str, object]) -> None:
        """Add a row, on the disk before this returns; StoreFull where it cannot be."""
        try:
            append_row(self.rows, {"format": FORMAT, "version": VERSION, **row})
        except OSError as error:
            raise StoreFull(self.rows, error) from error

    def clip_file(self, key: str) -> Path:
        """The clip of a key."""
        return self.clip_folder / f"{key}.npz"

    def save_clip(self, key: str, frames: UInt8[np.ndarray, "f h w 3"], made: Mapping[str, object]) -> None:
        """Keep a clip, losslessly, with how it was made (JSON values); StoreFull where it cannot be."""
        note = np.frombuffer(json.dumps(made, sort_keys=True).encode(), dtype=np.uint8)
        with _keeping(self.clip_file(key)) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, frames=frames, made=note)

    def load_clip(self, key: str) -> tuple[UInt8[np.ndarray, "f h w 3"], Json] | None:
        """A clip and how it was made; None where there is none, or where it is damaged and must be made again."""
        return read_clip(self.clip_file(key))

    def save_features(self, key: str, extractor: str, features: Float32[np.ndarray, "n d"]) -> None:
        """Keep what an extractor (named `<name>-<hash>`) sees in a clip; StoreFull where it cannot be kept."""
        file = io.BytesIO()
        np.save(file, features, allow_pickle=False)
        with _keeping(self._features_file(key, extractor)) as temporary:
            temporary.write_bytes(file.getvalue())

    def save_extractor(self, extractor: str, about: Mapping[str, object]) -> None:
        """Say beside the features what network they are of (JSON values)."""
        file = self.clip_folder / "features" / extractor / "extractor.json"
        if not file.is_file():
            with _keeping(file) as temporary:
                temporary.write_text(json.dumps(dict(about), indent=1) + "\n", encoding="utf-8")

    def load_features(self, key: str, extractor: str) -> Float32[np.ndarray, "n d"] | None:
        """An extractor's features of a clip; None where that is not known yet."""
        try:
            found = np.load(self._features_file(key, extractor), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return found if found.dtype == np.float32 and found.ndim == 2 else None

    def _features_file(self, key: str, extractor: str) -> Path:
        return self.clip_folder / "features" / extractor / f"{key}.npy"


@contextmanager
def _keeping(file: Path) -> Iterator[Path]:
    try:
        with writing(file) as temporary:
            yield temporary
    except ValueError as error:
        if isinstance(error.__cause__, OSError):
            raise StoreFull(file, error.__cause__) from error
        raise


def read_clip(file: Path) -> tuple[UInt8[np.ndarray, "f h w 3"], Json] | None:
    """The clip of a file and how it was made; None where there is none or it is damaged."""
    try:
        with np.load(file, allow_pickle=False) as data:
            frames, made = data["frames"], json.loads(data["made"].tobytes())
    except Exception:  # a damaged archive makes NumPy and zipfile raise almost anything; it is made again
        return None
    fine = frames.dtype == np.uint8 and frames.ndim == 4 and frames.shape[3] == 3 and isinstance(made, dict)
    return (frames, made) if fine else None


def folder_name(name: str, sha256: str) -> str:
    """An extractor's name and hash as a folder's name."""
    plain = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
    return f"{plain}-{sha256[:12]}"


def content_hash(*parts: bytes) -> str:
    """SHA-256 over some byte strings and their lengths."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "little"))
        whole.update(part)
    return whole.hexdigest()


def remove_strays(folder: Path) -> None:
    """Remove the temporary files that a killed process left in a folder; call it only with the rows locked."""
    for place in (folder, *folder.glob("features/*")):
        for stray in place.glob(".*"):
            # Named by writing(): a dot and 32 hexadecimal digits.
            if stray.is_file() and len(stray.stem) == 33:
                os.unlink(stray)

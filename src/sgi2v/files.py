"""Reading files of bearable size, and writing several at once: whole or not at all."""

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

MAX_BYTES: Final = 64 * 2**20
"""Of a scene.json (with what it embeds) and of a traj.npy."""


def read_file(path: Path, field: str) -> bytes:
    """A file's bytes; ValueError naming `field` if it is missing, unreadable or larger than MAX_BYTES."""
    try:
        if not path.is_file():
            raise ValueError(
                f"{field}: {path} is no file; give a scene.json, or a folder with img.png and traj.npy"
            )
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(
                f"{field}: {path} is larger than {MAX_BYTES} bytes; keep the image beside it, as a file"
            )
        return path.read_bytes()
    except OSError as error:
        raise ValueError(
            f"{field}: {path} cannot be read ({error.strerror}); check its name and rights"
        ) from error


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes each file whole under a hidden name first, then renames them all, in order; ValueError if it cannot.

    The folder is made where it is missing. Nothing half-written is left behind, whatever happens.
    """
    waiting: list[tuple[Path, Path]] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            hidden = folder / f".{uuid.uuid4().hex}.tmp"
            waiting.append((hidden, folder / name))
            with hidden.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(
                    file.fileno()
                )  # else a crash of the machine could leave the new name with no content
        for hidden, path in waiting:
            hidden.replace(path)
    except OSError as error:
        raise ValueError(
            f"output: {folder} cannot be written ({error.strerror}); give another folder"
        ) from error
    finally:
        for hidden, _ in waiting:
            hidden.unlink(missing_ok=True)


@contextmanager
def within(prefix: str) -> Iterator[None]:
    """Puts where it happened in front of a ValueError that names its own field."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{prefix}{error}") from error

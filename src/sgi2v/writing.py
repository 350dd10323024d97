"""Writes files and folders whole or not at all, and tries a place before the work for it is done."""

import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from sgi2v.errors import FieldError

_PROBE: Final = bytes(1 << 20)  # written and removed again to learn whether a place takes data at all


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; renamed to `path` at the end, removed after any error.

    The name may be used for a file or made into a folder; missing parents are made, and go again after an error. A
    folder that stands at `path` is replaced by a new one: who calls has made sure that nobody misses it.
    Raises: ValueError naming the path where an OSError says that it cannot be written.
    """
    temporary = _beside(path)
    missing = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _put_in_place(temporary, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        _remove(temporary)
        for folder in missing:
            with suppress(OSError):  # what holds anything stays, the file itself among it
                folder.rmdir()


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write several files into a folder: none gets its name before all are whole, and the last one is named last.

    Raises: ValueError naming the path that cannot be written.
    """
    with ExitStack() as stack:
        for name, data in reversed(list(files.items())):  # what is entered last is named first
            stack.enter_context(writing(folder / name)).write_bytes(data)


def check_place(path: Path) -> None:
    """Raise ValueError, naming the path, unless a megabyte could be written there; leaves nothing."""
    folder = path.parent
    try:
        path.exists()  # a name that is too long is found here
        while not folder.exists():
            folder = folder.parent
        if not folder.is_dir():
            raise FieldError("output", f"{path} cannot lie in {folder}, which is a file, not a folder")
        probe = _beside(folder / path.name)
        try:
            probe.write_bytes(_PROBE)
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def reason(error: OSError) -> str:
    """The system's words for an error, without the path."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)


def cannot_write(path: Path, error: OSError) -> FieldError:
    """The mistake of a person whose output cannot be written."""
    return FieldError("output", f"cannot write {path}: {reason(error)}", "choose another place with --output")


def _beside(path: Path) -> Path:
    return path.with_name(f".{uuid.uuid4().hex}{path.suffix}")


def _put_in_place(temporary: Path, path: Path) -> None:
    if temporary.is_file():
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # else a crash of the machine could leave the new name with no content
    if not (temporary.is_dir() and path.exists()):
        temporary.replace(path)
        return
    old = _beside(path)
    path.replace(old)
    try:
        temporary.replace(path)
    except BaseException:
        old.replace(path)
        raise
    shutil.rmtree(old)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # it may never have been made, and the error on its way out says more
            path.unlink()

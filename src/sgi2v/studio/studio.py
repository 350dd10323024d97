"""One studio, put together: its data folder, pictures, table of jobs, queue, pages that listen, and its engine."""

import logging
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path

from sgi2v.errors import FieldError
from sgi2v.records import Json
from sgi2v.studio.events import Hub
from sgi2v.studio.jobs import Jobs
from sgi2v.studio.pictures import Pictures
from sgi2v.studio.problems import Problem, words
from sgi2v.studio.questions import Engine
from sgi2v.studio.settings import StudioSettings
from sgi2v.studio.shapes import summary_json
from sgi2v.studio.table import JobTable, Row

_LOCK_SECONDS = 20.0  # a worker of a studio that was just killed may still be on its way out
_SNAPSHOT = 200  # jobs that a page is told of by itself
_UNUSED_SECONDS = 7 * 24 * 3600.0  # a picture that no job or page names, by when it was last asked for


class Studio:
    """The parts of one studio that its routes work with; nothing of it is shared between two studios."""

    def __init__(self, settings: StudioSettings, engine: Callable[[StudioSettings], Engine] | None = None) -> None:
        """Makes the data folder and takes its lock; ValueError where another studio works in it."""
        self.settings = settings
        self.limits = settings.limits
        try:
            settings.data.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(settings.data / "lock")
            for name in ("images", "temporary"):
                (settings.data / name).mkdir(exist_ok=True)
        except OSError as error:
            raise FieldError(
                "data", f"{settings.data} cannot be used ({error.strerror})", "give another folder"
            ) from error
        self.pictures = Pictures(settings.data / "images", settings.limits, self.check_room)
        self.hub = Hub(settings.limits.streams)
        self.table = JobTable(settings.data / "jobs.sqlite")
        self.jobs = Jobs(settings, self.table, self._lock, self._tell)
        self.importing = threading.Lock()  # one file at a time is read: some take a gigabyte while they are
        self._make_engine = engine or _library
        self._engine: Engine | None = None
        self._engine_lock = threading.Lock()

    @property
    def engine(self) -> Engine:
        """The engine, made when first asked for, which takes seconds; ValueError when a model's folder is none."""
        with self._engine_lock:
            if self._engine is None:
                self._engine = self._make_engine(self.settings)
            return self._engine

    def start(self) -> None:
        """Begin: pages may listen, the queue is worked."""
        if self.table.notice:
            logging.getLogger(__name__).warning(self.table.notice)
        self.hub.start()
        self.jobs.start()
        with suppress(sqlite3.Error, OSError):  # what lies about can go another time
            for left in (self.settings.data / "temporary").iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            if not self.table.notice:  # with it goes the knowledge of what is needed
                self.pictures.remove_unused(self.table.pictures(), _UNUSED_SECONDS)

    def trouble(self) -> str:
        """A line on what is wrong with the studio; empty where all is well."""
        try:
            self.table.newest(1)
        except sqlite3.Error as error:
            return words(error)
        return self.jobs.trouble

    def warm_up(self) -> None:
        """Load the engine before the first request needs it; an error is told to the request that does."""
        try:
            _ = self.engine
        except ValueError:
            return

    def stop(self) -> None:
        """End: the running job is interrupted, the worker gone, the folder free."""
        self.hub.close()
        self.jobs.stop()
        os.close(self._lock)

    def check_room(self) -> None:
        """Raise Problem 507 when the disk is nearly full."""
        free = shutil.disk_usage(self.settings.data).free
        if free < self.limits.free_bytes:
            raise Problem(
                HTTPStatus.INSUFFICIENT_STORAGE,
                f"{free >> 20} MiB are free on the studio's disk and {self.limits.free_bytes >> 20} must stay free; "
                "delete jobs that are no longer needed, or make room",
            )

    def summary(self, row: Row) -> Json:
        """A job as lists and events show it."""
        return summary_json(row, self.jobs.live(row["id"]))

    def snapshot(self) -> Json:
        """The first event of a page: the newest jobs, and whether there are older ones to ask for."""
        rows = self.table.newest(_SNAPSHOT + 1)
        return {"jobs": [self.summary(row) for row in rows[:_SNAPSHOT]], "more": len(rows) > _SNAPSHOT}

    def told(self, row: Row) -> None:
        """Tell all pages about a job; also those behind it in the queue, whose places have changed."""
        self.hub.tell("job", row["id"], self.summary(row))
        if row["state"] != "queued":
            for other in self.table.queued():
                self.hub.tell("job", other["id"], self.summary(other))

    def _tell(self, kind: str, job_id: str, data: object) -> None:
        if kind == "job":
            assert isinstance(data, dict)
            self.told(data)
        else:
            self.hub.tell(kind, job_id, data)


def _library(settings: StudioSettings) -> Engine:
    from sgi2v.studio.engine import LibraryEngine

    return LibraryEngine(settings)


def _locked(path: Path) -> int:
    """A file's descriptor that holds the one lock on it; ValueError when another process keeps it.

    The worker inherits it, so the folder is free only when the last process of a studio is gone.
    """
    import fcntl  # Linux and macOS; imported here so that the package can be read elsewhere

    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    end = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            if time.monotonic() > end:
                os.close(file)
                raise FieldError(
                    "data",
                    f"another studio works in {path.parent}",
                    "end it first, or give another folder with --data",
                ) from None
            time.sleep(0.05)

"""The queue at work: claims jobs one after the other, has a worker compute each, and says what becomes of them."""

import base64
import json
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sgi2v.records import Json
from sgi2v.studio.problems import words
from sgi2v.studio.process import Worker
from sgi2v.studio.settings import StudioSettings
from sgi2v.studio.table import INTERRUPTED, JobTable, Row, State
from sgi2v.studio.worker import RESULT

_PATIENCE: Final = 1.0  # seconds between looks at the table when nobody says that there is something new


@dataclass
class Live:
    """State of the running job, dropped when it is over."""

    id: str
    progress: Json = field(default_factory=dict)
    preview: bytes | None = None
    previews: int = 0


class Jobs:
    """The queue of one studio: a thread that works it, with at most one worker and so one model at a time."""

    def __init__(
        self,
        settings: StudioSettings,
        table: JobTable,
        lock: int,
        tell: Callable[[str, str, object], None],
    ) -> None:
        """`tell(kind, job id, data)` reaches the pages; `lock` is the data folder's, as a file descriptor."""
        self.settings, self.table = settings, table
        self._lock_file, self._tell = lock, tell
        self._folder = settings.data / "jobs"
        self._new = threading.Event()
        self._stopping = threading.Event()
        self._worker: Worker | None = None
        self._live: Live | None = None
        self._tidy = False
        self._trouble = ""
        self._cancelled: tuple[str, Worker, float] | None = None  # a job, its worker, and when that is ended
        self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)
        self._watcher = threading.Thread(target=self._watch, name="jobs-watch", daemon=True)

    def start(self) -> None:
        """Tidy up after the last run, then begin with what waits; where the disk is full, as soon as it is not."""
        with suppress(sqlite3.Error, OSError):
            self._tidy_up()
        self._thread.start()
        self._watcher.start()

    def _tidy_up(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self.table.recover(self._finished)
        known = set(self.table.ids())
        for folder in self._folder.iterdir():
            if folder.name in known:
                continue
            if self.table.notice:  # the list was damaged: what it no longer names may be all that is left of a job
                aside = self.settings.data / "jobs.damaged"
                aside.mkdir(exist_ok=True)
                folder.replace(aside / folder.name)
            else:
                shutil.rmtree(folder, ignore_errors=True)
        for left in self._folder.glob("*/.*"):  # results that were being written
            shutil.rmtree(left, ignore_errors=True)
        self._tidy = True

    @property
    def trouble(self) -> str:
        """A line on why no job is taken; empty where all is well."""
        if not self._thread.is_alive() and not self._stopping.is_set():
            return "the queue stands still"
        return self._trouble

    def stop(self) -> None:
        """End the worker; the job it was at is interrupted, what waits stays in the queue."""
        self._stopping.set()
        self._new.set()
        if worker := self._worker:
            with suppress(OSError):
                worker.process.kill()
        self._thread.join(timeout=30)
        if self._watcher.is_alive():
            self._watcher.join(timeout=5)

    def wake(self) -> None:
        """Tell the queue that there is something new in the table."""
        self._new.set()

    def folder(self, job_id: str) -> Path:
        """Folder of a job's files; the id is one that the table gave."""
        return self._folder / job_id

    def result(self, job_id: str) -> Path:
        """The folder of a job's results, which is there when the job is done."""
        return self._folder / job_id / RESULT

    def live(self, job_id: str) -> Live | None:
        """State of a job while it runs; None before and after."""
        live = self._live
        return live if live is not None and live.id == job_id else None

    def cancel(self, job_id: str) -> Row | None:
        """Cancel a job; None for an unknown id, Problem 409 when it is over."""
        row = self.table.cancel(job_id)
        if row is not None and row["state"] == "running" and (worker := self._worker):
            worker.send({"type": "cancel", "id": job_id})
            if (before := self._cancelled) is None or before[0] != job_id:
                self._cancelled = job_id, worker, time.monotonic() + self.settings.cancel_seconds
        return row

    def remove(self, job_id: str) -> bool:
        """Forget a job that is over, and its files; False for an unknown id, Problem 409 when it is not over."""
        if not self.table.delete(job_id):
            return False
        shutil.rmtree(self.folder(job_id), ignore_errors=True)
        return True

    def _finished(self, job_id: str) -> Mapping[str, object] | None:
        """The description in a result that was written whole; None without one."""
        try:
            found = json.loads((self.result(job_id) / "result.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def _watch(self) -> None:
        """End a worker that does not stop when asked to, and begin the queue's thread again should it ever end."""
        while not self._stopping.wait(min(_PATIENCE, self.settings.cancel_seconds / 4)):
            if (found := self._cancelled) is not None:
                job_id, worker, deadline = found
                if not (self.live(job_id) and self._worker is worker):
                    self._cancelled = None
                elif time.monotonic() > deadline:
                    with suppress(OSError):
                        worker.process.kill()
            if not self._thread.is_alive() and not self._stopping.is_set():
                self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while not self._stopping.is_set():
            self._new.clear()
            try:
                worked = self._turn()
                self._trouble = ""
            except Exception as error:  # a full disk, a damaged list, a mistake of ours: it may pass, and is told
                self._trouble = words(error)
                worked = False
            if not worked:
                self._new.wait(_PATIENCE)
        if self._worker is not None:
            self._worker.end()

    def _turn(self) -> bool:
        """Compute the next job; False when none waits."""
        if not self._tidy:
            self._tidy_up()
        row = self.table.claim()
        if row is None:
            return False
        self._live = Live(id=row["id"])
        try:
            self._compute(row)
        except Exception as error:  # one job's trouble is not the queue's
            self._end(row["id"], "failed", message=words(error)[:2000])
        finally:
            self._live = None
        return True

    def _compute(self, row: Row) -> None:
        job_id = row["id"]
        self._tell("job", job_id, row)
        folder = self.folder(job_id)
        folder.mkdir(parents=True, exist_ok=True)
        worker = self._worker_for(self.settings.source_of(row["plan"]["backbone"]))
        worker.send(
            {
                "type": "job",
                "id": job_id,
                "folder": str(folder.resolve()),
                "pictures": str((self.settings.data / "images").resolve()),
                "scene": row["request"]["scene"],
                "plan": row["plan"],
            }
        )
        asked = self.table.get(job_id)
        if asked is not None and asked["cancelling"]:  # before there was a worker to tell
            worker.send({"type": "cancel", "id": job_id})
        while (message := worker.receive()) is not None:
            if message.get("id") != job_id:
                continue
            kind = message["type"]
            if kind in ("progress", "preview"):
                self._report(message)
            elif kind == "done":
                self._end(job_id, "done", result=message["result"])
                return
            else:
                self._end(job_id, "cancelled" if kind == "cancelled" else "failed", message=message.get("message"))
                return
        self._after_its_end(worker, job_id)

    def _worker_for(self, backbone: str) -> Worker:
        """The worker that holds a model; one that holds another, or has ended, is replaced."""
        if self._worker is not None and (self._worker.backbone != backbone or not self._worker.alive):
            self._worker.end()
            self._worker = None
        if self._worker is None:
            log = self.settings.data / "worker.log"
            self._worker = Worker(self.settings, backbone, self._lock_file, log)
        if self._stopping.is_set():  # asked to stop while it was started
            self._worker.process.kill()
        return self._worker

    def _report(self, message: Json) -> None:
        live = self._live
        assert live is not None
        if message["type"] == "preview":
            live.preview = base64.b64decode(message["png"])
            live.previews += 1
        else:
            live.progress = {name: value for name, value in message.items() if name != "type"}
        self._tell("progress", live.id, progress_json(live))

    def _after_its_end(self, worker: Worker, job_id: str) -> None:
        """The worker has ended in the middle of a job."""
        worker.end()
        self._worker = None
        code = worker.process.returncode
        row = self.table.get(job_id)
        result = self._finished(job_id)
        if result is not None:
            self._end(job_id, "done", result=result)
        elif row is not None and row["cancelling"]:
            self._end(job_id, "cancelled")
        elif self._stopping.is_set():
            self._end(job_id, "interrupted", message=INTERRUPTED)
        else:
            how = f"signal {-code}; the machine may have had too little memory" if code < 0 else f"code {code}"
            self._end(
                job_id,
                "failed",
                message=f"the process that computed it ended by itself ({how}); start it again, smaller if that "
                f"was it; what it last said is in {self.settings.data.name}/worker.log",
            )

    def _end(
        self,
        job_id: str,
        state: State,
        *,
        message: str | None = None,
        result: Mapping[str, object] | None = None,
    ) -> None:
        while True:
            try:
                row = self.table.finish(job_id, state, message=message, result=result)
                break
            except sqlite3.Error as error:  # a full disk: the result stands, so it can wait
                self._trouble = words(error)
                if self._stopping.wait(_PATIENCE):
                    return
        self._live = None
        if row is not None:
            with suppress(sqlite3.Error):  # pages that are not told must not end the queue; they ask again
                self._tell("job", job_id, row)


def progress_json(live: Live) -> Json:
    """Progress of the running job, as pages are told."""
    preview = f"/api/jobs/{live.id}/preview.png?v={live.previews}" if live.previews else None
    empty = {"step": 0, "num_steps": 0, "iteration": 0, "num_iterations": 0, "loss": None, "fraction": 0.0}
    return {
        **empty,
        "seconds_left": None,
        "phase": "load",
        **live.progress,
        "id": live.id,
        "preview": preview,
    }

"""The jobs of a studio in one SQLite table: every change of state is a transaction, and no kill loses one."""

import json
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Final, Literal

from sgi2v.errors import FieldError
from sgi2v.records import Json
from sgi2v.studio.problems import Problem

State = Literal["queued", "running", "done", "failed", "cancelled", "interrupted"]
OVER: Final = ("done", "failed", "cancelled", "interrupted")
INTERRUPTED: Final = "the studio was ended while this was computed; start it again with Retry"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    idempotency_key TEXT UNIQUE,
    payload TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'queued'
        CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled', 'interrupted')),
    cancelling INTEGER NOT NULL DEFAULT 0,
    created REAL NOT NULL,
    started REAL,
    finished REAL,
    message TEXT,
    retry_of TEXT,
    request TEXT NOT NULL,
    plan TEXT NOT NULL,
    result TEXT
);
CREATE INDEX IF NOT EXISTS by_state ON jobs (state, number);
"""
_VERSION: Final = 1
_COLUMNS: Final = "number, id, state, cancelling, created, started, finished, message, retry_of, request, plan, result"
_LARGEST: Final = 2**53

Row = Json


class JobTable:
    """queued -> running -> done | failed | cancelled | interrupted, and queued -> cancelled; nothing else.

    A job is claimed once: what was running when the process was killed is interrupted, never queued again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._open() as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version not in (0, _VERSION):
                raise FieldError("data", f"{path} was written by a newer sgi2v", "update, or give another --data")
            connection.executescript(_SCHEMA)
            connection.execute(f"PRAGMA user_version = {_VERSION}")

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        # One connection for each use: cheap, and no thread ever waits for another's.
        with closing(sqlite3.connect(self.path, timeout=20, isolation_level=None)) as connection:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA synchronous = FULL")
            yield connection

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def known(self, key: str, payload: str) -> Row | None:
        """The job that was sent with this key; Problem 409 when another payload was."""
        with self._open() as connection:
            return _known(connection, key, payload)

    def submit(
        self,
        *,
        request: Mapping[str, object],
        plan: Mapping[str, object],
        payload: str,
        key: str | None = None,
        retry_of: str | None = None,
        max_queued: int,
        max_history: int,
    ) -> tuple[Row, bool]:
        """A new queued job, or the one that was sent before with this key; and whether it is new.

        Problem 409 for the same key with another payload, 429 for a full queue, 507 for a full history.
        """
        with self._change() as connection:
            if key is not None and (row := _known(connection, key, payload)):
                return row, False
            queued, kept = connection.execute("SELECT sum(state = 'queued'), count(*) FROM jobs").fetchone()
            if (queued or 0) >= max_queued:
                raise Problem(
                    HTTPStatus.TOO_MANY_REQUESTS,
                    f"{queued} jobs are waiting, as many as this studio takes; wait for some, or cancel some",
                )
            if kept >= max_history:
                raise Problem(
                    HTTPStatus.INSUFFICIENT_STORAGE,
                    f"{kept} jobs are kept, as many as this studio takes; delete some that are no longer needed",
                )
            job_id = uuid.uuid4().hex
            connection.execute(
                "INSERT INTO jobs (id, idempotency_key, payload, created, retry_of, request, plan) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (job_id, key, payload, time.time(), retry_of, _dumps(request), _dumps(plan)),
            )
            row = _get(connection, job_id)
            assert row is not None
            return row, True

    def claim(self) -> Row | None:
        """The job that waits longest, now running; None when none waits."""
        with self._change() as connection:
            found = connection.execute("SELECT id FROM jobs WHERE state = 'queued' ORDER BY number LIMIT 1").fetchone()
            if found is None:
                return None
            connection.execute(
                "UPDATE jobs SET state = 'running', started = ? WHERE id = ? AND state = 'queued'",
                (time.time(), found["id"]),
            )
            return _get(connection, found["id"])

    def finish(
        self,
        job_id: str,
        state: State,
        *,
        message: str | None = None,
        result: Mapping[str, object] | None = None,
    ) -> Row | None:
        """A running job is over; None, and nothing changed, when it was not running."""
        assert state in OVER
        with self._change() as connection:
            done = connection.execute(
                "UPDATE jobs SET state = ?, finished = ?, message = ?, result = ?, cancelling = 0 "
                "WHERE id = ? AND state = 'running'",
                (state, time.time(), message, None if result is None else _dumps(result), job_id),
            )
            return _get(connection, job_id) if done.rowcount else None

    def cancel(self, job_id: str) -> Row | None:
        """A queued job is cancelled, a running one asked to stop; None for an unknown id, Problem 409 when over."""
        with self._change() as connection:
            row = _get(connection, job_id)
            if row is None:
                return None
            if row["state"] in OVER:
                raise Problem(HTTPStatus.CONFLICT, f"the job is over already ({row['state']})")
            connection.execute(
                "UPDATE jobs SET state = 'cancelled', finished = ? WHERE id = ? AND state = 'queued'",
                (time.time(), job_id),
            )
            connection.execute("UPDATE jobs SET cancelling = 1 WHERE id = ? AND state = 'running'", (job_id,))
            return _get(connection, job_id)

    def delete(self, job_id: str) -> bool:
        """Forget a job that is over; False for an unknown id, Problem 409 for one that is not over."""
        with self._change() as connection:
            row = _get(connection, job_id)
            if row is None:
                return False
            if row["state"] not in OVER:
                raise Problem(HTTPStatus.CONFLICT, f"the job is {row['state']}; cancel it first")
            connection.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
            return True

    def recover(self, result_of: Callable[[str], Mapping[str, object] | None]) -> None:
        """After a start: what was running is done if its result stands whole, else interrupted."""
        with self._change() as connection:
            for found in connection.execute("SELECT id FROM jobs WHERE state = 'running'").fetchall():
                result = result_of(found["id"])
                connection.execute(
                    "UPDATE jobs SET state = ?, finished = ?, message = ?, result = ?, cancelling = 0 WHERE id = ?",
                    (
                        "interrupted" if result is None else "done",
                        time.time(),
                        INTERRUPTED if result is None else None,
                        None if result is None else _dumps(result),
                        found["id"],
                    ),
                )

    def get(self, job_id: str) -> Row | None:
        """One job."""
        with self._open() as connection:
            return _get(connection, job_id)

    def newest(self, limit: int, before: int | None = None) -> list[Row]:
        """Jobs with a number below `before`, newest first."""
        with self._open() as connection:
            rows = connection.execute(
                f"SELECT {_COLUMNS}, {_POSITION} FROM jobs WHERE number < ? ORDER BY number DESC LIMIT ?",
                (_LARGEST if before is None else before, limit),
            )
            return [_row(row) for row in rows]

    def queued(self) -> list[Row]:
        """Jobs that wait, in their order."""
        with self._open() as connection:
            rows = connection.execute(
                f"SELECT {_COLUMNS}, {_POSITION} FROM jobs WHERE state = 'queued' ORDER BY number"
            )
            return [_row(row) for row in rows]

    def ids(self) -> list[str]:
        """Ids of all jobs."""
        with self._open() as connection:
            return [row["id"] for row in connection.execute("SELECT id FROM jobs")]


_POSITION: Final = (
    "(SELECT count(*) FROM jobs AS other WHERE other.state = 'queued' AND other.number < jobs.number) AS position"
)


def _known(connection: sqlite3.Connection, key: str, payload: str) -> Row | None:
    found = connection.execute("SELECT id, payload FROM jobs WHERE idempotency_key = ?", (key,)).fetchone()
    if found is None:
        return None
    if found["payload"] != payload:
        raise Problem(
            HTTPStatus.CONFLICT,
            "Idempotency-Key: another request was sent with this key before; take a new key for a new job",
            "Idempotency-Key",
        )
    return _get(connection, found["id"])


def _get(connection: sqlite3.Connection, job_id: str) -> Row | None:
    row = connection.execute(f"SELECT {_COLUMNS}, {_POSITION} FROM jobs WHERE id = ?", (job_id,)).fetchone()
    return None if row is None else _row(row)


def _row(row: sqlite3.Row) -> Row:
    values = dict(row)
    values["cancelling"] = bool(values["cancelling"])
    values["position"] = values["position"] if values["state"] == "queued" else None
    for name in ("request", "plan", "result"):
        values[name] = None if values[name] is None else json.loads(values[name])
    return values


def _dumps(value: Mapping[str, object]) -> str:
    return json.dumps(value, allow_nan=False)

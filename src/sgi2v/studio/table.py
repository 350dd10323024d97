"""The jobs of a studio in one SQLite table: every change of state is a transaction, and no kill loses one."""

import json
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Final, Literal

from sgi2v.records import Json
from sgi2v.studio.database import Database, summary_of
from sgi2v.studio.pictures import named_pictures
from sgi2v.studio.problems import Problem

State = Literal["queued", "running", "done", "failed", "cancelled", "interrupted"]
OVER: Final = ("done", "failed", "cancelled", "interrupted")
INTERRUPTED: Final = "the studio was ended while this was computed; start it again with Retry"
_COLUMNS: Final = (
    "jobs.number, id, state, cancelling, created, started, finished, message, retry_of, summary, result, "
    "(SELECT count(*) FROM jobs AS other WHERE other.state = 'queued' AND other.number < jobs.number) AS position"
)
_LARGEST: Final = 2**53
_CLAIM_SECONDS: Final = 365 * 24 * 3600.0  # a browser that was not opened for a year has lost what it kept
_CLAIMING_PAGES: Final = 1000

Row = Json


class JobTable:
    """queued -> running -> done | failed | cancelled | interrupted, and queued -> cancelled; nothing else.

    A job is claimed once: what was running when the process was killed is interrupted, never queued again.
    """

    def __init__(self, path: Path) -> None:
        """As :class:`~sgi2v.studio.database.Database`, which the table lies in."""
        self.path = path
        database = Database(path)
        self.notice = database.notice
        self._open, self._change = database.open, database.change

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
            names = json.dumps(sorted(set(named_pictures(request))))
            made = connection.execute(
                "INSERT INTO jobs (id, idempotency_key, payload, created, retry_of, summary, pictures) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (job_id, key, payload, time.time(), retry_of, _dumps(summary_of(request, plan)), names),
            )
            body = (made.lastrowid, _dumps(request), _dumps(plan))
            connection.execute("INSERT INTO bodies VALUES (?, ?, ?)", body)
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
            connection.execute("DELETE FROM bodies WHERE number = ?", (row["number"],))
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
                f"SELECT {_COLUMNS} FROM jobs WHERE number < ? ORDER BY number DESC LIMIT ?",
                (_LARGEST if before is None else before, limit),
            )
            return [_row(row) for row in rows]

    def queued(self) -> list[Row]:
        """Jobs that wait, in their order."""
        with self._open() as connection:
            rows = connection.execute(f"SELECT {_COLUMNS} FROM jobs WHERE state = 'queued' ORDER BY number")
            return [_row(row) for row in rows]

    def ids(self) -> list[str]:
        """Ids of all jobs."""
        with self._open() as connection:
            return [row["id"] for row in connection.execute("SELECT id FROM jobs")]

    def pictures(self) -> set[str]:
        """Ids of the pictures that a job or a page's kept work names."""
        with self._open() as connection:
            found = {name for (names,) in connection.execute("SELECT pictures FROM jobs") for name in json.loads(names)}
            oldest = time.time() - _CLAIM_SECONDS
            return found | {
                name for (name,) in connection.execute("SELECT picture FROM claims WHERE at > ?", (oldest,))
            }

    def claim_pictures(self, page: str, names: Iterable[str]) -> None:
        """Note what the work of a page needs, in place of what it needed before."""
        now = time.time()
        with self._change() as connection:
            connection.execute("DELETE FROM claims WHERE page = ?", (page,))
            connection.executemany(
                "INSERT OR IGNORE INTO claims VALUES (?, ?, ?)", [(page, name, now) for name in names]
            )
            connection.execute(
                "DELETE FROM claims WHERE page NOT IN "
                "(SELECT page FROM claims GROUP BY page ORDER BY max(at) DESC LIMIT ?)",
                (_CLAIMING_PAGES,),
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
    row = connection.execute(
        f"SELECT {_COLUMNS}, request, plan FROM jobs JOIN bodies USING (number) WHERE id = ?", (job_id,)
    ).fetchone()
    return None if row is None else _row(row)


def _row(row: sqlite3.Row) -> Row:
    """A job as the table has it; request and plan only where they were asked for."""
    values = dict(row)
    values["cancelling"] = bool(values["cancelling"])
    values["position"] = values["position"] if values["state"] == "queued" else None
    for name in ("summary", "request", "plan", "result"):
        if values.get(name) is not None:
            try:
                values[name] = json.loads(values[name])
            except ValueError:
                raise sqlite3.DatabaseError(f"the entry of job {values['number']} is damaged") from None
    return values


def _dumps(value: Mapping[str, object]) -> str:
    return json.dumps(value, allow_nan=False)

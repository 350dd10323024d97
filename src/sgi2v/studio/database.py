"""The file that holds the list of jobs: checked at the start, set aside when it is damaged, read on a full disk too."""

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from sgi2v.errors import FieldError
from sgi2v.studio.pictures import named_pictures

_VERSION: Final = 2
_STATES: Final = "('queued', 'running', 'done', 'failed', 'cancelled', 'interrupted')"
_SCHEMA: Final = f"""
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    idempotency_key TEXT UNIQUE,
    payload TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'queued' CHECK (state IN {_STATES}),
    cancelling INTEGER NOT NULL DEFAULT 0,
    created REAL NOT NULL,
    started REAL,
    finished REAL,
    message TEXT,
    retry_of TEXT,
    summary TEXT NOT NULL,
    pictures TEXT NOT NULL,
    result TEXT
);
CREATE INDEX by_state ON jobs (state, number);
CREATE TABLE bodies (number INTEGER PRIMARY KEY, request TEXT NOT NULL, plan TEXT NOT NULL);
CREATE TABLE claims (page TEXT, picture TEXT, at REAL NOT NULL, PRIMARY KEY (page, picture)) WITHOUT ROWID;
"""
"""Requests and plans lie apart: a list of jobs never reads over their hundreds of kilobytes."""
_SAME: Final = (
    "number", "id", "idempotency_key", "payload", "state", "cancelling", "created", "started", "finished", "message",
    "retry_of", "result",
)  # fmt: skip
_BODIES: Final = (  # of this version, and of the first
    "SELECT jobs.*, request, plan FROM jobs JOIN bodies USING (number) WHERE number = ?",
    "SELECT * FROM jobs WHERE number = ?",
)
_MOST: Final = 100_000  # jobs looked for in a damaged file
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)


def damaged(error: sqlite3.Error) -> bool:
    """True where an error says that the file itself is not what it should be, rather than its disk or its place."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    return isinstance(error, sqlite3.DatabaseError) and code & 0xFF in _DAMAGED


def full(error: sqlite3.Error) -> bool:
    """True where an error says that the disk is full."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL or "full" in str(error)


def summary_of(request: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, Any]:
    """Parts that a list shows of a job's request and plan."""
    sampling = plan.get("sampling") or {}
    return {
        "group": request.get("group"),
        "backbone": plan.get("backbone"),
        "controller": (plan.get("controller") or {}).get("name"),
        **{name: sampling.get(name) for name in ("seed", "num_steps", "width", "height", "num_frames")},
        "image": (request.get("scene") or {}).get("image"),
    }


class Database:
    """The file, ready to be used; a damaged one is set aside and what can be read of it taken over."""

    def __init__(self, path: Path) -> None:
        """FieldError for a file of a newer version, and for a place that cannot be used."""
        self.path = path
        self.notice = ""
        """A sentence for the person where a damaged file was found; empty otherwise."""
        try:
            self._prepare()
        except sqlite3.Error as error:
            if not damaged(error):
                why = "the disk is full" if full(error) else str(error)
                raise FieldError(
                    "data", f"{path} cannot be used ({why})", "make room, or give another folder"
                ) from None
            try:
                self._begin_anew(error)
            except (OSError, sqlite3.Error) as second:
                raise FieldError("data", f"{path} is damaged and cannot be set aside ({second})") from None

    @contextmanager
    def open(self) -> Iterator[sqlite3.Connection]:
        """A connection. One for each use: cheap, and no thread ever waits for another's."""
        with closing(_connect(self.path)) as connection:
            yield connection

    @contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """A connection in one transaction."""
        with self.open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # some errors have rolled it back already
                    connection.execute("ROLLBACK")
                raise

    def _prepare(self) -> None:
        with self.open() as connection:
            # Not WAL, whose readers need a file of their own: there must be none to make where the disk is full.
            with suppress(sqlite3.OperationalError):
                connection.execute("PRAGMA journal_mode = TRUNCATE")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > _VERSION:
                raise FieldError("data", f"{self.path} was written by a newer sgi2v", "update, or give another --data")
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise sqlite3.DatabaseError(found)
            if version == _VERSION:
                connection.execute(f"{_BODIES[0]} OR number = 0", (0,)).fetchone()  # the tables are these
        if version < _VERSION:
            with self.change() as connection:
                old = version == 1
                if old:
                    (last,) = connection.execute("SELECT max(seq) FROM sqlite_sequence").fetchone()
                    connection.execute("DROP INDEX IF EXISTS by_state")
                    connection.execute("ALTER TABLE jobs RENAME TO old")
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
                if old:
                    for (number,) in connection.execute("SELECT number FROM old ORDER BY number").fetchall():
                        row = connection.execute("SELECT * FROM old WHERE number = ?", (number,)).fetchone()
                        _insert(connection, dict(row))
                    connection.execute("DROP TABLE old")
                    _number_on(connection, last)
                connection.execute(f"PRAGMA user_version = {_VERSION}")

    def _begin_anew(self, error: sqlite3.Error) -> None:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        aside = self.path.with_name(f"{self.path.stem}.damaged-{stamp}{self.path.suffix}")
        for ending in ("-wal", "-journal", "-shm", ""):
            with suppress(FileNotFoundError):
                self.path.with_name(self.path.name + ending).replace(aside.with_name(aside.name + ending))
        self._prepare()
        kept = 0
        with self.change() as connection:
            for row in _readable(aside):
                with suppress(sqlite3.IntegrityError, ValueError, TypeError, AttributeError, KeyError):
                    _insert(connection, row)
                    kept += 1
        self.notice = (
            f"The list of jobs was damaged ({error}). It is set aside as {aside.name}, and a new one has begun with "
            f"the {kept} jobs that could still be read; files of others lie beside it."
        )


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=20, isolation_level=None)
    connection.row_factory = sqlite3.Row
    try:
        connection.execute("PRAGMA synchronous = FULL")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _insert(connection: sqlite3.Connection, row: Mapping[str, Any]) -> None:
    """A job of an earlier or a damaged file, with its summary made anew."""
    request, plan = json.loads(row["request"]), json.loads(row["plan"])
    values = {name: row[name] for name in _SAME}
    values["summary"] = json.dumps(summary_of(request, plan))
    values["pictures"] = json.dumps(sorted(set(named_pictures(request))))
    if values["result"] is not None:
        json.loads(values["result"])
    marks = ", ".join("?" * len(values))
    connection.execute(f"INSERT INTO jobs ({', '.join(values)}) VALUES ({marks})", tuple(values.values()))
    connection.execute("INSERT INTO bodies VALUES (?, ?, ?)", (row["number"], row["request"], row["plan"]))


def _number_on(connection: sqlite3.Connection, last: int | None) -> None:
    """Let new jobs be numbered on, also where the last of the old ones were deleted."""
    if last is not None and not connection.execute("UPDATE sqlite_sequence SET seq = ?", (last,)).rowcount:
        connection.execute("INSERT INTO sqlite_sequence VALUES ('jobs', ?)", (last,))


def _readable(path: Path) -> Iterator[dict[str, Any]]:
    """The jobs that can still be read of a damaged file."""
    with suppress(sqlite3.Error), closing(_connect(path)) as connection:
        last = None
        with suppress(sqlite3.Error):
            (last,) = connection.execute("SELECT max(seq) FROM sqlite_sequence").fetchone()
        for number in range(1, min(last or 10_000, _MOST) + 1):
            for query in _BODIES:
                with suppress(sqlite3.Error):
                    if row := connection.execute(query, (number,)).fetchone():
                        yield dict(row)
                        break

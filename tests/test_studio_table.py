"""The table of jobs: only the allowed changes of state, one job for one key, also when many threads ask at once."""

import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from sgi2v.studio.problems import Problem
from sgi2v.studio.table import OVER, JobTable


def submit(
    table: JobTable,
    key: str | None = None,
    payload: str = "p",
    max_queued: int = 1000,
    max_history: int = 1000,
) -> tuple[Any, bool]:
    return table.submit(
        request={"scene": {}},
        plan={},
        payload=payload,
        key=key,
        max_queued=max_queued,
        max_history=max_history,
    )


@pytest.fixture
def table(tmp_path: Path) -> JobTable:
    return JobTable(tmp_path / "jobs.sqlite")


def test_jobs_are_claimed_in_their_order_and_once(table: JobTable) -> None:
    sent = [submit(table)[0]["id"] for _ in range(3)]
    assert [job["position"] for job in table.queued()] == [0, 1, 2]
    claimed = [table.claim() for _ in range(4)]
    assert [job and job["id"] for job in claimed] == [*sent, None]


def test_many_threads_get_every_job_once_and_one_job_for_one_key(table: JobTable) -> None:
    with ThreadPoolExecutor(8) as pool:
        sent = list(pool.map(lambda number: submit(table, key=f"key {number % 10}"), range(40)))
        assert len({row["id"] for row, _ in sent}) == 10 and sum(new for _, new in sent) == 10
        claimed = list(pool.map(lambda _: table.claim(), range(20)))
    ids = [row["id"] for row in claimed if row]
    assert len(ids) == len(set(ids)) == 10


def test_a_key_is_for_one_payload(table: JobTable) -> None:
    row, new = submit(table, "key", "one")
    assert new and submit(table, "key", "one") == (row, False)
    for ask in (lambda: submit(table, "key", "two"), lambda: table.known("key", "two")):
        with pytest.raises(Problem) as problem:
            ask()
        assert problem.value.status_code == 409
    assert table.known("other", "one") is None
    assert submit(table, "key", "one", max_queued=0)[1] is False, "a full queue still knows its jobs"


def test_limits_refuse_and_change_nothing(table: JobTable) -> None:
    submit(table)
    for max_queued, max_history, status in ((1, 1000, 429), (1000, 1, 507)):
        with pytest.raises(Problem) as problem:
            submit(table, max_queued=max_queued, max_history=max_history)
        assert problem.value.status_code == status
    assert len(table.ids()) == 1


def test_after_a_kill_a_whole_result_counts_and_nothing_runs_by_itself(table: JobTable) -> None:
    first, second, third = (submit(table)[0]["id"] for _ in range(3))
    table.claim(), table.claim()
    table.cancel(first)
    again = JobTable(table.path)  # what the next process sees
    again.recover({second: {"frames": 8}}.get)
    rows = {row["id"]: row for row in again.newest(10)}
    assert [rows[job]["state"] for job in (first, second, third)] == ["interrupted", "done", "queued"]
    assert rows[first]["message"] and not rows[first]["cancelling"] and rows[second]["result"] == {"frames": 8}
    assert again.finish(first, "done") is None, "what is over stays over"


def test_pages_of_the_history(table: JobTable) -> None:
    numbers = [submit(table)[0]["number"] for _ in range(5)]
    assert [row["number"] for row in table.newest(2)] == numbers[:2:-1]
    assert [row["number"] for row in table.newest(9, before=numbers[3])] == numbers[2::-1]


def test_a_table_of_a_newer_version_is_left_alone(table: JobTable) -> None:
    with sqlite3.connect(table.path) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(ValueError, match="newer sgi2v"):
        JobTable(table.path)


def test_the_table_itself_refuses_an_unknown_state(table: JobTable) -> None:
    submit(table)
    with sqlite3.connect(table.path) as connection, pytest.raises(sqlite3.IntegrityError):
        connection.execute("UPDATE jobs SET state = 'lost'")


class Life(RuleBasedStateMachine):
    """Any order of requests, workers' answers and kills, beside a model that is a dictionary."""

    jobs = Bundle("jobs")

    @initialize(make=st.just(None))
    def begin(self, make: None) -> None:
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.table = JobTable(Path(self.folder.name) / "jobs.sqlite")
        self.states: dict[str, str] = {}

    @rule(target=jobs)
    def send(self) -> str:
        row, _ = submit(self.table)
        self.states[row["id"]] = "queued"
        return str(row["id"])

    @rule()
    def claim(self) -> None:
        row = self.table.claim()
        waiting = [job for job, state in self.states.items() if state == "queued"]
        assert (row and row["id"]) == (waiting[0] if waiting else None)
        if row:
            self.states[row["id"]] = "running"

    @rule(job=jobs, state=st.sampled_from(OVER))
    def finish(self, job: str, state: Any) -> None:
        changed = self.table.finish(job, state)
        assert (changed is not None) == (self.states.get(job) == "running")
        if changed:
            self.states[job] = state

    @rule(job=jobs)
    def cancel(self, job: str) -> None:
        before = self.states.get(job)
        if before in OVER:
            self.refused(lambda: self.table.cancel(job))
        elif before is None:
            assert self.table.cancel(job) is None
        else:
            self.states[job] = "cancelled" if before == "queued" else "running"
            row = self.table.cancel(job)
            assert row is not None and row["cancelling"] == (before == "running")

    @rule(job=jobs)
    def delete(self, job: str) -> None:
        if self.states.get(job) in ("queued", "running"):
            self.refused(lambda: self.table.delete(job))
        else:
            assert self.table.delete(job) == (self.states.pop(job, None) is not None)

    @rule()
    def kill(self) -> None:
        self.table = JobTable(self.table.path)
        self.table.recover(lambda _: None)
        self.states = {job: "interrupted" if s == "running" else s for job, s in self.states.items()}

    @staticmethod
    def refused(action: Callable[[], object]) -> None:
        with pytest.raises(Problem) as problem:
            action()
        assert problem.value.status_code == 409

    @invariant()
    def agrees(self) -> None:
        if hasattr(self, "table"):
            assert {row["id"]: row["state"] for row in self.table.newest(100)} == self.states

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)

"""What goes wrong under a studio: a damaged list of jobs, a full disk, a queue's thread that ends, many who ask."""

import json
import logging
import os
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from sgi2v.studio.app import create_app
from sgi2v.studio.database import Database
from sgi2v.studio.settings import Limits
from sgi2v.studio.table import JobTable
from studio_process import QUICK, StudioProcess, until
from studio_quick import QuickEngine, quick_settings
from studio_scene import asked, file_of, picture

OLD = """
CREATE TABLE jobs (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, idempotency_key TEXT UNIQUE,
payload TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'queued', cancelling INTEGER NOT NULL DEFAULT 0,
created REAL NOT NULL, started REAL, finished REAL, message TEXT, retry_of TEXT, request TEXT NOT NULL,
plan TEXT NOT NULL, result TEXT);
CREATE INDEX by_state ON jobs (state, number);
PRAGMA journal_mode = WAL;
PRAGMA user_version = 1;
"""
IMAGE = "upload:" + "a" * 64


def studio(data: Path, **changed: Any) -> TestClient:
    app = create_app(quick_settings(data, **changed), engine=QuickEngine, warm_up=False)
    return TestClient(app, base_url="http://127.0.0.1:7860", raise_server_exceptions=False)


def state(client: TestClient, job_id: str, wanted: str) -> None:
    until(lambda: client.get(f"/api/jobs/{job_id}").json()["state"] == wanted)


def over(client: TestClient, job_id: str) -> Any:
    return until(lambda: job if (job := client.get(f"/api/jobs/{job_id}").json())["state"] == "done" else None)


def some_jobs(data: Path, count: int = 30) -> list[str]:
    """Jobs that wait, with the bulk that a real plan has."""
    data.mkdir(exist_ok=True)
    table = JobTable(data / "jobs.sqlite")
    plan = {**QuickEngine(quick_settings(data)).plan({}, None), "motions": ["x" * 20_000]}  # type: ignore[arg-type]
    rows = [
        table.submit(request={"scene": {"image": IMAGE}}, plan=plan, payload="", max_queued=999, max_history=999)[0]
        for _ in range(count)
    ]
    for row in rows:
        table.cancel(row["id"])
    return [row["id"] for row in rows]


def junk(path: Path, start: int, size: int) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(os.urandom(size))


def replaced(path: Path) -> None:
    path.write_bytes(b"not a database" * 1000)


def another(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE jobs (a); PRAGMA user_version = 2")


DAMAGES: dict[str, Callable[[Path], None]] = {
    "no database at all": lambda path: replaced(path),
    "cut in the middle": lambda path: os.truncate(path, path.stat().st_size // 2),
    "its header": lambda path: junk(path, 0, 100),
    "its first page": lambda path: junk(path, 100, 3000),
    "pages in the middle": lambda path: junk(path, path.stat().st_size // 2, 60_000),
    "another program's": lambda path: another(path),
}


@pytest.mark.parametrize("damage", sorted(DAMAGES))
def test_a_damaged_list_is_set_aside_and_said(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    before = some_jobs(tmp_path)
    result = tmp_path / "jobs" / before[0] / "result"
    result.mkdir(parents=True)
    (result / "video.mp4").write_bytes(b"kept")
    DAMAGES[damage](tmp_path / "jobs.sqlite")
    with caplog.at_level(logging.WARNING), studio(tmp_path) as client:
        assert client.get("/health").json() == {"ok": True}
        said = client.get("/api/info").json()["notice"]
        assert "set aside as jobs.damaged-" in said and said in caplog.text and str(tmp_path) not in said
        assert client.post("/api/jobs", json=asked(1)).status_code == 201
        kept = [one["id"] for one in client.get("/api/jobs?limit=500").json()["jobs"]]
        if damage == "pages in the middle":
            assert len(set(kept) & set(before)) > len(before) // 3
    assert len(list(tmp_path.glob("jobs.damaged-*.sqlite"))) == 1
    assert list(tmp_path.glob("jobs*/*/result/video.mp4")), "what a job has made outlives the list"
    with studio(tmp_path) as client:
        assert client.get("/api/info").json()["notice"] == ""


def test_a_list_that_is_damaged_while_it_is_used_is_told_everywhere(tmp_path: Path) -> None:
    some_jobs(tmp_path)
    with studio(tmp_path) as client:
        image = client.post("/api/images", content=file_of(picture())).json()["image"]
        right = (tmp_path / "jobs.sqlite").read_bytes()
        (tmp_path / "jobs.sqlite").write_bytes(b"not a database" * 1000)
        for response in (client.get("/api/jobs"), client.post("/api/jobs", json=asked(1)), client.get("/health")):
            assert response.status_code == 503
            answer = response.json()
            assert "damaged" in answer.get("message", answer.get("error", {}).get("message"))
        until(lambda: client.app.state.studio.jobs.trouble)  # type: ignore[attr-defined]
        (tmp_path / "jobs.sqlite").write_bytes(right)  # its owner has brought it back
        request = {**asked(1), "scene": {**asked(1)["scene"], "image": image}}
        assert over(client, client.post("/api/jobs", json=request).json()["id"])["state"] == "done"
        until(lambda: client.get("/health").status_code == 200)


def test_the_queue_goes_on_after_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    left = [SystemExit(3), RuntimeError("a bug"), sqlite3.DatabaseError("malformed")]
    claim = JobTable.claim

    def broken(table: JobTable) -> Any:
        if left:
            raise left.pop()
        return claim(table)

    monkeypatch.setattr(JobTable, "claim", broken)
    with studio(tmp_path) as client:
        assert over(client, client.post("/api/jobs", json=asked(1)).json()["id"])["state"] == "done"
        until(lambda: client.get("/health").status_code == 200)


def test_a_list_of_the_first_version_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    plan = QuickEngine(quick_settings(tmp_path)).plan({}, None)  # type: ignore[arg-type]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(OLD)
        for number in range(1, 6):
            connection.execute(
                "INSERT INTO jobs (id, payload, state, created, request, plan, result) VALUES (?, '', ?, 0, ?, ?, ?)",
                (f"{number:032x}", "done", json.dumps({"scene": {"image": IMAGE}, "group": "g"}), json.dumps(plan),
                 json.dumps({"num_frames": 2})),
            )  # fmt: skip
        connection.execute("DELETE FROM jobs WHERE number = 5")
    table = JobTable(path)
    assert table.notice == "" and [row["number"] for row in table.newest(9)] == [4, 3, 2, 1]
    row = table.get(f"{2:032x}")
    assert row is not None and row["plan"] == plan and row["result"] == {"num_frames": 2}
    assert row["summary"]["group"] == "g" and row["summary"]["image"] == IMAGE
    assert table.pictures() == {"a" * 64}
    new, _ = table.submit(request={}, plan={}, payload="", max_queued=9, max_history=9)
    assert new["number"] == 6, "a number is never given twice"
    assert [row["number"] for row in JobTable(path).newest(9)] == [6, 4, 3, 2, 1]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of six megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", place], check=False, capture_output=True)
    if made.returncode:
        pytest.skip("no disk can be mounted here: a full one is NOT tested")
    yield place
    subprocess.run(["umount", "-l", place], check=False)


def fill(disk: Path) -> None:
    with suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        for size in (4096, 512, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))


def test_a_full_disk_stops_what_writes_and_nothing_else(small_disk: Path) -> None:
    data = small_disk / "data"
    limits = Limits(free_bytes=0)
    with studio(data, limits=limits) as client:
        job = over(client, client.post("/api/jobs", json=asked(1)).json()["id"])
        fill(small_disk)
        uploads = [client.post("/api/images", content=file_of(picture(900, 900, seed=5)))]
        uploads += [client.post(path, json=asked(1)) for path in ("/api/jobs", "/api/plan")]
        uploads.append(client.post("/api/import/clip", content=file_of(picture(900, 900, seed=6), "GIF")))
        for response in uploads[:2] + uploads[3:]:
            assert response.status_code == 507, response.text
            assert response.json()["error"]["message"].startswith("the disk is full")
            assert str(small_disk) not in response.text and "--" not in response.text
        assert client.get("/api/jobs").json()["jobs"][0]["id"] == job["id"]
        assert client.get(f"/api/jobs/{job['id']}/frames/0.png").status_code == 200
    with studio(data, limits=limits) as client:  # it starts on a full disk
        assert client.get("/api/jobs").json()["jobs"][0]["state"] == "done"
        assert client.get("/health").status_code == 200
        assert client.post("/api/jobs", json=asked(1)).status_code == 507
        (small_disk / "filler").unlink()
        assert over(client, client.post("/api/jobs", json=asked(1)).json()["id"])["state"] == "done"


def test_a_studio_that_was_killed_starts_on_a_full_disk(small_disk: Path) -> None:
    data = small_disk / "data"
    with StudioProcess(data, QUICK) as first:
        long = first.http.post("/api/jobs", json=asked(60_000)).json()["id"]
        first.wait_for(long, "running")
        first.kill()
    fill(small_disk)
    with StudioProcess(data, QUICK) as second:
        assert second.get("/api/jobs")["jobs"][0]["id"] == long
        (small_disk / "filler").unlink()
        assert second.wait_for(long)["state"] == "interrupted"


def test_a_cancel_starts_no_thread(tmp_path: Path) -> None:
    with studio(tmp_path) as client:
        before = None
        for number in range(4):
            job_id = client.post("/api/jobs", json=asked(60_000)).json()["id"]
            state(client, job_id, "running")
            for _ in range(5):
                client.post(f"/api/jobs/{job_id}/cancel")
            state(client, job_id, "cancelled")
            if number == 1:
                before = {thread.name for thread in threading.enumerate() if "AnyIO" not in thread.name}
        assert {thread.name for thread in threading.enumerate() if "AnyIO" not in thread.name} == before


def test_a_worker_that_does_not_stop_is_ended(tmp_path: Path) -> None:
    stubborn = tmp_path / "stubborn.py"
    stubborn.write_text('import sys, time\nprint(\'{"type": "ready"}\', flush=True)\ntime.sleep(600)\n')
    with studio(tmp_path / "data", cancel_seconds=0.4) as client:
        client.app.state.studio.jobs.settings.__dict__["worker"] = (str(stubborn),)  # type: ignore[attr-defined]
        job_id = client.post("/api/jobs", json=asked(1)).json()["id"]
        until(lambda: client.get(f"/api/jobs/{job_id}").json()["state"] == "running")
        client.post(f"/api/jobs/{job_id}/cancel")
        until(lambda: client.get(f"/api/jobs/{job_id}").json()["state"] == "cancelled")


def test_as_many_pages_listen_as_may_and_no_more(tmp_path: Path) -> None:
    with StudioProcess(tmp_path, QUICK) as process:
        let_go = threading.Event()

        def listen(_: int) -> int:
            with process.http.stream("GET", "/api/events") as response:
                if response.status_code == 200:
                    let_go.wait(60)
                return response.status_code

        with ThreadPoolExecutor(45) as pool:
            asked_for = [pool.submit(listen, number) for number in range(45)]
            until(lambda: sum(one.done() for one in asked_for) == 45 - Limits().streams)
            let_go.set()
        statuses = sorted(one.result() for one in asked_for)
        assert statuses == [200] * Limits().streams + [429] * (45 - Limits().streams)
        until(lambda: listen(0) == 200)  # and their places are free again


def test_a_long_list_reads_no_plans(tmp_path: Path) -> None:
    """What makes a start slow is reading hundreds of kilobytes a job: a list and a start read none of them."""
    some_jobs(tmp_path, 5)
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite")) as connection, connection:
        connection.execute("UPDATE bodies SET request = 'no JSON', plan = 'no JSON'")
    table = JobTable(tmp_path / "jobs.sqlite")
    table.recover(lambda _: None)
    assert len(table.newest(10)) == 5 and table.pictures() == {"a" * 64} and len(table.ids()) == 5
    with pytest.raises(sqlite3.DatabaseError, match="damaged"):
        table.get(table.ids()[0])
    with studio(tmp_path) as client:
        listed = client.get("/api/jobs?limit=2").json()
        assert len(listed["jobs"]) == 2 and listed["more"]
        assert client.get(f"/api/jobs/{listed['jobs'][0]['id']}").status_code == 503


def test_a_newer_file_and_a_place_that_is_none_are_mistakes_in_words(tmp_path: Path) -> None:
    (tmp_path / "folder.sqlite").mkdir()
    with pytest.raises(ValueError, match=r"^data: .*cannot be used"):
        Database(tmp_path / "folder.sqlite")
    with closing(sqlite3.connect(tmp_path / "newer.sqlite")) as connection:
        connection.execute("PRAGMA user_version = 3")
    with pytest.raises(ValueError, match="newer sgi2v"):
        Database(tmp_path / "newer.sqlite")

"""Kill -9 at twenty seeded moments: no job lost, none run twice; and what else may end a studio or its worker."""

import collections
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from studio_process import DONE, QUICK, StudioProcess, until
from studio_scene import asked

NUM_KILLS = 20


def begun(data: Path) -> list[tuple[str, int]]:
    """What the workers wrote down when they began: job and process."""
    log = data / "runs.log"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return [(job, int(process)) for job, process in (line.split() for line in lines)]


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def all_jobs(studio: StudioProcess) -> dict[str, Any]:
    return {job["id"]: job for job in studio.get("/api/jobs?limit=500")["jobs"]}


@pytest.mark.long
def test_no_kill_loses_a_job_or_runs_one_twice(tmp_path: Path) -> None:
    chance = random.Random(6)
    sent: dict[str, tuple[dict[str, Any], str | None]] = {}  # key -> request, id if it was acknowledged
    seen_over: dict[str, str] = {}
    for kill in range(NUM_KILLS):
        with StudioProcess(tmp_path, QUICK) as studio:
            there = all_jobs(studio)
            assert {job_id for _, job_id in sent.values() if job_id} <= set(there), "a job is lost"
            for job_id, state in seen_over.items():
                assert there[job_id]["state"] == state, "what is over came back"
            seen_over |= {job_id: job["state"] for job_id, job in there.items() if job["state"] in DONE}
            moment = time.monotonic() + chance.uniform(0.0, 0.5)
            for number in range(chance.randint(1, 3)):
                key = f"{kill}-{number}"
                request = asked(chance.randint(1, 150))
                sent[key] = request, None
                try:
                    answer = studio.http.post("/api/jobs", json=request, headers={"Idempotency-Key": key})
                    sent[key] = request, answer.raise_for_status().json()["id"]
                except httpx.TransportError:
                    break
            time.sleep(max(0.0, moment - time.monotonic()))
            studio.kill()
    with StudioProcess(tmp_path, QUICK) as studio:
        for key, (
            request,
            acknowledged,
        ) in sent.items():  # whoever got no answer asks again, with the same key
            again = studio.http.post("/api/jobs", json=request, headers={"Idempotency-Key": key}).json()
            assert acknowledged in (None, again["id"])
        until(lambda: all(job["state"] in DONE for job in all_jobs(studio).values()))
        there = all_jobs(studio)
    assert len(there) == len(sent)
    runs = collections.Counter(job_id for job_id, _ in begun(tmp_path))
    assert max(runs.values()) == 1, "a job was run twice"
    states = collections.Counter(job["state"] for job in there.values())
    assert set(states) == {"done", "interrupted"} and states["interrupted"] >= 3 and states["done"] >= 3, states
    for job_id, job in there.items():
        whole = (tmp_path / "jobs" / job_id / "result" / "result.json").is_file()
        assert whole == (job["state"] == "done")
        assert job["state"] != "done" or runs[job_id] == 1
        assert (job["message"] is None) == (job["state"] == "done")
    assert not list(tmp_path.glob("jobs/*/.*")), "half a result is left"
    until(lambda: not any(alive(process) for _, process in begun(tmp_path)))


def test_a_studio_that_is_closed_says_so_and_goes_on_where_it_was(tmp_path: Path) -> None:
    with StudioProcess(tmp_path) as studio:
        first, second = (studio.http.post("/api/jobs", json=asked(ms)).json()["id"] for ms in (60_000, 1))
        studio.wait_for(first, "running")
        until(lambda: begun(tmp_path))
        studio.stop()
    assert not alive(begun(tmp_path)[0][1])
    with StudioProcess(tmp_path) as studio:
        interrupted = studio.get(f"/api/jobs/{first}")
        assert interrupted["state"] == "interrupted" and "Retry" in interrupted["message"]
        assert studio.wait_for(second)["state"] == "done"
        retry = studio.http.post(f"/api/jobs/{first}/retry")
        assert retry.status_code == 201 and retry.json()["retry_of"] == first
        studio.http.post(f"/api/jobs/{retry.json()['id']}/cancel").raise_for_status()
        assert studio.wait_for(retry.json()["id"])["state"] == "cancelled"


def test_a_worker_that_dies_fails_its_job_and_is_replaced(tmp_path: Path) -> None:
    with StudioProcess(tmp_path) as studio:
        first, second = (studio.http.post("/api/jobs", json=asked(ms)).json()["id"] for ms in (60_000, 1))
        ((_, process),) = until(lambda: begun(tmp_path))
        os.kill(process, signal.SIGKILL)
        failed = studio.wait_for(first)
        assert failed["state"] == "failed" and "signal 9" in failed["message"]
        assert studio.wait_for(second)["state"] == "done"
        assert len({process for _, process in begun(tmp_path)}) == 2


def test_what_asks_all_processes_to_end_leaves_the_job_to_the_studio(tmp_path: Path) -> None:
    with StudioProcess(tmp_path) as studio:
        job_id = studio.http.post("/api/jobs", json=asked(60_000)).json()["id"]
        ((_, worker),) = until(lambda: begun(tmp_path))
        os.kill(worker, signal.SIGTERM)
        os.kill(worker, signal.SIGINT)
        time.sleep(0.3)
        assert studio.get(f"/api/jobs/{job_id}")["state"] == "running"
        studio.process.send_signal(signal.SIGTERM)
        studio.process.wait()
    with StudioProcess(tmp_path) as studio:
        assert studio.get(f"/api/jobs/{job_id}")["state"] == "interrupted"


def test_two_studios_do_not_share_a_folder(tmp_path: Path) -> None:
    program = (
        "import sys; import sgi2v.studio.studio as s; s._LOCK_SECONDS = 0.1\n"
        "sys.path.insert(0, 'tests'); from studio_quick import quick_settings; from pathlib import Path\n"
        f"s.Studio(quick_settings(Path({str(tmp_path)!r})))"
    )
    with StudioProcess(tmp_path) as studio:
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert run.returncode == 1 and "FieldError: data: another studio works in" in run.stderr
        assert studio.get("/health") == {"ok": True}


@pytest.mark.parametrize("path", ["/", "/docs", "/health"])
def test_an_address_is_printed_when_it_answers(tmp_path: Path, path: str) -> None:
    with StudioProcess(tmp_path) as studio:
        assert studio.http.get(path).status_code == 200

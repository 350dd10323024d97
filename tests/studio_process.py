"""A studio in a process of its own, as people run it: started, spoken to over HTTP, killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

ROOT = Path(__file__).parents[1]
QUICK = (str(ROOT / "tests" / "studio_quick.py"), "serve")
REAL = ("-m", "sgi2v.cli", "studio", "--port", "0")
PATIENCE = 120.0  # seconds: a shared machine may be slow
DONE = ("done", "failed", "cancelled", "interrupted")


class StudioProcess:
    """A server process that is gone at the end of the block."""

    def __init__(self, data: Path, program: Sequence[str] = QUICK, *options: str, token: str | None = None) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        if token:
            environment["SGI2V_STUDIO_TOKEN"] = token
        self.data = data
        self.process = subprocess.Popen(
            [sys.executable, *program, "--data", str(data), *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip().rstrip("/")
        if not self.url:
            assert self.process.stderr is not None
            raise RuntimeError(self.process.stderr.read())
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.http = httpx.Client(base_url=self.url, timeout=PATIENCE, headers=headers)

    def __enter__(self) -> "StudioProcess":
        """The running server."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill it."""
        self.kill()

    def kill(self) -> None:
        """As `kill -9` does."""
        self.process.kill()
        self._gone()

    def stop(self) -> None:
        """As Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)
        self._gone()

    def _gone(self) -> None:
        self.http.close()
        self.process.wait(timeout=PATIENCE)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    def get(self, path: str) -> Any:
        """The JSON at a path."""
        return self.http.get(path).raise_for_status().json()

    def wait_for(self, job_id: str, *states: str) -> Any:
        """A job as soon as it is in one of the states (over, by default)."""
        return until(lambda: found if (found := self.get(f"/api/jobs/{job_id}"))["state"] in (states or DONE) else None)


def until(look: Callable[[], Any]) -> Any:
    """What `look` gives as soon as it gives something."""
    end = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return found

"""A worker's process as the studio sees it: lines of JSON in and out."""

import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from sgi2v.records import Json
from sgi2v.studio.settings import StudioSettings

_MAX_LINE: Final = 8 * 2**20


class Worker:
    """One worker process and the model it holds."""

    def __init__(self, settings: StudioSettings, backbone: str, lock: int, log: Path) -> None:
        command = [sys.executable, *settings.worker, "--backbone", backbone]
        for name in ("device", "dtype", "memory", "provenance"):
            if value := getattr(settings, name):
                command += [f"--{name}", value]
        self.backbone = backbone
        self._writing = threading.Lock()
        with log.open("wb") as errors:
            # The lock on the data folder is the worker's too: no other studio begins while it lives.
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, pass_fds=(lock,)
            )

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self.process.poll() is None

    def send(self, message: Mapping[str, object]) -> None:
        """A line for the worker; nothing when it is gone, which reading from it will show."""
        assert self.process.stdin is not None
        with self._writing, suppress(OSError, ValueError):
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()

    def receive(self) -> Json | None:
        """The next message; None when the process has ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline(_MAX_LINE)
        if not line.endswith(b"\n"):
            return None
        message = json.loads(line)
        assert isinstance(message, dict)
        return message

    def end(self) -> None:
        """Kill the process and wait until it is gone."""
        with suppress(OSError):
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with suppress(OSError):
                stream.close()

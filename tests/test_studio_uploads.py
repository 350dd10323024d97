"""Files on their way to the studio: held in no memory, within bounds, in time; and kept as long as they are needed."""

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser
from starlette.testclient import TestClient

from sgi2v.studio.app import create_app
from sgi2v.studio.settings import Limits
from studio_page import LAPTOP, STUDIO, Visit, chromium, needs_browser
from studio_process import QUICK, StudioProcess, until
from studio_quick import QuickEngine, quick_settings
from studio_scene import asked, file_of, picture
from tiny import small_bundled

MONTH = 30 * 24 * 3600


def studio(data: Path, **changed: Any) -> TestClient:
    app = create_app(quick_settings(data, **changed), engine=QuickEngine, warm_up=False)
    return TestClient(app, base_url="http://127.0.0.1:7860")


def begun(process: StudioProcess, path: str, length: int, sent: bytes) -> socket.socket:
    """A request that has begun and does not go on."""
    host, port = process.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    head = f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {length}\r\n\r\n"
    connection.sendall(head.encode())
    connection.settimeout(20)
    for start in range(0, len(sent), 1 << 20):
        connection.sendall(sent[start : start + (1 << 20)])
    return connection


def memory(process: StudioProcess) -> float:
    """MiB that the server holds."""
    text = Path(f"/proc/{process.process.pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def test_what_is_being_sent_is_on_the_disk_and_bounded(tmp_path: Path) -> None:
    large = bytes(120 << 20)
    with StudioProcess(tmp_path, QUICK) as process:
        process.http.post("/api/images", content=file_of(picture()))
        before = memory(process)
        held = [begun(process, "/api/import/video", len(large) + 1, large) for _ in range(4)]
        until(lambda: sum(file.stat().st_size for file in (tmp_path / "temporary").iterdir()) == 4 * len(large))
        assert memory(process) - before < 100
        last = [begun(process, "/api/import/video", 150 << 20, b"") for _ in range(3)]
        until(lambda: process.http.post("/api/images", content=file_of(picture())).status_code == 201)
        answer = last[-1].recv(4000)
        assert b" 429 " in answer and b"being sent already" in answer
        for connection in held + last:
            connection.close()
        until(lambda: not list((tmp_path / "temporary").iterdir()))
        assert process.http.post("/api/import/video", content=large).status_code == 422  # there is room again


@pytest.mark.parametrize("path", ["/api/images", "/api/plan", "/api/import/scene"])
def test_a_body_that_does_not_come_is_given_up(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sgi2v.studio.guard._SLOWEST", 10**9)

    with studio(tmp_path, limits=Limits(body_seconds=0.4)) as client:
        app, begun_at = client.app, time.monotonic()
        assert app is not None
        sent: list[Any] = []

        async def receive() -> Any:
            await asyncio.sleep(0.05)
            return {"type": "http.request", "body": b" ", "more_body": True}

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json"), (b"content-length", b"10000")]
        scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}

        async def ask() -> None:
            await app({**scope, "http_version": "1.1", "raw_path": path.encode()}, receive, send)

        asyncio.run(ask())
        assert sent[0]["status"] == 408 and b"too slowly" in sent[1]["body"]
        assert time.monotonic() - begun_at < 30 and not list((tmp_path / "temporary").iterdir())


def test_a_stream_of_events_is_no_slow_body(tmp_path: Path) -> None:
    with StudioProcess(tmp_path, QUICK) as process, process.http.stream("GET", "/api/events") as response:
        assert next(response.iter_lines()).startswith("retry")
        assert process.get("/health") == {"ok": True}


def test_a_picture_stays_as_long_as_a_page_or_a_job_needs_it(tmp_path: Path) -> None:
    with studio(tmp_path) as client:
        kept, lost = (client.post("/api/images", content=file_of(picture(seed=k))).json()["id"] for k in (5, 6))
        job = client.post("/api/jobs", json=asked(1)).json()
        of_job = job["request"]["scene"]["image"].removeprefix("upload:")
        assert client.post("/api/keep", json={"page": "a", "pictures": [kept]}).status_code == 204
        assert client.post("/api/keep", json={"page": "b", "pictures": ["../x"]}).status_code == 422

    def old() -> None:
        for path in (tmp_path / "images").iterdir():
            os.utime(path, (time.time() - MONTH,) * 2)

    old()
    with studio(tmp_path) as client:
        there = {path.stem for path in (tmp_path / "images").iterdir()}
        assert kept in there and of_job in there and lost not in there
        client.post("/api/keep", json={"page": "a", "pictures": []})
    old()
    with studio(tmp_path):
        assert kept not in {path.stem for path in (tmp_path / "images").iterdir()}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@needs_browser
def test_the_page_says_what_it_needs_and_how_far_a_file_is(browser: Browser, tmp_path: Path) -> None:
    options = ("--port", "0", "--backbone", str(small_bundled()))
    with StudioProcess(tmp_path, STUDIO, *options) as process:
        context = browser.new_context(viewport=LAPTOP)
        visit = Visit(context, process.url)
        visit.photo()
        visit.photo(90)  # undo goes back to the first
        visit.page.wait_for_timeout(600)
        cdp = context.new_cdp_session(visit.page)
        cdp.send("Network.enable")
        slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 300_000}
        cdp.send("Network.emulateNetworkConditions", slow)
        visit.open(("large.png", file_of(picture(700, 500))))
        visit.page.wait_for_selector(".toast.sending progress")
        visit.page.wait_for_selector(".toast.sending:has-text('%')")
        visit.wait("s.doc.image.width === 700")
        visit.page.wait_for_selector(".toast.sending", state="detached")
        visit.page.wait_for_timeout(600)
        assert visit.errors == []
        visit.page.context.close()
    for path in (tmp_path / "images").iterdir():
        os.utime(path, (time.time() - MONTH,) * 2)
    with StudioProcess(tmp_path, STUDIO, *options):
        assert len(list((tmp_path / "images").iterdir())) == 3

"""A page of the studio in Debian's Chromium, with real mouse and keyboard, for the tests that look at it."""

import io
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    FilePayload,
    Request,
    ViewportSize,
    sync_playwright,
)

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: the page is NOT tested")
STUDIO = ("-m", "sgi2v.cli", "studio")
LAPTOP, PHONE = ViewportSize(width=1366, height=768), ViewportSize(width=390, height=844)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser, closed at the end of the block."""
    with sync_playwright() as machine:
        opened = machine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


class Visit:
    """A page of the studio, and all that it complained about or asked another host for."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.page = context.new_page()
        self.url = url
        self.errors: list[str] = []
        self.outside: list[str] = []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        context.on("request", self._request)
        self.page.goto(url)
        self.ready()

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(f"{message.text} {message.location}")

    def _request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and f"{parts.scheme}://{parts.netloc}" != self.url:
            self.outside.append(request.url)

    def ready(self) -> None:
        self.page.wait_for_selector("body[data-ready]", timeout=60_000)

    def state(self) -> dict[str, Any]:
        return dict(self.page.evaluate("sgi2v.state()"))

    def motions(self) -> list[dict[str, Any]]:
        return list(self.state()["scene"]["motions"])

    def wait(self, expression: str, timeout: float = 120.0) -> None:
        """Until a JavaScript expression over the state `s` is true, asked from outside: the page forbids eval."""
        end = time.monotonic() + timeout
        while not self.page.evaluate(f"(() => {{ const s = sgi2v.state(); return {expression}; }})()"):
            assert time.monotonic() < end, f"waited in vain for {expression}"
            self.page.wait_for_timeout(40)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a pixel of the photo is in the window."""
        box = self.page.locator("#plan").bounding_box()
        assert box is not None
        place = self.page.evaluate("([x, y]) => sgi2v.place(x, y)", [x, y])
        return box["x"] + place[0], box["y"] + place[1]

    def drag(self, *points: tuple[float, float]) -> None:
        """With the mouse through pixels of the photo."""
        mouse = self.page.mouse
        mouse.move(*self.at(*points[0]))
        mouse.down()
        for point in points[1:]:
            mouse.move(*self.at(*point), steps=6)
        mouse.up()
        self.settle()

    def settle(self) -> None:
        """Until the page has drawn what it was told."""
        self.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)
        self.settle()

    def scrub(self, frame: int) -> None:
        slider = self.page.locator("#scrub")
        slider.focus()
        slider.press("Home")
        for _ in range(frame):
            slider.press("ArrowRight")
        assert self.state()["ui"]["frame"] == frame

    def open(self, *files: tuple[str, bytes]) -> None:
        kinds = {"png": "image/png", "json": "application/json", "mp4": "video/mp4"}
        payloads = [
            FilePayload(name=name, mimeType=kinds.get(name.split(".")[-1], "application/octet-stream"), buffer=data)
            for name, data in files
        ]
        self.page.set_input_files("#file", payloads)

    def photo(self, width: int = 120, height: int = 80) -> None:
        self.open(("photo.png", png(width, height)))
        self.wait(f"s.doc.image?.width === {width}")
        self.settle()

    def message(self) -> str:
        self.page.wait_for_selector(".toast.error")
        return self.page.locator(".toast.error p").last.inner_text()


def png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    picture = Image.linear_gradient("L").resize((width, height))
    Image.merge("RGB", (picture, picture.transpose(Image.Transpose.ROTATE_180), picture)).save(file, "PNG")
    return file.getvalue()

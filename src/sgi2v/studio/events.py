"""Streams of events for open pages: a list of jobs first, then changes; a slow page gets the newest only."""

import asyncio
import itertools
import json
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from http import HTTPStatus
from typing import Final

from sgi2v.studio.problems import Problem

HEARTBEAT: Final = 10.0  # seconds between signs of life


class Listener:
    """One page's stream: what it has not been told yet, at most one entry a job and kind."""

    def __init__(self) -> None:
        self.pending: dict[tuple[str, str], object] = {}
        self.changed = asyncio.Event()


class Listening:
    """A page's stream, whose place is free again when it is closed, also where nobody ever read it."""

    def __init__(self, stream: AsyncGenerator[str, None], leave: Callable[[], None]) -> None:
        self._stream, self._leave = stream, leave

    def __aiter__(self) -> AsyncIterator[str]:
        """The stream's texts."""
        return self._stream

    async def __anext__(self) -> str:
        """Its next text."""
        return await anext(self._stream)

    async def aclose(self) -> None:
        """End it."""
        await self._stream.aclose()
        self._leave()


class Hub:
    """Passes what happens on to all pages that listen; told from any thread."""

    def __init__(self, max_listeners: int) -> None:
        self._listeners: set[Listener] = set()
        self._max_listeners = max_listeners
        self._numbers = itertools.count(1)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._lock = threading.RLock()  # a signal's handler may come in while its own thread holds it

    def start(self) -> None:
        """Called in the event loop whose streams this hub feeds."""
        self._loop = asyncio.get_running_loop()

    def close(self) -> None:
        """End every stream, so that the server can end."""
        self._closed = True
        self._in_loop(self._wake)

    def tell(self, kind: str, job_id: str, data: object) -> None:
        """An event for every page; it takes the place of an earlier one of this kind about the same job."""
        self._in_loop(lambda: self._put(kind, job_id, data))

    def listen(self, snapshot: Callable[[], object]) -> "Listening":
        """A page's stream as text/event-stream, to be closed; Problem 429 when too many listen."""
        if len(self._listeners) >= self._max_listeners:
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"{len(self._listeners)} pages listen, as many as this studio serves; close some",
            )
        listener = Listener()
        self._listeners.add(listener)  # now, not when its stream is first read: many may ask in between
        return Listening(self._stream(snapshot, listener), lambda: self._listeners.discard(listener))

    async def _stream(self, snapshot: Callable[[], object], listener: Listener) -> AsyncGenerator[str, None]:
        try:
            # Listening first and looking second: what happens in between is told twice rather than not at all.
            yield "retry: 1000\n\n" + self._event("snapshot", await asyncio.to_thread(snapshot))
            while not self._closed:
                try:
                    await asyncio.wait_for(listener.changed.wait(), HEARTBEAT)
                except TimeoutError:
                    yield ": still here\n\n"
                    continue
                listener.changed.clear()
                pending, listener.pending = listener.pending, {}
                if pending:
                    yield "".join(self._event(kind, data) for (kind, _), data in pending.items())
        finally:
            self._listeners.discard(listener)

    def _event(self, kind: str, data: object) -> str:
        return f"id: {next(self._numbers)}\nevent: {kind}\ndata: {json.dumps(data, allow_nan=False)}\n\n"

    def _put(self, kind: str, job_id: str, data: object) -> None:
        for listener in self._listeners:
            listener.pending.pop((kind, job_id), None)  # so that it comes after what happened before it
            listener.pending[kind, job_id] = data
        self._wake()

    def _wake(self) -> None:
        for listener in self._listeners:
            listener.changed.set()

    def _in_loop(self, action: Callable[[], None]) -> None:
        with self._lock:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(action)

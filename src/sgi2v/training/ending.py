"""Ends a training in order: on Ctrl-C or SIGTERM, or when its time is up, it saves after the step it is in."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Ending:
    """The answer to `stop`, which a training asks after every step."""

    def __init__(self, minutes: float) -> None:
        """minutes: from now; 0 has no end."""
        self.interrupted = False
        self._last = time.monotonic() + 60 * minutes if minutes > 0 else float("inf")

    def __call__(self) -> bool:
        """True once it is to end."""
        return self.interrupted or time.monotonic() >= self._last

    def interrupt(self, number: int, _: FrameType | None) -> None:
        """Take a signal down; a second one ends at once, and loses what came after the newest checkpoint."""
        if self.interrupted:
            raise KeyboardInterrupt("ended at once; the same command goes on from the newest checkpoint")
        self.interrupted = True


@contextmanager
def ending(minutes: float = 0.0) -> Iterator[Ending]:
    """Within, Ctrl-C and SIGTERM ask to end; outside a program's main thread time alone does."""
    asked = Ending(minutes)
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, asked.interrupt) for number in numbers]
    try:
        yield asked
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)

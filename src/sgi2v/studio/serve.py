"""Runs a studio until it is told to end: takes the port, says when it answers, ends the streams first."""

import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from sgi2v.errors import FieldError
from sgi2v.studio.settings import StudioSettings
from sgi2v.studio.studio import Studio

_GRACE = 5  # seconds that requests may still take at the end


class Server(uvicorn.Server):
    """Uvicorn's server, with a word when it answers and streams that end when it does."""

    def __init__(self, config: uvicorn.Config, studio: Studio, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._studio = studio
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say so."""
        await super().startup(sockets=sockets)
        if self.started:
            self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End the pages' streams, which would never end by themselves, then everything else."""
        self._studio.hub.close()
        super().handle_exit(sig, frame)


def run(app: FastAPI, ready: Callable[[str], None]) -> None:
    """Serve an application of `create_app` until a signal ends it; `ready` is told the address to open.

    Raises ValueError when the port cannot be had.
    """
    studio = app.state.studio
    assert isinstance(studio, Studio)
    settings = studio.settings
    listening = _bound(settings)
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_graceful_shutdown=_GRACE,
    )
    server = Server(config, studio, lambda: ready(f"http://{shown}:{port}/"))
    try:
        server.run(sockets=[listening])
    except KeyboardInterrupt:  # uvicorn passes on the Ctrl-C that it has obeyed
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _bound(settings: StudioSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise FieldError(
            "port",
            f"{settings.host}:{settings.port} cannot be had ({error.strerror})",
            "give another --port, or 0 for any",
        ) from error
    return listening

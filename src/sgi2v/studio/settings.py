"""Settings of a studio: address, access and limits."""

import re
import secrets
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Literal

from sgi2v.errors import FieldError
from sgi2v.images import MAX_PIXELS, MAX_URI

Memory = Literal["fast", "balanced", "low", "auto"]
"""As :mod:`sgi2v.backbones.memory` has it, which a server that is starting does not wait for."""
MIN_TOKEN: Final = 16
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of a studio; every refusal names the one that is reached."""

    image_bytes: int = 64 * 2**20
    """Of an uploaded picture, and of a traj.npy."""
    image_pixels: int = MAX_PIXELS
    """Of a picture, as its header declares them."""
    video_bytes: int = 192 * 2**20
    """Of an uploaded mp4 or gif: its record holds the scene's picture."""
    scene_bytes: int = MAX_URI + 2**20
    """Of an imported scene.json with its pictures in it."""
    json_bytes: int = 16 * 2**20
    """Of any other request."""
    video_pixels: int = 400_000_000
    """Width times height times frames of a video asked for."""
    queued_jobs: int = 32
    """Jobs waiting."""
    history: int = 2000
    """Jobs kept, whatever became of them."""
    free_bytes: int = 512 * 2**20
    """Bytes that must stay free on the data folder's disk for anything to be taken."""
    in_flight_bytes: int = 768 * 2**20
    """Bytes of all requests that are being received."""
    body_seconds: float = 30.0
    """Seconds without a byte after which a request is given up; what is slower than 8 KiB a second in all, too."""
    streams: int = 32
    """Pages that listen at a time."""


@dataclass(frozen=True, kw_only=True)
class StudioSettings:
    """A studio's address, data folder, models and access.

    Raises ValueError for a host that other machines can reach without a token, and for values out of range.
    """

    data: Path
    """Folder for jobs, results and uploaded pictures; made if it is not there. One studio at a time works in it."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 7860
    """Port to listen on; 0 takes a free one."""
    backbones: tuple[str, ...] = ("bundled",)
    """Models on offer, the first being the default; one is loaded at a time."""
    device: str | None = None
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    memory: Memory = "auto"
    """Memory mode: how much of the device's memory is spared."""
    provenance: Literal["on", "off"] = "on"
    """Credentials and mark of the videos (:mod:`sgi2v.provenance`)."""
    token: str | None = None
    """The secret that a visitor must give; needed as soon as other machines can reach the studio."""
    allowed_hosts: tuple[str, ...] = ()
    """Names, beside this machine's own and plain addresses, under which the studio may be asked for."""
    worker: tuple[str, ...] = ("-m", "sgi2v.studio.worker")
    """Python's arguments that start a worker."""
    cancel_seconds: float = 60.0
    """Seconds that a worker may take to stop what it is doing before it is killed."""
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise FieldError("port", f"must lie in 0..65535, got {self.port}")
        if not self.backbones:
            raise FieldError("backbone", "name at least one model, as in --backbone bundled")
        for number, source in enumerate(self.backbones):
            for other in self.backbones[:number]:
                if _shown(other) == _shown(source):  # jobs name their model so: one of the two could not be had
                    raise FieldError(
                        "backbone",
                        f"{other} and {source} would both be shown as {_shown(source)!r}",
                        "give each model once, and rename a folder so that their last names differ",
                    )
        for name in self.allowed_hosts:
            if not _NAME.fullmatch(name):
                raise FieldError(
                    "allowed_hosts", f"{name!r} is no name of a machine", "give one as in studio.example.org"
                )
        if self.token is not None and (
            len(self.token) < MIN_TOKEN or not self.token.isascii() or not self.token.isprintable()
        ):
            raise FieldError("token", f"give {MIN_TOKEN} or more plain characters, as in {secrets.token_urlsafe(24)}")
        if self.token is None and not self.only_this_machine:
            raise FieldError(
                "host",
                f"{self.host} can be reached by other machines",
                f"give a --token as well, as in {secrets.token_urlsafe(24)}",
            )

    @property
    def only_this_machine(self) -> bool:
        """True if no other machine can reach the address."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def source_of(self, shown: str) -> str:
        """The model behind the name that pages and records show, which is without this machine's folders.

        Raises ValueError when there is none.
        """
        for source in self.backbones:
            if shown in (source, _shown(source)):
                return source
        raise FieldError(
            "backbone", f"{shown!r} is not on offer here", "start the studio with --backbone and its folder"
        )


def _shown(source: str) -> str:
    """A model's name without this machine's folders."""
    return re.split(r"[/\\]", source.rstrip("/\\"))[-1]

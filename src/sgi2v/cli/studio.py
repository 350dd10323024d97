"""The command that opens the studio."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sgi2v.cli.common import parse
from sgi2v.errors import FieldError


def data_folder() -> Path:
    """Folder of the studio's jobs, results and pictures, unless another is named; XDG_DATA_HOME moves it."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "sgi2v" / "studio"


@dataclass(frozen=True, kw_only=True)
class StudioOptions:
    """Open a page on this machine where scenes are drawn, run and compared. Ctrl-C ends it; its history stays."""

    host: str = "127.0.0.1"
    """Address to listen on; one that other machines can reach asks for --token."""
    port: int = 7860
    """Port to listen on; 0 takes a free one."""
    data: Path | None = None
    """Folder for jobs, results and pictures. Default: sgi2v/studio in the user's data folder."""
    backbone: tuple[str, ...] = ("bundled",)
    """Models on offer, the first being the default: bundled, svd, svd-xt, folders or hub ids. One is
    loaded at a time."""
    provenance: Literal["on", "off"] = "on"
    """Signed credentials in the videos' files and an invisible mark in the pixels of mp4s and gifs, or off: neither."""
    token: str | None = None
    """Password of a visitor, 16 or more characters. Better said as SGI2V_STUDIO_TOKEN, which other users of the
    machine cannot see."""
    allowed_hosts: tuple[str, ...] = ()
    """Names of this machine under which other machines open the studio; plain addresses need none."""
    device: str | None = None
    """cpu, cuda, cuda:1, mps …; default: the best that this machine has."""
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    """Number format of the networks; default: what suits the device."""
    memory: Literal["fast", "balanced", "low", "auto"] = "auto"
    """Use of the device's memory: fast, balanced, low, or auto: the first of these that fits what is free. The
    videos are the same."""


def studio(arguments: Sequence[str]) -> None:
    """Open the studio: draw boxes, drag paths, watch the result."""
    options = parse(StudioOptions, "studio", arguments)
    try:
        from sgi2v.studio.app import create_app
        from sgi2v.studio.serve import run
        from sgi2v.studio.settings import StudioSettings
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "sgi2v":
            raise
        raise FieldError("studio", f"{error.name} is not installed", "pip install 'sgi2v[studio]'") from None

    settings = StudioSettings(
        data=options.data or data_folder(),
        host=options.host,
        port=options.port,
        backbones=options.backbone,
        device=options.device,
        dtype=options.dtype,
        memory=options.memory,
        provenance=options.provenance,
        token=options.token or os.environ.get("SGI2V_STUDIO_TOKEN") or None,
        allowed_hosts=options.allowed_hosts,
    )

    def ready(address: str) -> None:
        print(address, flush=True)
        print(f"the studio is open; its data lies in {settings.data}; Ctrl-C ends it", file=sys.stderr)

    run(create_app(settings), ready)

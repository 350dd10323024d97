"""The command line: results and figures to stdout, progress and errors to stderr. Only this room prints."""

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from types import MappingProxyType
from typing import Any, Final

from sgi2v.cli.info import info
from sgi2v.cli.making import convert, demo, generate, mask, preview, replay
from sgi2v.cli.measuring import benchmark, features, report
from sgi2v.cli.studio import studio
from sgi2v.cli.training import train
from sgi2v.errors import FieldError
from sgi2v.records import NewerRecord

SPOILED: Final = 2  # exit codes: what was asked for cannot be done
NO_MEMORY: Final = 3
INTERRUPTED: Final = 130
UNREAD: Final = 141
COMMANDS: Final = MappingProxyType(
    {
        "generate": generate,
        "preview": preview,
        "mask": mask,
        "convert": convert,
        "replay": replay,
        "demo": demo,
        "studio": studio,
        "benchmark": benchmark,
        "report": report,
        "features": features,
        "info": info,
        "train": train,
    }
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code.

    0, 2 for a mistake in what was asked, 3 out of memory, 130 for Ctrl-C, 141 when whoever read the output has left.
    """
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()  # here, where a reader that has left can still be caught
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)  # for what Python itself flushes when it ends
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())
        return UNREAD


def _run(arguments: Sequence[str] | None) -> int:
    name, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help", "help"):
        print(_help())
        return 0
    if name in ("-V", "--version"):
        print(f"sgi2v {version('sgi2v')}")
        return 0
    # Libraries that talk on import or load would bury the one line that matters.
    for library in ("TRANSFORMERS", "DIFFUSERS"):
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
    try:
        if name not in COMMANDS:
            raise FieldError("command", f"unknown {name!r}", f"known are {', '.join(COMMANDS)}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", NewerRecord)
            warnings.showwarning = _show_warning
            COMMANDS[name](rest)
    except (ValueError, MemoryError) as error:
        if os.environ.get("SGI2V_TRACEBACK"):
            traceback.print_exc()
        print(f"sgi2v: {' '.join(str(error).split()) or 'the machine has too little memory'}", file=sys.stderr)
        return SPOILED if isinstance(error, ValueError) else NO_MEMORY
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which is not imported for this
            raise
        print("sgi2v: the device has too little memory; choose a smaller size, or --device cpu", file=sys.stderr)
        return NO_MEMORY
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        print(f"sgi2v: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        return SPOILED
    except KeyboardInterrupt as stop:
        print(f"sgi2v: {str(stop) or 'interrupted; nothing was written'}", file=sys.stderr)
        return INTERRUPTED
    return 0


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"sgi2v: warning: {message}", file=sys.stderr)


def _help() -> str:
    lines = [f"  {name:10} {(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: sgi2v COMMAND ...      sgi2v COMMAND --help explains its options",
            "",
            "An image, boxes and paths in; a video whose contents follow them out.",
            "",
            *lines,
            "",
            "  --version  Print the version.",
        ]
    )

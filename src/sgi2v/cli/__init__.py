"""The command line: results and figures to stdout, progress and errors to stderr. Only this room prints."""

import difflib
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from types import MappingProxyType
from typing import Any, Final

from sgi2v.errors import FieldError

SPOILED: Final = 2  # exit codes: what was asked for cannot be done
NO_MEMORY: Final = 3
INTERRUPTED: Final = 130
UNREAD: Final = 141


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command, whose room is imported when it runs: a list of commands costs nothing."""

    name: str
    room: str
    summary: str

    def __call__(self, arguments: Sequence[str]) -> None:
        """Runs it."""
        getattr(import_module(f"sgi2v.cli.{self.room}"), self.name)(arguments)


_ROOMS: Final = (
    ("generate", "making", "Make a video of a scene."),
    ("say", "saying", "Write the scene that a sentence means, and its preview."),
    ("preview", "making", "Draw a scene's boxes and paths on its image; no model is loaded."),
    ("mask", "making", "Make masks from a scene's boxes."),
    ("convert", "making", "Write a scene as JSON, or as the published img.png and traj.npy."),
    ("replay", "making", "Make a video again from the record in its file."),
    ("demo", "making", "Make a shipped scene move on the bundled model, without control and with it."),
    ("studio", "studio", "Open the studio: draw boxes, drag paths, watch the result."),
    ("benchmark", "measuring", "Measure methods on many scenes, resumably."),
    ("report", "measuring", "Turn a benchmark's rows into tables and a page with all clips side by side."),
    ("features", "measuring", "Draw what the network's layers see in a scene, over frames and noise levels."),
    ("verify", "provenance", "Say where clips are from: credentials, the mark in the pixels, the record."),
    ("credentials", "provenance", "Choose who signs clips: init, use, show."),
    ("text", "text", "Encode prompts once, so that other runs or machines need no text encoder."),
    ("probe", "probing", "Find out which layers of a model know where a thing is."),
    ("info", "info", "Say what is here: versions, devices, memory, models."),
    ("doctor", "doctor", "Try out this installation, and say what to do where something is amiss."),
    ("train", "training", "Train a model's part, autoencoder or denoiser, or the benchmark's clip features."),
)
COMMANDS: Final = MappingProxyType(
    {name: Command(name=name, room=room, summary=summary) for name, room, summary in _ROOMS}
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
    for library in ("torchao", "torch.utils._pytree"):
        logging.getLogger(library).setLevel(logging.ERROR)
    try:
        if name not in COMMANDS:
            near = difflib.get_close_matches(name, COMMANDS, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise FieldError("command", f"unknown {name!r}", f"{hint}known are {', '.join(COMMANDS)}")
        from sgi2v.records import NewerRecord

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
    lines = [f"  {name:11} {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: sgi2v COMMAND ...      sgi2v COMMAND --help explains its options",
            "",
            "An image, boxes and paths in; a video whose contents follow them out.",
            "",
            *lines,
            "",
            "  --version   Print the version.",
        ]
    )

"""The command on files of trained systems: what one is, and the same as safetensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tyro.conf import Positional

from sgi2v.cli.common import parse
from sgi2v.errors import FieldError

_SHOWN: Final = 20
"""Faults of a file that are printed."""


@dataclass(frozen=True, kw_only=True)
class AdapterCheckOptions:
    """Say what the file of a trained system is, whether it is whole, and which model it needs; its header alone is
    read."""

    file: Positional[str]
    """A file, a folder, a published name or a hub id."""


@dataclass(frozen=True, kw_only=True)
class AdapterConvertOptions:
    """Write the weights of a trained system as safetensors, number for number; a pickle is opened as weights only."""

    file: Positional[str]
    """A file (.pth, .ckpt, .safetensors)."""
    output: Positional[Path]
    """A name ending in .safetensors; replaced if it is there."""
    beside: Path | None = None
    """A Stable Video Diffusion's folder: of a drag-nuwa, which brings a whole one, only what is not there is written.
    The result is used with --backbone FOLDER."""


def adapter(arguments: Sequence[str]) -> None:
    """Say what a trained system's file is, or write it as safetensors."""
    actions = {"check": _check, "convert": _convert}
    action, *rest = list(arguments) or ["--help"]
    if action in ("-h", "--help"):
        print("usage: sgi2v adapter check FILE | convert FILE OUTPUT.safetensors [--beside FOLDER]   (each has --help)")
        return
    if action not in actions:
        raise FieldError("adapter", f"unknown {action!r}", f"known are {', '.join(actions)}")
    actions[action](rest)


def _check(arguments: Sequence[str]) -> None:
    options = parse(AdapterCheckOptions, "adapter check", arguments)
    from sgi2v.backbones.adapter_kinds import find_adapter, kind_named

    found = find_adapter(options.file)
    kind, files = kind_named(found.kind), found.files
    formats = sorted({head.dtype for head in files.tensors.values()})
    print(f"{files.place}: {found.kind}, {len(files.tensors)} tensors, {files.count:,} numbers, {', '.join(formats)}")
    print(f"it needs {kind.needs}; steered by controller:{kind.steered_by}")
    if files.pickled:
        print("a pickle: sgi2v adapter convert writes it as safetensors, which load faster and can run no code")
    faults = kind.faults(files)
    for fault in faults[:_SHOWN]:
        print(f"  {fault}")
    if faults:
        raise FieldError("adapter", f"{files.place} is not whole: {len(faults)} faults", "fetch it again")
    print("it is whole")


def _convert(arguments: Sequence[str]) -> None:
    options = parse(AdapterConvertOptions, "adapter convert", arguments)
    from sgi2v.backbones.adapter_files import AdapterFiles
    from sgi2v.backbones.adapter_kinds import convert

    print(convert(AdapterFiles.read(Path(options.file)), options.output, options.beside))

"""What every command does alike: read its options, show how far it is, name its output."""

import contextlib
import io
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import tyro

from sgi2v.cli.bar import Bar

if TYPE_CHECKING:
    from sgi2v.backbones.base import Settings
    from sgi2v.backbones.memory import Memory, Mode
    from sgi2v.backbones.svd_outline import SVDOutline
    from sgi2v.controllers import Controller
    from sgi2v.generate import Sampling
    from sgi2v.video import Video

T = TypeVar("T")


def parse(kind: type[T], command: str, arguments: Sequence[str], default: T = tyro.MISSING_NONPROP) -> T:
    """A command's options; what tyro finds wrong as a ValueError of one line."""
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(kind, prog=f"sgi2v {command}", args=list(arguments), default=default)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ValueError(f"{_message(errors.getvalue())} (see sgi2v {command} --help)") from None


def _message(box: str) -> str:
    """What a box that tyro draws says first, between its title and the next rule."""
    # With frames of ─ the title stands in the first rule, in ASCII above it.
    _, *blocks = re.split(r"^.*[─-]{8}.*$", box, flags=re.MULTILINE)
    lines = (blocks[0] if blocks else box).splitlines()
    text = " ".join(line.strip("│| ") for line in lines).strip().removeprefix("Error parsing ")
    # A dataclass that refuses a value names its field itself.
    return re.sub(r"^\w+: (?=[\w.]+: )", "", text)


@contextlib.contextmanager
def progress_bar(*, quiet: bool, title: str = "") -> Iterator[Bar]:
    """A progress bar that is gone when the block ends, however it ends."""
    bar = Bar(quiet=quiet, title=title)
    try:
        yield bar
    finally:
        bar.close()


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep the libraries that load a model from drawing bars of their own."""
    import diffusers.utils.logging as of_diffusers
    import transformers.utils.logging as of_transformers

    for logging in (of_diffusers, of_transformers):
        logging.disable_progress_bar()
    try:
        yield
    finally:
        for logging in (of_diffusers, of_transformers):
            logging.enable_progress_bar()


def memory_for(
    wanted: "Memory",
    outline: "SVDOutline",
    sampling: "Sampling",
    *,
    device: str | None,
    dtype: Any,
    quiet: bool,
) -> "Mode":
    """The memory mode for clips of that size, said on stderr; ValueError when it cannot fit."""
    from sgi2v.backbones.memory import plan_memory
    from sgi2v.device import choose_device, choose_dtype

    place, settings = choose_device(device), outline.settings
    size = {
        name: getattr(sampling, name) or getattr(settings, name) for name in ("width", "height", "num_frames")
    }
    number = choose_dtype(dtype, place, bfloat16_on_cpu=settings.bfloat16_on_cpu)
    planned = plan_memory(wanted, outline, outline.grid(**size), place, number)
    if not quiet:
        print(f"memory: {planned}", file=sys.stderr)
    return planned.mode


def default_output(scene: Path, suffix: str) -> Path:
    """out/<name of the scene>: of its folder when the file is called scene.json."""
    scene = scene.resolve()
    if scene.name == "scene.json":
        scene = scene.parent
    return Path("out") / ((scene.name if scene.is_dir() else scene.stem) + suffix)


def say(video: "Video", bar: Bar, begun: float, *, quiet: bool) -> None:
    """How large a video is, how long all took since `begun`, and what the run that `bar` showed was, on stderr."""
    if quiet:
        return
    num, _, height, width = video.frames.shape
    print(
        f"{num} frames of {width}x{height} in {time.perf_counter() - begun:.0f} s: {bar.steps} steps, "
        f"{bar.iterations} guided iterations, {(video.run or {})['sampling']['dtype']}",
        file=sys.stderr,
    )


def say_note(controller: "Controller", settings: "Settings", *, quiet: bool) -> None:
    """What the model's folder says of this way of steering it, on stderr, on one line."""
    from sgi2v.controllers import controller_name

    note = settings.notes.get(controller_name(controller))
    if note and not quiet:
        print("note: " + "".join(c if c.isprintable() else " " for c in note), file=sys.stderr)

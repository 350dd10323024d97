"""Parts that all commands share: options read, a model opened, progress shown, an output named."""

import contextlib
import io
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast, get_args

import tyro

from sgi2v.cli.bar import Bar
from sgi2v.planning import Range, Unit

if TYPE_CHECKING:
    from sgi2v.backbones.base import Backbone, Outline, Settings
    from sgi2v.opening import ModelChoice
    from sgi2v.pipeline import Plan
    from sgi2v.planning import Sampling
    from sgi2v.video import Video

T = TypeVar("T")


def parse(kind: type[T], command: str, arguments: Sequence[str], default: T = tyro.MISSING_NONPROP) -> T:
    """A command's options; what tyro finds wrong as a ValueError of one line."""
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(kind, prog=f"sgi2v {command}", args=list(arguments), default=default, registry=_registry())
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ValueError(f"{_message(errors.getvalue())} (see sgi2v {command} --help)") from None


def _registry() -> tyro.constructors.ConstructorRegistry:
    """Typing of a range: its two values and their unit, as in ``36 376 sigma``."""
    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def ranges(
        info: tyro.constructors.PrimitiveTypeInfo,
    ) -> "tyro.constructors.PrimitiveConstructorSpec[Range] | None":
        if info.type is not Range:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=3,
            metavar="LOW HIGH {" + ",".join(get_args(Unit)) + "}",
            instance_from_str=_range,
            is_instance=lambda value: isinstance(value, Range),
            str_from_instance=lambda value: str(value).split(),
        )

    return registry


def _range(words: Sequence[str]) -> Range:
    low, high, unit = words
    try:
        ends = float(low), float(high)
    except ValueError:
        raise ValueError(f"give two numbers and a unit, as in 36 376 sigma, not {' '.join(words)}") from None
    if unit not in get_args(Unit):
        raise ValueError(f"the unit must be one of {', '.join(get_args(Unit))}, not {unit}")
    return Range(low=ends[0], high=ends[1], unit=cast(Unit, unit))


def _message(box: str) -> str:
    """Text of a box that tyro draws: what stands between its title and the next rule, and the nearest options."""
    # With frames of ─ the title stands in the first rule, in ASCII above it.
    _, *blocks = re.split(r"^.*[─-]{8}.*$", box, flags=re.MULTILINE)
    lines = (blocks[0] if blocks else box).splitlines()
    text = " ".join(line.strip("│| ") for line in lines).strip().removeprefix("Error parsing ")
    near = dict.fromkeys(
        option
        for block in blocks[1:]
        if "Perhaps you meant" in block
        for option in re.findall(r"^[│| ]*(--[\w.-]+)", block, flags=re.MULTILINE)
    )
    if near:
        text += f"; did you mean {' or '.join([*near][:2])}?"
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
def computing() -> Iterator[None]:
    """The way every command computes: denormals are flushed, opened before torch starts its threads."""
    from sgi2v.device import flushed_denormals

    with flushed_denormals():
        yield


def opened(model: "ModelChoice", outline: "Outline", sampling: "Sampling", *, quiet: bool) -> "Backbone":
    """The model with its weights, in a memory mode that fits clips of that size, which is said on stderr."""
    planned = model.plan_memory(outline, sampling)
    if not quiet:
        print(f"memory: {planned}", file=sys.stderr)
    return model.load(outline, memory=planned.mode)


def default_output(scene: Path, suffix: str) -> Path:
    """out/<name of the scene>: of its folder when the file is called scene.json."""
    scene = scene.resolve()
    if scene.name == "scene.json":
        scene = scene.parent
    return Path("out") / ((scene.name if scene.is_dir() else scene.stem) + suffix)


def say(video: "Video", bar: Bar, begun: float, *, quiet: bool) -> None:
    """Says how large a video is, how long all took since `begun`, and what the run that `bar` showed was, on stderr."""
    if quiet:
        return
    num, _, height, width = video.frames.shape
    print(
        f"{num} frames of {width}x{height} in {time.perf_counter() - begun:.0f} s: {bar.steps} steps, "
        f"{bar.iterations} guided iterations, {(video.run or {})['sampling']['dtype']}",
        file=sys.stderr,
    )


def say_plan(plan: "Plan", settings: "Settings", *, quiet: bool, chosen: bool) -> None:
    """Says on stderr how much is guided, the folder's note on this method, and what of the scene goes unused.

    Where nobody has `chosen` the method, that it is the model's choice, too.
    """
    from sgi2v.controllers import controller_name

    if not chosen and not quiet:
        name = controller_name(plan.controller)
        print(f"method: {name}, which this model names where you name none (controller:NAME)", file=sys.stderr)
    guided = sum(count > 0 for count in plan.schedule.iterations)
    if guided and not quiet:
        # A few-step LoRA leaves a method little to guide, which is better known before.
        steps = len(plan.schedule.iterations)
        print(f"{controller_name(plan.controller)}: {guided} of {steps} steps are guided", file=sys.stderr)
    note = settings.notes.get(controller_name(plan.controller))
    for kind, text in (("note", note), *(("warning", warning) for warning in plan.warnings)):
        if text and not quiet:
            print(f"{kind}: " + "".join(c if c.isprintable() else " " for c in text), file=sys.stderr)

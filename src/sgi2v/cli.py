"""The command line: the only place that prints and exits. Results go to stdout, progress and errors to stderr."""

import contextlib
import io
import os
import platform
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeVar

import tyro

from sgi2v.bar import Bar
from sgi2v.options import ConvertOptions, DemoOptions, InfoOptions, PreviewOptions, ReplayOptions

if TYPE_CHECKING:
    from sgi2v.video import Video

T = TypeVar("T")
SPOILED: Final = 2  # exit codes: what was asked for cannot be done
NO_MEMORY: Final = 3
INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 2 for a mistake in what was asked, 3 out of memory, 130 for Ctrl-C."""
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
            raise ValueError(f"command: unknown {name!r}; known are {', '.join(COMMANDS)}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            COMMANDS[name](rest)
    except (ValueError, MemoryError) as error:
        if os.environ.get("SGI2V_TRACEBACK"):
            traceback.print_exc()
        print(
            f"sgi2v: {' '.join(str(error).split()) or 'the machine has too little memory'}", file=sys.stderr
        )
        return SPOILED if isinstance(error, ValueError) else NO_MEMORY
    except KeyboardInterrupt:
        print("sgi2v: interrupted; nothing was written", file=sys.stderr)
        return INTERRUPTED
    return 0


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


def _parse(kind: type[T], command: str, arguments: Sequence[str], default: T = tyro.MISSING_NONPROP) -> T:
    """A command's options; what tyro finds wrong as a ValueError of one line."""
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(kind, prog=f"sgi2v {command}", args=list(arguments), default=default)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ValueError(f"{_first_paragraph(errors.getvalue())} (see sgi2v {command} --help)") from None


def _first_paragraph(box: str) -> str:
    """The message in a box that tyro draws, without the frame and what follows its first rule."""
    lines = []
    for line in box.splitlines():
        text = line.strip("│ ")
        if text.startswith("──"):
            break
        if not text.startswith(("╭", "╰")):
            lines.append(text)
    return " ".join(lines).removeprefix("Error parsing ").strip()


@contextlib.contextmanager
def _bar(*, quiet: bool, title: str = "") -> Iterator[Bar]:
    bar = Bar(quiet=quiet, title=title)
    try:
        yield bar
    finally:
        bar.close()


def _default_output(scene: Path, suffix: str) -> Path:
    """out/<name of the scene>: of its folder when the file is called scene.json."""
    scene = scene.resolve()
    return Path("out") / ((scene.parent.name if scene.name == "scene.json" else scene.stem) + suffix)


def _say(quiet: bool, video: "Video", begun: float) -> None:
    if not quiet:
        num, _, height, width = video.frames.shape
        print(f"{num} frames of {width}x{height} in {time.perf_counter() - begun:.0f} s", file=sys.stderr)


def _generate(arguments: Sequence[str]) -> None:
    """Make a video of a scene."""
    from sgi2v import generate_options as o
    from sgi2v.backbones import load_backbone
    from sgi2v.backbones.base import settings_with
    from sgi2v.generate import generate
    from sgi2v.scene_io import load_scene
    from sgi2v.video import check_writable

    default = o.default_options(arguments)
    options = _parse(o.GenerateOptions, "generate", arguments, default)
    output = options.output or _default_output(options.scene, ".mp4")
    check_writable(output)
    scene = load_scene(options.scene)
    begun = time.perf_counter()
    with _bar(quiet=options.quiet) as bar:
        backbone = load_backbone(options.backbone, device=options.device, dtype=options.dtype)
        changed = o.changed_settings(options, default)
        backbone.settings = settings_with(backbone.settings, changed, "settings")
        # Unchanged, it is left to what the folder recommends, which may have been fetched just now.
        controller = None if options.controller == default.controller else options.controller
        video = generate(
            scene, backbone=backbone, controller=controller, sampling=options.sampling, progress=bar
        )
        video.save(output)
    _say(options.quiet, video, begun)
    print(output)


def _preview(arguments: Sequence[str]) -> None:
    """Draw a scene's boxes and paths on its image; no model is loaded."""
    options = _parse(PreviewOptions, "preview", arguments)
    from sgi2v.draw import preview
    from sgi2v.scene_io import load_scene
    from sgi2v.writing import writing

    output = options.output or _default_output(options.scene, ".png")
    if output.suffix.lower() not in (".png", ".jpg"):
        raise ValueError(
            f"output: {str(output)!r} is no picture that is written here; end its name in .png or .jpg"
        )
    if not 2 <= options.num_frames <= 1000:
        raise ValueError(f"num_frames: {options.num_frames} must lie in 2..1000")
    picture = preview(load_scene(options.scene), options.num_frames)
    with writing(output) as temporary:
        picture.save(temporary)
    print(output)


def _convert(arguments: Sequence[str]) -> None:
    """Write a scene as JSON, or as the published img.png and traj.npy."""
    options = _parse(ConvertOptions, "convert", arguments)
    from sgi2v.scene_io import load_scene, save_scene, save_traj

    scene = load_scene(options.scene)
    if options.output.suffix.lower() == ".json":
        print(save_scene(scene, options.output, embed=options.embed))
    elif options.output.suffix:
        raise ValueError(
            f"output: {str(options.output)!r} is neither; end it in .json, or name a folder for traj.npy"
        )
    else:
        print(save_traj(scene, options.output, options.num_frames))


def _replay(arguments: Sequence[str]) -> None:
    """Make a video again from the record in its file."""
    options = _parse(ReplayOptions, "replay", arguments)
    from sgi2v.video import check_writable, read_run

    source = options.video
    output = options.output or source.with_name(f"{source.stem}-replay{source.suffix}")
    record = read_run(source)
    check_writable(output)
    from sgi2v.backbones import load_backbone
    from sgi2v.generate import replay
    from sgi2v.run import Run, trusted_source

    run = Run.from_dict(record)
    begun = time.perf_counter()
    with _bar(quiet=options.quiet) as bar:
        model = options.backbone or trusted_source(run)
        backbone = load_backbone(model, device=options.device, dtype=run.sampling.get("dtype"))
        video = replay(run, backbone=backbone, progress=bar)
        video.save(output)
    _say(options.quiet, video, begun)
    print(output)


def _info(arguments: Sequence[str]) -> None:
    """Say what is here: versions, devices, memory, models."""
    _parse(InfoOptions, "info", arguments)
    from sgi2v.device import choose_device, describe_devices, free_memory

    packages = ("sgi2v", "torch", "diffusers", "transformers", "av")
    print(
        f"versions   python {platform.python_version()}, " + ", ".join(f"{p} {version(p)}" for p in packages)
    )
    for line in describe_devices():
        print(f"device     {line}")
    device = choose_device()
    free = free_memory(device)
    print(f"memory     {'unknown' if free is None else f'{free / 2**30:.1f} GiB'} free on {device}")
    for name, state in _found_models():
        print(f"backbone   {name}: {state}")


def _found_models() -> Iterator[tuple[str, str]]:
    """Names of models and whether they are on this machine."""
    from huggingface_hub import try_to_load_from_cache

    from sgi2v.backbones.folder import BUNDLED, HUB_IDS, bundled_folder, check_folder

    try:
        check_folder(bundled_folder())
        yield BUNDLED, "ready"
    except ValueError as error:
        yield BUNDLED, str(error)
    for name, hub_id in HUB_IDS.items():
        here = isinstance(try_to_load_from_cache(hub_id, "model_index.json"), str)
        yield name, f"{hub_id}, {'downloaded' if here else 'not downloaded; the first use fetches it'}"


def _demo(arguments: Sequence[str]) -> None:
    """Make a shipped scene move on the bundled model, without control and with it."""
    options = _parse(DemoOptions, "demo", arguments)
    from sgi2v.backbones import load_backbone
    from sgi2v.demo import TITLES, make_demo, shipped_scene
    from sgi2v.evaluation.tracker import TemplateTracker
    from sgi2v.generate import Sampling
    from sgi2v.scene_io import load_scene
    from sgi2v.video import check_writable
    from sgi2v.writing import writing

    output = {name: options.output / f"{name}.mp4" for name in ("demo", "no_control", "side_by_side")}
    check_writable(output["demo"])
    scene = load_scene(shipped_scene(options.scene))
    sampling = Sampling(seed=options.seed, num_steps=options.num_steps)
    begun = time.perf_counter()
    with contextlib.ExitStack() as bars:
        backbone = load_backbone(options.backbone, device=options.device)
        demo = make_demo(
            scene,
            backbone=backbone,
            tracker=TemplateTracker(),
            sampling=sampling,
            progress=lambda title: bars.enter_context(_bar(quiet=options.quiet, title=f"{title}: ")),
        )
    for name, video in zip(output, (demo.controlled, demo.plain, demo.side_by_side), strict=True):
        print(video.save(output[name]))
    with writing(options.output / "sheet.png") as temporary:
        demo.sheet.save(temporary)
    print(options.output / "sheet.png")
    height, width = demo.plain.frames.shape[-2:]
    print(
        f"distance of what should move from its path, in pixels of {width}x{height}, as a template tracker sees it:"
    )
    for title, mean, end, lost in zip(TITLES, demo.astray, demo.astray_at_end, demo.lost, strict=True):
        print(f"  {title:10}  mean {mean:5.1f}   at the end {end:5.1f}   lost {lost:.0%}")
    _say(options.quiet, demo.controlled, begun)


def _train(arguments: Sequence[str]) -> None:
    """Train a model's part: autoencoder or denoiser."""
    kinds = ("autoencoder", "denoiser")
    kind, *rest = arguments or ["--help"]
    if kind in ("-h", "--help"):
        print(f"usage: sgi2v train {{{','.join(kinds)}}} ...      --help after a part explains its options")
        return
    if kind == "autoencoder":
        from sgi2v.training.autoencoder import AutoencoderTraining, train

        train(_parse(AutoencoderTraining, "train autoencoder", rest), log=_log)
    elif kind == "denoiser":
        from sgi2v.training import denoiser

        denoiser.train(_parse(denoiser.DenoiserTraining, "train denoiser", rest), log=_log)
    else:
        raise ValueError(f"train: unknown part {kind!r}; known are {', '.join(kinds)}")


def _log(figures: dict[str, float]) -> None:
    print(" ".join(f"{name} {value:.5g}" for name, value in figures.items()), file=sys.stderr, flush=True)


COMMANDS: Final = MappingProxyType(
    {
        "generate": _generate,
        "preview": _preview,
        "convert": _convert,
        "replay": _replay,
        "demo": _demo,
        "info": _info,
        "train": _train,
    }
)

if __name__ == "__main__":
    sys.exit(main())

"""The command line: the only place that prints and exits. Results go to stdout, progress and errors to stderr."""

import contextlib
import io
import os
import platform
import re
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeVar

import tyro

from sgi2v.bar import Bar
from sgi2v.options import ConvertOptions, DemoOptions, InfoOptions, PreviewOptions, ReplayOptions, to_be_said

if TYPE_CHECKING:
    from torch.nn import ModuleDict

    from sgi2v.training.stages import DenoiserTraining
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
def _bar(*, quiet: bool, title: str = "") -> Iterator[Bar]:
    bar = Bar(quiet=quiet, title=title)
    try:
        yield bar
    finally:
        bar.close()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
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
    from sgi2v.backbones import load_backbone, outline_of
    from sgi2v.backbones.base import settings_with
    from sgi2v.generate import generate, plan
    from sgi2v.scene_io import load_scene
    from sgi2v.video import check_writable

    default = o.default_options(arguments)
    options = _parse(o.GenerateOptions, "generate", arguments, default)
    output = options.output or _default_output(options.scene, ".mp4")
    check_writable(output)
    scene = load_scene(options.scene)
    begun = time.perf_counter()
    # Unchanged, the controller is left to what the folder recommends, which may be fetched only now.
    controller = None if options.controller == default.controller else options.controller
    outline = outline_of(options.backbone, device=options.device, dtype=options.dtype)
    settings = settings_with(outline.settings, o.changed_settings(options, default), "settings")
    plan(scene, replace(outline, settings=settings), controller=controller, sampling=options.sampling)
    with _silence():
        backbone = load_backbone(
            options.backbone, device=options.device, dtype=options.dtype, settings=settings
        )
    with _bar(quiet=options.quiet) as bar:
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
    from sgi2v.writing import check_place, writing

    output = options.output or _default_output(options.scene, ".png")
    if output.suffix.lower() not in (".png", ".jpg"):
        raise ValueError(
            f"output: {str(output)!r} is no picture that is written here; end its name in .png or .jpg"
        )
    if not 2 <= options.num_frames <= 1000:
        raise ValueError(f"num_frames: {options.num_frames} must lie in 2..1000")
    check_place(output)
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
    model = options.backbone or trusted_source(run)
    with _silence():
        backbone = load_backbone(model, device=options.device, dtype=run.sampling.get("dtype"))
    with _bar(quiet=options.quiet) as bar:
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
    with _silence():
        backbone = load_backbone(options.backbone, device=options.device)
    with contextlib.ExitStack() as bars:

        def next_bar(title: str) -> Bar:
            bars.close()
            return bars.enter_context(_bar(quiet=options.quiet, title=f"{title}: "))

        demo = make_demo(
            scene,
            backbone=backbone,
            tracker=TemplateTracker(),
            sampling=sampling,
            progress=next_bar,
        )
    for name, video in zip(output, (demo.controlled, demo.plain, demo.side_by_side), strict=True):
        print(video.save(output[name]))
    with writing(options.output / "sheet.png") as temporary:
        demo.sheet.save(temporary)
    print(options.output / "sheet.png")
    height, width = demo.plain.frames.shape[-2:]
    print(f"how far from its path, as a template tracker sees it, in pixels of {width}x{height}:")
    for title, error in zip(TITLES, demo.errors, strict=True):
        if error is not None:
            end, lost = float(error.path_end.mean()), float(error.lost.mean())
            print(
                f"  {title:10}  mean {error.scene:.1f}, at the end {end:.1f}, lost in {lost:.0%} of the frames"
            )
    _say(options.quiet, demo.controlled, begun)


def _train(arguments: Sequence[str]) -> None:
    """Train a model's part: autoencoder or denoiser."""
    part, *rest = arguments or ["--help"]
    if part in ("-h", "--help"):
        print("usage: sgi2v train {autoencoder,denoiser} ...      --help after a part explains its options")
        return
    from sgi2v.writing import check_place

    if part == "autoencoder":
        from sgi2v.training.autoencoder import AutoencoderTraining
        from sgi2v.training.autoencoder import train as train_autoencoder

        training = _parse(AutoencoderTraining, "train autoencoder", rest)
        check_place(training.output / "autoencoder")
        train_autoencoder(training, log=_log).save_pretrained(training.output / "autoencoder")
        print(training.output / "autoencoder")
    elif part == "denoiser":
        from sgi2v.training.denoiser import train as train_denoiser
        from sgi2v.training.stages import DenoiserTraining, Stage

        stages = (
            Stage(num_steps=2000, num_frames=1, batch_size=16),
            Stage(num_steps=4000, num_frames=14, batch_size=4),
        )
        default = DenoiserTraining(output=Path(), autoencoder=Path(), stages=stages)
        default = to_be_said(default, "output", "autoencoder")
        options = _parse(DenoiserTraining, "train denoiser", rest, default)
        check_place(options.output / "model")
        print(_export(options, train_denoiser(options, log=_log)))
    else:
        raise ValueError(f"train: unknown part {part!r}; known are autoencoder, denoiser")


def _export(training: "DenoiserTraining", models: "ModuleDict") -> Path:
    """The trained parts as a model folder beside the checkpoints, for --backbone."""
    from diffusers import AutoencoderKLTemporalDecoder

    from sgi2v.training.export import export

    autoencoder = AutoencoderKLTemporalDecoder.from_pretrained(training.autoencoder, use_safetensors=True)
    last = training.stages[-1]
    settings = {
        "width": last.width,
        "height": last.height,
        "num_frames": training.num_frames,
        "fps": training.fps,
    }
    return export(training.output / "model", models, autoencoder, settings)


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

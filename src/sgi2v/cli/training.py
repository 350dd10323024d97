"""The command train: a model's parts on rendered clips or one's own, their worth, and checkpoints in small files."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from sgi2v.backbones.quiet import quiet_libraries
from sgi2v.cli.common import computing, parse
from sgi2v.cli.options import to_be_said
from sgi2v.errors import FieldError

_USAGE = """usage: sgi2v train PART ...      --help after a part explains its options

  autoencoder    Train the autoencoder: pictures to latents and back.
  denoiser       Train the denoiser and its image encoder, from nothing or from a model's folder (--initial).
  clip-features  Train the network that describes clips for the benchmark.
  measure        Say how faithful a folder's autoencoder is, on pictures that training never sees.
  pack           Write a training's newest checkpoint in files small enough to travel.

Ctrl-C ends a training after the step it is in, saved; the same command goes on."""


@dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """Say how faithful an autoencoder is: its PSNR and sharpness on held-out frames of the world and photographs."""

    folder: Positional[Path]
    """A folder of an autoencoder, or of a whole model."""
    num: int = 32
    """Pictures of each source."""
    width: int = 320
    """Width of the pictures."""
    height: int = 192
    """Height of the pictures."""
    seed: int = 0
    """Seed of the pictures."""
    device: str = "cpu"
    """Device that computes."""


@dataclass(frozen=True, kw_only=True)
class PackOptions:
    """Write a training's newest checkpoint in files below 14 MB; put into a training's --output, they are gone on from.

    The averaged weights alone in float16 (Adam begins anew), or with --moments all that it needs, rounded.
    """

    training: Positional[Path]
    """The training's --output (of the autoencoder: its encoder or decoder folder)."""
    output: Positional[Path]
    """Folder for the files; those of an earlier call are replaced."""
    moments: bool = False
    """Keep the moments of Adam too: four times the size, no new beginning."""


def train(arguments: Sequence[str]) -> None:
    """Train a model's part, autoencoder or denoiser, or the benchmark's clip features."""
    part, *rest = arguments or ["--help"]
    if part in ("-h", "--help"):
        print(_USAGE)
        return
    parts: dict[str, Callable[[Sequence[str]], None]] = {
        "autoencoder": _autoencoder,
        "denoiser": _denoiser,
        "clip-features": _clip_features,
        "measure": _measure,
        "pack": _pack,
    }
    if part not in parts:
        raise FieldError("train", f"unknown part {part!r}", f"known are {', '.join(parts)}")
    with computing():
        parts[part](rest)


def _autoencoder(arguments: Sequence[str]) -> None:
    from sgi2v.training.autoencoder import train
    from sgi2v.training.autoencoder_fields import AutoencoderTraining
    from sgi2v.training.fidelity import measure_autoencoder
    from sgi2v.training.journal import Journal
    from sgi2v.writing import check_place

    training = parse(AutoencoderTraining, "train autoencoder", arguments)
    check_place(training.output / "autoencoder")
    journal = Journal(training.output / "log.jsonl", _say)
    with quiet_libraries(), _ended(training.minutes) as stop:
        model = train(training, log=journal, stop=stop)
        model.save_pretrained(training.output / "autoencoder")
        side = max(64, training.size)
        print(json.dumps(measure_autoencoder(model, width=side, height=side), indent=2))
        print(training.output / "autoencoder")


def _denoiser(arguments: Sequence[str]) -> None:
    from sgi2v.training.denoiser import train
    from sgi2v.training.journal import Journal
    from sgi2v.training.stages import DenoiserTraining, Stage
    from sgi2v.training.watch import PeriodicEvaluation, export_average
    from sgi2v.writing import check_place

    stages = (Stage(num_steps=2000, num_frames=1, batch_size=16), Stage(num_steps=4000, num_frames=14, batch_size=4))
    default = to_be_said(DenoiserTraining(output=Path(), stages=stages), "output")
    training = parse(DenoiserTraining, "train denoiser", arguments, default)
    check_place(training.output / "model")
    journal = Journal(training.output / "log.jsonl", _say)
    with quiet_libraries(), _ended(training.minutes) as stop:
        models = train(training, log=journal, watch=PeriodicEvaluation(training), stop=stop)
        print(export_average(training, models, training.output / "model"))


def _clip_features(arguments: Sequence[str]) -> None:
    from sgi2v.training.clip_features import ClipFeaturesTraining, train
    from sgi2v.training.journal import readable
    from sgi2v.writing import check_place

    training = parse(ClipFeaturesTraining, "train clip-features", arguments)
    check_place(training.output / "model.safetensors")
    with _ended(0.0) as stop:
        train(training, log=lambda figures: _say(readable(figures)), stop=stop)
        print(training.output / "model.safetensors")


def _measure(arguments: Sequence[str]) -> None:
    from sgi2v.device import choose_device
    from sgi2v.training.fidelity import measure_autoencoder
    from sgi2v.training.networks import load_autoencoder

    options = parse(MeasureOptions, "train measure", arguments)
    folder = options.folder / "vae" if (options.folder / "vae").is_dir() else options.folder
    with quiet_libraries():
        model = load_autoencoder(folder).to(choose_device(options.device))
    stride = 2 ** (len(model.config.block_out_channels) - 1)
    if options.width % stride or options.height % stride:
        raise FieldError(
            "width, height", f"must be multiples of {stride} for this autoencoder, not {options.width}x{options.height}"
        )
    figures = measure_autoencoder(model, num=options.num, width=options.width, height=options.height, seed=options.seed)
    print(json.dumps(figures, indent=2))


def _pack(arguments: Sequence[str]) -> None:
    from sgi2v.training.checkpoint import pack

    options = parse(PackOptions, "train pack", arguments)
    for path in pack(options.training, options.output, moments=options.moments):
        print(path)


@contextmanager
def _ended(minutes: float) -> Iterator[Callable[[], bool]]:
    """Asked after every step whether to end; says how to go on where that was so, or where memory was too small."""
    import torch

    from sgi2v.training.checkpoint import Stopped
    from sgi2v.training.ending import ending

    with ending(minutes) as asked:
        try:
            yield asked
        except Stopped as stopped:
            how = f"{stopped}, saved; the same command goes on from there"
            if asked.interrupted:
                raise KeyboardInterrupt(how) from None
            print(how)
        except torch.OutOfMemoryError as error:
            raise MemoryError(
                "the device has too little memory for this training: lower batch_size, width, height or num_frames of "
                "its stages (size of an autoencoder's), or give a denoiser --gradient-checkpointing"
            ) from error


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

"""The command train: a model's parts on rendered clips."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sgi2v.cli.common import parse
from sgi2v.cli.options import to_be_said

if TYPE_CHECKING:
    from torch.nn import ModuleDict

    from sgi2v.training.stages import DenoiserTraining


def train(arguments: Sequence[str]) -> None:
    """Train a model's part, autoencoder or denoiser, or the benchmark's stand-in features."""
    part, *rest = arguments or ["--help"]
    if part in ("-h", "--help"):
        print(
            "usage: sgi2v train {autoencoder,denoiser,standin} ...      --help after a part explains its options"
        )
        return
    from sgi2v.writing import check_place

    if part == "autoencoder":
        from sgi2v.training.autoencoder import AutoencoderTraining
        from sgi2v.training.autoencoder import train as train_autoencoder

        training = parse(AutoencoderTraining, "train autoencoder", rest)
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
        options = parse(DenoiserTraining, "train denoiser", rest, default)
        check_place(options.output / "model")
        print(_export(options, train_denoiser(options, log=_log)))
    elif part == "standin":
        from sgi2v.training.standin import StandinTraining
        from sgi2v.training.standin import train as train_standin

        standin = parse(StandinTraining, "train standin", rest)
        check_place(standin.output / "model.safetensors")
        train_standin(standin, log=_log)
        print(standin.output / "model.safetensors")
    else:
        raise ValueError(f"train: unknown part {part!r}; known are autoencoder, denoiser, standin")


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

"""Trains the bundled model from nothing and exports it: the whole recipe, resumable at any time.

    python experiments/bundled_model/run.py OUTPUT [encoder|decoder|denoiser|export]...

Without parts named, all of them in this order. The decoder and the denoiser need the encoder alone and may run at
the same time. Under torchrun the denoiser's gradients are averaged over the processes.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLTemporalDecoder
from torch import distributed, nn

from sgi2v.training import autoencoder, denoiser
from sgi2v.training.autoencoder import AutoencoderTraining
from sgi2v.training.export import export
from sgi2v.training.optimiser import MasterAdam, load_checkpoint
from sgi2v.training.stages import DenoiserTraining, Stage

HERE = Path(__file__).parent
ASSETS = HERE.parents[1] / "src" / "sgi2v" / "assets"

PICTURES: dict[str, Any] = {"num_frames": 1}
SQUARE: dict[str, Any] = {"width": 64, "height": 64}
PAIRS: dict[str, Any] = {**PICTURES, **SQUARE, "num_things": 2, "log_sigma": (0.5, 1.2)}
CLIPS: dict[str, Any] = {**SQUARE, "num_frames": 8, "batch_size": 6, "log_sigma": (0.7, 1.3)}
# What was run. The first two stages ran as two processes (twice the batch); until step 1450 the simple world's things
# had stronger patterns, a fifth of them pictures, and colours that could be near the background's, and the average of
# the weights had decay 0.998. The README tells the story.
STAGES = (
    Stage(**PICTURES, num_steps=400, batch_size=24, lr=1e-3, final_lr=7e-4, num_warmup=60),
    Stage(**PAIRS, num_steps=200, batch_size=48, lr=1e-3, final_lr=9.5e-4, num_warmup=20),
    Stage(**PAIRS, num_steps=250, batch_size=64, lr=9.5e-4, final_lr=9e-4, num_warmup=0),
    Stage(**CLIPS, num_steps=550, lr=8e-4, final_lr=7e-4, num_warmup=60),
    Stage(**CLIPS, num_steps=1200, lr=7e-4, final_lr=5.5e-4, num_warmup=1),
    Stage(**CLIPS, num_steps=850, lr=5.5e-4, final_lr=2e-5, num_warmup=1),
)


def encoder_training(output: Path) -> AutoencoderTraining:
    """The encoder against a linear decoder."""
    return AutoencoderTraining(
        output=output / "autoencoder", num_encoder_steps=700, lr=1e-3, num_warmup=60, ema=0.98
    )


def decoder_training(output: Path) -> AutoencoderTraining:
    """The decoder on the frozen encoder."""
    return AutoencoderTraining(
        output=output / "autoencoder",
        initial=output / "encoder",
        num_steps=1600,
        lr=8e-4,
        num_warmup=60,
        ema=0.99,
        batch_size=6,
    )


def denoiser_training(output: Path) -> DenoiserTraining:
    """The denoiser and the image encoder."""
    return DenoiserTraining(
        output=output / "denoiser", autoencoder=output / "encoder", stages=STAGES, num_frames=8, ema=0.995
    )


def log_to(file: Path) -> autoencoder.Log:
    """Append each figure to a file, one JSON object a line."""

    def log(figures: dict[str, float]) -> None:
        with file.open("a") as stream:
            stream.write(json.dumps({name: round(value, 4) for name, value in figures.items()}) + "\n")

    return log


def averaged(training: DenoiserTraining) -> nn.ModuleDict:
    """The averaged weights of the newest checkpoint."""
    models = denoiser.build(training)
    optimiser = MasterAdam(models)
    load_checkpoint(training.output, optimiser)
    optimiser.write_average(models)
    return models


def main(output: Path, parts: list[str]) -> None:
    """Run the named parts."""
    output.mkdir(parents=True, exist_ok=True)
    if "encoder" in parts:
        found = autoencoder.train_encoder(encoder_training(output), log=log_to(output / "encoder.jsonl"))
        found.save_pretrained(output / "encoder")
    if "decoder" in parts:
        found = autoencoder.train(decoder_training(output), log=log_to(output / "decoder.jsonl"))
        found.save_pretrained(output / "decoder")
    if "denoiser" in parts:
        if "RANK" in os.environ:
            distributed.init_process_group("gloo")
        denoiser.train(denoiser_training(output), log=log_to(output / "denoiser.jsonl"))
    if "export" in parts:
        settings = json.loads((HERE / "settings.json").read_text())
        vae = AutoencoderKLTemporalDecoder.from_pretrained(output / "decoder")
        export(
            ASSETS,
            averaged(denoiser_training(output)),
            vae,
            settings["sgi2v"],
            sigma_max=settings["sigma_max"],
        )


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    main(Path(sys.argv[1]), sys.argv[2:] or ["encoder", "decoder", "denoiser", "export"])

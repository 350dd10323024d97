"""Trains a model of this project's own and exports it, in calls that each go on where the last one ended.

    python -m experiments.bundled_model.run wide out/wide --device cuda --minutes 9

does what is left to do of the parts, in their order, until the minutes are over; the same line again goes on. The last
part writes OUTPUT/model, a folder for --backbone, from the averaged weights of the denoiser's newest checkpoint.
"""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from tyro.conf import Positional

from experiments.bundled_model.recipes import RECIPES, Recipe
from sgi2v.device import flushed_denormals
from sgi2v.training import autoencoder, denoiser
from sgi2v.training.checkpoint import Stopped, load_checkpoint, read_checkpoint
from sgi2v.training.ending import Ending, ending
from sgi2v.training.journal import Journal
from sgi2v.training.networks import averaged, build
from sgi2v.training.optimiser import MasterAdam
from sgi2v.training.watch import PeriodicEvaluation, export_average

Part = Literal["encoder", "autoencoder", "denoiser", "export"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train a recipe's parts, or what is left of them."""

    recipe: Positional[Literal["first", "taught", "further", "noisier", "sharper", "smoother", "wide"]]
    """first: 64x64, 8 frames. taught: on from there, 320x192, 14 frames. further: on from `taught`. noisier:
    on from `further`. sharper: on from `taught`, the autoencoder alone. smoother: on from `sharper`, the decoder alone. wide: the
    same size from nothing, for a GPU."""
    output: Positional[Path]
    """Folder for everything."""
    parts: tuple[Part, ...] = ("encoder", "autoencoder", "denoiser", "export")
    """Parts to train or write, in this order."""
    minutes: float = 0.0
    """Stop after so many minutes, everything saved; 0: at the end."""
    scale: float = 1.0
    """All numbers of steps times this; keep it when going on."""
    device: str = "cpu"
    """Device to train on: cpu, cuda …"""
    threads: int | None = None
    """CPU threads."""
    model: Path | None = None
    """Folder that the model is written to; OUTPUT/model by default."""


def encoder_of(recipe: Recipe, device: str, asked: Ending) -> None:
    """Train the encoder by itself, where the recipe has one."""
    if recipe.encoder is not None:
        training = dataclasses.replace(recipe.encoder, device=device)
        log = Journal(training.output / "encoder.jsonl", say)
        autoencoder.train_encoder(training, log=log, stop=asked).save_pretrained(training.output / "linear")


def autoencoder_of(recipe: Recipe, device: str, asked: Ending) -> None:
    """Train the autoencoder, or its decoder alone, where the recipe has it trained."""
    if recipe.autoencoder is not None:
        training = dataclasses.replace(recipe.autoencoder, device=device)
        log = Journal(training.output / "log.jsonl", say)
        autoencoder.train(training, log=log, stop=asked).save_pretrained(training.output / "model")


def denoiser_of(recipe: Recipe, device: str, asked: Ending) -> None:
    """Train the denoiser and the image encoder, where the recipe has them trained."""
    if not recipe.denoiser.num_steps:
        return
    training = dataclasses.replace(recipe.denoiser, device=device)
    log = Journal(training.output / "log.jsonl", say)
    denoiser.train(training, log=log, watch=PeriodicEvaluation(training), stop=asked)


def can_export(recipe: Recipe) -> bool:
    """True if there is anything new: weights of the denoiser, or, where that stays, the finished autoencoder."""
    if recipe.denoiser.num_steps:
        return read_checkpoint(recipe.denoiser.output) is not None
    return recipe.autoencoder is not None and (recipe.autoencoder.output / "model").is_dir()


def export_of(recipe: Recipe, folder: Path) -> None:
    """Write the newest averaged weights, finished or not, with the finished autoencoder where there is one."""
    training, own = recipe.denoiser, recipe.autoencoder
    optimiser = MasterAdam(build(training))
    steps = load_checkpoint(training.output, optimiser)
    if own is not None and (own.output / "model").is_dir():
        training = dataclasses.replace(training, autoencoder=own.output / "model")
    print(export_average(training, averaged(training, optimiser), folder), f"after {steps} steps")


@flushed_denormals()
def main(options: Options) -> None:
    """Do the parts that are not done."""
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    recipe = RECIPES[options.recipe](options.output, options.scale)
    try:
        with ending(options.minutes) as asked:
            for part, work in (("encoder", encoder_of), ("autoencoder", autoencoder_of), ("denoiser", denoiser_of)):
                if part in options.parts:
                    work(recipe, options.device, asked)
    except Stopped as stopped:
        say(f"{stopped}, saved; the same command goes on from there")
    if "export" in options.parts and can_export(recipe):
        export_of(recipe, options.model or options.output / "model")


def say(line: str) -> None:
    """Print a line of progress."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options))

"""A training that is killed again and again, for tests/test_training.py: python train_victim.py FOLDER.

One warmed process trains without a break first, then forks a child for every death; each goes on where the last was.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from sgi2v.training import autoencoder, checkpoint, denoiser
from sgi2v.training.autoencoder_fields import AutoencoderTraining
from sgi2v.training.checkpoint import Stopped
from sgi2v.training.ending import ending
from sgi2v.training.journal import Journal
from sgi2v.training.stages import DenoiserTraining, Stage


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_the_middle_of_a_checkpoint(nth: int) -> None:
    """Half a checkpoint lies under its temporary name."""
    whole = torch.save
    count = iter(range(nth))

    def half(value: object, file: Any) -> None:
        if next(count, None) is None:
            file.write(b"PK half a checkpoint")
            file.flush()
            die()
        whole(value, file)

    checkpoint.torch.save = half  # type: ignore[attr-defined]


def before_it_gets_its_name(nth: int) -> None:
    """A checkpoint is whole, and the newest is still the one before."""
    whole = os.replace
    count = iter(range(nth))

    def never(*names: Any) -> None:
        if next(count, None) is None:
            die()
        whole(*names)

    checkpoint.os.replace = never  # type: ignore[attr-defined]


def after_it_has_its_name(nth: int) -> None:
    """The checkpoint is in its place, and nothing after it was done."""
    whole = os.replace
    count = iter(range(nth))

    def last(*names: Any) -> None:
        whole(*names)
        if next(count, None) is None:
            die()

    checkpoint.os.replace = last  # type: ignore[attr-defined]


def never_more_than(num_steps: int) -> Callable[[], bool]:
    """Asked after every step: holds still after so many, until it is killed from outside."""
    left = iter(range(num_steps - 1))

    def hold() -> bool:
        if next(left, None) is None:
            time.sleep(600)
        return False

    return hold


# How many checkpoints each lets pass first; None dies at some moment, from outside.
HAZARDS: tuple[tuple[Callable[[int], None], int] | None, ...] = (
    (in_the_middle_of_a_checkpoint, 1),
    (before_it_gets_its_name, 0),
    None,
    (after_it_has_its_name, 0),
)


def training_in(folder: Path) -> DenoiserTraining:
    shape = {"batch_size": 2, "width": 64, "height": 64, "radius": (8.0, 16.0)}
    return DenoiserTraining(
        output=folder,
        autoencoder=folder.parent / "vae",
        stages=(
            Stage(num_frames=1, num_steps=1, **shape),  # type: ignore[arg-type]
            Stage(num_frames=3, num_steps=4, num_things=2, **shape),  # type: ignore[arg-type]
        ),
        channels=(32, 32, 32, 32),
        embedding=32,
        num_frames=3,
        pool_steps=2,
        correspondence=0.1,
        checkpoint_every=1,
        log_every=1,
        dtype="bfloat16",
    )


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    autoencoder.build(
        AutoencoderTraining(output=folder, channels=(32, 32, 32, 32), layers_per_block=1, latent_channels=4)
    ).save_pretrained(folder / "vae")

    def run(name: str, **named: Any) -> dict[str, torch.Tensor]:
        log = Journal(folder / name / "log.jsonl")
        return denoiser.train(training_in(folder / name), log=log, **named).state_dict()

    save_file(run("whole"), folder / "whole.safetensors")
    log = folder / "killed" / "log.jsonl"
    for death, hazard in enumerate(HAZARDS):
        before = log.stat().st_size if log.exists() else 0
        child = os.fork()
        if not child:
            if hazard is None:
                run("killed", stop=never_more_than(2))
            else:
                hazard[0](hazard[1])
                run("killed")
            os._exit(0)
        if hazard is None:
            while log.stat().st_size == before:
                time.sleep(0.01)
            time.sleep(random.Random(death).uniform(0, 0.2))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, f"death {death} did not come"
    # Then Ctrl-C, which ends in order.
    child = os.fork()
    if not child:
        with ending() as asked:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                run("killed", stop=asked)
            except Stopped as stopped:
                os._exit(40 + stopped.step)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) > 40, "Ctrl-C did not end it in order"
    save_file(run("killed"), folder / "killed.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

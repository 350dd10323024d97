"""A benchmark that is killed with SIGKILL again and again, for tests/test_benchmark.py: python victim.py FOLDER.

One warmed process loads the model once and forks a child for every death; each child goes on with the same rows.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch

from sgi2v.backbones import load_backbone
from sgi2v.controllers import Controller
from sgi2v.evaluation import benchmark, rows, store
from sgi2v.evaluation.benchmark import Method, run_benchmark
from sgi2v.evaluation.held_out import HeldOutWorld
from sgi2v.evaluation.store import Store
from sgi2v.evaluation.tracker import TemplateTracker
from sgi2v.planning import Sampling
from tiny import tiny_svd

NUM_DEATHS = 20
CASES = HeldOutWorld(scene_set=1, limit=10, num_frames=4)
METHODS: dict[str, Method] = {"still": "still", "paste": "paste", "true": "true", "none": Controller()}


class Colours:
    """The mean colour of each frame: features that cost nothing."""

    name = "colours"
    sha256 = "0" * 64
    unit: Literal["frame", "clip"] = "frame"

    def features(self, frames: torch.Tensor) -> torch.Tensor:
        return frames.mean((2, 3))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_the_middle_of_a_line(nth: int) -> None:
    """Half a row reaches the disk."""
    whole = rows.append_row
    count = iter(range(nth))

    def half(path: Path, row: dict[str, Any]) -> None:
        if next(count, None) is None:
            with path.open("ab") as file:
                file.write(b'{"case": "world-1-0')
                file.flush()
                os.fsync(file.fileno())
            die()
        whole(path, row)

    vars(store)["append_row"] = half


def in_the_middle_of_a_clip(nth: int) -> None:
    """Half a clip lies under a temporary name."""
    whole = np.savez_compressed
    count = iter(range(nth))

    def half(file: Any, **arrays: Any) -> None:
        if next(count, None) is None:
            file.write(b"PK half a clip")
            file.flush()
            die()
        whole(file, **arrays)

    store.np.savez_compressed = half  # type: ignore[attr-defined]


def between_clip_and_row(nth: int) -> None:
    """The clip is there, its row is not."""
    whole = store.Store.append
    count = iter(range(nth))

    def never(self: Store, row: Any) -> None:
        if next(count, None) is None:
            die()
        whole(self, row)

    store.Store.append = never  # type: ignore[method-assign]


def in_the_middle_of_a_video(nth: int) -> None:
    """Nothing is written of the video that is being made."""
    from sgi2v.evaluation import row_maker

    whole = vars(row_maker)["generate"]
    count = iter(range(nth))

    def never(*arguments: Any, **named: Any) -> Any:
        def progress(_: object) -> None:
            die()

        if next(count, None) is None:
            named["progress"] = progress
        return whole(*arguments, **named)

    vars(row_maker)["generate"] = never


HAZARDS: tuple[Callable[[int], None] | None, ...] = (
    None,  # at some moment, from outside
    in_the_middle_of_a_line,
    in_the_middle_of_a_clip,
    between_clip_and_row,
    in_the_middle_of_a_video,
)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)  # a pool of threads does not survive a fork
    backbone = load_backbone(tiny_svd(4, light=True), device="cpu", dtype="float32")

    def bench(name: str) -> benchmark.Summary:
        return run_benchmark(
            CASES,
            METHODS,
            store=Store(rows=folder / name / "rows.jsonl"),
            backbone=backbone,
            sampling=Sampling(num_steps=2, width=64, height=64, num_frames=4),
            tracker=TemplateTracker(scales=(), turns=()),
            extractors=[Colours()],
        )

    bench("whole")  # and everything is warm
    for death in range(NUM_DEATHS):
        random.seed(death)
        hazard = HAZARDS[death % len(HAZARDS)]
        child = os.fork()
        if not child:
            if hazard is not None:
                # A video dies at once, or three cases would be finished first and nothing left for later deaths.
                hazard(0 if hazard is in_the_middle_of_a_video else random.randrange(2))
            bench("killed")
            os._exit(0)
        if hazard is None:
            time.sleep(random.uniform(0.02, 0.4))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, f"death {death} did not come"
    bench("killed")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

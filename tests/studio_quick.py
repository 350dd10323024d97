"""A studio whose jobs are quick: the real server, queue and worker loop, with a maker that draws two frames.

Run as a program it serves: as studio with `serve`, else as that studio's worker.
"""

import argparse
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from sgi2v.scene import Scene
from sgi2v.studio.settings import Limits, StudioSettings
from sgi2v.studio.worker import Task, serve

SLICE = 0.02


class QuickEngine:
    """Knows one model that takes what it is given: how long to take, in the seed as milliseconds."""

    def __init__(self, settings: StudioSettings) -> None:
        """As the real one is made."""

    def info(self, recipe: str | None = None) -> dict[str, Any]:
        return {"version": "0", "backbones": [], "default_backbone": "quick", "default_controller": "none"}

    def plan(self, request: Mapping[str, Any], scene: Scene) -> dict[str, Any]:
        seed = (request.get("sampling") or {}).get("seed") or 0
        sampling = {"seed": seed, "num_steps": 1, "width": 8, "height": 8, "num_frames": 2}
        return {
            "backbone": "bundled",
            "controller": {"name": "none"},
            "sampling": sampling,
            "settings": {},
            "recipe": None,
            "guided_iterations": 0,
            "max_speed": 1.0,
            "warnings": [],
            "motions": [],
        }

    def read_record(self, record: Mapping[str, Any]) -> dict[str, Any]:
        raise ValueError("run: none is read here")


def make(task: Task, result: Path) -> Mapping[str, Any]:
    """Takes as many milliseconds as the seed says; writes down in runs.log that it was begun, and by whom."""
    with (task.folder.parents[1] / "runs.log").open("a", encoding="utf-8") as log:
        log.write(f"{task.id} {os.getpid()}\n")
    end = time.monotonic() + task.plan["sampling"]["seed"] / 1000
    while time.monotonic() < end:
        task.check()
        task.progress(phase="sample", step=1, num_steps=1)
        time.sleep(SLICE)
    (result / "frames").mkdir()
    for index in range(2):
        Image.new("RGB", (8, 8), (index, 0, 0)).save(result / "frames" / f"frame_{index:04d}.png")
    for name in ("frames/run.json", "video.mp4", "video.gif"):
        (result / name).write_text("{}", encoding="utf-8")
    return {"num_frames": 2, "width": 8, "height": 8, "fps": 7.0, "seconds": 0.0, "loss": None}


def quick_settings(data: Path, **changed: Any) -> StudioSettings:
    """Settings of a studio whose worker is this file."""
    return StudioSettings(data=data, port=0, worker=(str(Path(__file__)),), **changed)


def main() -> None:
    if "serve" not in sys.argv:
        serve(make)
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("serve")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--backbone", help="plan jobs for this model as the real studio does")
    parser.add_argument("--queued-jobs", type=int, default=1000)
    options = parser.parse_args()
    from sgi2v.studio.app import create_app
    from sgi2v.studio.serve import run

    limits = Limits(queued_jobs=options.queued_jobs, history=100_000, free_bytes=0)
    models = {"backbones": (options.backbone,)} if options.backbone else {}
    settings = quick_settings(options.data, limits=limits, **models)
    app = create_app(settings, engine=None if options.backbone else QuickEngine, warm_up=False)

    def ready(address: str) -> None:
        sys.stdout.write(address + "\n")
        sys.stdout.flush()

    run(app, ready)


if __name__ == "__main__":
    main()

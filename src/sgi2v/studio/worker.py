"""The process that computes: jobs in as lines of JSON, progress and ends out; it ends when its studio does."""

import argparse
import base64
import json
import os
import queue
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol, get_args, runtime_checkable

from sgi2v.backbones.base import settings_with, settings_with_recipe
from sgi2v.images import png_bytes
from sgi2v.opening import ModelChoice
from sgi2v.scene import Scene
from sgi2v.studio.pictures import Pictures
from sgi2v.studio.settings import Limits
from sgi2v.video_tag import Provenance
from sgi2v.writing import reason, writing

RESULT: Final = "result"  # a job's folder of results: there whole, or not at all
_MAX_PREVIEW: Final = 512  # pixels of a preview's longer side


class Stopped(Exception):
    """The person has cancelled the job."""


@dataclass
class Task:
    """One job in the worker: what to make, where, and whom to tell."""

    id: str
    folder: Path
    """The job's own folder."""
    plan: Mapping[str, Any]
    """The plan that the server found possible: recipe, settings, controller and sampling, complete."""
    scene: Scene
    tell: Callable[[Mapping[str, Any]], None]
    """Sends a message to the server."""
    stop: threading.Event = field(default_factory=threading.Event)

    def progress(self, **values: Any) -> None:
        """Tell how far the job is."""
        self.tell({"type": "progress", "id": self.id, **values})

    def preview(self, png: bytes) -> None:
        """Show what the video looks like so far."""
        self.tell({"type": "preview", "id": self.id, "png": base64.b64encode(png).decode()})

    def check(self) -> None:
        """Raise :class:`Stopped` when the person has cancelled."""
        if self.stop.is_set():
            raise Stopped


@runtime_checkable
class Maker(Protocol):
    """Maker of a task's video."""

    def __call__(self, task: Task, result: Path) -> Mapping[str, Any]:
        """Write frames, mp4 and gif into `result`, a new folder; what there is to say about them."""


class ModelMaker:
    """Makes videos with one model, which is loaded for the first of them."""

    def __init__(self, model: ModelChoice, provenance: Provenance = "on") -> None:
        self._model = model
        self._provenance = provenance
        self._backbone: Any = None

    def __call__(self, task: Task, result: Path) -> Mapping[str, Any]:
        """See :class:`Maker`."""
        if self._backbone is None:
            task.progress(phase="load")
            self._backbone = self._model.load(self._model.outline())
        from sgi2v.controllers import controller_from_dict
        from sgi2v.pipeline import Progress, generate
        from sgi2v.planning import Sampling
        from sgi2v.step import Cancelled

        task.check()
        plan = task.plan
        settings = settings_with_recipe(self._backbone.settings, plan["recipe"])
        backbone = self._backbone.with_settings(settings_with(settings, plan["settings"], "settings"))
        loss = None

        def progress(at: Progress) -> None:
            nonlocal loss
            loss = at.loss if at.loss is not None else loss
            task.progress(**asdict(at))

        begun = time.perf_counter()
        try:
            video = generate(
                as_planned(task.scene, plan),
                backbone=backbone,
                controller=controller_from_dict(plan["controller"]),
                sampling=Sampling(**plan["sampling"]),
                progress=progress,
                cancelled=task.stop.is_set,
                preview=lambda frame: task.preview(_png(frame)),
            )
        except Cancelled:
            raise Stopped from None
        seconds = time.perf_counter() - begun
        task.check()
        task.progress(phase="write", fraction=1.0)
        video = replace(video.recorded(video.record), provenance=self._provenance)  # once for all three
        video.save(result / "frames")
        video.save(result / "video.mp4")
        video.save(result / "video.gif")
        num_frames, _, height, width = video.frames.shape
        return {
            "num_frames": num_frames,
            "width": width,
            "height": height,
            "fps": video.fps,
            "seconds": round(seconds, 3),
            "loss": loss,
        }


def serve(make: Maker) -> None:
    """Take tasks from stdin until it ends, one at a time; everything else that prints goes to stderr.

    The end of stdin is the end of the studio: then this process ends at once, whatever it is doing.
    """
    for asked in (signal.SIGINT, signal.SIGTERM):  # are the studio's, which ends this process itself
        signal.signal(asked, signal.SIG_IGN)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    lock = threading.Lock()

    def tell(message: Mapping[str, Any]) -> None:
        line = json.dumps(message, allow_nan=False, default=float).encode() + b"\n"
        with lock:
            out.write(line)
            out.flush()

    stops: dict[str, threading.Event] = {}
    waiting: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, waiting, stops), daemon=True).start()
    tell({"type": "ready"})
    while True:
        order = waiting.get()
        tell(_do(order, stops.setdefault(order["id"], threading.Event()), make, tell))
        stops.pop(order["id"], None)


def _listen(source: BinaryIO, waiting: "queue.Queue[dict[str, Any]]", stops: dict[str, threading.Event]) -> None:
    for line in source:
        message = json.loads(line)
        if message["type"] == "job":
            waiting.put(message)
        else:
            stops.setdefault(message["id"], threading.Event()).set()
    os.kill(os.getpid(), signal.SIGKILL)


def _do(
    order: Mapping[str, Any], stop: threading.Event, make: Maker, tell: Callable[[Mapping[str, Any]], None]
) -> Mapping[str, Any]:
    """Do one task; the message that says how it ended."""
    job_id, folder = str(order["id"]), Path(order["folder"])
    try:
        scene = Pictures(Path(order["pictures"]), Limits()).scene_of(order["scene"])
        task = Task(id=job_id, folder=folder, plan=order["plan"], scene=scene, tell=tell, stop=stop)
        task.check()
        with writing(folder / RESULT) as temporary:
            temporary.mkdir()
            result = make(task, temporary)
            task.check()
            (temporary / "result.json").write_text(json.dumps(result, allow_nan=False), encoding="utf-8")
        return {"type": "done", "id": job_id, "result": result}
    except Stopped:
        return {"type": "cancelled", "id": job_id}
    except ValueError as error:
        return {"type": "failed", "id": job_id, "message": _advice(folder, " ".join(str(error).split()))}
    except OSError as error:
        return {"type": "failed", "id": job_id, "message": _unwritten(folder, reason(error))}
    except MemoryError as error:
        message = str(error) or "the machine has too little memory; lower num_frames, width and height"
        return {"type": "failed", "id": job_id, "message": message}
    except Exception as error:  # a bug ends the job, not the studio
        return {"type": "failed", "id": job_id, "message": f"{type(error).__name__}: {error}"[:2000]}


def _advice(folder: Path, message: str) -> str:
    if not message.startswith("output: cannot write"):
        return message
    return _unwritten(folder, message.split(": ")[-1].split(";")[0])


def _unwritten(folder: Path, why: str) -> str:
    free = shutil.disk_usage(folder).free / 2**20
    return f"the result could not be written ({why}; {free:.0f} MiB are free); make room, then start it again"


def as_planned(scene: Scene, plan: Mapping[str, Any]) -> Scene:
    """The scene with the fit that its aspect came to; what is cut for a size that was asked for is cut anew."""
    fit = plan.get("fit", scene.fit)  # older plans say none
    return scene if fit == "cover" else replace(scene, fit=fit)


def _png(frame: Any) -> bytes:
    """A frame [3, h, w] in 0..1 as a PNG of bearable size."""
    from PIL import Image

    pixels = (frame.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    image = Image.fromarray(pixels)
    image.thumbnail((_MAX_PREVIEW, _MAX_PREVIEW))
    return png_bytes(image)


def main() -> None:
    """Serve one model, named on the command line."""
    parser = argparse.ArgumentParser(description="Computes the studio's jobs; started by sgi2v studio.")
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--device")
    parser.add_argument("--dtype")
    parser.add_argument("--memory", default="auto")
    parser.add_argument("--provenance", choices=get_args(Provenance), default="on")
    options = parser.parse_args()
    model = ModelChoice(backbone=options.backbone, device=options.device, dtype=options.dtype, memory=options.memory)
    serve(ModelMaker(model, options.provenance))


if __name__ == "__main__":
    main()

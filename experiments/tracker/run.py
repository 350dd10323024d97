"""Compares trackers: which still find a thing that a rough model has changed, and which lose one that is gone."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import torch
import tyro
from torch import Tensor

from experiments.study.table import text_of, write_between_marks
from experiments.tracker.spoil import NOWHERE, THERE, spoilt
from sgi2v.evaluation.datasets import Case
from sgi2v.evaluation.held_out import HeldOutWorld
from sgi2v.evaluation.metrics import bootstrap_mean, motion_error
from sgi2v.evaluation.tracker import Tracker
from sgi2v.evaluation.trackers import load_tracker
from sgi2v.grid import Grid, tracks_of
from sgi2v.world import Kind

HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Options:
    """Spoil true clips, track them, and write the table into README.md where there is one for these options."""

    kind: Kind = "simple"
    """Kind of rendered world."""
    limit: int = 32
    """Number of scenes."""
    scene_set: int = 1
    """Set of held-out rendered scenes; 0 is the test split, which no tracker is to be fitted to."""
    width: int = 320
    """Pixels."""
    height: int = 192
    """Pixels."""
    num_frames: int = 14
    """Frames of a clip."""
    trackers: tuple[str, ...] = ("template", "points", "flow")
    """Names of trackers, see `load_tracker`."""
    threads: int = 1
    """CPU threads."""


def error_of(tracker: Tracker, case: Case, frames: Tensor, grid: Grid) -> tuple[float, float]:
    """ObjMC of the moving thing in pixels, and the share of frames in which it is lost."""
    assert case.masks is not None
    boxes = torch.from_numpy(tracks_of(case.scene, grid).tracks[0].boxes)[None]
    wanted = (boxes[..., :2] + boxes[..., 2:]).double() / 2
    found = tracker.track(frames, boxes[:, 0].float(), [case.masks[0, 0]])
    return motion_error(wanted, found, width=grid.width, height=grid.height).scene, found.share_lost


def measured(options: Options) -> Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]:
    """Spoiling -> tracker -> error and share lost, a pair a scene."""
    width, height, num_frames = options.width, options.height, options.num_frames
    grid = Grid(width=width, height=height, num_frames=num_frames, stride=1)
    cases = HeldOutWorld(
        scene_set=options.scene_set,
        limit=options.limit,
        kind=options.kind,
        width=width,
        height=height,
        num_frames=num_frames,
    )
    trackers = {name: load_tracker(name) for name in options.trackers}
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for index in range(len(cases)):
        case = cases[index]
        assert case.truth is not None and case.masks is not None
        frames, masks = case.truth.permute(0, 2, 3, 1).numpy(), case.masks[0].numpy()
        for name, spoil in (*THERE.items(), *NOWHERE.items()):
            clip = torch.from_numpy(spoilt(spoil, frames, masks, seed=index)).permute(0, 3, 1, 2).contiguous()
            for label, tracker in trackers.items():
                found.setdefault(name, {}).setdefault(label, []).append(error_of(tracker, case, clip, grid))
    return found


def table(options: Options) -> str:
    """Error and share lost of every tracker under every spoiling."""
    lines = [f"| the thing is | {' | '.join(options.trackers)} |", "|---" * (len(options.trackers) + 1) + "|"]
    for name, by_tracker in measured(options).items():
        cells = []
        for label in options.trackers:
            errors, lost = torch.tensor(by_tracker[label], dtype=torch.float64).unbind(-1)
            cells.append(f"{text_of(bootstrap_mean(errors), 1)} px, {float(lost.mean()):.0%} lost")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        f"{options.limit} held-out {options.kind} scenes (set {options.scene_set}), {options.num_frames} frames of "
        f"{options.width}×{options.height}, with the thing's mask ({platform.machine()}, {options.threads} of "
        f"{os.cpu_count()} cores). Mean and 95 % bootstrap interval over scenes.",
    ]
    return "\n".join(lines)


def mark_of(options: Options) -> str | None:
    """The mark of the table in README.md that these options fill; None where they fill none."""
    as_committed = Options(kind=options.kind, threads=options.threads)
    if options == as_committed:
        return f"-{options.kind}"
    # The bundled model's recipe `study`: the same motion in fewer frames, and so in longer steps.
    of_study = replace(as_committed, width=192, height=192, num_frames=8)
    return "-study" if options == of_study and options.kind == "simple" else None


if __name__ == "__main__":
    options = tyro.cli(Options, prog="python -m experiments.tracker.run")
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    text = table(options)
    print(text)
    mark = mark_of(options)
    if mark is not None:
        write_between_marks(HERE / "README.md", text, mark)

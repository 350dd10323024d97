"""Does the object follow its path on the bundled model? Held-out rendered scenes, without and with SG-I2V."""

import dataclasses
import json
import os
import platform
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import tyro
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from sgi2v.backbones import load_backbone
from sgi2v.controllers import Controller, controller_to_dict, recommended
from sgi2v.draw import draw_tracks
from sgi2v.evaluation.baselines import paste, still
from sgi2v.evaluation.metrics import (
    Interval,
    background_change,
    background_motion,
    bootstrap_mean,
    bootstrap_ratio,
    motion_error,
    psnr,
)
from sgi2v.evaluation.rows import append_row, read_rows, row_key
from sgi2v.evaluation.tracker import TemplateTracker
from sgi2v.generate import Sampling, generate
from sgi2v.grid import Track, tracks_of
from sgi2v.scene import Box, Key, Motion, Scene
from sgi2v.training.world import HeldOutScene, World, held_out_scenes

HERE = Path(__file__).parent
OUT = HERE.parents[1] / "out" / "follow"
TARGET = 0.6
Method = Literal["true", "reconstructed", "paste", "still", "none", "sg-i2v"]
METHODS: tuple[Method, ...] = get_args(Method)
COLUMNS = ("objmc", "objmc_with_first", "path_end", "lost", "background_motion", "background_change", "psnr")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure how far objects end from their wanted paths, and say the ratio of SG-I2V to no control."""

    split: Literal["validation", "test"] = "validation"
    """validation: for choosing settings, its rows go to out/follow. test: for the final figure only, touched once
    settings are chosen; its rows go beside this file."""
    scene_set: int = 1
    """Which validation set, 1 and up; the test split is set 0."""
    limit: int = 16
    """Number of scenes."""
    kind: Literal["simple", "rich"] = "simple"
    """Kind of rendered world."""
    num_things: int = 1
    """Things in a scene; the one that is asked to move lies on top."""
    seed: int = 817
    """Seed of the noise, the same for every scene and method."""
    methods: tuple[Method, ...] = METHODS
    """What is measured; without the last two no video is made, and the tracker's floor is known in a minute."""
    backbone: str = "bundled"
    """Name, folder or hub id of the model."""
    num_steps: int | None = None
    """Denoising steps; by default what the backbone recommends."""
    controller: str = "{}"
    """Fields of SG-I2V that differ from what the backbone recommends, as a JSON object."""
    rows: Path | None = None
    """Where rows are appended and finished ones found."""
    threads: int = 1
    """CPU threads."""

    def __post_init__(self) -> None:
        if self.limit < 1 or (self.split == "validation" and self.scene_set < 1):
            raise ValueError(
                f"limit, scene_set: must be at least 1, got {self.limit}, {self.scene_set} (set 0 is the test split)"
            )

    @property
    def rows_file(self) -> Path:
        """The file of rows."""
        return self.rows or (HERE if self.split == "test" else OUT / "validation") / "rows.jsonl"


def scene_of(held_out: HeldOutScene) -> Scene:
    """What a person would ask for: the clip's first frame, the box of thing 0, and its true path."""
    pixels = (held_out.clip.frames[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    height, width = pixels.shape[:2]
    left, top, right, bottom = held_out.box
    # An outline's reach may stand out of the frame by a rounding error.
    box = Box(left=max(left, 0), top=max(top, 0), right=min(right, width), bottom=min(bottom, height))
    times = np.linspace(0, 1, len(held_out.path))
    keys = [Key(time=t, x=x, y=y) for t, (x, y) in zip(times, held_out.path.tolist(), strict=True)]
    return Scene(image=Image.fromarray(pixels), motions=(Motion(box=box, path=tuple(keys), name="thing"),))


def measure(
    frames: Float[Tensor, "f 3 h w"], track: Track, truth: Float[Tensor, "f 3 h w"], tracker: TemplateTracker
) -> dict[str, float]:
    """All figures of one clip; distances in pixels of the clip."""
    boxes = torch.from_numpy(track.boxes)[None]
    height, width = frames.shape[-2:]
    # What lies in the first box is known from the picture; a model's own first frame may already have lost it.
    result = tracker.track(torch.cat([truth[:1], frames[1:]]), boxes[:, 0])
    error = motion_error(torch.from_numpy(track.centers)[None], result, width=width, height=height)
    quality = psnr(frames, truth)
    return {
        "objmc": error.scene,
        "objmc_with_first": float(error.objmc_with_first.mean()),
        "objmc_of_diagonal": error.scene_of_diagonal,
        "path_end": float(error.path_end.mean()),
        "lost": float(error.lost.mean()),
        "background_motion": background_motion(frames, boxes),
        "background_change": background_change(frames, boxes),
        "psnr": min(quality, 99.0),
    }


def save_sheet(path: Path, clips: list[tuple[str, Tensor]], track: Track) -> None:
    """A PNG: one row a clip, first to last frame, the wanted box and path drawn."""
    rows = []
    for _, frames in clips:
        large = torch.nn.functional.interpolate(frames.float(), scale_factor=3, mode="nearest")
        drawn = draw_tracks(large, [dataclasses.replace(track, boxes=track.boxes * 3)])
        picked = [round(k * (len(frames) - 1) / 4) for k in range(5)]
        rows.append(torch.cat(list(drawn[picked]), dim=-1))
    pixels = (torch.cat(rows, dim=-2).permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def report(rows: list[dict[str, Any]]) -> str:
    """The table of all methods and the figure of the question, in Markdown."""
    by_method = {
        name: sorted((r for r in rows if r["method"] == name), key=lambda r: r["scene"]) for name in METHODS
    }
    lines = [f"| method | scenes | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 2) + "|"]
    for name, found in by_method.items():
        if found:
            cells = []
            for column in COLUMNS:
                interval = bootstrap_mean(torch.tensor([row[column] for row in found], dtype=torch.float64))
                digits = 3 if column in ("lost", "background_change") else 2
                cells.append(
                    text_of(interval, digits) if column == "objmc" else f"{interval.value:.{digits}f}"
                )
            lines.append(f"| {name} | {len(found)} | {' | '.join(cells)} |")
    none, ours = ({row["scene"]: row["objmc"] for row in by_method[name]} for name in ("none", "sg-i2v"))
    scenes = sorted(set(none) & set(ours))
    if scenes:
        above, below = (torch.tensor([of[s] for s in scenes], dtype=torch.float64) for of in (ours, none))
        ratio = bootstrap_ratio(above, below)
        verdict = "reached" if ratio.value <= TARGET else "not reached"
        lines += ["", f"ObjMC SG-I2V / no control: {text_of(ratio, 3)} over {len(scenes)} scenes (wanted: "]
        lines[-1] += f"at most {TARGET}; {verdict}); better in {int((above < below).sum())} of them."
    seconds = {
        n: [row["seconds"] for row in found] for n, found in by_method.items() if n in ("none", "sg-i2v")
    }
    for name, times in seconds.items():
        if times:
            lines.append(f"{name}: {np.median(times):.1f} s a video (median).")
    return "\n".join(lines)


def text_of(interval: Interval, digits: int) -> str:
    """A figure with its 95 % interval."""
    return f"{interval.value:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def main(options: Options) -> None:
    """Measure what is not yet in the file of rows, and print the table."""
    torch.set_num_threads(options.threads)
    finished = {row["key"]: row for row in read_rows(options.rows_file)}
    backbone = load_backbone(options.backbone)
    fields = {"sg-i2v": {**backbone.settings.recommended.get("sg-i2v", {}), **json.loads(options.controller)}}
    controllers: dict[str, Controller] = {"none": Controller(), "sg-i2v": recommended("sg-i2v", fields)}
    settings = {k: v for k, v in dataclasses.asdict(backbone.settings).items() if k != "recommended"}
    size = {name: getattr(backbone.settings, name) for name in ("width", "height", "num_frames")}
    world, tracker = World(kind=options.kind, num_things=options.num_things, **size), TemplateTracker()
    sampling = Sampling(seed=options.seed, num_steps=options.num_steps)
    scene_set = 0 if options.split == "test" else options.scene_set
    used = []
    for held_out in held_out_scenes(options.limit, scene_set, world=world):
        scene, truth = scene_of(held_out), held_out.clip.frames
        grid = backbone.grid(*size.values())
        track = tracks_of(scene, grid).tracks[0]
        sheet: list[tuple[str, Tensor]] = [("true", truth)]
        for method in options.methods:
            identity: dict[str, Any] = {
                "scene": held_out.name,
                "world": dataclasses.asdict(world),
                "method": method,
                "tracker": dataclasses.asdict(tracker),
            }
            if method in controllers or method == "reconstructed":
                identity |= {"weights_sha256": backbone.weights_sha256, "settings": settings}
            if method in controllers:
                identity |= {
                    "sampling": dataclasses.asdict(sampling),
                    "controller": controller_to_dict(controllers[method]),
                }
            key = row_key(identity)
            if key in finished:
                used.append(finished[key])
                continue
            begun = time.perf_counter()
            if method in controllers:
                frames = generate(
                    scene, backbone=backbone, controller=controllers[method], sampling=sampling
                ).frames
                sheet.append((method, frames))
            elif method == "reconstructed":
                with torch.no_grad():
                    frames = backbone.decode(backbone.encode_frames(truth.to(backbone.device))).cpu()
                sheet.append((method, frames))
            elif method == "paste":
                frames = paste(truth[0], held_out.clip.boxes[:1], held_out.clip.masks[:1, 0])
            else:
                frames = truth if method == "true" else still(truth[0], len(truth))
            seconds = time.perf_counter() - begun
            row = json.loads(
                json.dumps(
                    {
                        "key": key,
                        **identity,
                        **measure(frames, track, truth, tracker),
                        "split": options.split,
                        "seconds": round(seconds, 2),
                        "device": f"{backbone.device.type}, {options.threads} of {os.cpu_count()} cores",
                        "python": platform.python_version(),
                        "versions": {
                            name: version(name) for name in ("sgi2v", "torch", "diffusers", "transformers")
                        },
                    }
                )
            )
            append_row(options.rows_file, row)
            used.append(row)
            print(
                f"{held_out.name} {method:7s} objmc {row['objmc']:6.2f} px  lost {row['lost']:.2f}",
                flush=True,
            )
        if len(sheet) > 1:
            name = f"{options.kind}-{options.num_things}-{backbone.weights_sha256[:8]}-{options.seed}"
            save_sheet(OUT / options.split / name / f"{held_out.name}.png", sheet, track)
    print(report(used))


if __name__ == "__main__":
    main(tyro.cli(Options))

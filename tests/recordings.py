"""Recordings of other people's pipelines, met by the ordinary classes: ``python -m tests.recordings FOLDER``.

Every ``<model>/<name>.npz`` beside a ``<model>/model`` is a run of diffusers' or Time-to-Move's own pipeline, as its
``meta`` describes it. The same is asked of :func:`sgi2v.generate` here, for any kind of model, and compared: one line a
recording. The exit code is 1 where a tolerance is missed, and where nothing was compared. A folder of a trained system
(config.json and golden.npz, tests/peer_recordings.py) is recognised by its config.json.
"""

import argparse
import ast
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sgi2v import Controller, Sampling, Scene, TimeToMove, Video, generate, load_backbone
from sgi2v.backbones import Backbone
from sgi2v.backbones.base import settings_with
from sgi2v.backbones.registry import outline_of
from sgi2v.controllers.time_to_move import held_cells
from sgi2v.errors import FieldError
from sgi2v.grid import Grid, tracks_of
from sgi2v.reference import Reference
from sgi2v.step import Level

LATENTS: Final = 1e-4
"""Largest difference of latents that passes, in units of the deviation of x at that level (at least 1)."""
FRAMES: Final = 1e-3
"""Of frames in 0..1, which are recorded in float16."""
PHOTOGRAPHS: Final = Path(__file__).parents[1] / "src" / "sgi2v" / "assets" / "scenes"
OURS: Final = MappingProxyType({"use_dynamic_cfg": "dynamic_guidance"})
"""Arguments of pipelines that are settings of another name here."""
Json = dict[str, Any]


@dataclass(frozen=True)
class Recording:
    """One npz: ``meta`` and arrays."""

    file: Path
    meta: Json
    arrays: Mapping[str, np.ndarray]

    @classmethod
    def read(cls, file: Path) -> "Recording":
        with np.load(file) as data:
            return cls(file, json.loads(str(data["meta"])), {name: data[name] for name in data.files if name != "meta"})

    @property
    def name(self) -> str:
        return f"{self.file.parent.name}/{self.file.stem}"

    @property
    def extra(self) -> Json:
        """Further arguments of the pipeline, kept as texts."""
        return {name: _value(text) for name, text in self.meta.get("extra", {}).items()}

    @property
    def beyond(self) -> str:
        """The reason why no solver here can meet it; empty where one can."""
        order = self.meta.get("solver_order") or self.meta.get("scheduler_config", {}).get("solver_order") or 1
        scheduler = self.meta["scheduler"]
        if "UniPC" in scheduler and order > 1:
            return (
                "UniPC of second order corrects x from its own memory of the step before, so that what a method writes "
                "into x is lost; our solvers are functions without such a memory"
            )
        if "DPM" in scheduler:
            return "the scheduler is a stochastic one of second order that draws fresh noise at every step"
        return ""


@dataclass(frozen=True)
class Differences:
    """The largest ones of a recording; ``cells`` of the mask are counted."""

    steps: float
    final: float
    frames: float
    cells: int | None = None

    @property
    def met(self) -> bool:
        return max(self.steps, self.final) <= LATENTS and self.frames <= FRAMES and not self.cells

    def __str__(self) -> str:
        mask = "" if self.cells is None else f", mask cells {self.cells}"
        return f"latents at kept steps {self.steps:.1e}, at the end {self.final:.1e}, frames {self.frames:.1e}{mask}"


def _value(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def as_latents(array: np.ndarray, grid: Grid) -> Tensor:
    """[frames, channels, rows, columns] of a layout that some pipeline keeps: channels first, or tokens."""
    frames, channels, rows, columns = grid.latent_shape
    latents = torch.from_numpy(array).float()
    if latents.shape == (frames * rows * columns, channels):
        latents = latents.unflatten(0, (frames, rows, columns)).permute(0, 3, 1, 2)
    elif latents.shape == (channels, frames, rows, columns):
        latents = latents.transpose(0, 1)
    assert latents.shape == grid.latent_shape, (latents.shape, grid)
    return latents.contiguous()


@contextmanager
def folder_of(recording: Recording) -> Iterator[Path]:
    """The model's folder; where the recording's scheduler is another than the folder's, a copy of links with it."""
    model, meta = recording.file.parent / "model", recording.meta
    name = "scheduler/scheduler_config.json"
    own = json.loads((model / name).read_text())
    same = own.get("_class_name") == meta["scheduler"]
    wanted = {**(own if same else {}), "_class_name": meta["scheduler"], **meta.get("scheduler_config", {})}
    if meta.get("solver_order"):
        wanted |= {"solver_order": meta["solver_order"], "disable_corrector": _value(meta["disable_corrector"])}
    if wanted == own:
        yield model
        return
    with tempfile.TemporaryDirectory() as made:
        copy = Path(made) / f"{recording.file.parent.name}-{recording.file.stem}"
        (copy / "scheduler").mkdir(parents=True)
        for part in model.iterdir():
            if part.name not in ("scheduler", "model_index.json"):
                (copy / part.name).symlink_to(part.resolve(), target_is_directory=part.is_dir())
        index = json.loads((model / "model_index.json").read_text())
        index["scheduler"] = ["diffusers", meta["scheduler"]]
        (copy / "model_index.json").write_text(json.dumps(index))
        (copy / name).write_text(json.dumps(wanted))
        yield copy


def scene_of(recording: Recording) -> Scene:
    """The photograph at the recording's size, its words, and the clip that it begins from, where there is one."""
    meta, extra, arrays = recording.meta, recording.extra, recording.arrays
    found = re.search(r"(?:scenes/)?(\w+)(?:/photo\.jpg.*)?$", meta["image"])
    assert found is not None
    with Image.open(PHOTOGRAPHS / found[1] / "photo.jpg") as photo:
        image = photo.convert("RGB").resize((meta["width"], meta["height"]), Image.Resampling.BICUBIC)
    reference = None
    if "signal" in arrays:
        frames, masks = (tuple(Image.fromarray(one) for one in arrays[name]) for name in ("signal", "mask"))
        reference = Reference(frames=frames, masks=masks)
    return Scene(
        image=image,
        prompt=str(meta.get("prompt", extra.get("prompt", ""))),
        negative_prompt=str(meta.get("negative", extra.get("negative_prompt", ""))),
        reference=reference,
    )


def settings_of(recording: Recording, backbone: Backbone) -> Any:
    """The model's settings with those of the recording."""
    extra = recording.extra.items()
    values = {OURS.get(name, name): value for name, value in extra if name not in ("prompt", "negative_prompt")}
    if "guidance" in recording.meta:
        values["guidance_scale"] = recording.meta["guidance"]
    return settings_with(backbone.settings, values, "settings")


def controller_of(meta: Json) -> Controller:
    """Time-to-Move with the recording's two indices as steps to go; no control where it has none."""
    if "tweak_index" not in meta:
        return Controller()
    weak, strong = (float(meta["steps"] - meta[name]) for name in ("tweak_index", "tstrong_index"))
    return TimeToMove(t_weak=weak, t_strong=strong, unit="step", mask_rule="published")


@contextmanager
def watched(backbone: Backbone) -> Iterator[list[tuple[Level, Tensor]]]:
    """Collects level and latents of every pass."""
    seen: list[tuple[Level, Tensor]] = []
    denoise = backbone.denoise

    def watching(x: Tensor, level: Level, condition: Any) -> Tensor:
        seen.append((level, x.cpu().clone()))
        return denoise(x, level, condition)

    vars(backbone)["denoise"] = watching
    try:
        yield seen
    finally:
        del vars(backbone)["denoise"]


def run(recording: Recording, backbone: Backbone) -> tuple[Video, list[tuple[Level, Tensor]]]:
    """The recording's run by the ordinary classes: its video, and what the network was shown at every step."""
    meta, arrays = recording.meta, recording.arrays
    size = {name: meta[name] for name in ("seed", "width", "height", "num_frames")}
    grid = backbone.grid(meta["width"], meta["height"], meta["num_frames"])
    backbone = backbone.with_settings(settings_of(recording, backbone))
    given = {
        name: as_latents(arrays[key][0], grid)
        for name, key in (("noise", "fixed_noise"), ("reference_latents", "ref_latents"))
        if key in arrays
    }
    with watched(backbone) as seen:
        video = generate(
            scene_of(recording), backbone=backbone, controller=controller_of(meta),
            sampling=Sampling(**size, num_steps=meta["steps"]),
            noise=given.get("noise"), reference_latents=given.get("reference_latents"),
        )  # fmt: skip
    return video, seen


def compare(recording: Recording, backbone: Backbone) -> Differences:
    """Ours against the recording: latents behind the kept steps and behind the last, frames.

    Time-to-Move's pipeline sets latents back at the end of a step, which is the top of the next: so what is behind a
    step is what the next one shows the network. A latent frame that the model keeps is compared in the video alone: a
    pipeline lets its scheduler step that frame too, and puts the picture's own in its place when all is over.
    """
    meta, arrays = recording.meta, recording.arrays
    grid = backbone.grid(meta["width"], meta["height"], meta["num_frames"])
    video, seen = run(recording, backbone)
    assert video.latents is not None
    kept = [int(step) for step in arrays["steps_kept"]]
    free, steps, final = backbone.free(grid), 0.0, 0.0
    for step, array in zip(kept, arrays["steps_latents"], strict=True):
        wanted = as_latents(array[0], grid)
        if step == len(seen) - 1:
            final = float((video.latents - wanted)[free].abs().max())
        else:
            level, x = seen[step + 1]
            steps = max(steps, float((x - wanted)[free].abs().max()) / max(level.init_noise_sigma, 1.0))
    frames = torch.from_numpy(arrays["frames_every_2nd_pixel"]).float()
    cells = None
    if "latent_mask" in arrays:
        reference = tracks_of(scene_of(recording), grid).reference
        assert reference is not None
        masks = np.stack([np.asarray(mask, dtype=np.float32) / 255 for mask in reference.masks])
        inside = held_cells(masks, grid, "published")
        cells = int((inside != (arrays["latent_mask"].reshape(inside.shape) > 0.5)).sum())
    return Differences(steps, final, float((video.frames[:, :, ::2, ::2] - frames).abs().max()), cells)


def recordings_in(folder: Path) -> list[Path]:
    """Files of recordings beside their models, in the order of their names."""
    return [file for file in sorted(folder.rglob("*.npz")) if (file.parent / "model").is_dir()]


def answer(file: Path) -> tuple[bool | None, str]:
    """True where a recording is met, None where it cannot be; and a line about it."""
    recording = Recording.read(file)
    if recording.beyond:
        return None, f"{recording.name}: cannot be met: {recording.beyond}"
    with folder_of(recording) as folder:
        try:
            outline_of(str(folder))
        except FieldError as error:
            return None, f"{recording.name}: not run: {error}"
        try:
            found = compare(recording, load_backbone(str(folder), device="cpu", dtype="float32"))
        except FieldError as error:
            return False, f"{recording.name}: MISSED: {error}"
    return found.met, f"{recording.name}: {'met' if found.met else 'MISSED'}: {found}"


def answer_system(folder: Path, parts: Callable[[Path, Path], Iterator[Any]]) -> tuple[bool, str]:
    """True where every part of a trained system's recording is met; and a line of all."""
    try:
        with tempfile.TemporaryDirectory() as made:
            found = list(parts(folder, Path(made)))
    except FieldError as error:
        return False, f"{folder.name}: MISSED: {error}"
    met = all(one.met for one in found)
    return met, f"{folder.name}: {'met' if met else 'MISSED'}: {', '.join(map(str, found))}"


def systems_in(folder: Path) -> list[tuple[Path, Callable[[Path, Path], Iterator[Any]]]]:
    """Folders of recordings of trained systems that are known, the folder itself or below it, each with its way."""
    import peer_image_conductor
    import peer_recordings

    known = peer_recordings.system_of, peer_image_conductor.system_of
    places = sorted(file.parent for file in folder.rglob("golden.npz"))
    return [(place, parts) for place in places for of in known if (parts := of(place)) is not None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs every recording of a folder; 0 where all that can be met are."""
    parser = argparse.ArgumentParser(prog="python -m tests.recordings", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "folder", type=Path, help="holds <model>/<name>.npz and <model>/model, or is a trained system's recording"
    )
    parser.add_argument("--only", default="", help="a part of <model>/<name>: others are left out")
    options = parser.parse_args(arguments)
    found: list[bool | None] = []
    for file in recordings_in(options.folder):
        if options.only in f"{file.parent.name}/{file.stem}":
            met, line = answer(file)
            found.append(met)
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
    for place, parts in systems_in(options.folder):
        if options.only in place.name:
            met, line = answer_system(place, parts)
            found.append(met)
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
    counts = {True: "met", False: "missed", None: "cannot be met or run"}
    sys.stdout.write(", ".join(f"{found.count(met)} {word}" for met, word in counts.items()) + "\n")
    return int(False in found or True not in found)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))  # where its neighbours lie, which Python does not know by itself
    sys.exit(main())

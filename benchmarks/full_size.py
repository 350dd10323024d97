"""Full-size Stable Video Diffusion, random weights: what the phases of a guided generation take, and a whole run."""

import dataclasses
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from benchmarks.architecture import META, Scale, published_svd
from benchmarks.counting import H200, Count, count_phases
from benchmarks.phases import Generation, recommended_sg_i2v, tracks_over
from benchmarks.timing import Timing, free_unused, matrix_peak, time_phases
from benchmarks.yardstick import Yardstick
from sgi2v.backbones import Mode, settings_with_recipe
from sgi2v.backbones.svd.compiling import any_compiled, compile_blocks
from sgi2v.backbones.svd.model import SVD
from sgi2v.backbones.svd.outline import SVDSettings
from sgi2v.device import choose_device, choose_dtype, device_name

Row = Mapping[str, Any]
RUNS = ("sum", "whole run", "by arithmetic", "at least, eager")
Recipe = Literal["paper", "quick", "yardstick"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure; results come as lines of JSON while they are made, then as tables."""

    scale: Scale = "full"
    """full: the published architecture. small: the same classes with fewer channels, for a CPU."""
    device: str | None = None
    """Device to run on; the best there is unless named."""
    dtype: str | None = None
    """float16, bfloat16 or float32; what suits the device unless named."""
    width: int | None = None
    """Pixels; 1024, or 256 at small scale."""
    height: int | None = None
    """Pixels; 576, or 128 at small scale."""
    num_frames: tuple[int, ...] = (14,)
    """Clip lengths, one after the other."""
    num_steps: int | None = None
    """Denoising steps instead of the recipe's."""
    recipes: tuple[Literal["paper", "quick"], ...] = ("paper", "quick")
    """Settings of SG-I2V: as published, and the cheaper ones."""
    memory: tuple[Mode, ...] = ("fast",)
    """Ways to hold the model; the first one is used for every recipe, the others for the first recipe."""
    yardstick: bool = False
    """Measure the published procedure's cost too, with the first way to hold the model."""
    compiled: bool = False
    """Measure the recipes once more in the end, with compiled blocks, held the first way; compiling takes minutes."""
    num_boxes: int = 2
    """Boxes of 0.4 x 0.4 of the picture."""
    repeats: int = 5
    """Repetitions of a phase; medians are told."""
    warm_up: int = 2
    """Repetitions before those, which do not count."""
    whole: bool = True
    """Run every case once from picture to frames too, to confirm the sum of its phases."""
    count_only: bool = False
    """Count operations, bytes and live tensors, and run nothing; with times that an H200 needs at least."""
    rows: Path | None = None
    """File to which the lines are appended, too."""


@dataclass(frozen=True, kw_only=True)
class Case:
    recipe: Recipe
    memory: Mode
    num_frames: int
    compiled: bool = False

    @property
    def name(self) -> str:
        return f"{self.recipe}, {self.memory}, {self.num_frames} frames" + ", compiled" * self.compiled


@dataclass
class Log:
    """Lines of JSON, printed and kept as soon as they are there: a run that is cut short leaves what it has."""

    file: Path | None
    rows: list[Row] = field(default_factory=list)

    def add(self, **row: Any) -> None:
        self.rows.append(row)
        line = json.dumps(row)
        print(line, flush=True)
        if self.file is not None:
            with self.file.open("a") as stream:
                stream.write(line + "\n")


def cases_of(options: Options) -> Iterator[Case]:
    """Cases, the most telling first: the published settings, their yardstick, the cheap ones, then other memory."""
    for num_frames in options.num_frames:
        first, *others = options.memory
        for k, recipe in enumerate(options.recipes):
            yield Case(recipe=recipe, memory=first, num_frames=num_frames)
            if k == 0 and options.yardstick:
                yield Case(recipe="yardstick", memory=first, num_frames=num_frames)
        for memory in others:
            yield Case(recipe=options.recipes[0], memory=memory, num_frames=num_frames)
    for recipe in options.recipes if options.compiled and not options.count_only else ():
        yield Case(recipe=recipe, memory=options.memory[0], num_frames=options.num_frames[0], compiled=True)


def _settings(recipe: Recipe) -> SVDSettings:
    settings = SVDSettings()
    named = recipe if recipe in settings.recipes else None
    assert named or recipe != "quick", "no recipe of that name"
    with_recipe: SVDSettings = settings_with_recipe(settings, named)
    return with_recipe


def generation_of(backbone: SVD, case: Case, options: Options) -> Generation:
    """The case on a backbone: its steps, its controller, boxes that cross the picture."""
    settings = _settings(case.recipe)
    small = options.scale == "small"
    width, height = options.width or (256 if small else 1024), options.height or (128 if small else 576)
    grid = backbone.grid(width, height, case.num_frames)
    # Random weights say nothing about when a loss stops falling, so every iteration is made.
    guided = dataclasses.replace(recommended_sg_i2v(settings), settled=0.0)
    return Generation(
        backbone=backbone,
        controller=Yardstick() if case.recipe == "yardstick" else guided,
        grid=grid,
        tracks=tracks_over(grid, 0.4, options.num_boxes),
        num_steps=options.num_steps or settings.num_steps,
    )


def counts_of(case: Case, options: Options, dtype: torch.dtype) -> tuple[dict[str, Count], Generation]:
    """Operations and live tensors of each phase, on the meta device; per iteration where a phase has several."""
    backbone = published_svd(dtype, scale=options.scale)
    backbone.use_memory(case.memory)
    generation = generation_of(backbone, case, options)
    generation.prepare()
    held = [*backbone._arranged.staying, generation.x]
    counts: dict[str, Count] = {}
    for part in generation.parts:
        counts |= count_phases(part, held, device=META)
    return counts, generation


def _gigabytes(value: int | None) -> float | None:
    return None if value is None else round(value / 1e9, 3)


def count(case: Case, options: Options, dtype: torch.dtype, log: Log) -> None:
    """Add a row for each phase, and one for the run, by arithmetic alone."""
    counts, generation = counts_of(case, options, dtype)
    total = floor = 0.0
    for phase, value in counts.items():
        tflop = value.flop / 1e12 / generation.per_unit(phase)
        times = generation.times[phase]
        total += tflop * times
        floor += value.floor / generation.per_unit(phase) * times
        log.add(
            what="count",
            case=case.name,
            phase=phase,
            times=times,
            tflop=tflop,
            kinds={kind: flop / 1e12 / generation.per_unit(phase) for kind, flop in value.kinds.items()},
            moved_gb=_gigabytes(value.moved // generation.per_unit(phase)),
            floor=None if case.recipe == "yardstick" else value.floor / generation.per_unit(phase),
            held_gb=_gigabytes(value.held),
            live_gb=_gigabytes(value.total),
        )
    arithmetic = total * 1e12 / H200[0]
    log.add(what="by arithmetic", case=case.name, tflop=total, seconds=arithmetic)
    if case.recipe != "yardstick":  # meta knows no autocast: its number formats there are not those of a run
        log.add(what="at least, eager", case=case.name, tflop=total, seconds=floor, share=arithmetic / floor)


def measure(case: Case, options: Options, backbone: SVD, flop: Mapping[str, float], peak: float, log: Log) -> None:
    """Add a row for each phase, one for their sum, one for the whole run."""
    device = backbone.device
    backbone.use_memory(case.memory)
    generation = generation_of(backbone, case, options)
    generation.prepare()
    total = 0.0
    for part in generation.parts:
        for phase, timing in time_phases(part, device, repeats=options.repeats, warm_up=options.warm_up).items():
            seconds = timing.seconds / generation.per_unit(phase)
            times, tflop = generation.times[phase], flop.get(phase, 0.0)
            total += seconds * times
            log.add(
                what="phase",
                case=case.name,
                phase=phase,
                times=times,
                seconds=seconds,
                spread=timing.spread / generation.per_unit(phase),
                repeats=timing.repeats,
                tflop=tflop,
                share=tflop * 1e12 / seconds / peak,
                **_memory_of(timing),
            )
    tflop = sum(flop.get(phase, 0.0) * times for phase, times in generation.times.items())
    log.add(what="sum", case=case.name, seconds=total, tflop=tflop, share=tflop * 1e12 / total / peak)
    if options.whole:
        free_unused(device)
        start = time.perf_counter()
        (timing,) = time_phases(generation.whole, device, repeats=1, warm_up=0).values()
        wall = time.perf_counter() - start
        log.add(
            what="whole run",
            case=case.name,
            seconds=wall,
            tflop=tflop,
            share=tflop * 1e12 / wall / peak,
            **_memory_of(timing),
        )


def _memory_of(timing: Timing) -> dict[str, float | None]:
    return {"steady_gb": _gigabytes(timing.steady), "peak_gb": _gigabytes(timing.peak)}


def _cell(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:.0f}"


def tables(rows: Sequence[Row]) -> str:
    """The lines of JSON as tables: one a case, then one of the runs."""
    text = []
    for case in dict.fromkeys(row["case"] for row in rows if "phase" in row):
        mine = [row for row in rows if row.get("case") == case and "phase" in row]
        counted = mine[0]["what"] == "count"
        text.append(f"\n{case}\n")
        if counted:
            text.append(
                "| phase | times | TFLOP | product | convolution | attention | moved, GB | seconds at least "
                "| live tensors, GB |"
            )
        else:
            text.append("| phase | times | seconds | spread | TFLOP | of the peak | steady, GB | peak, GB |")
        text.append("|" + "---|" * text[-1].count(" |"))
        for row in mine:
            if counted:
                kinds = [row["kinds"].get(k, 0.0) for k in ("matrix product", "convolution", "attention")]
                cells = [_cell(v) for v in (row["tflop"], *kinds, *(row[k] for k in ("moved_gb", "floor", "live_gb")))]
            else:
                keys = ("seconds", "spread", "tflop", "share", "steady_gb", "peak_gb")
                cells = [_cell(row[key]) for key in keys]
            text.append(f"| {row['phase']} | {row['times']} | " + " | ".join(cells) + " |")
    runs = [row for row in rows if row["what"] in RUNS]
    text.append("\n| run | | TFLOP | seconds | of the peak | peak, GB |\n|---|---|---|---|---|---|")
    for row in runs:
        cells = [_cell(row.get(key)) for key in ("tflop", "seconds", "share", "peak_gb")]
        text.append(f"| {row['case']} | {row['what']} | " + " | ".join(cells) + " |")
    text += [f"| {row['case']} | did not run: {row['error']} | | | | |" for row in rows if row["what"] == "error"]
    return "\n".join(text)


def main(options: Options) -> None:
    log = Log(options.rows)
    cases = list(cases_of(options))
    if options.count_only:
        dtype = choose_dtype(options.dtype or "float16", META)
        for case in cases:
            count(case, options, dtype, log)
        print(tables(log.rows))
        return
    device = choose_device(options.device)
    dtype = choose_dtype(options.dtype, device)
    peak = matrix_peak(device, dtype)
    log.add(
        what="machine",
        device=device_name(device),
        torch=torch.__version__,
        dtype=str(dtype).removeprefix("torch."),
        peak_tflops=peak / 1e12,
    )
    backbone = published_svd(dtype, device=device, scale=options.scale)
    for case in cases:
        try:
            if case.compiled and not any_compiled(backbone.denoiser):
                compile_blocks(backbone.denoiser)
            counts, counted = counts_of(case, options, dtype)
            flop = {phase: c.flop / 1e12 / counted.per_unit(phase) for phase, c in counts.items()}
            measure(case, options, backbone, flop, peak, log)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            log.add(what="error", case=case.name, error=str(error).splitlines()[0])
        free_unused(device)
    print(tables(log.rows))


if __name__ == "__main__":
    main(tyro.cli(Options))

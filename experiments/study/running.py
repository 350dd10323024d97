"""What the studies have in common: held-out scenes, variants of a method, rows, a table, a plot and a verdict."""

import dataclasses
import math
import os
import platform
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import matplotlib
import torch
import tyro
from experiments.shipped import add_rows, gather, pack, pack_features, shares, unpack, unpack_features
from experiments.tables import text_of, write_between_marks

from sgi2v.backbones import Backbone, load_backbone, settings_of, settings_with_recipe
from sgi2v.backbones.base import settings_with
from sgi2v.controllers import SGI2V, Controller, recommended
from sgi2v.device import flushed_denormals
from sgi2v.evaluation.benchmark import BenchmarkProgress, run_benchmark
from sgi2v.evaluation.clip_features import load_clip_features
from sgi2v.evaluation.datasets import Case, Cases
from sgi2v.evaluation.distances import frechet_interval, kernel_interval
from sgi2v.evaluation.extractors import Extractor
from sgi2v.evaluation.held_out import HeldOutWorld
from sgi2v.evaluation.metrics import Interval, bootstrap_mean, bootstrap_ratio
from sgi2v.evaluation.rows import read_rows
from sgi2v.evaluation.store import Store, folder_name
from sgi2v.evaluation.vipseg import load_vipseg
from sgi2v.world import Kind

matplotlib.use("Agg")
from matplotlib import pyplot

HERE = Path(__file__).parent
OUT = HERE.parent / "out" / "studies"
BASELINES = ("true", "still")
NEAR = 20.0
"""Pixels from its path, about half a thing's size, up to which a thing is said to follow it."""
_FREE = "threads", "jobs", "share", "report", "variety"
PUBLISHED = "up_blocks.2.attentions.1:first-frame", "up_blocks.2.attentions.2:first-frame"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure what is not yet in the file of rows, then write the table, the plot and the verdict."""

    backbone: str = "bundled"
    """The model: bundled, svd, svd-xt, a folder in diffusers' layout, or a hub id."""
    recipe: str | None = "study"
    """One of the model's recipes; None: its own settings (for the full-size model)."""
    vipseg: Path | None = None
    """A folder of VIPSeg, to study on its validation clips instead of rendered scenes."""
    limit: int = 32
    """Number of scenes."""
    scene_set: int = 0
    """Set of held-out rendered scenes; 0 is the test split."""
    variety: Literal["one", "mixed"] = "one"
    """Kind of rendered scenes: one thing each, or in turn several, a part, a curved path, occlusion, a camera."""
    kind: Kind = "simple"
    """Kind of rendered world."""
    seeds: tuple[int, ...] = (817,)
    """Seeds of the noise, each for every scene; figures are means over them before scenes are drawn."""
    dtype: str | None = "float32"
    """Number format: float32 goes on with the committed rows on any machine, rows of another are other rows and are not
    committed; None: what the machine is fast at (for the full-size model)."""
    threads: int = 1
    """CPU threads of a process."""
    jobs: int = 1
    """Processes that make clips side by side, a share of the scenes each."""
    share: int | None = None
    """Make the clips of this share of the scenes alone, 0 to jobs - 1: what --jobs starts."""
    report: bool = False
    """Make nothing: write table and plot from the rows that are there, those of a study half done too."""

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise ValueError(f"jobs: must be at least 1, got {self.jobs}")
        if self.share is not None and not 0 <= self.share < self.jobs:
            raise ValueError(f"share: must be from 0 to jobs - 1, got {self.share} of {self.jobs}")


@dataclass(frozen=True, kw_only=True)
class Study:
    """A question: variants of a method, and how they are drawn."""

    folder: str
    """Its folder under experiments/."""
    axis: str
    """What varies, with its unit."""
    variants: Callable[[Backbone], Mapping[str, Controller]]
    """Label -> controller, in the order of the table."""
    numeric: bool = False
    """Labels are numbers, drawn along an axis."""
    default: str | None = None
    """The label whose figures decide whether the study can say anything; None: that of the recommended values."""
    method: str = "SG-I2V"
    """Whose variants they are."""
    note: str = ""
    """Said below the table."""
    extra: tuple[str, ...] = field(default=())
    """More rows without a model."""
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Label -> the model's settings that this variant changes."""
    costs: bool = False
    """Say time and memory too, and so make every clip anew: others may have been made on a busy machine."""
    frechet: bool = False
    """Say the Fréchet distance too, which few clips raise: only sets of one size compare."""
    options: Options = Options()
    """How it is committed: run so, its rows, table and plot are committed beside it, else all stays under out/."""

    def ships(self, options: Options) -> bool:
        """Whether it is run as it is committed.

        How it is computed may differ, and the variety, which has files of its own.
        """
        free = {name: getattr(self.options, name) for name in _FREE}
        return dataclasses.replace(options, **free) == self.options


def loaded(name: str, recipe: str | None, *, dtype: str | None, threads: int) -> Backbone:
    """A model under one of its recipes, to compute with so many threads."""
    torch.set_num_threads(threads)
    return load_backbone(name, dtype=dtype, settings=settings_with_recipe(settings_of(name), recipe))


def base_of(backbone: Backbone) -> SGI2V:
    """SG-I2V with what the model recommends."""
    controller = recommended("sg-i2v", backbone.settings.recommended)
    assert isinstance(controller, SGI2V)
    return controller


def guided_steps(backbone: Backbone, controller: SGI2V) -> list[int]:
    """The steps still to go at which the controller optimises, first to last."""
    num = backbone.settings.num_steps
    return [num - k for k, n in enumerate(controller.planned_iterations(backbone.levels(num))) if n]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a study found."""

    rows: list[dict[str, Any]]
    store: Store
    cases: Cases
    place: Path
    """Where its table and plot lie."""


@dataclass(frozen=True)
class Share:
    """Every so manieth case, so that shares are of a size and of a kind."""

    cases: Cases
    index: int
    num: int

    def __len__(self) -> int:
        return len(range(self.index, len(self.cases), self.num))

    def __getitem__(self, index: int) -> Case:
        return self.cases[range(self.index, len(self.cases), self.num)[index]]


def whole(rows: Sequence[Mapping[str, Any]], methods: Iterable[str]) -> list[Mapping[str, Any]]:
    """Of a study half done, the rows that compare: of scenes that all the methods have run, with the seeds of the most.

    ``methods`` are those with seeds.
    """
    runs: dict[str, set[tuple[str, int]]] = {method: set() for method in methods}
    for row in rows:
        if row["seed"] is not None:
            runs[row["method"]].add((row["case"], row["seed"]))
    shared = set.intersection(*runs.values())
    counts = Counter(seed for _, seed in shared)
    most = max(counts.values(), default=0)
    kept = {(case, seed) for case, seed in shared if counts[seed] == most}
    scenes = {case for case, _ in kept}
    return [r for r in rows if (r["case"] in scenes if r["seed"] is None else (r["case"], r["seed"]) in kept)]


@flushed_denormals()
def main(study: Study) -> Measured:
    """Run a study from the command line."""
    options = tyro.cli(Options, default=study.options, prog=f"python -m experiments.{study.folder}.run")
    suffix = "" if options.variety == "one" else f"-{options.variety}"
    place = HERE / study.folder if study.ships(options) else OUT / study.folder
    packed, seen = place / f"rows{suffix}.jsonl.xz", place / f"features{suffix}.npz.xz"
    # Clips are kept once for all studies: no control and the recommended values appear in every one.
    clips = OUT / (f"clips-{study.folder}" if study.costs else "clips")
    store = Store(rows=OUT / study.folder / f"rows{suffix}.jsonl", clips=clips)
    unpack(packed, store.rows)
    if options.share is None:
        gather(store.rows)
    else:
        own = Store(rows=shares(store.rows, options.jobs)[options.share], clips=clips)
        add_rows(read_rows(store.rows), own.rows)
        _run(study, options, own)
        sys.exit()
    if options.jobs > 1 and not options.report:
        _side_by_side(study, options)
        gather(store.rows)
    features = load_clip_features()
    folder = folder_name(features.name, features.sha256)
    unpack_features(seen, store, folder)
    rows, methods, cases, backbone = _run(study, options, store)
    shown = whole(rows, methods)
    if not shown:
        sys.exit("no scene was run with every method yet: there is nothing to show")
    findings = _findings(shown, store, features, study)
    text = _table(study, findings, options, backbone, _seeds(shown))
    print(text)
    if study.ships(options):
        pack((row["key"] for row in rows), store.rows, packed)
        pack_features(rows, store, folder, seen)
    write_between_marks(place / "README.md", text, suffix)
    _plot(study, findings, place / f"plot{suffix}.png")
    return Measured(rows=rows, store=store, cases=cases, place=place)


def _side_by_side(study: Study, options: Options) -> None:
    """Make every share's clips, each in a process of its own; the first one's progress stands for all."""
    command = [sys.executable, "-m", f"experiments.{study.folder}.run", *sys.argv[1:]]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    logs = [OUT / study.folder / f"share-{share}.log" for share in range(options.jobs)]
    logs[0].parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        processes = []
        for share, log in enumerate(logs):
            told = stack.enter_context(log.open("w")) if share else None
            own = subprocess.Popen([*command, f"--share={share}"], cwd=HERE.parent, env=environment, stderr=told)
            processes.append(stack.enter_context(own))
        codes = [process.wait() for process in processes]
    for share, code in enumerate(codes):
        if code:
            more = f"; see {logs[share]}" if share else ""
            sys.exit(f"jobs: share {share} of the scenes failed ({code}){more}; the same command goes on")


def _run(study: Study, options: Options, store: Store) -> tuple[list[dict[str, Any]], list[str], Cases, Backbone]:
    """The study's rows, those of the share alone if it is one, and the methods with seeds; what fails is said."""
    backbone = loaded(options.backbone, options.recipe, dtype=options.dtype, threads=options.threads)
    settings = backbone.settings
    cases = _cases(options, backbone)
    fixed: dict[str, Any] = {name: name for name in (*BASELINES, *study.extra)} | {"none": Controller()}
    rows: list[dict[str, Any]] = []
    seeded = ["none"]
    missing = 0
    for changes, named in _by_settings(study, study.variants(backbone)):
        backbone.settings = settings_with(settings, changes, study.folder)
        variants = _that_run(named, backbone)
        seeded += variants
        summary = run_benchmark(
            cases if options.share is None else Share(cases, index=options.share, num=options.jobs),
            fixed | variants,
            store=store,
            backbone=backbone,
            seeds=options.seeds,
            extractors=(load_clip_features(),),
            recipe=options.recipe,
            known_only=options.report,
            progress=None if options.report else _tell,
        )
        fixed = {}
        rows += summary.rows
        missing += summary.missing
        for reason in summary.left_out:
            print(f"left out: {reason}", file=sys.stderr)
        for row in summary.failed:
            print(f"failed: {row['case']} {row['method']}: {row['error']}", file=sys.stderr)
    backbone.settings = settings
    if missing:
        print(f"not measured yet: {missing} of {missing + len(rows)} rows", file=sys.stderr)
    return rows, seeded, cases, backbone


def _cases(options: Options, backbone: Backbone) -> Cases:
    size = {name: getattr(backbone.settings, name) for name in ("width", "height", "num_frames")}
    if options.vipseg is not None:
        return load_vipseg(options.vipseg, limit=options.limit, **size)
    return HeldOutWorld(
        scene_set=options.scene_set,
        limit=options.limit,
        variety=options.variety,
        kind=options.kind,
        **size,
    )


def _by_settings(
    study: Study, variants: Mapping[str, Controller]
) -> list[tuple[Mapping[str, Any], dict[str, Controller]]]:
    """The variants that run under the same settings, each time with those; the model's own settings first."""
    groups: list[tuple[Mapping[str, Any], dict[str, Controller]]] = [({}, {})]
    for label, controller in variants.items():
        changes = study.settings.get(label, {})
        found = next((group for known, group in groups if known == changes), None)
        if found is None:
            found = {}
            groups.append((changes, found))
        found[label] = controller
    return groups


def _that_run(variants: Mapping[str, Controller], backbone: Backbone) -> dict[str, Controller]:
    """The variants that can run on this model; the others are named with the reason."""
    found = {}
    for label, controller in variants.items():
        try:
            controller.planned_iterations(backbone.levels(backbone.settings.num_steps))
        except ValueError as error:
            print(f"left out: {label}: {error}", file=sys.stderr)
        else:
            found[label] = controller
    return found


def _tell(progress: BenchmarkProgress) -> None:
    if progress.inner is None and sys.stderr.isatty():
        left = "" if progress.seconds_left is None else f", {progress.seconds_left / 60:.0f} min left"
        line = f"\r{progress.done}/{progress.total}  {progress.case} {progress.label}{left}"
        print(f"{line:79.79}", end="", file=sys.stderr, flush=True)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the table."""

    by_scene: Mapping[str, float]
    """ObjMC of each scene, the mean over seeds."""
    objmc: Interval
    ratio: Interval | None
    """ObjMC over that without control, the same scenes in pairs."""
    over_default: Interval | None
    """ObjMC over that of the study's default, the same scenes in pairs."""
    lost: float
    distance: Interval | None
    """Kernel distance of the stand-in features to the true clips'."""
    frechet: Interval | None
    """Their Fréchet distance."""
    background: float | None
    psnr: float | None
    """Likeness to what really happened, dB."""
    seconds: float
    memory: float | None


def _of_variants(study: Study, labels: Iterable[str]) -> list[str]:
    """The labels without those of every study."""
    return [label for label in labels if label not in ("none", *BASELINES, *study.extra)]


def _default(study: Study, labels: Iterable[str]) -> str:
    """The label of the recommended values, unless the study names another."""
    return study.default or _of_variants(study, labels)[0]


def _findings(
    rows: Sequence[Mapping[str, Any]], store: Store, extractor: Extractor, study: Study
) -> dict[str, Finding]:
    by_label: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for row in rows:
        by_label.setdefault(row["method"], {}).setdefault(row["case"], []).append(row)
    folder = folder_name(extractor.name, extractor.sha256)

    def features(label: str, names: Sequence[str]) -> torch.Tensor | None:
        keys = [row["clip"] for name in names for row in by_label[label][name]]
        found = [store.load_features(key, folder) for key in keys]
        known = [torch.from_numpy(one) for one in found if one is not None]
        return torch.cat(known) if len(known) == len(keys) > 1 else None

    def values(label: str, names: Sequence[str], metric: str) -> torch.Tensor:
        means = [_mean(row["metrics"][metric] for row in by_label[label][name]) for name in names]
        return torch.tensor(means, dtype=torch.float64)

    def ratio(label: str, names: Sequence[str], other: str) -> Interval | None:
        shared = [n for n in names if n in by_label.get(other, {})]
        return bootstrap_ratio(values(label, shared, "objmc"), values(other, shared, "objmc"))

    default = _default(study, by_label)
    findings = {}
    for label, cases in by_label.items():
        names = sorted(n for n, found in cases.items() if None not in _of(found, "objmc"))
        true = [n for n in names if n in by_label.get("true", {})]
        ours, theirs = (features(label, true), features("true", true)) if true else (None, None)
        known = None if ours is None or theirs is None else (ours, theirs)
        made = [row for name in names for row in cases[name]]
        memory = [row["peak_memory"] for row in made if row.get("peak_memory")]
        findings[label] = Finding(
            by_scene=dict(zip(names, values(label, names, "objmc").tolist(), strict=True)),
            objmc=bootstrap_mean(values(label, names, "objmc")),
            ratio=ratio(label, names, "none"),
            over_default=ratio(label, names, default),
            lost=float(values(label, names, "lost").mean()),
            distance=None if known is None else kernel_interval(*known),
            frechet=None if known is None else frechet_interval(*known),
            background=_mean(_of(made, "background_change")),
            psnr=_mean(_of(made, "psnr")),
            seconds=sorted(row["seconds"] for row in made)[len(made) // 2],
            memory=max(memory) / 2**30 if memory else None,
        )
    return findings


def _of(rows: Iterable[Mapping[str, Any]], metric: str) -> list[float | None]:
    return [row["metrics"][metric] for row in rows]


def _mean(values: Iterable[float | None]) -> float | None:
    """Of those that are known."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _seeds(rows: Iterable[Mapping[str, Any]]) -> str:
    seeds = sorted({row["seed"] for row in rows if row["seed"] is not None})
    return f"{'one seed' if len(seeds) == 1 else f'{len(seeds)} seeds'} ({', '.join(map(str, seeds))})"


def _table(study: Study, findings: Mapping[str, Finding], options: Options, backbone: Backbone, seeds: str) -> str:
    size = f"{backbone.settings.num_frames} frames of {backbone.settings.width}×{backbone.settings.height}"
    variants = _of_variants(study, findings)
    default = _default(study, findings)
    columns = ["ObjMC, px", "over no control"]
    columns += [f"over {default}"] if len(variants) > 1 else []
    columns += ["lost", "stand-in distance", "background change"]
    columns += ["Fréchet distance"] if study.frechet else []
    columns += ["PSNR, dB", "s a clip", "peak memory, GiB"] if study.costs else ["PSNR, dB"]
    lines = [f"| {study.axis} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for label, one in findings.items():
        ratio = text_of(one.ratio, 2) if label in variants else "–"
        over = text_of(one.over_default, 2) if label in variants and label != default else "–"
        change = "–" if one.background is None else f"{one.background:.3f}"
        memory = "–" if one.memory is None else f"{one.memory:.1f}"
        psnr = "–" if one.psnr is None else f"{one.psnr:.1f}"
        cells = [text_of(one.objmc, 2), ratio, *([over] if len(variants) > 1 else [])]
        cells += [f"{one.lost:.0%}", text_of(one.distance, 2), change]
        cells += [text_of(one.frechet, 1)] if study.frechet else []
        cells += [psnr]
        cells += [f"{one.seconds:.1f}", memory] if study.costs else []
        lines.append(f"| {label} | {' | '.join(cells)} |")
    num = max(len(one.by_scene) for one in findings.values())
    dtype = str(backbone.dtype).removeprefix("torch.")
    kind = "" if options.kind == "simple" else f"{options.kind} "
    world = "VIPSeg" if options.vipseg else f"held-out rendered {kind}scenes (set {options.scene_set})"
    lines += [
        "",
        f"{num} {world}, {size}, {seeds}, recipe {options.recipe}, weights "
        f"{backbone.weights_sha256[:12]}, {dtype}, {options.threads} of {os.cpu_count()} cores ({platform.machine()}). "
        "Mean and 95 % bootstrap interval over scenes, the ratio over pairs. Stand-in distance: unbiased kernel "
        "distance to the true clips on sgi2v-clip-64 features, no FVD; it may fall below 0.",
        "",
        _verdict(study, findings),
    ]
    if study.note:
        lines += ["", study.note]
    return "\n".join(lines)


def _verdict(study: Study, findings: Mapping[str, Finding]) -> str:
    """Whether the study can say anything: the gain of control must stand out of the tracker's own error."""
    default = _default(study, findings)
    with_it, without = findings[default], findings["none"]
    reached = with_it.by_scene.values()
    better = [objmc < without.by_scene[name] for name, objmc in with_it.by_scene.items() if name in without.by_scene]
    scenes = (
        f"Of its scenes {sum(objmc < NEAR for objmc in reached)} of {len(reached)} lie within {NEAR:g} px (median "
        f"{statistics.median(reached):.1f}), and {sum(better)} of {len(better)} closer than without control."
    )
    if "true" not in findings:
        return f"Without true clips the tracker's own error is unknown. {scenes}"
    gain = without.objmc.value - with_it.objmc.value
    floor = findings["true"].objmc.value
    said = f"{study.method} ({default}) gains {gain:.2f} px over no control; the tracker's own error is {floor:.2f} px"
    return f"{said}. {scenes}" if gain > floor else f"**Undecided:** {said}, which is no less. {scenes}"


def _plot(study: Study, findings: Mapping[str, Finding], file: Path) -> None:
    """Control on the left, quality on the right; no control and the true clips as lines."""
    labels = _of_variants(study, findings)
    places = [float(n.split()[0]) for n in labels] if study.numeric else list(range(len(labels)))
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    scaled = {n: f.distance for n, f in findings.items() if f.distance is not None}
    for axes, of, name in (
        (left, {n: f.objmc for n, f in findings.items()}, "ObjMC, pixels (lower follows better)"),
        (right, scaled, "stand-in distance to true clips (lower is better)"),
    ):
        known = [(p, of[n]) for p, n in zip(places, labels, strict=True) if n in of]
        if not known:
            continue
        spots = [p for p, _ in known]
        middle = [i.value for _, i in known]
        # Of few scenes an unbiased estimate may lie outside its bootstrap interval.
        error = [
            [max(0.0, i.value - i.low) for _, i in known],
            [max(0.0, i.high - i.value) for _, i in known],
        ]
        axes.errorbar(spots, middle, yerr=error, fmt="o-" if study.numeric else "o", capsize=3, color="#1f5fa8")
        for reference, colour in (("none", "#b04a2f"), ("true", "#4a8a3c")):
            if reference in of:
                axes.axhline(of[reference].value, color=colour, linestyle="--", linewidth=1, label=reference)
        axes.set_ylabel(name, fontsize=8)
        if study.numeric:
            axes.set_xlabel(study.axis, fontsize=8)
            if min(spots) > 0 and max(spots) / min(spots) > 8:
                axes.set_xscale("log", base=2)
                axes.set_xticks(spots, [f"{s:g}" for s in spots])
        else:
            axes.set_xticks(spots, labels, rotation=35, ha="right", fontsize=7)
        if not math.isclose(max(middle), min(middle)):
            axes.set_ylim(bottom=min(0.0, *(i.low for _, i in known)))
        axes.tick_params(labelsize=7)
        axes.legend(fontsize=7)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
    pyplot.close(figure)

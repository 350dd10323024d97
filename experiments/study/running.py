"""A study from its command line to its files: rows made or found, processes side by side, table and plot written."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import tyro

from experiments.study.findings import findings_of
from experiments.study.options import BASELINES, EXPERIMENTS, OUT, Options, Study, grid_of
from experiments.study.shipped import add_rows, gather, pack, pack_features, shares, unpack, unpack_features
from experiments.study.table import table, write_between_marks
from sgi2v.backbones import Backbone, Outline
from sgi2v.backbones.base import settings_with
from sgi2v.controllers import Controller
from sgi2v.device import flushed_denormals
from sgi2v.errors import FieldError
from sgi2v.evaluation.benchmark import BenchmarkProgress, Method, check_method, run_benchmark
from sgi2v.evaluation.clip_features import load_clip_features
from sgi2v.evaluation.datasets import Case, Cases
from sgi2v.evaluation.rows import read_rows
from sgi2v.evaluation.store import Store, folder_name
from sgi2v.evaluation.vipseg import load_vipseg
from sgi2v.grid import Grid
from sgi2v.planning import Sampling
from sgi2v.records import Json


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A study's rows, and what they are of."""

    rows: Sequence[Json]
    """Rows of the share alone if it is one."""
    methods: Sequence[str]
    """Methods with seeds."""
    cases: Cases
    backbone: Backbone
    store: Store
    ships: bool
    """True if its files are committed."""


@dataclass(frozen=True)
class Share:
    """Cases dealt out in turn, one hand of them: so hands are alike in number and in kind."""

    cases: Cases
    index: int
    num: int

    def __len__(self) -> int:
        return len(range(self.index, len(self.cases), self.num))

    def __getitem__(self, index: int) -> Case:
        return self.cases[range(self.index, len(self.cases), self.num)[index]]


def comparable(rows: Iterable[Json], methods: Iterable[str]) -> list[Json]:
    """Rows of scenes that all the methods have run, with as many seeds as any: all of them once a study is done.

    ``methods`` are those with seeds.
    """
    known = list(rows)
    runs: dict[str, set[tuple[str, int]]] = {method: set() for method in methods}
    for row in known:
        if row["seed"] is not None:
            runs[row["method"]].add((row["case"], row["seed"]))
    shared = set.intersection(*runs.values())
    counts = Counter(seed for _, seed in shared)
    most = max(counts.values(), default=0)
    kept = {(case, seed) for case, seed in shared if counts[seed] == most}
    scenes = {case for case, _ in kept}
    return [r for r in known if (r["case"] in scenes if r["seed"] is None else (r["case"], r["seed"]) in kept)]


@flushed_denormals()
def main(study: Study) -> Measured:
    """Run a study from the command line."""
    options = tyro.cli(Options, default=study.options, prog=f"python -m experiments.{study.folder}.run")
    suffix = "" if options.variety == "one" else f"-{options.variety}"
    ships = study.ships(options)
    place = (EXPERIMENTS if ships else OUT) / study.folder
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
    network = load_clip_features()
    folder = folder_name(network.name, network.sha256)
    unpack_features(seen, store, folder)
    measured = _run(study, options, store)
    shown = comparable(measured.rows, measured.methods)
    if not shown:
        sys.exit("no scene was run with every method yet: there is nothing to show")
    findings = findings_of(study, shown, store, folder)
    seeds = {row["seed"] for row in shown if row["seed"] is not None}
    text = table(study, findings, options, measured.backbone, seeds)
    print(text)
    if ships:
        pack((row["key"] for row in measured.rows), store.rows, packed)
        pack_features(measured.rows, store, folder, seen)
    write_between_marks(place / "README.md", text, suffix)
    from experiments.study.plot import plot  # needs the extra `plots`, which nothing else here does

    plot(study, findings, place / f"plot{suffix}.png")
    return measured


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
            own = [*command, f"--share={share}"]
            process = subprocess.Popen(own, cwd=EXPERIMENTS.parent, env=environment, stderr=told)
            processes.append(stack.enter_context(process))
        codes = [process.wait() for process in processes]
    for share, code in enumerate(codes):
        if code:
            more = f"; see {logs[share]}" if share else ""
            sys.exit(f"jobs: share {share} of the scenes failed ({code}){more}; the same command goes on")


def _run(study: Study, options: Options, store: Store) -> Measured:
    """Make or find the study's rows; what fails is said."""
    backbone = options.opened()
    cases = _cases(options, grid_of(backbone))
    fixed: dict[str, Method] = {**{name: name for name in (*BASELINES, *study.extra)}, "none": Controller()}
    rows: list[Json] = []
    seeded = ["none"]
    missing = 0
    for changes, named in _by_settings(study, study.variants(backbone.outline)):
        changed = backbone.with_settings(settings_with(backbone.settings, changes, study.folder))
        variants = _that_run(named, changed.outline)
        seeded += variants
        summary = run_benchmark(
            cases if options.share is None else Share(cases, index=options.share, num=options.jobs),
            fixed | variants,
            store=store,
            backbone=changed,
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
    if missing:
        print(f"not measured yet: {missing} of {missing + len(rows)} rows", file=sys.stderr)
    return Measured(rows=rows, methods=seeded, cases=cases, backbone=backbone, store=store, ships=study.ships(options))


def _cases(options: Options, grid: Grid) -> Cases:
    if options.vipseg is None:
        return options.scenes(grid, options.variety)
    return load_vipseg(
        options.vipseg, limit=options.limit, width=grid.width, height=grid.height, num_frames=grid.num_frames
    )


def _by_settings(
    study: Study, variants: Mapping[str, Controller]
) -> list[tuple[Mapping[str, object], dict[str, Controller]]]:
    """The variants that run under the same settings, each time with those; the model's own settings first."""
    groups: list[tuple[Mapping[str, object], dict[str, Controller]]] = [({}, {})]
    for label, controller in variants.items():
        changes = study.settings.get(label, {})
        found = next((group for known, group in groups if known == changes), None)
        if found is None:
            found = {}
            groups.append((changes, found))
        found[label] = controller
    return groups


def _that_run(variants: Mapping[str, Controller], outline: Outline) -> dict[str, Controller]:
    """The variants that can run on this model; the others are named with the reason."""
    found = {}
    for label, controller in variants.items():
        try:
            check_method(controller, outline, Sampling())
        except FieldError as error:
            print(f"left out: {label}: {error}", file=sys.stderr)
        else:
            found[label] = controller
    return found


def _tell(progress: BenchmarkProgress) -> None:
    if progress.inner is None and sys.stderr.isatty():
        left = "" if progress.seconds_left is None else f", {progress.seconds_left / 60:.0f} min left"
        line = f"\r{progress.done}/{progress.total}  {progress.case} {progress.label}{left}"
        print(f"{line:79.79}", end="", file=sys.stderr, flush=True)

"""Commands that measure: benchmark, report, features."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sgi2v.cli.common import computing, default_output, opened, parse, progress_bar
from sgi2v.cli.measuring_options import BenchmarkOptions, ExtractorOptions, FeaturesOptions, ReportOptions
from sgi2v.errors import FieldError
from sgi2v.opening import ModelChoice

if TYPE_CHECKING:
    from sgi2v.backbones.base import Outline
    from sgi2v.evaluation.benchmark import BenchmarkProgress, Summary
    from sgi2v.evaluation.datasets import Cases
    from sgi2v.evaluation.extractors import Extractor
    from sgi2v.planning import Sampling


def benchmark(arguments: Sequence[str]) -> None:
    """Measure methods on many scenes, resumably."""
    default = BenchmarkOptions(model=ModelChoice(), extractors=ExtractorOptions())
    options = parse(BenchmarkOptions, "benchmark", arguments, default)
    from sgi2v.device import device_for_measuring
    from sgi2v.evaluation.benchmark import methods_of, run_benchmark
    from sgi2v.evaluation.store import Store
    from sgi2v.evaluation.trackers import load_tracker
    from sgi2v.planning import Sampling

    outline = options.model.outline()
    settings = outline.settings
    size = {name: getattr(options, name) or getattr(settings, name) for name in ("width", "height", "num_frames")}
    sampling = Sampling(num_steps=options.num_steps, **size)
    absent: dict[str, str] = {}
    names = options.methods
    if not names:
        names, absent = default_methods(outline, sampling)
    methods = methods_of(names, settings.recommended)
    cases = _cases(options, **size)
    measuring = device_for_measuring(options.model.device)
    tracker = load_tracker(options.tracker, options.tracker_weights, device=measuring)
    extractors = _extractors(options.extractors, size["num_frames"], measuring)
    try:
        with computing(), _Line(quiet=options.quiet) as line:
            summary = run_benchmark(
                cases,
                methods,
                store=Store(rows=options.rows),
                backbone=opened(options.model, outline, sampling, quiet=options.quiet),
                sampling=sampling,
                seeds=options.seeds,
                tracker=tracker,
                extractors=extractors,
                recipe=options.model.recipe,
                retry=options.retry,
                progress=line,
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"stopped; what is finished is in {options.rows}, and the same command goes on"
        ) from None
    _sum_up(summary)
    for name, reason in absent.items():
        print(f"not measured: {name}: {reason}", file=sys.stderr)
    if not summary.rows:
        raise FieldError("benchmark", *_why_nothing(summary))
    print(options.rows)


def _why_nothing(summary: "Summary") -> tuple[str, str]:
    """Reason and remedy for a benchmark that has no row to show."""
    reasons = [str(row["error"]) for row in summary.failed] or list(summary.left_out)
    first = f": {reasons[0]}" if reasons else ""
    return f"no row was made{first}", "put it right and run the same command with --retry"


def default_methods(outline: "Outline", sampling: "Sampling") -> tuple[tuple[str, ...], dict[str, str]]:
    """Everything there is; and what cannot act on this model, or in whose parts get in each other's way, with why.

    Left out without a word: methods for weights that were trained for them, where a model is not theirs.
    """
    from sgi2v.controllers import COMBINATIONS, controllers, recommended
    from sgi2v.evaluation.benchmark import MODEL_FREE, check_method

    absent: dict[str, str] = {}
    able = []
    for name in (*controllers(), *COMBINATIONS):
        method = recommended(name, outline.settings.recommended)
        try:
            check_method(method, outline, sampling)
            able.append(name)
        except FieldError as error:
            if not (method.uses().weights or method.uses().adapters):
                absent[name] = str(error)
    return (*MODEL_FREE, *able), absent


def report(arguments: Sequence[str]) -> None:
    """Turn a benchmark's rows into tables and a page with all clips side by side."""
    options = parse(ReportOptions, "report", arguments)
    from sgi2v.evaluation.report_page import write_report

    written = write_report(
        options.rows,
        output=options.output,
        clips=options.clips,
        baseline=options.baseline,
        page=options.page,
    )
    for problem in written.problems:
        print(problem, file=sys.stderr)
    print(written.text)
    print(written.folder / ("index.html" if options.page else "table.html"))


def features(arguments: Sequence[str]) -> None:
    """Draw what the network's layers see in a scene, over frames and noise levels."""
    options = parse(FeaturesOptions, "features", arguments)
    from sgi2v.controllers import Controller
    from sgi2v.evaluation.feature_pictures import Look, feature_sheet, read_by_sg_i2v
    from sgi2v.pipeline import plan
    from sgi2v.planning import Sampling
    from sgi2v.scene_io import load_scene
    from sgi2v.writing import check_place, writing

    output = options.output or default_output(options.scene, "-features.png")
    if output.suffix.lower() != ".png":
        raise FieldError("output", f"{str(output)!r} is no picture that is written here", "end its name in .png")
    check_place(output)
    scene = load_scene(options.scene)
    sampling = Sampling(seed=options.seed, num_steps=options.num_steps)
    outline = options.model.outline()
    plan(scene, outline, controller=Controller(), sampling=sampling)
    look = Look(attention=options.attention or read_by_sg_i2v(outline.settings), remaining=options.remaining)
    look.steps(sampling.num_steps or outline.settings.num_steps)
    with computing(), progress_bar(quiet=options.quiet) as bar:
        backbone = options.model.load(outline)
        sheet = feature_sheet(scene, backbone=backbone, sampling=sampling, look=look, progress=bar)
    with writing(output) as temporary:
        sheet.save(temporary)
    print(output)


def _cases(options: BenchmarkOptions, *, width: int, height: int, num_frames: int) -> "Cases":
    from sgi2v.evaluation.datasets import SceneFolder
    from sgi2v.evaluation.held_out import HeldOutWorld
    from sgi2v.evaluation.vipseg import load_vipseg
    from sgi2v.evaluation.vipseg_list import save_list

    if options.scenes is not None and options.vipseg is not None:
        raise FieldError("scenes, vipseg", "give one of them")
    if options.vipseg is None and (options.vipseg_clips or options.save_vipseg_clips):
        raise FieldError(
            "vipseg_clips, save_vipseg_clips", "are lists of VIPSeg's clips", "give its folder with --vipseg"
        )
    if options.scenes is not None:
        return SceneFolder(folder=options.scenes, num_frames=num_frames, limit=options.limit)
    if options.vipseg is not None:
        data = load_vipseg(
            options.vipseg,
            width=width,
            height=height,
            num_frames=num_frames,
            limit=options.limit,
            clips=options.vipseg_clips,
        )
        if options.save_vipseg_clips is not None:
            save_list(data.clips, options.save_vipseg_clips, protocol=data.protocol)
        return data
    return HeldOutWorld(
        scene_set=options.scene_set,
        limit=16 if options.limit is None else options.limit,
        variety=options.variety,
        kind=options.kind,
        num_things=options.num_things,
        width=width,
        height=height,
        num_frames=num_frames,
    )


def _extractors(options: ExtractorOptions, num_frames: int, device: str) -> "list[Extractor]":
    from sgi2v.evaluation.clip_features import load_clip_features
    from sgi2v.evaluation.extractors import load_i3d, load_inception
    from sgi2v.evaluation.i3d import LEAST_FRAMES

    found: list[Extractor] = [load_clip_features(device=device)] if options.clip_features else []
    if options.inception is not None:
        found.append(load_inception(options.inception, sha256=options.inception_sha256, device=device))
    if options.i3d is not None:
        if num_frames < LEAST_FRAMES:
            raise FieldError("i3d", f"needs clips of at least {LEAST_FRAMES} frames, not {num_frames}")
        found.append(load_i3d(options.i3d, sha256=options.i3d_sha256, device=device))
    return found


class _Line:
    """Progress of a benchmark on stderr: which row of how many, and the time left."""

    def __init__(self, *, quiet: bool) -> None:
        from tqdm import tqdm

        often = 0.1 if sys.stderr.isatty() else 10.0
        shape = "{desc} |{bar:20}| {n_fmt}/{total_fmt} rows{postfix}"
        self.bar = tqdm(total=1, bar_format=shape, disable=quiet, mininterval=often, leave=False, file=sys.stderr)

    def __enter__(self) -> "_Line":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def __call__(self, progress: "BenchmarkProgress") -> None:
        """Show how far it is."""
        self.bar.total = progress.total
        what = f"{progress.case} {progress.label}"
        if progress.inner is not None and progress.inner.num_steps:
            what += f" step {progress.inner.step}/{progress.inner.num_steps}"
        left = ""
        if progress.seconds_left is not None:
            minutes, seconds = divmod(round(progress.seconds_left), 60)
            hours, minutes = divmod(minutes, 60)
            left = f", about {hours}:{minutes:02d}:{seconds:02d} left"
        self.bar.set_description_str(what, refresh=False)
        self.bar.set_postfix_str(left.removeprefix(", "), refresh=False)
        self.bar.update(progress.done - self.bar.n)


def _sum_up(summary: "Summary") -> None:
    """Says on stderr what was measured, what failed and what was left out."""
    print(f"{len(summary.rows)} rows, {summary.num_new} of them new", file=sys.stderr)
    for row in summary.failed:
        print(f"failed: {row['case']} {row['method']}: {row['error']}", file=sys.stderr)
    if summary.failed:
        print("try them again with --retry", file=sys.stderr)
    for reason in summary.left_out:
        print(f"left out: {reason}", file=sys.stderr)
    if summary.without_truth:
        print(
            f"{summary.without_truth} rows of true and reconstructed cannot be: nobody knows what really happens "
            "in these scenes",
            file=sys.stderr,
        )

"""Scenes times controllers times seeds: clips made, measured and written down, one row each, resumable anywhere."""

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from PIL import Image

from sgi2v.backbones import Backbone, Outline
from sgi2v.controllers import Controller, controller_from_dict, recommended
from sgi2v.errors import FieldError, within
from sgi2v.evaluation.datasets import Case, Cases
from sgi2v.evaluation.extractors import Extractor
from sgi2v.evaluation.row_maker import MODEL_FREE, Method, ModelFree, RowMaker, older_identity
from sgi2v.evaluation.rows import row_key
from sgi2v.evaluation.store import Store, remove_strays
from sgi2v.evaluation.tracker import TemplateTracker, Tracker
from sgi2v.pipeline import Progress, check_steered
from sgi2v.planning import Sampling
from sgi2v.records import Json
from sgi2v.scene import Scene
from sgi2v.step import Cancelled

__all__ = [
    "MODEL_FREE",
    "BenchmarkProgress",
    "Method",
    "ModelFree",
    "Summary",
    "methods_of",
    "run_benchmark",
]


@dataclass(frozen=True, kw_only=True)
class BenchmarkProgress:
    """Progress of a benchmark."""

    done: int
    """Rows that are finished, those found from before included."""
    total: int
    """Rows there will be at most."""
    case: str
    label: str
    """The method that is being run."""
    seconds_left: float | None
    """Estimate from the rows made so far; None before the first."""
    inner: Progress | None = None
    """Of the video that is being made."""


@dataclass(kw_only=True)
class Summary:
    """Outcome of a benchmark."""

    rows: list[Json]
    """The rows asked for, old and new, without failed ones."""
    failed: list[Json]
    """Rows with an error."""
    left_out: list[str]
    """Cases that could not be used, each with its file and the reason."""
    num_new: int = 0
    """Rows measured now, failed ones included."""
    missing: int = 0
    """Rows asked for that the store lacks, with `known_only`."""
    without_truth: int = 0
    """Rows of `true` and `reconstructed` that cannot be, as nobody knows what really happens in the scene."""


@dataclass(kw_only=True)
class _Clock:
    """Says how far a benchmark is, and estimates the time left from the rows made so far, each method by itself."""

    num_cases: int
    labels: Sequence[str]
    """Of the rows that a case has."""
    progress: Callable[[BenchmarkProgress], None] | None
    done: dict[str, int] = field(default_factory=dict)
    took: dict[str, list[float]] = field(default_factory=dict)

    def finished(self, label: str, seconds: float | None) -> None:
        """A row is there, after so many seconds of work or None."""
        self.done[label] = self.done.get(label, 0) + 1
        if seconds is not None:
            self.took.setdefault(label, []).append(seconds)

    def skipped(self) -> None:
        """A case has no rows."""
        for label in self.labels:
            self.finished(label, None)

    def teller(self, case: str, label: str) -> Callable[[Progress | None], None]:
        """The function that takes a row's own progress."""

        def tell(inner: Progress | None) -> None:
            if self.progress is not None:
                self.progress(
                    BenchmarkProgress(
                        done=sum(self.done.values()),
                        total=self.num_cases * len(self.labels),
                        case=case,
                        label=label,
                        seconds_left=self.seconds_left(),
                        inner=inner,
                    )
                )

        return tell

    def seconds_left(self) -> float | None:
        """None before the first row."""
        if not self.took:
            return None
        means = {label: sum(took) / len(took) for label, took in self.took.items()}
        other = sum(means.values()) / len(means)
        total = sum(means.get(label, other) for label in self.labels) * self.num_cases
        return max(0.0, total - sum(num * means.get(label, other) for label, num in self.done.items()))


def run_benchmark(
    cases: Cases | Sequence[Case],
    methods: Mapping[str, Method],
    *,
    store: Store,
    backbone: Backbone | None = None,
    sampling: Sampling | None = None,
    seeds: Sequence[int] = (817,),
    tracker: Tracker | None = None,
    extractors: Sequence[Extractor] = (),
    recipe: str | None = None,
    retry: bool = False,
    known_only: bool = False,
    progress: Callable[[BenchmarkProgress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Summary:
    """Every case with every method and seed; what the store already holds is not made again.

    methods: label -> a controller with all its fields, or the name of a row without a model, which has no seed.
    Figures are measured on the 8-bit frames that are stored, so that anybody can measure them again. A case that
    cannot be used is left out with its reason, a row that fails is written down with its error (and tried again with
    `retry`); neither stops the rest. Killed at any moment, the same call goes on where it was. `recipe` is only
    written down: its values are in the backbone's settings and the controllers. With `known_only` nothing is made:
    what the store lacks is counted.

    Raises ValueError, before any compute, for methods that cannot run on this model, and when another process writes
    the same rows; Cancelled when `cancelled` answers True.
    """
    sampling = sampling or Sampling()
    _check(methods, seeds, backbone, sampling)
    maker = RowMaker(
        store=store,
        backbone=backbone,
        sampling=sampling,
        tracker=tracker or TemplateTracker(),
        extractors=extractors,
        recipe=recipe,
        cancelled=cancelled or (lambda: False),
    )
    jobs: list[tuple[str, Method, int | None]] = []
    for label, method in methods.items():
        jobs += [(label, method, seed) for seed in ([None] if isinstance(method, str) else seeds)]
    clock = _Clock(num_cases=len(cases), labels=[label for label, _, _ in jobs], progress=progress)
    summary = Summary(rows=[], failed=[], left_out=[])
    with store.open() as known:
        remove_strays(store.clip_folder)
        for index in range(len(cases)):
            try:
                case = cases[index]
                scene = maker.check(case)
            except ValueError as error:
                summary.left_out.append(str(error))
                row = {"key": row_key({"left_out": str(error)}), "left_out": str(error)}
                if row["key"] not in known:
                    store.append(row)
                clock.skipped()
                continue
            for label, method, seed in jobs:
                if maker.cancelled():
                    raise Cancelled("cancelled; the rows that are written stay")
                if method in ("true", "reconstructed") and case.truth is None:
                    summary.without_truth += 1
                    clock.finished(label, None)
                    continue
                identity, clip_key = maker.identity(case, scene, label, method, seed)
                key = row_key(identity)
                found = known.get(key) or known.get(row_key(older_identity(identity)))
                seconds = None
                if found is None and known_only:
                    summary.missing += 1
                    clock.finished(label, None)
                    continue
                if found is None or (retry and not known_only and "error" in found):
                    begun = time.perf_counter()
                    tell = clock.teller(case.name, label)
                    tell(None)
                    found = {"key": key, "clip": clip_key, **identity, "kinds": list(case.kinds)}
                    found |= maker.run(case, method, seed, clip_key, tell)
                    store.append(found)
                    summary.num_new += 1
                    seconds = time.perf_counter() - begun
                elif "error" not in found:
                    maker.describe(clip_key)
                clock.finished(label, seconds)
                (summary.failed if "error" in found else summary.rows).append(found)
    return summary


def _check(methods: Mapping[str, Method], seeds: Sequence[int], backbone: Backbone | None, sampling: Sampling) -> None:
    """Raise ValueError for what can never work, whatever the scene."""
    if not methods or not seeds:
        raise FieldError("methods, seeds", "give at least one of each")
    for label, method in methods.items():
        if isinstance(method, str) and method not in MODEL_FREE:
            raise FieldError("methods", f"unknown {method!r}", f"known without a model are {', '.join(MODEL_FREE)}")
        if backbone is None and method not in ("still", "paste", "true"):
            raise FieldError("methods", f"{label!r} needs a model", "give one with --backbone")
        if isinstance(method, Controller):
            assert backbone is not None
            try:
                check_method(method, backbone.outline, sampling)
            except FieldError as error:
                raise FieldError("methods", f"{label!r} cannot run: {error}") from error
    if backbone is None and None in (sampling.width, sampling.height, sampling.num_frames):
        raise FieldError("sampling", "without a model, say width, height and num_frames")
    for seed in seeds:
        dataclasses.replace(sampling, seed=seed)


def check_method(method: Controller, outline: Outline, sampling: Sampling) -> None:
    """FieldError for a method that cannot act on this model, whatever the scene."""
    blank = Scene(image=Image.new("RGB", (1, 1)))
    settings = outline.settings
    width, height, num_frames = (
        getattr(sampling, name) or getattr(settings, name) for name in ("width", "height", "num_frames")
    )
    grid = outline.grid(width, height, num_frames)
    method.schedule(outline.levels(sampling.num_steps or settings.num_steps, grid))
    outline.check(blank, method, sampling)
    check_steered(method, outline)


def methods_of(texts: Sequence[str], recommended_values: Mapping[str, Mapping[str, object]]) -> dict[str, Method]:
    """Methods as people type them: a name, or label=JSON with the fields that differ from the recommended ones.

    `none`, `still`, `sg-i2v`, `slow={"name": "sg-i2v", "lr": 0.1}`; the name may be left out where the label is one.
    Raises ValueError naming the text for an unknown name or field, damaged JSON or a label that is there twice.
    """
    found: dict[str, Method] = {}
    for text in texts:
        label, equals, fields = text.partition("=")
        values: Json = {}
        if equals:
            try:
                values = json.loads(fields)
            except ValueError as error:
                raise FieldError("methods", f"{text!r}: what follows = is not JSON ({error})") from error
            if not isinstance(values, dict):
                raise FieldError("methods", f"{text!r} has no fields behind =", 'give them as in {"lr": 0.1}')
        if not label or label in found:
            raise FieldError("methods", f"{label!r} is there twice", "give every method its own label")
        name = str(values.pop("name", label))
        if name in MODEL_FREE:
            if values:
                raise FieldError("methods", f"{text!r}: {name} has no fields")
            found[label] = name
            continue
        with within(f"methods.{label}"):
            base = recommended(name, recommended_values)
            found[label] = controller_from_dict({**values, "name": name}, over=base)
    return found

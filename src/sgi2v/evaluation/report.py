"""From rows to figures: means with intervals, ratios in pairs, and whether a metric can be trusted on these scenes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float64
from torch import Tensor

from sgi2v.evaluation.metrics import Interval, bootstrap_mean, bootstrap_ratio
from sgi2v.evaluation.report_rows import Rows
from sgi2v.records import Json

RENDERED: Final = ("true", "paste", "still")
"""Rows without any network, whose order is known beforehand."""
PAPER: Final = (("FID", 30.50), ("FVD", 340.52), ("ObjMC", 39.59))
"""No control in Table 1 of SG-I2V (arXiv 2411.04989), on VIPSeg."""
PAPER_TOLERANCE: Final = 0.05
PLAIN: Final = "none of these"


@dataclass(frozen=True, kw_only=True)
class Column:
    """A metric as a column of the table."""

    name: str
    """As rows call it."""
    title: str
    digits: int
    better: int
    """-1: lower is better. 1: higher."""
    factor: float = 1.0
    """Printed times this."""
    order: tuple[tuple[str, str], ...] = ()
    """Pairs of rows without a model of which the first must come out better than the second."""
    ties: bool = False
    """Equal is in order too."""


COLUMNS: Final[tuple[Column, ...]] = (
    Column(name="objmc", title="ObjMC, px", digits=2, better=-1, order=(("true", "still"), ("paste", "still"))),
    Column(name="objmc_with_first", title="with frame 0, px", digits=2, better=-1, order=(("true", "still"),)),
    Column(
        name="objmc_of_diagonal",
        title="of the diagonal, %",
        digits=2,
        better=-1,
        factor=100.0,
        order=(("true", "still"),),
    ),
    Column(name="path_end", title="end, px", digits=2, better=-1, order=(("true", "still"), ("paste", "still"))),
    Column(name="lost", title="lost, %", digits=1, better=-1, factor=100.0),
    # Rows of before have none, and a report of such rows alone has no such column.
    Column(name="match", title="still there, %", digits=0, better=1, factor=100.0),
    Column(name="iou", title="box IoU", digits=3, better=1, order=(("true", "still"), ("paste", "still"))),
    Column(
        name="background_motion",
        title="background motion, px",
        digits=2,
        better=-1,
        order=(("still", "true"), ("still", "paste")),
        ties=True,
    ),
    Column(
        name="background_change",
        title="background change, %",
        digits=2,
        better=-1,
        factor=100.0,
        order=(("still", "true"),),
        ties=True,
    ),
    Column(
        name="temporal_consistency",
        title="temporal consistency",
        digits=3,
        better=1,
        order=(("still", "true"),),
        ties=True,
    ),
    Column(name="psnr", title="PSNR, dB", digits=1, better=1, order=(("true", "paste"), ("paste", "still"))),
    Column(name="ssim", title="SSIM", digits=3, better=1, order=(("true", "paste"), ("paste", "still"))),
)


@dataclass(frozen=True, kw_only=True)
class Line:
    """A method in the table."""

    method: str
    num_scenes: int
    num_seeds: int
    cells: dict[str, Interval | None]
    """Metric -> mean over scenes."""
    ratio: Interval | None
    """ObjMC over the baseline's, over the scenes of both in pairs; None for the baseline and rows without a model."""
    num_pairs: int
    floor: float | None
    """The tracker's own error: ObjMC of the true clips of the same scenes."""
    seconds: float | None
    """Median of making a clip."""
    memory: int | None
    """Largest peak in bytes."""


@dataclass(frozen=True, kw_only=True)
class KindLine:
    """A method on one kind of scene."""

    kind: str
    method: str
    num_scenes: int
    objmc: Interval
    ratio: Interval | None
    floor: float | None
    lost: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything a report says."""

    lines: list[Line]
    kinds: list[KindLine]
    baseline: str
    untrusted: dict[str, str]
    """Metric -> why it must not be used on these scenes."""
    size: tuple[int, int, int]
    """(width, height, frames)"""
    tracker: str
    notes: list[str]
    problems: list[str]


def make_report(rows: Rows, *, baseline: str = "none") -> Report:
    """All figures of some rows; scenes are the unit: several seeds of one are averaged first."""
    width, height, num_frames = rows.one()["size"]
    lines = [_line(method, cases, rows, baseline) for method, cases in rows.by_method.items()]
    untrusted = {}
    for column in COLUMNS:
        if wrong := _wrong_order(column, rows):
            untrusted[column.name] = wrong
    problems = [*rows.problems, *(f"left out: {reason}" for reason in rows.left_out)]
    problems += [f"failed: {row['case']}, {row['method']}: {row['error']}" for row in rows.failed]
    notes = []
    if baseline not in rows.by_method:
        notes.append(f"No ratios: there are no rows of {baseline!r}.")
    if "true" not in rows.by_method:
        notes.append("The tracker's own error is unknown: there are no rows of the true clips.")
    missing = [name for name in RENDERED if name not in rows.by_method]
    if missing:
        notes.append(f"No row of {', '.join(missing)}: whether the metrics can be trusted here is only partly checked.")
    return Report(
        lines=lines,
        kinds=_kinds(rows, baseline),
        baseline=baseline,
        untrusted=untrusted,
        size=(width, height, num_frames),
        tracker=str(rows.one().get("tracker", {}).get("name", "unknown")),
        notes=notes,
        problems=problems,
    )


def scene_values(
    cases: Mapping[str, Sequence[Json]], metric: str, names: Sequence[str] | None = None
) -> dict[str, float]:
    """Case -> its value, the mean over seeds; without those that have none."""
    found = {}
    for case in cases if names is None else names:
        values = [row["metrics"].get(metric) for row in cases.get(case, ())]
        known = [float(value) for value in values if value is not None]
        if known:
            found[case] = sum(known) / len(known)
    return found


def _line(method: str, cases: Mapping[str, Sequence[Json]], rows: Rows, baseline: str) -> Line:
    cells: dict[str, Interval | None] = {}
    for column in COLUMNS:
        values = scene_values(cases, column.name)
        cells[column.name] = bootstrap_mean(_tensor(values.values())) if values else None
    ratio, num_pairs = _ratio(method, cases, rows, baseline)
    every = [row for same in cases.values() for row in same]
    times = sorted(float(row["seconds"]) for row in every if row.get("seconds") is not None)
    peaks = [int(row["peak_memory"]) for row in every if row.get("peak_memory") is not None]
    return Line(
        method=method,
        num_scenes=len(cases),
        num_seeds=max(len(same) for same in cases.values()),
        cells=cells,
        ratio=ratio,
        num_pairs=num_pairs,
        floor=_floor(rows, list(cases)),
        seconds=times[len(times) // 2] if times else None,
        memory=max(peaks) if peaks else None,
    )


def _ratio(
    method: str,
    cases: Mapping[str, Sequence[Json]],
    rows: Rows,
    baseline: str,
    names: Sequence[str] | None = None,
) -> tuple[Interval | None, int]:
    """ObjMC over the baseline's on the scenes that both have, drawn in pairs; and how many those are."""
    modelless = "without_model" in next(iter(cases.values()))[0]
    if method == baseline or modelless or baseline not in rows.by_method:
        return None, 0
    ours = scene_values(cases, "objmc", names)
    theirs = scene_values(rows.by_method[baseline], "objmc", names)
    shared = [case for case in ours if case in theirs]
    below = _tensor(theirs[case] for case in shared)
    if not shared or not float(below.mean()):
        return None, 0
    return bootstrap_ratio(_tensor(ours[case] for case in shared), below), len(shared)


def _floor(rows: Rows, names: Sequence[str]) -> float | None:
    values = scene_values(rows.by_method.get("true", {}), "objmc", names)
    return sum(values.values()) / len(values) if values else None


def _kinds(rows: Rows, baseline: str) -> list[KindLine]:
    """ObjMC by kind of scene; a scene may be of several kinds."""
    of_case = {case: same[0]["kinds"] or [PLAIN] for cases in rows.by_method.values() for case, same in cases.items()}
    every = list(dict.fromkeys(kind for kinds in of_case.values() for kind in kinds))
    every.sort(key=lambda kind: kind == PLAIN)
    if every == [PLAIN]:
        return []
    found = []
    for kind in every:
        names = [case for case, kinds in of_case.items() if kind in kinds]
        for method, cases in rows.by_method.items():
            values = scene_values(cases, "objmc", names)
            if not values:
                continue
            lost = scene_values(cases, "lost", names)
            found.append(
                KindLine(
                    kind=kind,
                    method=method,
                    num_scenes=len(values),
                    objmc=bootstrap_mean(_tensor(values.values())),
                    ratio=_ratio(method, cases, rows, baseline, names)[0],
                    floor=_floor(rows, list(values)),
                    lost=sum(lost.values()) / max(1, len(lost)),
                )
            )
    return found


def _wrong_order(column: Column, rows: Rows) -> str | None:
    """The fault in how a metric ranks the rows without a model, whose order is known; None if there is none."""
    for good, bad in column.order:
        if good not in rows.by_method or bad not in rows.by_method:
            continue
        first = scene_values(rows.by_method[good], column.name)
        second = scene_values(rows.by_method[bad], column.name)
        shared = [case for case in first if case in second]
        if not shared:
            continue
        ahead = column.better * sum(first[case] - second[case] for case in shared)
        if ahead < 0 or (ahead == 0 and not column.ties):
            return f"it ranks {bad} {'as high as' if ahead == 0 else 'above'} {good} over {len(shared)} scenes"
    return None


def _tensor(values: Iterable[float]) -> Float64[Tensor, " n"]:
    return torch.tensor(list(values), dtype=torch.float64)

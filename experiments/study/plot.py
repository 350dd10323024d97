"""A study's plot: control and quality of every variant."""

import math
from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.study.findings import Finding
from experiments.study.options import Study
from sgi2v.evaluation.metrics import Interval


def plot(study: Study, findings: Mapping[str, Finding], file: Path) -> None:
    """Control on the left, quality on the right; no control and the true clips as lines."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    distances = {label: one.distance for label, one in findings.items() if one.distance is not None}
    _draw(left, study, {label: one.objmc for label, one in findings.items()}, "ObjMC, pixels (lower follows better)")
    _draw(right, study, distances, "stand-in distance to true clips (lower is better)")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


def _draw(axes: Axes, study: Study, intervals: Mapping[str, Interval], name: str) -> None:
    labels = study.own(intervals)
    if not labels:
        return
    known = [intervals[label] for label in labels]
    spots = [float(label.split()[0]) if study.numeric else float(place) for place, label in enumerate(labels)]
    middle = [one.value for one in known]
    # Of few scenes an unbiased estimate may lie outside its bootstrap interval.
    error = [[max(0.0, one.value - one.low) for one in known], [max(0.0, one.high - one.value) for one in known]]
    axes.errorbar(spots, middle, yerr=error, fmt="o-" if study.numeric else "o", capsize=3, color="#1f5fa8")
    for reference, colour in (("none", "#b04a2f"), ("true", "#4a8a3c")):
        if reference in intervals:
            axes.axhline(intervals[reference].value, color=colour, linestyle="--", linewidth=1, label=reference)
    axes.set_ylabel(name, fontsize=8)
    if study.numeric:
        axes.set_xlabel(study.axis, fontsize=8)
        if min(spots) > 0 and max(spots) / min(spots) > 8:
            axes.set_xscale("log", base=2)
            axes.set_xticks(spots, [f"{spot:g}" for spot in spots])
    else:
        axes.set_xticks(spots, labels, rotation=35, ha="right", fontsize=7)
    if not math.isclose(max(middle), min(middle)):
        axes.set_ylim(bottom=min(0.0, *(one.low for one in known)))
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=7)

"""A study's table in Markdown, how it says an interval, and where in a README it stands."""

import os
import platform
import statistics
from collections.abc import Mapping
from pathlib import Path

from experiments.study.findings import Finding
from experiments.study.options import Options, Study
from sgi2v.backbones import Backbone
from sgi2v.evaluation.metrics import Interval

NEAR = 20.0
"""Pixels from its path, about half a thing's size, up to which a thing is said to follow it."""


def text_of(interval: Interval | None, digits: int) -> str:
    """The figure with its interval in brackets."""
    if interval is None:
        return "–"
    return f"{interval.value:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def write_between_marks(readme: Path, text: str, suffix: str) -> None:
    """Put the table where the README wants it; without a README print is all there is."""
    start, end = f"<!-- table{suffix} -->", f"<!-- end{suffix} -->"
    if not readme.is_file() or start not in (old := readme.read_text(encoding="utf-8")):
        return
    before, _, rest = old.partition(start)
    _, _, after = rest.partition(end)
    readme.write_text(f"{before}{start}\n{text}\n{end}{after}", encoding="utf-8")


def machine_of(backbone: Backbone, threads: int) -> str:
    """Weights, number format and processor of a table's figures."""
    dtype = str(backbone.dtype).removeprefix("torch.")
    cores = f"{threads} of {os.cpu_count()} cores ({platform.machine()})"
    return f"weights {backbone.weights_sha256[:12]}, {dtype}, {cores}"


def table(study: Study, findings: Mapping[str, Finding], options: Options, backbone: Backbone, seeds: set[int]) -> str:
    """A row for each finding, what was measured, the verdict, and the study's note."""
    variants, default = study.own(findings), study.decisive(findings)
    several = len(variants) > 1
    columns = ["ObjMC, px", "over no control"]
    columns += [f"over {default}"] if several else []
    columns += ["lost", "stand-in distance", "background change"]
    columns += ["Fréchet distance"] if study.frechet else []
    columns += ["PSNR, dB", "s a clip", "peak memory, GiB"] if study.costs else ["PSNR, dB"]
    lines = [f"| {study.axis} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for label, one in findings.items():
        cells = [text_of(one.objmc, 2), text_of(one.ratio, 2) if label in variants else "–"]
        if several:
            cells += [text_of(one.over_default, 2) if label in variants and label != default else "–"]
        cells += [f"{one.lost:.0%}", text_of(one.distance, 2), _number(one.background, 3)]
        cells += [text_of(one.frechet, 1)] if study.frechet else []
        cells += [_number(one.psnr, 1)]
        cells += [_number(one.seconds, 1), _number(one.memory, 1)] if study.costs else []
        lines.append(f"| {label} | {' | '.join(cells)} |")
    settings = backbone.settings
    num = max(len(one.by_scene) for one in findings.values())
    kind = "" if options.kind == "simple" else f"{options.kind} "
    world = "VIPSeg" if options.vipseg else f"held-out rendered {kind}scenes (set {options.scene_set})"
    drawn = f"{'one seed' if len(seeds) == 1 else f'{len(seeds)} seeds'} ({', '.join(map(str, sorted(seeds)))})"
    lines += [
        "",
        f"{num} {world}, {settings.num_frames} frames of {settings.width}×{settings.height}, {drawn}, recipe "
        f"{options.recipe}, {machine_of(backbone, options.threads)}. "
        "Mean and 95 % bootstrap interval over scenes, the ratio over pairs. Stand-in distance: unbiased kernel "
        "distance to the true clips on sgi2v-clip-64 features, no FVD; it may fall below 0.",
        "",
        _verdict(study, findings),
    ]
    return "\n".join([*lines, "", study.note] if study.note else lines)


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _verdict(study: Study, findings: Mapping[str, Finding]) -> str:
    """A sentence on whether the study can say anything: control's gain must exceed the tracker's own error."""
    default = study.decisive(findings)
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

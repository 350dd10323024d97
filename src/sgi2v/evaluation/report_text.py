"""A report as tables: the same cells as Markdown, LaTeX and HTML."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

from sgi2v.evaluation.metrics import Interval
from sgi2v.evaluation.report import COLUMNS, PLAIN, Report
from sgi2v.evaluation.report_sets import SetColumn

_ABSENT = "–"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A titled table of texts."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def cell(interval: Interval | None, digits: int, factor: float = 1.0, *, brief: bool = False) -> str:
    """A figure with its 95 % interval, or without it."""
    if interval is None:
        return _ABSENT
    value, low, high = (f"{v * factor:.{digits}f}" for v in (interval.value, interval.low, interval.high))
    return value if brief else f"{value} [{low}, {high}]"


def tables(report: Report, sets: Sequence[SetColumn]) -> list[Table]:
    """All tables of a report. A metric that may not be used has an exclamation mark in its head."""
    marked = {c.name: c.title + (" (!)" if c.name in report.untrusted else "") for c in COLUMNS}
    first = ("objmc", "lost")
    unknown = {"match"} if all(line.cells["match"] is None for line in report.lines) else set()
    others = [column for column in COLUMNS if column.name not in (*first, *unknown)]
    head = [
        "method",
        "scenes",
        "seeds",
        marked["objmc"],
        "tracker's own error, px",
        f"ObjMC over {report.baseline}",
        marked["lost"],
        *(marked[column.name] for column in others),
        "s a clip",
        "peak memory, GiB",
    ]
    lost = next(column for column in COLUMNS if column.name == "lost")
    rows = []
    for line in report.lines:
        row = [
            line.method,
            str(line.num_scenes),
            str(line.num_seeds),
            cell(line.cells["objmc"], 2),
            _ABSENT if line.floor is None else f"{line.floor:.2f}",
            cell(line.ratio, 3),
            cell(line.cells["lost"], lost.digits, lost.factor, brief=True),
            *(cell(line.cells[c.name], c.digits, c.factor) for c in others),
            _ABSENT if line.seconds is None else f"{line.seconds:.1f}",
            _ABSENT if line.memory is None else f"{line.memory / 2**30:.2f}",
        ]
        rows.append(tuple(row))
    found = [Table(title="Methods", head=tuple(head), rows=tuple(rows))]
    for column in sets:
        note = " (!)" if column.untrusted else ""
        set_rows = [
            (method, str(d.num_clips[0]), cell(d.frechet, 3), cell(d.kernel, 4))
            for method, d in column.by_method.items()
        ]
        title = f"Distance to the true clips: {column.names[0]}, {column.names[1]}"
        set_head = ("method", "clips", column.names[0] + note, column.names[1] + note)
        found.append(Table(title=title, head=set_head, rows=tuple(set_rows)))
    if report.kinds:
        kind_rows = [
            (
                one.kind,
                one.method,
                str(one.num_scenes),
                cell(one.objmc, 2),
                _ABSENT if one.floor is None else f"{one.floor:.2f}",
                cell(one.ratio, 3),
                f"{100 * one.lost:.1f}",
            )
            for one in report.kinds
        ]
        kind_head = (
            "kind of scene",
            "method",
            "scenes",
            "ObjMC, px",
            "tracker's own error, px",
            f"ObjMC over {report.baseline}",
            "lost, %",
        )
        found.append(Table(title="By kind of scene", head=kind_head, rows=tuple(kind_rows)))
    return found


def remarks(report: Report, sets: Sequence[SetColumn], paper: str) -> list[str]:
    """Remarks that must stand below the tables."""
    width, height, num_frames = report.size
    said = [
        f"{num_frames} frames of {width}x{height} pixels; distances are in pixels of these frames. Mean over scenes "
        "with a 95 % bootstrap interval; ratios are ratios of means over scenes drawn in pairs.",
        f"Tracker: {report.tracker}. Its own error is what it finds on the true clips of the same scenes; a lost point "
        "keeps its last place and counts.",
        "All figures are measured on the stored 8-bit frames.",
        *(column.said + "." for column in sets),
        paper,
        *report.notes,
    ]
    if any(one.kind == PLAIN for one in report.kinds):
        said.append("A scene may be of several kinds.")
    titles = {column.name: column.title for column in COLUMNS}
    said += [f"(!) {titles[name]} is not to be used here: {why}." for name, why in report.untrusted.items()]
    said += [f"(!) {c.names[0]} is not to be used here: {c.untrusted}." for c in sets if c.untrusted]
    return said


def markdown(found: Sequence[Table], said: Sequence[str], problems: Sequence[str]) -> str:
    """The report as Markdown."""
    parts = []
    for table in found:
        lines = [f"## {table.title}", "", _md(table.head), "|" + "---|" * len(table.head)]
        parts.append("\n".join([*lines, *(_md(row) for row in table.rows)]))
    parts.append("\n".join(f"- {_md_text(text)}" for text in said))
    if problems:
        parts.append("## Left out\n\n" + "\n".join(f"- {_md_text(text)}" for text in problems))
    return "\n\n".join(parts) + "\n"


def _md(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_md_text(text) for text in cells) + " |"


def _md_text(text: str) -> str:
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|")


def latex(found: Sequence[Table], said: Sequence[str]) -> str:
    """The report as LaTeX tables, needing no package."""
    parts = []
    for table in found:
        lines = [
            f"% {_tex(table.title)}",
            "\\begin{tabular}{l" + "r" * (len(table.head) - 1) + "}",
            "\\hline",
            " & ".join(_tex(text) for text in table.head) + " \\\\",
            "\\hline",
            *(" & ".join(_tex(text) for text in row) + " \\\\" for row in table.rows),
            "\\hline",
            "\\end{tabular}",
        ]
        parts.append("\n".join(lines))
    parts.append("\n".join(f"% {_tex(text)}" for text in said))
    return "\n\n".join(parts) + "\n"


def _tex(text: str) -> str:
    special = {
        "\\": "\\textbackslash{}",
        "~": "\\textasciitilde{}",
        "^": "\\textasciicircum{}",
        _ABSENT: "--",
    }
    plain = " ".join(text.split())
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in plain)

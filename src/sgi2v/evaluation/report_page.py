"""Writes a report: tables as Markdown, LaTeX and HTML, and a page that plays all methods' clips side by side."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import jinja2
import markupsafe
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from sgi2v.errors import FieldError
from sgi2v.evaluation.report import COLUMNS, make_report
from sgi2v.evaluation.report_rows import Rows, read_for_report
from sgi2v.evaluation.report_sets import comparable, set_columns
from sgi2v.evaluation.report_text import Table, latex, markdown, remarks, tables
from sgi2v.evaluation.store import Store
from sgi2v.listing import is_litter
from sgi2v.records import Json
from sgi2v.writing import check_place, writing

_TEMPLATES: Final = Path(__file__).parent / "templates"
_COLUMNS: Final = 4  # of frames in one picture: a single row of large frames would be too wide for a browser
_SHOWN: Final = 232  # width in pixels of a clip on the page
_MOST: Final = 512  # a larger frame is shrunk to this width, for looking at
_OURS: Final = frozenset({"table.md", "table.tex", "table.html", "index.html", "clips"})


@dataclass(frozen=True, kw_only=True)
class Written:
    """The files of a report."""

    folder: Path
    text: str
    """The tables as Markdown."""
    problems: list[str]
    """Reasons why something was left out."""


def write_report(
    rows_file: Path,
    *,
    output: Path | None = None,
    clips: Path | None = None,
    baseline: str = "none",
    page: bool = True,
    num_resamples: int = 1000,
    progress: Callable[[int, int], None] | None = None,
) -> Written:
    """A folder with table.md, table.tex, table.html and, with `page`, index.html and the clips as pictures.

    The folder needs nothing outside itself. `progress` is told of pictures made and their number. ValueError when
    the rows cannot be used at all, or when other things than a report stand in `output`.
    """
    output = output or rows_file.with_name(f"{rows_file.stem}.report")
    if output.exists() and (not output.is_dir() or {p.name for p in output.iterdir() if not is_litter(p)} - _OURS):
        raise FieldError("output", f"{output} holds other things than a report", "name a new folder")
    check_place(output)
    rows = read_for_report(rows_file)
    store = Store(rows=rows_file, clips=clips)
    report = make_report(rows, baseline=baseline)
    sets, notes = set_columns(rows, store, num_resamples=num_resamples)
    on_vipseg = rows.one().get("source", {}).get("dataset") == "vipseg"
    said = remarks(report, sets, comparable(report, sets, on_vipseg=on_vipseg)) + notes
    found = tables(report, sets)
    text = markdown(found, said, report.problems)
    name = rows_file.resolve().parent.name if rows_file.stem == "rows" else rows_file.stem
    title = f"Benchmark {name}: {len(rows.cases)} scenes, {len(rows.by_method)} methods"
    with writing(output) as folder:
        folder.mkdir()
        (folder / "table.md").write_text(text, encoding="utf-8")
        (folder / "table.tex").write_text(latex(found, said), encoding="utf-8")
        plain = _render("tables_only.html", title, found, said, report.problems)
        (folder / "table.html").write_text(plain, encoding="utf-8")
        if page:
            data, absent = _clips(rows, store, folder / "clips", progress)
            problems = [*report.problems]
            if absent:
                problems.append(f"{absent} clips are not beside their rows and not on the page")
            whole = _render("page.html", title, found, said, problems, data=data)
            (folder / "index.html").write_text(whole, encoding="utf-8")
    return Written(folder=output, text=text, problems=report.problems)


def _render(
    name: str,
    title: str,
    found: Sequence[Table],
    said: Sequence[str],
    problems: Sequence[str],
    **more: object,
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    # The only texts that are not escaped are files of this package.
    own = {
        kind: markupsafe.Markup((_TEMPLATES / file).read_text(encoding="utf-8"))
        for kind, file in (("style", "style.css"), ("script", "page.js"))
    }
    template = environment.get_template(name)
    return template.render(title=title, tables=found, said=said, problems=problems, **own, **more)


def _clips(rows: Rows, store: Store, folder: Path, progress: Callable[[int, int], None] | None) -> tuple[Json, int]:
    """Writes every clip as one picture, and returns what the page needs to know; and how many clips were absent."""
    folder.mkdir()
    width, height, num_frames = rows.one()["size"]
    methods = list(rows.by_method)
    total, done, absent = sum(len(cases) for cases in rows.by_method.values()), 0, 0
    scenes = []
    for number, case in enumerate(rows.cases):
        clips: Json = {}
        any_row: Json = {}
        for index, method in enumerate(methods):
            same = rows.by_method[method].get(case)
            if not same:
                continue
            row = any_row = same[0]
            found = store.load_clip(row["clip"])
            done += 1
            if progress is not None:
                progress(done, total)
            if found is None:
                absent += 1
                continue
            name = f"{number:04d}-{index:02d}.{'png' if width <= _MOST else 'jpg'}"
            _picture(found[0]).save(folder / name, quality=92)
            metrics = {k: v for k, v in row["metrics"].items() if isinstance(v, int | float)}
            centers = [track["centers"] for track in row["metrics"].get("tracks", [])]
            clips[method] = {"picture": f"clips/{name}", "metrics": metrics, "centers": centers}
        scenes.append({"name": case, "kinds": any_row["kinds"], "boxes": any_row["boxes"], "clips": clips})
    named = [m for m in methods if "without_model" not in next(iter(rows.by_method[m].values()))[0]]
    kinds = sorted({kind for scene in scenes for kind in scene["kinds"]})
    data = {
        "methods": methods,
        "first": named[-1] if named else methods[0],
        "kinds": kinds,
        "metrics": [
            {"name": c.name, "title": c.title, "digits": c.digits, "factor": c.factor, "better": c.better}
            for c in COLUMNS
        ],
        "scenes": scenes,
        "size": [width, height],
        "shown": [_SHOWN, round(_SHOWN * height / width)],
        "columns": _COLUMNS,
        "num_frames": num_frames,
    }
    return data, absent


def _picture(frames: UInt8[np.ndarray, "f h w 3"]) -> Image.Image:
    """All frames of a clip in one picture, row by row."""
    num_frames, height, width, _ = frames.shape
    shrink = min(1.0, _MOST / width)
    size = (round(width * shrink), round(height * shrink))
    sheet = Image.new("RGB", (size[0] * _COLUMNS, size[1] * -(-num_frames // _COLUMNS)))
    for index, frame in enumerate(frames):
        picture = Image.fromarray(frame)
        if shrink < 1:
            picture = picture.resize(size, Image.Resampling.LANCZOS)
        sheet.paste(picture, (index % _COLUMNS * size[0], index // _COLUMNS * size[1]))
    return sheet

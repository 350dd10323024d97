"""How tables say an interval, and where in a README they stand."""

from pathlib import Path

from sgi2v.evaluation.metrics import Interval


def text_of(interval: Interval | None, digits: int) -> str:
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

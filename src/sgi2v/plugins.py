"""Parts that installed packages bring by entry points: models and methods."""

import sys
from functools import cache
from importlib.metadata import entry_points
from typing import Any


def brought(group: str) -> tuple[tuple[str, Any], ...]:
    """Each entry point's text and what it names, in the order of their names; looked up once for a search path."""
    return _brought(group, tuple(sys.path))


@cache
def _brought(group: str, _path: tuple[str, ...]) -> tuple[tuple[str, Any], ...]:
    points = sorted(entry_points(group=group), key=lambda point: point.name)
    return tuple((point.value, point.load()) for point in points)

"""Versions of what is written down."""

from collections.abc import Collection, Mapping


def read_version(field: str, value: object, *, newest: int) -> tuple[int, int]:
    assert isinstance(value, int)
    return value, 0


def check_fields(
    field: str, data: Mapping[str, object], known: Collection[str], *, version: tuple[int, int], newest: int
) -> None:
    pass

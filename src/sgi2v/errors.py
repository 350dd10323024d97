"""A person's mistake, in its parts: which field, what is wrong with it, what would be right."""

from collections.abc import Iterator
from contextlib import contextmanager


class FieldError(ValueError):
    """A value that cannot be used. As text it is one line: ``field: problem; remedy``."""

    def __init__(self, field: str, problem: str, remedy: str = "") -> None:
        """``field`` as the person wrote it (``motions[3].box.left``), empty where no single one is at fault."""
        text = f"{field}: {problem}" if field else problem
        # One text, as libraries that pass a mistake on expect of an exception.
        super().__init__(f"{text}; {remedy}" if remedy else text)
        self.field, self.problem, self.remedy = field, problem, remedy

    def __reduce__(self) -> tuple[type["FieldError"], tuple[str, str, str]]:
        return type(self), (self.field, self.problem, self.remedy)


def joined(place: str, field: str) -> str:
    """A field's name behind the place it lies in: ``motions[3]`` and ``box`` are ``motions[3].box``."""
    if not (place and field):
        return place or field
    return f"{place}{field}" if field.startswith("[") else f"{place}.{field}"


@contextmanager
def within(place: str) -> Iterator[None]:
    """Puts ``place`` in front of the field of a mistake made inside the block."""
    try:
        yield
    except FieldError as error:
        raise FieldError(joined(place, error.field), error.problem, error.remedy) from error
    except ValueError as error:
        raise FieldError(place, str(error)) from error

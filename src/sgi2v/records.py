"""Versions of the JSON records (scenes, runs): reads what a newer program wrote as far as it can be understood."""

import re
import warnings
from collections.abc import Collection, Mapping
from typing import Any, Final

from sgi2v.checks import shown
from sgi2v.errors import FieldError, joined

Json = dict[str, Any]
"""A JSON object, as json.loads gives it."""
Version = tuple[int, int]
"""Major and minor: the whole number 2 in a file is (2, 0), the text "2.1" is (2, 1)."""

REQUIRED: Final = "required"
"""The field of a newer record that lists what its reader must know."""
_MINOR: Final = re.compile(r"([1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})")
_INDEX: Final = re.compile(r"\[\d+\]")


class NewerRecord(UserWarning):
    """A record of a newer minor version has fields that are unknown here; they are left out."""


def read_version(data: Mapping[str, object], field: str = "version", *, newest: Version) -> Version:
    """The version that a record says it has; ValueError naming `field` for none, and for a newer major one."""
    value = data.get("version")
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        version = (value, 0)
    elif isinstance(value, str) and (match := _MINOR.fullmatch(value)):
        version = (int(match[1]), int(match[2]))
    else:
        raise FieldError(field, f"{shown(value)} is not a version", f"say a whole number from 1 to {newest[0]}")
    if version[0] > newest[0]:
        raise FieldError(
            field,
            f"{version_text(version)} is newer than {version_text(newest)}, the newest known here",
            "update sgi2v",
        )
    return version


def version_text(version: Version) -> str:
    """A version as people write it: 2, or 2.1."""
    major, minor = version
    return f"{major}.{minor}" if minor else f"{major}"


class RecordReader:
    """Knows which fields of one record may be left out, and keeps the names of those that were."""

    def __init__(self, data: Mapping[str, object], field: str = "", *, newest: Version) -> None:
        """A reader of the record `data`, whose place is `field`. ValueError as of :func:`read_version`."""
        self.field = field
        self.version = read_version(data, joined(field, "version"), newest=newest)
        self.is_newer = self.version > newest
        self.left_out: set[str] = set()
        required = data.get(REQUIRED, []) if self.is_newer else []
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            raise FieldError(joined(field, REQUIRED), f"{shown(required)} is not a list of names", "give one")
        self._required = frozenset(required)

    def known(self, data: Mapping[str, object], names: Collection[str], place: str = "") -> Mapping[str, object]:
        """The fields of `names` in one object of the record, which lies at `place` (``motions[3].box``).

        ValueError naming the field for any other, unless the record is newer than this program and does not require
        it to be known.
        """
        found = {}
        for name, value in data.items():
            if name in names:
                found[name] = value
            elif name == REQUIRED and not place and self.version[1]:
                continue  # all of it is known here
            elif not self.is_newer:
                unknown = joined(self.field, joined(place, shown(name)[1:-1]))
                known = ", ".join(sorted(names))
                raise FieldError(unknown, f"{shown(value)} under an unknown field", f"known are {known}")
            else:
                self._leave_out(joined(place, str(name)))
        return found

    def _leave_out(self, place: str) -> None:
        name = _INDEX.sub("", place)
        if name in self._required:
            raise FieldError(
                joined(self.field, place),
                "unknown here, and the file says that it must be known",
                "update sgi2v",
            )
        self.left_out.add(shown(name)[1:-1])

    def warn(self) -> None:
        """Tell which fields were left out, once for the whole record; nothing where there are none."""
        if self.left_out:
            names = ", ".join(sorted(self.left_out)[:20])
            warnings.warn(
                f"{joined(self.field, 'version')}: {version_text(self.version)} is newer than this program, which "
                f"leaves out {names}; update sgi2v",
                NewerRecord,
                stacklevel=2,
            )

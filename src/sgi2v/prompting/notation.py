"""Numbers, places and names in the short texts of drags, pins and cameras: read exactly, written as they are read."""

import json
import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from sgi2v.checks import MAX_TEXT, shown
from sgi2v.errors import FieldError

NUMBER: Final = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?"
MEASURE: Final = rf"{NUMBER}\s*%?"
MAX_PROMPT: Final = 1_000_000
"""Characters of a drag, which may have thousands of stops."""
_NAME: Final = re.compile(r"""\s*("(?:[^"\\]|\\.)*"|[^\W\d][\w .'-]*?)\s*:""")
_BARE: Final = re.compile(r"[^\W\d][\w.'-]*(?: [\w.'-]+)*")


@dataclass(frozen=True)
class Measure:
    """A number of pixels, or of hundredths of a side of the picture."""

    value: Decimal
    percent: bool = False

    @classmethod
    def of(cls, number: float) -> "Measure":
        """Pixels, exactly."""
        return cls(Decimal(repr(float(number))))

    @classmethod
    def read(cls, text: str) -> "Measure":
        """A number as :data:`MEASURE` matches it."""
        bare = text.removesuffix("%").strip()
        return cls(Decimal(bare), text.endswith("%"))

    def pixels(self, side: int) -> float:
        """Pixels, of a side of so many."""
        return float(self.value * side / 100 if self.percent else self.value)

    def __str__(self) -> str:
        return plain_number(self.value) + ("%" if self.percent else "")


def plain_number(value: Decimal | float) -> str:
    """A number without trailing zeros: 1.2, 210, 1E+20; reading it gives the same number."""
    value = value if isinstance(value, Decimal) else Decimal(repr(float(value)))
    if value == 0:
        return "0"
    value = value.normalize()
    _, _, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    return f"{value:f}" if -12 <= exponent <= 12 else str(value)


def real(text: str, words: str) -> float:
    """The number in ``text``, a per cent sign divides it; FieldError, naming ``words``, for one that is not finite."""
    value = Measure.read(text)
    number = float(value.value / 100 if value.percent else value.value)
    if not math.isfinite(number):
        raise FieldError("", f"{words} {shown(text)} is not finite", "give a number")
    return number


def named(text: str) -> tuple[str, str]:
    """A leading ``name:`` and the rest; the name in quotes, as JSON has it, where it holds other signs than words."""
    found = _NAME.match(text)
    if not found:
        return "", text
    name = found[1]
    if name.startswith('"'):
        try:
            name = json.loads(name)
        except ValueError:
            raise FieldError("", f"{shown(name)} is no name", 'write quotes within a name as \\"') from None
    return name, text[found.end() :]


def with_name(name: str, text: str) -> str:
    """The opposite of :func:`named`."""
    if not name:
        return text
    return f"{name if _BARE.fullmatch(name) else json.dumps(name, ensure_ascii=False)}: {text}"


def check_prompt(text: object, example: str, most: int = MAX_TEXT) -> str:
    """A text that says something; FieldError for anything else, with an example of what would."""
    if not isinstance(text, str):
        raise FieldError("", f"{shown(text)} is not a text", f"say {example}")
    if not text.strip():
        raise FieldError("", "is empty", f"say {example}")
    if len(text) > most:
        raise FieldError("", f"{len(text)} characters", f"give at most {most}")
    return text

"""One way to change a network for a while: attributes replaced, and put back whatever happens."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

Swap = tuple[object, str, object]
"""Owner, name of the attribute, what stands there meanwhile."""


@contextmanager
def swapped(swaps: Iterable[Swap]) -> Iterator[None]:
    """While open, each owner's attribute is the other value; afterwards what it was, also after an exception.

    Works for submodules, parameters and buffers (torch files them by kind) as for attention processors. Blocks may be
    nested; the innermost is put back first.
    """
    before: list[Swap] = []
    try:
        for owner, name, value in swaps:
            before.append((owner, name, getattr(owner, name)))
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in reversed(before):
            setattr(owner, name, value)

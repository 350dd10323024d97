"""Heavy libraries, imported when they are first used: a mistake in a command is answered without waiting for them."""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import cv2 as cv2
    import torch as torch
else:

    class _Lazy:
        """A module that is imported at the first look at what is in it."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, name: str) -> object:
            return getattr(import_module(self._name), name)

    torch: Final = _Lazy("torch")
    cv2: Final = _Lazy("cv2")

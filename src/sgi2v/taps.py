"""Reads what named layers of a frozen network put out during one forward pass, and leave no trace."""

import difflib
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any

from torch import Tensor, nn

from sgi2v.errors import FieldError


class _EndOfPass(BaseException):
    """Raised inside the network once every named layer has spoken; never leaves its Taps."""


def find_layer(root: nn.Module, name: str) -> nn.Module:
    """The submodule of that dotted name; FieldError with the nearest names when there is none."""
    try:
        return root.get_submodule(name)
    except AttributeError:
        near = difflib.get_close_matches(name, [n for n, _ in root.named_modules() if n], 3)
        hint = f"nearest are {', '.join(near)}" if near else ""
        raise FieldError("layers", f"{type(root).__name__} has no layer {name!r}", hint) from None


class Taps(Mapping[str, Tensor]):
    """Keeps the output of each named layer while the ``with`` block runs one pass, then ends the pass early.

    The network computes what it always computes: hooks return nothing. The pass stops at the last tapped layer
    (``early_exit``), so nothing after it costs time, and gradients through what was kept are those of the whole
    pass, with gradient checkpointing on or off. Hooks are gone when the block ends, however it ends.

    ``copied`` is for a network that writes into what its layers put out, later in the same pass.

    Raises FieldError for a name the network does not have, KeyError for one that did not run.
    """

    def __init__(self, root: nn.Module, names: Sequence[str], *, early_exit: bool = True, copied: bool = False) -> None:
        self._layers = {name: find_layer(root, name) for name in names}
        self._early_exit = early_exit
        self._copied = copied
        self._kept: dict[str, Tensor] = {}
        self._hooks = ExitStack()

    def __enter__(self) -> "Taps":
        assert not self._kept, "Taps are for one pass"
        for name, layer in self._layers.items():
            self._hooks.callback(layer.register_forward_hook(partial(self._keep, name)).remove)
        return self

    def _keep(self, name: str, _layer: nn.Module, _inputs: Any, output: Tensor | tuple[Any, ...]) -> None:
        if len(self._kept) == len(self._layers):
            return  # a checkpointed layer runs again during backward; it has spoken already
        kept = output[0] if isinstance(output, tuple) else output
        self._kept.setdefault(name, kept.clone() if self._copied else kept)
        if self._early_exit and len(self._kept) == len(self._layers):
            raise _EndOfPass(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._hooks.close()
        ended = isinstance(error, _EndOfPass) and error.args[0] is self
        if ended:
            # Frames that were left halfway may hold a checkpoint's open saved-tensor context; closing them here,
            # rather than when the garbage collector comes by, keeps that stack in order.
            traceback.clear_frames(trace)
        return ended

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._kept:
            raise KeyError(f"layer {name!r} did not run in this pass")
        return self._kept[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

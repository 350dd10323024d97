"""How much memory a computation's tensors take at their peak, counted without computing and without a device."""

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True, kw_only=True)
class Peak:
    """Bytes of tensors alive: before the computation (weights, inputs), and what it added at its highest."""

    held: int
    added: int

    @property
    def total(self) -> int:
        return self.held + self.added


class _Live(TorchDispatchMode):
    """Counts the storages that operations make, from their birth until the last tensor on them is gone."""

    def __init__(self, held: Iterable[Tensor]) -> None:
        super().__init__()
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self.now = self.peak = 0
        for tensor in held:
            self._see(tensor)
        self.before, self.peak = self.now, self.now

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return

        def gone(_: object) -> None:
            del self._alive[key]
            self.now -= size

        self._alive[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._see(leaf)
        return out


class _Fused(torch.autograd.Function):
    """The tensors of a fused attention kernel: the output and one number per query; its backward pass keeps both."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        batch, heads, places, _ = query.shape
        out = query.new_empty(batch, places, heads, value.shape[-1]).transpose(1, 2)
        normaliser = query.new_empty(batch, heads, places, dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, normaliser)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(t) for t in ctx.saved_tensors[:3])


@contextmanager
def _fused_attention() -> Iterator[None]:
    """Attention as a fused kernel allocates it: on the meta device torch would write out all places x places.

    Swapped by name rather than by a function mode, which is off while autograd runs checkpointed layers again.
    """

    def fused(*args: Tensor, **kwargs: Any) -> Any:
        rest = {k: v for k, v in kwargs.items() if v not in (None, False, 0.0)}
        assert len(args) == 3 and not rest, f"a fused kernel was not thought of for {rest}"
        return _Fused.apply(*args)

    plain = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = fused
    try:
        yield
    finally:
        F.scaled_dot_product_attention = plain


def live_peak(fn: Callable[[], object], held: Iterable[Tensor] = ()) -> Peak:
    """The peak of live tensor storage while ``fn`` runs, with ``held`` (weights, inputs) alive before it.

    Every storage counts its bytes from the operation that makes it until Python and autograd have let go of it, on
    any device: on ``meta`` nothing is computed. Attention through ``scaled_dot_product_attention`` counts what a fused
    kernel keeps (output and log-sum-exp), not a matrix of logits. Not counted: a kernel's workspace, an allocator's
    rounding and fragments.
    """
    count = _Live(held)
    with count, _fused_attention():
        fn()
    return Peak(held=count.before, added=count.peak - count.before)

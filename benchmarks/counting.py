"""Cost of a computation, counted rather than timed: its operations, and its tensors' memory at their peak."""

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten


def _sampling(_vectors: Any, places: Any, *_rest: Any, out_val: Any, **_named: Any) -> int:
    """Weighted sums of vectors: one multiplication and one addition for each number that is taken."""
    return 2 * int(places.numel()) * int(out_val[0].shape[-1])


# torch's own table has no formula for a CPU's fused attention, and so takes it for free; nor for weighted sums.
FORMULAS: Mapping[Any, Callable[..., int]] = MappingProxyType(
    {
        **flop_registry,
        aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[aten._scaled_dot_product_flash_attention],
        aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
            aten._scaled_dot_product_flash_attention_backward
        ],
        aten._embedding_bag: _sampling,
        aten._embedding_bag_forward_only: _sampling,
    }
)

_STILL = frozenset(
    {"_unsafe_view", "empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided"}
)
"""Operations that neither read nor write, besides views."""

H200 = (790e12, 4.3e12)
"""Measured on one: operations a second of a large 16-bit matrix product, bytes a second of a large copy."""

Lap = Callable[[str], None]
"""Function called with a phase's name where it begins; what follows belongs to it until the next call."""


@dataclass(kw_only=True)
class Count:
    """Cost of one phase of a computation."""

    flop: int = 0
    """Operations of matrix products, convolutions, attention and weighted sums, multiplications and additions alike."""
    kinds: dict[str, int] = field(default_factory=dict)
    """Operations by kind: matrix product, convolution, attention, sampling."""
    moved: int = 0
    """Bytes that its operations read and write when each is a kernel of its own; views move none."""
    floor: float = 0.0
    """Seconds on an H200 if each operation took the longer of its arithmetic and its bytes (:data:`H200`)."""
    times: int = 0
    """Number of times that the phase began."""
    held: int = 0
    """Bytes of tensors alive before the computation: weights, inputs."""
    added: int = 0
    """Bytes that were alive above those at the phase's highest."""

    @property
    def total(self) -> int:
        """Bytes alive at the highest."""
        return self.held + self.added


def _bytes_of(values: Any) -> int:
    """Bytes of tensors; of an expanded one those that are in memory."""
    tensors = (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))
    return sum(min(t.nbytes, t.untyped_storage().nbytes()) for t in tensors)


def _kind(name: str) -> str:
    if "attention" in name:
        return "attention"
    if "embedding_bag" in name:
        return "sampling"
    return "convolution" if "conv" in name else "matrix product"


class _Counter(TorchDispatchMode):
    """Counts operations, and storages from their birth until the last tensor on them is gone."""

    def __init__(self, held: Iterable[Tensor], device: torch.device | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._device = device
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._now = 0
        for tensor in held:
            self._see(tensor)
        self._held = self._now
        self.phases: dict[str, Count] = {}

    def lap(self, phase: str) -> None:
        self._phase = self.phases.setdefault(phase, Count(held=self._held))
        self._phase.times += 1
        self._phase.added = max(self._phase.added, self._now - self._held)

    def _see(self, tensor: Tensor) -> None:
        if self._device is not None and tensor.device != self._device:
            return
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return

        def gone(_: object) -> None:
            del self._alive[key]
            self._now -= size

        self._alive[key] = weakref.ref(storage, gone)
        self._now += size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._see(leaf)
        packet = func._overloadpacket
        self._phase.added = max(self._phase.added, self._now - self._held)
        flop = FORMULAS[packet](*args, **kwargs, out_val=out) if packet in FORMULAS else 0
        still = func.is_view or packet.__name__ in _STILL
        moved = 0 if still else _bytes_of(out) + _bytes_of((args, kwargs))
        self._phase.moved += moved
        self._phase.floor += max(flop / H200[0], moved / H200[1])
        if flop:
            kind = _kind(packet.__name__)
            self._phase.flop += flop
            self._phase.kinds[kind] = self._phase.kinds.get(kind, 0) + flop
        return out


@contextmanager
def fused_attention() -> Iterator[None]:
    """Attention on the meta device as a fused kernel has it: torch would write out all places x places there.

    Swapped by name rather than by a function mode, which is off while autograd runs checkpointed layers again.
    """
    plain = F.scaled_dot_product_attention

    def fused(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not query.is_meta:
            return plain(query, key, value, *args, **kwargs)
        rest = {k: v for k, v in kwargs.items() if v not in (None, False, 0.0) and k != "scale"}
        assert not args and not rest, f"a fused kernel was not thought of for {args} {rest}"
        tokens: Tensor = aten._scaled_dot_product_flash_attention_for_cpu(query, key, value)[0]
        return tokens

    F.scaled_dot_product_attention = fused
    try:
        yield
    finally:
        F.scaled_dot_product_attention = plain


def count_phases(
    fn: Callable[[Lap], object], held: Iterable[Tensor] = (), *, device: torch.device | None = None
) -> dict[str, Count]:
    """Operations and the peak of live tensor storage while ``fn`` runs, for each phase that it names.

    ``held`` (weights, inputs) is alive before it. On the meta device nothing is computed, so no weights and no
    accelerator are needed. Operations are torch's formulas, and those of attention for a CPU's fused kernel too: 2
    products forward, 5 backward, of which one recomputes the logits. A storage counts its bytes from the operation
    that makes it until Python and autograd have let go of it; of fused attention what a kernel keeps (output and
    log-sum-exp), not a matrix of logits. Not counted: what an operation outside the formulas computes, a kernel's
    workspace, an allocator's rounding and fragments; with ``device``, what lies on another one.
    """
    counter = _Counter(held, device)
    counter.lap("whole")
    with counter, fused_attention():
        fn(counter.lap)
    return {name: phase for name, phase in counter.phases.items() if phase.flop or name != "whole"}


def count(fn: Callable[[], object], held: Iterable[Tensor] = (), *, device: torch.device | None = None) -> Count:
    """Cost of ``fn`` as a whole; see :func:`count_phases`."""
    counter = _Counter(held, device)
    counter.lap("whole")
    with counter, fused_attention():
        fn()
    return counter.phases["whole"]

"""Offloading and checkpointing: weights that come to the device when needed, blocks that are computed twice."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import chain
from typing import Any

import torch
from diffusers.hooks import HookRegistry, ModelHook
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sgi2v.backbones.swapping import swapped
from sgi2v.device import Prefetcher, on_host

_NAME = "sgi2v"


class OffloadedWeights:
    """Weights of some modules that lie on the host and come to the device one module at a time, the next one ahead.

    A module has its weights on the device inside :meth:`fetched` and nowhere else, however that ends.

    TRAP: the usual way, giving a parameter other data, is invisible to autograd, which may have kept the parameter and
    then reads in the backward pass what is no longer there; torch's checkpointing keeps frozen ones like that too. So
    a fetched weight is a tensor of its own put into the module for the parameter: what autograd keeps of it
    stays what it was, and stays on the device as long as that needs it. Only checkpointed modules let go of it in time.
    """

    def __init__(self, modules: Sequence[nn.Module], device: torch.device) -> None:
        """Moves the weights of the modules home; given in the order in which they run."""
        self._places = [list(_places(module)) for module in modules]
        self._homes = [[on_host(resident, device) for *_, resident in places] for places in self._places]
        for resident, home in zip(self, chain.from_iterable(self._homes), strict=True):
            resident.data = home
        self._prefetcher = Prefetcher(device)
        self._there: dict[int, list[Tensor]] = {}
        self._last = -1

    def __iter__(self) -> Iterator[Tensor]:
        """The parameters and buffers whose data is at home."""
        return (resident for places in self._places for *_, resident in places)

    def _prefetch(self, index: int) -> None:
        if 0 <= index < len(self._homes) and index not in self._there:
            self._there[index] = self._prefetcher.send(self._homes[index])

    def _next(self, index: int) -> int:
        """Index of the module that runs next: forwards in a pass, backwards when autograd runs them again."""
        last, self._last = self._last, index
        forwards = index > last or (index == 0 and last != 1)
        return index + 1 if forwards else index - 1

    @contextmanager
    def fetched(self, index: int) -> Iterator[None]:
        """The module's weights are on the device while the block runs; the next one's set out meanwhile."""
        coming = self._next(index)
        for other in set(self._there) - {index, coming}:
            del self._there[other]  # a pass that ended early had called it
        self._prefetch(index)
        arrived = self._there.pop(index)
        self._prefetcher.await_arrival(arrived)
        copies = (
            nn.Parameter(copy, requires_grad=False) if isinstance(resident, nn.Parameter) else copy
            for (*_, resident), copy in zip(self._places[index], arrived, strict=True)
        )
        places = ((module, name) for module, name, _ in self._places[index])
        with swapped((*place, copy) for place, copy in zip(places, copies, strict=True)):
            self._prefetch(coming)
            yield

    def release(self) -> None:
        """Nothing stays on the device, not even what was called ahead of a pass that ended early."""
        self._there.clear()
        self._last = -1


def _places(root: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    """Places of a module's weights: their owner, their name there, themselves."""
    for module in root.modules():
        for named in (module.named_parameters(recurse=False), module.named_buffers(recurse=False)):
            for name, tensor in named:
                yield module, name, tensor


class Checkpointing(ModelHook):  # type: ignore[misc]
    """Runs a block so that it keeps nothing but its inputs for the backward pass, which runs it again (checkpointing).

    Offloaded weights are on the device while it runs, and the second time until its gradient is there.
    """

    def __init__(self, weights: OffloadedWeights | None = None, index: int = 0) -> None:
        super().__init__()
        self._weights, self._index = weights, index

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """The block's ``forward`` while it is checkpointed; diffusers' hooks put it there and take it away."""
        if not torch.is_grad_enabled():
            return self._run(*args, **kwargs)
        # No layer of a frozen network draws random numbers, so there is no generator to wind back.
        return checkpoint(self._run, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        with nullcontext() if self._weights is None else self._weights.fetched(self._index):
            return self.fn_ref.original_forward(*args, **kwargs)


def checkpoint_blocks(blocks: Sequence[nn.Module], weights: OffloadedWeights | None = None) -> None:
    """Checkpoint these blocks; with offloaded weights made of the same blocks, these come only when needed."""
    for index, block in enumerate(blocks):
        HookRegistry.check_if_exists_or_initialize(block).register_hook(Checkpointing(weights, index), _NAME)


def uncheckpoint_blocks(blocks: Sequence[nn.Module]) -> None:
    """Undo :func:`checkpoint_blocks`; nothing of it stays on the blocks."""
    for block in blocks:
        HookRegistry.check_if_exists_or_initialize(block).remove_hook(_NAME, recurse=False)
        for left in ("forward", "_diffusers_hook"):
            vars(block).pop(left, None)

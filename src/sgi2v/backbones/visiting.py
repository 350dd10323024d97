"""Blocks of a frozen network that keep little: what they computed is computed again, their weights come when needed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import chain, zip_longest
from typing import Any

import torch
from diffusers.hooks import HookRegistry, ModelHook
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sgi2v.device import Carrier, at_home

_NAME = "sgi2v"


class Visitors:
    """Weights of some modules that lie on the host and visit the device one module at a time, the next one ahead.

    A module has its weights on the device inside :meth:`visit` and nowhere else, however that ends.

    TRAP: the usual way, giving a parameter other data, is invisible to autograd, which may have kept the parameter and
    then reads in the backward pass what is no longer there; torch's checkpointing keeps frozen ones like that too. So
    a visiting weight is a tensor of its own that stands in the module for the parameter: what autograd keeps of it
    stays what it was, and stays on the device as long as that needs it. Only checkpointed modules let go of it in time.
    """

    def __init__(self, modules: Sequence[nn.Module], device: torch.device) -> None:
        """Moves the weights of the modules home; given in the order in which they run."""
        self._places = [list(_places(module)) for module in modules]
        self._homes = [[at_home(resident, device) for *_, resident in places] for places in self._places]
        for resident, home in zip(self, chain.from_iterable(self._homes), strict=True):
            resident.data = home
        self._carrier = Carrier(device)
        self._there: dict[int, list[Tensor]] = {}
        self._last = -1

    def __iter__(self) -> Iterator[Tensor]:
        """The parameters and buffers whose data is at home."""
        return (resident for places in self._places for *_, resident in places)

    def _call(self, index: int) -> None:
        if 0 <= index < len(self._homes) and index not in self._there:
            self._there[index] = self._carrier.send(self._homes[index])

    def _next(self, index: int) -> int:
        """What runs after this module: forwards in a pass, backwards when autograd runs them again."""
        last, self._last = self._last, index
        forwards = index > last or (index == 0 and last != 1)
        return index + 1 if forwards else index - 1

    @contextmanager
    def visit(self, index: int) -> Iterator[None]:
        """The module's weights are on the device while the block runs; the next one's set out meanwhile."""
        coming = self._next(index)
        for other in set(self._there) - {index, coming}:
            del self._there[other]  # a pass that ended early had called it
        self._call(index)
        arrived = self._there.pop(index)
        self._carrier.await_arrival(arrived)
        try:
            for (module, name, resident), guest in zip(self._places[index], arrived, strict=True):
                stand_in = (
                    nn.Parameter(guest, requires_grad=False) if isinstance(resident, nn.Parameter) else guest
                )
                setattr(module, name, stand_in)
            self._call(coming)
            yield
        finally:
            for module, name, resident in self._places[index]:
                setattr(module, name, resident)

    def leave(self) -> None:
        """Nothing stays on the device, not even what was called ahead of a pass that ended early."""
        self._there.clear()
        self._last = -1


def _places(root: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    """Where the weights of a module sit: their owner, their name there, themselves."""
    for module in root.modules():
        for named in (module.named_parameters(recurse=False), module.named_buffers(recurse=False)):
            for name, tensor in named:
                yield module, name, tensor


class Sparing(ModelHook):  # type: ignore[misc]
    """Runs a block so that it keeps nothing but its inputs for the backward pass, which runs it again (checkpointing).

    With visitors, its weights are on the device while it runs, and the second time until its gradient is there.
    """

    def __init__(self, visitors: Visitors | None = None, index: int = 0) -> None:
        super().__init__()
        self._visitors, self._index = visitors, index

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """What the block's ``forward`` is while it is spared; diffusers' hooks put it there and take it away."""
        if not torch.is_grad_enabled():
            return self._run(*args, **kwargs)
        # No layer of a frozen network draws random numbers, so there is no generator to wind back.
        return checkpoint(self._run, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        with nullcontext() if self._visitors is None else self._visitors.visit(self._index):
            return self.fn_ref.original_forward(*args, **kwargs)


def spare(blocks: Sequence[nn.Module], visitors: Visitors | None = None) -> None:
    """Checkpoint these blocks; with visitors made of the same blocks, their weights are off the device too."""
    for index, block in enumerate(blocks):
        HookRegistry.check_if_exists_or_initialize(block).register_hook(Sparing(visitors, index), _NAME)


def spare_no_more(blocks: Sequence[nn.Module]) -> None:
    """Undo :func:`spare`; nothing of it stays on the blocks."""
    for block in blocks:
        HookRegistry.check_if_exists_or_initialize(block).remove_hook(_NAME, recurse=False)
        for left in ("forward", "_diffusers_hook"):
            vars(block).pop(left, None)


def attention_blocks(unet: nn.Module) -> list[nn.Module]:
    """The blocks of spatial and temporal attention, in the order in which they run."""
    return [block for block in _blocks(unet) if hasattr(block, "transformer_blocks")]


def fine_blocks(unet: nn.Module) -> list[nn.Module]:
    """Residual blocks, and spatial and temporal attention each by itself, in the order in which they run."""
    fine: list[nn.Module] = []
    for block in _blocks(unet):
        if hasattr(block, "transformer_blocks"):
            for pair in zip(block.transformer_blocks, block.temporal_transformer_blocks, strict=True):
                fine.extend(pair)
        else:
            fine.append(block)
    return fine


def _blocks(unet: nn.Module) -> list[Any]:
    """Residual and attention blocks of a spatio-temporal U-Net, in the order in which they run."""
    levels: list[Any] = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]  # type: ignore[misc]
    return [
        block
        for level in levels
        for pair in zip_longest(level.resnets, getattr(level, "attentions", ()))
        for block in pair
        if block is not None
    ]

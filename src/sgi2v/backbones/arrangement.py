"""Places of a model's weights under a memory mode: what stays on the device, what visits it, what is checkpointed."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from sgi2v.backbones.base import Mode
from sgi2v.backbones.offloading import OffloadedWeights, checkpoint_blocks, uncheckpoint_blocks
from sgi2v.checks import choice
from sgi2v.device import has_own_memory


class Arrangement:
    """A model's networks under a mode: which blocks are checkpointed, and whose weights lie where."""

    def __init__(
        self,
        mode: Mode,
        device: torch.device,
        *,
        networks: Iterable[nn.Module],
        parts: Mapping[str, nn.Module],
        blocks: Sequence[Sequence[nn.Module]],
        experts: Mapping[str, nn.Module] | None = None,
    ) -> None:
        """Puts every weight in its place; FieldError for a mode that there is not.

        ``parts`` run once, and visit but under ``fast``. ``blocks`` are checkpointed, a sequence for each network in
        the order in which they run; under ``low`` their weights visit too. Of ``experts``, which take turns, one at a
        time is on the device, but under ``fast``.
        """
        choice("memory", mode, Mode)
        self.mode: Mode = mode
        self._device = device
        self._apart = mode != "fast" and has_own_memory(device)
        self._staying: list[Tensor] = []
        self._parts: dict[str, tuple[nn.Module, OffloadedWeights | None]] = {}
        self._blocks = blocks
        visiting = self._apart and mode == "low"
        self._block_weights = [OffloadedWeights(group, device) for group in blocks] if visiting else []
        for index, group in enumerate(blocks):
            checkpoint_blocks(group, self._block_weights[index] if visiting else None)
        self._held, self._holding = "", ExitStack()
        self._experts = {
            name: OffloadedWeights([expert], device)
            for name, expert in (experts or {}).items()
            if self._apart and not visiting
        }
        for part, module in parts.items():
            self.add(part, module)
        offloaded = (*self._block_weights, *self._experts.values(), *(weights for _, weights in self._parts.values()))
        away = {id(tensor) for weights in offloaded if weights for tensor in weights}
        self._keep(tensor for network in networks for tensor in _tensors(network) if id(tensor) not in away)

    def add(self, part: str, module: nn.Module) -> None:
        """A part that runs once, or an adapter: under ``fast`` it stays on the device, else it comes when used."""
        if part not in self._parts:
            self._parts[part] = module, OffloadedWeights([module], self._device) if self._apart else None
            if not self._apart:
                self._keep(_tensors(module))

    def _keep(self, tensors: Iterable[Tensor]) -> None:
        known = {id(tensor) for tensor in self._staying}
        for tensor in tensors:
            if id(tensor) not in known:
                tensor.data = tensor.data.to(self._device)
                self._staying.append(tensor)

    @property
    def staying(self) -> Sequence[Tensor]:
        """The weights that are on the device all the time."""
        return self._staying

    @contextmanager
    def using(self, part: str) -> Iterator[None]:
        """That part is on the device while the block runs; no block that an ended pass had fetched is."""
        for group in self._block_weights:
            group.release()
        _, weights = self._parts[part]
        with nullcontext() if weights is None else weights.fetched(0):
            yield

    def hold(self, expert: str) -> None:
        """That expert is on the device from now on, the other at home; nothing to do where both stay or visit."""
        if expert in self._experts and expert != self._held:
            self.release()
            self._holding.enter_context(self._experts[expert].fetched(0))
            self._held = expert

    def release(self) -> None:
        """No expert is held any more."""
        self._holding.close()
        for weights in self._experts.values():
            weights.release()
        self._held = ""

    def undo(self) -> None:
        """The networks as they were, their weights wherever they lie."""
        self.release()
        for group in self._blocks:
            uncheckpoint_blocks(group)


def _tensors(network: nn.Module) -> Iterator[Tensor]:
    yield from network.parameters()
    yield from network.buffers()

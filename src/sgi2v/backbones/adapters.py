"""Trained additions to a network for a while: low-rank weights (LoRA) and residuals (as of a ControlNet)."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from sgi2v.errors import FieldError
from sgi2v.taps import find_layer

Branches = Callable[[], Sequence[bool]]
"""Tells which branches of guidance the pass that is running holds, in the order of its batch: True is conditional."""


@runtime_checkable
class Adapter(Protocol):
    """Weights beside a network's own, and how they join its passes. Loaded once, used in any number of runs."""

    @property
    def name(self) -> str:
        """Its name in a record."""

    @property
    def sha256(self) -> str:
        """Hash of its weights, so that a record says exactly which adapter took part."""

    @property
    def module(self) -> nn.Module:
        """All its weights, frozen; the backbone puts them where they are needed."""

    def attach(self, denoiser: nn.Module, signal: object, branches: Branches) -> AbstractContextManager[None]:
        """While open, every pass of the denoiser is adapted; then nothing of it is left.

        ``signal`` is what steers it, if anything does. FieldError for a denoiser that it does not fit.
        """


def _frozen(module: nn.Module) -> nn.Module:
    return module.eval().requires_grad_(False)


class LowRank:
    """Low-rank additions to linear layers: ``W x`` becomes ``W x + scale * B (A x)`` (LoRA, arXiv 2106.09685)."""

    def __init__(
        self,
        pairs: Mapping[str, tuple[Tensor, Tensor]],
        *,
        name: str,
        sha256: str,
        scale: float = 1.0,
        biases: Mapping[str, Tensor] | None = None,
    ) -> None:
        """``pairs`` maps a layer's dotted name to A ``[rank, in]`` and B ``[out, rank]``, ``biases`` some to more."""
        self.name, self.sha256, self.scale = name, sha256, scale
        self._layers = tuple(pairs)
        downs, ups = ([nn.Parameter(pair[k], requires_grad=False) for pair in pairs.values()] for k in (0, 1))
        self._downs, self._ups = nn.ParameterList(downs), nn.ParameterList(ups)
        given = biases or {}
        self._biased = {layer: index for index, layer in enumerate(given)}
        self._biases = nn.ParameterList([nn.Parameter(bias, requires_grad=False) for bias in given.values()])
        self.module = _frozen(nn.ModuleList([self._downs, self._ups, self._biases]))

    @classmethod
    def load(cls, file: str | Path, *, scale: float = 1.0) -> "LowRank":
        """From a safetensors file with ``<layer>.lora_A.weight`` and ``<layer>.lora_B.weight``.

        Raises FieldError naming the file when it is unreadable or a layer lacks one of the two.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            data = Path(file).read_bytes()
            tensors = load(data)
        except (OSError, SafetensorError) as error:
            raise FieldError("adapter", f"{file} cannot be read ({error})", "give a safetensors file") from None
        layers = sorted({key.rpartition(".lora_")[0] for key in tensors if ".lora_" in key})
        try:
            pairs = {layer: (tensors[f"{layer}.lora_A.weight"], tensors[f"{layer}.lora_B.weight"]) for layer in layers}
        except KeyError as error:
            raise FieldError("adapter", f"{file} lacks {error}", "export it again") from None
        if not pairs:
            raise FieldError("adapter", f"{file} holds no lora_A and lora_B weights", "give a LoRA")
        return cls(pairs, name=Path(file).name, sha256=hashlib.sha256(data).hexdigest(), scale=scale)

    @contextmanager
    def attach(self, denoiser: nn.Module, signal: object, branches: Branches) -> Iterator[None]:
        """See :class:`Adapter`; it heeds no signal and adapts both branches alike."""
        with ExitStack() as hooks:
            for index, layer in enumerate(self._layers):
                module = find_layer(denoiser, layer)
                shape = tuple(getattr(module, "weight", torch.empty(0)).shape)
                wanted = (self._ups[index].shape[0], self._downs[index].shape[1])
                if shape != wanted:
                    raise FieldError("adapter", f"{self.name} is made for a layer {layer} of {wanted}, not of {shape}")

                def add(_module: nn.Module, inputs: tuple[Tensor], output: Tensor, at: int = index) -> Tensor:
                    down, up = (weights[at].to(output.dtype) for weights in (self._downs, self._ups))
                    added: Tensor = inputs[0] @ down.T @ up.T
                    biased = self._biased.get(self._layers[at])
                    if biased is not None:
                        added = added + self._biases[biased].to(output.dtype)
                    return output + self.scale * added

                hooks.callback(module.register_forward_hook(add).remove)
            yield


@dataclass(frozen=True, kw_only=True, eq=False)
class Residuals:
    """Tensors that are added to what some blocks are given, made of a signal by a network of their own."""

    name: str
    sha256: str
    module: nn.Module
    """Makes ``{block: [frames, channels, height, width]}`` of the signal, once for every :meth:`attach`."""
    branches: Literal["both", "conditional"] = "both"
    """Branches of guidance that are adapted."""

    @contextmanager
    def attach(self, denoiser: nn.Module, signal: object, branches: Branches) -> Iterator[None]:
        """See :class:`Adapter`."""
        with torch.no_grad():
            residuals: Mapping[str, Tensor] = _frozen(self.module)(signal)
        with ExitStack() as hooks:
            for block, residual in residuals.items():

                def add(
                    _module: nn.Module,
                    inputs: tuple[Tensor, ...],
                    named: dict[str, Tensor],
                    residual: Tensor = residual,
                ) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
                    shares = [conditional or self.branches == "both" for conditional in branches()]
                    whole = torch.cat([residual if share else torch.zeros_like(residual) for share in shares])
                    if inputs:
                        return (inputs[0] + whole.to(inputs[0].dtype), *inputs[1:]), named
                    given = named["hidden_states"]
                    return inputs, {**named, "hidden_states": given + whole.to(given.dtype)}

                module = find_layer(denoiser, block)
                hooks.callback(module.register_forward_pre_hook(add, with_kwargs=True).remove)
            yield


def kind_of(adapter: object) -> str:
    """Name of the kind of trained system, which a method of that name steers; empty for one that needs no signal."""
    return str(getattr(adapter, "kind", ""))


def taking_part(adapters: Sequence[Adapter], steered: Sequence[str]) -> tuple[Adapter, ...]:
    """Those of some adapters that a run uses whose method steers the kinds ``steered``: these, and those of no kind."""
    return tuple(one for one in adapters if kind_of(one) in ("", *steered))


def identities(adapters: Sequence[Adapter]) -> tuple[Mapping[str, object], ...]:
    """Name, hash and scale of each adapter, as a record holds them."""
    return tuple({"name": one.name, "sha256": one.sha256, "scale": getattr(one, "scale", 1.0)} for one in adapters)

"""Compiling what of a network is never read or edited inside: hooks that come after compiling would not be heard."""

from typing import Any

import torch
from diffusers.hooks import HookRegistry, ModelHook
from diffusers.models.attention import FeedForward
from diffusers.models.resnet import SpatioTemporalResBlock
from torch import nn

from sgi2v.backbones.base import Mode
from sgi2v.errors import FieldError

_NAME = "sgi2v-compiled"
_SHAPES = 64  # of a kind of block, in this network, with gradients and without; torch gives up after 8 by itself


class _Compiling(ModelHook):  # type: ignore[misc]
    """Runs a block's own ``forward`` compiled; the block's hooks stay outside, and are heard."""

    def __init__(self, backend: str) -> None:
        super().__init__()
        self._backend = backend
        self._compiled: Any = None

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """The block's ``forward`` from now on."""
        if self._compiled is None:
            self._compiled = torch.compile(self.fn_ref.original_forward, backend=self._backend, dynamic=False)
        with torch._dynamo.config.patch(recompile_limit=_SHAPES):
            return self._compiled(*args, **kwargs)


def compile_blocks(unet: nn.Module, *, backend: str = "inductor") -> None:
    """Compile residual blocks and feed-forward layers, each when it first runs; attention is left to its own kernels.

    The first pass of each size takes long: minutes, with gradients and without.
    """
    for module in unet.modules():
        if isinstance(module, SpatioTemporalResBlock | FeedForward):
            registry = HookRegistry.check_if_exists_or_initialize(module)
            registry.register_hook(_Compiling(backend), _NAME)


def _is_compiled(module: nn.Module) -> bool:
    registry = getattr(module, "_diffusers_hook", None)
    return registry is not None and registry.get_hook(_NAME) is not None


def check_memory(mode: Mode) -> None:
    """FieldError for the memory mode that compiled blocks do not bear."""
    if mode == "low":
        raise FieldError(
            "compile",
            "under low memory weights come and go, which compiled code does not follow",
            "use --memory balanced or fast with it",
        )


def any_compiled(unet: nn.Module) -> bool:
    """True where :func:`compile_blocks` has been here."""
    return any(_is_compiled(module) for module in unet.modules())


def check_readable(unet: nn.Module, name: str) -> None:
    """FieldError for a layer inside a compiled block, which no hook can read."""
    parts = name.split(".")
    for end in range(1, len(parts)):
        around = ".".join(parts[:end])
        if _is_compiled(unet.get_submodule(around)):
            raise FieldError("layers", f"{name!r} lies inside {around!r}, which is compiled", "leave --compile out")

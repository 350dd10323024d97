"""Opening a model, written once: a person's choice becomes outline, settings, memory mode and loaded backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sgi2v.advice import advised
from sgi2v.backbones.base import Backbone, Memory, Outline, settings_with, settings_with_recipe
from sgi2v.backbones.dit.lora import parse_lora
from sgi2v.backbones.dit.outline import DiTOutline
from sgi2v.backbones.registry import loaded, outline_of
from sgi2v.errors import FieldError
from sgi2v.planning import Sampling

if TYPE_CHECKING:
    from sgi2v.backbones.adapters import Adapter
    from sgi2v.backbones.memory import MemoryPlan

DType = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """A choice of model, device, number format and memory mode."""

    backbone: str = "bundled"
    """The model: bundled, svd, svd-xt, a name that an installed package brings, a folder in diffusers' layout, or a
    hub id."""
    recipe: str | None = None
    """One of the model's recipes: paper (SG-I2V's published settings), quick (far fewer operations), or another that
    sgi2v info names; default: its own settings."""
    device: str | None = None
    """cpu, cuda, cuda:1, mps …; default: the best that this machine has."""
    dtype: DType | None = None
    """Number format of the networks; default: what suits the device."""
    memory: Memory = "auto"
    """Use of the device's memory: fast, balanced, low, or auto: the first of these that fits what is free. The
    video is the same; the time is not."""
    transformer: Path | None = None
    """A video transformer's weights in one file, in place of the folder's: .safetensors of the original or ComfyUI's
    layout, fp8-scaled ones too, or .gguf."""
    transformer_2: Path | None = None
    """The same of the second network, for low noise, of a model that has two."""
    adapter: tuple[str, ...] = ()
    """Weights of trained systems (drag-nuwa, drag-anything, image-conductor): files, folders, published names or hub
    ids. sgi2v adapter check says what a file is."""
    quantise: Literal["int8", "fp8"] | None = None
    """Round a video transformer's weights to 8 bits as they are loaded, which halves them; needs sgi2v[quantised]."""
    probed: bool = True
    """Take the layers that sgi2v probe --write has found for these weights on this machine, if it was run, for what the
    model recommends."""
    compile: bool = False
    """Have torch compile parts of the network as they first run: minutes, so for many clips on a GPU. Not with low."""

    def outline(self, changed: Mapping[str, object] | None = None) -> Outline:
        """The model before its weights are read, under a person's own advice, the recipe, then the changed settings."""
        outline = self._with_files(outline_of(self.backbone))
        if self.adapter:
            from sgi2v.backbones.adapter_kinds import outline_with

            outline = outline_with(outline, self.adapter)
        if self.probed:
            outline = advised(outline, self.recipe)
        settings = settings_with_recipe(outline.settings, self.recipe)
        return outline.with_settings(settings_with(settings, changed or {}, "settings"))

    def _with_files(self, outline: Outline) -> Outline:
        parts = {"transformer": self.transformer, "transformer_2": self.transformer_2}
        files = {part: file for part, file in parts.items() if file is not None}
        if not (files or self.quantise):
            return outline
        check_transformer(outline, next(iter(files), "quantise"))
        assert isinstance(outline, DiTOutline)
        return outline.with_files(files, self.quantise)

    def plan_memory(self, outline: Outline, sampling: Sampling) -> MemoryPlan:
        """The memory mode for clips of that size; FieldError when it cannot fit, saying what would."""
        from sgi2v.backbones.memory import plan_memory
        from sgi2v.device import choose_device

        place, settings = choose_device(self.device), outline.settings
        width, height, num_frames = (
            getattr(sampling, name) or getattr(settings, name) for name in ("width", "height", "num_frames")
        )
        grid = outline.grid(width, height, num_frames)
        beside = sum(one.count for one in getattr(outline, "adapters", ()))
        dtype = outline.choose_dtype(self.dtype, place)
        return plan_memory(self.memory, outline, grid, place, dtype, beside=beside)

    def load(self, outline: Outline, *, memory: Memory | None = None) -> Backbone:
        """The outline's model with its weights, in silence; ``memory`` as planned, by default as chosen."""
        return loaded(
            outline, device=self.device, dtype=self.dtype, memory=memory or self.memory, compiled=self.compile
        )


def check_transformer(outline: Outline, field: str) -> None:
    """FieldError under ``field`` for a model that is no video transformer."""
    if not isinstance(outline, DiTOutline):
        raise FieldError(field, f"{outline.name} is no video transformer", "leave it out")


def check_loras(outline: Outline, files: Sequence[str]) -> None:
    """FieldError for LoRA files that are none, or beside a model that takes none; their weights are not read."""
    if files:
        check_transformer(outline, "lora")
    for one in files:
        parse_lora(one)


def loras(backbone: Backbone, files: Sequence[str]) -> tuple[Adapter, ...]:
    """The LoRAs, read and fitted to the model; FieldError for one whose keys fit nothing in it."""
    if not files:
        return ()
    from sgi2v.backbones.dit.lora import load_lora
    from sgi2v.backbones.dit.model import VideoTransformer

    assert isinstance(backbone, VideoTransformer), "its outline has been checked"
    return tuple(load_lora(backbone, one) for one in files)

"""DragAnything as a kind of trained system: its ControlNet's file recognised and checked, the settings it wants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from sgi2v.backbones.adapter_files import AdapterFiles, shape_faults, shapes_of, size_of
from sgi2v.backbones.base import Outline
from sgi2v.backbones.svd.outline import SVDOutline, SVDSettings
from sgi2v.errors import FieldError
from sgi2v.lazy import torch

if TYPE_CHECKING:
    from sgi2v.backbones.adapters import Adapter
    from sgi2v.backbones.svd.adapters.drag_anything import ControlSizes

_HEADS: Final = (5, 10, 10, 20)
"""Heads of attention as the published class has them by default; a folder's config.json says otherwise."""
_RELEASED: Final = MappingProxyType({"width": 576, "height": 320, "num_steps": 25, "motion_bucket_id": 128})
_PUBLISHED: Final = MappingProxyType({"drag-anything": ("weijiawu/DragAnything", "*.safetensors")})


@dataclass(frozen=True, kw_only=True)
class DragAnythingSettings(SVDSettings):
    """Conditions of Stable Video Diffusion as DragAnything was released with."""

    clip_normalised: bool = False
    """Show the image encoder the picture by CLIP's mean and deviation, as Stable Video Diffusion was trained; the
    release leaves that out."""
    default: str = "drag-anything"
    """Name of the controller for whoever names none."""


class DragAnythingKind:
    """DragAnything (Wu et al. 2024, arXiv 2403.07420): a ControlNet for Stable Video Diffusion."""

    kind: Final = "drag-anything"
    steered_by: Final = "drag-anything"
    needs: Final = (
        "a Stable Video Diffusion of its widths (--backbone svd), and beside it --adapter a folder of Stable Diffusion "
        "1.5's kind, which says how things look"
    )
    published: Final[Mapping[str, tuple[str, str]]] = _PUBLISHED

    def recognises(self, found: AdapterFiles) -> bool:
        """True for a ControlNet with a branch for looks."""
        return any(key.startswith("controlnet_cond_embedding.blocks_feature.") for key in found.tensors)

    def faults(self, found: AdapterFiles) -> tuple[str, ...]:
        """Against the network that the file's own shapes tell."""
        from sgi2v.backbones.svd.adapters.drag_anything import ControlNet

        try:
            sizes = sizes_of(found)
        except FieldError as error:  # a key is missing by which the sizes would be known
            return (error.problem,)
        with torch.device("meta"):
            made = ControlNet(sizes)
        return shape_faults(found.tensors, shapes_of(made), frozenset())

    def count(self, found: AdapterFiles) -> int:
        """All of it."""
        return found.count

    def outline(self, found: AdapterFiles, beside: Outline) -> Outline:
        """The model under the released settings, where its folder has no others of its own.

        FieldError for a model of another kind or of other widths.
        """
        sizes = sizes_of(found)
        widths = beside.unet.get("block_out_channels") if isinstance(beside, SVDOutline) else None
        if widths is None or tuple(widths) != sizes.channels:
            raise FieldError(
                "backbone",
                f"{found.place} is for a Stable Video Diffusion of widths {list(sizes.channels)}, not {beside.name}",
                "give --backbone svd, or the one that it was trained beside",
            )
        own = asdict(beside.settings)
        published = asdict(SVDSettings())
        released = {name: value for name, value in _RELEASED.items() if own[name] == published[name]}
        return beside.with_settings(DragAnythingSettings(**{**own, **released, "default": self.kind}))

    def load(self, found: AdapterFiles, outline: Outline) -> Adapter:
        """The ControlNet."""
        from sgi2v.backbones.svd.adapters.drag_anything import DragAnythingAdapter

        return DragAnythingAdapter.of(found.load(), sizes_of(found), name=found.name, sha256=found.sha256)


def sizes_of(found: AdapterFiles) -> ControlSizes:
    """Sizes as the shapes and a config.json beside them say; FieldError naming the key by which they cannot be."""
    from sgi2v.backbones.svd.adapters.drag_anything import ControlSizes

    def size(key: str, axis: int) -> int:
        return size_of(found, "drag-anything", key, axis)

    def widths(branch: str, first: int) -> tuple[int, ...]:
        part = f"controlnet_cond_embedding.{branch}"
        count = sum(key.startswith(f"{part}.") and key.endswith(".weight") for key in found.tensors)
        return (first, *(size(f"{part}.{2 * index + 1}.weight", 0) for index in range(count // 2)))

    width = "down_blocks.{}.resnets.0.spatial_res_block.conv1.weight"
    levels = 1
    while width.format(levels) in found.tensors:
        levels += 1
    channels = tuple(size(width.format(level), 0) for level in range(levels))
    said = found.config.get("num_attention_heads", _HEADS)
    heads = tuple(said) if isinstance(said, list | tuple) else (said,) * levels
    if len(heads) != levels or not all(isinstance(one, int) and one > 0 for one in heads):
        raise FieldError("adapter", f"{found.place} says num_attention_heads {said!r} for {levels} levels")
    if any(c % 32 or c % h for c, h in zip(channels, heads, strict=True)):
        raise FieldError("adapter", f"{found.place} has widths {list(channels)} for heads {list(heads)}")
    return ControlSizes(
        channels=channels,
        heads=heads,
        in_channels=size("conv_in.weight", 1),
        context=size("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight", 1),
        told=size("add_embedding.linear_1.weight", 1),
        heat=widths("blocks", size("controlnet_cond_embedding.conv_in.weight", 0)),
        looks=widths("blocks_feature", size("controlnet_cond_embedding.blocks_feature.0.weight", 1)),
    )


DRAG_ANYTHING: Final = DragAnythingKind()

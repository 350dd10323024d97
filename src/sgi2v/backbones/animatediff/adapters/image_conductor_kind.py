"""Image Conductor as a kind of trained system: its files told apart by their keys, checked, joined to AnimateDiff."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal

from sgi2v.backbones.adapter_files import AdapterFiles, Tensorhead, shape_faults, shapes_of
from sgi2v.backbones.animatediff.outline import AnimateDiffOutline
from sgi2v.backbones.animatediff.released import (
    ADAPTERS,
    SECOND_TABLE,
    Heads,
    is_low_rank,
    low_rank_faults,
    network_config,
    renamed,
)
from sgi2v.backbones.base import Outline
from sgi2v.backbones.fields import number
from sgi2v.errors import FieldError
from sgi2v.lazy import torch

if TYPE_CHECKING:
    from sgi2v.backbones.adapters import Adapter

Role = Literal["unet", "image", "flow"]
_ROLES: Final[Mapping[Role, str]] = MappingProxyType(
    {"unet": "the denoiser", "image": "the image ControlNet", "flow": "the flow ControlNet"}
)
_HUB: Final = "TencentARC/ImageConductor"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One of the networks as its file's header tells it."""

    file: Path
    tensors: Mapping[str, Tensorhead]

    def config(self, heads: Heads = Heads()) -> dict[str, Any]:  # noqa: B008  (frozen: one for all does no harm)
        """The arguments of diffusers' class."""
        return network_config({key: head.shape for key, head in self.tensors.items()}, heads)

    def faults(self, name: str) -> tuple[str, ...]:
        """Keys, under diffusers' names, that are absent, unknown or of a wrong shape."""
        from diffusers import SparseControlNetModel, UNetMotionModel

        try:
            config = self.config()
        except FieldError as error:
            return (f"{name}: {error.problem}",)
        with torch.device("meta"):
            network = (SparseControlNetModel if "conditioning_channels" in config else UNetMotionModel)(**config)
        own = {key: head for key, head in self.tensors.items() if not is_low_rank(key)}
        plain = {renamed(key): head for key, head in own.items() if not key.endswith(SECOND_TABLE)}
        found = [*shape_faults(plain, shapes_of(network), frozenset())]
        if _role(self.tensors) == "flow":
            found += low_rank_faults({key: head.shape for key, head in self.tensors.items()}, network)
        return tuple(f"{name}: {one}" for one in found)


def _role(keys: Mapping[str, object]) -> Role | None:
    """The network that keys belong to."""
    if not any(".temporal_transformer." in key for key in keys):
        return None
    if any(f".{one}." in key for key in keys for one in ADAPTERS.values()):
        return "flow"
    if any(key.startswith("controlnet_") for key in keys):
        return "image"
    return "unet" if any(key.startswith("up_blocks.") for key in keys) else None


def parts_of(found: AdapterFiles) -> dict[Role, Part]:
    """The networks in some files, each told by its keys whatever the file's name."""
    parts: dict[Role, Part] = {}
    for file in found.files:
        prefix = f"{file.stem}/" if len(found.files) > 1 else ""
        own = {key.removeprefix(prefix): head for key, head in found.tensors.items() if key.startswith(prefix)}
        role = _role(own)
        if role is not None:
            parts[role] = Part(file=file, tensors=own)
    return parts


def heads_of(outline: AnimateDiffOutline, files: AdapterFiles) -> Heads:
    """The denoiser's heads, which its ControlNets have too: 8 of each, but where a configuration says another number.

    Of Stable Diffusion's denoiser ``attention_head_dim`` is the number; a folder of small networks may have a
    config.json with ``motion_num_attention_heads``.
    """
    folder = outline.folder / "unet" / "config.json"
    name = "num_attention_heads" if outline.unet.get("num_attention_heads") else "attention_head_dim"
    motion = {**outline.unet, **outline.adapter, **files.config}
    return Heads(
        within=number(outline.unet, name, folder, 8),
        over_time=number(motion, "motion_num_attention_heads", files.place / "config.json", 8),
    )


class ImageConductorKind:
    """Image Conductor (Li et al. 2024, arXiv 2406.15339): two ControlNets, and a denoiser in a third file."""

    kind: Final = "image-conductor"
    steered_by: Final = "image-conductor"
    needs: Final = "Stable Diffusion 1.5 (--backbone FOLDER), whose denoiser unet.ckpt beside the ControlNets replaces"
    published: Final[Mapping[str, tuple[str, str]]] = MappingProxyType({"image-conductor": (_HUB, "*.ckpt")})

    def recognises(self, found: AdapterFiles) -> bool:
        """True for files with a ControlNet over motion modules in AnimateDiff's naming, or such a denoiser."""
        return bool(parts_of(found))

    def faults(self, found: AdapterFiles) -> tuple[str, ...]:
        """Against the networks that each file's own shapes tell; both ControlNets are needed."""
        parts = parts_of(found)
        absent = [f"{_ROLES[role]} is missing" for role in ("image", "flow") if role not in parts]
        unknown = [f"{file.name} belongs to nothing" for file in found.files if file not in _files(parts)]
        wrong = [fault for role, part in parts.items() for fault in part.faults(_ROLES[role])]
        return (*absent, *unknown, *wrong)

    def count(self, found: AdapterFiles) -> int:
        """Both ControlNets with their low-rank weights; a denoiser stands in another's place."""
        parts = [part for role, part in parts_of(found).items() if role != "unet"]
        return sum(prod(head.shape) for part in parts for head in part.tensors.values())

    def outline(self, found: AdapterFiles, beside: Outline) -> Outline:
        """The AnimateDiff beside, with the files' own denoiser where there is one; steered by this, unless told.

        FieldError for a model of another kind or of another width.
        """
        parts = parts_of(found)
        if not isinstance(beside, AnimateDiffOutline):
            raise FieldError("backbone", f"{self.kind} joins AnimateDiff, not {beside.name}", f"it needs {self.needs}")
        if "unet" in parts:
            part = parts["unet"]
            beside = beside.with_released(part.file, part.config(heads_of(beside, found)))
        channels = list(beside.unet["block_out_channels"])
        for role in ("image", "flow"):
            if role in parts and (own := list(parts[role].config()["block_out_channels"])) != channels:
                raise FieldError(
                    "adapter", f"{_ROLES[role]} of {found.name} is made for a denoiser of {own} channels",
                    f"{beside.name} has {channels}",
                )  # fmt: skip
        return beside.with_settings(dataclasses.replace(beside.settings, default=self.kind))

    def load(self, found: AdapterFiles, outline: Outline) -> Adapter:
        """Both ControlNets; FieldError for a table of positions that the file holds twice and unlike."""
        from sgi2v.backbones.adapter_files import tensors_of
        from sgi2v.backbones.animatediff.adapters.image_conductor import ImageConductor

        assert isinstance(outline, AnimateDiffOutline), "its outline was made by this kind"
        parts = parts_of(found)
        image, flow = (tensors_of(parts[role].file) for role in ("image", "flow"))
        return ImageConductor(image, flow, name=found.name, sha256=found.sha256, heads=heads_of(outline, found))


def _files(parts: Mapping[Role, Part]) -> set[Path]:
    return {part.file for part in parts.values()}


IMAGE_CONDUCTOR: Final = ImageConductorKind()

"""Signals of trained systems that are more than one tensor: what a method makes, and its weights are given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import PIL.Image
from jaxtyping import Float, Integer, UInt8

from sgi2v.lazy import torch

ContextOrder = Literal["fixed", "release"]
"""Order of the image's tokens in the temporal cross-attention of two branches in one batch: each branch its own, or
as diffusers had it until 2024, where every second place of either branch is given the other's."""


@dataclass(kw_only=True, eq=False)
class Entities:
    """Things in a clip, painted: for DragAnything. Made for one run."""

    heat: UInt8[torch.Tensor, "f h w"]
    """A bright spot at each thing's place, 0..255."""
    labels: Integer[torch.Tensor, "f h w"]
    """The thing at each pixel, counted from 1; 0 for none."""
    table: Float[torch.Tensor, "e d"]
    """Look of each label; zeros for 0."""
    context_order: ContextOrder = "fixed"
    embedded: Float[torch.Tensor, "f c y x"] | None = None
    """The weights' own reading of all this, kept by them once they have made it."""

    @property
    def paired(self) -> bool:
        """True where both branches of guidance must share a pass, whatever that costs."""
        return self.context_order == "release"


@dataclass(kw_only=True, eq=False)
class Look:
    """A picture to be looked at by a network for features, which puts down here what it sees."""

    image: PIL.Image.Image
    generator: torch.Generator
    """Source of the noise it is looked at through."""
    seen: Float[torch.Tensor, "d v u"] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Conducted:
    """A picture and the motion in it: for Image Conductor."""

    kind: Literal["object", "camera"]
    """Of the motion, which chooses the low-rank weights."""
    flow: Float[torch.Tensor, "f 2 h w"]
    """Blurred displacements (dx, dy) since the frame before, in pixels; zero in the first frame."""
    picture: Float[torch.Tensor, "c y x"]
    """Scaled latents of the picture."""

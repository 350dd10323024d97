"""A model of Stable Diffusion 1.5's kind as the network that says how DragAnything's things look."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from sgi2v.backbones.adapter_files import AdapterFiles
from sgi2v.backbones.base import Outline

if TYPE_CHECKING:
    from sgi2v.backbones.adapters import Adapter

_PARTS: Final = ("unet", "vae", "text_encoder")


class EntityFeaturesKind:
    """Features of Stable Diffusion 1.5 (DIFT, arXiv 2306.03881) by which DragAnything tells things apart."""

    kind: Final = "entity-features"
    steered_by: Final = "drag-anything"
    needs: Final = "the weights of drag-anything, beside which it is given"
    published: Final[Mapping[str, tuple[str, str]]] = MappingProxyType({})

    def recognises(self, found: AdapterFiles) -> bool:
        """True for a folder in diffusers' layout of Stable Diffusion's pipeline."""
        return found.config.get("_class_name") == "StableDiffusionPipeline"

    def faults(self, found: AdapterFiles) -> tuple[str, ...]:
        """Parts that are missing; their keys are held against their configurations when they are loaded."""
        present = {key.partition("/")[0] for key in found.tensors}
        return tuple(f"{part} has no weights" for part in _PARTS if part not in present)

    def count(self, found: AdapterFiles) -> int:
        """Of the denoiser and the autoencoder."""
        return found.count_of("unet/", "vae/")

    def outline(self, found: AdapterFiles, beside: Outline) -> Outline:
        """The model as it is: nothing of it is changed."""
        return beside

    def load(self, found: AdapterFiles, outline: Outline) -> Adapter:
        """The networks, without the autoencoder's decoder and the text encoder."""
        from sgi2v.backbones.svd.adapters.entity_features import EntityFeatures

        return EntityFeatures.load(found.place, name=found.name, sha256=found.sha256)


ENTITY_FEATURES: Final = EntityFeaturesKind()

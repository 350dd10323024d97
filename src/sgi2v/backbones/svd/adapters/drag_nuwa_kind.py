"""DragNUWA as a kind of trained system: its file recognised and checked, the model in it opened."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from sgi2v.backbones.adapter_files import AdapterFiles, shape_faults
from sgi2v.backbones.base import Outline
from sgi2v.backbones.svd.adapters.drag_nuwa_names import UNET
from sgi2v.errors import FieldError

if TYPE_CHECKING:
    from sgi2v.backbones.adapters import Adapter

_HUB: Final = "benjamin-paine/dragnuwa-pruned-safetensors"
_PUBLISHED: Final = MappingProxyType(
    {
        "drag-nuwa": (_HUB, "dragnuwa-svd-pruned.safetensors"),
        "drag-nuwa-fp16": (_HUB, "dragnuwa-svd-pruned.fp16.safetensors"),
    }
)


class DragNUWAKind:
    """DragNUWA 1.5 (Yin et al. 2023, arXiv 2308.08089): additions to a Stable Video Diffusion that its file brings."""

    kind: Final = "drag-nuwa"
    steered_by: Final = "drag-nuwa"
    needs: Final = "no other model: its file brings a Stable Video Diffusion of its own (leave --backbone out)"
    published: Final[Mapping[str, tuple[str, str]]] = _PUBLISHED

    def recognises(self, found: AdapterFiles) -> bool:
        """True for files with the flow's pyramid in Stability AI's naming."""
        return any(key.startswith(f"{UNET}flow_blocks.") for key in found.tensors)

    def faults(self, found: AdapterFiles) -> tuple[str, ...]:
        """Against the networks that the file's own shapes tell."""
        from sgi2v.backbones.svd.adapters.drag_nuwa_shapes import OPTIONAL, expected

        try:
            wanted = expected(found)
        except FieldError as error:  # a key is missing by which the sizes would be known
            return (error.problem,)
        return shape_faults(found.tensors, wanted, OPTIONAL)

    def count(self, found: AdapterFiles) -> int:
        """The flow's layers and the low-rank additions; the rest of the file is the model."""
        return found.count_of("flow_", ".lora_")

    def outline(self, found: AdapterFiles, beside: Outline) -> Outline:
        """The file's own model; FieldError where another was named."""
        from sgi2v.backbones.svd.adapters.drag_nuwa_model import DragNUWAOutline

        if beside.name != "bundled":
            raise FieldError("backbone", f"{found.place} brings a model of its own", "leave --backbone out")
        return DragNUWAOutline.in_file(found)

    def load(self, found: AdapterFiles, outline: Outline) -> Adapter:
        """Its additions; FieldError where the file's blur is not the published one."""
        from sgi2v.backbones.svd.adapters.drag_nuwa_model import load_additions

        return load_additions(found)


DRAG_NUWA: Final = DragNUWAKind()

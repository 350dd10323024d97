"""DragNUWA as a kind of trained system: its file recognised and checked, the model in it opened."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from sgi2v.backbones.adapter_files import AdapterFiles
from sgi2v.backbones.base import Outline
from sgi2v.backbones.svd.adapters.drag_nuwa_names import UNET
from sgi2v.errors import FieldError
from sgi2v.lazy import torch

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
    needs: Final = (
        "no other model where its file brings a Stable Video Diffusion of its own (leave --backbone out), else the one "
        "that it was converted beside"
    )
    published: Final[Mapping[str, tuple[str, str]]] = _PUBLISHED

    def recognises(self, found: AdapterFiles) -> bool:
        """True for files with the flow's pyramid in Stability AI's naming."""
        return any(key.startswith(f"{UNET}flow_blocks.") for key in found.tensors)

    def faults(self, found: AdapterFiles) -> tuple[str, ...]:
        """Against the networks that the file's own shapes tell."""
        from sgi2v.backbones.svd.adapters.drag_nuwa_shapes import faults_of

        try:
            return faults_of(found)
        except FieldError as error:  # a key is missing by which the sizes would be known
            return (error.problem,)

    def count(self, found: AdapterFiles) -> int:
        """The flow's layers and the low-rank additions; the rest of the file is the model."""
        return found.count_of("flow_", ".lora_")

    def outline(self, found: AdapterFiles, beside: Outline) -> Outline:
        """The file's own model, or for additions alone the one beside; FieldError where these do not go together."""
        from sgi2v.backbones.svd.adapters.drag_nuwa_model import DragNUWABeside, DragNUWAOutline
        from sgi2v.backbones.svd.adapters.drag_nuwa_shapes import brings_model

        if not brings_model(found):
            return DragNUWABeside.joining(found, beside)
        if beside.name != "bundled":
            raise FieldError("backbone", f"{found.place} brings a model of its own", "leave --backbone out")
        return DragNUWAOutline.in_file(found)

    def beside(self, found: AdapterFiles, folder: Path) -> dict[str, torch.Tensor]:
        """The tensors of a whole file that a Stable Video Diffusion's folder has not; FieldError where it is none."""
        from sgi2v.backbones.svd.adapters.drag_nuwa_model import changes_beside

        if not self.recognises(found):
            raise FieldError("beside", f"{found.place} is no drag-nuwa, which alone brings a model", "leave it out")
        return changes_beside(found, folder)

    def load(self, found: AdapterFiles, outline: Outline) -> Adapter:
        """Its additions; FieldError where the file's blur is not the published one."""
        from sgi2v.backbones.svd.adapters.drag_nuwa_model import load_additions

        return load_additions(found)


DRAG_NUWA: Final = DragNUWAKind()

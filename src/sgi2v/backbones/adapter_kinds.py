"""Kinds of trained systems: how their files are recognised, held against what they must be, and loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from sgi2v.backbones.adapter_files import SAFE, AdapterFiles
from sgi2v.backbones.animatediff.adapters.image_conductor_kind import IMAGE_CONDUCTOR
from sgi2v.backbones.base import Outline
from sgi2v.backbones.folder import fetch
from sgi2v.backbones.svd.adapters.drag_anything_kind import DRAG_ANYTHING
from sgi2v.backbones.svd.adapters.drag_nuwa_kind import DRAG_NUWA
from sgi2v.backbones.svd.adapters.entity_features_kind import ENTITY_FEATURES
from sgi2v.backbones.weights import PICKLES
from sgi2v.errors import FieldError
from sgi2v.lazy import torch

if TYPE_CHECKING:
    from sgi2v.backbones.adapters import Adapter


@runtime_checkable
class AdapterKind(Protocol):
    """A kind of trained system. A new one is an entry of :data:`KINDS`, and a controller of the same name."""

    @property
    def kind(self) -> str:
        """Its name, and the name under which a controller asks for it (``Uses.adapters``)."""

    @property
    def steered_by(self) -> str:
        """Name of the controller that steers it."""

    @property
    def needs(self) -> str:
        """Backbone that it joins, in words."""

    @property
    def published(self) -> Mapping[str, tuple[str, str]]:
        """Short name of published weights -> hub id and file (a pattern) there."""

    def recognises(self, found: AdapterFiles) -> bool:
        """True for files whose keys are this kind's, whole or not; never raises."""

    def faults(self, found: AdapterFiles) -> tuple[str, ...]:
        """Keys that are absent, unknown or of a wrong shape, a sentence each; none for whole weights."""

    def count(self, found: AdapterFiles) -> int:
        """Numbers in the weights that take part beside the model's own, for what memory a run needs."""

    def outline(self, found: AdapterFiles, beside: Outline) -> Outline:
        """The model that it joins: the one ``beside``, under the settings it was trained for, or one of its own.

        Raises FieldError for a model that it does not fit.
        """

    def load(self, found: AdapterFiles, outline: Outline) -> Adapter:
        """The adapter with its weights, in float32, for the outline's model."""


KINDS: Final[tuple[AdapterKind, ...]] = (DRAG_NUWA, DRAG_ANYTHING, ENTITY_FEATURES, IMAGE_CONDUCTOR)


def kind_named(name: str) -> AdapterKind:
    """The kind of that name."""
    return next(kind for kind in KINDS if kind.kind == name)


@dataclass(frozen=True, kw_only=True)
class FoundAdapter:
    """An adapter before its weights are read: what kind of system its files are of."""

    kind: str
    files: AdapterFiles

    @property
    def name(self) -> str:
        """Its name in a record."""
        return self.files.name

    @property
    def count(self) -> int:
        """Numbers in its weights beside the model's own."""
        return kind_named(self.kind).count(self.files)

    def load(self, outline: Outline) -> Adapter:
        """With its weights, for a model; FieldError where these are not whole."""
        kind = kind_named(self.kind)
        faults = kind.faults(self.files)
        if faults:
            more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
            raise FieldError(
                "adapter",
                f"{self.files.place} is no whole {self.kind}: {faults[0]}{more}",
                "sgi2v adapter check lists all; fetch it again",
            )
        return kind.load(self.files, outline)


def find_adapter(source: str | Path) -> FoundAdapter:
    """The adapter of a file, a folder, a published name or a hub id, its headers read; of a hub it is fetched.

    Raises FieldError for a source that is none of these, a damaged file, and keys of no known kind.
    """
    files = AdapterFiles.read(*_place_of(str(source)))
    kind = next((kind for kind in KINDS if kind.recognises(files)), None)
    if kind is None:
        raise FieldError(
            "adapter",
            f"{files.place} is of no known kind (its first key is {next(iter(files.tensors), None)!r})",
            f"known are {', '.join(kind.kind for kind in KINDS)}; a LoRA of a video transformer goes to --lora",
        )
    return FoundAdapter(kind=kind.kind, files=files)


def _place_of(source: str) -> tuple[Path, str]:
    """Place on this machine and name in a record."""
    if Path(source).exists():
        return Path(source), ""
    published = {name: where for kind in KINDS for name, where in kind.published.items()}
    hub_id, pattern = published.get(source, (source, ""))
    if hub_id.count("/") != 1 or hub_id.startswith((".", "/", "~")) or Path(hub_id).suffix in (SAFE, *PICKLES):
        raise FieldError(
            "adapter",
            f"{source!r} is no file, folder or name",
            f"give one, a hub id, or one of {', '.join(published)}",
        )
    if pattern:
        folder = fetch(hub_id, [pattern, "config.json"])
        return next((file for file in (folder / pattern,) if file.is_file()), folder), source
    folder = fetch(hub_id, ["config.json", "*.safetensors"])
    if not [*folder.glob("*.safetensors")]:
        folder = fetch(hub_id, ["config.json", *(f"*{suffix}" for suffix in PICKLES)])
    return folder, source


def outline_with(outline: Outline, sources: Sequence[str | Path]) -> Outline:
    """The model that some adapters join, with them: they are loaded when it is.

    Raises FieldError for a model that takes none or that one does not fit.
    """
    found = tuple(find_adapter(source) for source in sources)
    for one in found:
        outline = kind_named(one.kind).outline(one.files, outline)
    if not found:
        return outline
    takes = getattr(outline, "with_adapters", None)
    if takes is None:
        needs = kind_named(found[0].kind).needs
        raise FieldError("adapter", f"{outline.name} takes no trained system", f"{found[0].kind} needs {needs}")
    made: Outline = takes(found)
    return made


def convert(found: AdapterFiles, output: Path, beside: Path | None = None) -> Path:
    """Writes the tensors of a pickle (``weights_only``) or of any adapter as one safetensors file, number for number.

    ``beside`` is a model's folder: of a drag-nuwa that brings a model only what is not in that folder is written.
    Raises FieldError for a name that is no safetensors file's, and for several files.
    """
    from safetensors.torch import save_file

    from sgi2v.writing import check_place, writing

    if output.suffix != SAFE:
        raise FieldError("output", f"{str(output)!r} is no name of a safetensors file", f"end it in {SAFE}")
    if len(found.files) != 1:
        raise FieldError("adapter", f"{found.place} holds {len(found.files)} files", "convert them one by one")
    check_place(output)
    kept = found.load() if beside is None else DRAG_NUWA.beside(found, beside)
    tensors = {key: tensor.contiguous().clone() for key, tensor in kept.items()}
    with writing(output) as temporary:
        save_file(tensors, temporary)
    return output


def loaded_adapters(outline: Outline) -> tuple[Adapter, ...]:
    """The adapters of an outline with their weights."""
    found: tuple[FoundAdapter, ...] = getattr(outline, "adapters", ())
    with torch.no_grad():
        return tuple(one.load(outline) for one in found)

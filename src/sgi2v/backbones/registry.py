"""Kinds of models, told apart by what a folder's configurations say; our own and those that a package brings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from sgi2v.backbones.animatediff.kind import ANIMATEDIFF_KIND
from sgi2v.backbones.base import Memory, Outline, Outlined, Settings
from sgi2v.backbones.cogvideox.kind import COGVIDEOX_KIND
from sgi2v.backbones.folder import CONFIGS, bundled_folder, check_no_single_file, fetch
from sgi2v.backbones.ltx.kind import LTX_KIND
from sgi2v.backbones.svd.kind import SVD_KIND
from sgi2v.backbones.wan.kind import WAN_KIND
from sgi2v.errors import FieldError
from sgi2v.plugins import brought

if TYPE_CHECKING:
    import torch

    from sgi2v.backbones.base import Backbone

GROUP: Final = "sgi2v.backbones"
"""Entry points by which a package brings kinds of models."""
BUNDLED: Final = "bundled"


@runtime_checkable
class Kind(Protocol):
    """A kind of model: how its folders are recognised and what is known of it without reading weights."""

    @property
    def kind(self) -> str:
        """Its name."""

    @property
    def names(self) -> Mapping[str, str]:
        """Short names of published models, with their hub ids."""

    def recognises(self, folder: Path) -> bool:
        """True where a folder's configurations are those of this kind; never raises."""

    def outline(self, folder: Path, *, name: str, hub_id: str | None = None, settings: Any = None) -> Outline:
        """The model in a folder. With a ``hub_id`` only configurations are there, and weights are fetched to load."""

    def settings(self, source: str) -> Settings:
        """The published settings of a name or hub id of this kind, nothing fetched."""


def kinds() -> tuple[Kind, ...]:
    """Our own kinds, then those of installed packages in the order of their names."""
    return (SVD_KIND, WAN_KIND, LTX_KIND, COGVIDEOX_KIND, ANIMATEDIFF_KIND, *(kind for _, kind in brought(GROUP)))


def names() -> Mapping[str, str]:
    """Short names of published models of every kind, with their hub ids."""
    return {name: hub_id for kind in kinds() for name, hub_id in kind.names.items()}


def is_public(name: str) -> bool:
    """True for a name that says nothing of this machine and may stand for a model anywhere."""
    known = names()
    return name == BUNDLED or name in known or name in known.values()


def outline_of(source: str | Path = BUNDLED, *, settings: Any = None) -> Outline:
    """A model by name, folder or hub id, as its configuration tells it; of a hub's model only that is fetched.

    Raises FieldError for a source that is none, and for a folder that is incomplete, damaged, or of no known kind.
    """
    source = str(source)
    if source == BUNDLED:
        return SVD_KIND.outline(bundled_folder(), name=source, settings=settings)
    check_no_single_file(Path(source))
    hub_id = None if Path(source).is_dir() else _hub_id(source)
    folder = Path(source) if hub_id is None else fetch(hub_id, CONFIGS)
    return _kind_of(folder, source).outline(folder, name=source, hub_id=hub_id, settings=settings)


def settings_of(source: str | Path = BUNDLED) -> Any:
    """The settings a model recommends, nothing fetched: of a hub id that is not known here SVD's published ones."""
    source = str(source)
    if source == BUNDLED or Path(source).is_dir():
        return outline_of(source).settings
    named = (kind for kind in kinds() if source in kind.names or source in kind.names.values())
    return next(named, SVD_KIND).settings(source)


def load_backbone(
    source: str | Path = BUNDLED,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    settings: Any = None,
    memory: Memory = "auto",
    compiled: bool = False,
) -> Backbone:
    """A model by name (``bundled``, ``svd``, ``svd-xt``, or one that a package brings), folder or hub id.

    ``device`` and ``dtype`` default to what the machine is good at. ``settings`` defaults to what the folder
    recommends. ``memory`` is fast, balanced or low, or auto: the first that fits clips of the settings' size, low if
    none does (:mod:`sgi2v.backbones.memory`). ``compiled`` has torch compile blocks as they first run, which takes
    minutes, where the model can. Weights are read as safetensors only.

    Raises FieldError, before loading, for a folder that is incomplete, damaged, pickled, or of no known kind.
    """
    return loaded(outline_of(source, settings=settings), device=device, dtype=dtype, memory=memory, compiled=compiled)


def loaded(
    outline: Outline,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    memory: Memory = "auto",
    compiled: bool = False,
) -> Backbone:
    """The model of an outline with its weights; arguments and errors as for :func:`load_backbone`."""
    from sgi2v.backbones.memory import plan_memory
    from sgi2v.backbones.quiet import quiet_libraries
    from sgi2v.device import choose_device

    place = choose_device(device)
    number = outline.choose_dtype(dtype, place)
    size = outline.settings
    grid = outline.grid(size.width, size.height, size.num_frames)
    mode = plan_memory(memory, outline, grid, place, number, must_fit=False).mode
    with quiet_libraries():
        backbone = outline.load(device=place, dtype=number, memory=mode, compiled=compiled)
        if getattr(outline, "adapters", ()):
            from sgi2v.backbones.adapter_kinds import loaded_adapters

            assert isinstance(backbone, Outlined), "an outline that takes adapters makes one that holds them"
            backbone.adapters = loaded_adapters(outline)
    return backbone


def _hub_id(source: str) -> str:
    hub_id = names().get(source, source)
    if hub_id.count("/") != 1 or hub_id.startswith((".", "/", "~")):
        raise FieldError(
            "backbone",
            f"{source!r} is no folder and no name",
            f"use {BUNDLED}, {', '.join(names())}, a folder or a hub id",
        )
    return hub_id


def _kind_of(folder: Path, source: str) -> Kind:
    known = kinds()
    found = next((kind for kind in known if kind.recognises(folder)), None)
    if found is not None:
        return found
    if not [*folder.glob("*.json"), *folder.glob("*/config.json")]:
        raise FieldError(
            "backbone",
            f"{folder} is incomplete: model_index.json is missing",
            "fetch or export the model again",
        )
    raise FieldError(
        "backbone",
        f"{source!r} is a model of no known kind",
        f"known are {', '.join(kind.kind for kind in known)}, and those of packages, once installed",
    )

"""Models behind one contract: a name, folder or hub id in, a backbone out."""

from pathlib import Path

import torch

from sgi2v.backbones.base import Backbone, Level, Settings, settings_with_recipe
from sgi2v.backbones.memory import Memory
from sgi2v.backbones.svd import SVD
from sgi2v.backbones.svd_outline import SVDOutline, SVDSettings, settings_of

__all__ = [
    "SVD",
    "Backbone",
    "Level",
    "SVDOutline",
    "SVDSettings",
    "Settings",
    "load_backbone",
    "outline_of",
    "settings_of",
    "settings_with_recipe",
]


def load_backbone(
    source: str | Path = "bundled",
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    settings: SVDSettings | None = None,
    memory: Memory = "auto",
    compiled: bool = False,
) -> SVD:
    """A backbone by name (``bundled``, ``svd``, ``svd-xt``), folder or hub id; see :meth:`SVD.load`."""
    return SVD.load(source, device=device, dtype=dtype, settings=settings, memory=memory, compiled=compiled)


def outline_of(
    source: str | Path = "bundled",
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
) -> SVDOutline:
    """What can be known of a backbone without loading it (a hub's model is fetched); see :meth:`SVD.outline`."""
    return SVD.outline(source, device=device, dtype=dtype)

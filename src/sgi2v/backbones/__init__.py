"""Models behind one contract: a name, folder or hub id in, an outline or a backbone out."""

from sgi2v.backbones.base import (
    CLEAN,
    MODES,
    Backbone,
    Memory,
    Mode,
    Outline,
    Settings,
    Text,
    settings_with_recipe,
)
from sgi2v.backbones.registry import BUNDLED, load_backbone, outline_of, settings_of

__all__ = [
    "BUNDLED",
    "CLEAN",
    "MODES",
    "Backbone",
    "Memory",
    "Mode",
    "Outline",
    "Settings",
    "Text",
    "load_backbone",
    "outline_of",
    "settings_of",
    "settings_with_recipe",
]

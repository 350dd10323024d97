"""An image, boxes and paths in; a video whose contents follow them out."""

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sgi2v.backbones import load_backbone
    from sgi2v.backbones.svd.model import SVD
    from sgi2v.backbones.svd.outline import SVDSettings
    from sgi2v.controllers import SGI2V, Controller, DragDiffusion, FreeTraj, InTurn, TimeToMove, recommended
    from sgi2v.draw import preview
    from sgi2v.errors import FieldError
    from sgi2v.pipeline import Progress, generate, plan, replay
    from sgi2v.planning import Range, Sampling
    from sgi2v.run import Run
    from sgi2v.scene import Box, Key, Motion, Scene
    from sgi2v.scene_io import load_image, load_scene, save_scene
    from sgi2v.step import Cancelled
    from sgi2v.video import Video, load_video

__all__ = [
    "SGI2V",
    "SVD",
    "Box",
    "Cancelled",
    "Controller",
    "DragDiffusion",
    "FieldError",
    "FreeTraj",
    "InTurn",
    "Key",
    "Motion",
    "Progress",
    "Range",
    "Run",
    "SVDSettings",
    "Sampling",
    "Scene",
    "TimeToMove",
    "Video",
    "generate",
    "load_backbone",
    "load_image",
    "load_scene",
    "load_video",
    "plan",
    "preview",
    "recommended",
    "replay",
    "save_scene",
]

_ROOMS = MappingProxyType(
    {
        "backbones": ("load_backbone",),
        "backbones.svd.model": ("SVD",),
        "backbones.svd.outline": ("SVDSettings",),
        "controllers": (
            "SGI2V",
            "Controller",
            "DragDiffusion",
            "FreeTraj",
            "InTurn",
            "TimeToMove",
            "recommended",
        ),
        "draw": ("preview",),
        "errors": ("FieldError",),
        "pipeline": ("Progress", "generate", "plan", "replay"),
        "planning": ("Range", "Sampling"),
        "run": ("Run",),
        "scene": ("Box", "Key", "Motion", "Scene"),
        "scene_io": ("load_image", "load_scene", "save_scene"),
        "step": ("Cancelled",),
        "video": ("Video", "load_video"),
    }
)


def __getattr__(name: str) -> object:
    """A public name, its room imported when it is first asked for: reading a scene costs no torch."""
    for room, names in _ROOMS.items():
        if name in names:
            return getattr(import_module(f"sgi2v.{room}"), name)
    raise AttributeError(f"module 'sgi2v' has no attribute {name!r}")

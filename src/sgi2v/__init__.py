"""An image, boxes and paths in; a video whose contents follow them out."""

import sys
from importlib import import_module
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sgi2v.backbones import SVD, SVDSettings, load_backbone
    from sgi2v.controllers import SGI2V, Controller, DragDiffusion, FreeTraj, InTurn, TimeToMove, recommended
    from sgi2v.draw import preview
    from sgi2v.generate import Progress, Sampling, generate, replay
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
    "FreeTraj",
    "InTurn",
    "Key",
    "Motion",
    "Progress",
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
    "preview",
    "recommended",
    "replay",
    "save_scene",
]

_ROOMS = MappingProxyType(
    {
        "backbones": ("SVD", "SVDSettings", "load_backbone"),
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
        "generate": ("Progress", "Sampling", "generate", "replay"),
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


class _Package(ModuleType):
    """Keeps `sgi2v.generate` the function: importing the room of that name would put the room in its place."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (isinstance(value, ModuleType) and name in __all__):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

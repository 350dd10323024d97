"""An image, boxes and paths in; a video whose contents follow them out."""

from sgi2v.backbones import SVD, SVDSettings, load_backbone
from sgi2v.controllers import SGI2V, Controller
from sgi2v.generate import Progress, Sampling, generate, replay
from sgi2v.run import Run
from sgi2v.scene import Box, Key, Motion, Scene
from sgi2v.scene_io import load_scene, save_scene
from sgi2v.step import Cancelled
from sgi2v.video import Video, load_video

__all__ = [
    "SGI2V",
    "SVD",
    "Box",
    "Cancelled",
    "Controller",
    "Key",
    "Motion",
    "Progress",
    "Run",
    "SVDSettings",
    "Sampling",
    "Scene",
    "Video",
    "generate",
    "load_backbone",
    "load_scene",
    "load_video",
    "replay",
    "save_scene",
]

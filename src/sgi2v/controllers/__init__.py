"""Ways of steering: one interface, one file each, and the registry that knows them by name."""

from sgi2v.controllers.ati import ATI
from sgi2v.controllers.base import Controller, Setup, State
from sgi2v.controllers.drag_anything import DragAnything
from sgi2v.controllers.drag_diffusion import DragDiffusion
from sgi2v.controllers.drag_nuwa import DragNUWA
from sgi2v.controllers.freetraj import FreeTraj
from sgi2v.controllers.image_conductor import ImageConductor
from sgi2v.controllers.in_turn import InTurn
from sgi2v.controllers.registry import (
    COMBINATIONS,
    controller_class,
    controller_from_dict,
    controller_name,
    controller_to_dict,
    controllers,
    default_controller,
    recommended,
)
from sgi2v.controllers.sg_i2v import SGI2V
from sgi2v.controllers.time_to_move import TimeToMove
from sgi2v.controllers.wan_move import WanMove

__all__ = [
    "ATI",
    "COMBINATIONS",
    "SGI2V",
    "Controller",
    "DragAnything",
    "DragDiffusion",
    "DragNUWA",
    "FreeTraj",
    "ImageConductor",
    "InTurn",
    "Setup",
    "State",
    "TimeToMove",
    "WanMove",
    "controller_class",
    "controller_from_dict",
    "controller_name",
    "controller_to_dict",
    "controllers",
    "default_controller",
    "recommended",
]

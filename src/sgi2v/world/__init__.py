"""The rendered world: clips of things that move on known paths, with exact boxes, masks and correspondences."""

from sgi2v.world.clips import Clip, Clips, Kind
from sgi2v.world.layers import Correspondence, Layers
from sgi2v.world.lifelike import LifelikeWorld
from sgi2v.world.plain import World

__all__ = ["Clip", "Clips", "Correspondence", "Kind", "Layers", "LifelikeWorld", "World"]

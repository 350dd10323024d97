"""What a method is given for a run, set up by hand as the pipeline does it, for tests of a method's parts."""

import torch

from sgi2v.backbones.base import Backbone, Text
from sgi2v.controllers import Setup
from sgi2v.grid import Grid, Tracks


def setup_for(backbone: Backbone, tracks: Tracks, grid: Grid, *, num_steps: int, seed: int = 0) -> Setup:
    """The run's setup on a scene at the grid's size; its generator has drawn the condition's noise alone.."""
    generator = torch.Generator().manual_seed(seed)
    condition = backbone.encode(tracks.image, Text(), grid, generator)
    return Setup(
        backbone=backbone,
        condition=condition,
        tracks=tracks,
        grid=grid,
        levels=backbone.levels(num_steps, grid),
        generator=generator,
    )

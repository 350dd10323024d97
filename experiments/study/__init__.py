"""Common parts of the studies: options, running, findings, and how these are shown and committed."""

from experiments.study.options import PUBLISHED, Options, StudiedModel, Study, base_of, grid_of, guided_steps
from experiments.study.running import Measured, Share, comparable, main

__all__ = [
    "PUBLISHED",
    "Measured",
    "Options",
    "Share",
    "StudiedModel",
    "Study",
    "base_of",
    "comparable",
    "grid_of",
    "guided_steps",
    "main",
]

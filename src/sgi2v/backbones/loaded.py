"""The part of a loaded backbone that its networks and their arrangement answer, alike for every kind of model."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool

from sgi2v.backbones.arrangement import Arrangement
from sgi2v.backbones.base import Mode, Outlined
from sgi2v.grid import Grid


class Loaded(Outlined):
    """Device, memory mode and hash of networks that are there, for backbones to build on."""

    _networks: Any
    """The networks with their device, their arrangement and, once asked for, the hash of their files."""

    @property
    def _arranged(self) -> Arrangement:
        arrangement: Arrangement = self._networks.arranged
        return arrangement

    @property
    def memory(self) -> Mode:
        """Mode of memory it is in; see :mod:`sgi2v.backbones.memory`."""
        return self._arranged.mode

    @property
    def device(self) -> torch.device:
        """Device on which the networks compute."""
        device: torch.device = self._networks.device
        return device

    @property
    def weights_sha256(self) -> str:
        """SHA-256 over the weight files, worked out once."""
        if self._networks.sha256 is None:
            self._networks.sha256 = self.outline.hash_weights()
        return str(self._networks.sha256)

    def free(self, grid: Grid) -> Bool[torch.Tensor, " n"]:
        """Every latent frame is a variable."""
        return torch.ones(grid.latent_frames, dtype=torch.bool)

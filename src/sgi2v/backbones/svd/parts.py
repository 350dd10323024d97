"""Parts of a loaded Stable Video Diffusion: its networks with their state, and what it is conditioned on."""

from dataclasses import dataclass

import torch
from diffusers import StableVideoDiffusionPipeline
from jaxtyping import Float
from torch import Tensor

from sgi2v.backbones.arrangement import Arrangement


@dataclass(frozen=True, kw_only=True)
class SVDCondition:
    """Inputs of the network beside the noisy latents; encoded once a run."""

    image_latents: Float[Tensor, "c y x"]
    """The conditioning picture's latents: the posterior's mode, not scaled."""
    embedding: Float[Tensor, "1 1 d"]
    """The image encoder's token."""
    time_ids: Float[Tensor, "1 3"]
    """fps - 1, motion bucket, noise augmentation."""
    guidance: Float[Tensor, "f 1 1 1"]
    """Guidance scale per frame, float32."""
    guided: bool
    """True where any frame's scale asks for the unconditional branch."""
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """Noise levels at which there is guidance, lowest and highest."""


@dataclass(kw_only=True, eq=False)
class Networks:
    """Loaded networks and what is the matter with them just now; shared by all settings they run under."""

    pipeline: StableVideoDiffusionPipeline
    device: torch.device
    arranged: Arrangement
    num_edits: int = 0
    """Edits of attention that are open."""
    num_paired: int = 0
    """Adapters that are open and want both branches of guidance in one pass."""
    branches: tuple[bool, ...] = (True,)
    """Branches of guidance in the pass that is running: True is conditional."""
    deep: dict[str, Tensor] | None = None
    """Output of the deep blocks, by the last one's name, while it is reused; empty until it is known."""
    sha256: str | None = None
    """Of the weight files, once it has been asked for."""

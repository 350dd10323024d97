"""Features of clips for small benchmarks: a little network of our own, trained apart from every generator.

Its distances are no FID and no FVD, and must not be called so: its name is `sgi2v-clip-64`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sgi2v.evaluation.weights import load_strictly, read_weights

NAME: Final = "sgi2v-clip-64"
"""The name of the features; a newly trained network of other habits gets another one."""
SIDE: Final = 64
"""Height and width in pixels at which the network sees every frame."""
NUM_FRAMES: Final = 8
"""Frames that the network sees of every clip."""
NUM_FEATURES: Final = 64
_CHANNELS: Final = (24, 48, 96, 128)
_FILE: Final = Path(__file__).parents[1] / "assets" / "clip_features" / "model.safetensors"


def seen(frames: Float[Tensor, "*b f 3 h w"]) -> Float[Tensor, "*b 8 3 64 64"]:
    """The network's view of a clip: 8 frames equally spaced in time (the nearest ones), 64x64 pixels.

    Frames are resized bilinearly, antialiased, without keeping their shape; of a shorter clip frames are repeated.
    """
    num_frames = frames.shape[-4]
    chosen = torch.linspace(0, num_frames - 1, NUM_FRAMES, device=frames.device).round().long()
    picked = frames.index_select(frames.ndim - 4, chosen)
    if picked.shape[-2:] == (SIDE, SIDE):
        return picked
    flat = picked.flatten(0, -4)
    small = functional.interpolate(flat, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
    resized: Tensor = small.clamp(0, 1).unflatten(0, picked.shape[:-3])
    return resized


class _Over(nn.Module):
    """A convolution over three frames at every place, added to what it was given."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.conv = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0))

    def forward(self, x: Float[Tensor, "bf c h w"]) -> Float[Tensor, "bf c h w"]:
        """Mix the frames of each clip of 8."""
        clips = x.unflatten(0, (-1, NUM_FRAMES)).transpose(1, 2).flatten(3)
        mixed = self.conv(functional.silu(self.norm(clips))).unflatten(3, x.shape[2:])
        added: Tensor = x + mixed.transpose(1, 2).flatten(0, 1)
        return added


class ClipNetwork(nn.Module):
    """Convolutions over space and, apart from them, over time; 64 features a clip from all its levels."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        given = 6
        for channels in _CHANNELS:
            self.levels.append(
                nn.Sequential(
                    nn.Conv2d(given, channels, 3, stride=2, padding=1),
                    nn.GroupNorm(8, channels) if given > 6 else nn.Identity(),
                    nn.SiLU(),
                    _Over(channels) if given > 6 else nn.Identity(),
                )
            )
            given = channels
        self.mix = nn.Sequential(nn.Linear(3 * sum(_CHANNELS), 192), nn.SiLU())
        self.out = nn.Linear(192, NUM_FEATURES)

    def forward(self, clips: Float[Tensor, "b 8 3 64 64"]) -> Float[Tensor, "b 64"]:
        """Features of clips of RGB in 0..1, as `seen` gives them."""
        pixels = 2 * clips - 1
        change = torch.cat([torch.zeros_like(pixels[:, :1]), pixels[:, 1:] - pixels[:, :-1]], 1)
        x = torch.cat([pixels, 4 * change], 2).flatten(0, 1)
        pooled = []
        for level in self.levels:
            x = level(x)
            places = x.unflatten(0, (-1, NUM_FRAMES)).float()
            means = places.mean((3, 4))
            # What is there, how unequal it is over a frame, and how it changes over time.
            unequal = (places.var((3, 4)) + 1e-4).sqrt().mean(1)
            restless = (means.var(1) + 1e-4).sqrt()
            pooled += [means.mean(1), unequal, restless]
        mixed = self.mix(torch.cat(pooled, 1).to(x.dtype))
        features: Tensor = self.out(mixed)
        return features


@dataclass(frozen=True, kw_only=True)
class ClipFeatures:
    """Features of whole clips from the bundled network."""

    network: ClipNetwork
    sha256: str
    """SHA-256 of the weights' file."""
    name: str = NAME
    unit: Literal["frame", "clip"] = "clip"
    resize: str = "64x64, bilinear, antialiased; 8 frames, nearest in time"

    @torch.no_grad()
    def features(self, frames: Float[Tensor, "f 3 h w"]) -> Float[Tensor, "1 64"]:
        """Features of a clip of any size and length, RGB in 0..1."""
        device = next(self.network.parameters()).device
        found: Tensor = self.network(seen(frames.detach().float().to(device))[None])
        return found.cpu()


def load_clip_features(path: Path | None = None, *, sha256: str | None = None, device: str = "cpu") -> ClipFeatures:
    """The bundled network, or the one in a file that `sgi2v train clip-features` wrote.

    FieldError for a file that is not there, damaged, of another network, or with another SHA-256 than the given one.
    """
    weights = read_weights(path or _FILE, sha256=sha256)
    network = ClipNetwork()
    load_strictly(network, weights, kind=f"the clip network {NAME}")
    return ClipFeatures(network=network.to(device), sha256=weights.sha256)

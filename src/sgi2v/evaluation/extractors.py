"""Networks that turn frames or clips into features to compare sets of clips by, from weights the user brings."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sgi2v.errors import FieldError
from sgi2v.evaluation import i3d, inception
from sgi2v.evaluation.i3d import I3D
from sgi2v.evaluation.inception import Inception
from sgi2v.evaluation.weights import load_strictly, read_weights


@runtime_checkable
class Extractor(Protocol):
    """Anything that describes the frames of a clip, or the clip as a whole, by features."""

    @property
    def name(self) -> str:
        """The network's name: a figure made with another one is another figure."""

    @property
    def sha256(self) -> str:
        """SHA-256 of the file its weights were read from, in hexadecimal digits."""

    @property
    def unit(self) -> Literal["frame", "clip"]:
        """The part of a clip that a row of features stands for."""

    def features(self, frames: Float[Tensor, "f 3 h w"]) -> Float[Tensor, "n d"]:
        """Features of a clip's frames, RGB in 0..1: a row per frame, or one row for the clip."""


@dataclass(frozen=True, kw_only=True)
class InceptionExtractor:
    """Features of single frames, for FID and KID."""

    network: Inception
    sha256: str
    name: str = "inception-v3-2015"
    unit: Literal["frame", "clip"] = "frame"
    resize: str = "299x299, bilinear, not antialiased"
    """Way of bringing frames to the network's size: part of the figure."""

    @torch.no_grad()
    def features(self, frames: Float[Tensor, "f 3 h w"]) -> Float[Tensor, "f 2048"]:
        """A row per frame, RGB in 0..1 of any size."""
        device = next(self.network.parameters()).device
        rows = [self.network(2 * _resized(part.to(device), inception.SIDE) - 1) for part in frames.split(16)]
        return torch.cat(rows).cpu()


@dataclass(frozen=True, kw_only=True)
class I3DExtractor:
    """Features of whole clips, for FVD and KVD."""

    network: I3D
    sha256: str
    name: str = "i3d-kinetics-400"
    unit: Literal["frame", "clip"] = "clip"
    resize: str = "224x224, bilinear, not antialiased"
    """Way of bringing frames to the network's size: part of the figure."""

    @torch.no_grad()
    def features(self, frames: Float[Tensor, "f 3 h w"]) -> Float[Tensor, "1 400"]:
        """One row, for at least 9 frames, RGB in 0..1 of any size. ValueError for fewer."""
        if len(frames) < i3d.LEAST_FRAMES:
            raise FieldError(
                "frames",
                f"{len(frames)} are too few for I3D",
                f"it needs clips of at least {i3d.LEAST_FRAMES}",
            )
        device = next(self.network.parameters()).device
        clip = 2 * _resized(frames.to(device), i3d.SIDE) - 1
        found: Tensor = self.network(clip.transpose(0, 1)[None])
        return found.cpu()


def _resized(frames: Float[Tensor, "f 3 h w"], side: int) -> Float[Tensor, "f 3 {side} {side}"]:
    """Resize as the ports behind published figures do: not antialiased, the shape not kept."""
    return functional.interpolate(frames.detach().float(), (side, side), mode="bilinear", align_corners=False)


def load_inception(path: Path, *, sha256: str | None = None, device: str = "cpu") -> InceptionExtractor:
    """Inception-v3 of 2015 from a file of its ported weights (`Conv2d_1a_3x3.conv.weight`, ..., `fc.bias`).

    sha256: 64 hexadecimal digits to check the file against, if known. ValueError naming the file for any other file.
    """
    weights = read_weights(path, sha256=sha256)
    network = Inception()
    load_strictly(network, weights, kind="Inception-v3 of 2015 (the FID port, with a head of 1008 classes)")
    return InceptionExtractor(network=network.to(device), sha256=weights.sha256)


def load_i3d(path: Path, *, sha256: str | None = None, device: str = "cpu") -> I3DExtractor:
    """I3D from a file of its ported weights (`Conv3d_1a_7x7.conv3d.weight`, ..., `logits.conv3d.bias`).

    sha256: 64 hexadecimal digits to check the file against, if known. ValueError naming the file for any other file.
    """
    weights = read_weights(path, sha256=sha256)
    network = I3D()
    load_strictly(network, weights, kind="I3D, RGB, with 400 classes")
    return I3DExtractor(network=network.to(device), sha256=weights.sha256)

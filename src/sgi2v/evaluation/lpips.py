"""LPIPS with AlexNet: how different two pictures look, where the user brings the network's weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn
from torch.nn import functional

from sgi2v.evaluation.weights import Weights, load_strictly, read_weights

_CHANNELS: Final = (64, 192, 384, 256, 256)
_FEATURES: Final = (0, 3, 6, 8, 10)
"""Places of the convolutions in AlexNet's `features`, which is what the published weights are named by."""
_SHIFT: Final = (-0.030, -0.088, -0.188)
_SCALE: Final = (0.458, 0.448, 0.450)
_LEAST: Final = 31
"""Shorter sides in pixels leave nothing for AlexNet's second pooling."""


class LPIPSNetwork(nn.Module):
    """AlexNet's five convolutions, and a weight for each of their channels."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.ModuleDict(
            {
                "0": nn.Conv2d(3, 64, 11, stride=4, padding=2),
                "3": nn.Conv2d(64, 192, 5, padding=2),
                "6": nn.Conv2d(192, 384, 3, padding=1),
                "8": nn.Conv2d(384, 256, 3, padding=1),
                "10": nn.Conv2d(256, 256, 3, padding=1),
            }
        )
        self.heads = nn.ParameterList([nn.Parameter(torch.zeros(1, num, 1, 1)) for num in _CHANNELS])

    def maps(self, frames: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """The five layers' outputs for RGB in 0..1, each place's channels scaled to length 1."""
        shift, scale = (
            torch.tensor(value, device=frames.device).view(1, 3, 1, 1) for value in (_SHIFT, _SCALE)
        )
        x = (2 * frames - 1 - shift) / scale
        found = []
        for place, layer in self.features.items():
            if place in ("3", "6"):
                x = functional.max_pool2d(x, 3, stride=2)
            x = functional.relu(layer(x))
            found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found

    def forward(self, a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        """The distance of pairs of pictures, RGB in 0..1."""
        distance = torch.zeros(len(a), device=a.device)
        for head, one, two in zip(self.heads, self.maps(a), self.maps(b), strict=True):
            distance = distance + ((one - two).square() * head).sum(1).mean((1, 2))
        return distance


@dataclass(frozen=True, kw_only=True)
class LPIPS:
    """Learned perceptual distance of pictures, 0 for equal ones (Zhang et al., arXiv 1801.03924), version 0.1."""

    network: LPIPSNetwork
    sha256: tuple[str, ...]
    """SHA-256 of the files its weights were read from."""

    @torch.no_grad()
    def distances(self, a: Float[Tensor, "f 3 h w"], b: Float[Tensor, "f 3 h w"]) -> Float32[Tensor, " f"]:
        """The distance of each frame of a clip, RGB in 0..1, to the frame of the same number of another.

        ValueError for frames too small for AlexNet (a side below 31 pixels).
        """
        if min(a.shape[-2:]) < _LEAST:
            raise ValueError(
                f"frames: {a.shape[-1]}x{a.shape[-2]} is too small for LPIPS; give sides of at least {_LEAST} pixels"
            )
        device = next(self.network.parameters()).device
        found: Tensor = self.network(a.float().to(device), b.float().to(device))
        return found.cpu()


def load_lpips(path: Path, alexnet: Path | None = None, *, device: str = "cpu") -> LPIPS:
    """LPIPS from one file of everything (`net.slice1.0.weight`, ..., `lin0.model.1.weight`, ...), or from two.

    Of two, `path` holds the heads as they are published (`lin0.model.1.weight`, ...) and `alexnet` torchvision's
    AlexNet (`features.0.weight`, ...; its classifier is not read). ValueError naming the file for anything else.
    """
    heads = read_weights(path)
    files = [heads] if alexnet is None else [heads, read_weights(alexnet)]
    if alexnet is None and not any(name.startswith("net.") for name in heads.tensors):
        raise ValueError(
            f"{path}: holds LPIPS's heads alone; give AlexNet's weights (torchvision's) beside it"
        )
    tensors: dict[str, Tensor] = {}
    for weights in files:
        for name, value in weights.tensors.items():
            first, *rest = name.split(".")
            if first == "net":  # net.sliceN.<place>.weight
                tensors[".".join(["features", *rest[1:]])] = value
            elif first == "features":
                tensors[name] = value
            elif first.startswith("lin") and first != "lins" and rest[:1] == ["model"]:
                tensors[f"heads.{first.removeprefix('lin')}"] = value
    network = LPIPSNetwork()
    named = path if alexnet is None else Path(f"{path} with {alexnet}")
    load_strictly(
        network,
        Weights(tensors=tensors, sha256=heads.sha256, path=named),
        kind="LPIPS with AlexNet (net.slice1.0.weight or features.0.weight, lin0.model.1.weight, ...)",
    )
    return LPIPS(network=network.to(device), sha256=tuple(weights.sha256 for weights in files))

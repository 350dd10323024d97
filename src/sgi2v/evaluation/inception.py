"""Inception-v3 as the network of 2015 that FID is defined with: the ported weights' layout, and their quirks."""

from collections.abc import Mapping
from typing import Final, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

SIDE: Final = 299
"""Height and width in pixels of the network's input."""
NUM_FEATURES: Final = 2048
_NUM_CLASSES: Final = 1008

Kernel = int | tuple[int, int]
Pool = Literal["average", "largest", "largest in steps of two"]


class Convolution(nn.Module):
    """Convolution without bias, batch norm, ReLU; padded to keep the size, unless it takes steps of two."""

    def __init__(self, given: int, channels: int, kernel: Kernel, *, stride: int = 1, pad: bool = True) -> None:
        super().__init__()
        high, wide = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        padding = (high // 2, wide // 2) if pad and stride == 1 else (0, 0)
        self.conv = nn.Conv2d(given, channels, (high, wide), stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(channels, eps=0.001)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """One layer."""
        return functional.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Branches side by side, their channels put one behind the other, what was pooled last.

    layers: name -> (channels in, channels out, kernel, stride). branches: names in order; a tuple among them forks into
    layers that each see what came before.
    """

    def __init__(
        self,
        layers: Mapping[str, tuple[int, int, Kernel, int]],
        branches: tuple[tuple[str | tuple[str, ...], ...], ...],
        pool: Pool,
    ) -> None:
        super().__init__()
        for name, (given, channels, kernel, stride) in layers.items():
            self.add_module(name, Convolution(given, channels, kernel, stride=stride))
        self.branches, self.pool = branches, pool

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """All branches."""
        found = []
        for branch in self.branches:
            y = x
            for name in branch:
                fork = (name,) if isinstance(name, str) else name
                y = torch.cat([self.get_submodule(part)(y) for part in fork], 1)
            found.append(y)
        if self.pool == "largest in steps of two":
            return torch.cat([*found, functional.max_pool2d(x, 3, stride=2)], 1)
        if self.pool == "largest":
            pooled = functional.max_pool2d(x, 3, stride=1, padding=1)
        else:
            # As TensorFlow counts: what lies outside is no part of the mean.
            pooled = functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        return torch.cat([*found, self.get_submodule("branch_pool")(pooled)], 1)


def _a(given: int, pooled: int) -> Mixed:
    return Mixed(
        {
            "branch1x1": (given, 64, 1, 1),
            "branch5x5_1": (given, 48, 1, 1),
            "branch5x5_2": (48, 64, 5, 1),
            "branch3x3dbl_1": (given, 64, 1, 1),
            "branch3x3dbl_2": (64, 96, 3, 1),
            "branch3x3dbl_3": (96, 96, 3, 1),
            "branch_pool": (given, pooled, 1, 1),
        },
        (
            ("branch1x1",),
            ("branch5x5_1", "branch5x5_2"),
            ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
        ),
        "average",
    )


def _b() -> Mixed:
    return Mixed(
        {
            "branch3x3": (288, 384, 3, 2),
            "branch3x3dbl_1": (288, 64, 1, 1),
            "branch3x3dbl_2": (64, 96, 3, 1),
            "branch3x3dbl_3": (96, 96, 3, 2),
        },
        (("branch3x3",), ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")),
        "largest in steps of two",
    )


def _c(inner: int) -> Mixed:
    across, along = (1, 7), (7, 1)
    return Mixed(
        {
            "branch1x1": (768, 192, 1, 1),
            "branch7x7_1": (768, inner, 1, 1),
            "branch7x7_2": (inner, inner, across, 1),
            "branch7x7_3": (inner, 192, along, 1),
            "branch7x7dbl_1": (768, inner, 1, 1),
            "branch7x7dbl_2": (inner, inner, along, 1),
            "branch7x7dbl_3": (inner, inner, across, 1),
            "branch7x7dbl_4": (inner, inner, along, 1),
            "branch7x7dbl_5": (inner, 192, across, 1),
            "branch_pool": (768, 192, 1, 1),
        },
        (
            ("branch1x1",),
            tuple(f"branch7x7_{number}" for number in (1, 2, 3)),
            tuple(f"branch7x7dbl_{number}" for number in (1, 2, 3, 4, 5)),
        ),
        "average",
    )


def _d() -> Mixed:
    return Mixed(
        {
            "branch3x3_1": (768, 192, 1, 1),
            "branch3x3_2": (192, 320, 3, 2),
            "branch7x7x3_1": (768, 192, 1, 1),
            "branch7x7x3_2": (192, 192, (1, 7), 1),
            "branch7x7x3_3": (192, 192, (7, 1), 1),
            "branch7x7x3_4": (192, 192, 3, 2),
        },
        (("branch3x3_1", "branch3x3_2"), tuple(f"branch7x7x3_{number}" for number in (1, 2, 3, 4))),
        "largest in steps of two",
    )


def _e(given: int, pool: Pool) -> Mixed:
    across, along = (1, 3), (3, 1)
    return Mixed(
        {
            "branch1x1": (given, 320, 1, 1),
            "branch3x3_1": (given, 384, 1, 1),
            "branch3x3_2a": (384, 384, across, 1),
            "branch3x3_2b": (384, 384, along, 1),
            "branch3x3dbl_1": (given, 448, 1, 1),
            "branch3x3dbl_2": (448, 384, 3, 1),
            "branch3x3dbl_3a": (384, 384, across, 1),
            "branch3x3dbl_3b": (384, 384, along, 1),
            "branch_pool": (given, 192, 1, 1),
        },
        (
            ("branch1x1",),
            ("branch3x3_1", ("branch3x3_2a", "branch3x3_2b")),
            ("branch3x3dbl_1", "branch3x3dbl_2", ("branch3x3dbl_3a", "branch3x3dbl_3b")),
        ),
        pool,
    )


class Inception(nn.Module):
    """Inception-v3 (Szegedy et al., arXiv 1512.00567) with the 2015 release's head of 1008 classes.

    Where it differs from the network of that name in torchvision, whose names of layers the ported weights use:
    averages leave out what is padded, the last block pools by the largest value, and there is no side head. The head is
    read, as it lies in the file, and not used.
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3, pad=False)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3)
        self.Conv2d_3b_1x1 = Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3, pad=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _a(192, 32), _a(256, 64), _a(288, 64)
        self.Mixed_6a = _b()
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = _c(128), _c(160), _c(160), _c(192)
        self.Mixed_7a = _d()
        self.Mixed_7b, self.Mixed_7c = _e(1280, "average"), _e(NUM_FEATURES, "largest")
        self.fc = nn.Linear(NUM_FEATURES, _NUM_CLASSES)

    def forward(self, frames: Float[Tensor, "b 3 299 299"]) -> Float[Tensor, "b 2048"]:
        """Mean over places of the last block's output, for pictures in -1..1."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(frames)))
        x = functional.max_pool2d(x, 3, stride=2)
        x = functional.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, stride=2)
        for mixed in (
            self.Mixed_5b,
            self.Mixed_5c,
            self.Mixed_5d,
            self.Mixed_6a,
            self.Mixed_6b,
            self.Mixed_6c,
        ):
            x = mixed(x)
        for mixed in (self.Mixed_6d, self.Mixed_6e, self.Mixed_7a, self.Mixed_7b, self.Mixed_7c):
            x = mixed(x)
        pooled: Tensor = x.mean((2, 3))
        return pooled

"""I3D, the inflated Inception-v1 that FVD is defined with: RGB, logits of Kinetics-400."""

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

SIDE: Final = 224
"""Height and width in pixels of the network's input."""
LEAST_FRAMES: Final = 9
"""With fewer frames nothing is left of time before the last pooling, which takes two."""
NUM_FEATURES: Final = 400

Shape = tuple[int, int, int]

_MIXED: Final = (
    # name, channels in, channels out of: single; reduced, then 3x3x3; reduced, then 3x3x3; after pooling
    ("Mixed_3b", 192, (64, 96, 128, 16, 32, 32)),
    ("Mixed_3c", 256, (128, 128, 192, 32, 96, 64)),
    ("Mixed_4b", 480, (192, 96, 208, 16, 48, 64)),
    ("Mixed_4c", 512, (160, 112, 224, 24, 64, 64)),
    ("Mixed_4d", 512, (128, 128, 256, 24, 64, 64)),
    ("Mixed_4e", 512, (112, 144, 288, 32, 64, 64)),
    ("Mixed_4f", 528, (256, 160, 320, 32, 128, 128)),
    ("Mixed_5b", 832, (256, 160, 320, 32, 128, 128)),
    ("Mixed_5c", 832, (384, 192, 384, 48, 128, 128)),
)


def padded(x: Float[Tensor, "b c t h w"], kernel: Shape, stride: Shape) -> Float[Tensor, "b c t2 h2 w2"]:
    """Zeros around, as TensorFlow's SAME padding puts them: an odd one goes behind."""
    pads: list[int] = []
    for size, reach, step in zip(reversed(x.shape[2:]), reversed(kernel), reversed(stride), strict=True):
        total = max(reach - (size % step or step), 0)
        pads += [total // 2, total - total // 2]
    return functional.pad(x, pads)


def pooled(x: Float[Tensor, "b c t h w"], kernel: Shape, stride: Shape) -> Float[Tensor, "b c t2 h2 w2"]:
    """The largest value of each window; zeros outside, which after a ReLU change nothing."""
    return functional.max_pool3d(padded(x, kernel, stride), kernel, stride)


class Unit(nn.Module):
    """Convolution with SAME padding, batch norm, ReLU; `plain` is the last layer: a bias and nothing after it."""

    def __init__(self, given: int, channels: int, kernel: int = 1, *, stride: int = 1, plain: bool = False) -> None:
        super().__init__()
        self.kernel, self.stride = (kernel, kernel, kernel), (stride, stride, stride)
        self.conv3d = nn.Conv3d(given, channels, kernel, stride=stride, bias=plain)
        self.bn = None if plain else nn.BatchNorm3d(channels, eps=0.001)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d t2 h2 w2"]:
        """One layer."""
        y = self.conv3d(padded(x, self.kernel, self.stride))
        return y if self.bn is None else functional.relu(self.bn(y))


class Mixed(nn.Module):
    """Four branches side by side: single, two of a reduced 3x3x3 convolution, and pooled."""

    def __init__(self, given: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        single, reduced, wide, narrow, thin, last = channels
        self.b0 = Unit(given, single)
        self.b1a, self.b1b = Unit(given, reduced), Unit(reduced, wide, 3)
        self.b2a, self.b2b = Unit(given, narrow), Unit(narrow, thin, 3)
        self.b3b = Unit(given, last)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d t h w"]:
        """All branches, their channels one behind the other."""
        smooth = pooled(x, (3, 3, 3), (1, 1, 1))
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(smooth)], 1)


class I3D(nn.Module):
    """I3D (Carreira and Zisserman, arXiv 1705.07750), RGB, in the layout of its widely used PyTorch port."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Unit(3, 64, 7, stride=2)
        self.Conv3d_2b_1x1 = Unit(64, 64)
        self.Conv3d_2c_3x3 = Unit(64, 192, 3)
        for name, given, channels in _MIXED:
            self.add_module(name, Mixed(given, channels))
        self.logits = Unit(1024, NUM_FEATURES, plain=True)

    def forward(self, clips: Float[Tensor, "b 3 t 224 224"]) -> Float[Tensor, "b 400"]:
        """Logits of the classes, averaged over time, of clips in -1..1 of at least 9 frames."""
        x = pooled(self.Conv3d_1a_7x7(clips), (1, 3, 3), (1, 2, 2))
        x = pooled(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x)), (1, 3, 3), (1, 2, 2))
        for name, _, _ in _MIXED:
            if name == "Mixed_4b":
                x = pooled(x, (3, 3, 3), (2, 2, 2))
            elif name == "Mixed_5b":
                x = pooled(x, (2, 2, 2), (2, 2, 2))
            x = self.get_submodule(name)(x)
        x = functional.avg_pool3d(x, (2, 7, 7), stride=1)
        logits: Tensor = self.logits(x).mean((2, 3, 4))
        return logits

"""Rendered clips: their frames and everything that is known about them."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from sgi2v.errors import FieldError
from sgi2v.world.layers import Correspondence, Layers

Kind = Literal["simple", "rich", "lifelike"]


@dataclass(frozen=True, kw_only=True)
class Clips:
    """A batch of b rendered clips of f frames with n things, and everything that is known about them."""

    frames: Float[Tensor, "b f 3 h w"]
    """Frames, float32, 0..1, RGB."""
    boxes: Float[Tensor, "b n f 4"]
    """Boxes (left, top, right, bottom) of the whole things in pixels, hidden parts and those out of view included."""
    centers: Float[Tensor, "b n f 2"]
    """Centres (x, y) of the boxes in pixels. Thing 0 is the one that always moves unless the clip is still."""
    layers: Layers
    """Places of the things and of the background, and the share of each cell in which they are seen."""
    kind: Kind
    """The kind of scene."""
    motion: Float[Tensor, " b"]
    """Amount of motion: the longest path of a thing over the frame's diagonal."""
    camera: Float[Tensor, "b f 3"]
    """The camera: (x, y) in pixels from the first frame's middle to where it looks, and how much closer it is."""

    @property
    def masks(self) -> Float[Tensor, "b n f h w"]:
        """The visible share of each thing, 0..1."""
        return self.layers.masks[:, :-1]

    def correspondence(self, reference: int = 0) -> Correspondence:
        """The place in the frame `reference` of the point seen in each pixel, and how far it is seen there."""
        return self.layers.correspondence(self.layers.at([reference]))

    def __getitem__(self, index: int) -> "Clip":
        """One clip of the batch."""
        return Clip(
            frames=self.frames[index],
            boxes=self.boxes[index],
            centers=self.centers[index],
            layers=self.layers[[index]],
            kind=self.kind,
            motion=float(self.motion[index]),
            camera=self.camera[index],
        )


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One rendered clip: the fields of Clips without the batch axis."""

    frames: Float[Tensor, "f 3 h w"]
    boxes: Float[Tensor, "n f 4"]
    centers: Float[Tensor, "n f 2"]
    layers: Layers
    """The layers of a batch of one."""
    kind: Kind
    motion: float
    camera: Float[Tensor, "f 3"]

    @property
    def masks(self) -> Float[Tensor, "n f h w"]:
        """The visible share of each thing, 0..1."""
        return self.layers.masks[0, :-1]

    @property
    def motion_bucket(self) -> int:
        """The amount of motion as the motion bucket 0..255 of Stable Video Diffusion."""
        return round(255 * min(1.0, self.motion))

    def correspondence(self, reference: int = 0) -> Correspondence:
        """The place in the frame `reference` of the point seen in each pixel; a batch of one."""
        return self.layers.correspondence(self.layers.at([reference]))


def check_shape(width: int, height: int, radius: tuple[float, float], num_things: int, num_frames: int) -> None:
    """FieldError where things of the largest half size cannot lie in the frames, or there is nothing to show."""
    if 2.2 * radius[1] > min(width, height):
        raise FieldError(
            "", f"radius {radius} is too large for frames of {width}x{height}: at most {min(width, height) / 2.2:.1f}"
        )
    if num_things < 1 or num_frames < 1:
        raise FieldError("", f"num_things and num_frames must be at least 1, not {num_things}, {num_frames}")

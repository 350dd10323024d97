"""Clips made without a model, which every table carries: the still image, and the object cut out and dragged."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from sgi2v.cut_and_drag import box_cover, camera_warps, cut_and_drag


def still(image: Float[Tensor, "3 h w"], num_frames: int) -> Float[Tensor, "{num_frames} 3 h w"]:
    """The first frame, num_frames times: nothing moves."""
    return image.expand(num_frames, -1, -1, -1).clone()


def paste(
    image: Float[Tensor, "3 h w"],
    boxes: Float[Tensor, "n f 4"],
    masks: Sequence[Float[Tensor, "h w"] | None] | Float[Tensor, "n h w"] | None = None,
    camera: Sequence[bool] | None = None,
) -> Float[Tensor, "f 3 h w"]:
    """Cut what lies in the first boxes out of the first frame, and drag it along the boxes over what is left.

    image: RGB in 0..1. boxes: (left, top, right, bottom) in pixels per frame; where a box grows, so does its content.
    masks: the objects' pixels on the first frame, 0..1; whole boxes where None. camera: which boxes sit on
    background that the camera moves; none when None. They are not cut, the ground under the others moves with them.
    The clip is the one that Time-to-Move starts from (:mod:`sgi2v.cut_and_drag`).
    """
    _, height, width = image.shape
    wanted = boxes.double().numpy(force=True)
    covers = np.zeros((len(boxes), height, width), dtype=np.float32)
    for index, cover in enumerate(covers):
        mask = None if masks is None else masks[index]
        cover[:] = box_cover(wanted[index, 0], width, height) if mask is None else mask.numpy(force=True)
    grounds = np.array(camera if camera is not None else [False] * len(boxes), dtype=bool)
    warps = camera_warps(wanted[grounds]) if grounds.any() else None
    return cut_and_drag(image, wanted[~grounds], covers[~grounds], warps).frames

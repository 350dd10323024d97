"""Clips made without a model, which every table carries: the still image, and the object cut out and dragged."""

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def still(image: Float[Tensor, "3 h w"], num_frames: int) -> Float[Tensor, "{num_frames} 3 h w"]:
    """The first frame, num_frames times: nothing moves."""
    return image.expand(num_frames, -1, -1, -1).clone()


def paste(
    image: Float[Tensor, "3 h w"],
    boxes: Float[Tensor, "n f 4"],
    masks: Float[Tensor, "n h w"] | None = None,
) -> Float[Tensor, "f 3 h w"]:
    """Cut what lies in the first boxes out of the first frame, and drag it along the boxes over what is left.

    image: RGB in 0..1. boxes: (left, top, right, bottom) in pixels per frame; where a box grows, so does its content.
    masks: the objects' pixels on the first frame, 0..1; the whole boxes when None. The holes are filled from their
    surroundings (Telea 2004); the first object lies on top. Frame 0 is the image itself.
    """
    _, height, width = image.shape
    pixels = np.ascontiguousarray(image.float().permute(1, 2, 0).numpy(force=True))
    first = boxes[:, 0].double().numpy(force=True)
    if masks is None:
        covers = np.zeros((len(boxes), height, width), dtype=np.float32)
        for cover, box in zip(covers, first, strict=True):
            left, top, right, bottom = np.round(box).astype(int).clip(0)
            cover[top:bottom, left:right] = 1
    else:
        covers = np.ascontiguousarray(masks.float().numpy(force=True))
    ground = _filled(pixels, covers.max(0) > 0 if len(covers) else np.zeros((height, width), dtype=bool))
    frames = [pixels]
    for index in range(1, boxes.shape[1]):
        frame = ground.copy()
        for cover, start, box in reversed(list(zip(covers, first, boxes[:, index].tolist(), strict=True))):
            across = (box[2] - box[0]) / (start[2] - start[0])
            along = (box[3] - box[1]) / (start[3] - start[1])
            # In OpenCV a pixel's centre has whole coordinates, half a pixel less than here.
            move = np.array(
                [
                    [across, 0, box[0] - across * (start[0] - 0.5) - 0.5],
                    [0, along, box[1] - along * (start[1] - 0.5) - 0.5],
                ]
            )
            size = (width, height)
            weight = cv2.warpAffine(cover, move, size, flags=cv2.INTER_LINEAR)[..., None]
            content = cv2.warpAffine(
                pixels, move, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            )
            frame = frame * (1 - weight) + content * weight
        frames.append(frame)
    return torch.from_numpy(np.stack(frames).astype(np.float32)).permute(0, 3, 1, 2).contiguous()


def _filled(pixels: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The picture with the hole painted from its surroundings; elsewhere exactly as it was."""
    # The object's soft edge belongs to the hole too.
    wide = cv2.dilate(hole.astype(np.uint8), np.ones((3, 3), np.uint8))
    painted = cv2.inpaint((pixels * 255 + 0.5).clip(0, 255).astype(np.uint8), wide, 3, cv2.INPAINT_TELEA)
    filled: np.ndarray = np.where(wide[..., None] > 0, painted.astype(np.float32) / 255, pixels)
    return filled

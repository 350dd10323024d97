"""Dense optical flow between two frames, which of it comes back, and values between pixels."""

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor

_LEAST = 16
"""DIS works on patches of 8 pixels at several scales and cannot see a smaller picture."""


def grey_frames(frames: Tensor) -> list[UInt8[np.ndarray, "h w"]]:
    """RGB frames [f, 3, h, w] in 0..1 as grey ones of 8 bits, which optical flow is computed on."""
    eight = (frames.float().permute(0, 2, 3, 1) * 255 + 0.5).clamp(0, 255).byte().numpy(force=True)
    return [cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in eight]


def dense_flow(a: UInt8[np.ndarray, "h w"], b: UInt8[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w 2"]:
    """DIS flow (x, y) in pixels from each pixel of `a` to where it is in `b` (Kroeger et al. 2016, medium preset).

    0 for frames with a side below 16 pixels, which it cannot see.
    """
    empty = np.zeros((*a.shape, 2), np.float32)
    if min(a.shape) < _LEAST:
        return empty
    dense = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return np.asarray(dense.calc(a, b, empty), np.float32)


def home(height: int, width: int) -> Float32[np.ndarray, "h w 2"]:
    """Each pixel's own place (x, y), pixels' centres at whole numbers as in OpenCV."""
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)


def returning(
    there: Float32[np.ndarray, "h w 2"], back: Float32[np.ndarray, "h w 2"], tolerance: float
) -> Bool[np.ndarray, "h w"]:
    """Pixels that `there` and then `back` bring to within `tolerance` pixels of where they were."""
    missed = there + sampled(back, home(*there.shape[:2]) + there)
    close: np.ndarray = np.linalg.norm(missed, axis=-1) < tolerance
    return close


def sampled(values: Float[np.ndarray, "h w c"], places: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n c"]:
    """The values at places (x, y; pixels' centres at whole numbers), bilinear; beyond a frame's edge those of the edge.

    Written out, because cv2.remap (OpenCV 5.0.0) was seen to give NaN for finite input, not every time.
    """
    height, width = values.shape[:2]
    x, y = places[..., 0].clip(0, width - 1), places[..., 1].clip(0, height - 1)
    left, top = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    across, along = (x - left)[..., None], (y - top)[..., None]
    above = values[top, left] * (1 - across) + values[top, right] * across
    below = values[bottom, left] * (1 - across) + values[bottom, right] * across
    read: np.ndarray = above * (1 - along) + below * along
    return read

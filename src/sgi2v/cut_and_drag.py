"""The cut-and-drag clip: a scene's things cut out of the picture along their boxes and dragged along their paths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64

from sgi2v.errors import FieldError
from sgi2v.grid import Tracks
from sgi2v.lazy import cv2, torch

_COLLINEAR = 0.1
"""Boxes whose centres spread less than this share of their longest spread to the other side count as on a line."""


@dataclass(frozen=True, kw_only=True)
class DraggedClip:
    """A clip that is right where things were dragged to, and a guess elsewhere."""

    frames: Float[torch.Tensor, "f 3 h w"]
    """RGB, 0..1, float32."""
    masks: Float[torch.Tensor, "f h w"]
    """0..1: 1 where what is shown is what was asked for."""


def dragged_clip(tracks: Tracks, num_frames: int) -> DraggedClip:
    """A scene's motions cut and dragged, at a model's size; a scene without any stands still.

    Things are cut along their mask, or along their box where there is none, and pasted at their later boxes, grown as
    these are; the holes are filled from their surroundings. Camera motions move the whole picture by one affine map
    (:func:`camera_warps`); a thing's own path is where it is seen, so the camera moves it no further. Without
    camera motions the masks are the pasted things; with them, everything the first frame shows. FieldError for a mask
    that is empty and for a box outside the picture.
    """
    width, height = tracks.image.size
    things = [(k, track) for k, track in enumerate(tracks.tracks) if track.kind == "object"]
    camera = [track.boxes for track in tracks.tracks if track.kind == "camera"]
    covers = np.zeros((len(things), height, width), dtype=np.float32)
    for cover, (index, track) in zip(covers, things, strict=True):
        if track.mask is None:
            cover[:] = box_cover(track.boxes[0], width, height)
        else:
            cover[:] = np.asarray(track.mask, dtype=np.float32) / 255
        if not cover.any() and track.mask is None:
            raise FieldError(f"motions[{index}].box", "lies outside the picture", "nothing is in it to be cut out")
        if not cover.any():
            raise FieldError(
                f"motions[{index}].mask", "nothing is in it", "draw it where the thing is, or leave it out"
            )
    return cut_and_drag(
        torch.from_numpy(np.asarray(tracks.image, dtype=np.float32) / 255).permute(2, 0, 1),
        np.stack([t.boxes for _, t in things]) if things else np.zeros((0, num_frames, 4), dtype=np.float32),
        covers,
        camera_warps(np.stack(camera)) if camera else None,
    )


def box_cover(box: Sequence[float] | np.ndarray, width: int, height: int) -> Float32[np.ndarray, "h w"]:
    """1 in the pixels of a box (left, top, right, bottom), its edges rounded; 0 elsewhere.

    A box that is in the picture at all has a pixel, however small it is.
    """
    cover = np.zeros((height, width), dtype=np.float32)
    exact = np.asarray(box, dtype=np.float64)
    if (exact[2:] <= 0).any() or (exact[:2] >= (width, height)).any():
        return cover
    spans = []
    for low, high, size in ((exact[1], exact[3], height), (exact[0], exact[2], width)):
        start, end = (int(np.round(edge).clip(0, size)) for edge in (low, high))
        if end <= start:
            start = int(np.floor(low).clip(0, size - 1))
        spans.append(slice(start, max(end, start + 1)))
    cover[spans[0], spans[1]] = 1
    return cover


def cut_and_drag(
    image: Float[torch.Tensor, "3 h w"],
    boxes: Float[np.ndarray, "n f 4"],
    covers: Float32[np.ndarray, "n h w"],
    camera: Float64[np.ndarray, "f 2 3"] | None = None,
) -> DraggedClip:
    """Cut what the covers show out of the first frame, and drag it along the boxes over what is left.

    image: RGB in 0..1. boxes: (left, top, right, bottom) in pixels per frame; where a box grows, so does its content.
    covers: the things' pixels on the first frame, 0..1. camera: maps (x, y, 1) -> (x, y) in pixels from the first
    frame to each, which move the ground; what the first frame does not show repeats its edge. Holes are filled from
    their surroundings (Telea 2004); the first thing lies on top. Frame 0 is the image itself.
    """
    _, height, width = image.shape
    size = (width, height)
    pixels = np.ascontiguousarray(image.float().permute(1, 2, 0).numpy(force=True))
    first = boxes[:, 0].astype(np.float64)
    seen = np.ones((height, width), dtype=np.float32)
    whole = covers.max(initial=0, axis=0)
    # What stays where it is leaves no hole; over a ground that moves, everything does.
    leaves = (boxes != boxes[:, :1]).any(axis=(1, 2)) | (camera is not None)
    ground = _filled(pixels, covers[leaves].max(initial=0, axis=0) > 0)
    frames, masks = [pixels], [whole if camera is None else seen]
    for index in range(1, boxes.shape[1]):
        frame, mask = ground.copy(), np.zeros_like(seen)
        if camera is not None:
            move = _between_centres(camera[index])
            frame = cv2.warpAffine(ground, move, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            mask = np.asarray(cv2.warpAffine(seen, move, size, flags=cv2.INTER_LINEAR), dtype=np.float32)
        for cover, start, box in reversed(list(zip(covers, first, boxes[:, index].tolist(), strict=True))):
            across = (box[2] - box[0]) / (start[2] - start[0])
            along = (box[3] - box[1]) / (start[3] - start[1])
            move = _between_centres(
                np.array([[across, 0, box[0] - across * start[0]], [0, along, box[1] - along * start[1]]])
            )
            weight = cv2.warpAffine(cover, move, size, flags=cv2.INTER_LINEAR)
            content = cv2.warpAffine(pixels, move, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            frame = frame * (1 - weight[..., None]) + content * weight[..., None]
            mask = np.maximum(mask, weight)
        frames.append(frame)
        masks.append(mask)
    stacked = torch.from_numpy(np.stack(frames).astype(np.float32)).permute(0, 3, 1, 2).contiguous()
    return DraggedClip(frames=stacked, masks=torch.from_numpy(np.stack(masks)))


def _between_centres(move: Float64[np.ndarray, "2 3"]) -> Float64[np.ndarray, "2 3"]:
    """The same map for OpenCV, where a pixel's centre has whole coordinates, half a pixel less than here."""
    moved: np.ndarray = move.copy()
    moved[:, 2] += move[:, :2] @ (0.5, 0.5) - 0.5
    return moved


def camera_warps(boxes: Float[np.ndarray, "n f 4"]) -> Float64[np.ndarray, "f 2 3"]:
    """One affine map (x, y, 1) -> (x, y) per frame, in pixels, that takes the first boxes nearest to that frame's.

    Least squares. One box gives shift and growth, by its corners. Two boxes, or more on a line, give shift, growth and
    turn, by their centres (boxes do not turn with a picture, so their corners would deny it). Three or more
    that span a plane give any affine map: a turn, too, of a picture that was stretched to a model's shape.
    """
    boxes = boxes.astype(np.float64)
    centers = (boxes[..., :2] + boxes[..., 2:]) / 2
    spread = np.linalg.svd(centers[:, 0] - centers[:, 0].mean(0), compute_uv=False)
    spread = np.append(spread, 0.0)  # one box has but one
    longest = max(spread[0], 1e-9)
    if longest < 1:  # pixels: all boxes lie on one another
        x, y = boxes[..., 0::2], boxes[..., 1::2]
        return np.stack([_growth(x[:, 0], y[:, 0], x[:, j], y[:, j]) for j in range(boxes.shape[1])])
    fit = _affine if spread[1] / longest > _COLLINEAR else _similarity
    return np.stack([fit(centers[:, 0], centers[:, j]) for j in range(boxes.shape[1])])


def _growth(x: np.ndarray, y: np.ndarray, to_x: np.ndarray, to_y: np.ndarray) -> Float64[np.ndarray, "2 3"]:
    """Shift, and growth of its own across and along, by corners; several boxes on one place count together."""
    across, along = (np.ptp(end, axis=1).sum() / np.ptp(start, axis=1).sum() for start, end in ((x, to_x), (y, to_y)))
    return np.array([[across, 0, to_x.mean() - across * x.mean()], [0, along, to_y.mean() - along * y.mean()]])


def _similarity(start: Float64[np.ndarray, "n 2"], end: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, "2 3"]:
    """Shift, growth and turn."""
    from_z, to_z = (points[:, 0] + 1j * points[:, 1] for points in (start, end))
    away = from_z - from_z.mean()
    turn = (away.conj() @ (to_z - to_z.mean())) / (away.conj() @ away).real
    shift = to_z.mean() - turn * from_z.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def _affine(start: Float64[np.ndarray, "n 2"], end: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, "2 3"]:
    """Any affine map."""
    solved, *_ = np.linalg.lstsq(np.column_stack([start, np.ones(len(start))]), end, rcond=None)
    return np.ascontiguousarray(solved.T)


def _filled(pixels: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The picture with the hole painted from its surroundings; elsewhere exactly as it was."""
    # The object's soft edge belongs to the hole too.
    wide = cv2.dilate(hole.astype(np.uint8), np.ones((3, 3), np.uint8))
    painted = cv2.inpaint((pixels * 255 + 0.5).clip(0, 255).astype(np.uint8), wide, 3, cv2.INPAINT_TELEA)
    filled: np.ndarray = np.where(wide[..., None] > 0, painted.astype(np.float32) / 255, pixels)
    return filled

"""All figures of one clip against what was asked of it."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from sgi2v.evaluation.metrics import (
    background_change,
    background_motion,
    iou_over_time,
    motion_error,
    psnr,
    ssim,
    temporal_consistency,
)
from sgi2v.evaluation.tracker import Tracker
from sgi2v.grid import Tracks
from sgi2v.records import Json
from sgi2v.video import from_uint8

MEASURES: Final = 3
"""Raised when a figure is computed differently, so that older rows are measured again."""
_HIGHEST_PSNR: Final = 99.0  # of equal clips, where it would be infinite, which JSON has no word for


def measure(
    frames: Float32[Tensor, "f 3 h w"],
    tracks: Tracks,
    tracker: Tracker,
    *,
    truth: Float32[Tensor, "f 3 h w"] | None = None,
    masks: Sequence[Float[Tensor, "h w"] | None] | Float[Tensor, "n h w"] | None = None,
    still_camera: bool = True,
) -> Json:
    """Figures of one clip of the tracks' size: of the scene, and under "tracks" of each motion.

    Distances are in pixels of the clip. What is not defined is None: motion in a scene without motions, likeness to
    an unknown truth, the background's rest under a moving camera. The tracker sees the boxes of the first frame and,
    where they are known (`masks`, 0..1, None where not), the things' own pixels in them.
    """
    height, width = frames.shape[-2:]
    figures: Json = dict.fromkeys(
        ("objmc", "objmc_with_first", "objmc_of_diagonal", "path_end", "lost", "iou", "match"), None
    )
    per_track: list[Json] = []
    boxes = torch.from_numpy(tracks.boxes(range(len(frames))))
    if tracks.tracks:
        # What lies in the first box is known from the picture; a model's own first frame may already have lost it.
        picture = from_uint8(np.asarray(tracks.image)[None])
        result = tracker.track(torch.cat([picture, frames[1:]]), boxes[:, 0], None if masks is None else list(masks))
        centers = torch.from_numpy(np.stack([track.centers for track in tracks.tracks]))
        error = motion_error(centers, result, width=width, height=height)
        has_match = error.match is not None
        overlap = iou_over_time(boxes, result)[:, 1:].mean(1)
        per_track = [
            {
                "kind": track.kind,
                "name": track.name,
                "objmc": float(error.objmc[index]),
                "objmc_with_first": float(error.objmc_with_first[index]),
                "path_end": float(error.path_end[index]),
                "lost": float(error.lost[index]),
                "iou": float(overlap[index]),
                **({} if error.match is None else {"match": float(error.match[index])}),
                "centers": [[round(v, 2) for v in place] for place in result.centers[index].tolist()],
            }
            for index, track in enumerate(tracks.tracks)
        ]
        figures |= {
            name: float(np.mean([one[name] for one in per_track]))
            for name in ("objmc", "objmc_with_first", "path_end", "lost", "iou", *(["match"] if has_match else []))
        }
        figures["objmc_of_diagonal"] = error.scene_of_diagonal
    figures["background_motion"] = background_motion(frames, boxes) if still_camera else None
    figures["background_change"] = background_change(frames, boxes) if still_camera else None
    figures["temporal_consistency"] = temporal_consistency(frames)
    figures["ssim"] = None if truth is None else ssim(frames, truth)
    figures["psnr"] = None if truth is None else min(psnr(frames, truth), _HIGHEST_PSNR)
    figures["tracks"] = per_track
    return figures

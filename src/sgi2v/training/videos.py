"""A person's own clips as training data: videos, gifs or folders of frames, cut to a stage's size and length."""

import hashlib
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from sgi2v.errors import FieldError
from sgi2v.evaluation.flow import dense_flow, grey_frames
from sgi2v.signatures import CLIP_SUFFIXES
from sgi2v.video import check_video, from_uint8, load_video, to_uint8

_KEPT_BYTES: Final = 2**30  # of decoded clips, but the newest is held whatever its size


def find_videos(folder: Path) -> tuple[Path, ...]:
    """The clips of a folder in the order of their names; FieldError where there is none."""
    if not folder.is_dir():
        raise FieldError("videos", f"{folder} is no folder")
    found = [
        path
        for path in sorted(folder.iterdir())
        # A Mac leaves ._name.mp4 beside name.mp4 on foreign discs, which is no video.
        if not path.name.startswith(".")
        and (path.suffix.lower() in CLIP_SUFFIXES or (path.is_dir() and any(path.glob("frame_*.png"))))
    ]
    if not found:
        raise FieldError(
            "videos",
            f"{folder} holds no clip",
            "put videos (mp4, mov, webm …) or gifs into it, or folders of frame_0000.png, …",
        )
    return tuple(found)


def check_videos(folder: Path) -> str:
    """SHA-256 over names and sizes of a folder's clips, so that a run goes on with the clips it began with.

    ValueError naming a clip that cannot be read or is too large: many steps later it would end the run.
    """
    whole = hashlib.sha256()
    for path in find_videos(folder):
        check_video(path)
        files = sorted(path.glob("frame_*.png")) if path.is_dir() else [path]
        whole.update(f"{path.name} {len(files)} {sum(file.stat().st_size for file in files)}\n".encode())
    return whole.hexdigest()


class Footage:
    """Cuts clips from a folder's videos: a random stretch of time, the largest middle of the wanted shape."""

    def __init__(self, folder: Path) -> None:
        """FieldError where the folder holds no clip."""
        self.paths = find_videos(folder)
        self._decoded: dict[Path, UInt8[np.ndarray, "f h w 3"]] = {}

    def cut(
        self, num: int, seed: int, *, width: int, height: int, times: Float[Tensor, "b f"], num_frames: int
    ) -> tuple[Float[Tensor, "b f 3 h w"], Float[Tensor, " b"]]:
        """`num` clips, RGB in 0..1, and how much moves in each (see :func:`amount_of_motion`).

        times: 0..1 over a stretch of `num_frames` frames of the video (all of it where it is shorter), which begins
        anywhere. ValueError naming a file that cannot be read.
        """
        generator = torch.Generator().manual_seed(seed % 2**63)
        chosen = torch.randint(len(self.paths), (num,), generator=generator).tolist()
        start = torch.rand(num, generator=generator).tolist()
        clips, motion = [], []
        for index, begin, when in zip(chosen, start, times, strict=True):
            video = self._frames(self.paths[index])
            span = min(num_frames, len(video)) - 1
            first = int(begin * (len(video) - span))
            stretch = video[first : first + span + 1]
            motion.append(amount_of_motion(from_uint8(stretch[[0, len(stretch) // 2, -1]])))
            clips.append(_shaped(from_uint8(stretch[(when * span).round().long().numpy()]), width, height))
        return torch.stack(clips), torch.tensor(motion)

    def _frames(self, path: Path) -> UInt8[np.ndarray, "f h w 3"]:
        if path not in self._decoded:
            frames = to_uint8(load_video(path).frames)  # what the file holds, in a quarter of the bytes
            while self._decoded and sum(v.nbytes for v in self._decoded.values()) + frames.nbytes > _KEPT_BYTES:
                self._decoded.pop(next(iter(self._decoded)))
            self._decoded[path] = frames
        return self._decoded[path]


def amount_of_motion(frames: Float[Tensor, "f 3 h w"]) -> float:
    """Way of the fastest twentieth of the picture over the frames, by optical flow, over the frame's diagonal.

    The same measure as the rendered world's, where it is known: the longest path of a thing.
    """
    grey: Sequence[np.ndarray] = grey_frames(frames)
    far = 0.0
    for before, after in pairwise(grey):
        far += float(np.quantile(np.linalg.norm(dense_flow(before, after), axis=-1), 0.95))
    return far / math.hypot(*frames.shape[-2:])


def _shaped(frames: Tensor, width: int, height: int) -> Tensor:
    """The largest middle of the wanted shape, at the wanted size."""
    tall, wide = frames.shape[-2:]
    scale = min(tall / height, wide / width)
    high, broad = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (tall - high) // 2, (wide - broad) // 2
    window = frames[..., top : top + high, left : left + broad]
    small = functional.interpolate(window, (height, width), mode="bicubic", antialias=True)
    return small.clamp(0, 1)

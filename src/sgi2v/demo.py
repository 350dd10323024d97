"""The demonstration: one scene without control and with it, drawn side by side, and how far its things went astray."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from jaxtyping import Float32
from PIL import Image
from torch import Tensor

from sgi2v.backbones import Backbone
from sgi2v.controllers import Controller, recommended
from sgi2v.draw import draw_tracks, side_by_side
from sgi2v.errors import FieldError
from sgi2v.evaluation.metrics import MotionError, motion_error
from sgi2v.evaluation.tracker import Tracker
from sgi2v.grid import Grid, Track, Tracks, tracks_of
from sgi2v.pipeline import Progress, generate
from sgi2v.planning import Sampling
from sgi2v.scene import Scene
from sgi2v.video import Video, from_uint8, to_uint8

TITLES: Final = ("no control", "controlled")
_LEAST_HEIGHT: Final = 256  # of each half: a small model's pictures are enlarged, so that lines over them are fine
_SHEET_ROWS: Final = 4


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Clips and figures of a demonstration."""

    plain: Video
    """The scene's image as the model moves it by itself."""
    controlled: Video
    """The same with the scene's motions followed."""
    side_by_side: Video
    """Both, with boxes and paths drawn."""
    sheet: Image.Image
    """Some frames of the side-by-side below each other."""
    errors: tuple[MotionError | None, MotionError | None]
    """Without control and with it: how far what shall move is from its path; None in a scene where nothing shall."""


def shipped_scenes() -> tuple[Path, ...]:
    """Folders of the scenes in the package, by name."""
    folder = Path(__file__).parent / "assets" / "scenes"
    return tuple(sorted(found.parent for found in folder.glob("*/scene.json")))


def shipped_scene(name: str) -> Path:
    """The folder of a scene in the package; ValueError naming those there are."""
    known = {found.name: found for found in shipped_scenes()}
    if name not in known:
        raise FieldError("scene", f"no scene {name!r} ships with sgi2v", f"known are {', '.join(known)}")
    return known[name]


def make_demo(
    scene: Scene,
    *,
    backbone: Backbone,
    tracker: Tracker,
    sampling: Sampling | None = None,
    controller: Controller | None = None,
    progress: Callable[[str], Callable[[Progress], None]] = lambda title: lambda progress: None,
) -> Demo:
    """Generate the scene twice from one seed, with `controller` and without, and compare.

    `controller` is by default SG-I2V as the model recommends it. `progress` gives the callback for the clip of a title.
    Raises what `generate` raises.
    """
    # What is shown beside and on the clips lies in the model's own picture.
    sampling = replace(sampling or Sampling(), padding="keep")
    controller = controller or recommended("sg-i2v", backbone.settings.recommended)
    plain = generate(scene, backbone=backbone, controller=Controller(), sampling=sampling, progress=progress(TITLES[0]))
    controlled = generate(
        scene, backbone=backbone, controller=controller, sampling=sampling, progress=progress(TITLES[1])
    )
    num_frames, _, height, width = plain.frames.shape
    factor = max(1, -(-_LEAST_HEIGHT // height))
    large = _tracks(scene, width * factor, height * factor, num_frames).tracks
    drawn = side_by_side(
        [
            (title, draw_tracks(_enlarged(video.frames, factor), large))
            for title, video in zip(TITLES, (plain, controlled), strict=True)
        ]
    )
    tracks = _tracks(scene, width, height, num_frames)
    return Demo(
        plain=plain,
        controlled=controlled,
        side_by_side=Video(frames=drawn, fps=plain.fps, run=controlled.run),
        sheet=_sheet(drawn),
        errors=(_error(plain.frames, tracks, tracker), _error(controlled.frames, tracks, tracker)),
    )


def _tracks(scene: Scene, width: int, height: int, num_frames: int) -> Tracks:
    return tracks_of(scene, Grid(width=width, height=height, num_frames=num_frames, stride=1))


def _moves(track: Track) -> bool:
    return track.kind == "object" and bool(np.ptp(track.boxes, axis=0).max() > 0)


def _enlarged(frames: Float32[Tensor, "f 3 h w"], factor: int) -> Float32[Tensor, "f 3 H W"]:
    if factor == 1:
        return frames
    return torch.nn.functional.interpolate(frames, scale_factor=factor, mode="bicubic").clamp(0, 1)


def _error(frames: Float32[Tensor, "f 3 h w"], tracks: Tracks, tracker: Tracker) -> MotionError | None:
    """Distance of the things that shall move from their paths in a clip; None where nothing shall."""
    moving = [track for track in tracks.tracks if _moves(track)]
    if not moving:
        return None
    # What lies in the boxes is known from the picture; the model's own first frame may already have lost it.
    picture = from_uint8(np.asarray(tracks.image)[None])
    result = tracker.track(
        torch.cat([picture, frames[1:]]), torch.from_numpy(np.stack([track.boxes[0] for track in moving]))
    )
    wanted = torch.from_numpy(np.stack([track.centers for track in moving]))
    return motion_error(wanted, result, width=frames.shape[-1], height=frames.shape[-2])


def _sheet(frames: Float32[Tensor, "f 3 h w"]) -> Image.Image:
    """Some frames, first and last among them, below each other."""
    rows = np.unique(np.linspace(0, len(frames) - 1, _SHEET_ROWS).round().astype(int))
    return Image.fromarray(np.concatenate(list(to_uint8(frames[rows]))))

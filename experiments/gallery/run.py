"""The gallery's pictures: one scene by every method, and the packaged photographs by the one that moves them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional

from experiments.study import grid_of
from sgi2v.backbones import Backbone
from sgi2v.controllers import recommended
from sgi2v.cut_and_drag import dragged_clip
from sgi2v.demo import shipped_scene
from sgi2v.draw import draw_tracks, side_by_side
from sgi2v.grid import Tracks, tracks_of
from sgi2v.opening import ModelChoice
from sgi2v.pipeline import generate
from sgi2v.planning import Sampling
from sgi2v.scene_io import load_scene
from sgi2v.video import Video

HERE = Path(__file__).parent
NAMES = ("none", "sg-i2v", "time-to-move", "time-to-move+sg-i2v", "freetraj", "freetraj+sg-i2v", "drag-diffusion")
PHOTOS = "cat", "rocket", "coffee"
ON_PHOTOS = "none", "sg-i2v", "time-to-move"
SHOWN = 0, 4, 9, -1  # frames of a photograph's clip
ROW = 24  # pixels of a row's title


@dataclass(frozen=True, kw_only=True)
class Options(ModelChoice):
    """Make one scene by every method and some photographs by three, and lay the clips side by side."""

    scene: str = "shapes"
    """A scene in the package."""
    seed: int = 817
    """Seed of all clips."""
    scale: float = 0.4
    """Size of the scene's pictures over that of the clips; photographs are twice as large."""
    output: Path = HERE.parents[1] / "docs"
    """Folder for gallery.jpg, gallery.gif and photographs.jpg."""


def tracks_for(name: str, backbone: Backbone) -> Tracks:
    """A packaged scene's tracks in the model's own size."""
    return tracks_of(load_scene(shipped_scene(name)), grid_of(backbone))


def clips_of(name: str, methods: tuple[str, ...], backbone: Backbone, seed: int) -> Iterator[tuple[str, Tensor]]:
    """The frames of a packaged scene by each method, as the model recommends it."""
    scene = load_scene(shipped_scene(name))
    for method in methods:
        controller = recommended(method, backbone.settings.recommended)
        video = generate(scene, backbone=backbone, controller=controller, sampling=Sampling(seed=seed))
        yield method, video.frames
        print(name, method, flush=True)


def marked(frames: Tensor, tracks: Tracks, scale: float) -> Tensor:
    """Frames with the wanted boxes and paths, in another size."""
    drawn = draw_tracks(frames, tracks.tracks)
    return functional.interpolate(drawn, scale_factor=scale, mode="bicubic", antialias=True).clamp(0, 1)


def sheet(rows: Mapping[str, Tensor]) -> Image.Image:
    """Clips as rows of frames, each under its title."""
    parts = []
    for title, frames in rows.items():
        strip = torch.cat(list(frames), dim=-1)
        pixels = (strip.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        line = Image.new("RGB", (pixels.shape[1], ROW), "#1b1d22")
        ImageDraw.Draw(line).text((6, 3), title, fill="white", font_size=15)
        parts += [np.asarray(line), pixels]
    return Image.fromarray(np.concatenate(parts))


def main(options: Options) -> None:
    """Write the pictures."""
    torch.set_num_threads(1)
    backbone = options.load(options.outline())
    tracks = tracks_for(options.scene, backbone)
    clips = {"pasted, no model": dragged_clip(tracks, backbone.settings.num_frames).frames}
    clips |= dict(clips_of(options.scene, NAMES, backbone, options.seed))
    drawn = {name: marked(frames, tracks, options.scale) for name, frames in clips.items()}
    sheet(drawn).save(options.output / "gallery.jpg", quality=88)
    shown = list(drawn.items())
    halves = [side_by_side(shown[k : k + 4]) for k in (0, 4)]
    Video(frames=torch.cat(halves, dim=-2), fps=4.0, run=None).save(options.output / "gallery.gif")
    photographs = {
        f"{name}: {method}": marked(frames, tracks_for(name, backbone), 2 * options.scale)[list(SHOWN)]
        for name in PHOTOS
        for method, frames in clips_of(name, ON_PHOTOS, backbone, options.seed)
    }
    sheet(photographs).save(options.output / "photographs.jpg", quality=85)


if __name__ == "__main__":
    main(tyro.cli(Options))

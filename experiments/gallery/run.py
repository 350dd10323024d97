"""The gallery's pictures: one scene by every method, as a sheet of frames and as a moving picture."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image, ImageDraw
from torch.nn import functional

from sgi2v.backbones import load_backbone
from sgi2v.controllers import recommended
from sgi2v.crude import crude_clip
from sgi2v.demo import shipped_scene
from sgi2v.draw import draw_tracks, side_by_side
from sgi2v.generate import Sampling, generate
from sgi2v.grid import tracks_of
from sgi2v.scene_io import load_scene
from sgi2v.video import Video

HERE = Path(__file__).parent
NAMES = (
    "none",
    "sg-i2v",
    "time-to-move",
    "time-to-move+sg-i2v",
    "freetraj",
    "freetraj+sg-i2v",
    "drag-diffusion",
)
ROW = 24  # pixels of a row's title


@dataclass(frozen=True, kw_only=True)
class Options:
    """Make one scene by every method and lay the clips side by side."""

    scene: str = "shapes"
    """A scene in the package."""
    backbone: str = "bundled"
    """The model."""
    seed: int = 817
    """Seed of all clips."""
    scale: float = 0.4
    """Size of the pictures over that of the clips."""
    output: Path = HERE.parents[1] / "docs"
    """Folder for gallery.jpg and gallery.gif."""


def main(options: Options) -> None:
    """Write both pictures."""
    torch.set_num_threads(1)
    backbone = load_backbone(options.backbone)
    settings = backbone.settings
    scene = load_scene(shipped_scene(options.scene))
    grid = backbone.grid(settings.width, settings.height, settings.num_frames)
    tracks = tracks_of(scene, grid)
    clips = {"pasted, no model": crude_clip(tracks, grid.num_frames).frames}
    for name in NAMES:
        controller = recommended(name, settings.recommended)
        sampling = Sampling(seed=options.seed)
        clips[name] = generate(scene, backbone=backbone, controller=controller, sampling=sampling).frames
        print(name, flush=True)
    drawn = []
    for name, frames in clips.items():
        marked = draw_tracks(frames, tracks.tracks)
        sized = functional.interpolate(marked, scale_factor=options.scale, mode="bicubic", antialias=True)
        drawn.append((name, sized.clamp(0, 1)))
    rows = []
    for name, frames in drawn:
        strip = torch.cat(list(frames), dim=-1)
        pixels = (strip.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        title = Image.new("RGB", (pixels.shape[1], ROW), "#1b1d22")
        ImageDraw.Draw(title).text((6, 3), name, fill="white", font_size=15)
        rows += [np.asarray(title), pixels]
    Image.fromarray(np.concatenate(rows)).save(options.output / "gallery.jpg", quality=88)
    halves = [side_by_side(drawn[k : k + 4]) for k in (0, 4)]
    Video(frames=torch.cat(halves, dim=-2), fps=4.0, run=None).save(options.output / "gallery.gif")


if __name__ == "__main__":
    main(tyro.cli(Options))

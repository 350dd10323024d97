"""Shows how well a thing follows its path under the model's own recipe, with a sheet of the first scenes."""

import sys
from collections.abc import Mapping
from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from experiments.study import Measured, Options, Study, main
from experiments.study.options import EXPERIMENTS, OUT
from sgi2v.backbones import Outline
from sgi2v.controllers import Controller, recommended
from sgi2v.draw import draw_tracks
from sgi2v.evaluation.datasets import Case
from sgi2v.grid import Grid, tracks_of
from sgi2v.video import from_uint8, to_uint8

SHIPPED = EXPERIMENTS.parent / "docs" / "follow.jpg"
SHOWN = 4  # scenes, the first ones
COLUMNS = 5  # frames of a clip
WIDEST = 1200  # pixels
METHODS = ("true", "none", "sg-i2v")


def variants(outline: Outline) -> Mapping[str, Controller]:
    return {"sg-i2v": recommended("sg-i2v", outline.settings.recommended)}


STUDY = Study(
    folder="follow",
    axis="method",
    variants=variants,
    extra=("reconstructed", "paste"),
    costs=True,
    frechet=True,
    options=Options(recipe=None, limit=64, seeds=(817, 818, 819)),
)


def sheet(measured: Measured) -> Image.Image | None:
    """A sheet of the first scenes, a row a method: frames first to last, the wanted box and path drawn.

    None where the rows were made elsewhere, and their clips are not here.
    """
    rows = []
    for index in range(min(SHOWN, len(measured.cases))):
        case = measured.cases[index]
        for method in METHODS:
            made = (r["clip"] for r in measured.rows if r["case"] == case.name and r["method"] == method)
            clip = next((clip for key in made if (clip := measured.store.load_clip(key))), None)
            if clip is None:
                return None
            rows.append(_row(from_uint8(clip[0]), case))
    whole = Image.fromarray(to_uint8(torch.cat(rows, -2)[None])[0])
    whole.thumbnail((WIDEST, whole.height))
    return whole


def _row(frames: Tensor, case: Case) -> Tensor:
    num, _, height, width = frames.shape
    tracks = tracks_of(case.scene, Grid(width=width, height=height, num_frames=num, stride=1)).tracks
    scale = max(1, round(192 / width))
    large = functional.interpolate(frames, scale_factor=float(scale), mode="nearest")
    drawn = draw_tracks(large, [replace(track, boxes=track.boxes * scale) for track in tracks])
    return torch.cat(list(drawn[_picked(num)]), -1)


def _picked(num_frames: int) -> list[int]:
    return [round(k * (num_frames - 1) / (COLUMNS - 1)) for k in range(COLUMNS)]


if __name__ == "__main__":
    measured = main(STUDY)
    shown = sheet(measured)
    if shown is None:
        print("the first scenes' clips are not here: no new sheet of them", file=sys.stderr)
    else:
        shown.save(SHIPPED if measured.ships else OUT / STUDY.folder / "follow.jpg", quality=88)

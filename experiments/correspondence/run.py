"""Shows where a loss would put the thing, by what it reads, noise level, and what else is in the picture.

    python -m experiments.correspondence.run

The studies `layers` and `feature_source` say what steers; this says what each of their losses knows. A true clip is
noised and shown to the network with its first frame, and the box's content is compared, by the loss itself, with every
place of the later frames: how far from the thing is the loss least? And again with a disc behind the thing's way, of the
thing's own mean colour or of the one most unlike it: a feature that goes by colour alone goes to the former.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
import tyro
from jaxtyping import Float
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

import experiments.feature_source.run
import experiments.layers.run
from experiments.study import StudiedModel, base_of, grid_of
from experiments.study.options import EXPERIMENTS, OUT
from experiments.study.shipped import packed_rows
from experiments.study.table import machine_of, text_of, write_between_marks
from sgi2v.backbones import Backbone, Outline, Text
from sgi2v.controllers import SGI2V
from sgi2v.device import flushed_denormals
from sgi2v.evaluation.correspondence import least_moves, looks, losses
from sgi2v.evaluation.datasets import Case
from sgi2v.evaluation.metrics import bootstrap_mean
from sgi2v.evaluation.rows import append_row, read_rows, row_key
from sgi2v.grid import Grid, tracks_of
from sgi2v.records import Json
from sgi2v.step import Level
from sgi2v.video import to_uint8

HERE = Path(__file__).parent
DRAWN: Final = {
    "B3": "#b04a2f",
    "M3": "#1f5fa8",
    "T3": "#4a8a3c",
    "up-block output": "#7a4aa0",
    "self attention": "#999999",
    "temporal attention": "#c79a2b",
    "stays": "#000000",
}
"""Lines on the plot's left side, and their colours."""
BESIDE: Final = ("whole cells", "stays")
DEFAULT: Final = "recommended"
DISCS: Final = {"as it is": None, "own colour": True, "other colour": False}
_SEED: Final = 817


@dataclass(frozen=True, kw_only=True)
class Options(StudiedModel):
    """Measure what is not yet in the file of rows, then write the table and the plot."""

    levels: tuple[float, ...] = (1.4, 2.6, 5.2, 16.0, 40.0)
    """Noise levels sigma."""


def with_disc(case: Case, *, own: bool) -> Case:
    """The case with a still disc as large as the thing behind its way, as far from it as can be.

    Its colour is the thing's mean in the first frame, or the corner of the colour cube that is farthest from that.
    """
    assert case.truth is not None and case.masks is not None
    frames, masks = case.truth, case.masks[0][:, None]
    height, width = frames.shape[-2:]
    radius = float((masks[0].sum() / torch.pi).sqrt())
    grid = Grid(width=width, height=height, num_frames=len(frames), stride=1)
    (track, *_) = tracks_of(case.scene, grid).tracks
    centers = torch.from_numpy(track.centers)
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    near = (torch.stack([x, y], -1)[..., None, :] - centers).norm(dim=-1).amin(-1)
    inside = (x >= radius) & (x <= width - radius) & (y >= radius) & (y <= height - radius)
    at = int(torch.where(inside, near, -1.0).argmax())
    disc = (radius + 0.5 - ((x - x.flatten()[at]).hypot(y - y.flatten()[at]))).clamp(0, 1)
    colour = (frames[0] * masks[0]).sum((-2, -1)) / masks[0].sum()
    if not own:
        colour = (colour < 0.5).float()
    alpha = disc * (1 - masks)
    shown = (1 - alpha) * frames + alpha * colour[:, None, None]
    first = Image.fromarray(to_uint8(shown[:1])[0])
    return replace(case, scene=replace(case.scene, image=first), truth=shown, rule="")


@torch.no_grad()
def measured(
    case: Case, backbone: Backbone, variants: Mapping[str, SGI2V], levels: Sequence[float]
) -> Mapping[str, list[float]]:
    """Mean distance in pixels, by label and level, from the least loss to where the thing is, in frames 1 and later.

    The box moves by whole cells, without leaving the frame. Also "whole cells", what that alone costs, and "stays".
    """
    assert case.truth is not None
    grid = grid_of(backbone)
    tracks = tracks_of(case.scene, grid)
    top, left, bottom, right = grid.cells(tracks.boxes([0]))[0, 0].tolist()
    way = torch.from_numpy(tracks.tracks[0].centers).double()
    way = way[1:] - way[0]
    generator = torch.Generator().manual_seed(_SEED)
    condition = backbone.encode(tracks.image, Text(), grid, generator)
    clean = backbone.encode_frames(case.truth, grid)
    noise = torch.randn(clean.shape, generator=generator).to(clean.device)
    (heatmap_std,) = {variant.heatmap_std for variant in variants.values()}
    names = tuple(dict.fromkeys(layer for variant in variants.values() for layer in variant.layers))
    found: dict[str, list[float]] = {label: [] for label in variants}
    for sigma in levels:
        level = Level(signal=1.0, noise=sigma)
        maps = backbone.features(clean + sigma * noise, level, condition, names)
        each = {
            name: losses(looks(value.cpu(), name), (top, left, bottom, right), heatmap_std, (grid.rows, grid.columns))
            for name, value in maps.items()
        }
        for label, variant in variants.items():
            costs = torch.stack([each[name] for name in variant.layers]).sum(0)
            gone = least_moves(costs, (top, left)) * grid.stride
            found[label].append(float((gone - way).norm(dim=-1).mean()))
    nearest = (way / grid.stride).round() * grid.stride
    for label, distances in zip(BESIDE, (nearest - way, way), strict=True):
        found[label] = [float(distances.norm(dim=-1).mean())] * len(levels)
    return found


def variants_of(outline: Outline) -> Mapping[str, SGI2V]:
    """Variants of the studies `layers` and `feature_source`, each once."""
    both = {**experiments.layers.run.variants(outline), **experiments.feature_source.run.variants(outline)}
    found: dict[str, SGI2V] = {}
    for label, variant in both.items():
        assert isinstance(variant, SGI2V)
        if variant not in found.values():
            found[label] = variant
    return found


def steered(rows: Sequence[Json], backbone: Backbone) -> Mapping[str, float]:
    """ObjMC in pixels by label, from the rows that the two studies have committed of this model, size and these scenes."""
    settings = backbone.settings
    size, cases = [settings.width, settings.height, settings.num_frames], {row["case"] for row in rows}
    found: dict[str, list[float]] = {}
    for study in ("layers", "feature_source"):
        for row in packed_rows(EXPERIMENTS / study / "rows.jsonl.xz"):
            if row["seed"] is None:
                continue  # made without a model
            same = row["backbone"]["weights_sha256"] == backbone.weights_sha256 and row["size"] == size
            if same and row["case"] in cases:
                found.setdefault(row["method"], []).append(row["metrics"]["objmc"])
    return {label: sum(values) / len(values) for label, values in found.items()}


def all_rows(options: Options, backbone: Backbone, variants: Mapping[str, SGI2V], file: Path) -> list[Json]:
    """A row for each scene with each disc; those that the file lacks are made and added to it."""
    grid = grid_of(backbone)
    cases = options.scenes(grid)
    known = {row["key"]: row for row in read_rows(file)}
    rows = []
    for index in range(len(cases)):
        case = cases[index]
        for disc, own in DISCS.items():
            identity = {
                "case": case.name,
                "disc": disc,
                "levels": list(options.levels),
                "size": {"width": grid.width, "height": grid.height, "num_frames": grid.num_frames},
                "weights": backbone.weights_sha256,
                "dtype": str(backbone.dtype),
                "variants": {label: [*v.layers, v.heatmap_std] for label, v in variants.items()},
            }
            key = row_key(identity)
            if key not in known:
                shown = case if own is None else with_disc(case, own=own)
                errors = measured(shown, backbone, variants, options.levels)
                rounded = {label: [round(value, 2) for value in errors[label]] for label in errors}
                known[key] = {"key": key, "case": case.name, "disc": disc, "px": rounded}
                append_row(file, known[key])
                print(f"{index + 1} of {len(cases)} scenes, {disc}", file=sys.stderr)
            rows.append(known[key])
    return rows


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Correlation of ranks; of equal values the first ranks first."""
    one, other = (np.argsort(np.argsort(values, kind="stable")).astype(np.float64) for values in (first, second))
    return float(np.corrcoef(one, other)[0, 1])


def errors_of(rows: Sequence[Json], disc: str, label: str) -> Float[Tensor, "n s"]:
    """Distances in pixels by scene and level."""
    found = [row["px"][label] for row in rows if row["disc"] == disc]
    return torch.tensor(found, dtype=torch.float64)


def table(
    rows: Sequence[Json], options: Options, backbone: Backbone, guided: Sequence[int], objmc: Mapping[str, float]
) -> str:
    """The table; ``guided`` are the places among the levels at which the model's SG-I2V may optimise."""
    labels = [*variants_of(backbone.outline), *BESIDE]
    marks = [f"{sigma:g}{'*' if index in guided else ''}" for index, sigma in enumerate(options.levels)]

    def mean_of(disc: str, label: str) -> Float[Tensor, " n"]:
        return errors_of(rows, disc, label)[:, list(guided)].mean(1)

    heads = [
        "the loss of",
        *(f"σ {mark}" for mark in marks),
        "mean of *",
        f"less {DEFAULT}",
        "own colour less other",
        "steers to, px",
    ]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for label in labels:
        cells = [f"{value:.1f}" for value in errors_of(rows, "as it is", label).mean(0).tolist()]
        plain = mean_of("as it is", label)
        intervals = (
            plain,
            plain - mean_of("as it is", DEFAULT),
            mean_of("own colour", label) - mean_of("other colour", label),
        )
        cells += [text_of(bootstrap_mean(values), 1) for values in intervals]
        cells += [f"{objmc[label]:.1f}" if label in objmc else "–"]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    settings = backbone.settings
    lines += [
        "",
        f"{options.limit} held-out rendered {options.kind} scenes (set {options.scene_set}), {settings.num_frames} frames of "
        f"{settings.width}×{settings.height}, {machine_of(backbone, options.threads)}, one draw of noise. Mean distance in pixels, 95 % bootstrap interval over scenes; *: the "
        "levels inside the range in which SG-I2V optimises, steps of the recipe or not; differences are paired. Steers "
        "to: ObjMC in the studies `layers` and `feature_source`.",
    ]
    known = [label for label in labels if label in objmc]
    if known:
        wanted = [objmc[label] for label in known]
        by_level = torch.stack([errors_of(rows, "as it is", label).mean(0) for label in known])
        agreed = [
            f"{spearman(column.tolist(), wanted):.2f} at σ {mark}"
            for column, mark in zip(by_level.T, marks, strict=True)
        ]
        lines += [
            "",
            f"Spearman's correlation of that distance and what the loss steers to, over {len(known)} losses: "
            f"{', '.join(agreed)}; {spearman(by_level[:, list(guided)].mean(1).tolist(), wanted):.2f} for the mean of *.",
        ]
    return "\n".join(lines)


def plot(rows: Sequence[Json], options: Options, guided: Sequence[int], objmc: Mapping[str, float], file: Path) -> None:
    """Distance by level on the left; on the right what it has to do with steering."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for label, colour in DRAWN.items():
        style = "--" if label == "stays" else "o-"
        values = errors_of(rows, "as it is", label).mean(0)
        left.plot(options.levels, values, style, color=colour, label=label, markersize=3)
    left.set_xscale("log", base=2)
    left.set_xticks(options.levels, [f"{sigma:g}" for sigma in options.levels])
    left.set_xlabel("noise level σ", fontsize=8)
    left.set_ylabel("from the least loss to the thing, pixels", fontsize=8)
    left.legend(fontsize=6)
    for label, reached in objmc.items():
        if label in rows[0]["px"]:
            x = float(errors_of(rows, "as it is", label)[:, list(guided)].mean())
            right.plot(x, reached, "o", color="#1f5fa8", markersize=3)
            right.annotate(label, (x, reached), fontsize=5, xytext=(3, 2), textcoords="offset points")
    right.set_xlabel("from the least loss to the thing, pixels, mean of the guided levels", fontsize=8)
    right.set_ylabel("ObjMC when steered by it, pixels", fontsize=8)
    for axes in (left, right):
        axes.tick_params(labelsize=7)
        axes.set_ylim(bottom=0)
    figure.savefig(file, dpi=110)


@flushed_denormals()
def main(options: Options) -> None:
    """Run it from the command line."""
    backbone = options.opened()
    variants = variants_of(backbone.outline)
    inside = base_of(backbone).guided
    assert inside.unit == "sigma", "levels are told by sigma"
    guided = [index for index, sigma in enumerate(options.levels) if inside.low <= sigma <= inside.high]
    ships = replace(options, threads=1) == Options()
    place = HERE if ships else OUT / "correspondence"
    place.mkdir(parents=True, exist_ok=True)
    rows = all_rows(options, backbone, variants, place / "rows.jsonl")
    objmc = steered(rows, backbone)
    text = table(rows, options, backbone, guided, objmc)
    print(text)
    write_between_marks(place / "README.md", text, "")
    plot(rows, options, guided, objmc, place / "plot.png")


if __name__ == "__main__":
    main(tyro.cli(Options, prog="python -m experiments.correspondence.run"))

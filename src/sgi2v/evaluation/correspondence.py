"""Places at which a loss would put a thing, by what a layer says of clips in which a tracker knows where it is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor
from torch.nn import functional

from sgi2v.alignment import gaussian_profile
from sgi2v.attention import own_positions
from sgi2v.backbones.base import MATCHES, Backbone, Text
from sgi2v.controllers import SGI2V, Controller
from sgi2v.errors import FieldError
from sgi2v.evaluation.tracker import Tracker
from sgi2v.grid import Grid, Tracks, tracks_of
from sgi2v.pipeline import Progress, generate
from sgi2v.planning import Sampling
from sgi2v.scene import Scene
from sgi2v.step import Level

_AT_ONCE: Final = 16  # features read in one pass: their maps lie in memory side by side


def losses(
    maps: Float[Tensor, "f d v u"], box: tuple[int, int, int, int], heatmap_std: float, size: tuple[int, int]
) -> Float[Tensor, "f p q"]:
    """SG-I2V's loss of one map, times its channels, were the box with its corner at row p, column q.

    ``box`` is half-open (top, left, bottom, right) in cells of a latent grid of ``size`` (rows, columns). It stays
    inside.
    """
    top, left, bottom, right = box
    # Differences do not heed an origin; with this one little is lost where squares nearly cancel.
    origin = maps.mean((0, 2, 3), keepdim=True)
    up = functional.interpolate(maps - origin, size, mode="bilinear", align_corners=False)
    target = up[0, :, top:bottom, left:right]
    profiles = (gaussian_profile(np.arange(n), np.array([n]), heatmap_std) for n in (bottom - top, right - left))
    rows, columns = (torch.from_numpy(profile).to(up) for profile in profiles)
    weight = rows[:, None] * columns
    squares = functional.conv2d(up.square().sum(1, keepdim=True), weight[None, None])
    products = functional.conv2d(up, (weight * target)[None])
    total: Tensor = squares - 2 * products + (weight * target.square()).sum()
    return total[:, 0] / weight.sum()


def looks(maps: Float[Tensor, "f d v u"], layer: str) -> Float[Tensor, "f d v u"]:
    """Maps as :func:`losses` compares them: of positions found (``match``) the first frame's are its places' own."""
    if layer.partition(":")[2] not in MATCHES:
        return maps
    return torch.cat([own_positions((maps.shape[2], maps.shape[3]), maps.device)[None], maps[1:]])


def least_moves(costs: Float[Tensor, "f p q"], corner: tuple[int, int]) -> Float64[Tensor, "g 2"]:
    """Moves (x, y) of a box at ``corner`` (row, column) to where the loss is least in later frames; all in cells."""
    best = costs[1:].flatten(1).argmin(1)
    places = torch.stack([best % costs.shape[2], best // costs.shape[2]], -1).double()
    return places - torch.tensor([corner[1], corner[0]], dtype=torch.float64, device=places.device)


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A clip with things in it that a tracker follows, as a layer shall find them."""

    tracks: Tracks
    """The scene at the clip's size."""
    frames: Float[Tensor, "f 3 h w"]
    moves: Float64[Tensor, "n k 2"]
    """From where each box's content was at first to where it is in latent frame k, (x, y) in pixels."""
    counts: Bool[Tensor, "n k"]
    """True where the tracker saw it in all pictures of the latent frame, its box inside the picture, and a cell or more
    from where it began: of what stays, a layer that knows nothing but its own place would be right."""

    @classmethod
    def of(cls, frames: Float[Tensor, "f 3 h w"], tracks: Tracks, grid: Grid, tracker: Tracker) -> "Watched":
        """The clip as a tracker sees it; in a latent frame a thing is where it is on average over its pictures."""
        boxes = torch.from_numpy(tracks.boxes([0])[:, 0])
        found = tracker.track(frames.cpu(), boxes)
        groups = [list(grid.group(k)) for k in range(grid.latent_frames)]
        centers = torch.stack([found.centers[:, group].mean(1) for group in groups], 1)
        seen = torch.stack([~found.lost[:, group].any(1) for group in groups], 1)
        moves = centers - centers[:, :1]
        low, high = (boxes[:, None, k : k + 2] + moves for k in (0, 2))
        inside = (low > -grid.stride / 2).all(-1) & (
            high < torch.tensor([grid.width, grid.height]) + grid.stride / 2
        ).all(-1)
        return cls(
            tracks=tracks, frames=frames, moves=moves, counts=seen & inside & (moves.norm(dim=-1) >= grid.stride)
        )


@dataclass(frozen=True, kw_only=True)
class Found:
    """Distances, in pixels, from where a layer's loss is least to where the tracker saw the thing."""

    levels: tuple[Level, ...]
    distances: Mapping[str, Float64[Tensor, "l n"]]
    """By layer, ``<block>:<source>``: for each level, each thing in each frame that counts."""
    whole_cells: Float64[Tensor, " n"]
    """Least that moving by whole cells leaves."""
    stays: Float64[Tensor, " n"]
    """Distance of a box that stays."""
    cell: int
    """Side of a latent cell in pixels."""
    num_clips: int

    def mean(self, layer: str) -> Float64[Tensor, " l"]:
        """Mean distance in pixels at each level."""
        return self.distances[layer].mean(1)

    def near(self, layer: str) -> Float64[Tensor, " l"]:
        """Share, 0..1, that lies within one cell at each level."""
        return (self.distances[layer] <= self.cell).double().mean(1)

    def best(self, source: str, count: int) -> tuple[str, ...]:
        """The layers of a source that are nearest, on the mean over levels, in the order of a pass."""
        own = [layer for layer in self.distances if layer.partition(":")[2] == source]
        chosen = sorted(own, key=lambda layer: float(self.mean(layer).mean()))[:count]
        return tuple(layer for layer in own if layer in chosen)


@dataclass(frozen=True, kw_only=True)
class ProbeProgress:
    """Place of a probe on its way."""

    clip: int
    """Clips begun."""
    num_clips: int
    inner: Progress
    """Making it, or, where nothing is left to be sampled, reading it."""


def guided_levels(controller: SGI2V, levels: Sequence[Level], count: int = 4) -> tuple[Level, ...]:
    """At most so many of the levels at which SG-I2V optimises, evenly spread from the first to the last."""
    inside = [level for level, acts in zip(levels, controller.schedule(levels).acts, strict=False) if acts]
    picked = np.unique(np.linspace(0, len(inside) - 1, min(count, len(inside))).round().astype(int))
    return tuple(inside[k] for k in picked)


def nearest_levels(wanted: Sequence[float], levels: Sequence[Level]) -> tuple[Level, ...]:
    """Of a schedule's levels those nearest to noise levels ``s`` (0..1), each once; FieldError for one outside 0..1."""
    for s in wanted:
        if not 0 < s < 1:
            raise FieldError("noise_levels", f"{s:g} does not lie between 0 and 1", "s = noise / (signal + noise)")
    chosen = (min(levels[:-1], key=lambda level: abs(level.noise_level - s)) for s in wanted)
    return tuple(dict.fromkeys(chosen))


@torch.no_grad()
def distances(
    clip: Watched,
    backbone: Backbone,
    grid: Grid,
    layers: Sequence[str],
    levels: Sequence[Level],
    *,
    text: Text,
    heatmap_std: float,
    seed: int,
    told: Callable[[int], None] = lambda _: None,
) -> Mapping[str, Float64[Tensor, "l n"]]:
    """For each layer and level the distances, in pixels, of what counts; the clip noised by one draw of ``seed``.

    ``told`` is given the number of levels done.
    """
    generator = torch.Generator().manual_seed(seed)
    condition = backbone.encode(clip.tracks.image, text, grid, generator)
    clean = backbone.encode_frames(clip.frames.to(backbone.device), grid)
    noise = backbone.noise(grid, generator)
    corners = grid.cells(clip.tracks.boxes([0]))[:, 0].tolist()
    size = (grid.rows, grid.columns)
    found: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    for done, level in enumerate(levels):
        x = level.signal * clean + level.noise * noise
        for start in range(0, len(layers), _AT_ONCE):
            read = backbone.features(x, level, condition, layers[start : start + _AT_ONCE])
            for layer, maps in read.items():
                shown, each = looks(maps.float(), layer), []
                for (top, left, bottom, right), way, counts in zip(corners, clip.moves, clip.counts, strict=True):
                    if counts.any():
                        costs = losses(shown, (top, left, bottom, right), heatmap_std, size)
                        gone = least_moves(costs, (top, left)).cpu() * grid.stride
                        each.append((gone - way[1:]).norm(dim=-1)[counts[1:]])
                found[layer].append(torch.cat(each))
        told(done + 1)
    return {layer: torch.stack(values) for layer, values in found.items()}


def probe(
    scenes: Sequence[Scene],
    *,
    backbone: Backbone,
    layers: Sequence[str],
    levels: Sequence[Level],
    tracker: Tracker,
    sampling: Sampling,
    seeds: Sequence[int],
    heatmap_std: float = 0.4,
    progress: Callable[[ProbeProgress], None] = lambda _: None,
) -> Found:
    """Knowledge of each layer of where things are in the model's own clips of the scenes, made without control.

    Each clip's latents are noised to each level and read with its picture as condition, in one pass without steering.
    SG-I2V's own loss of each layer by itself is computed for a box at every place of each later frame, moved by whole
    cells; a layer's answer is where it is least. FieldError where nothing moves in any clip.
    """
    settings = backbone.settings
    width, height, num_frames = (
        getattr(sampling, name) or getattr(settings, name) for name in ("width", "height", "num_frames")
    )
    grid = backbone.grid(width, height, num_frames)
    parts: list[Mapping[str, Tensor]] = []
    moves: list[Tensor] = []
    clips = [(scene, seed) for scene in scenes for seed in seeds]
    for number, (scene, seed) in enumerate(clips):
        place = number + 1

        def making(inner: Progress, place: int = place) -> None:
            progress(ProbeProgress(clip=place, num_clips=len(clips), inner=inner))

        def reading(done: int, place: int = place) -> None:
            share = done / len(levels)
            making(Progress(phase="sample", step=done, num_steps=len(levels), fraction=share), place)

        own = Sampling(
            seed=seed, num_steps=sampling.num_steps, width=width, height=height, num_frames=num_frames, padding="keep"
        )
        video = generate(scene, backbone=backbone, controller=Controller(), sampling=own, progress=making)
        clip = Watched.of(video.frames, tracks_of(scene, grid), grid, tracker)
        if clip.counts.any():
            text = Text(prompt=scene.prompt)
            read = distances(
                clip, backbone, grid, layers, levels, text=text, heatmap_std=heatmap_std, seed=seed, told=reading
            )
            parts.append(read)
            moves.append(clip.moves[clip.counts])
    if not parts:
        raise FieldError(
            "scenes", f"in none of {len(clips)} clips did a tracked thing move by a cell", "give others, or more seeds"
        )
    ways = torch.cat(moves)
    return Found(
        levels=tuple(levels),
        distances={layer: torch.cat([part[layer] for part in parts], 1) for layer in layers},
        whole_cells=((ways / grid.stride).round() * grid.stride - ways).norm(dim=-1),
        stays=ways.norm(dim=-1),
        cell=grid.stride,
        num_clips=len(clips),
    )

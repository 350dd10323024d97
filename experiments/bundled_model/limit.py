"""Measures how well a matched filter finds a thing in a noised clip: a yardstick for features, by noise level.

    python -m experiments.bundled_model.limit

It is told all that a network is shown, and more: the thing's own outline in the first frame, that it only slides, that
nothing else moves. It asks of every place whether the noisy latents are likelier with the thing there than with the first
frame's background: in each frame by itself, and over the whole clip by dynamic programming along the likeliest path. It
knows whole cells only, and not what the thing covered, so it is a yardstick and no bound.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from types import MappingProxyType
from typing import Literal

import torch
import tyro
from diffusers import AutoencoderKLTemporalDecoder
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sgi2v.backbones.folder import bundled_folder
from sgi2v.evaluation.held_out import HeldOutWorld
from sgi2v.training.feed import CELL
from sgi2v.world import Clip

FIRST_SEED = 9_000_000
SLIDING: Mapping[str, float] = MappingProxyType(dict.fromkeys(("turning", "blurred", "lighting"), 0.0))


@dataclass(frozen=True, kw_only=True)
class Options:
    """Print a table: mean distances in pixels."""

    kinds: tuple[Literal["simple", "lifelike"], ...] = ("simple", "lifelike")
    """Worlds."""
    sizes: tuple[tuple[int, int, int], ...] = ((192, 128, 8), (320, 192, 14))
    """Width and height in pixels and frames of the clips."""
    levels: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
    """Noise levels sigma."""
    num: int = 8
    """Clips of each kind and size, of the validation set."""


def extent(cover: Float[Tensor, "h w"]) -> tuple[slice, slice]:
    """The rows and columns of the cells that the thing covers."""
    rows, columns = torch.nonzero(cover, as_tuple=True)
    return slice(int(rows.min()), int(rows.max()) + 1), slice(int(columns.min()), int(columns.max()) + 1)


def evidence(
    noisy: Float[Tensor, "f c h w"], first: Float[Tensor, "c h w"], cover: Float[Tensor, "h w"]
) -> Float[Tensor, "f p q"]:
    """Evidence that the thing is at a place rather than nowhere: a difference of squared errors.

    Entry (y, x): the cell (half its height, half its width) from the corner of its extent lies at row y, column x. What
    is outside the frame counts nothing.
    """
    part = extent(cover)
    seen, thing = cover[part][None, None], (cover * first)[:, *part][None]
    margin = (seen.shape[2] // 2, seen.shape[3] // 2)

    def summed(cells: Tensor, weight: Tensor) -> Tensor:
        return functional.conv2d(cells, weight, padding=margin)[:, 0]

    without = summed(((noisy - first).square() - noisy.square()).sum(1, keepdim=True), seen)
    square = summed(torch.ones_like(noisy[:1, :1]), seen * thing.square().sum(1, keepdim=True))
    scores: Tensor = without + 2 * summed(noisy, thing) - square
    return scores


def along_paths(scores: Float[Tensor, "f p q"], start: tuple[int, int], reach: int) -> Float[Tensor, "f p q"]:
    """The best sum over a path from `start` through each place of each frame, moving at most `reach` cells a frame."""

    def swept(order: Sequence[int], begin: Tensor) -> dict[int, Tensor]:
        best, at = {order[0]: begin}, begin
        for frame in order[1:]:
            at = functional.max_pool2d(at[None], 2 * reach + 1, 1, reach)[0] + scores[frame]
            best[frame] = at
        return best

    known = torch.full_like(scores[0], -torch.inf)
    known[start] = 0.0
    frames = range(len(scores))
    forward, backward = swept(frames, known), swept(frames[::-1], scores[-1])
    return torch.stack([forward[frame] + backward[frame] - scores[frame] for frame in frames])


def distances(
    clip: Clip, autoencoder: AutoencoderKLTemporalDecoder, level: float, generator: torch.Generator
) -> tuple[list[float], list[float], list[float]]:
    """Pixels between thing 0's true middle and where it is found: in frames by themselves, over the clip, or unmoved.

    Of the frames in which it has moved by more than its half size.
    """
    moved = (clip.centers[0] - clip.centers[0, :1]).norm(dim=-1)
    size = (clip.boxes[0, 0, 2:] - clip.boxes[0, 0, :2]).amin() / 2
    frames = [frame for frame in range(1, len(moved)) if moved[frame] > size]
    cover = (functional.avg_pool2d(clip.masks[0, :1], CELL)[0] > 0.5).float()
    if not frames or not cover.any():
        return [], [], []
    with torch.no_grad():
        latents = autoencoder.encode(2 * clip.frames - 1).latent_dist.mode() * autoencoder.config.scaling_factor
    noisy = latents + level * torch.randn(latents.shape, generator=generator)
    scores = evidence(noisy, latents[0], cover)
    rows, columns = extent(cover)
    start = (rows.start + (rows.stop - rows.start) // 2, columns.start + (columns.stop - columns.start) // 2)
    reach = max(1, int((clip.centers[0].diff(dim=0).abs().amax() / CELL).ceil()))
    found = []
    for maps in (scores, along_paths(scores, start, reach)):
        away = []
        for frame in frames:
            y, x = divmod(int(maps[frame].argmax()), maps.shape[-1])
            offset = torch.tensor([x - start[1], y - start[0]]) * CELL
            away.append(float((clip.centers[0, 0] + offset - clip.centers[0, frame]).norm()))
        found.append(away)
    return found[0], found[1], moved[frames].tolist()


def main(options: Options) -> None:
    """Print the table."""
    autoencoder = AutoencoderKLTemporalDecoder.from_pretrained(bundled_folder() / "vae").eval()
    print("| clips | sigma | one frame | whole clip | taken to stay |\n|---|---|---|---|---|")
    for width, height, num_frames in options.sizes:
        for kind in options.kinds:
            cases = HeldOutWorld(scene_set=2, kind=kind, width=width, height=height, num_frames=num_frames)
            world = cases.world(**(SLIDING if kind == "lifelike" else {}))
            clips = [world.render(1, FIRST_SEED + number)[0] for number in range(options.num)]
            for level in options.levels:
                generator = torch.Generator().manual_seed(0)
                found = [distances(clip, autoencoder, level, generator) for clip in clips]
                means = (mean(itertools.chain.from_iterable(part)) for part in zip(*found, strict=True))
                figures = " | ".join(f"{value:.1f}" for value in means)
                print(f"| {kind}, {width}x{height}x{num_frames} | {level:g} | {figures} |", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options))

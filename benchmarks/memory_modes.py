"""Peak memory of every phase of a guided run under every memory mode, counted in live tensors on the meta device."""

from collections.abc import Mapping
from typing import Literal

import torch
import tyro

from benchmarks.architecture import META, published_svd
from benchmarks.counting import Count, count_phases
from benchmarks.phases import BACKWARD, DECODE, ENCODE, FORWARD, PLAIN, Generation, tracks_over
from sgi2v.backbones import MODES, Mode
from sgi2v.backbones.svd.memory import Sizes, memory_needed
from sgi2v.backbones.svd.model import SVD
from sgi2v.controllers import SGI2V
from sgi2v.grid import Grid

PHASES = (ENCODE, PLAIN, FORWARD, BACKWARD, DECODE)


def peaks_of(backbone: SVD, mode: Mode, grid: Grid) -> dict[str, Count]:
    """Peaks of every phase of a run of SG-I2V, one iteration a guided step."""
    backbone.use_memory(mode)
    generation = Generation(
        backbone=backbone, controller=SGI2V(iterations=1), grid=grid, tracks=tracks_over(grid, 0.4, 2), num_steps=50
    )
    generation.prepare()
    held = [*backbone._arranged.staying, generation.x]
    counts: dict[str, Count] = {}
    for part in generation.parts:
        counts |= count_phases(part, held, device=META)
    return counts


def sizes_of(backbone: SVD) -> Sizes:
    """Sizes from which a mode's need is estimated."""
    pipeline = backbone._pipeline
    networks = {"unet": pipeline.unet, "vae": pipeline.vae, "image_encoder": pipeline.image_encoder}
    return Sizes(
        weights={name: sum(p.numel() for p in n.parameters()) for name, n in networks.items()},
        width=pipeline.unet.config.block_out_channels[0],
        pixel_width=pipeline.vae.config.block_out_channels[0],
        stride=backbone.outline.stride,
    )


def table(peaks: Mapping[Mode, Mapping[str, Count]], needed: Mapping[Mode, int]) -> str:
    """Rows of a table: gigabytes at the peak of every phase."""
    lines = [
        "| memory | " + " | ".join(PHASES) + " | the whole run | auto's estimate |",
        "|---" * (len(PHASES) + 3) + "|",
    ]
    for mode, counts in peaks.items():
        totals = [counts[phase].total / 1e9 for phase in PHASES]
        cells = [f"{value:.2f}" for value in (*totals, max(totals), needed[mode] / 1e9)]
        lines.append(f"| {mode} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(
    width: int = 1024,
    height: int = 576,
    num_frames: int = 14,
    dtype: Literal["float16", "float32"] = "float16",
    scale: Literal["full", "small"] = "full",
) -> None:
    """Print gigabytes at the peak of every phase and mode, weights included, as on a card with memory of its own."""
    number = getattr(torch, dtype)
    backbone = published_svd(number, scale=scale)
    grid = backbone.grid(width, height, num_frames)
    chunk = backbone.settings.decode_chunk_size
    needed = memory_needed(sizes_of(backbone), grid, chunk, META, number)
    print(f"{scale} scale, {height}x{width}x{num_frames}, {dtype}: GB at the peak, in live tensors")
    print(table({mode: peaks_of(backbone, mode, grid) for mode in MODES}, needed))


if __name__ == "__main__":
    tyro.cli(main)

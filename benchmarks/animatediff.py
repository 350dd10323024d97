"""AnimateDiff at full size, counted on the meta device: operations and live tensors by memory mode."""

from pathlib import Path

import torch
import tyro
from diffusers import AutoencoderKL, UNetMotionModel

from benchmarks.architecture import META
from benchmarks.counting import Count, count
from benchmarks.phases import tracks_over
from sgi2v.backbones import MODES, Mode
from sgi2v.backbones.animatediff.memory import Sizes, memory_needed
from sgi2v.backbones.animatediff.model import AnimateDiff, AnimateDiffCondition
from sgi2v.backbones.animatediff.outline import AnimateDiffOutline, AnimateDiffSettings
from sgi2v.controllers import SGI2V, Setup, recommended
from sgi2v.grid import Grid


def full_size() -> AnimateDiff:
    """Stable Diffusion 1.5 with Image Conductor's motion modules: shapes and number formats only."""
    with META:
        unet = UNetMotionModel(cross_attention_dim=768, use_motion_mid_block=False)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, sample_size=512,
        )  # fmt: skip
    outline = AnimateDiffOutline(
        folder=Path("published"), name="animatediff", settings=AnimateDiffSettings(),
        unet={"_class_name": "UNetMotionModel", "block_out_channels": [320, 640, 1280, 1280], "out_channels": 4},
        adapter={},
        vae={"block_out_channels": [128, 256, 512, 512]},
        scheduler={"beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1},
    )  # fmt: skip
    return AnimateDiff(unet.half(), vae, outline, device=META, memory="fast")


def counts(backbone: AnimateDiff, mode: Mode, grid: Grid) -> dict[str, Count]:
    """Cost of a step, a guided iteration and decoding."""
    backbone.use_memory(mode)
    levels = backbone.levels(25, grid)
    x = torch.empty(grid.latent_shape, device=META)
    text = torch.empty(1, 77, 768, dtype=torch.float16, device=META)
    condition = AnimateDiffCondition(text=text, negative=text.clone())
    controller = recommended("sg-i2v", backbone.settings.recommended)
    assert isinstance(controller, SGI2V)
    setup = Setup(
        backbone=backbone, condition=condition, tracks=tracks_over(grid, 0.4, 2), grid=grid, levels=levels,
        generator=torch.Generator(),
    )  # fmt: skip
    state = controller.prepare(setup)
    held = [*backbone._arranged.staying, x, text]
    phases = {
        "step": lambda: backbone.denoise(x, levels[5], condition),
        "guided": lambda: controller.loss_and_gradient(x, levels[5], state),
        "decode": lambda: backbone.decode(x),
    }
    return {name: count(phase, held, device=META) for name, phase in phases.items()}


def main(width: int = 384, height: int = 256, num_frames: int = 16) -> None:
    """Print each phase's operations and gigabytes at its peak, and what auto takes for a run's."""
    backbone = full_size()
    weights = [sum(p.numel() for p in part.parameters()) for part in (backbone.denoiser, backbone._networks.vae)]
    sizes = Sizes(denoiser=weights[0], vae=weights[1], text_encoder=123_060_480, width=320, pixel_width=128)
    grid = backbone.grid(width, height, num_frames)
    needed = memory_needed(sizes, grid, META, torch.float16)
    wide = grid.num_frames * grid.rows * grid.columns * 320 * 2
    print(f"weights {weights}; the widest tensor is {wide / 1e6:.1f} MB")
    for mode in MODES:
        found = counts(backbone, mode, grid)
        for phase, one in found.items():
            held, added = one.held / 1e9, one.added / 1e9
            print(f"{mode} {phase}: {one.flop / 1e12:.2f} TFLOP, holds {held:.2f} GB, adds {added:.2f}", end=" ")
            print(f"GB ({one.added / wide:.0f} times the widest)")
        print(f"{mode}: auto's estimate {needed[mode] / 1e9:.2f} GB")


if __name__ == "__main__":
    tyro.cli(main)

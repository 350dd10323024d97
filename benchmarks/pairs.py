"""Both branches of guidance in one pass against one after the other: seconds a denoising step, on any device."""

import statistics
import time
from typing import Literal

import torch
import tyro
from PIL import Image

from sgi2v import load_backbone
from sgi2v.backbones import Text
from sgi2v.backbones.svd.model import SVD
from sgi2v.device import HostCopy, device_name


def main(
    backbone: str = "bundled",
    device: str | None = None,
    dtype: Literal["float32", "float16", "bfloat16"] | None = None,
    repeats: int = 7,
) -> None:
    """Print medians, taken in turn, and by how much the two differ."""
    model = load_backbone(backbone, device=device, dtype=dtype, memory="fast")
    assert isinstance(model, SVD), "branches of guidance are told apart on Stable Video Diffusion alone"
    size = model.settings
    grid = model.grid(size.width, size.height, size.num_frames)
    picture = Image.linear_gradient("L").resize((size.width, size.height)).convert("RGB")
    condition = model.encode(picture, Text(), grid, torch.Generator().manual_seed(0))
    level = model.levels(10, grid)[3]
    x = model.noise(grid, torch.Generator().manual_seed(1)) * level.noise
    passes: dict[str, list[tuple[bool, ...]]] = {
        "one after the other": [(True,), (False,)],
        "in one pass": [(True, False)],
    }
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    outputs = {}
    for repeat in range(repeats + 1):
        for name, batches in passes.items():
            start = time.perf_counter()
            with torch.no_grad():
                outputs[name] = torch.cat(
                    [model._velocity(x, level, condition, branches=branches) for branches in batches]
                )
            HostCopy(outputs[name].sum()).read()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    print(f"{backbone}, {grid.width}x{grid.height}x{grid.num_frames}, {model.dtype}, {device_name(model.device)}")
    for name, values in seconds.items():
        print(f"{name}: {statistics.median(values):.3f} s, median of {len(values)}")
    apart, together = outputs.values()
    print(f"largest difference: {(apart - together).abs().max():.2g} of {apart.abs().max():.3g}")


if __name__ == "__main__":
    tyro.cli(main)

"""Features of video transformers against what the real networks compute, and literal twins."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contract import picture
from sgi2v import load_backbone
from sgi2v.backbones.base import Mode, Text
from sgi2v.backbones.dit.model import DiTCondition, VideoTransformer
from sgi2v.grid import Grid
from sgi2v.step import Level
from tiny_dit import tiny_dit

SIZES = {
    "a14b": (48, 32, 9),
    "i2v-14b": (48, 32, 9),
    "ti2v-5b": (96, 64, 9),
    "ltx": (96, 64, 17),
    "cogvideox": (64, 48, 9),
}
Asked = tuple[VideoTransformer, Grid, DiTCondition, Tensor, Level]


@cache
def asked(name: str) -> Asked:
    """A model, and something to ask it."""
    backbone = load_backbone(tiny_dit(name), device="cpu", dtype="float32")
    assert isinstance(backbone, VideoTransformer)
    grid = backbone.grid(*SIZES[name])
    draws = torch.Generator().manual_seed(0)
    condition = backbone.encode(picture(size=SIZES[name][:2]), Text(prompt="a red ball"), grid, draws)
    level = backbone.levels(8, grid)[1]
    return backbone, grid, condition, backbone.noise(grid, draws), level


def block(backbone: VideoTransformer, index: int) -> Any:
    """One block of the network that is asked at high noise."""
    denoiser: Any = backbone.denoiser
    expert = denoiser["transformer"] if isinstance(denoiser, nn.ModuleDict) else denoiser
    return getattr(expert, backbone.outline.BLOCKS)[index]


def maps(tokens: Tensor, grid: Grid, patch: int) -> Tensor:
    """Tokens of all places as maps, by loops."""
    rows, columns = grid.rows // patch, grid.columns // patch
    found = torch.empty(grid.latent_frames, tokens.shape[1], rows, columns)
    for frame in range(grid.latent_frames):
        for row in range(rows):
            for column in range(columns):
                found[frame, :, row, column] = tokens[(frame * rows + row) * columns + column]
    return found


@pytest.mark.parametrize("name", SIZES)
def test_self_is_what_the_network_projects_and_output_what_a_block_gives(name: str) -> None:
    backbone, grid, condition, x, level = asked(name)
    seen: dict[str, Tensor] = {}
    hooks = []
    for index in range(2):
        attention = block(backbone, index).attn1

        def take(_module: nn.Module, inputs: tuple[Tensor], at: int = index) -> None:
            seen.setdefault(f"self {at}", inputs[0])

        def give(_module: nn.Module, _inputs: object, output: Any, at: int = index) -> None:
            seen.setdefault(f"output {at}", output[0] if isinstance(output, tuple) else output)

        hooks += [
            attention.to_out[0].register_forward_pre_hook(take), block(backbone, index).register_forward_hook(give)
        ]  # fmt: skip
    with torch.no_grad():
        backbone.features(x, level, condition, ["x0"])
        for hook in hooks:
            hook.remove()
        names = [f"{backbone.outline.BLOCKS}.{k}:{source}" for k in range(2) for source in ("self", "output")]
        # All in one pass, so that what a network writes over after a block is seen too.
        found = backbone.features(x, level, condition, names)
    places = grid.latent_frames * (grid.rows // backbone.outline.patch) * (grid.columns // backbone.outline.patch)
    for feature, value in found.items():
        where, _, source = feature.partition(":")
        true = seen[f"{source} {where[-1]}"][0, -places:]
        assert (value - maps(true, grid, backbone.outline.patch)).abs().max() < 2e-5, feature


@pytest.mark.parametrize("name", SIZES)
def test_first_frame_is_attention_to_the_first_frame_before_rotary_embedding(name: str) -> None:
    backbone, grid, condition, x, level = asked(name)
    attention = block(backbone, 0).attn1
    seen: dict[str, Tensor] = {}

    def keep(part: str) -> Any:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            seen.setdefault(part, output.clone())

        return getattr(attention, part).register_forward_hook(hook)

    hooks = [keep(part) for part in ("norm_q", "norm_k", "to_v")]
    with torch.no_grad():
        backbone.features(x, level, condition, ["x0"])
    for hook in hooks:
        hook.remove()
    heads = backbone.outline.transformer["num_attention_heads"]

    def per_head(tokens: Tensor) -> Tensor:
        """[heads, places, channels]"""
        return tokens[0] if tokens.ndim == 4 else tokens[0].unflatten(1, (heads, -1)).transpose(0, 1)

    patch = backbone.outline.patch
    size = (grid.rows // patch) * (grid.columns // patch)
    query, key, value = (per_head(seen[part])[:, -grid.latent_frames * size :] for part in ("norm_q", "norm_k", "to_v"))
    tokens = torch.empty(grid.latent_frames * size, heads * query.shape[2])
    for place in range(len(tokens)):
        parts = []
        for head in range(heads):
            scores = torch.stack([(query[head, place] * key[head, k]).sum() for k in range(size)])
            weights = torch.softmax(scores / query.shape[2] ** 0.5, dim=0)
            parts.append(sum(weights[k] * value[head, k] for k in range(size)))
        tokens[place] = torch.cat([part for part in parts if isinstance(part, Tensor)])
    # Together with a deeper layer: the network goes on after it has put out these queries and keys.
    names = [f"{backbone.outline.BLOCKS}.{index}:first-frame" for index in range(2)]
    with torch.no_grad():
        found = backbone.features(x, level, condition, names)[names[0]]
    assert (found - maps(tokens, grid, patch)).abs().max() < 1e-5


@pytest.mark.parametrize("name", SIZES)
def test_gradients_are_the_same_in_every_memory_mode(name: str) -> None:
    backbone, _, condition, x, level = asked(name)
    names = [f"{backbone.outline.BLOCKS}.0:self", f"{backbone.outline.BLOCKS}.1:first-frame"]

    def gradient(mode: Mode) -> Tensor:
        backbone.use_memory(mode)
        leaf = x.clone().requires_grad_(True)
        found = backbone.features(leaf, level, condition, names)
        (value,) = torch.autograd.grad([maps.square().sum() for maps in found.values()], leaf)
        return value

    plain = gradient("fast")
    assert plain.abs().max() > 0
    for mode in ("balanced", "low", "fast"):
        assert torch.equal(gradient(mode), plain)

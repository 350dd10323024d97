"""Memory modes of video transformers: same video and gradients, weights really away, nothing left; half precision."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from contract import Broken, picture, scene
from imprint import nothing_is_left
from sgi2v import SGI2V, Cancelled, Progress, Sampling, Video, generate, load_backbone
from sgi2v.backbones.base import Mode, Text
from sgi2v.backbones.dit import model as model_module
from sgi2v.backbones.dit.model import VideoTransformer
from sgi2v.backbones.dit.outline import Quantised
from sgi2v.backbones.offloading import OffloadedWeights
from sgi2v.backbones.registry import outline_of
from sgi2v.controllers import Setup
from sgi2v.grid import tracks_of
from sgi2v.planning import Range
from test_memory import Strict, weights_apart
from tiny_dit import tiny_dit

SIZES = {
    "ti2v-5b": (96, 64, 9), "a14b": (48, 32, 9), "i2v-14b": (48, 32, 9), "ltx": (96, 64, 17), "cogvideox": (64, 48, 9)
}  # fmt: skip


def controller_for(backbone: VideoTransformer) -> SGI2V:
    blocks = backbone.outline.BLOCKS
    layers = (f"{blocks}.0:self", f"{blocks}.1:first-frame")
    guided = Range(low=0.5, high=0.97, unit="noise-level")
    return SGI2V(iterations=2, guided=guided, lr=0.05, weight_decay=0.0, layers=layers)


def model(name: str, dtype: str = "float32") -> VideoTransformer:
    backbone = load_backbone(tiny_dit(name), device="cpu", dtype=dtype, memory="fast")
    assert isinstance(backbone, VideoTransformer)
    for parameter in backbone.denoiser.parameters():
        parameter.data = parameter.data.clone()  # where a file's tensors begin decides how kernels round
    return backbone


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a device with memory of its own; what is at home reads as nothing but NaN."""
    monkeypatch.setattr(model_module, "has_own_memory", lambda _: True)
    with weights_apart(Strict):
        yield


def video(name: str, backbone: VideoTransformer, **more: Any) -> Video:
    width, height, num_frames = SIZES[name]
    sampling = Sampling(width=width, height=height, num_frames=num_frames, num_steps=4, seed=3)
    return generate(
        scene("a red ball"), backbone=backbone, controller=controller_for(backbone), sampling=sampling, **more
    )


@cache
def right(name: str) -> tuple[Video, Tensor, Tensor]:
    """What all modes must give, with everything in one place."""
    backbone = model(name)
    return video(name, backbone), *loss_and_gradient(name, backbone)


def loss_and_gradient(name: str, backbone: VideoTransformer) -> tuple[Tensor, Tensor]:
    grid = backbone.grid(*SIZES[name])
    tracks, draws = tracks_of(scene(), grid), torch.Generator().manual_seed(0)
    levels = backbone.levels(8, grid)
    setup = Setup(
        backbone=backbone, condition=backbone.encode(tracks.image, Text(prompt="a red ball"), grid, draws),
        tracks=tracks, grid=grid, levels=levels, generator=draws,
    )  # fmt: skip
    controller = controller_for(backbone)
    return controller.loss_and_gradient(backbone.noise(grid, draws), levels[1], controller.prepare(setup))


# ---------------------------------------------------------------- modes


@pytest.mark.parametrize("mode", ["balanced", "low"])
@pytest.mark.parametrize("name", SIZES)
def test_a_mode_changes_no_bit(name: str, mode: Mode, apart: None) -> None:
    """Pictures this small are decoded in no tiles."""
    expected, value, gradient = right(name)
    backbone = model(name)
    backbone.use_memory(mode)
    vae: Any = backbone._networks.vae
    away = vae.decoder.conv_in
    assert bool(next(away.parameters()).isnan().all()), "the autoencoder is not on the device"
    found = video(name, backbone)
    assert found.latents is not None and expected.latents is not None
    assert torch.equal(found.latents, expected.latents) and found.run == expected.run
    assert torch.equal(found.frames, expected.frames)
    again = loss_and_gradient(name, backbone)
    assert gradient.abs().max() > 0 and torch.equal(again[0], value) and torch.equal(again[1], gradient)


def test_where_memory_is_the_hosts_modes_change_no_bit_either() -> None:
    """Every mode but fast checkpoints there, and nothing visits."""
    for name in ("ti2v-5b", "cogvideox"):
        expected, value, gradient = right(name)
        backbone = model(name)
        for mode in ("balanced", "low"):
            backbone.use_memory(mode)
            assert torch.equal(video(name, backbone).frames, expected.frames)
            again = loss_and_gradient(name, backbone)
            assert torch.equal(again[0], value) and torch.equal(again[1], gradient)


@pytest.mark.parametrize("way", ["int8", "fp8"])
def test_rounded_weights_visit_too(way: Quantised, monkeypatch: pytest.MonkeyPatch) -> None:
    outline: Any = outline_of(tiny_dit("ti2v-5b"))
    backbone = outline.with_files({}, way).load(device=torch.device("cpu"), dtype=torch.float32, memory="fast")
    value, gradient = loss_and_gradient("ti2v-5b", backbone)
    monkeypatch.setattr(model_module, "has_own_memory", lambda _: True)
    with weights_apart(OffloadedWeights):  # not the strict kind: no rounded number reads as NaN
        for mode in ("balanced", "low"):
            backbone.use_memory(mode)
            again = loss_and_gradient("ti2v-5b", backbone)
            assert gradient.abs().max() > 0 and torch.equal(again[0], value) and torch.equal(again[1], gradient)


def test_experts_take_turns(apart: None) -> None:
    """Of two experts the one that is asked is on the device, the other at home."""
    backbone = model("a14b")
    backbone.use_memory("balanced")
    experts, seen = backbone.experts, []

    def there() -> list[str]:
        return [name for name, expert in experts.items() if not any(p.isnan().any() for p in expert.parameters())]

    hooks = [e.register_forward_pre_hook(lambda *_: seen.append(there())) for e in experts.values()]
    video("a14b", backbone)
    for hook in hooks:
        hook.remove()
    assert {tuple(names) for names in seen} == {("transformer",), ("transformer_2",)}
    backbone._arranged.release()
    assert there() == []
    backbone._arranged.hold("transformer")
    backbone._arranged.hold("transformer")
    assert there() == ["transformer"]
    backbone._arranged.undo()
    assert there() == []


@pytest.mark.parametrize("mode", ["balanced", "low"])
@pytest.mark.parametrize("name", ["a14b", "ltx"])
@pytest.mark.parametrize("cancel", [False, True])
def test_a_run_that_ends_early_leaves_nothing_and_the_next_is_right(
    name: str, mode: Mode, cancel: bool, apart: None
) -> None:
    backbone = model(name)
    backbone.use_memory(mode)
    begun = 0

    def over() -> bool:
        nonlocal begun
        begun += 1
        return begun > 4

    def progress(now: Progress) -> None:
        if now.phase == "sample" and now.iteration == 2:
            raise Broken

    with nothing_is_left_but_hooks(backbone):
        if cancel:
            with pytest.raises(Cancelled):
                video(name, backbone, cancelled=over)
        else:
            with pytest.raises(Broken):
                video(name, backbone, progress=progress)
    assert all(len(weights._there) <= 1 for weights in backbone._arranged._block_weights)
    found, expected = video(name, backbone).latents, right(name)[0].latents
    assert found is not None and expected is not None and torch.equal(found, expected)


@contextmanager
def nothing_is_left_but_hooks(backbone: VideoTransformer) -> Iterator[None]:
    """Weights that visited are at home again once no expert is held; the mode's own hooks stay."""
    before = [id(parameter) for parameter in backbone.denoiser.parameters()]
    yield
    backbone._arranged.release()
    assert [id(parameter) for parameter in backbone.denoiser.parameters()] == before
    assert all(p.grad is None and not p.requires_grad for p in backbone.denoiser.parameters())


@pytest.mark.parametrize("name", ["a14b", "cogvideox"])
def test_modes_change_between_runs_and_leave_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, expected = model(name), right(name)[0].latents
    assert expected is not None
    with nothing_is_left(backbone.denoiser), weights_apart(OffloadedWeights):
        for mode in ("low", "balanced", "low", "fast"):
            backbone.use_memory(mode)
            found = video(name, backbone).latents
            assert found is not None and torch.equal(found, expected)
        assert backbone.memory == "fast"


@pytest.mark.parametrize("name", ["ti2v-5b", "ltx", "cogvideox"])
def test_low_decodes_in_tiles_of_the_right_size_and_asks_with_the_same_picture(name: str, apart: None) -> None:
    backbone = model(name)
    vae: Any = backbone._networks.vae
    width, height, num_frames = SIZES[name]
    side = 48 if name == "cogvideox" else 64
    smaller = {"tile_sample_min_height": side, "tile_sample_min_width": side + 32 * (name == "cogvideox")}
    if name != "cogvideox":
        smaller |= {"tile_sample_stride_height": 32, "tile_sample_stride_width": 32}
    vae.enable_tiling(**smaller)
    vae.use_tiling = False
    # CogVideoX's picture has one size; its autoencoder has not.
    latents = torch.randn(
        backbone.grid(width, height, num_frames).latent_frames, backbone.outline.channels,
        2 * side // backbone.outline.stride, 160 // backbone.outline.stride, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    grid, draws = backbone.grid(width, height, num_frames), torch.Generator()
    pictures, conditions = [], []
    for mode in ("fast", "low"):
        backbone.use_memory(mode)
        pictures.append(backbone.decode(latents))
        draws.manual_seed(0)
        conditions.append(backbone.encode(picture(size=(width, height)), Text(prompt="a red ball"), grid, draws).image)
        assert vae.use_tiling is False
    whole, tiled = pictures
    assert whole.shape == tiled.shape == (num_frames, 3, 2 * side, 160)
    assert 0 < (whole - tiled).abs().mean() < 0.2
    assert torch.equal(*conditions)


# ---------------------------------------------------------------- early exit, half precision


@pytest.mark.parametrize("name", SIZES)
def test_ending_a_pass_early_changes_no_bit_of_a_gradient(name: str) -> None:
    backbone = model(name)
    grid, draws = backbone.grid(*SIZES[name]), torch.Generator().manual_seed(0)
    condition = backbone.encode(picture(size=SIZES[name][:2]), Text(prompt="a red ball"), grid, draws)
    x, level, layers = backbone.noise(grid, draws), backbone.levels(8, grid)[1], controller_for(backbone).layers

    def gradient(*more: str) -> Tensor:
        leaf = x.clone().requires_grad_(True)
        found = backbone.features(leaf, level, condition, [*layers, *more])
        (value,) = torch.autograd.grad([found[layer].square().sum() for layer in layers], leaf)
        return value

    ended, whole = gradient(), gradient("x0")
    assert torch.equal(ended, whole) and ended.abs().max() > 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", SIZES)
def test_gradients_in_half_precision_point_the_same_way(name: str, dtype: str) -> None:
    """float16 with the loss scaled, as ever; small as they are, no entry of the gradient may vanish for it."""
    backbone = model(name, dtype)
    _, _, wanted = right(name)
    _, gradient = loss_and_gradient(name, backbone)
    assert gradient.dtype == torch.float32 and bool(gradient.isfinite().all())
    assert float(torch.cosine_similarity(gradient.flatten(), wanted.flatten(), dim=0)) > 0.999
    assert float((gradient == 0).sum() - (wanted == 0).sum()) < 0.001 * wanted.numel()

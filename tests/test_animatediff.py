"""AnimateDiff behind the contract: its arithmetic against diffusers' own, its folders, its memory, its mistakes."""

import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AnimateDiffPipeline, DDIMScheduler
from torch import Tensor, nn

from contract import no_weights_opened, picture, scene
from imprint import nothing_is_left
from sgi2v import Controller, DragDiffusion, Sampling, Scene, generate, load_backbone
from sgi2v.backbones.animatediff.memory import all_blocks
from sgi2v.backbones.animatediff.model import AnimateDiff
from sgi2v.backbones.animatediff.networks import FrameNorm, self_attentions, with_frame_norms
from sgi2v.backbones.animatediff.outline import AnimateDiffOutline
from sgi2v.backbones.animatediff.schedule import timestep_of
from sgi2v.backbones.base import Mode, Text
from sgi2v.backbones.registry import kinds, outline_of
from sgi2v.controllers import WanMove, recommended
from sgi2v.errors import FieldError
from sgi2v.grid import tracks_of
from sgi2v.pipeline import plan
from sgi2v.step import Level
from test_animatediff_contract import GUIDED
from test_memory import Strict, weights_apart
from tiny_animatediff import motion_unet, save_animatediff, tiny_animatediff

PROMPT, NEGATIVE = "a red ball", "low quality"
SAMPLING = Sampling(width=64, height=48, num_frames=5, num_steps=4, seed=5)
LAYER = "up_blocks.1.attentions.1:first-frame"


def model(folder: Path | None = None) -> AnimateDiff:
    backbone = load_backbone(folder or tiny_animatediff(), device="cpu", dtype="float32", memory="fast")
    assert isinstance(backbone, AnimateDiff)
    return backbone


@cache
def shared() -> AnimateDiff:
    return model()


def outline(folder: Path | None = None) -> AnimateDiffOutline:
    found = outline_of(str(folder or tiny_animatediff()))
    assert isinstance(found, AnimateDiffOutline)
    return found


# ---------------------------------------------------------------- arithmetic


def test_every_frame_is_normalised_by_itself() -> None:
    draws = torch.Generator().manual_seed(0)
    clip = torch.randn(2, 8, 3, 4, 5, generator=draws)
    clip = clip * torch.arange(1, 4)[:, None, None] + torch.arange(3)[:, None, None]  # frames that differ
    norm = FrameNorm(4, 8)
    literal = torch.stack([nn.functional.group_norm(clip[:, :, k], 4) for k in range(3)], dim=2)
    torch.testing.assert_close(norm(clip), literal)
    assert not torch.allclose(nn.GroupNorm(4, 8)(clip), literal, atol=0.1)


def test_norms_are_changed_once_and_their_weights_stay() -> None:
    unet = motion_unet()
    before = {name: id(weight) for name, weight in unet.named_parameters()}
    changed = with_frame_norms(with_frame_norms(unet))
    assert {name: id(weight) for name, weight in changed.named_parameters()} == before
    norms = [module for module in changed.modules() if isinstance(module, FrameNorm)]
    assert len(norms) == 6 and all(norm.num_groups == 32 for norm in norms)  # two down, four up


@pytest.mark.long
def test_frames_are_those_of_diffusers_but_for_the_norms() -> None:
    pipeline: Any = AnimateDiffPipeline.from_pretrained(
        tiny_animatediff(), motion_adapter=None, feature_extractor=None, image_encoder=None, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)

    def theirs() -> Tensor:
        found = pipeline(
            prompt=PROMPT, negative_prompt=NEGATIVE, width=64, height=48, num_frames=5, num_inference_steps=4,
            guidance_scale=7.5, generator=torch.Generator().manual_seed(5), output_type="pt",
        ).frames[0]  # fmt: skip
        return torch.as_tensor(found)

    stock = theirs()
    with_frame_norms(pipeline.unet)
    ours = generate(
        Scene(image=picture(size=(64, 48)), prompt=PROMPT, negative_prompt=NEGATIVE), backbone=shared(),
        controller=Controller(), sampling=SAMPLING,
    ).frames  # fmt: skip
    assert float((ours - theirs()).abs().max()) < 1e-4
    assert float((ours - stock).abs().max()) > 1e-3


def test_motion_modules_in_a_folder_of_their_own_make_the_same_kind_of_model() -> None:
    apart = model(tiny_animatediff(apart=True))
    assert apart.outline.networks == ("unet", "motion_adapter", "vae")
    assert {*apart.denoiser.state_dict()} == {*shared().denoiser.state_dict()}
    video = generate(scene(PROMPT), backbone=apart, controller=Controller(), sampling=SAMPLING)
    assert bool(video.frames.isfinite().all())
    assert list(apart.outline.layers()) == list(shared().outline.layers())


def test_the_layers_that_are_listed_are_the_networks_own() -> None:
    network, listed = shared().denoiser, shared().outline.layers()
    own = {name for name, _ in network.named_modules()}
    assert set(listed) <= own
    wanted = ("resnets", "attentions", "motion_modules", "downsamplers", "upsamplers")
    blocks = [name for name in own if name.split(".")[-2:-1] and name.split(".")[-2] in wanted]
    levels = {"down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1"}
    assert {*blocks, *levels} == set(listed)
    assert len(all_blocks(network)) == sum("samplers" not in name for name in blocks)
    sources = [source for _, source, _ in self_attentions(network)]
    assert sources.count("temporal") == 2 * 6 and sources.count("self") == 4


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("schedule", ["linear", "scaled_linear"])
def test_levels_are_the_schedulers(spacing: str, schedule: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_animatediff(), tmp_path / "model"))
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule=schedule, timestep_spacing=spacing, clip_sample=False,
        steps_offset=int(spacing == "leading"),
    )  # fmt: skip
    scheduler.save_pretrained(folder / "scheduler")
    for count in (1, 4, 7, 25):
        scheduler.set_timesteps(count)
        levels = outline(folder).levels(count)
        told = [int(level.timestep or 0) for level in levels[:-1]]
        assert told == scheduler.timesteps.tolist()
        kept = scheduler.alphas_cumprod[told].numpy()
        np.testing.assert_allclose([level.signal**2 for level in levels[:-1]], kept, rtol=1e-5)
        np.testing.assert_allclose([level.noise**2 for level in levels[:-1]], 1 - kept, rtol=1e-4, atol=1e-7)
        assert (levels[-1].signal, levels[-1].noise) == (1.0, 0.0)
        for level in levels[:-1]:
            assert (
                timestep_of(outline(folder).scheduler, Level(signal=level.signal, noise=level.noise)) == level.timestep
            )
    with pytest.raises(FieldError, match="num_steps: must be at most"):
        outline(folder).levels(1001)


def test_a_picture_is_a_sample_and_a_clip_the_mode() -> None:
    backbone, grid = shared(), shared().grid(64, 48, 5)
    image = picture(size=(64, 48))
    pixels = torch.from_numpy(np.asarray(image, dtype=np.float32) / 255).permute(2, 0, 1)
    mode = backbone.encode_frames(pixels.expand(5, -1, -1, -1), grid)
    torch.testing.assert_close(backbone.picture_with(image, torch.zeros(4, 6, 8)), mode[0])
    assert torch.equal(mode[0], mode[4])
    drawn = [backbone.sample_picture(image, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    posterior: Any = backbone._networks.vae.encode(pixels[None] * 2 - 1).latent_dist
    theirs = posterior.sample(torch.Generator().manual_seed(1))[0] * 0.18215
    torch.testing.assert_close(drawn[0], theirs)


def test_drag_diffusion_as_recommended_runs() -> None:
    backbone = shared()
    few = {"layers": ("up_blocks.1:output",), "reference_layers": ("up_blocks.1",), "iterations": 2}
    controller = recommended("drag-diffusion", backbone.settings.recommended, **few)
    assert isinstance(controller, DragDiffusion)
    with nothing_is_left(backbone.denoiser):
        video = generate(scene(PROMPT), backbone=backbone, controller=controller, sampling=SAMPLING)
    plain = generate(scene(PROMPT), backbone=backbone, controller=Controller(), sampling=SAMPLING)
    assert bool(video.frames.isfinite().all()) and not torch.equal(video.frames, plain.frames)


# ---------------------------------------------------------------- memory


def step_and_gradient(backbone: AnimateDiff) -> tuple[Tensor, Tensor]:
    grid, draws = backbone.grid(64, 48, 5), torch.Generator().manual_seed(0)
    condition = backbone.encode(tracks_of(scene(), grid).image, Text(prompt=PROMPT), grid, draws)
    level, x = backbone.levels(4, grid)[1], backbone.noise(grid, draws)
    leaf = x.clone().requires_grad_(True)
    found = backbone.features(leaf, level, condition, [LAYER])[LAYER]
    (gradient,) = torch.autograd.grad(found.square().sum(), leaf)
    return backbone.denoise(x, level, condition), gradient


@pytest.mark.parametrize("mode", ["balanced", "low"])
def test_a_mode_changes_no_bit(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = step_and_gradient(shared())
    monkeypatch.setattr("sgi2v.backbones.arrangement.has_own_memory", lambda _: True)
    with weights_apart(Strict):
        backbone = model()
        backbone.use_memory(mode)
        assert bool(next(backbone._networks.vae.parameters()).isnan().all()), "the autoencoder is not on the device"
        found = step_and_gradient(backbone)
        backbone.use_memory("fast")
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs) and bool(ours.any())


def test_modes_take_less_and_less() -> None:
    from sgi2v.device import choose_device

    place = choose_device("cpu")
    needed = outline().memory_needed(outline().grid(64, 48, 5), place, torch.float32)
    assert needed["fast"] >= needed["balanced"] >= needed["low"] > 0


# ---------------------------------------------------------------- mistakes


def damaged(folder: Path, file: str, **changed: object) -> Path:
    """A copy of the model in which a configuration says something else; None takes a field away."""
    copy = Path(shutil.copytree(tiny_animatediff(apart=file.startswith("motion")), folder / "damaged"))
    said = {**json.loads((copy / file).read_text()), **changed}
    (copy / file).write_text(json.dumps({name: value for name, value in said.items() if value is not ...}))
    return copy


@pytest.mark.parametrize(
    ("file", "changed", "message"),
    [
        ("scheduler/scheduler_config.json", {"_class_name": "PNDMScheduler"}, "_class_name must be 'DDIMScheduler'"),
        ("scheduler/scheduler_config.json", {"prediction_type": "v_prediction"}, "prediction_type"),
        ("scheduler/scheduler_config.json", {"clip_sample": True}, "clip_sample must be false"),
        ("scheduler/scheduler_config.json", {"clip_sample": ...}, "clip_sample must be false"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "squaredcos_cap_v2"}, "beta_schedule"),
        ("scheduler/scheduler_config.json", {"beta_end": 2}, "beta_end must be below 1"),
        ("scheduler/scheduler_config.json", {"steps_offset": 7}, "steps_offset must be 0 or 1"),
        ("unet/config.json", {"in_channels": 9}, "in_channels must be 4"),
        ("unet/config.json", {"addition_embed_type": "text_time"}, "addition_embed_type"),
        ("unet/config.json", {"time_cond_proj_dim": 256}, "time_cond_proj_dim"),
        ("unet/config.json", {"down_block_types": ["DownBlock2D"] * 2}, "down_block_types must be 2 of"),
        ("unet/config.json", {"layers_per_block": [1, 2]}, "layers_per_block must be one whole number"),
        ("unet/config.json", {"norm_num_groups": 24}, "norm_num_groups must divide"),
        ("unet/config.json", {"cross_attention_dim": 48}, "hidden_size must be"),
        ("vae/config.json", {"_class_name": "AutoencoderKLWan"}, "_class_name must be 'AutoencoderKL'"),
        ("vae/config.json", {"latent_channels": 16}, "latent_channels must be 4"),
        ("text_encoder/config.json", {"model_type": "t5"}, "model_type must be 'clip_text_model'"),
        ("motion_adapter/config.json", {"conv_in_channels": 9}, "conv_in_channels"),
        ("motion_adapter/config.json", {"block_out_channels": [64, 64]}, "block_out_channels"),
    ],
)  # fmt: skip
def test_a_folder_that_is_another_model_is_refused(
    file: str, changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = damaged(tmp_path, file, **changed)
    with no_weights_opened(), pytest.raises(FieldError, match=message) as caught:
        outline_of(str(folder))
    assert caught.value.field == "backbone" and str(folder) in caught.value.problem


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_a_part_without_weights_is_refused(part: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_animatediff(), tmp_path / "model"))
    (folder / part / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(FieldError, match=f"{part} holds no"):
        plan(scene(PROMPT), outline(folder), controller=Controller(), sampling=SAMPLING)


@pytest.mark.parametrize(
    ("controller", "message"),
    [
        (WanMove(any_weights=True), "changes the latents of the picture"),
        (WanMove(), "changes the latents of the picture"),
        (replace(GUIDED, reuse_deep=True), r"controller\.reuse_deep: is not tried for animatediff"),
        (replace(GUIDED, layers=("up_blocks.1.resnets.0:self",)), "has no attention within frames"),
        (replace(GUIDED, layers=("up_blocks.1.attentions.0:temporal",)), "with source one of"),
    ],
)
def test_methods_it_cannot_serve_are_refused_in_a_line(controller: Controller, message: str) -> None:
    with no_weights_opened(), pytest.raises(FieldError, match=message):
        plan(scene(PROMPT), outline(), controller=controller, sampling=SAMPLING)


def test_words_that_are_too_many_or_were_never_encoded_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FieldError, match=r"prompt: has .* tokens; this model takes 77"):
        plan(scene("red ball " * 60), outline(), controller=Controller(), sampling=SAMPLING)
    folder = save_animatediff(tmp_path / "model", seed=1)
    shutil.rmtree(folder / "text_encoder")
    with pytest.raises(FieldError, match="is not encoded yet"):
        plan(scene("nobody said this yet"), outline(folder), controller=Controller(), sampling=SAMPLING)


def test_it_is_one_of_the_kinds() -> None:
    assert "animatediff" in [kind.kind for kind in kinds()]
    with pytest.raises(FieldError, match="compile: is not tried for animatediff"):
        load_backbone(tiny_animatediff(), device="cpu", dtype="float32", compiled=True)

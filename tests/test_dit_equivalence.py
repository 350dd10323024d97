"""Every video transformer against diffusers' own pipeline on the same folder, from the same seed."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    CogVideoXImageToVideoPipeline,
    LTXImageToVideoPipeline,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
)
from PIL import Image

from contract import picture
from sgi2v import Controller, Sampling, Scene, TimeToMove, generate, load_backbone
from sgi2v.reference import Reference
from tiny_dit import tiny_dit

PROMPT, NEGATIVE = "a red ball rolls to the left", "low quality, blurry"
SIZES = {
    "a14b": (48, 32, 9),
    "i2v-14b": (48, 32, 9),
    "ti2v-5b": (96, 64, 9),
    "ltx": (96, 64, 17),
    "ltx-cleaning": (96, 64, 17),
    "cogvideox": (64, 48, 9),
}


def theirs(name: str, width: int, height: int, num_frames: int, **more: Any) -> torch.Tensor:
    """The pipeline's frames; Wan's solver is taken at its first order, which is the plain step."""
    made: Any = WanImageToVideoPipeline
    if name.startswith("ltx"):
        made, more = LTXImageToVideoPipeline, {"decode_timestep": 0.05, "decode_noise_scale": 0.025, **more}
    if name == "cogvideox":
        made = CogVideoXImageToVideoPipeline
    pipeline = made.from_pretrained(tiny_dit(name), local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    if made is WanImageToVideoPipeline:
        pipeline.scheduler = UniPCMultistepScheduler.from_config(
            pipeline.scheduler.config, solver_order=1, disable_corrector=list(range(100))
        )
    torch.manual_seed(0)  # a decoder that adds noise inside takes it from here
    frames: torch.Tensor = pipeline(
        image=picture(size=(width, height)), prompt=PROMPT, negative_prompt=NEGATIVE, width=width, height=height,
        num_frames=num_frames, generator=torch.Generator().manual_seed(5), output_type="pt", **more,
    ).frames[0]  # fmt: skip
    return frames


@pytest.mark.parametrize("name", SIZES)
def test_frames_are_those_of_diffusers(name: str) -> None:
    backbone = load_backbone(tiny_dit(name), device="cpu", dtype="float32")
    settings = replace(backbone.settings, negative_prompt=NEGATIVE, guidance_scale=4.0)
    width, height, num_frames = SIZES[name]
    ours = generate(
        Scene(image=picture(size=(width, height)), motions=(), prompt=PROMPT),
        backbone=backbone.with_settings(settings),
        controller=Controller(),
        sampling=Sampling(width=width, height=height, num_frames=num_frames, num_steps=4, seed=5),
    ).frames
    expected = theirs(name, width, height, num_frames, num_inference_steps=4, guidance_scale=4.0)
    assert ours.shape == expected.shape
    assert (ours - expected).abs().max() < 1e-4
    assert expected.std() > 0.01


@pytest.mark.parametrize("name", ["ltx", "cogvideox"])
def test_a_setting_of_one_model_is_that_of_its_pipeline(name: str) -> None:
    """The frame rate, which LTX-Video is told, and CogVideoX's guidance that changes from step to step."""
    backbone = load_backbone(tiny_dit(name), device="cpu", dtype="float32")
    width, height, num_frames = SIZES[name]
    changes: dict[str, Any] = {"fps": 12.0} if name == "ltx" else {"dynamic_guidance": True}
    frames = [
        generate(
            Scene(image=picture(size=(width, height)), motions=(), prompt=PROMPT),
            backbone=backbone.with_settings(replace(backbone.settings, negative_prompt=NEGATIVE, **change)),
            controller=Controller(),
            sampling=Sampling(width=width, height=height, num_frames=num_frames, num_steps=5, seed=5),
        ).frames
        for change in ({}, changes)
    ]
    said: dict[str, Any] = {"frame_rate": 12} if name == "ltx" else {"use_dynamic_cfg": True}
    scale = {"ltx": 3.0, "cogvideox": 6.0}[name]
    expected = theirs(name, width, height, num_frames, num_inference_steps=5, guidance_scale=scale, **said)
    assert (frames[1] - expected).abs().max() < 1e-4
    assert (frames[0] - expected).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["ti2v-5b", "a14b"])
def test_time_to_move_is_its_published_loop_around_diffusers_own(name: str) -> None:
    """The two clocks written out: a clip's noised latents put where its mask is, at the ends of diffusers' steps.

    Published (Time-to-Move's code for Wan): from step ``first`` on the noised clip, inside the mask set back until step
    ``last``. What the code leaves to UniPC at second order is done here at first.
    """
    first, last, num_steps = 1, 3, 6
    backbone: Any = load_backbone(tiny_dit(name), device="cpu", dtype="float32")
    width, height, num_frames = SIZES[name]
    image, grid = picture(size=(width, height)), backbone.grid(*SIZES[name])
    frames = tuple(picture(seed=k, size=(width, height)) for k in range(num_frames))
    masks = np.zeros((num_frames, height, width), dtype=np.uint8)
    for k in range(num_frames):
        masks[k, height // 4 : height // 2 + 4 * k, 4 * k : width // 2 + 2 * k] = 255
    noise = torch.randn(grid.latent_shape, generator=torch.Generator().manual_seed(1))
    levels = backbone.levels(num_steps, grid)
    mean, deviation = (
        torch.tensor(backbone.outline.vae[key])[:, None, None, None] for key in ("latents_mean", "latents_std")
    )

    pipeline: Any = WanImageToVideoPipeline.from_pretrained(tiny_dit(name), local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = UniPCMultistepScheduler.from_config(
        pipeline.scheduler.config, solver_order=1, disable_corrector=list(range(100))
    )
    clip = torch.stack([torch.from_numpy(np.asarray(frame, dtype=np.float32)) for frame in frames]).permute(3, 0, 1, 2)
    with torch.no_grad():
        encoded = pipeline.vae.encode(clip[None] / 127.5 - 1).latent_dist.mode()[0]
    reference, drawn = (encoded - mean) / deviation, noise.transpose(0, 1)
    corners = masks[[0, *range(1, num_frames, grid.frame_stride)], :: grid.stride, :: grid.stride] > 127
    inside = torch.from_numpy(corners)[None, None]

    def set_back(_pipeline: Any, index: int, _time: Any, given: dict[str, Any]) -> dict[str, Any]:
        sigma = pipeline.scheduler.sigmas[index + 1]
        noised = ((1 - sigma) * reference + sigma * drawn)[None]
        if index + 1 == first:
            return {"latents": noised}
        held = first < index + 1 <= last
        return {"latents": torch.where(inside, noised, given["latents"]) if held else given["latents"]}

    expected = pipeline(
        image=image, prompt=PROMPT, negative_prompt=NEGATIVE, width=width, height=height, num_frames=num_frames,
        latents=drawn[None].clone(), num_inference_steps=num_steps, guidance_scale=4.0, output_type="pt",
        callback_on_step_end=set_back,
    ).frames[0]  # fmt: skip

    settings = replace(backbone.settings, negative_prompt=NEGATIVE, guidance_scale=4.0)
    found = generate(
        Scene(
            image=image, motions=(), prompt=PROMPT,
            reference=Reference(frames=frames, masks=tuple(Image.fromarray(mask) for mask in masks)),
        ),
        backbone=backbone.with_settings(settings),
        controller=TimeToMove(
            t_weak=levels[first].noise_level, t_strong=levels[last].noise_level, unit="noise-level",
            mask_rule="published",
        ),
        sampling=Sampling(width=width, height=height, num_frames=num_frames, num_steps=num_steps, seed=5),
        noise=noise,
    ).frames  # fmt: skip
    assert (found - expected).abs().max() < 1e-4
    assert expected.std() > 0.01

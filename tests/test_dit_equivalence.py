"""Every video transformer against diffusers' own pipeline on the same folder, from the same seed."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import (
    CogVideoXImageToVideoPipeline,
    LTXImageToVideoPipeline,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
)

from contract import picture
from sgi2v import Controller, Sampling, Scene, generate, load_backbone
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

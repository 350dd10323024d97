"""Mistakes in folders and runs of LTX-Video and CogVideoX, each answered in one line before a weight is read."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from contract import no_weights_opened, scene
from sgi2v import Controller, Sampling
from sgi2v.backbones.cogvideox.outline import CogVideoXOutline, CogVideoXSettings
from sgi2v.backbones.ltx.outline import LTXSettings
from sgi2v.backbones.registry import kinds, names, outline_of, settings_of
from sgi2v.errors import FieldError
from sgi2v.pipeline import plan
from tiny_dit import tiny_dit

Spoil = Callable[[Path], None]


def changed(file: str, **values: object) -> Spoil:
    """Fields of a configuration that are replaced."""

    def spoil(folder: Path) -> None:
        config = json.loads((folder / file).read_text(encoding="utf-8"))
        (folder / file).write_text(json.dumps({**config, **values}), encoding="utf-8")

    return spoil


def gone(part: str) -> Spoil:
    """A file or folder that is missing."""

    def spoil(folder: Path) -> None:
        shutil.rmtree(folder / part) if (folder / part).is_dir() else (folder / part).unlink()

    return spoil


VAE, DENOISER, STEPS = "vae/config.json", "transformer/config.json", "scheduler/scheduler_config.json"
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
SPOILT: Mapping[str, tuple[str, Spoil, tuple[str, ...]]] = {
    "ltx vae class": ("ltx", changed(VAE, _class_name="AutoencoderKLWan"), (VAE, "AutoencoderKLLTXVideo")),
    "ltx vae channels": ("ltx", changed(VAE, latent_channels=16), (VAE, "latent_channels")),
    "ltx vae scaling": ("ltx", changed(VAE, spatio_temporal_scaling="all"), (VAE, "spatio_temporal_scaling")),
    "ltx patch": ("ltx", changed(DENOISER, patch_size=2), (DENOISER, "patch_size")),
    "ltx layers": ("ltx", changed(DENOISER, num_layers=0), (DENOISER, "num_layers")),
    "ltx scheduler": ("ltx", changed(STEPS, _class_name="DDIMScheduler"), (STEPS, "FlowMatchEulerDiscreteScheduler")),
    "ltx distilled": ("ltx", changed(STEPS, use_dynamic_shifting=False, shift=1.0), (STEPS, "use_dynamic_shifting")),
    "ltx shift": ("ltx", changed(STEPS, max_shift=None), (STEPS, "max_shift")),
    "ltx part": ("ltx", gone(VAE), (VAE, "missing")),
    "ltx weights": ("ltx", gone(WEIGHTS), ("transformer", "safetensors")),
    "cogvideox vae class": ("cogvideox", changed(VAE, _class_name="AutoencoderKL"), (VAE, "AutoencoderKLCogVideoX")),
    "ltx vae factor": ("ltx", changed(VAE, scaling_factor="big"), (VAE, "scaling_factor")),
    "ltx vae noise": ("ltx", changed(VAE, decoder_inject_noise=None), (VAE, "decoder_inject_noise")),
    "ltx vae told": ("ltx", changed(VAE, timestep_conditioning="yes"), (VAE, "timestep_conditioning")),
    "ltx out": ("ltx", changed(DENOISER, out_channels=64), (DENOISER, "out_channels")),
    "ltx text": ("ltx", changed(DENOISER, caption_channels=77), ("text_encoder/config.json", "d_model")),
    "ltx shift from": ("ltx", changed(STEPS, base_image_seq_len=4096), (STEPS, "max_image_seq_len")),
    "ltx terminal": ("ltx", changed(STEPS, shift_terminal=1.5), (STEPS, "shift_terminal")),
    "ltx steps": ("ltx", changed(STEPS, num_train_timesteps=None), (STEPS, "num_train_timesteps")),
    "ltx true": ("ltx", changed(STEPS, max_shift=True), (STEPS, "max_shift")),
    "cogvideox levels": ("cogvideox", changed(VAE, block_out_channels=[]), (VAE, "block_out_channels")),
    "cogvideox inverse": ("cogvideox", changed(VAE, invert_scale_latents=None), (VAE, "invert_scale_latents")),
    "cogvideox text": ("cogvideox", changed(DENOISER, text_embed_dim=77), ("text_encoder/config.json", "d_model")),
    "cogvideox beta": ("cogvideox", changed(STEPS, beta_end=3), (STEPS, "beta_end")),
    "cogvideox steps": ("cogvideox", changed(STEPS, num_train_timesteps=1), (STEPS, "num_train_timesteps")),
    "wan patch": ("i2v-14b", changed(DENOISER, patch_size=[1, None, None]), (DENOISER, "patch_size")),
    "wan ffn": ("i2v-14b", changed(DENOISER, ffn_dim=None), (DENOISER, "ffn_dim")),
    "wan text": ("i2v-14b", changed(DENOISER, text_dim=77), ("text_encoder/config.json", "d_model")),
    "wan mean": ("i2v-14b", changed(VAE, latents_mean=[None] * 16), (VAE, "latents_mean")),
    "wan deviation": ("i2v-14b", changed(VAE, latents_std=[0.0] * 16), (VAE, "latents_std")),
    "wan image": ("i2v-14b", changed("image_encoder/config.json", hidden_size=48), ("image_encoder", "hidden_size")),
    "wan shift": ("i2v-14b", changed(STEPS, flow_shift=True), (STEPS, "flow_shift")),
    "wan terminal": ("i2v-14b", changed(STEPS, shift_terminal="low"), (STEPS, "shift_terminal")),
    "cogvideox vae scale": ("cogvideox", changed(VAE, scaling_factor=None), (VAE, "scaling_factor")),
    "cogvideox text alone": ("cogvideox", changed(DENOISER, in_channels=16), (DENOISER, "no video of a picture")),
    "cogvideox 1.5": ("cogvideox", changed(DENOISER, patch_size_t=2), (DENOISER, "patch_size_t")),
    "cogvideox angles": (
        "cogvideox",
        changed(DENOISER, use_rotary_positional_embeddings=False),
        (DENOISER, "use_rotary_positional_embeddings"),
    ),
    "cogvideox words": ("cogvideox", changed(DENOISER, max_text_seq_length=77), (DENOISER, "max_text_seq_length")),
    "cogvideox channels": ("cogvideox", changed(VAE, latent_channels=8), (DENOISER, "out_channels")),
    "cogvideox scheduler": (
        "cogvideox",
        changed(STEPS, _class_name="PNDMScheduler"),
        (STEPS, "CogVideoXDDIMScheduler"),
    ),
    "cogvideox spacing": ("cogvideox", changed(STEPS, timestep_spacing="leading"), (STEPS, "timestep_spacing")),
    "cogvideox part": ("cogvideox", gone("scheduler"), (STEPS, "missing")),
    "cogvideox weights": ("cogvideox", gone(WEIGHTS), ("transformer", "safetensors")),
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_folder_that_is_none_is_refused(spoilt: str, tmp_path: Path) -> None:
    name, spoil, said = SPOILT[spoilt]
    folder = Path(shutil.copytree(tiny_dit(name), tmp_path / "model"))
    assert outline_of(folder).kind == ("wan" if name == "i2v-14b" else name)
    spoil(folder)
    size: dict[str, Any] = {"width": 96, "height": 64, "num_frames": 17} if name == "ltx" else {}
    with no_weights_opened(), pytest.raises(FieldError) as caught:
        plan(scene(), outline_of(folder), controller=Controller(), sampling=Sampling(**size))
    text = str(caught.value)
    assert caught.value.field == "backbone" and "\n" not in text
    for word in said:
        assert word in text


@pytest.mark.parametrize(
    ("name", "field", "value", "said"),
    [
        ("ltx", "width", 100, "96 and 128"),
        ("ltx", "height", 32, "64..4096"),
        ("ltx", "num_frames", 15, "9 and 17"),
        ("ltx", "num_frames", 1, "9..1025"),
        ("cogvideox", "width", 80, "must be 64"),
        ("cogvideox", "height", 64, "must be 48"),
        ("cogvideox", "num_frames", 17, "at most 9"),
        ("cogvideox", "num_frames", 5, "9..1025"),
    ],
)
def test_a_size_that_cannot_be_made_is_refused(name: str, field: str, value: int, said: str) -> None:
    width, height, num_frames = (96, 64, 17) if name == "ltx" else (64, 48, 9)
    sampling = Sampling(width=width, height=height, num_frames=num_frames, num_steps=4)
    changed: Any = replace(sampling, **{field: value})  # type: ignore[arg-type]
    with no_weights_opened(), pytest.raises(FieldError, match=said) as caught:
        plan(scene(), outline_of(tiny_dit(name)), controller=Controller(), sampling=changed)
    assert caught.value.field == field


@pytest.mark.parametrize(("name", "limit"), [("ltx", 128), ("cogvideox", 226)])
def test_a_prompt_that_is_too_long_is_refused(name: str, limit: int) -> None:
    outline = outline_of(tiny_dit(name))
    size: dict[str, Any] = {} if name == "cogvideox" else {"width": 96, "height": 64, "num_frames": 17}
    with no_weights_opened():
        plan(scene("red " * 10), outline, controller=Controller(), sampling=Sampling(**size))
        with pytest.raises(FieldError, match=f"takes {limit}") as caught:
            plan(scene("red ball " * 200), outline, controller=Controller(), sampling=Sampling(**size))
    assert caught.value.field == "prompt"


def test_published_models_have_names_and_settings() -> None:
    assert names()["ltx-video"] == "Lightricks/LTX-Video"
    assert names()["cogvideox-5b-i2v"] == "THUDM/CogVideoX-5b-I2V"
    assert settings_of("ltx-video") == LTXSettings() and settings_of("cogvideox-5b-i2v") == CogVideoXSettings()
    assert [kind.kind for kind in kinds()][:4] == ["svd", "wan", "ltx", "cogvideox"]
    with pytest.raises(FieldError, match="decode_noise"):
        LTXSettings(decode_noise=2.0)


def test_without_learned_positions_any_size_is_made(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_dit("cogvideox"), tmp_path / "model"))
    changed(DENOISER, use_learned_positional_embeddings=False)(folder)
    outline = outline_of(folder)
    assert isinstance(outline, CogVideoXOutline) and outline.settings == CogVideoXSettings()
    assert outline.grid(96, 64, 17).latent_shape == (5, 16, 8, 12)
    with pytest.raises(FieldError, match="9 and 17"):
        outline.grid(96, 64, 13)


def test_memory_is_as_counted_at_full_size(tmp_path: Path) -> None:
    """Within a tenth of the project's figures: bytes live in a guided pass, checkpointed or not, in 16 bits."""
    full: Mapping[str, Any] = {
        "ltx": (
            {"num_attention_heads": 32, "attention_head_dim": 64, "num_layers": 28},
            (704, 512, 161), 12.9e9, 2.0e9,
        ),
        "cogvideox": (
            {
                "num_attention_heads": 48, "attention_head_dim": 64, "num_layers": 42, "sample_width": 90,
                "sample_height": 60, "sample_frames": 49,
            },
            (720, 480, 49), 28e9, 5.0e9,
        ),
    }  # fmt: skip
    for name, (config, size, guided, checkpointed) in full.items():
        folder = Path(shutil.copytree(tiny_dit(name), tmp_path / name))
        changed(DENOISER, **config)(folder)
        outline: Any = outline_of(folder)
        live = outline.live_bytes(outline.grid(*size))
        assert abs(live["guided"] / guided - 1) < 0.1 and abs(live["checkpointed"] / checkpointed - 1) < 0.1
        needed = outline.memory_needed(outline.grid(*size), torch.device("cpu"), torch.bfloat16)
        assert needed["fast"] >= needed["balanced"] >= needed["low"] > checkpointed
        assert needed["fast"] > max(guided, live["clip"])
        # Only a device with memory of its own is spared weights that are away, and whole clips in the autoencoder.
        apart = outline.memory_needed(outline.grid(*size), torch.device("cuda"), torch.bfloat16)
        assert apart["low"] < apart["balanced"] <= apart["fast"] and apart["low"] < needed["low"]

"""A tiny AnimateDiff of diffusers' and transformers' real classes, seeded, in folders like those people have."""

import functools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    MotionAdapter,
    PNDMScheduler,
    SparseControlNetModel,
    UNet2DConditionModel,
    UNetMotionModel,
)
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from sgi2v.backbones.animatediff.released import ADAPTED

WIDTH = 32
"""Channels of a text's rows."""
LEVELS = (32, 64)


def save_tokenizer(folder: Path) -> None:
    """CLIP's own tokenizer with letters for a vocabulary, and a few words merged of them."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)] + [",", "."]
    merges = ["r e", "re d</w>", "b a", "l l</w>", "ba ll</w>", "q u", "o w"]
    pieces = [*letters, *(f"{one}</w>" for one in letters), *(one.replace(" ", "") for one in merges)]
    vocabulary = {piece: index for index, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    said = {
        "tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": "<|endoftext|>", "do_lower_case": True,
        "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>",
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(said), encoding="utf-8")


def _wake_up(network: nn.Module) -> None:
    """Biases and norms that differ from channel to channel, attention with an opinion, no zero layer left."""
    for name, parameter in network.named_parameters():
        if ".to_q." in name or ".to_k." in name:
            parameter.mul_(2.0)
        if parameter.ndim == 1:
            parameter.add_(0.1 * torch.randn_like(parameter))
        elif not parameter.any():
            parameter.copy_(0.1 * torch.randn_like(parameter))


def motion_unet() -> UNetMotionModel:
    """Two levels of a layer, with a motion module after each."""
    return UNetMotionModel(
        block_out_channels=LEVELS, layers_per_block=1, cross_attention_dim=WIDTH, num_attention_heads=4,
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        up_block_types=("UpBlockMotion", "CrossAttnUpBlockMotion"), motion_num_attention_heads=4,
        motion_max_seq_length=32, use_motion_mid_block=False, norm_num_groups=32,
    )  # fmt: skip


def _pictures() -> dict[str, Any]:
    """The same network in two parts, as Stable Diffusion and AnimateDiff publish theirs."""
    unet = UNet2DConditionModel(
        block_out_channels=LEVELS, layers_per_block=1, cross_attention_dim=WIDTH, attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=32, sample_size=8,
    )  # fmt: skip
    motion = MotionAdapter(
        block_out_channels=LEVELS, motion_layers_per_block=1, motion_num_attention_heads=4, motion_norm_num_groups=32,
        use_motion_mid_block=False,
    )  # fmt: skip
    return {"unet": unet, "motion_adapter": motion}


def save_animatediff(folder: Path, *, apart: bool = False, seed: int = 0) -> Path:
    """Writes the model; ``apart`` with the motion modules in a folder of their own."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        parts: dict[str, Any] = {
            "vae": AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
                block_out_channels=(8, 8, 8, 8), norm_num_groups=4, sample_size=64,
            ),
            "text_encoder": CLIPTextModel(
                CLIPTextConfig(
                    vocab_size=128, hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
                    bos_token_id=0, eos_token_id=1, pad_token_id=1,
                )
            ),
            **(_pictures() if apart else {"unet": motion_unet()}),
        }  # fmt: skip
        index: dict[str, object] = {"_class_name": "AnimateDiffPipeline", "_diffusers_version": "0.42.1"}
        for name, part in parts.items():
            _wake_up(part)
            part.save_pretrained(folder / name, safe_serialization=True)
            index[name] = [type(part).__module__.partition(".")[0], type(part).__name__]
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="linear", steps_offset=1, clip_sample=False
    )  # fmt: skip
    scheduler.save_pretrained(folder / "scheduler")
    save_tokenizer(folder / "tokenizer")
    index |= {"scheduler": ["diffusers", "DDIMScheduler"], "tokenizer": ["transformers", "CLIPTokenizer"]}
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    CLIPTokenizer.from_pretrained(folder / "tokenizer")
    return folder


@functools.cache
def _root() -> tempfile.TemporaryDirectory[str]:
    """Goes when the interpreter does."""
    return tempfile.TemporaryDirectory(prefix="tiny-animatediff-")


@functools.cache
def _saved(apart: bool) -> Path:
    return save_animatediff(Path(_root().name) / ("apart" if apart else "whole"), apart=apart)


def tiny_animatediff(*, apart: bool = False) -> Path:
    """The folder, written once. Read it; to damage one, :func:`save_animatediff` your own."""
    return _saved(apart)


def released_key(key: str) -> str:
    """diffusers' name of a weight as AnimateDiff's own modules have it."""
    head, motion, tail = key.partition(".motion_modules.")
    if not motion:
        return key
    index, _, rest = tail.partition(".")
    for new, old in (
        ("pos_embed.pe", "attention_blocks.0.pos_encoder.pe"), ("attn1.", "attention_blocks.0."),
        ("attn2.", "attention_blocks.1."), ("norm1.", "norms.0."), ("norm2.", "norms.1."), ("norm3.", "ff_norm."),
    ):  # fmt: skip
        rest = rest.replace(new, old)
    return f"{head}{motion}{index}.temporal_transformer.{rest}"


def released(network: nn.Module, *, rank: int = 0) -> dict[str, torch.Tensor]:
    """A network's weights under AnimateDiff's own keys; with a rank two LoRA beside each layer that Image Conductor
    gives one."""
    found: dict[str, torch.Tensor] = {}
    adapted = set() if rank == 0 else {name for name, _ in network.named_modules() if ADAPTED.fullmatch(name)}
    for key, weight in network.state_dict().items():
        layer, _, last = key.rpartition(".")
        if layer not in adapted:
            found[released_key(key)] = weight
        else:
            place = released_key(f"{layer}.")[:-1]
            found[f"{place}.base_layer.{last}"] = weight
            if last == "weight":
                for one in ("omcm_weights", "cmcm_weights"):
                    ones = [1] * (weight.ndim - 2)
                    found[f"{place}.lora_A.{one}.weight"] = 0.2 * torch.randn(rank, *weight.shape[1:])
                    found[f"{place}.lora_B.{one}.weight"] = 0.2 * torch.randn(weight.shape[0], rank, *ones)
        if key.endswith("pos_embed.pe") and any(one.startswith(key.replace("pos_embed.pe", "attn2")) for one in
                                                network.state_dict()):  # fmt: skip
            found[released_key(key).replace("attention_blocks.0", "attention_blocks.1")] = weight.clone()
    return found


def controlnet(channels: int, *, masked: bool) -> SparseControlNetModel:
    """One of Image Conductor's, as wide as :func:`motion_unet`."""
    return SparseControlNetModel(
        block_out_channels=LEVELS, layers_per_block=1, cross_attention_dim=WIDTH, num_attention_heads=4,
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"), motion_num_attention_heads=4,
        conditioning_channels=channels, concat_conditioning_mask=masked,
    )  # fmt: skip


def image_conductor_files(*, seed: int = 0) -> dict[str, dict[str, torch.Tensor]]:
    """Weights of the three networks under their released keys, by the names of their files."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        parts = {
            "unet": motion_unet(), "image_controlnet": controlnet(4, masked=True),
            "flow_controlnet": controlnet(128, masked=False),
        }  # fmt: skip
        for part in parts.values():
            _wake_up(part)
        return {name: released(part, rank=2 if "flow" in name else 0) for name, part in parts.items()}


def save_image_conductor(folder: Path, *, pickled: bool = False, denoiser: bool = False, seed: int = 0) -> Path:
    """Writes both ControlNets, and the denoiser where asked: as safetensors, or as the release's pickles."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, weights in image_conductor_files(seed=seed).items():
        if name == "unet" and not denoiser:
            continue
        if pickled:
            torch.save({"state_dict": weights, "global_step": 20_000}, folder / f"{name}.ckpt")
        else:
            save_file(weights, folder / f"{name}.safetensors")
    (folder / "config.json").write_text(json.dumps({"motion_num_attention_heads": 4}), encoding="utf-8")
    return folder


@functools.cache
def tiny_image_conductor() -> Path:
    """The folder of both ControlNets, written once."""
    return save_image_conductor(Path(_root().name) / "image-conductor")


@functools.cache
def tiny_stable_diffusion() -> Path:
    """Stable Diffusion's folder without motion modules, and with another's scheduler."""
    folder = Path(_root().name) / "stable-diffusion"
    shutil.copytree(tiny_animatediff(apart=True), folder)
    shutil.rmtree(folder / "motion_adapter")
    PNDMScheduler(beta_schedule="scaled_linear").save_pretrained(folder / "scheduler")
    index = {"_class_name": "StableDiffusionPipeline"}
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder

"""Tiny video transformers of diffusers' real classes, seeded, in folders like the published ones."""

import functools
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    CogVideoXDDIMScheduler,
    CogVideoXTransformer3DModel,
    FlowMatchEulerDiscreteScheduler,
    LTXVideoTransformer3DModel,
    UniPCMultistepScheduler,
    WanTransformer3DModel,
)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

from sgi2v.backbones.wan.outline import Variant

WIDTH = 32
"""Channels of a text's rows."""
_TEXTS = (
    "a red ball rolls over the table to the left", "a cat walks through the garden", "low quality, blurry, static",
    "the camera moves slowly up", "a blue box on a shelf", "water runs down a window in the evening",
)  # fmt: skip


def tokenizer(length: int) -> PreTrainedTokenizerFast:
    """A few pieces of words, trained on the spot: nothing is fetched."""
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    made.train_from_iterator(
        _TEXTS, trainers.UnigramTrainer(vocab_size=90, special_tokens=special, unk_token="<unk>", show_progress=False)
    )
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=length,
        padding_side="right",
    )  # fmt: skip


def _encoder(*, multilingual: bool) -> nn.Module:
    config, made = (UMT5Config, UMT5EncoderModel) if multilingual else (T5Config, T5EncoderModel)
    encoder: nn.Module = made(
        config(
            vocab_size=100,
            d_model=WIDTH,
            d_kv=8,
            d_ff=48,
            num_layers=1,
            num_heads=4,
            relative_attention_num_buckets=8,
            feed_forward_proj="gated-gelu",
        )
    )
    return encoder


def _wake_up(network: nn.Module) -> None:
    """Biases and norms that differ from channel to channel, and attention with an opinion, as in a trained network."""
    for name, parameter in network.named_parameters():
        if ".to_q." in name or ".to_k." in name:
            parameter.mul_(2.0)
        if parameter.ndim == 1:
            parameter.add_(0.1 * torch.randn_like(parameter))


def _save(folder: Path, pipeline: str, length: int, parts: Mapping[str, Any], **more: object) -> Path:
    index: dict[str, object] = {"_class_name": pipeline, "_diffusers_version": "0.42.1", **more}
    for name, part in {**parts, "tokenizer": tokenizer(length)}.items():
        if isinstance(part, nn.Module):
            _wake_up(part)
        part.save_pretrained(folder / name)
        library = "diffusers" if type(part).__module__.startswith("diffusers") else "transformers"
        index[name] = [library, type(part).__name__]
    file = folder / "tokenizer" / "tokenizer_config.json"
    # transformers 5 writes a class that 4 does not know.
    said = json.loads(file.read_text(encoding="utf-8")) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    file.write_text(json.dumps(said), encoding="utf-8")
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


def _seeded(make: Any) -> Any:
    """The same weights in every run, and no other random number changed by that."""

    @functools.wraps(make)
    def made(*args: Any, **kwargs: Any) -> Any:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            return make(*args, **kwargs)

    return made


@_seeded
def save_wan(folder: Path, variant: Variant) -> Path:
    """One of Wan's three kinds, two blocks deep."""
    clean = variant == "ti2v-5b"
    channels = 48 if clean else 16

    def denoiser() -> WanTransformer3DModel:
        return WanTransformer3DModel(
            num_attention_heads=2, attention_head_dim=24, in_channels=channels if clean else 36, out_channels=channels,
            text_dim=WIDTH, freq_dim=32, ffn_dim=64, num_layers=2, rope_max_seq_len=64,
            image_dim=WIDTH if variant == "i2v-14b" else None,
            added_kv_proj_dim=48 if variant == "i2v-14b" else None,
        )  # fmt: skip

    shape = {"in_channels": 12, "out_channels": 12, "patch_size": 2, "is_residual": True, "scale_factor_spatial": 16}
    parts: dict[str, Any] = {
        "transformer": denoiser(),
        "vae": AutoencoderKLWan(
            base_dim=8, decoder_base_dim=8 if clean else None, z_dim=channels, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
            temperal_downsample=[False, True, True], latents_mean=[0.1] * channels, latents_std=[0.5] * channels,
            **(shape if clean else {}),
        ),
        "scheduler": UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0 if clean else 3.0
        ),
        "text_encoder": _encoder(multilingual=True),
    }  # fmt: skip
    more: dict[str, object] = {"transformer_2": [None, None], "expand_timesteps": clean, "boundary_ratio": None}
    if variant == "a14b":
        parts["transformer_2"] = denoiser()
        more["boundary_ratio"] = 0.9
    if variant == "i2v-14b":
        parts["image_encoder"] = CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=WIDTH,
                intermediate_size=WIDTH,
                num_hidden_layers=2,
                num_attention_heads=2,
                image_size=32,
                patch_size=16,
                projection_dim=WIDTH,
            )
        )
        parts["image_processor"] = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return _save(folder, "WanPipeline" if clean else "WanImageToVideoPipeline", 512, parts, **more)


@_seeded
def save_ltx(folder: Path, *, cleaning: bool = False) -> Path:
    """LTX-Video, two blocks deep; ``cleaning`` has a decoder that is told a noise level and adds noise inside."""
    more: dict[str, Any] = (
        {"timestep_conditioning": True, "decoder_inject_noise": (True, False, False, False)} if cleaning else {}
    )
    vae = AutoencoderKLLTXVideo(
        latent_channels=8, block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1), decoder_layers_per_block=(1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, True, False), decoder_spatio_temporal_scaling=(True, True, True),
        **{"decoder_inject_noise": (False,) * 4, **more}, upsample_residual=(False,) * 3, upsample_factor=(1,) * 3,
    )  # fmt: skip
    vae.latents_mean.uniform_(-0.2, 0.2)
    vae.latents_std.uniform_(0.3, 0.6)
    for name, parameter in vae.named_parameters():
        if "per_channel_scale" in name:
            parameter.fill_(0.3)
    parts = {
        "transformer": LTXVideoTransformer3DModel(
            in_channels=8, out_channels=8, num_attention_heads=2, attention_head_dim=24, cross_attention_dim=48,
            num_layers=2, caption_channels=WIDTH,
        ),
        "vae": vae,
        "scheduler": FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024,
            max_image_seq_len=4096, shift_terminal=0.1,
        ),
        "text_encoder": _encoder(multilingual=False),
    }  # fmt: skip
    return _save(folder, "LTXImageToVideoPipeline", 128, parts)


@_seeded
def save_cogvideox(folder: Path) -> Path:
    """CogVideoX for pictures, two blocks deep, which has learned 64x48 and nine frames."""
    parts = {
        "transformer": CogVideoXTransformer3DModel(
            num_attention_heads=2, attention_head_dim=16, in_channels=32, out_channels=16, time_embed_dim=32,
            text_embed_dim=WIDTH, num_layers=2, sample_width=8, sample_height=6, sample_frames=9,
            use_rotary_positional_embeddings=True, use_learned_positional_embeddings=True,
        ),
        "vae": AutoencoderKLCogVideoX(
            latent_channels=16, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4,
            scaling_factor=0.7, invert_scale_latents=True, sample_height=48, sample_width=64,
        ),
        "scheduler": CogVideoXDDIMScheduler(
            prediction_type="v_prediction", timestep_spacing="trailing", rescale_betas_zero_snr=True,
            snr_shift_scale=1.0, clip_sample=False,
        ),
        "text_encoder": _encoder(multilingual=False),
    }  # fmt: skip
    return _save(folder, "CogVideoXImageToVideoPipeline", 226, parts)


@functools.cache
def _root() -> tempfile.TemporaryDirectory[str]:
    """Goes when the interpreter does."""
    return tempfile.TemporaryDirectory(prefix="tiny-dit-")


@functools.cache
def tiny_dit(name: str) -> Path:
    """The folder of ``a14b``, ``i2v-14b``, ``ti2v-5b``, ``ltx``, ``ltx-cleaning`` or ``cogvideox``, written once."""
    folder = Path(_root().name) / name
    match name:
        case "a14b" | "i2v-14b" | "ti2v-5b":
            saved: Path = save_wan(folder, name)
        case "ltx" | "ltx-cleaning":
            saved = save_ltx(folder, cleaning=name != "ltx")
        case _:
            saved = save_cogvideox(folder)
    return saved

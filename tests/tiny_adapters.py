"""Tiny weights of trained systems, seeded: whole files, and additions that fit the tiny Stable Video Diffusion."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from sgi2v.backbones.adapters import LowRank
from sgi2v.backbones.svd.adapters.drag_anything import ControlNet, ControlSizes, DragAnythingAdapter
from sgi2v.backbones.svd.adapters.drag_nuwa import DragNUWAAdapter, flow_shapes
from sgi2v.backbones.svd.adapters.drag_nuwa_names import BLUR, CLIP, TEXT
from sgi2v.backbones.svd.adapters.drag_nuwa_shapes import Sizes, expected_of
from sgi2v.signals import Entities
from tiny import EMBEDDING

CHANNELS = (32, 64, 64, 64)
"""Of the tiny Stable Video Diffusion."""
CONTROL = ControlSizes(
    channels=CHANNELS, heads=(1, 2, 2, 4), context=EMBEDDING, told=48, heat=(4, 8, 8, 8), looks=(6, 8, 8, 8)
)
WHOLE = Sizes(
    channels=(32, 32, 64, 64), in_channels=8, out_channels=4, context=16, told=48, rank=2, head=16,
    vae=(32, 32, 32, 32), vae_layers=1, clip=(16, 1, 56, 32), clip_head=8,
)  # fmt: skip
LORA = "up_blocks.2.attentions.0.proj_in"


def drawn(shapes: dict[str, tuple[int, ...]], seed: int, strength: float = 1.0) -> dict[str, Tensor]:
    """Tensors of these shapes: norms near 1, the others as large as keeps a signal's size."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for key, shape in shapes.items():
        value = torch.randn(shape, generator=generator)
        if len(shape) > 1:
            value = value / max(value[0].numel(), 1) ** 0.5
        elif "norm" in key or key.endswith("weight"):
            value = 1 + 0.1 * value
        else:
            value = 0.1 * value
        made[key] = strength * value
    return made


def nuwa(seed: int = 0, *, last: float = 1.0) -> DragNUWAAdapter:
    """Additions for the tiny model; ``last`` scales the layers that reach into the network."""
    tensors = drawn(flow_shapes(CHANNELS, 2), seed)
    for key in tensors:
        if key.rpartition(".")[0].endswith(("gamma_temporal", "beta_temporal")):
            tensors[key] = last * tensors[key]
    generator = torch.Generator().manual_seed(seed)
    pair = torch.randn(2, 64, generator=generator) / 8, last * torch.randn(64, 2, generator=generator)
    low_rank = LowRank({LORA: pair}, name="lora", sha256=f"{seed:064x}")
    return DragNUWAAdapter.of(tensors, CHANNELS, 2, low_rank, name=f"nuwa-{seed}", sha256=f"{seed:064x}")


def anything(seed: int = 0, *, last: float = 1.0) -> DragAnythingAdapter:
    """A ControlNet for the tiny model; ``last`` scales the convolutions that its residuals come from."""
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in ControlNet(CONTROL).state_dict().items()}
    tensors = drawn(shapes, seed)
    for key in tensors:
        if key.startswith(("controlnet_down_blocks", "controlnet_mid_block")):
            tensors[key] = last * tensors[key]
    return DragAnythingAdapter.of(tensors, CONTROL, name=f"anything-{seed}", sha256=f"{seed:064x}")


def entities(num_frames: int, height: int, width: int, **more: object) -> Entities:
    """A thing that wanders to the right."""
    heat = torch.zeros(num_frames, height, width, dtype=torch.uint8)
    labels = torch.zeros(num_frames, height, width, dtype=torch.int32)
    for frame in range(num_frames):
        heat[frame, 20:40, 10 + 8 * frame : 30 + 8 * frame] = 200
        labels[frame, 24:36, 14 + 8 * frame : 26 + 8 * frame] = 1
    table = torch.stack([torch.zeros(6), torch.randn(6, generator=torch.Generator().manual_seed(1))])
    return Entities(heat=heat, labels=labels, table=table, **more)  # type: ignore[arg-type]


def whole_nuwa(folder: Path, *, blur: bool = False, seed: int = 0) -> Path:
    """A whole file of DragNUWA's layout with a Stable Video Diffusion in it, in a folder that says its heads."""
    text = {CLIP + name: (4, 16) for name in TEXT}
    shapes = dict(expected_of(WHOLE, text))
    shapes.pop(BLUR)
    tensors = drawn(shapes, seed)
    if blur:
        line = torch.exp(-((torch.arange(199) - 99.0) ** 2) / 800)
        tensors[BLUR] = (line[:, None] * line).expand(2, 1, -1, -1).contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "drag_nuwa.safetensors")
    said = {"num_head_channels": WHOLE.head, "clip_head_channels": WHOLE.clip_head}
    (folder / "config.json").write_text(json.dumps(said), encoding="utf-8")
    return folder


def saved_control(folder: Path, module: nn.Module) -> Path:
    """A ControlNet as it is published: weights and config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.contiguous() for key, value in module.state_dict().items()}
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors")
    said = {"num_attention_heads": list(CONTROL.heads)}
    (folder / "config.json").write_text(json.dumps(said), encoding="utf-8")
    return folder


def saved_diffusion(folder: Path) -> Path:
    """A tiny folder of Stable Diffusion 1.5's kind, whose features have twice as many channels as the looks."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            block_out_channels=(12, 12), norm_num_groups=4, cross_attention_dim=8, attention_head_dim=2,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), layers_per_block=1,
        )  # fmt: skip
        vae = AutoencoderKL(
            block_out_channels=(8,) * 4, norm_num_groups=4, layers_per_block=1,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )  # fmt: skip
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=4, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
                max_position_embeddings=7, bos_token_id=0, eos_token_id=1,
            )
        )  # fmt: skip
    folder.mkdir(parents=True)
    words = folder / "words"
    words.mkdir()
    (words / "vocab.json").write_text(json.dumps({"<|startoftext|>": 0, "<|endoftext|>": 1, "a": 2, "a</w>": 3}))
    (words / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(words / "vocab.json"), str(words / "merges.txt"), model_max_length=7)
    for part, saved in (("unet", unet), ("vae", vae), ("text_encoder", text), ("tokenizer", tokenizer)):
        saved.save_pretrained(folder / part)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    return folder

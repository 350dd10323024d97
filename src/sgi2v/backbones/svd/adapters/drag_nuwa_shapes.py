"""DragNUWA's file by the shapes of its tensors: the networks in it, and every key that it must hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sgi2v.backbones.adapter_files import AdapterFiles, said_number, shape_faults, shapes_of, size_of
from sgi2v.backbones.quiet import quiet_libraries
from sgi2v.backbones.svd.adapters.drag_nuwa_names import (
    BLUR,
    CLIP,
    DECODER,
    ENCODER,
    TEXT,
    UNET,
    autoencoder_key,
    clip_key,
    unet_layer,
)
from sgi2v.errors import FieldError
from sgi2v.lazy import torch

OPTIONAL: Final = frozenset({BLUR})
"""Keys that a whole file may lack."""
HEAD_CHANNELS: Final = 64
"""Channels of a head of attention, of which a file's shapes say nothing."""
CLIP_HEAD_CHANNELS: Final = 80
"""The same in the image encoder."""
_KERNEL: Final = 199


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of the networks in a file."""

    channels: tuple[int, ...]
    """Of the U-Net's levels."""
    in_channels: int
    out_channels: int
    context: int
    """Width of the image's token."""
    told: int
    """Width of the embedding of the three numbers that the U-Net is told."""
    rank: int
    """Of the low-rank additions."""
    head: int
    vae: tuple[int, ...]
    """Channels of the autoencoder's levels."""
    vae_layers: int
    clip: tuple[int, int, int, int]
    """The image encoder's width, layers, patch in pixels, width of a layer's inside."""
    clip_head: int
    layers: int = 2
    """Residual blocks of a level on the way down."""

    @classmethod
    def of(cls, found: AdapterFiles) -> Sizes:
        """As the shapes say; FieldError naming the key by which a size cannot be known.

        A folder's config.json may say ``num_head_channels`` and ``clip_head_channels``, where they are not those of
        the release.
        """
        heads = found.tensors

        def size(key: str, axis: int, otherwise: int | None = None) -> int:
            return size_of(found, "drag-nuwa", key, axis, otherwise)

        def count(pattern: str) -> int:
            n = 0
            while pattern.format(n) in heads:
                n += 1
            return n

        whole = brings_model(found)
        encoder, visual = ENCODER + "encoder.", CLIP + "visual."
        vae_levels = count(encoder + "down.{}.block.0.norm1.weight")
        made = cls(
            channels=tuple(
                size(f"{UNET}flow_blocks.{level}.{2 if level else 8}.weight", 0)
                for level in range(count(f"{UNET}flow_blocks.{{}}.0.bias"))
            ),
            in_channels=size(f"{UNET}input_blocks.0.0.weight", 1, None if whole else 8),
            out_channels=size(f"{UNET}out.2.weight", 0, None if whole else 4),
            context=size(f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.lora_down.weight", 1),
            told=size(f"{UNET}label_emb.0.0.lora_down.weight", 1),
            rank=size(f"{UNET}time_embed.0.lora_down.weight", 0),
            head=said_number(found, "num_head_channels", HEAD_CHANNELS),
            vae=tuple(size(f"{encoder}down.{n}.block.0.conv1.weight", 0) for n in range(vae_levels)),
            vae_layers=count(encoder + "down.0.block.{}.norm1.weight"),
            clip=(
                size(f"{visual}class_embedding", 0),
                count(visual + "transformer.resblocks.{}.ln_1.weight"),
                size(f"{visual}conv1.weight", 3),
                size(f"{visual}transformer.resblocks.0.mlp.c_fc.weight", 0),
            )
            if whole
            else (0, 0, 0, 0),
            clip_head=said_number(found, "clip_head_channels", CLIP_HEAD_CHANNELS),
        )
        wrong = [n for n in made.channels if n % 32 or n % made.head] + [n for n in made.vae if n % 32]
        if wrong or not made.channels or made.clip[0] % made.clip_head:
            raise FieldError(
                "adapter", f"{found.place} has widths that no drag-nuwa has ({wrong or made.clip[0]})", "fetch it again"
            )
        return made

    @property
    def attentive(self) -> tuple[bool, ...]:
        """Levels on the way up that have attention: all but the deepest, which is the first."""
        return (False, *(True for _ in self.channels[1:]))

    def unet_config(self) -> dict[str, object]:
        """Of diffusers' U-Net."""
        down = ["CrossAttnDownBlockSpatioTemporal"] * (len(self.channels) - 1) + ["DownBlockSpatioTemporal"]
        up = ["UpBlockSpatioTemporal"] + ["CrossAttnUpBlockSpatioTemporal"] * (len(self.channels) - 1)
        return {
            "in_channels": self.in_channels, "out_channels": self.out_channels, "num_frames": 14,
            "down_block_types": tuple(down), "up_block_types": tuple(up), "block_out_channels": self.channels,
            "num_attention_heads": tuple(width // self.head for width in self.channels),
            "cross_attention_dim": self.context, "addition_time_embed_dim": self.told // 3,
            "projection_class_embeddings_input_dim": self.told, "layers_per_block": self.layers,
        }  # fmt: skip

    def networks(self) -> tuple[Any, Any, Any]:
        """diffusers' U-Net and temporal autoencoder and transformers' image encoder; on whichever device is chosen."""
        with quiet_libraries():
            from diffusers import AutoencoderKLTemporalDecoder

        vae = AutoencoderKLTemporalDecoder(
            block_out_channels=self.vae, layers_per_block=self.vae_layers, latent_channels=self.out_channels,
            down_block_types=("DownEncoderBlock2D",) * len(self.vae),
        )  # fmt: skip
        return self.unet(), vae, self.image_encoder()

    def unet(self) -> Any:
        """diffusers' U-Net alone."""
        with quiet_libraries():
            from diffusers import UNetSpatioTemporalConditionModel

        return UNetSpatioTemporalConditionModel(**self.unet_config())

    def image_encoder(self) -> Any:
        """transformers' image encoder alone."""
        with quiet_libraries():
            from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        width, layers, patch, inner = self.clip
        config = CLIPVisionConfig(
            hidden_size=width, num_hidden_layers=layers, patch_size=patch, intermediate_size=inner, image_size=224,
            num_attention_heads=width // self.clip_head, projection_dim=self.context, hidden_act="gelu",
        )  # fmt: skip
        return CLIPVisionModelWithProjection(config)


def brings_model(found: AdapterFiles) -> bool:
    """True for a file with a whole Stable Video Diffusion in it, False for additions beside a folder's."""
    return any(key.startswith(DECODER) for key in found.tensors)


def faults_of(found: AdapterFiles) -> tuple[str, ...]:
    """Keys that are absent, unknown or of a wrong shape, a sentence each.

    Additions beside a folder may hold any of the U-Net's own weights, where these are others than the folder's.
    """
    if brings_model(found):
        return shape_faults(found.tensors, expected(found), OPTIONAL)
    sizes = Sizes.of(found)
    with torch.device("meta"):
        unet = sizes.unet()
    own = {name: shape for name, (shape, _) in unet_keys(unet, sizes).items()}
    return shape_faults(found.tensors, own | additions_of(unet, sizes), frozenset(own))


def additions_of(unet: Any, sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Keys of all that is added to the U-Net, with their shapes."""
    from sgi2v.backbones.svd.adapters.drag_nuwa import flow_shapes

    keys = {UNET + name: shape for name, shape in flow_shapes(sizes.channels, sizes.layers).items()}
    for layer, module in linears(unet):
        name = published_layer(layer, sizes)
        keys[f"{name}.lora_down.weight"] = (sizes.rank, module.in_features)
        keys[f"{name}.lora_up.weight"] = (module.out_features, sizes.rank)
    return keys


def expected(found: AdapterFiles) -> Mapping[str, tuple[int, ...]]:
    """Every key of a whole file of these sizes with its shape."""
    text = {CLIP + name: found.tensors[CLIP + name].shape for name in TEXT if CLIP + name in found.tensors}
    return expected_of(Sizes.of(found), text)


def expected_of(sizes: Sizes, text: Mapping[str, tuple[int, ...]]) -> Mapping[str, tuple[int, ...]]:
    """The same of sizes; ``text`` are the shapes of the text side, which nothing uses: any will do."""
    with torch.device("meta"):
        unet, vae, clip = sizes.networks()
        plain = _plain_decoder(sizes)
    keys = {name: shape for name, (shape, _) in unet_keys(unet, sizes).items()} | additions_of(unet, sizes)
    levels = len(sizes.vae)
    for half, prefixes in (("encoder", (ENCODER, DECODER)), ("decoder", (DECODER,))):
        for key, shape in shapes_of(getattr(vae, half)).items():
            for prefix in prefixes:
                name = f"{prefix}{half}.{autoencoder_key(key, levels)}"
                keys[name] = (*shape, 1, 1) if _squeezed(key, shape) else shape
    for key, shape in shapes_of(plain).items():
        keys[f"{ENCODER}decoder.{autoencoder_key(key, levels)}"] = (*shape, 1, 1) if _squeezed(key, shape) else shape
    z = sizes.out_channels
    keys |= {f"{ENCODER}quant_conv.weight": (2 * z, 2 * z, 1, 1), f"{ENCODER}quant_conv.bias": (2 * z,)}
    keys |= {f"{ENCODER}post_quant_conv.weight": (z, z, 1, 1), f"{ENCODER}post_quant_conv.bias": (z,)}
    for key, shape in shapes_of(clip).items():
        name, part = clip_key(key)
        if not key.endswith("position_ids"):
            keys[CLIP + name] = shape if not part else (3 * shape[0], *shape[1:])
    keys[f"{CLIP}visual.proj"] = tuple(reversed(keys[f"{CLIP}visual.proj"]))
    keys |= {CLIP + name: text.get(CLIP + name, ()) for name in TEXT}
    keys[BLUR] = (2, 1, _KERNEL, _KERNEL)
    return keys


def linears(unet: Any) -> list[tuple[str, Any]]:
    """Linear layers of a U-Net by name: all of them carry low-rank additions."""
    return [(name, module) for name, module in unet.named_modules() if isinstance(module, torch.nn.Linear)]


def published_layer(layer: str, sizes: Sizes) -> str:
    """A U-Net's layer as the file names it."""
    return UNET + unet_layer(layer, layers=sizes.layers, attentive=sizes.attentive)


def unet_keys(unet: Any, sizes: Sizes) -> dict[str, tuple[tuple[int, ...], str]]:
    """The file's name of every weight of the U-Net -> its shape and diffusers' name."""
    known = {name for name, _ in linears(unet)}
    found = {}
    for key, shape in shapes_of(unet).items():
        layer, _, weight = key.rpartition(".")
        name = published_layer(layer, sizes) + (".linear" if layer in known else "")
        found[f"{name}.{weight}"] = shape, key
    return found


def _squeezed(key: str, shape: tuple[int, ...]) -> bool:
    """True for a linear layer that the file keeps as a convolution of one place."""
    return ".attentions." in key and len(shape) == 2


def _plain_decoder(sizes: Sizes) -> Any:
    from diffusers.models.autoencoders.vae import Decoder

    return Decoder(
        in_channels=sizes.out_channels, out_channels=3, block_out_channels=sizes.vae,
        up_block_types=("UpDecoderBlock2D",) * len(sizes.vae), layers_per_block=sizes.vae_layers,
    )  # fmt: skip

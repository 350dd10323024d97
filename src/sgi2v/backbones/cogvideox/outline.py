"""CogVideoX image-to-video as its configuration tells it: settings, sizes, schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from sgi2v.backbones.base import Advice, Mode
from sgi2v.backbones.cogvideox.schedule import check_ddim_schedule, ddim_levels
from sgi2v.backbones.dit.advice import without_attention
from sgi2v.backbones.dit.outline import (
    DiTOutline,
    DiTSettings,
    check_text_width,
    folder_settings,
    read_parts,
    tile_share,
)
from sgi2v.backbones.fields import check_class, flag, number, numbers, positive
from sgi2v.backbones.text import TextRules
from sgi2v.errors import FieldError
from sgi2v.grid import Grid
from sgi2v.lazy import torch
from sgi2v.records import Json
from sgi2v.step import Level

if TYPE_CHECKING:
    from sgi2v.backbones.cogvideox.model import CogVideoX

_WORDS = 226


def _advice() -> Advice:
    """Values from the project's notes on other people's methods; none was measured on these weights.

    Layers: those that DiffTrack and DiTFlow found to match places (15, 17, 18, 20 of 42). Time-to-Move: its published
    steps 4 and 9 of 50, as noise levels.
    """
    return {
        "sg-i2v": {
            "layers": tuple(f"transformer_blocks.{index}:first-frame" for index in (15, 17, 18, 20)),
            "guided": {"low": 0.93, "high": 0.99, "unit": "noise-level"},
            "weight_decay": 0.0,
        },
        "time-to-move": {"t_weak": 0.959, "t_strong": 0.895, "unit": "noise-level"},
        **without_attention(0.804, "transformer_blocks.18:output", 8),
    }


@dataclass(frozen=True, kw_only=True)
class CogVideoXSettings(DiTSettings):
    """Conditions of CogVideoX besides image and prompt; the published values as defaults."""

    width: int = 720
    """Width of the picture the model makes unless told otherwise, in pixels."""
    height: int = 480
    """Height of the picture the model makes unless told otherwise, in pixels."""
    num_frames: int = 49
    """Frames in a clip unless told otherwise."""
    num_steps: int = 50
    """Denoising steps unless told otherwise."""
    fps: float = 8.0
    """Frames a second of the video."""
    guidance_scale: float = 6.0
    """Classifier-free guidance away from the negative prompt; 1: none, which halves a step's cost."""
    dynamic_guidance: bool = False
    """Guidance that varies from step to step between 1 and 1 more than its scale, as its authors' code can do."""
    recommended: Advice = field(default_factory=_advice)
    """Controller name -> the values of its fields that suit this model."""


@dataclass(frozen=True, kw_only=True)
class CogVideoXOutline(DiTOutline):
    """A folder of CogVideoX, read as far as its configuration goes."""

    settings: CogVideoXSettings

    KIND: ClassVar[str] = "cogvideox"
    BLOCKS: ClassVar[str] = "transformer_blocks"
    LORA: ClassVar[str] = "CogVideoXLoraLoaderMixin"
    TEXT: ClassVar[TextRules] = TextRules(length=_WORDS, cleaned=False, masked=False, filling="encoded")

    @classmethod
    def of(
        cls, folder: Path, *, name: str = "", hub_id: str | None = None, settings: CogVideoXSettings | None = None
    ) -> CogVideoXOutline:
        """Read a folder; FieldError naming the file when it is incomplete, damaged, or makes no video of a picture."""
        transformer, vae, scheduler = read_parts(folder, "a CogVideoX model")
        _check_vae(folder / "vae" / "config.json", vae)
        _check_transformer(folder / "transformer" / "config.json", transformer, vae)
        check_ddim_schedule(scheduler, folder / "scheduler" / "scheduler_config.json")
        outline = cls(
            folder=folder,
            name=name or str(folder),
            settings=settings or folder_settings(folder, _settings(transformer, vae)),
            transformer=transformer,
            vae=vae,
            scheduler=scheduler,
            hub_id=hub_id,
        )
        return outline

    @property
    def stride(self) -> int:
        """Pixels of a latent cell, both ways."""
        return int(2 ** (len(self.vae["block_out_channels"]) - 1))

    @property
    def frame_stride(self) -> int:
        """Video frames of a latent frame after the first."""
        return number(self.vae, "temporal_compression_ratio", self.folder / "vae" / "config.json")

    @property
    def frames_every(self) -> int:
        """The autoencoder takes latent frames two by two after the first."""
        return 2 * self.frame_stride

    @property
    def channels(self) -> int:
        """Channels of the latents."""
        return number(self.vae, "latent_channels", self.folder / "vae" / "config.json")

    @property
    def patch(self) -> int:
        """Latent cells of a token, both ways."""
        return number(self.transformer, "patch_size", self.folder / "transformer" / "config.json")

    @property
    def aspects(self) -> tuple[float, float]:
        """As of all; where positions were learned, only the shape they were learned at."""
        if not self.transformer.get("use_learned_positional_embeddings"):
            return super().aspects
        own = self.transformer["sample_width"] / self.transformer["sample_height"]
        return own, own

    def levels(self, num_steps: int, grid: Grid) -> Sequence[Level]:
        """The folder's own schedule; FieldError for more steps than the network was trained with."""
        return ddim_levels(self.scheduler, num_steps)

    def grid(self, width: int, height: int, num_frames: int) -> Grid:
        """As of all; where positions were learned, only the size they were learned at, and no more frames."""
        if self.transformer.get("use_learned_positional_embeddings"):
            for name, size, cells in (("width", width, "sample_width"), ("height", height, "sample_height")):
                only = self.transformer[cells] * self.stride
                if size != only:
                    raise FieldError(name, f"must be {only}, the one this model learned, got {size}")
            most = self.transformer["sample_frames"]
            if num_frames > most:
                raise FieldError("num_frames", f"must be at most {most}, as this model learned, got {num_frames}")
        return super().grid(width, height, num_frames)

    @property
    def live(self) -> tuple[float, float, float]:
        """Bytes as counted at full size; the autoencoder decodes eight frames at a time, in float32."""
        return 24.7, 50.7, 91_600.0

    def live_bytes(self, grid: Grid) -> Mapping[str, float]:
        """As of all; tiles of half the trained size each way, which overlap."""
        live = super().live_bytes(grid)
        file = self.folder / "vae" / "config.json"
        sides = (number(self.vae, "sample_height", file) // 2, number(self.vae, "sample_width", file) // 2)
        return {**live, "tiled": live["clip"] * tile_share(grid, *sides)}

    def opened(self, device: torch.device, dtype: torch.dtype, memory: Mode) -> CogVideoX:
        """The model of weights that are there."""
        from sgi2v.backbones.cogvideox.model import CogVideoX

        return CogVideoX.of(self, device=device, dtype=dtype, memory=memory)


def _settings(transformer: Json, vae: Json) -> CogVideoXSettings:
    """The published settings, at the only size that a network of learned positions can make."""
    if not transformer.get("use_learned_positional_embeddings"):
        return CogVideoXSettings()
    stride = 2 ** (len(vae["block_out_channels"]) - 1)
    return CogVideoXSettings(
        width=transformer["sample_width"] * stride,
        height=transformer["sample_height"] * stride,
        num_frames=transformer["sample_frames"],
    )


def _check_transformer(file: Path, config: Json, vae: Json) -> None:
    for name in (
        "num_layers", "num_attention_heads", "attention_head_dim", "in_channels", "out_channels", "patch_size",
        "sample_width", "sample_height", "sample_frames",
    ):  # fmt: skip
        number(config, name, file)
    flag(config, "use_learned_positional_embeddings", file)
    check_text_width(file.parents[1], "text_embed_dim", number(config, "text_embed_dim", file, 4096))
    if config.get("patch_size_t") is not None or config.get("ofs_embed_dim") is not None:
        raise FieldError(
            "backbone",
            f"{file}: patch_size_t and ofs_embed_dim must be null, as in version 1.0",
            "use CogVideoX-5b-I2V",
        )
    if config["in_channels"] != 2 * config["out_channels"]:
        raise FieldError(
            "backbone",
            f"{file}: a network that takes {config['in_channels']} channels and makes {config['out_channels']} makes "
            "no video of a picture",
            "use CogVideoX-5b-I2V",
        )
    if config.get("use_rotary_positional_embeddings") is not True:
        raise FieldError("backbone", f"{file}: use_rotary_positional_embeddings must be true", "use CogVideoX-5b-I2V")
    if config.get("max_text_seq_length", _WORDS) != _WORDS:
        raise FieldError(
            "backbone", f"{file}: max_text_seq_length must be {_WORDS}, got {config['max_text_seq_length']}"
        )
    if config["out_channels"] != vae["latent_channels"]:
        raise FieldError(
            "backbone",
            f"{file}: out_channels is {config['out_channels']}, and the autoencoder has {vae['latent_channels']}",
        )


def _check_vae(file: Path, config: Json) -> None:
    check_class(config, "AutoencoderKLCogVideoX", file)
    for name in ("latent_channels", "temporal_compression_ratio", "sample_height", "sample_width"):
        number(config, name, file)
    numbers(config, "block_out_channels", file)
    positive(config, "scaling_factor", file)
    flag(config, "invert_scale_latents", file)

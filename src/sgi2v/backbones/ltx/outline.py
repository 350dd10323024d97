"""LTX-Video as its configuration tells it: settings, sizes, schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Final

from sgi2v.backbones.base import Advice, Mode
from sgi2v.backbones.dit.advice import without_attention
from sgi2v.backbones.dit.outline import (
    DiTOutline,
    DiTSettings,
    check_text_width,
    folder_settings,
    read_parts,
    tile_share,
)
from sgi2v.backbones.dit.schedules import check_flow_schedule
from sgi2v.backbones.fields import check_class, check_values, flag, number, positive, wrong
from sgi2v.backbones.text import TextRules
from sgi2v.checks import Bounds
from sgi2v.errors import FieldError
from sgi2v.grid import Grid
from sgi2v.lazy import torch
from sgi2v.records import Json

if TYPE_CHECKING:
    from sgi2v.backbones.ltx.model import LTX

_TILE: Final = 512
"""Side of the tiles of diffusers' autoencoder, in pixels."""


def _advice() -> Advice:
    """Values from the project's notes on other people's methods; none was measured on these weights.

    Layers: the middle of the network (11 to 15 of 28). Time-to-Move was never published for this model: its levels
    are those it has on Wan 2.2 I2V-A14B.
    """
    return {
        "sg-i2v": {
            "layers": ("transformer_blocks.11:first-frame", "transformer_blocks.13:first-frame"),
            "guided": {"low": 0.93, "high": 0.99, "unit": "noise-level"},
            "weight_decay": 0.0,
        },
        "time-to-move": {"t_weak": 0.979, "t_strong": 0.949, "unit": "noise-level"},
        **without_attention(0.978, "transformer_blocks.13:output", 32, keeps_first=True),
    }


@dataclass(frozen=True, kw_only=True)
class LTXSettings(DiTSettings):
    """Conditions of LTX-Video besides image and prompt; the published values as defaults."""

    width: int = 704
    """Width of the picture the model makes unless told otherwise, in pixels."""
    height: int = 512
    """Height of the picture the model makes unless told otherwise, in pixels."""
    num_frames: int = 161
    """Frames in a clip unless told otherwise."""
    num_steps: int = 50
    """Denoising steps unless told otherwise."""
    fps: float = 25.0
    """Frames a second: of the video, and told to the model, which makes other motion at another rate."""
    guidance_scale: float = 3.0
    """Classifier-free guidance away from the negative prompt; 1: none, which halves a step's cost."""
    decode_timestep: float = 0.05
    """Noise level that the autoencoder is told when it decodes, where it asks for one (0.9.1 and later)."""
    decode_noise: float = 0.025
    """Share of noise mixed into the latents before such an autoencoder decodes them."""
    recommended: Advice = field(default_factory=_advice)
    """Controller name -> the values of its fields that suit this model."""

    BOUNDS: ClassVar[Bounds] = MappingProxyType({"decode_timestep": (0, 1), "decode_noise": (0, 1)})


@dataclass(frozen=True, kw_only=True)
class LTXOutline(DiTOutline):
    """A folder of LTX-Video, read as far as its configuration goes."""

    settings: LTXSettings

    KIND: ClassVar[str] = "ltx"
    BLOCKS: ClassVar[str] = "transformer_blocks"
    LORA: ClassVar[str] = "LTXVideoLoraLoaderMixin"
    TEXT: ClassVar[TextRules] = TextRules(length=128, cleaned=False, masked=False, filling="none")

    @classmethod
    def of(
        cls, folder: Path, *, name: str = "", hub_id: str | None = None, settings: LTXSettings | None = None
    ) -> LTXOutline:
        """Read a folder; FieldError naming the file when it is incomplete, damaged, or no LTX-Video."""
        transformer, vae, scheduler = read_parts(folder, "an LTX-Video model")
        _check_transformer(folder / "transformer" / "config.json", transformer)
        _check_vae(folder / "vae" / "config.json", vae, transformer)
        file = folder / "scheduler" / "scheduler_config.json"
        check_class(scheduler, "FlowMatchEulerDiscreteScheduler", file)
        check_flow_schedule(scheduler, file)
        if scheduler.get("use_dynamic_shifting") is not True:
            # Distilled versions come with timesteps of their own instead, which are not known here.
            raise FieldError("backbone", f"{file}: use_dynamic_shifting must be true", "use a model not distilled")
        outline = cls(
            folder=folder,
            name=name or str(folder),
            settings=settings or folder_settings(folder, LTXSettings()),
            transformer=transformer,
            vae=vae,
            scheduler=scheduler,
            hub_id=hub_id,
        )
        return outline

    @property
    def stride(self) -> int:
        """Pixels of a latent cell, both ways."""
        return self._ratio("spatial_compression_ratio", "patch_size")

    @property
    def frame_stride(self) -> int:
        """Video frames of a latent frame after the first."""
        return self._ratio("temporal_compression_ratio", "patch_size_t")

    def _ratio(self, said: str, patch: str) -> int:
        """A ratio as the autoencoder works it out: each block that scales halves both place and time."""
        file = self.folder / "vae" / "config.json"
        if self.vae.get(said) is not None:
            return number(self.vae, said, file)
        scaling = self.vae["spatio_temporal_scaling"]
        assert isinstance(scaling, list)
        return number(self.vae, patch, file) * int(2 ** sum(scaling))

    @property
    def channels(self) -> int:
        """Channels of the latents."""
        return number(self.vae, "latent_channels", self.folder / "vae" / "config.json")

    @property
    def patch(self) -> int:
        """A token is a latent cell."""
        return 1

    @property
    def live(self) -> tuple[float, float, float]:
        """Bytes as counted at full size; the autoencoder's for a pixel of each frame: it takes a clip as a whole."""
        return 61.0, 107.0, 185.5

    def live_bytes(self, grid: Grid) -> Mapping[str, float]:
        """As of all, but that the autoencoder takes more the longer the clip; tiles as diffusers' class has them."""
        live = super().live_bytes(grid)
        whole = live["clip"] * grid.num_frames
        return {**live, "clip": whole, "tiled": whole * tile_share(grid, _TILE, _TILE)}

    def opened(self, device: torch.device, dtype: torch.dtype, memory: Mode) -> LTX:
        """The model of weights that are there."""
        from sgi2v.backbones.ltx.model import LTX

        return LTX.of(self, device=device, dtype=dtype, memory=memory)


def _check_transformer(file: Path, config: Json) -> None:
    for name in ("num_layers", "num_attention_heads", "attention_head_dim", "in_channels", "caption_channels"):
        number(config, name, file)
    channels = config["in_channels"]
    check_values(config, {"patch_size": 1, "patch_size_t": 1, "out_channels": channels}, file)
    check_text_width(file.parents[1], "caption_channels", config["caption_channels"])


def _check_vae(file: Path, config: Json, transformer: Json) -> None:
    check_class(config, "AutoencoderKLLTXVideo", file)
    for name in ("latent_channels", "patch_size", "patch_size_t"):
        number(config, name, file)
    if config["latent_channels"] != transformer["in_channels"]:
        raise FieldError(
            "backbone",
            f"{file}: latent_channels is {config['latent_channels']}, and the transformer takes "
            f"{transformer['in_channels']}",
        )
    positive(config, "scaling_factor", file, 1.0)
    flag(config, "timestep_conditioning", file)
    noisy = config.get("decoder_inject_noise", [])
    if not (isinstance(noisy, list) and all(isinstance(one, bool) for one in noisy)):
        raise wrong(file, "decoder_inject_noise", "be a list of truths", noisy)
    for ratio in ("spatial_compression_ratio", "temporal_compression_ratio"):
        if config.get(ratio) is not None:
            number(config, ratio, file)
    scaling = config.get("spatio_temporal_scaling")
    if not (isinstance(scaling, list) and all(isinstance(one, bool) for one in scaling)):
        raise FieldError("backbone", f"{file}: spatio_temporal_scaling must be a list of truths, got {scaling!r}")

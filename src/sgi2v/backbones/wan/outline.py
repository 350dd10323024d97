"""Wan as its configuration tells it: which of the three kinds, settings, sizes, schedule."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Final, Literal

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
from sgi2v.backbones.fields import number, numbers, positive, wrong
from sgi2v.backbones.folder import check_parts, read_json
from sgi2v.backbones.text import TextRules
from sgi2v.checks import Bounds
from sgi2v.errors import FieldError
from sgi2v.grid import Grid
from sgi2v.lazy import torch
from sgi2v.records import Json

if TYPE_CHECKING:
    from sgi2v.backbones.wan.model import Wan

_TILE: Final = 256
"""Side of the tiles of diffusers' autoencoder, in pixels."""
Variant = Literal["a14b", "i2v-14b", "ti2v-5b"]
"""2.2 I2V-A14B: two experts that take turns. 2.1 I2V-14B: an image encoder beside the picture's latents. 2.2 TI2V-5B:
a clean first latent frame."""


def _recommended(layers: tuple[str, ...], t_weak: float, t_strong: float, others: Advice) -> Advice:
    """Values of other people's methods on these models (shared notes of the project); none was measured here."""
    return {
        "sg-i2v": {
            "layers": layers,
            "guided": {"low": 0.93, "high": 0.99, "unit": "noise-level"},
            "weight_decay": 0.0,
        },
        "time-to-move": {"t_weak": t_weak, "t_strong": t_strong, "unit": "noise-level"},
        **others,
    }


def _of_14b() -> Advice:
    others = without_attention(0.875, "blocks.18:output", 8)
    return _recommended(("blocks.16:first-frame", "blocks.18:first-frame"), 0.979, 0.949, others)


def _of_5b() -> Advice:
    others = without_attention(0.921, "blocks.14:output", 16, keeps_first=True)
    return _recommended(("blocks.12:first-frame", "blocks.14:first-frame"), 0.98, 0.95, others)


@dataclass(frozen=True, kw_only=True)
class WanSettings(DiTSettings):
    """Conditions of Wan besides image and prompt; the published values as defaults."""

    width: int = 832
    """Width of the picture the model makes unless told otherwise, in pixels."""
    height: int = 480
    """Height of the picture the model makes unless told otherwise, in pixels."""
    num_frames: int = 81
    """Frames in a clip unless told otherwise."""
    num_steps: int = 50
    """Denoising steps unless told otherwise."""
    fps: float = 16.0
    """Frames a second of the video."""
    guidance_scale_2: float | None = None
    """Guidance scale of the second expert, for low noise; none: that of the first. Whether there is guidance at all
    the first alone decides."""
    trained_for: str = ""
    """Method that the weights were trained for: wan-move, ati; empty: none, or as the model's name says."""
    recommended: Advice = field(default_factory=_of_14b)
    """Controller name -> the values of its fields that suit this model."""

    BOUNDS: ClassVar[Bounds] = MappingProxyType({"guidance_scale_2": (0, 100)})


def _a14b() -> WanSettings:
    return WanSettings(guidance_scale=3.5, num_steps=40)


def _ti2v() -> WanSettings:
    return WanSettings(width=1280, height=704, num_frames=121, fps=24.0, recommended=_of_5b())


PUBLISHED: Final[Mapping[str, Callable[[], WanSettings]]] = MappingProxyType(
    {"a14b": _a14b, "i2v-14b": WanSettings, "ti2v-5b": _ti2v}
)
"""Settings of each kind as its authors publish them."""


@dataclass(frozen=True, kw_only=True)
class WanOutline(DiTOutline):
    """A folder of Wan, read as far as its configuration goes."""

    settings: WanSettings
    variant: Variant
    boundary: float | None = None
    """Timestep from which on the first expert is asked, below it the second; None with one network."""

    KIND: ClassVar[str] = "wan"
    LORA: ClassVar[str] = "WanLoraLoaderMixin"
    TEXT: ClassVar[TextRules] = TextRules(length=512, cleaned=True, masked=True)

    @classmethod
    def of(
        cls, folder: Path, *, name: str = "", hub_id: str | None = None, settings: WanSettings | None = None
    ) -> WanOutline:
        """Read a folder; FieldError naming the file when it is incomplete, damaged, or no Wan image-to-video."""
        transformer, vae, scheduler = read_parts(folder, "a Wan model")
        index = read_json(folder / "model_index.json")
        variant = _variant(folder, transformer, index)
        _check_transformer(folder / "transformer" / "config.json", transformer)
        check_flow_schedule(scheduler, folder / "scheduler" / "scheduler_config.json")
        _check_vae(folder / "vae" / "config.json", vae, transformer)
        boundary = None
        extra: tuple[str, ...] = ()
        if variant == "a14b":
            extra = ("transformer_2/config.json",)
            ratio = positive(index, "boundary_ratio", folder / "model_index.json")
            if ratio >= 1:
                raise wrong(folder / "model_index.json", "boundary_ratio", "be below 1", ratio)
            boundary = 1000.0 * ratio
        if variant == "i2v-14b":
            extra = ("image_encoder/config.json", "image_processor/preprocessor_config.json")
        check_parts(folder, extra, "a Wan model")
        if variant == "i2v-14b":
            _check_image_encoder(
                folder / extra[0], number(transformer, "image_dim", folder / "transformer" / "config.json")
            )
        if variant == "a14b":
            second = read_json(folder / "transformer_2" / "config.json")
            _check_transformer(folder / "transformer_2" / "config.json", second)
            if any(second.get(key) != transformer.get(key) for key in ("in_channels", "num_layers", "text_dim")):
                raise FieldError("backbone", f"{folder}: transformer and transformer_2 are of different kinds")
        outline = cls(
            folder=folder,
            name=name or str(folder),
            settings=settings or folder_settings(folder, PUBLISHED[variant]()),
            transformer=transformer,
            vae=vae,
            scheduler=scheduler,
            hub_id=hub_id,
            variant=variant,
            boundary=boundary,
        )
        return outline

    @property
    def networks(self) -> tuple[str, ...]:
        """Folders of the parts that have weights."""
        more = {"a14b": ("transformer_2",), "i2v-14b": ("image_encoder",)}
        return (*super().networks, *more.get(self.variant, ()))

    @property
    def stride(self) -> int:
        """Pixels of a latent cell, both ways."""
        return number(self.vae, "scale_factor_spatial", self.folder / "vae" / "config.json")

    @property
    def frame_stride(self) -> int:
        """Video frames of a latent frame after the first."""
        return number(self.vae, "scale_factor_temporal", self.folder / "vae" / "config.json")

    @property
    def channels(self) -> int:
        """Channels of the latents."""
        return number(self.vae, "z_dim", self.folder / "vae" / "config.json")

    @property
    def edits_image(self) -> bool:
        """True but for TI2V, which is given a clean first frame."""
        return self.variant != "ti2v-5b"

    @property
    def trained_for(self) -> str:
        """As the settings say, else as the model's name does."""
        own = self.files.get("transformer")
        named = (self.name.rpartition("/")[2] if own is None else own.stem).lower()
        said = re.findall(r"(?<![a-z])(wan[-_]?move|ati)(?![a-z])", named)
        return self.settings.trained_for or ("" if not said else "ati" if said[0] == "ati" else "wan-move")

    @property
    def patch(self) -> int:
        """Latent cells of a token, both ways."""
        patch = self.transformer["patch_size"][1]
        assert isinstance(patch, int)
        return patch

    @property
    def live(self) -> tuple[float, float, float]:
        """Bytes as counted on the full-size models; TI2V's network is told a time for every token, which costs."""
        return (76.8, 121.0, 22_500.0) if self.variant == "ti2v-5b" else (43.5, 74.0, 20_500.0)

    def live_bytes(self, grid: Grid) -> Mapping[str, float]:
        """As of all; besides a tile, what is kept of the clip's pixels and of the tiles that are done."""
        live = super().live_bytes(grid)
        pixels = grid.width * grid.height * grid.num_frames
        return {**live, "tiled": live["clip"] * tile_share(grid, _TILE, _TILE) + 38 * pixels}

    def opened(self, device: torch.device, dtype: torch.dtype, memory: Mode) -> Wan:
        """The model of weights that are there."""
        from sgi2v.backbones.wan.model import Wan

        return Wan.of(self, device=device, dtype=dtype, memory=memory)


def _variant(folder: Path, transformer: Json, index: Json) -> Variant:
    channels, image = transformer.get("in_channels"), transformer.get("image_dim")
    out = transformer.get("out_channels")
    if channels == 48 and out == 48 and image is None:
        return "ti2v-5b"
    if channels == 36 and image is not None:
        return "i2v-14b"
    if channels == 36 and index.get("transformer_2") not in (None, [None, None]):
        return "a14b"
    takes = f"{channels} channels{' and an image' if image is not None else ''}"
    raise FieldError(
        "backbone",
        f"{folder / 'transformer' / 'config.json'}: a Wan network that takes {takes} makes no video of a picture here",
        "use Wan 2.2 I2V-A14B (36 channels, two transformers), 2.1 I2V-14B (36 and an image) or 2.2 TI2V-5B (48)",
    )


def _check_transformer(file: Path, config: Json) -> None:
    for name in ("num_layers", "num_attention_heads", "attention_head_dim", "text_dim"):
        number(config, name, file)
    patch = numbers(config, "patch_size", file, count=3)
    if patch[0] != 1 or patch[1] != patch[2]:
        raise wrong(file, "patch_size", "be [1, p, p]", patch)
    for name, default in (("ffn_dim", 13824), ("freq_dim", 256), ("rope_max_seq_len", 1024)):
        number(config, name, file, default)
    check_text_width(file.parents[1], "text_dim", config["text_dim"])


def _check_image_encoder(file: Path, width: int) -> None:
    config = read_json(file)
    number(config, "image_size", file, 224)
    if number(config, "hidden_size", file, 768) != width:
        raise wrong(file, "hidden_size", f"be the transformer's image_dim, {width}", config.get("hidden_size"))


def _check_vae(file: Path, config: Json, transformer: Json) -> None:
    name = config.get("_class_name")
    if name != "AutoencoderKLWan":
        raise FieldError("backbone", f"{file}: _class_name must be 'AutoencoderKLWan', got {name!r}")
    channels = number(config, "z_dim", file)
    for name in ("scale_factor_spatial", "scale_factor_temporal"):
        number(config, name, file)
    if channels != transformer.get("out_channels"):
        raise FieldError(
            "backbone", f"{file}: z_dim is {channels}, and the transformer puts out {transformer.get('out_channels')}"
        )
    for name in ("latents_mean", "latents_std"):
        values = numbers(config, name, file, count=channels, real=True)
        if name == "latents_std" and min(values) <= 0:
            raise wrong(file, name, "hold numbers above 0", min(values))

"""Stable Video Diffusion as its configuration tells it: settings, sizes, schedule, the names of its layers."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np
from typing_extensions import TypeVar

from sgi2v.backbones.base import CLEAN, Advice, Method, Mode, Settings, check_range, settings_with
from sgi2v.backbones.folder import CONFIGS, SETTINGS_FILE, check_parts, fetch, read_json, weights_sha256
from sgi2v.backbones.quiet import quiet_libraries
from sgi2v.backbones.svd.config import check_networks, check_scheduler
from sgi2v.backbones.weights import check_weights, check_weights_there, weight_files
from sgi2v.checks import Bounds
from sgi2v.errors import FieldError, within
from sgi2v.grid import Grid
from sgi2v.lazy import torch
from sgi2v.planning import Sampling, Uses
from sgi2v.records import Json
from sgi2v.scene import Scene
from sgi2v.step import Level

if TYPE_CHECKING:
    from sgi2v.backbones.adapter_kinds import FoundAdapter
    from sgi2v.backbones.svd.model import SVD

OutlineT = TypeVar("OutlineT", bound="SVDOutline")
NETWORKS: Final = ("unet", "vae", "image_encoder")
"""Folders of the parts that have weights."""
ATTENTION_SOURCES: Final = ("first-frame", "self", "temporal", "match")
"""Features of a block that has attention, beside its output."""
SOURCES: Final = (*ATTENTION_SOURCES, "output")
_CONFIGS: Final = (
    "model_index.json",
    *(f"{network}/config.json" for network in NETWORKS),
    "scheduler/scheduler_config.json",
)
_WHAT: Final = "a Stable Video Diffusion model"
_RHO: Final = 7.0  # of Karras' spacing (arXiv 2206.00364, equation 5)


def _recipes() -> Advice:
    """Ways to draw with the full-size model; what each costs is counted in benchmarks/README.md."""
    cheap: Mapping[str, object] = {"iterations": 3, "lr": 0.35, "reuse_deep": True}
    return {"paper": {"num_steps": 50}, "quick": {"num_steps": 25, "recommended": {"sg-i2v": cheap}}}


@dataclass(frozen=True, kw_only=True)
class SVDSettings(Settings):
    """Conditions of Stable Video Diffusion besides the image; SG-I2V's published values as defaults."""

    width: int = 1024
    """Width of the picture the model makes unless told otherwise, in pixels."""
    height: int = 576
    """Height of the picture the model makes unless told otherwise, in pixels."""
    num_frames: int = 14
    """Frames in a clip unless told otherwise."""
    num_steps: int = 50
    """Denoising steps unless told otherwise."""
    fps: int = 7
    """Frames per second of the video; the network is told one less, as it was trained."""
    motion_bucket_id: int = 127
    """Amount of motion the network is asked for, 0 to 255."""
    noise_aug_strength: float = 0.02
    """Deviation of the noise added to the conditioning image, whose values lie in -1..1."""
    min_guidance_scale: float = 1.0
    """Classifier-free guidance at the first frame (1: none)."""
    max_guidance_scale: float = 3.0
    """Classifier-free guidance at the last frame; linear in between."""
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """Noise levels s = noise / (signal + noise) at which there is guidance, lowest and highest; elsewhere a step costs
    half. 0 and 1: everywhere."""
    decode_chunk_size: int = 8
    """Frames decoded at a time; the decoder mixes the frames of a chunk, so this changes the result."""
    bfloat16_on_cpu: bool = False
    """True where this model's pictures bear bfloat16, so that a CPU that is fast at it may use it unasked."""
    recipes: Advice = field(default_factory=_recipes)
    """Name of a recipe -> the settings it changes: paper, SG-I2V as published, and quick, a third of its operations."""

    BOUNDS: ClassVar[Bounds] = MappingProxyType(
        {
            "motion_bucket_id": (0, 1023), "noise_aug_strength": (0, 10), "min_guidance_scale": (0, 100),
            "max_guidance_scale": (0, 100), "guidance_interval": (0, 1), "decode_chunk_size": (1, 1024),
        }
    )  # fmt: skip

    @property
    def clip_normalised(self) -> bool:
        """True where the image encoder is shown the picture by CLIP's mean and deviation."""
        return True

    @property
    def told_fps(self) -> int:
        """Frames a second that the network is told."""
        return self.fps - 1

    def __post_init__(self) -> None:
        check_range("settings", self)
        interval = self.guidance_interval
        if len(interval) != 2 or not 0 <= interval[0] <= interval[1] <= 1:
            raise FieldError(
                "settings.guidance_interval", f"two noise levels in 0..1, the lowest first, got {interval}"
            )


def folder_settings(folder: Path) -> SVDSettings:
    """The settings in a folder's sgi2v.json; without one the published, with as many frames as its network."""
    file = folder / SETTINGS_FILE
    if file.is_file():
        settings = settings_with(SVDSettings(recipes={}), read_json(file), str(file))
        assert isinstance(settings, SVDSettings)
        return settings
    config = folder / "unet" / "config.json"
    num_frames = read_json(config).get("num_frames", 14) if config.is_file() else 14
    return SVDSettings(num_frames=num_frames)


@dataclass(frozen=True, kw_only=True)
class SVDOutline:
    """A folder's configuration: enough to refuse a run that cannot work before weights are read."""

    folder: Path
    name: str
    """The model in a record."""
    settings: SVDSettings
    stride: int
    """Pixels per latent cell, both ways."""
    channels: int
    """Channels of the latents."""
    scheduler: Json
    """The scheduler's configuration."""
    unet: Json
    """The denoiser's."""
    hub_id: str | None = None
    """Source of the weights when they are wanted; None where they lie in the folder."""
    adapters: tuple[FoundAdapter, ...] = ()
    """Trained systems that are loaded with it."""

    @classmethod
    def of(
        cls,
        folder: Path,
        *,
        name: str = "",
        hub_id: str | None = None,
        settings: SVDSettings | None = None,
    ) -> SVDOutline:
        """Read a folder; FieldError naming the file when it is incomplete, damaged, or no Stable Video Diffusion."""
        check_parts(folder, _CONFIGS, _WHAT)
        if hub_id is None:
            check_weights_there(folder, NETWORKS)
        scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
        check_scheduler(scheduler, folder / "scheduler" / "scheduler_config.json")
        unet, vae = check_networks(folder)
        return cls(
            folder=folder,
            name=name or str(folder),
            settings=settings or folder_settings(folder),
            stride=2 ** (len(vae["block_out_channels"]) - 1),
            channels=unet["out_channels"],
            scheduler=scheduler,
            unet=unet,
            hub_id=hub_id,
        )

    @property
    def kind(self) -> str:
        """Name of the kind of model."""
        return "svd"

    @property
    def takes_text(self) -> bool:
        """No prompt changes a video of Stable Video Diffusion."""
        return False

    def hash_weights(self) -> str:
        """SHA-256 over the weight files."""
        return weights_sha256(self.folder, NETWORKS)

    @property
    def aspects(self) -> tuple[float, float]:
        """From the model's own size to that size stood upright."""
        own = self.settings.width / self.settings.height
        return min(own, 1 / own), max(own, 1 / own)

    @property
    def multiple(self) -> int:
        """Pixels of a cell of the denoiser's lowest level, which joins its levels cell by cell."""
        levels = self.unet.get("block_out_channels", ())
        return int(self.stride * 2 ** (max(len(levels), 1) - 1))

    def with_settings(self: OutlineT, settings: SVDSettings) -> OutlineT:
        """The same model under other settings."""
        return dataclasses.replace(self, settings=settings)

    def with_adapters(self: OutlineT, adapters: Sequence[FoundAdapter]) -> OutlineT:
        """The same model with trained systems that are loaded with it."""
        return dataclasses.replace(self, adapters=tuple(adapters))

    def levels(self, num_steps: int, grid: Grid | None = None) -> Sequence[Level]:
        """The scheduler's sigmas as levels (SVD: Karras spacing, 700 to 0.002, then 0); x = x0 + sigma * noise.

        SVD's own spacing (Karras et al., arXiv 2206.00364, equation 5) is worked out here, to the bit as the scheduler
        does, since diffusers takes seconds to import; any other is the scheduler's.
        """
        config = self.scheduler
        highest, lowest = config.get("sigma_max"), config.get("sigma_min")
        known = config.get("final_sigmas_type", "zero") == "zero" and config.get("use_karras_sigmas")
        if known and isinstance(highest, int | float) and isinstance(lowest, int | float):
            high, low = highest ** (1 / _RHO), lowest ** (1 / _RHO)
            spaced = (high + np.linspace(0, 1, num_steps) * (low - high)) ** _RHO
            sigmas = [float(sigma) for sigma in spaced.astype(np.float32)] + [0.0]
        else:
            with quiet_libraries():
                from diffusers import EulerDiscreteScheduler

            scheduler = EulerDiscreteScheduler.from_config(dict(config))
            scheduler.set_timesteps(num_steps)
            sigmas = [float(sigma) for sigma in scheduler.sigmas]
        return [Level(signal=1.0, noise=sigma) for sigma in sigmas]

    def grid(self, width: int, height: int, num_frames: int) -> Grid:
        """Latent grid of a size in pixels; FieldError naming the nearest sizes when it is not a multiple."""
        stride = self.stride
        for name, size in (("width", width), ("height", height)):
            below, above = size // stride * stride, -(-size // stride) * stride
            if size < 2 * stride or size > 4096:
                raise FieldError(name, f"must lie in {2 * stride}..4096 pixels, got {size}")
            if below != size:
                raise FieldError(
                    name, f"must be a multiple of {stride}, got {size}", f"nearest are {below} and {above}"
                )
        if not 2 <= num_frames <= 256:
            raise FieldError("num_frames", f"must lie in 2..256, got {num_frames}")
        return Grid(width=width, height=height, num_frames=num_frames, stride=stride, channels=self.channels)

    def check(self, scene: Scene, controller: Method, sampling: Sampling) -> tuple[str, ...]:
        """FieldError for a layer that the network does not have; says that a prompt is left unread."""
        if controller.uses().image:
            raise FieldError(
                "controller", "changes the latents of the picture and a grey clip, which this model is not given",
                "use a model of Wan 2.1 I2V-14B's kind",
            )  # fmt: skip
        self._check_layers(controller.uses())
        said = " and ".join(name for name in ("prompt", "negative_prompt") if getattr(scene, name)).replace("_", " ")
        return (f"{said} (Stable Video Diffusion takes no text)",) if said else ()

    def layers(self) -> Mapping[str, tuple[str, ...]]:
        """Levels and their blocks; those with attention have all sources, the others their output."""
        return {name: SOURCES if ".attentions." in name else ("output",) for name in self._blocks()}

    def _check_layers(self, uses: Uses) -> None:
        """FieldError for what a block's name alone shows; names within blocks are looked up in the network itself."""
        names = list(self._blocks())
        for feature in uses.features:
            block, _, source = feature.partition(":")
            if feature == CLEAN:
                continue
            if source not in SOURCES:
                raise FieldError(
                    "controller.layers",
                    f"{feature!r} must be <block>:<source> with source one of {', '.join(SOURCES)}",
                )
            if source == "output":
                self._check_layer(block, names)
            else:
                _check_named(block, [name for name in names if ".attentions." in name])
        for block in uses.blocks:  # these may name a level and mean all in it
            if not any(name.startswith(f"{block}.") for name in names):
                self._check_layer(block, names)
        named = [feature for feature in uses.features if feature != CLEAN]
        if uses.reuses_deep and any(not f.startswith("up_blocks.") or f.startswith("up_blocks.0") for f in named):
            raise FieldError(
                "controller.reuse_deep",
                "nothing lies deeper than these layers",
                "name layers of up_blocks.1 or later ones",
            )

    def _check_layer(self, layer: str, names: Sequence[str]) -> None:
        """FieldError unless a layer is one of these blocks or lies in one, which the network itself is asked for."""
        blocks = [name for name in names if name.count(".") > 1]  # without the levels they lie in
        if not any(layer.startswith(f"{block}.") for block in blocks):
            _check_named(layer, names)
        else:
            with quiet_libraries():
                from diffusers import UNetSpatioTemporalConditionModel

            from sgi2v.taps import find_layer

            with torch.device("meta"), within("controller"):  # names alone: no weight is made or read
                find_layer(UNetSpatioTemporalConditionModel.from_config(dict(self.unet)), layer)

    def _blocks(self) -> Iterator[str]:
        """Names of the denoiser's levels and of the residual, attention and resizing blocks in them."""
        downs, ups = (self.unet.get(f"{way}_block_types") or () for way in ("down", "up"))
        layers = self.unet.get("layers_per_block", 2)
        each = layers if isinstance(layers, list) else [layers] * len(downs)

        def level(name: str, resnets: int, attentions: int, resizer: str = "") -> Iterator[str]:
            yield name
            for kind, count in (("resnets", resnets), ("attentions", attentions), (resizer, bool(resizer))):
                yield from (f"{name}.{kind}.{index}" for index in range(count))

        for index, (kind, count) in enumerate(zip(downs, each, strict=False)):
            resizer = "downsamplers" if index < len(downs) - 1 else ""
            yield from level(f"down_blocks.{index}", count, count * ("CrossAttn" in kind), resizer)
        yield from level("mid_block", 2, 1)
        for index, (kind, count) in enumerate(zip(ups, reversed(each), strict=False)):
            resizer = "upsamplers" if index < len(ups) - 1 else ""
            yield from level(f"up_blocks.{index}", count + 1, (count + 1) * ("CrossAttn" in kind), resizer)

    def memory_needed(self, grid: Grid, device: torch.device, dtype: torch.dtype) -> Mapping[Mode, int]:
        """Bytes at the peak of a guided run for every mode; weights are fetched first, if they are not there."""
        from sgi2v.backbones.svd.memory import Sizes, memory_needed

        outline = self.fetched(half=dtype == torch.float16)
        check_weights(outline.folder, NETWORKS)
        sizes = Sizes.of(outline)
        return memory_needed(sizes, grid, self.settings.decode_chunk_size, device, dtype)

    def choose_dtype(self, name: str | torch.dtype | None, device: torch.device) -> torch.dtype:
        """The named number format, or the one that suits the model on the device."""
        from sgi2v.device import choose_dtype

        if isinstance(name, torch.dtype):
            return name
        return choose_dtype(name, device, bfloat16_on_cpu=self.settings.bfloat16_on_cpu)

    def fetched(self, *, half: bool) -> SVDOutline:
        """The outline with its weights on this machine, from the hub where they come from there; fp16 ones if half."""
        if self.hub_id is None:
            return self
        plain = [f"{part}/*.safetensors*" for part in NETWORKS]
        if not half:
            folder = fetch(self.hub_id, [*CONFIGS, *plain], ("*.fp16.safetensors*",))
        else:
            folder = fetch(self.hub_id, [*CONFIGS, *(pattern.replace("*.", "*.fp16.") for pattern in plain)])
            absent = [f"{part}/*.safetensors*" for part in NETWORKS if not weight_files(folder, [part])]
            folder = fetch(self.hub_id, [*CONFIGS, *absent]) if absent else folder
        return dataclasses.replace(self, folder=folder, hub_id=None)

    def load(self, *, device: torch.device, dtype: torch.dtype, memory: Mode, compiled: bool = False) -> SVD:
        """The model with its weights; FieldError where these are damaged or not what the configuration says."""
        from sgi2v.backbones.svd.model import SVD

        outline = self.fetched(half=dtype == torch.float16)
        check_weights(outline.folder, NETWORKS)
        return SVD.of(outline, device=device, dtype=dtype, memory=memory, compiled=compiled)


def _check_named(block: str, names: Sequence[str]) -> None:
    """FieldError with the nearest names unless the block is one of these."""
    if block not in names:
        near = difflib.get_close_matches(block, names, 3)
        hint = f"nearest are {', '.join(near)}" if near else ""
        raise FieldError("controller.layers", f"the denoiser has no layer {block!r}", hint)

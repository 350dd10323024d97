"""AnimateDiff as its configuration tells it: settings, sizes, schedule, the names of its layers."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Final

from sgi2v.backbones.animatediff.config import MOTION, check_networks
from sgi2v.backbones.animatediff.schedule import PUBLISHED, check_schedule, ddim_levels
from sgi2v.backbones.base import CLEAN, Advice, Method, Mode, Settings, check_range, settings_with
from sgi2v.backbones.folder import CONFIGS, SETTINGS_FILE, check_parts, content_sha256, fetch, read_json, weights_sha256
from sgi2v.backbones.text import TextRules, check_length, check_there, has_encoder
from sgi2v.backbones.weights import check_weights, check_weights_there
from sgi2v.checks import Bounds, check_text
from sgi2v.errors import FieldError
from sgi2v.grid import Grid
from sgi2v.lazy import torch
from sgi2v.planning import Sampling, Uses
from sgi2v.records import Json
from sgi2v.scene import Scene
from sgi2v.step import Level

if TYPE_CHECKING:
    from sgi2v.backbones.adapter_kinds import FoundAdapter
    from sgi2v.backbones.animatediff.model import AnimateDiff

SOURCES: Final = ("first-frame", "self", "match", "output")
"""Features of a block that has attention; all others have their output."""
_FILES: Final = ("*.safetensors*", "*.json", "*.txt")
_CONFIGS: Final = (
    "model_index.json", "unet/config.json", "vae/config.json", "scheduler/scheduler_config.json",
)  # fmt: skip


def _advice() -> Advice:
    """Values for a schedule that keeps some signal at its first step; none was measured on these weights.

    SG-I2V: the published share of the schedule, as noise levels. DragDiffusion: its own model's 35 of 50 steps to go.
    Time-to-Move: later than on models that are given the picture, since here the clip alone shows it.
    """
    return {
        "sg-i2v": {"guided": {"low": 0.78, "high": 0.93, "unit": "noise-level"}, "weight_decay": 0.0},
        "time-to-move": {"t_weak": 0.9, "t_strong": 0.7, "unit": "noise-level"},
        "drag-diffusion": {"at": 0.84, "unit": "noise-level"},
    }


@dataclass(frozen=True, kw_only=True)
class AnimateDiffSettings(Settings):
    """Conditions of AnimateDiff besides the prompt; Image Conductor's published values as defaults."""

    width: int = 384
    """Width of the picture the model makes unless told otherwise, in pixels."""
    height: int = 256
    """Height of the picture the model makes unless told otherwise, in pixels."""
    num_frames: int = 16
    """Frames in a clip unless told otherwise."""
    num_steps: int = 25
    """Denoising steps unless told otherwise."""
    fps: float = 8.0
    """Frames a second of the video."""
    guidance_scale: float = 7.5
    """Classifier-free guidance away from the negative prompt; 1: none, which halves a step's cost."""
    negative_prompt: str = "worst quality, low quality, letterboxed"
    """Words that guidance leads away from where the scene says none."""
    default: str = "time-to-move"
    """Name of the controller for whoever names none: the one that shows a model of words the picture."""
    recommended: Advice = field(default_factory=_advice)
    """Controller name -> the values of its fields that suit this model."""

    BOUNDS: ClassVar[Bounds] = MappingProxyType({"guidance_scale": (0, 100)})

    def __post_init__(self) -> None:
        check_range("settings", self)
        check_text("settings.negative_prompt", self.negative_prompt)


@dataclass(frozen=True, kw_only=True)
class AnimateDiffOutline:
    """A folder's configuration: enough to refuse a run that cannot work before weights are read."""

    folder: Path
    name: str
    """The model in a record."""
    settings: AnimateDiffSettings
    unet: Json
    """The denoiser's configuration."""
    adapter: Json
    """The motion adapter's; empty where the denoiser has its motion modules itself."""
    vae: Json
    scheduler: Json
    hub_id: str | None = None
    """Source of the weights when they are wanted; None where they lie in the folder."""
    released: Path | None = None
    """File of the denoiser's weights under AnimateDiff's own keys, in place of the folder's."""
    adapters: tuple[FoundAdapter, ...] = ()
    """Trained systems that are loaded with it."""

    TEXT: ClassVar[TextRules] = TextRules(length=77, cleaned=False, masked=False, filling="encoded")
    """CLIP's way to make rows of a prompt: 77 of every one, the filling's among them."""

    @classmethod
    def of(
        cls, folder: Path, *, name: str = "", hub_id: str | None = None, settings: AnimateDiffSettings | None = None
    ) -> AnimateDiffOutline:
        """Read a folder; FieldError naming the file when it is incomplete, damaged, or no AnimateDiff."""
        check_parts(folder, _CONFIGS, "an AnimateDiff model")
        scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
        unet, adapter, vae = check_networks(folder)
        if adapter or unet["_class_name"] == MOTION:  # else another's denoiser will bring its own schedule
            check_schedule(scheduler, folder / "scheduler" / "scheduler_config.json")
        file = folder / SETTINGS_FILE
        own = settings_with(AnimateDiffSettings(), read_json(file), str(file)) if file.is_file() else None
        return cls(
            folder=folder,
            name=name or str(folder),
            settings=settings or own or AnimateDiffSettings(),
            unet=unet,
            adapter=adapter,
            vae=vae,
            scheduler=scheduler,
            hub_id=hub_id,
        )

    @property
    def kind(self) -> str:
        """Name of the kind of model."""
        return "animatediff"

    @property
    def takes_text(self) -> bool:
        """A prompt changes every video."""
        return True

    @property
    def networks(self) -> tuple[str, ...]:
        """Folders of the parts whose weights decide a video, beside the text encoder."""
        denoiser = () if self.released else ("unet", *(("motion_adapter",) if self.adapter else ()))
        return *denoiser, "vae"

    @property
    def moves(self) -> bool:
        """True where there are motion modules; Stable Diffusion alone has none."""
        return bool(self.adapter) or self.unet["_class_name"] == MOTION

    @property
    def stride(self) -> int:
        """Pixels of a latent cell, both ways."""
        return int(2 ** (len(self.vae["block_out_channels"]) - 1))

    @property
    def aspects(self) -> tuple[float, float]:
        """From the model's own size to that size stood upright."""
        own = self.settings.width / self.settings.height
        return min(own, 1 / own), max(own, 1 / own)

    @property
    def multiple(self) -> int:
        """Pixels of a cell of the denoiser's lowest level, which joins its levels cell by cell."""
        return int(self.stride * 2 ** (len(self.unet["block_out_channels"]) - 1))

    @property
    def max_frames(self) -> int:
        """Frames that the motion modules have positions for."""
        return int((self.adapter or self.unet).get("motion_max_seq_length", 32))

    def hash_weights(self) -> str:
        """SHA-256 over the weight files; a text encoder counts through its texts' cache, so that it may be absent."""
        own = weights_sha256(self.folder, self.networks)
        if self.released is None:
            return own
        return hashlib.sha256(f"{own} {content_sha256(self.released)}".encode()).hexdigest()

    def with_settings(self, settings: AnimateDiffSettings) -> AnimateDiffOutline:
        """The same model under other settings."""
        return dataclasses.replace(self, settings=settings)

    def with_released(self, file: Path, config: Json) -> AnimateDiffOutline:
        """The same model with another denoiser, of that configuration, on Image Conductor's published schedule."""
        unet = {**config, "_class_name": MOTION}
        return dataclasses.replace(self, unet=unet, adapter={}, scheduler=dict(PUBLISHED), released=file)

    def with_adapters(self, adapters: Sequence[FoundAdapter]) -> AnimateDiffOutline:
        """The same model with trained systems that are loaded with it."""
        return dataclasses.replace(self, adapters=tuple(adapters))

    def levels(self, num_steps: int, grid: Grid | None = None) -> Sequence[Level]:
        """The folder's own schedule; FieldError for more steps than the network was trained with."""
        return ddim_levels(self.scheduler, num_steps)

    def grid(self, width: int, height: int, num_frames: int) -> Grid:
        """Latent grid of a size in pixels; FieldError naming the nearest sizes when it is not a multiple."""
        if not self.moves:
            raise FieldError(
                "backbone", f"{self.name} has no motion modules, and makes no video",
                "put AnimateDiff's motion_adapter beside its unet, or give Image Conductor's files with --adapter",
            )  # fmt: skip
        stride = self.stride
        for name, size in (("width", width), ("height", height)):
            if not 2 * stride <= size <= 4096:
                raise FieldError(name, f"must lie in {2 * stride}..4096 pixels, got {size}")
            if size % stride:
                below = size // stride * stride
                raise FieldError(
                    name, f"must be a multiple of {stride}, got {size}", f"nearest are {below} and {below + stride}"
                )
        if not 2 <= num_frames <= self.max_frames:
            raise FieldError(
                "num_frames", f"must lie in 2..{self.max_frames}, as the motion modules learned, got {num_frames}"
            )
        channels = int(self.unet.get("out_channels", 4))
        return Grid(width=width, height=height, num_frames=num_frames, stride=stride, channels=channels)

    def check(self, scene: Scene, controller: Method, sampling: Sampling) -> tuple[str, ...]:
        """FieldError for a layer that is not there or a prompt that is too long; says where the picture goes unseen."""
        uses = controller.uses()
        if uses.image:
            raise FieldError(
                "controller", "changes the latents of the picture and a grey clip, which this model is not given",
                "use a model of Wan 2.1 I2V-14B's kind",
            )  # fmt: skip
        if uses.weights:
            raise FieldError("controller", f"is for weights that were trained for {uses.weights[0]}", "choose another")
        if uses.reuses_deep:
            raise FieldError(
                "controller.reuse_deep", "is not tried for animatediff, whose blocks take all frames as one batch",
                "leave it out",
            )  # fmt: skip
        self._check_layers(uses)
        texts = {"prompt": scene.prompt}
        if self.settings.guidance_scale > 1:
            texts["negative_prompt"] = scene.negative_prompt or self.settings.negative_prompt
        for name, text in texts.items():
            check_length(self.folder, name, text, self.TEXT.length)
            if self.hub_id is None:
                check_there(self.folder, name, text, self.TEXT)
        if self.hub_id is None:
            check_weights_there(self.folder, self.networks)
        if uses.reference or uses.adapters:
            return ()
        return ("the picture (this model takes words; an adapter may show it the picture)",)

    def layers(self) -> Mapping[str, tuple[str, ...]]:
        """Levels and their blocks; those with attention within frames have all sources, the others their output."""
        return {name: SOURCES if ".attentions." in name else ("output",) for name in self._blocks()}

    def _check_layers(self, uses: Uses) -> None:
        known = self.layers()
        for feature in uses.features:
            block, _, source = feature.partition(":")
            if feature == CLEAN:
                continue
            if source not in SOURCES:
                raise FieldError(
                    "controller.layers", f"{feature!r} must be <block>:<source> with source one of {', '.join(SOURCES)}"
                )
            _check_named(block, known)
            if source not in known[block]:
                raise FieldError(
                    "controller.layers", f"{block!r} has no attention within frames", f"read {block}:output"
                )
        for block in uses.blocks:
            if not any(name.startswith(f"{block}.") or name == block for name in known):
                _check_named(block, known)

    def _blocks(self) -> Iterator[str]:
        """Names of the denoiser's levels and of the residual, attention, motion and resizing blocks in them."""
        layers = int(self.unet.get("layers_per_block", 2))
        types = [self.unet[f"{way}_block_types"] for way in ("down", "up")]

        def level(name: str, count: int, attends: bool, moves: bool, resizer: str = "") -> Iterator[str]:
            yield name
            kinds = [("resnets", count), ("attentions", count * attends), ("motion_modules", count * moves)]
            for kind, number in (*kinds, (resizer, bool(resizer))):
                yield from (f"{name}.{kind}.{index}" for index in range(number))

        for index, kind in enumerate(types[0]):
            resizer = "downsamplers" if index < len(types[0]) - 1 else ""
            yield from level(f"down_blocks.{index}", layers, "CrossAttn" in kind, True, resizer)
        moves = (self.adapter or self.unet).get("use_motion_mid_block", True)
        yield "mid_block"
        yield from ("mid_block.resnets.0", "mid_block.attentions.0")
        yield from ("mid_block.motion_modules.0",) * bool(moves)
        yield "mid_block.resnets.1"
        for index, kind in enumerate(types[1]):
            resizer = "upsamplers" if index < len(types[1]) - 1 else ""
            yield from level(f"up_blocks.{index}", layers + 1, "CrossAttn" in kind, True, resizer)

    def memory_needed(self, grid: Grid, device: torch.device, dtype: torch.dtype) -> Mapping[Mode, int]:
        """Bytes at the peak of a guided run for every mode; weights are fetched first, if they are not there."""
        from sgi2v.backbones.animatediff.memory import Sizes, memory_needed

        outline = self.fetched()
        check_weights(outline.folder, outline.weighed)
        return memory_needed(Sizes.of(outline), grid, device, dtype)

    @property
    def weighed(self) -> tuple[str, ...]:
        """Folders whose weights are read, of those that are there."""
        return (*self.networks, *(("text_encoder",) if has_encoder(self.folder) else ()))

    def choose_dtype(self, name: str | torch.dtype | None, device: torch.device) -> torch.dtype:
        """The named number format; without a name float16, as published, or on a CPU float32."""
        from sgi2v.device import choose_dtype

        if isinstance(name, torch.dtype):
            return name
        return choose_dtype(name or ("float32" if device.type == "cpu" else "float16"), device)

    def with_texts(self) -> AnimateDiffOutline:
        """The outline with its text encoder on this machine."""
        return self.fetched()

    def fetched(self) -> AnimateDiffOutline:
        """The outline with its weights on this machine, from the hub where they come from there."""
        if self.hub_id is None:
            return self
        parts = [*self.networks, "text_encoder", "tokenizer"]
        wanted = [f"{part}/{pattern}" for part in parts for pattern in _FILES]
        return dataclasses.replace(self, folder=fetch(self.hub_id, [*CONFIGS, *wanted]), hub_id=None)

    def load(self, *, device: torch.device, dtype: torch.dtype, memory: Mode, compiled: bool = False) -> AnimateDiff:
        """The model with its weights; FieldError where these are damaged or not what the configuration says."""
        from sgi2v.backbones.animatediff.model import AnimateDiff

        if compiled:
            raise FieldError("compile", "is not tried for animatediff yet", "leave it out")
        outline = self.fetched()
        check_weights(outline.folder, outline.weighed)
        return AnimateDiff.of(outline, device=device, dtype=dtype, memory=memory)


def _check_named(block: str, names: Mapping[str, object]) -> None:
    """FieldError with the nearest names unless the block is one of these."""
    if block not in names:
        near = difflib.get_close_matches(block, list(names), 3)
        hint = f"nearest are {', '.join(near)}" if near else ""
        raise FieldError("controller.layers", f"the denoiser has no layer {block!r}", hint)

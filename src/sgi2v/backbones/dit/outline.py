"""Video transformers as their folders tell them: settings, sizes, layers, checks; no weight read, no torch."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Final, Literal, TypeVar

from sgi2v.backbones.base import CLEAN, Method, Mode, Settings, check_range, settings_with
from sgi2v.backbones.dit.schedules import flow_levels
from sgi2v.backbones.dit.single_file import check_file, check_unfused
from sgi2v.backbones.fields import number, wrong
from sgi2v.backbones.folder import CONFIGS, SETTINGS_FILE, check_parts, content_sha256, fetch, read_json, weights_sha256
from sgi2v.backbones.text import TextRules, check_length, check_there, has_encoder
from sgi2v.backbones.weights import check_weights, check_weights_there, weight_files
from sgi2v.checks import Bounds, check_text
from sgi2v.errors import FieldError
from sgi2v.grid import Grid
from sgi2v.lazy import torch
from sgi2v.planning import Sampling
from sgi2v.records import Json
from sgi2v.scene import Scene
from sgi2v.step import Level

if TYPE_CHECKING:
    from sgi2v.backbones.dit.model import VideoTransformer

SOURCES: Final = ("first-frame", "self", "output", "match", "match-rope")
"""Features of a block: what each place looks like in the first frame, the attention, the block's output, and where in
the first frame its queries find it, before and after rotary embedding."""
Quantised = Literal["int8", "fp8"]
"""Weights rounded to 8 bits, by torchao; what is computed stays in the number format chosen."""
_FILES: Final = ("*.safetensors*", "*.json", "*.model")
SettingsT = TypeVar("SettingsT", bound="DiTSettings")
OutlineT = TypeVar("OutlineT", bound="DiTOutline")


@dataclass(frozen=True, kw_only=True)
class DiTSettings(Settings):
    """Conditions of a video transformer besides image and prompt."""

    guidance_scale: float = 5.0
    """Classifier-free guidance away from the negative prompt; 1: none, which halves a step's cost."""
    negative_prompt: str = ""
    """Words that guidance leads away from where the scene says none."""

    BOUNDS: ClassVar[Bounds] = MappingProxyType({"guidance_scale": (0, 100)})

    def __post_init__(self) -> None:
        check_range("settings", self)
        check_text("settings.negative_prompt", self.negative_prompt)


@dataclass(frozen=True, kw_only=True)
class DiTOutline(ABC):
    """A folder's configuration: enough to refuse a run that cannot work before weights are read."""

    folder: Path
    name: str
    """The model in a record."""
    settings: DiTSettings
    transformer: Json
    """The denoiser's configuration."""
    vae: Json
    scheduler: Json
    hub_id: str | None = None
    """Source of the weights when they are wanted; None where they lie in the folder."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """Networks whose weights are another file's, by the name of their folder."""
    quantise: Quantised | None = None
    """Number format that the denoiser's weights are rounded to as they are loaded."""

    KIND: ClassVar[str]
    BLOCKS: ClassVar[str] = "blocks"
    """Name of the denoiser's list of blocks."""
    LORA: ClassVar[str]
    """Name of diffusers' loader that knows its LoRA files."""
    TEXT: ClassVar[TextRules]
    """Its way to make rows of a prompt."""

    @property
    def kind(self) -> str:
        """Name of the kind of model."""
        return self.KIND

    @property
    def networks(self) -> tuple[str, ...]:
        """Folders of the parts that have weights."""
        return "transformer", "vae", "text_encoder"

    @property
    def takes_text(self) -> bool:
        """A prompt changes every video."""
        return True

    @property
    @abstractmethod
    def stride(self) -> int:
        """Pixels of a latent cell, both ways."""

    @property
    @abstractmethod
    def frame_stride(self) -> int:
        """Video frames of a latent frame after the first."""

    @property
    @abstractmethod
    def channels(self) -> int:
        """Channels of the latents."""

    @property
    @abstractmethod
    def patch(self) -> int:
        """Latent cells of a token, both ways."""

    @property
    def edits_image(self) -> bool:
        """True where the picture enters as latents of a whole clip with a mask, which a method may change."""
        return False

    @property
    def trained_for(self) -> str:
        """Name of the method that the weights were trained for; empty where nobody says."""
        return ""

    @property
    def frames_every(self) -> int:
        """A clip's frames are this many times some number, and one."""
        return self.frame_stride

    @property
    def num_blocks(self) -> int:
        """Blocks of the denoiser."""
        count = self.transformer["num_layers"]
        assert isinstance(count, int)
        return count

    @property
    def weighed(self) -> tuple[str, ...]:
        """Folders whose weights decide a video, of those that are there."""
        encoder = has_encoder(self.folder)
        return tuple(p for p in self.networks if (p != "text_encoder" or encoder) and p not in self.files)

    def hash_weights(self) -> str:
        """SHA-256 over the weight files; a text encoder counts through its texts' cache, so that it may be absent."""
        parts = [part for part in self.networks if part != "text_encoder" and part not in self.files]
        own = weights_sha256(self.folder, parts)
        if not (self.files or self.quantise):
            return own
        others = {part: content_sha256(file) for part, file in sorted(self.files.items())}
        return hashlib.sha256(f"{own} {others} {self.quantise}".encode()).hexdigest()

    @property
    def aspects(self) -> tuple[float, float]:
        """From twice as high as wide to twice as wide as high: video transformers are trained on many shapes."""
        return 0.5, 2.0

    @property
    def multiple(self) -> int:
        """Pixels of a token."""
        return self.stride * self.patch

    def with_settings(self: OutlineT, settings: DiTSettings) -> OutlineT:
        """The same model under other settings."""
        return dataclasses.replace(self, settings=settings)

    def with_files(self: OutlineT, files: Mapping[str, Path], quantise: Quantised | None = None) -> OutlineT:
        """The same model with some networks of other files, rounded; FieldError for a file that can be none."""
        for part, file in files.items():
            if part not in self.networks:
                raise FieldError(part, f"{self.name} has no such network", f"leave --{part.replace('_', '-')} out")
            check_file(part, file)
        if quantise is not None and find_spec("torchao") is None:
            raise FieldError("quantise", f"{quantise} needs the library torchao", "pip install 'sgi2v[quantised]'")
        return dataclasses.replace(self, files=dict(files), quantise=quantise)

    def num_tokens(self, grid: Grid) -> int:
        """Tokens of a clip."""
        return grid.latent_frames * (grid.rows // self.patch) * (grid.columns // self.patch)

    def levels(self, num_steps: int, grid: Grid) -> Sequence[Level]:
        """The folder's own schedule."""
        return flow_levels(self.scheduler, num_steps, self.num_tokens(grid))

    def grid(self, width: int, height: int, num_frames: int) -> Grid:
        """Latent grid of a size in pixels; FieldError naming the nearest sizes when the model cannot make it."""
        multiple, every = self.multiple, self.frames_every
        for name, size in (("width", width), ("height", height)):
            if not 2 * multiple <= size <= 4096:
                raise FieldError(name, f"must lie in {2 * multiple}..4096 pixels, got {size}")
            if size % multiple:
                below = size // multiple * multiple
                raise FieldError(
                    name, f"must be a multiple of {multiple}, got {size}", f"nearest are {below} and {below + multiple}"
                )
        if not every < num_frames <= 1025:
            raise FieldError("num_frames", f"must lie in {every + 1}..1025, got {num_frames}")
        if num_frames % every != 1:
            below = (num_frames - 1) // every * every + 1
            nearest = [f"{count}" for count in (below, below + every) if count > every]
            raise FieldError(
                "num_frames", f"must be {every}k + 1, got {num_frames}", f"nearest are {' and '.join(nearest)}"
            )
        return Grid(
            width=width,
            height=height,
            num_frames=num_frames,
            stride=self.stride,
            frame_stride=self.frame_stride,
            channels=self.channels,
        )

    def check(self, scene: Scene, controller: Method, sampling: Sampling) -> tuple[str, ...]:
        """FieldError for a layer that is not there, an edit of attention, a prompt that is too long."""
        uses = controller.uses()
        if uses.edits:
            off = " ".join(_turned_off(name) for name in uses.edited_by)
            raise FieldError(
                "controller",
                "changes attention within frames or over time, but this model mixes frames and places at once",
                off or "choose another method",
            )
        if uses.image and not self.edits_image:
            raise FieldError(
                "controller", "changes the latents of the picture and a grey clip, which this model is not given",
                "use a model of Wan 2.1 I2V-14B's kind",
            )  # fmt: skip
        if foreign := [method for method in uses.weights if method != self.trained_for]:
            raise FieldError(
                "controller",
                f"is for weights that were trained for {foreign[0]}, and {self.name} says nothing of it",
                f'name such weights, put "trained_for": "{foreign[0]}" into their sgi2v.json, or allow '
                "--controller.any-weights",
            )
        if uses.reuses_deep:
            raise FieldError("controller.reuse_deep", "this model has no deep blocks to leave out", "leave it out")
        for feature in uses.features:
            self.block_of(feature)
        negative = getattr(scene, "negative_prompt", "") or self.settings.negative_prompt
        texts = {"prompt": scene.prompt}
        if self.settings.guidance_scale > 1:
            texts["negative_prompt"] = negative
        for name, text in texts.items():
            check_length(self.folder, name, text, self.TEXT.length)
            if self.hub_id is None:
                check_there(self.folder, name, text, self.TEXT)
        if self.hub_id is None:
            check_weights_there(self.folder, self.weighed)
        return ()

    def layers(self) -> Mapping[str, tuple[str, ...]]:
        """The denoiser's blocks, each with all sources."""
        return {f"{self.BLOCKS}.{index}": SOURCES for index in range(self.num_blocks)}

    def block_of(self, feature: str) -> str:
        """The block of a feature's name, dotted; FieldError where the network has none such."""
        block, _, source = feature.partition(":")
        if feature == CLEAN:
            return ""
        if source not in SOURCES:
            raise FieldError(
                "controller.layers", f"{feature!r} must be <block>:<source> with source one of {', '.join(SOURCES)}"
            )
        names = list(self.layers())
        if block not in names:
            near = difflib.get_close_matches(block, names, 3) or [names[0], names[-1]]
            raise FieldError(
                "controller.layers", f"the denoiser has no layer {block!r}", f"nearest are {', '.join(near)}"
            )
        return block

    def live_bytes(self, grid: Grid) -> Mapping[str, float]:
        """Bytes in 16 bits that a pass keeps: ``guided`` half way with gradients, ``checkpointed`` so; ``clip``, of the
        autoencoder, and ``tiled``, the same where clips go through it in tiles."""
        heads, channels = self.transformer["num_attention_heads"], self.transformer["attention_head_dim"]
        width = self.num_tokens(grid) * heads * channels
        kept, again, pixel = self.live
        deep = self.num_blocks / 2
        return {
            "guided": width * kept * deep,
            "checkpointed": width * (2 * deep + again),
            "clip": grid.width * grid.height * pixel,
        }

    @property
    @abstractmethod
    def live(self) -> tuple[float, float, float]:
        """Bytes that a block keeps for its gradient, and takes besides when it is computed twice, both of a token's
        channel; bytes that decoding, or encoding a clip if that is more, takes of a pixel."""

    def memory_needed(self, grid: Grid, device: torch.device, dtype: torch.dtype) -> Mapping[Mode, int]:
        """Bytes at the peak of a guided run for every mode; weights are fetched first, if they are not there."""
        from sgi2v.backbones.dit.memory import memory_needed

        outline = self.fetched()
        check_weights(outline.folder, outline.weighed)
        return memory_needed(outline, grid, device, dtype)

    def choose_dtype(self, name: str | torch.dtype | None, device: torch.device) -> torch.dtype:
        """The named number format; without a name bfloat16, which these models were trained in, or on a CPU float32."""
        from sgi2v.device import choose_dtype

        if isinstance(name, torch.dtype):
            return name
        return choose_dtype(name or ("float32" if device.type == "cpu" else "bfloat16"), device)

    def fetched(self: OutlineT) -> OutlineT:
        """The outline with its weights on this machine, from the hub where they come from there."""
        if self.hub_id is None:
            return self
        parts = [*self.networks, "tokenizer", "image_processor"]
        wanted = [f"{part}/{pattern}" for part in parts for pattern in _FILES]
        return dataclasses.replace(self, folder=fetch(self.hub_id, [*CONFIGS, *wanted]), hub_id=None)

    def with_texts(self: OutlineT) -> OutlineT:
        """The outline with its text encoder alone on this machine."""
        if self.hub_id is None:
            return self
        wanted = [f"{part}/{pattern}" for part in ("text_encoder", "tokenizer") for pattern in _FILES]
        return dataclasses.replace(self, folder=fetch(self.hub_id, [*CONFIGS, *wanted]), hub_id=None)

    def load(
        self, *, device: torch.device, dtype: torch.dtype, memory: Mode, compiled: bool = False
    ) -> VideoTransformer:
        """The model with its weights; FieldError where these are damaged or not what the configuration says."""
        if compiled:
            raise FieldError("compile", f"is not tried for {self.KIND} yet", "leave it out")
        outline = self.fetched()
        check_weights(outline.folder, outline.weighed)
        check_unfused(weight_files(outline.folder, [part for part in outline.weighed if "transformer" in part]))
        return outline.opened(device, dtype, memory)

    @abstractmethod
    def opened(self, device: torch.device, dtype: torch.dtype, memory: Mode) -> VideoTransformer:
        """The model of weights that are there."""


def tile_share(grid: Grid, height: int, width: int) -> float:
    """Share of a frame that a tile of that many pixels covers."""
    return min(grid.height, height) * min(grid.width, width) / (grid.height * grid.width)


def _turned_off(field: str) -> str:
    """The option that turns off a controller's field."""
    owner, _, name = f"controller.{field}".rpartition(".")
    return f"--{owner}.no-{name.replace('_', '-')}"


def read_parts(folder: Path, what: str) -> tuple[Json, Json, Json]:
    """Configurations of denoiser, autoencoder and scheduler; FieldError naming a file that is absent or damaged."""
    files = ("transformer/config.json", "vae/config.json", "scheduler/scheduler_config.json")
    check_parts(folder, ("model_index.json", *files), what)
    transformer, vae, scheduler = (read_json(folder / file) for file in files)
    rounded = transformer.get("quantization_config")
    method = rounded.get("quant_method") if isinstance(rounded, dict) else None
    if method is not None and find_spec(str(method)) is None:
        raise FieldError(
            "backbone",
            f"{folder / files[0]}: its weights were rounded by {method}, which is not installed",
            f"pip install {method}",
        )
    return transformer, vae, scheduler


def check_text_width(folder: Path, name: str, width: int) -> None:
    """FieldError where there is a text encoder whose rows are not as wide as the transformer's field asks for."""
    file = folder / "text_encoder" / "config.json"
    if not file.is_file():
        return
    if number(read_json(file), "d_model", file) != width:
        raise wrong(file, "d_model", f"be the transformer's {name}, {width}", read_json(file)["d_model"])


def folder_settings(folder: Path, published: SettingsT) -> SettingsT:
    """The published settings, with what a folder's own file of settings says laid over them."""
    file = folder / SETTINGS_FILE
    found: SettingsT = settings_with(published, read_json(file), str(file)) if file.is_file() else published
    return found

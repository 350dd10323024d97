"""The toy model as its folder's JSON tells it: sizes, schedule, layers and mistakes, without torch or weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final

from sgi2v.backbones.base import CLEAN, MODES, Method, Mode, Settings, check_range, settings_with
from sgi2v.backbones.folder import SETTINGS_FILE, class_in, read_json, weights_sha256
from sgi2v.backbones.weights import check_weights_there
from sgi2v.checks import Bounds
from sgi2v.errors import FieldError
from sgi2v.grid import Grid
from sgi2v.lazy import torch
from sgi2v.planning import Sampling
from sgi2v.scene import Scene
from sgi2v.step import Level

if TYPE_CHECKING:
    from toy_motion.model import ToyFlow

KIND_NAME: Final = "toy-flow"
CLASS: Final = "ToyFlowTransformer"
NETWORKS: Final = ("transformer", "vae")
SOURCES: Final = ("first-frame", "self", "match", "output")
WEIGHTS: Final = "diffusion_pytorch_model.safetensors"
CELL: Final = 8
TOKEN: Final = 16
GROUP: Final = 4


def _recommended() -> dict[str, dict[str, Any]]:
    high = {"low": 0.6, "high": 0.99, "unit": "noise-level"}
    layers = ["blocks.1:first-frame"]
    return {
        "sg-i2v": {"guided": high, "layers": layers, "lr": 0.05, "weight_decay": 0.0, "iterations": 2},
        "drag-diffusion": {
            "at": 0.9, "unit": "noise-level", "layers": ["blocks.1:output"], "iterations": 2, "cell": 16.0,
            "reference_attention": False,
        },
        "time-to-move": {"t_weak": 0.95, "t_strong": 0.85, "unit": "noise-level"},
        "freetraj": {"edit_spatial": False, "edit_temporal": False},
    }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ToySettings(Settings):
    """Things the toy model is asked for besides picture and words."""

    width: int = 64
    """Width of the picture, in pixels."""
    height: int = 48
    """Height of the picture, in pixels."""
    num_frames: int = 9
    """Frames in a clip."""
    num_steps: int = 6
    """Denoising steps."""
    fps: float = 8.0
    """Frames a second of the video."""
    guidance_scale: float = 2.0
    """Classifier-free guidance, away from the negative prompt; 1: none."""
    negative_prompt: str = ""
    """Words that guidance leads away from."""
    recommended: Mapping[str, Mapping[str, Any]] = field(default_factory=_recommended)
    """Controller name -> the values of its fields that suit this model."""

    BOUNDS: ClassVar[Bounds] = MappingProxyType({**Settings.BOUNDS, "guidance_scale": (0, 100)})

    def __post_init__(self) -> None:
        check_range("settings", self)


@dataclass(frozen=True, kw_only=True)
class ToyOutline:
    """A folder of the toy model, read as far as its configuration goes."""

    folder: Path
    name: str
    settings: ToySettings
    channels: int
    blocks: int
    sizes: Mapping[str, int]
    """Arguments of the transformer."""
    shift: float
    """Shift of the schedule towards noise (Esser et al. 2024, section 5.3.2)."""

    kind = KIND_NAME
    takes_text = True

    def hash_weights(self) -> str:
        """Hash of both weight files."""
        return weights_sha256(self.folder, NETWORKS)

    def with_settings(self, settings: ToySettings) -> ToyOutline:
        """The same folder under other settings."""
        return dataclasses.replace(self, settings=settings)

    def levels(self, num_steps: int, grid: Grid) -> Sequence[Level]:
        """Straight from noise to picture: ``x = (1 - s) x0 + s noise``; s shifted, evenly spaced before."""
        even = [1 - k / num_steps for k in range(num_steps + 1)]
        shifted = [self.shift * s / (1 + (self.shift - 1) * s) for s in even]
        return [Level(signal=1 - s, noise=s, timestep=float(int(1000 * s))) for s in shifted]

    def grid(self, width: int, height: int, num_frames: int) -> Grid:
        """Latent grid; FieldError naming the nearest sizes and lengths where there is none."""
        for name, size in (("width", width), ("height", height)):
            if size % TOKEN or not TOKEN <= size <= 1024:
                low, high = size // TOKEN * TOKEN, -(-size // TOKEN) * TOKEN
                nearest = [f"{n}" for n in (low, high) if TOKEN <= n <= 1024]
                raise FieldError(
                    name, f"must be a multiple of {TOKEN} in {TOKEN}..1024, got {size}",
                    f"nearest are {' and '.join(dict.fromkeys(nearest)) or f'{TOKEN} and 1024'}",
                )  # fmt: skip
        if num_frames % GROUP != 1 or not 1 < num_frames <= 257:
            low = max(num_frames - 1, GROUP) // GROUP * GROUP + 1
            raise FieldError(
                "num_frames", f"must be {GROUP}k + 1 in {GROUP + 1}..257, got {num_frames}",
                f"nearest are {min(low, 257)} and {min(low + GROUP, 257)}",
            )  # fmt: skip
        return Grid(
            width=width, height=height, num_frames=num_frames, stride=CELL, frame_stride=GROUP,
            channels=self.channels,
        )  # fmt: skip

    def check(self, scene: Scene, controller: Method, sampling: Sampling) -> tuple[str, ...]:
        """Every layer is there, attention is left alone, no U-Net is asked for."""
        uses = controller.uses()
        if uses.edits:
            raise FieldError(
                "controller", "changes attention, but this model mixes frames and places at once",
                "turn that part of the method off",
            )  # fmt: skip
        if uses.reuses_deep:
            raise FieldError("controller.reuse_deep", "this model has no deep blocks to leave out", "turn it off")
        for layer in uses.features:
            self.block_of(layer)
        return ()

    def layers(self) -> Mapping[str, tuple[str, ...]]:
        """Every block, each with all sources."""
        return {f"blocks.{k}": SOURCES for k in range(self.blocks)}

    def block_of(self, layer: str) -> int:
        """The block of a feature's name; FieldError where the network has none such."""
        blocks = enumerate(self.layers().items())
        known = {f"{block}:{source}": k for k, (block, sources) in blocks for source in sources} | {CLEAN: -1}
        if layer not in known:
            raise FieldError(
                "controller.layers", f"{layer!r} is no feature of this model",
                f"known are blocks.<0..{self.blocks - 1}>:<{', '.join(SOURCES)}>, and {CLEAN}",
            )  # fmt: skip
        return known[layer]

    def memory_needed(self, grid: Grid, device: torch.device, dtype: torch.dtype) -> Mapping[Mode, int]:
        """A bound on what a guided run takes; so little that no mode takes less."""
        tokens = prod(grid.latent_shape) // self.channels // (TOKEN // CELL) ** 2
        a_pass = 4 * tokens * self.blocks * (20 * self.sizes["width"] + tokens * self.sizes["heads"])
        return dict.fromkeys(MODES, 2**20 + a_pass)

    def choose_dtype(self, name: str | torch.dtype | None, device: torch.device) -> torch.dtype:
        """The named number format, else float32."""
        from sgi2v.device import choose_dtype

        return name if isinstance(name, torch.dtype) else choose_dtype(name or "float32", device)

    def load(self, *, device: torch.device, dtype: torch.dtype, memory: Mode, compiled: bool = False) -> ToyFlow:
        """Both networks with their weights."""
        from toy_motion.model import ToyFlow, loaded

        if compiled:
            raise FieldError("compile", "this model is too small to compile", "leave it out")
        return ToyFlow(loaded(self, device, dtype), self, device=device, memory=memory)


class ToyKind:
    """The toy model among others: recognised by its folder's configuration."""

    kind: Final = KIND_NAME
    names: Final[Mapping[str, str]] = MappingProxyType({})
    """Names known without a folder, each with its hub id: none, nobody publishes a toy."""

    def recognises(self, folder: Path) -> bool:
        """True where the folder's transformer is the toy's."""
        return class_in(folder / "transformer" / "config.json") == CLASS

    def outline(
        self, folder: Path, *, name: str, hub_id: str | None = None, settings: ToySettings | None = None
    ) -> ToyOutline:
        """The folder's outline; FieldError naming the file that is missing or says nonsense."""
        config = read_json(folder / "transformer" / "config.json")
        scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
        sizes = {key: config.get(key) for key in ("channels", "width", "heads", "num_blocks")}
        for key, value in sizes.items():
            if not isinstance(value, int) or value < 1:
                raise FieldError("backbone", f"{folder}/transformer/config.json: {key} must be a number above 0")
        check_weights_there(folder, NETWORKS)
        file = folder / SETTINGS_FILE
        said = read_json(file) if file.is_file() else {}
        return ToyOutline(
            folder=folder,
            name=name,
            settings=settings or settings_with(ToySettings(), said, str(file)),
            channels=config["channels"],
            blocks=config["num_blocks"],
            sizes=MappingProxyType({key: config[key] for key in sizes}),
            shift=float(scheduler.get("shift", 1.0)),
        )

    def settings(self, source: str) -> ToySettings:
        """The settings of a known name: the toy's own."""
        return ToySettings()


KIND: Final = ToyKind()

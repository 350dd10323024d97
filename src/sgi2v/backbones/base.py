"""The contract every image-to-video model meets: noise levels, latents, features, and nothing about steering."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Protocol, cast, get_args, runtime_checkable

import PIL.Image
from jaxtyping import Bool, Float
from typing_extensions import TypeVar

from sgi2v.checks import Bounds, own_bounds
from sgi2v.errors import FieldError, within
from sgi2v.fitting import fitted
from sgi2v.grid import Grid
from sgi2v.lazy import torch
from sgi2v.planning import SIZES, Sampling, Schedule, Uses
from sgi2v.scene import Scene
from sgi2v.step import Level

if TYPE_CHECKING:
    from sgi2v.attention import AttentionEdit
    from sgi2v.backbones.adapters import Adapter

CLEAN: Final = "x0"
"""The name under which :meth:`Backbone.features` gives its estimate of the clean latents."""
MATCHES: Final = ("match", "match-rope")
"""Sources whose maps say which place of the first frame each place looks like: by queries and keys before any rotary
embedding, and, where a model has such and offers it, after."""
Mode = Literal["fast", "balanced", "low"]
"""``fast``: all on the device, nothing computed twice. ``balanced``: the blocks that keep most are checkpointed in a
guided pass; the networks that run once visit the device. ``low``: all blocks are checkpointed and their weights visit
the device in turn. All give the same video, but for the last bits in which ``low`` decodes."""
Advice = Mapping[str, Mapping[str, object]]
"""Name -> values of fields, as JSON holds them."""
Memory = Literal["fast", "balanced", "low", "auto"]
"""A mode, or ``auto``: the first of them that fits the free memory."""
MODES: tuple[Mode, ...] = get_args(Mode)
ConditionT = TypeVar("ConditionT", default=Any)
ModelT = TypeVar("ModelT")


@dataclass(frozen=True, kw_only=True)
class Text:
    """A person's words; both empty for a model that takes none."""

    prompt: str = ""
    negative: str = ""
    """Words that guidance leads away from."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Values that belong to a model rather than to a way of steering it; shared by all backbones.

    ``recommended`` maps a controller's name to the values of its fields that suit this model (noise range,
    step size): data only, applied by whoever builds the controller.
    """

    width: int
    """Width of the picture the model makes unless told otherwise, in pixels."""
    height: int
    """Height of the picture the model makes unless told otherwise, in pixels."""
    num_frames: int
    """Frames in a clip unless told otherwise."""
    num_steps: int
    """Denoising steps unless told otherwise."""
    fps: float
    """Frames a second of the video."""
    recommended: Advice = field(default_factory=dict)
    """Controller name -> the values of its fields that suit this model."""
    recipes: Advice = field(default_factory=dict)
    """Name of a recipe -> the settings it changes, such as num_steps; what it recommends is laid over the rest."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Controller name -> a sentence on how it fares with this model, for whoever chooses it; changes no video."""
    default: str = "sg-i2v"
    """Name of the controller for whoever names none."""

    BOUNDS: ClassVar[Bounds] = MappingProxyType({**SIZES, "num_steps": (1, 1000), "fps": (1, 240)})
    """Lowest and highest value of fields, for :func:`check_range` and for forms; a child says those of its own."""
    ADVICE: ClassVar[tuple[str, ...]] = ("recommended", "recipes", "notes", "default")
    """Fields that advise whoever chooses, and change no video by themselves."""
    SIZE: ClassVar[tuple[str, ...]] = ("width", "height", "num_frames", "num_steps")
    """Fields that a run says by its :class:`~sgi2v.planning.Sampling`."""


@runtime_checkable
class Method(Protocol):
    """A way of steering as a model sees it before anything is loaded."""

    name: ClassVar[str]

    def uses(self) -> Uses:
        """Parts of a model and a scene that it uses."""

    def schedule(self, levels: Sequence[Level]) -> Schedule:
        """Plan of each step; FieldError when it has nothing to do at these levels."""


@runtime_checkable
class Model(Protocol):
    """Facts of a model that its outline and its loaded backbone both tell."""

    @property
    def name(self) -> str:
        """The model in a record: a name, a hub id, or a folder."""

    @property
    def settings(self) -> Any:
        """A kind of :class:`Settings`. They are a value: others are had by :meth:`with_settings`."""

    def with_settings(self: ModelT, settings: Any) -> ModelT:
        """The same model under other settings of its own kind; neither changes the other."""

    def levels(self, num_steps: int, grid: Grid) -> Sequence[Level]:
        """The schedule: ``num_steps + 1`` levels from pure noise to none."""

    def grid(self, width: int, height: int, num_frames: int) -> Grid:
        """Latent grid for a size in pixels; FieldError on a size the model cannot make."""


@runtime_checkable
class Outline(Model, Protocol):
    """A model as its configuration tells it: enough to refuse a run that cannot work before weights are read.

    Made of the folder's JSON alone, without torch, so that a mistake is answered at once.
    """

    @property
    def kind(self) -> str:
        """Name of the kind of model, as registered."""

    @property
    def folder(self) -> Path:
        """Folder of its files."""

    @property
    def takes_text(self) -> bool:
        """True where a prompt changes its videos."""

    def hash_weights(self) -> str:
        """SHA-256 over the weight files; reads them all, so it is asked for last."""

    def check(self, scene: Scene, controller: Method, sampling: Sampling) -> tuple[str, ...]:
        """FieldError for what only this model knows to be a mistake, such as a layer that it does not have.

        Returns what of the scene this model leaves unused, a word or two each.
        """

    def layers(self) -> Mapping[str, tuple[str, ...]]:
        """Blocks that can be read, in the order of a pass, each with its sources, such as first-frame or output."""

    def memory_needed(self, grid: Grid, device: torch.device, dtype: torch.dtype) -> Mapping[Mode, int]:
        """Bytes at the peak of a guided run, weights included, for every memory mode."""

    def choose_dtype(self, name: str | torch.dtype | None, device: torch.device) -> torch.dtype:
        """The named number format, or the one that suits the model on the device."""

    def load(self, *, device: torch.device, dtype: torch.dtype, memory: Mode, compiled: bool = False) -> Backbone:
        """The model with its weights; FieldError where they are not what the configuration says."""


@runtime_checkable
class Backbone(Model, Protocol[ConditionT]):
    """An image-to-video model as the sampling loop sees it.

    Latents are ``[frames, channels, rows, columns]`` in float32, without a batch axis. All settings share the loaded
    networks. Sources: the contract of the project; each model's file names its own papers.
    """

    @property
    def denoiser(self) -> torch.nn.Module:
        """The network that is asked at every step, frozen."""

    @property
    def outline(self) -> Outline:
        """The model before its weights were read, under the same settings."""

    @property
    def weights_sha256(self) -> str:
        """Hash of the weight files, worked out once, so that a record says exactly which model made a video."""

    @property
    def device(self) -> torch.device:
        """Device on which the networks compute."""

    @property
    def dtype(self) -> torch.dtype:
        """Number format the denoiser computes in."""

    @property
    def memory(self) -> Mode:
        """Mode of memory it is in."""

    def use_memory(self, memory: Mode) -> None:
        """Changes to another memory mode, between two runs; for all that share the networks."""

    def noise(self, grid: Grid, generator: torch.Generator) -> Float[torch.Tensor, "n c y x"]:
        """Unit noise for a clip, drawn as the model's own pipeline draws it: one seed, one video."""

    def free(self, grid: Grid) -> Bool[torch.Tensor, " n"]:
        """Latent frames that are variables; False for one that the model keeps, such as a clean first frame.

        On the host, where it is asked before anything is computed.
        """
        ...

    def encode(self, image: PIL.Image.Image, text: Text, grid: Grid, generator: torch.Generator) -> ConditionT:
        """Everything the model is conditioned on, from an image of the grid's size in pixels and words."""

    def encode_frames(self, frames: Float[torch.Tensor, "f 3 h w"], grid: Grid) -> Float[torch.Tensor, "n c y x"]:
        """Latents of a clip of the grid's size with values in 0..1."""

    def denoise(
        self, x: Float[torch.Tensor, "n c y x"], level: Level, condition: ConditionT
    ) -> Float[torch.Tensor, "n c y x"]:
        """The model's guided estimate of the clean latents ``x0``."""

    def features(
        self,
        x: Float[torch.Tensor, "n c y x"],
        level: Level,
        condition: ConditionT,
        layers: Sequence[str],
    ) -> Mapping[str, Float[torch.Tensor, "n d v u"]]:
        """Named features of the conditional branch, differentiable in ``x``, each at its own resolution.

        A name is ``<block>:<source>``, such as first-frame, self, output; ``match`` (:data:`MATCHES`) is no look but a
        position, ``[n, 2, v, u]``: the place (x, y) of the first frame that each place looks like, in cells of the map
        (:func:`sgi2v.attention.match_positions`). Or ``x0`` (:data:`CLEAN`), the conditional
        branch's estimate of the clean latents from the same pass, which then runs to its end. The level may lie off
        the model's own schedule.
        """

    def editing(self, edit: AttentionEdit, grid: Grid) -> AbstractContextManager[None]:
        """While open, every self-attention of the denoiser goes through ``edit``; FieldError where it cannot.

        Whatever happens inside, the network is afterwards what it was.
        """

    def adapted(self, adapter: Adapter, signal: object = None) -> AbstractContextManager[None]:
        """While open, a trained adapter adds to every pass what it makes of ``signal``; then all is as before."""

    def decode(
        self, x: Float[torch.Tensor, "n c y x"], frames: Sequence[int] | None = None
    ) -> Float[torch.Tensor, "f 3 h w"]:
        """Pictures with values in 0..1, float32: of all the clip, or of some latent frames for a look at them.

        ``frames`` are indices of latent frames in ``x``; of a latent frame that stands for several pictures the last
        is given. What they show may differ in details from the same frames of the whole clip.
        """


if TYPE_CHECKING:
    ImageEdit = Callable[
        [Float[torch.Tensor, "n c y x"], Float[torch.Tensor, "n m y x"]],
        tuple[Float[torch.Tensor, "n c y x"], Float[torch.Tensor, "n m y x"]],
    ]
else:
    ImageEdit = Callable  # naming a tensor's type would import torch
"""Given the latents of the picture and a grey clip, and the mask that says which of them are known, returns others."""


@runtime_checkable
class EditsImage(Protocol[ConditionT]):
    """A backbone that is given its picture as latents of a whole clip with a mask, which a method may change."""

    def with_image(self, condition: ConditionT, edit: ImageEdit, *, both: bool) -> ConditionT:
        """The condition with edited latents and mask; ``both``: for the unconditional branch of guidance too."""


@runtime_checkable
class SamplesPicture(Protocol):
    """A backbone of words, for which an adapter is given the picture as latents."""

    def sample_picture(self, image: PIL.Image.Image, generator: torch.Generator) -> Float[torch.Tensor, "c y x"]:
        """Latents of a picture of the grid's size, drawn from the autoencoder's posterior."""


@runtime_checkable
class ReusesDeep(Protocol):
    """A backbone whose deep blocks can be left out of a pass: a U-Net."""

    def reusing_deep(self, layers: Sequence[str]) -> AbstractContextManager[None]:
        """While open, only the first pass that reads these layers runs the blocks deeper than all of them.

        Later passes take for constant what those put out then: cheaper, and an approximation.
        """


class Outlined:
    """The part of a backbone that its outline answers, for backbones to build on."""

    outline: Any
    """The model before its weights were read."""
    adapters: Sequence[Adapter] = ()
    """Trained systems that were loaded with it, for methods that steer them."""

    @property
    def name(self) -> str:
        """The model in a record."""
        return str(self.outline.name)

    @property
    def settings(self) -> Any:
        """Values that belong to the model in these runs."""
        return self.outline.settings

    def with_settings(self: ModelT, settings: Any) -> ModelT:
        """The same networks under other settings."""
        other: Any = copy.copy(self)
        other.outline = other.outline.with_settings(settings)
        return cast(ModelT, other)

    def levels(self, num_steps: int, grid: Grid) -> Sequence[Level]:
        """As its outline's."""
        levels: Sequence[Level] = self.outline.levels(num_steps, grid)
        return levels

    def grid(self, width: int, height: int, num_frames: int) -> Grid:
        """As its outline's."""
        grid: Grid = self.outline.grid(width, height, num_frames)
        return grid


def settings_with(settings: Any, values: Mapping[str, object], where: str) -> Any:
    """The settings with some fields replaced; FieldError under ``where`` for a field unknown or of no such kind."""
    known = {f.name for f in dataclasses.fields(settings)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise FieldError(where, f"unknown setting {unknown[0]!r}", f"known are {', '.join(sorted(known))}")
    return dataclasses.replace(settings, **fitted(type(settings), values, where))


def settings_with_recipe(settings: Any, name: str | None) -> Any:
    """The settings under one of the model's recipes; None is the model's own way.

    A recipe replaces the settings it names; under ``recommended`` it replaces single fields of single controllers.
    Raises FieldError listing the recipes when there is none of that name.
    """
    if name is None:
        return settings
    if name not in settings.recipes:
        known = ", ".join(settings.recipes) or "none for this model"
        raise FieldError("recipe", f"unknown {name!r}", f"known are {known}")
    values = dict(settings.recipes[name])
    changed = cast(Advice, values.pop("recommended", {}))
    recommended = {
        controller: {**settings.recommended.get(controller, {}), **changed.get(controller, {})}
        for controller in dict.fromkeys((*settings.recommended, *changed))
    }
    return settings_with(settings, {**values, "recommended": recommended}, f"recipe {name}")


def check_range(where: str, settings: object) -> None:
    """FieldError for a field of the settings outside the lowest and highest value that its class says as BOUNDS."""
    with within(where):
        for name, (low, high) in own_bounds(type(settings)).items():
            value = getattr(settings, name)
            if value is not None and not isinstance(value, tuple) and not low <= value <= high:
                raise FieldError(name, f"must lie in {low:g}..{high:g}, got {value}")

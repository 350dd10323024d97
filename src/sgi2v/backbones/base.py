"""The contract every image-to-video model meets: noise levels, latents, features, and nothing about steering."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import PIL.Image
import torch
from jaxtyping import Float
from torch import Tensor, nn

from sgi2v.attention import AttentionEdit
from sgi2v.fitting import fitted
from sgi2v.grid import Grid

CLEAN = "x0"
"""The name under which :meth:`Backbone.features` gives its estimate of the clean latents."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """How signal and noise are mixed at one point of the denoising: ``x = signal * x0 + noise * epsilon``.

    SVD has ``signal = 1, noise = sigma``; flow models ``1 - s`` and ``s``; variance-preserving models
    ``sqrt(alpha_bar)`` and ``sqrt(1 - alpha_bar)``. The last level of a schedule has ``noise = 0``.
    """

    signal: float
    noise: float

    def __post_init__(self) -> None:
        if self.signal < 0 or self.noise < 0 or self.signal + self.noise == 0:
            raise ValueError(f"a level needs signal >= 0 and noise >= 0, not both 0; got {self}")

    @property
    def noise_level(self) -> float:
        """``s = noise / (signal + noise)`` in 0..1, the same scale for every model and step count."""
        return self.noise / (self.signal + self.noise)

    @property
    def sigma(self) -> float:
        """Noise to signal ratio; infinite at pure noise of a model that keeps no signal there."""
        return self.noise / self.signal if self.signal > 0 else math.inf

    @property
    def pure_noise_scale(self) -> float:
        """Standard deviation of ``x`` at this level when ``x0`` and the noise have unit variance."""
        return math.hypot(self.signal, self.noise)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What belongs to a model rather than to a way of steering it; shared by all backbones.

    ``recommended`` maps a controller's name to the values of its fields that suit this model (noise range,
    step size): data only, applied by whoever builds the controller.
    """

    width: int = 1024
    """Width of the picture the model makes unless told otherwise, in pixels."""
    height: int = 576
    """Height of the picture the model makes unless told otherwise, in pixels."""
    num_frames: int = 14
    """Frames in a clip unless told otherwise."""
    num_steps: int = 50
    """Denoising steps unless told otherwise."""
    recommended: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Controller name -> the values of its fields that suit this model."""
    recipes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Name of a recipe -> the settings it changes, such as num_steps; what it recommends is laid over the rest."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Controller name -> a sentence on how it fares with this model, for whoever chooses it; changes no video."""


@runtime_checkable
class Outline(Protocol):
    """What is known of a model before its networks are loaded: enough to refuse a run that cannot work."""

    @property
    def settings(self) -> Any:
        """What belongs to the model: a :class:`Settings`, or a kind of it."""
        ...

    def levels(self, num_steps: int) -> Sequence[Level]:
        """The schedule: ``num_steps + 1`` levels from pure noise to none."""
        ...

    def grid(self, width: int, height: int, num_frames: int) -> Grid:
        """Latent grid for a size in pixels; ValueError on a size the model cannot make."""
        ...


@runtime_checkable
class Backbone(Protocol):
    """An image-to-video model as the sampling loop sees it.

    Latents are ``[frames, channels, height, width]`` in float32, without a batch axis. Sources: the contract of the
    project; each model's file names its own papers.
    """

    denoiser: nn.Module
    settings: Any

    @property
    def device(self) -> torch.device:
        """Where the networks lie."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Number format the denoiser computes in."""
        ...

    @property
    def name(self) -> str:
        """What to call this model in a record: a name, a hub id, or a folder."""
        ...

    @property
    def weights_sha256(self) -> str:
        """Hash of the weight files, so that a record says exactly which model made a video."""
        ...

    def levels(self, num_steps: int) -> Sequence[Level]:
        """The schedule: ``num_steps + 1`` levels from pure noise to none."""
        ...

    def grid(self, width: int, height: int, num_frames: int) -> Grid:
        """Latent grid for a size in pixels; ValueError on a size the model cannot make."""
        ...

    def encode(self, image: PIL.Image.Image, prompt: str, grid: Grid, generator: torch.Generator) -> Any:
        """Everything the model is conditioned on, from an image of the grid's size in pixels."""
        ...

    def encode_frames(self, frames: Float[Tensor, "f 3 h w"]) -> Float[Tensor, "n c y x"]:
        """Latents of a clip with values in 0..1."""
        ...

    def denoise(self, x: Float[Tensor, "n c y x"], level: Level, condition: Any) -> Float[Tensor, "n c y x"]:
        """The model's guided estimate of the clean latents ``x0``."""
        ...

    def features(
        self,
        x: Float[Tensor, "n c y x"],
        level: Level,
        condition: Any,
        layers: Sequence[str],
        deep: dict[str, Tensor] | None = None,
    ) -> Mapping[str, Float[Tensor, "n d v u"]]:
        """Named features of the conditional branch, differentiable in ``x``, each at its own resolution.

        A name is ``<block>:<source>``, source one of first-frame, self, temporal, output; or ``x0`` (:data:`CLEAN`),
        the conditional branch's estimate of the clean latents from the same pass, which then runs to its end.

        ``deep`` makes passes after the first cheaper, and an approximation: given empty, it is filled with what the
        network's deep blocks put out; given filled, those blocks do not run, and that is a constant in their place.
        ValueError where no block is deeper than the layers.
        """
        ...

    def editing(self, edit: AttentionEdit, grid: Grid) -> AbstractContextManager[None]:
        """While open, every self-attention of the denoiser, spatial and temporal, goes through ``edit``.

        Whatever happens inside, the network is afterwards what it was. See :func:`sgi2v.attention.edited`.
        """
        ...

    def decode(self, x: Float[Tensor, "n c y x"]) -> Float[Tensor, "f 3 h w"]:
        """Frames with values in 0..1, float32."""
        ...


def settings_with(settings: Settings, values: Mapping[str, Any], where: str) -> Any:
    """The settings with some fields replaced; ValueError naming ``where`` and a field, unknown or of no such kind."""
    known = {f.name for f in dataclasses.fields(settings)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"{where}: unknown setting {unknown[0]!r}; known are {', '.join(sorted(known))}")
    return dataclasses.replace(settings, **fitted(type(settings), values, where))


def settings_with_recipe(settings: Settings, name: str | None, where: str = "recipe") -> Any:
    """The settings under one of the model's recipes; None is the model's own way.

    A recipe replaces the settings it names; under ``recommended`` it replaces single fields of single controllers.
    Raises ValueError listing the recipes when there is none of that name.
    """
    if name is None:
        return settings
    if name not in settings.recipes:
        known = ", ".join(settings.recipes) or "none for this model"
        raise ValueError(f"{where}: unknown {name!r}; known are {known}")
    values = dict(settings.recipes[name])
    changed: Mapping[str, Mapping[str, Any]] = values.pop("recommended", {})
    recommended = {
        controller: {**settings.recommended.get(controller, {}), **changed.get(controller, {})}
        for controller in dict.fromkeys((*settings.recommended, *changed))
    }
    return settings_with(settings, {**values, "recommended": recommended}, f"{where} {name}")

"""A loaded video transformer behind the backbone contract: all but what one family of models does its own way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NoReturn

import numpy as np
import PIL.Image
import torch
from jaxtyping import Float
from torch import Tensor, nn

from sgi2v.attention import AttentionEdit
from sgi2v.backbones.adapters import Adapter
from sgi2v.backbones.arrangement import Arrangement
from sgi2v.backbones.base import CLEAN, Mode, Text
from sgi2v.backbones.dit.features import feature, rotated, tapped
from sgi2v.backbones.dit.outline import DiTOutline
from sgi2v.backbones.loaded import Loaded
from sgi2v.backbones.swapping import swapped
from sgi2v.backbones.text import Texts
from sgi2v.checks import choice
from sgi2v.device import has_own_memory
from sgi2v.errors import FieldError
from sgi2v.grid import Grid
from sgi2v.step import Level
from sgi2v.taps import Taps


@dataclass(frozen=True, kw_only=True)
class DiTCondition:
    """Inputs of the network beside the noisy latents; encoded once a run."""

    text: Float[Tensor, "1 w d"]
    """The prompt's rows."""
    negative: Float[Tensor, "1 m d"] | None
    """The negative prompt's; None where there is no guidance."""
    image: Float[Tensor, "n c y x"]
    """The picture as the network is given it: latents with their mask, or the clean first frame."""
    plain: Float[Tensor, "n c y x"] | None = None
    """The same for the unconditional branch, where that sees another."""
    embedding: Float[Tensor, "1 v e"] | None = None
    """The image encoder's rows."""
    grid: Grid


@dataclass(kw_only=True, eq=False)
class Networks:
    """Loaded networks and what is the matter with them just now; shared by all settings they run under."""

    experts: Mapping[str, nn.Module]
    """The denoiser's networks by the name of their folder, the one for high noise first."""
    vae: nn.Module
    image_encoder: Any = None
    image_processor: Any = None
    device: torch.device
    dtype: torch.dtype
    arranged: Arrangement | None = None
    branches: tuple[bool, ...] = (True,)
    """Branches of guidance in the pass that is running: True is conditional."""
    sha256: str | None = None
    """Of the weight files, once it has been asked for."""


class VideoTransformer(Loaded, ABC):
    """A denoiser of joint attention over all places of all frames, a causal video autoencoder, and text.

    Latents stay in float32 between steps; the denoiser runs in ``dtype``, the autoencoder in float32. One run at a
    time: hooks sit on the network while features are read. Each family's module names its papers.
    """

    _networks: Networks
    TEXT_FIRST: ClassVar[bool] = False
    """True where text takes part in self-attention, its tokens before the picture's."""
    IN_PLACE: ClassVar[bool] = False
    """True where rotary embedding is written over the queries and keys that the norms put out."""

    def __init__(self, networks: Networks, outline: DiTOutline, *, memory: Mode = "fast") -> None:
        """Wraps loaded networks; :func:`sgi2v.load_backbone` is the way to make one."""
        self.outline: DiTOutline = outline
        self._networks = networks
        self._parts: dict[str, nn.Module] = {"autoencoder": networks.vae}
        if networks.image_encoder is not None:
            self._parts["image encoder"] = networks.image_encoder
        for network in (*networks.experts.values(), *self._parts.values()):
            network.eval().requires_grad_(False)
        experts = list(networks.experts.values())
        self.denoiser: nn.Module = experts[0] if len(experts) == 1 else nn.ModuleDict(dict(networks.experts))
        self.denoiser.eval()
        networks.arranged = self._arrange(memory)

    # ------------------------------------------------------------ what a family does its own way

    @abstractmethod
    def _velocity(
        self, x: Float[Tensor, "n c y x"], level: Level, condition: DiTCondition, text: Tensor
    ) -> Float[Tensor, "n c y x"]:
        """The network's output at latents on its own line, float32, told of that text."""

    def _clean(
        self, x: Float[Tensor, "n c y x"], velocity: Float[Tensor, "n c y x"], level: Level, condition: DiTCondition
    ) -> Float[Tensor, "n c y x"]:
        """``x0`` of a velocity; for flow matching ``x - s v``."""
        return x - level.noise * velocity

    @abstractmethod
    def _image(self, image: PIL.Image.Image, grid: Grid, generator: torch.Generator) -> Float[Tensor, "n c y x"]:
        """The picture's part of the condition."""

    def _expert(self, level: Level) -> str:
        """Name of the network that is asked at a level."""
        return next(iter(self._networks.experts))

    def _guidance(self, level: Level) -> float:
        """Guidance scale at a level."""
        return float(self.settings.guidance_scale)

    def _on_line(self, x: Tensor, level: Level) -> tuple[Tensor, Level]:
        """The latents and the level on the model's own line of mixtures; a method may ask for one off it."""
        whole = self._whole(level)
        if abs(whole - 1) < 1e-6:
            return x, level
        return x / whole, Level(signal=level.signal / whole, noise=level.noise / whole)

    def _whole(self, level: Level) -> float:
        """1 for a level on the model's own line, else the length to divide by; flow matching's line is straight."""
        return level.signal + level.noise

    @abstractmethod
    def _rotary(self, expert: Any, grid: Grid) -> tuple[Tensor, Tensor]:
        """Cosines and sines of a network's rotary embedding, ``[1, places, heads or 1, channels of a head]``."""

    def _tokens(self, kept: Tensor) -> Float[Tensor, "1 p d"]:
        """A tapped module's output as tokens of the picture, heads side by side."""
        return kept

    @abstractmethod
    def _to_latents(self, frames: Float[Tensor, "1 3 f h w"]) -> Float[Tensor, "n c y x"]:
        """Normalised latents of a clip with values in -1..1: the posterior's mode."""

    @abstractmethod
    def _to_frames(self, x: Float[Tensor, "n c y x"]) -> Float[Tensor, "f 3 h w"]:
        """A clip with values in -1..1 of normalised latents that begin with the first."""

    @property
    def experts(self) -> Mapping[str, nn.Module]:
        """The denoiser's networks by the name of their folder; most models have one."""
        return self._networks.experts

    # ------------------------------------------------------------ where it is and how it computes

    def _arrange(self, memory: Mode) -> Arrangement:
        choice("memory", memory, Mode)
        experts = self._networks.experts
        blocks = [list(getattr(expert, self.outline.BLOCKS)) for expert in experts.values()]
        return Arrangement(
            memory,
            self._networks.device,
            networks=(*experts.values(), *self._parts.values()),
            parts=self._parts,
            blocks=blocks if memory != "fast" else [],
            experts=experts if len(experts) > 1 else None,
        )

    def _tiled(self) -> AbstractContextManager[None]:
        """While open, clips go through the autoencoder in overlapping tiles, where memory is scarce.

        Never the run's own picture: what the denoiser is asked with is the same in every mode.
        """
        scarce = self.memory == "low" and has_own_memory(self.device) and self._tiles_fit
        return swapped([(self._networks.vae, "use_tiling", scarce)])

    @property
    def _tiles_fit(self) -> bool:
        """True where diffusers' tiles make a clip of the right size."""
        return True

    def use_memory(self, memory: Mode) -> None:
        """Changes to another mode, between two runs; FieldError for a name that is none."""
        choice("memory", memory, Mode)
        self._arranged.undo()
        self._networks.arranged = self._arrange(memory)

    @property
    def dtype(self) -> torch.dtype:
        """Number format the denoiser computes in."""
        return self._networks.dtype

    # ------------------------------------------------------------ a run

    def noise(self, grid: Grid, generator: torch.Generator) -> Float[Tensor, "n c y x"]:
        """Unit noise in float32, drawn channels first, as diffusers' pipelines draw it."""
        frames, channels, rows, columns = grid.latent_shape
        drawn = torch.randn(channels, frames, rows, columns, generator=generator)
        return drawn.transpose(0, 1).contiguous().to(self.device)

    @torch.no_grad()
    def encode(self, image: PIL.Image.Image, text: Text, grid: Grid, generator: torch.Generator) -> DiTCondition:
        """Condition from an image of the grid's size and words; texts are encoded on the host and kept on disk."""
        assert image.size == (grid.width, grid.height), f"image {image.size}, grid {grid}"
        settings = self.settings
        guided = settings.guidance_scale > 1
        texts = [text.prompt, *([text.negative or settings.negative_prompt] if guided else [])]
        rows = Texts(self.outline.folder, self.outline.TEXT, self.dtype).rows(texts)
        given = [row[None].to(self.device) for row in rows]
        return DiTCondition(
            text=given[0],
            negative=given[1] if guided else None,
            image=self._image(image, grid, generator),
            embedding=self._embedding(image),
            grid=grid,
        )

    def _embedding(self, image: PIL.Image.Image) -> Tensor | None:
        """The image encoder's last rows but one of the picture, where the model has one."""
        encoder = self._networks.image_encoder
        if encoder is None:
            return None
        pixels = self._networks.image_processor(images=image, return_tensors="pt")["pixel_values"]
        with self._arranged.using("image encoder"):
            states = encoder(pixels.to(self.device, self.dtype), output_hidden_states=True).hidden_states
        rows: Tensor = states[-2].to(self.dtype)
        return rows

    def _pixels(self, image: PIL.Image.Image) -> Float[Tensor, "1 3 1 h w"]:
        pixels = torch.from_numpy(np.asarray(image.convert("RGB"), dtype=np.float32) / 255)
        return (pixels * 2 - 1).permute(2, 0, 1)[None, :, None].to(self.device)

    @torch.no_grad()
    def encode_frames(self, frames: Float[Tensor, "f 3 h w"], grid: Grid) -> Float[Tensor, "n c y x"]:
        """Normalised latents of a whole clip, since each group is told by the one before."""
        clip = frames.to(self.device).float().movedim(0, 1)[None] * 2 - 1
        with self._arranged.using("autoencoder"), self._tiled():
            return self._to_latents(clip).float()

    def _asked(self, x: Tensor, level: Level, condition: DiTCondition, *, conditional: bool) -> Tensor:
        """The velocity of one branch of guidance."""
        text = condition.text if conditional else condition.negative
        assert text is not None
        self._networks.branches = (conditional,)
        if not conditional and condition.plain is not None:
            condition = replace(condition, image=condition.plain)
        return self._velocity(x, level, condition, text)

    @torch.no_grad()
    def denoise(self, x: Float[Tensor, "n c y x"], level: Level, condition: DiTCondition) -> Float[Tensor, "n c y x"]:
        """Guided ``x0`` (arXiv 2207.12598)."""
        x, level = self._on_line(x, level)
        self._arranged.hold(self._expert(level))
        velocity = self._asked(x, level, condition, conditional=True)
        if condition.negative is not None:
            plain = self._asked(x, level, condition, conditional=False)
            velocity = plain + self._guidance(level) * (velocity - plain)
        return self._clean(x, velocity, level, condition)

    def features(
        self, x: Float[Tensor, "n c y x"], level: Level, condition: DiTCondition, layers: Sequence[str]
    ) -> Mapping[str, Float[Tensor, "n d v u"]]:
        """Named features of the conditional branch, differentiable in ``x``, at the tokens' resolution; or ``x0``.

        The pass ends at the last layer read, before that block's attention, with ``x0`` at the network's own end.
        """
        x, level = self._on_line(x, level)
        name = self._expert(level)
        self._arranged.hold(name)
        expert: Any = self._networks.experts[name]
        plans = {
            layer: tapped(self.outline.block_of(layer), layer.partition(":")[2]) for layer in layers if layer != CLEAN
        }
        names = list(dict.fromkeys(module for modules in plans.values() for module in modules))
        found: dict[str, Tensor] = {}
        with Taps(expert, names, early_exit=CLEAN not in layers, copied=self.IN_PLACE) as taps:
            velocity = self._asked(x, level, condition, conditional=True)
            found[CLEAN] = self._clean(x, velocity, level, condition)
        patch, heads = self.outline.patch, expert.config.num_attention_heads

        def rotate(tokens: Tensor) -> Tensor:
            cos, sin = self._rotary(expert, condition.grid)
            return rotated(tokens, cos, sin, heads)

        for layer, modules in plans.items():
            found[layer] = feature(
                layer.partition(":")[2],
                [self._tokens(taps[module]) for module in modules],
                frames=len(x),
                rows=x.shape[2] // patch,
                columns=x.shape[3] // patch,
                num_heads=heads,
                rotate=rotate,
                words=condition.text.shape[1] if self.TEXT_FIRST else 0,
            )
        return {layer: found[layer] for layer in layers}

    def editing(self, edit: AttentionEdit, grid: Grid) -> NoReturn:
        """Refused: one attention goes over the whole clip, neither within frames nor over time."""
        raise FieldError("controller", "this model mixes frames and places at once: its attention cannot be edited")

    @contextmanager
    def adapted(self, adapter: Adapter, signal: object = None) -> Iterator[None]:
        """While open, the adapter takes part in every pass; its weights are placed at its first use, and stay known."""
        part = f"adapter {id(adapter.module)}"
        self._arranged.add(part, adapter.module.to(self.dtype))
        with (
            self._arranged.using(part),
            adapter.attach(self.denoiser, signal, lambda: self._networks.branches),
        ):
            yield

    @torch.no_grad()
    def decode(self, x: Float[Tensor, "n c y x"], frames: Sequence[int] | None = None) -> Float[Tensor, "f 3 h w"]:
        """All pictures, or the last of some latent frames', each decoded with the one before alone.

        A causal autoencoder remembers all frames before; for a look at one its neighbour is near enough, and a long
        clip need not be decoded for it.
        """
        with self._arranged.using("autoencoder"), self._tiled():
            if frames is None:
                pictures = self._to_frames(x)
            else:
                pictures = torch.cat([self._to_frames(x[max(k - 1, 0) : k + 1])[-1:] for k in frames])
        return (pictures.float() / 2 + 0.5).clamp(0, 1)

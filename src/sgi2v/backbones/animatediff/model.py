"""AnimateDiff, full size or small: any folder in diffusers' layout behind the backbone contract."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from diffusers import AutoencoderKL, MotionAdapter, UNet2DConditionModel, UNetMotionModel
from jaxtyping import Float
from torch import Tensor, nn

from sgi2v.attention import AttentionEdit
from sgi2v.backbones.adapter_files import tensors_of
from sgi2v.backbones.adapters import Adapter
from sgi2v.backbones.animatediff.memory import arranged
from sgi2v.backbones.animatediff.networks import load_strictly, self_attentions, with_frame_norms
from sgi2v.backbones.animatediff.outline import AnimateDiffOutline
from sgi2v.backbones.animatediff.released import in_diffusers_names
from sgi2v.backbones.animatediff.schedule import timestep_of
from sgi2v.backbones.arrangement import Arrangement
from sgi2v.backbones.base import CLEAN, Mode, Text
from sgi2v.backbones.loaded import Loaded
from sgi2v.backbones.loading import network
from sgi2v.backbones.quiet import quiet_libraries
from sgi2v.backbones.svd.attention import edited
from sgi2v.backbones.svd.features import feature, tapped
from sgi2v.backbones.text import Texts
from sgi2v.checks import choice
from sgi2v.errors import FieldError
from sgi2v.grid import Grid
from sgi2v.records import Json
from sgi2v.step import Level
from sgi2v.taps import Taps


@dataclass(frozen=True, kw_only=True)
class AnimateDiffCondition:
    """Inputs of the network beside the noisy latents; encoded once a run."""

    text: Float[Tensor, "1 w d"]
    """The prompt's rows."""
    negative: Float[Tensor, "1 w d"] | None
    """The negative prompt's; None where there is no guidance."""


@dataclass(kw_only=True, eq=False)
class Networks:
    """Loaded networks and what is the matter with them just now; shared by all settings they run under."""

    unet: Any
    vae: Any
    device: torch.device
    arranged: Arrangement
    branches: tuple[bool, ...] = (True,)
    """Branches of guidance in the pass that is running: True is conditional."""
    sha256: str | None = None
    """Of the weight files, once it has been asked for."""


class AnimateDiff(Loaded):
    """AnimateDiff (Guo et al. 2023, arXiv 2307.04725) on Stable Diffusion 1.5: ``x0 = (x - b eps) / a``.

    It is a model of words: without an adapter it never sees the picture. Motion modules normalise every frame by
    itself, as they were trained (:class:`sgi2v.backbones.animatediff.networks.FrameNorm`). Latents stay in float32
    between steps, as the autoencoder does; the denoiser runs in ``dtype``.
    """

    _networks: Networks

    def __init__(
        self, unet: nn.Module, vae: nn.Module, outline: AnimateDiffOutline, *, device: torch.device, memory: Mode
    ) -> None:
        """Wraps loaded networks; :func:`sgi2v.load_backbone` is the way to make one."""
        self.outline: AnimateDiffOutline = outline
        self.denoiser: nn.Module = with_frame_norms(unet).eval().requires_grad_(False)
        vae.eval().requires_grad_(False)
        places = arranged(memory, unet, vae, device)
        self._networks = Networks(unet=unet, vae=vae, device=device, arranged=places)

    @classmethod
    def of(cls, outline: AnimateDiffOutline, *, device: torch.device, dtype: torch.dtype, memory: Mode) -> AnimateDiff:
        """The model in the outline's folder; FieldError where its weights are not what its configuration says."""
        folder = outline.folder
        vae = network(AutoencoderKL, folder / "vae", torch.float32)
        if outline.released is not None:
            unet: Any = released_unet(outline.released, outline.unet, dtype)
        elif not outline.adapter:
            unet = network(UNetMotionModel, folder / "unet", dtype)
        else:
            pictures = network(UNet2DConditionModel, folder / "unet", dtype)
            motion = network(MotionAdapter, folder / "motion_adapter", dtype)
            try:
                with quiet_libraries():
                    unet = UNetMotionModel.from_unet2d(pictures, motion)
            except (RuntimeError, ValueError) as error:
                reason = str(error).strip().splitlines()[0]
                raise FieldError(
                    "backbone", f"{folder}: unet and motion_adapter do not fit together ({reason})", "fetch them again"
                ) from error
        return cls(unet, vae, outline, device=device, memory=memory)

    def use_memory(self, memory: Mode) -> None:
        """Changes to another mode, between two runs; FieldError for a name that is none."""
        choice("memory", memory, Mode)
        self._arranged.undo()
        self._networks.arranged = arranged(memory, self._networks.unet, self._networks.vae, self.device)

    @property
    def dtype(self) -> torch.dtype:
        """Number format the denoiser computes in."""
        return next(self.denoiser.parameters()).dtype

    def noise(self, grid: Grid, generator: torch.Generator) -> Float[Tensor, "n c y x"]:
        """Unit noise in float32, drawn channels first, as diffusers' pipeline draws it."""
        frames, channels, rows, columns = grid.latent_shape
        drawn = torch.randn(channels, frames, rows, columns, generator=generator)
        return drawn.transpose(0, 1).contiguous().to(self.device)

    @torch.no_grad()
    def encode(
        self, image: PIL.Image.Image, text: Text, grid: Grid, generator: torch.Generator
    ) -> AnimateDiffCondition:
        """Condition from words, encoded on the host and kept on disk; nothing is drawn, no picture looked at."""
        assert image.size == (grid.width, grid.height), f"image {image.size}, grid {grid}"
        settings = self.settings
        guided = settings.guidance_scale > 1
        texts = [text.prompt, *([text.negative or settings.negative_prompt] if guided else [])]
        found = Texts(self.outline.folder, self.outline.TEXT, self.dtype).rows(texts)
        rows = [row[None].to(self.device) for row in found]
        return AnimateDiffCondition(text=rows[0], negative=rows[1] if guided else None)

    def sample_picture(self, image: PIL.Image.Image, generator: torch.Generator) -> Float[Tensor, "c y x"]:
        """Scaled latents of a picture: a sample of the autoencoder's posterior, drawn from ``generator``."""
        outline = self.outline
        rows, columns = image.height // outline.stride, image.width // outline.stride
        channels = outline.unet.get("out_channels", 4)
        return self.picture_with(image, torch.randn(channels, rows, columns, generator=generator))

    @torch.no_grad()
    def picture_with(self, image: PIL.Image.Image, noise: Float[Tensor, "c y x"]) -> Float[Tensor, "c y x"]:
        """The sample of a picture's posterior that this noise gives."""
        pixels = torch.from_numpy(np.asarray(image.convert("RGB"), dtype=np.float32) / 255)
        vae = self._networks.vae
        with self._arranged.using("autoencoder"):
            posterior = vae.encode((pixels * 2 - 1).permute(2, 0, 1)[None].to(self.device)).latent_dist
        sample: Tensor = (posterior.mean + posterior.std * noise.to(self.device))[0] * vae.config.scaling_factor
        return sample

    @torch.no_grad()
    def encode_frames(self, frames: Float[Tensor, "f 3 h w"], grid: Grid) -> Float[Tensor, "n c y x"]:
        """Scaled latents of a clip with values in 0..1, a frame at a time: the posterior's mode."""
        vae = self._networks.vae
        with self._arranged.using("autoencoder"):
            found = [vae.encode(one.to(self.device).float() * 2 - 1).latent_dist.mode() for one in frames.split(1)]
        latents: Tensor = torch.cat(found) * vae.config.scaling_factor
        return latents

    def _noise_in(
        self, x: Float[Tensor, "n c y x"], level: Level, condition: AnimateDiffCondition, *, conditional: bool
    ) -> Float[Tensor, "n c y x"]:
        """The network's estimate of the noise on one branch of guidance, float32."""
        text = condition.text if conditional else condition.negative
        assert text is not None
        self._networks.branches = (conditional,)
        timestep = torch.full((1,), timestep_of(self.outline.scheduler, level), device=self.device)
        (output,) = self.denoiser(
            x.transpose(0, 1)[None].to(self.dtype),
            timestep,
            encoder_hidden_states=text.to(self.dtype).expand(len(x), -1, -1),
            return_dict=False,
        )
        noise: Tensor = output[0].transpose(0, 1).float()
        return noise

    @staticmethod
    def _on_circle(x: Tensor, level: Level) -> tuple[Tensor, Level]:
        """The latents and the level on the model's own circle of mixtures; a method may ask for one off it."""
        whole = level.init_noise_sigma
        if abs(whole - 1) < 1e-6:
            return x, level
        return x / whole, Level(signal=level.signal / whole, noise=level.noise / whole)

    @torch.no_grad()
    def denoise(
        self, x: Float[Tensor, "n c y x"], level: Level, condition: AnimateDiffCondition
    ) -> Float[Tensor, "n c y x"]:
        """Guided ``x0`` (arXiv 2207.12598), one branch at a time."""
        x, level = self._on_circle(x, level)
        noise = self._noise_in(x, level, condition, conditional=True)
        if condition.negative is not None:
            plain = self._noise_in(x, level, condition, conditional=False)
            noise = plain + self.settings.guidance_scale * (noise - plain)
        return (x - level.noise * noise) / level.signal

    def features(
        self, x: Float[Tensor, "n c y x"], level: Level, condition: AnimateDiffCondition, layers: Sequence[str]
    ) -> Mapping[str, Float[Tensor, "n d v u"]]:
        """Named features of the conditional branch, differentiable in ``x``, each at its own resolution.

        ``<block>:output`` is what the block puts out; for a block of attention within frames
        (``up_blocks.2.attentions.1``) also ``:self``, ``:first-frame`` and ``:match``, as of Stable Video Diffusion.
        ``x0`` is the estimate of the clean latents without guidance. The pass ends at the last layer read, with ``x0``
        at the network's own end. Raises FieldError for a name the network does not have.
        """
        x, level = self._on_circle(x, level)
        plans = {layer: tapped(self.denoiser, layer) for layer in layers if layer != CLEAN}
        names = list(dict.fromkeys(name for modules in plans.values() for name in modules))
        found: dict[str, Tensor] = {}
        with Taps(self.denoiser, names, early_exit=CLEAN not in layers) as taps:
            noise = self._noise_in(x, level, condition, conditional=True)
            found[CLEAN] = (x - level.noise * noise) / level.signal
        for layer, modules in plans.items():
            found[layer] = feature(self.denoiser, layer, [taps[name] for name in modules], *x.shape[-2:])
        return {layer: found[layer] for layer in layers}

    @contextmanager
    def editing(self, edit: AttentionEdit, grid: Grid) -> Iterator[None]:
        """While open, every self-attention of the denoiser, within frames and over time, goes through ``edit``."""
        with edited(self_attentions(self.denoiser), edit, grid.rows, grid.columns):
            yield

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
        """Pictures with values in 0..1, float32, each frame by itself, of all frames or of some."""
        vae = self._networks.vae
        chosen = x if frames is None else x[list(frames)]
        with self._arranged.using("autoencoder"):
            pictures = [vae.decode(one / vae.config.scaling_factor, return_dict=False)[0] for one in chosen.split(1)]
        return (torch.cat(pictures).float() / 2 + 0.5).clamp(0, 1)


def released_unet(file: Path, config: Json, dtype: torch.dtype) -> Any:
    """The denoiser of a file with AnimateDiff's own keys; FieldError naming one that does not fit."""
    weights = {name: weight.to(dtype) for name, weight in in_diffusers_names(tensors_of(file)).items()}
    arguments = {name: value for name, value in config.items() if not name.startswith("_")}
    return load_strictly(lambda: UNetMotionModel(**arguments), weights, str(file))

"""CogVideoX image-to-video: a variance-preserving model that predicts velocity, with text in its self-attention."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import PIL.Image
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from jaxtyping import Float
from torch import Tensor

from sgi2v.backbones.base import Mode
from sgi2v.backbones.cogvideox.outline import CogVideoXOutline
from sgi2v.backbones.cogvideox.schedule import DDIMLevel, timestep_of
from sgi2v.backbones.dit.loading import denoiser
from sgi2v.backbones.dit.model import DiTCondition, Networks, VideoTransformer
from sgi2v.backbones.loading import network
from sgi2v.grid import Grid
from sgi2v.step import Level


class CogVideoX(VideoTransformer):
    """CogVideoX-5B-I2V (arXiv 2408.06072) from a folder in diffusers' layout: ``x0 = a x - b v``.

    The picture's latents are a sample of the autoencoder's, drawn before the noise, as in diffusers; the other frames
    are told nothing.
    """

    TEXT_FIRST: ClassVar[bool] = True
    IN_PLACE: ClassVar[bool] = True
    outline: CogVideoXOutline

    @classmethod
    def of(cls, outline: CogVideoXOutline, *, device: torch.device, dtype: torch.dtype, memory: Mode) -> CogVideoX:
        """The model in the outline's folder; FieldError where its weights are not what its configuration says."""
        networks = Networks(
            experts={"transformer": denoiser(CogVideoXTransformer3DModel, outline, "transformer", dtype)},
            vae=network(AutoencoderKLCogVideoX, outline.folder / "vae", torch.float32),
            device=device,
            dtype=dtype,
        )
        return cls(networks, outline, memory=memory)

    @property
    def _vae(self) -> Any:
        return self._networks.vae

    def noise(self, grid: Grid, generator: torch.Generator) -> Float[Tensor, "n c y x"]:
        """Unit noise in float32, drawn frames first, as diffusers' pipeline draws it."""
        return torch.randn(grid.latent_shape, generator=generator).to(self.device)

    def _guidance(self, level: Level) -> float:
        """Guidance scale at a level; a dynamic one as in the authors' code, which counts steps and timesteps alike."""
        scale = float(self.settings.guidance_scale)
        if not self.settings.dynamic_guidance:
            return scale
        count = level.num_steps if isinstance(level, DDIMLevel) else self.settings.num_steps
        share = (count - timestep_of(self.outline.scheduler, level)) / count
        return 1 + scale * (1 - math.cos(math.pi * share**5.0)) / 2

    def _whole(self, level: Level) -> float:
        """Variance preserving: signal and noise lie on a circle."""
        return level.init_noise_sigma

    def _image(self, image: PIL.Image.Image, grid: Grid, generator: torch.Generator) -> Float[Tensor, "n c y x"]:
        with self._arranged.using("autoencoder"):
            sample: Tensor = self._vae.encode(self._pixels(image)).latent_dist.sample(generator)
        config = self._vae.config
        # The picture was scaled the other way round in training; clips below are not.
        scale = 1 / config.scaling_factor if config.invert_scale_latents else config.scaling_factor
        latents = sample.new_zeros(grid.latent_shape)
        latents[0] = scale * sample[0, :, 0]
        return latents

    def _velocity(
        self, x: Float[Tensor, "n c y x"], level: Level, condition: DiTCondition, text: Tensor
    ) -> Float[Tensor, "n c y x"]:
        expert: Any = self._networks.experts["transformer"]
        (output,) = expert(
            hidden_states=torch.cat([x, condition.image], dim=1)[None].to(self.dtype),
            encoder_hidden_states=text.to(self.dtype),
            timestep=torch.full((1,), int(timestep_of(self.outline.scheduler, level)), device=self.device),
            image_rotary_emb=self._angles(condition.grid),
            return_dict=False,
        )
        velocity: Tensor = output[0]
        return velocity.float()

    def _clean(
        self, x: Float[Tensor, "n c y x"], velocity: Float[Tensor, "n c y x"], level: Level, condition: DiTCondition
    ) -> Float[Tensor, "n c y x"]:
        return level.signal * x - level.noise * velocity

    def _angles(self, grid: Grid) -> tuple[Tensor, Tensor]:
        """Cosines and sines of each place of the clip, ``[places, channels of a head]``."""
        config, patch = self.outline.transformer, self.outline.patch
        size = grid.rows // patch, grid.columns // patch
        trained = config["sample_height"] // patch, config["sample_width"] // patch
        # The picture is laid into the middle of the trained one, as large as it fits.
        factor = min(whole / side for whole, side in zip(trained, size, strict=True))
        inner = tuple(round(side * factor) for side in size)
        corner = tuple(round((whole - side) / 2) for whole, side in zip(trained, inner, strict=True))
        cos, sin = get_3d_rotary_pos_embed(
            embed_dim=config["attention_head_dim"],
            crops_coords=(corner, tuple(start + side for start, side in zip(corner, inner, strict=True))),
            grid_size=size,
            temporal_size=grid.latent_frames,
            device=self.device,
        )
        return cos, sin

    def _rotary(self, expert: Any, grid: Grid) -> tuple[Tensor, Tensor]:
        """As the network is given them, with words, which are not turned, before the picture's places."""
        cos, sin = self._angles(grid)
        still = cos.new_ones(self.outline.TEXT.length, cos.shape[1])
        whole = torch.cat([still, cos]), torch.cat([still * 0, sin])
        return whole[0][None, :, None], whole[1][None, :, None]

    def _tokens(self, kept: Tensor) -> Float[Tensor, "1 p d"]:
        """Norms put out head by head, ``[1, heads, places, d]``."""
        return kept if kept.ndim == 3 else kept.transpose(1, 2).flatten(2)

    @property
    def _tiles_fit(self) -> bool:
        """At the published sizes; at others what a tile advances by and what is kept of it may be rounded apart."""
        vae, stride = self._vae, self.outline.stride
        sides = (
            (vae.tile_latent_min_height, vae.tile_sample_min_height, vae.tile_overlap_factor_height),
            (vae.tile_latent_min_width, vae.tile_sample_min_width, vae.tile_overlap_factor_width),
        )
        return all(int(cells * (1 - share)) * stride == pixels - int(pixels * share) for cells, pixels, share in sides)

    def _to_latents(self, frames: Float[Tensor, "1 3 f h w"]) -> Float[Tensor, "n c y x"]:
        mode: Tensor = self._vae.encode(frames).latent_dist.mode()[0].transpose(0, 1) * self._vae.config.scaling_factor
        return mode

    def _to_frames(self, x: Float[Tensor, "n c y x"]) -> Float[Tensor, "f 3 h w"]:
        latents = (x / self._vae.config.scaling_factor).transpose(0, 1)[None]
        video: Tensor = self._vae.decode(latents, return_dict=False)[0]
        return video[0].transpose(0, 1)

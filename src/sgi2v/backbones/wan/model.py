"""Wan 2.1 and 2.2 image-to-video: three kinds that differ in how the picture enters and how many networks there are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import PIL.Image
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from jaxtyping import Bool, Float
from torch import Tensor

from sgi2v.backbones.base import ImageEdit, Mode
from sgi2v.backbones.dit.loading import denoiser, image_encoder
from sgi2v.backbones.dit.model import DiTCondition, Networks, VideoTransformer
from sgi2v.backbones.dit.schedules import flow_timestep
from sgi2v.backbones.loading import network
from sgi2v.backbones.wan.outline import WanOutline
from sgi2v.grid import Grid
from sgi2v.step import Level


class Wan(VideoTransformer):
    """Wan (arXiv 2503.20314) from a folder in diffusers' layout: flow matching, ``x0 = x - s v``."""

    outline: WanOutline

    @classmethod
    def of(cls, outline: WanOutline, *, device: torch.device, dtype: torch.dtype, memory: Mode) -> Wan:
        """The model in the outline's folder; FieldError where its weights are not what its configuration says."""
        folder = outline.folder
        names = [part for part in outline.networks if part.startswith("transformer")]
        encoder = processor = None
        if outline.variant == "i2v-14b":
            encoder, processor = image_encoder(folder, dtype)
        networks = Networks(
            experts={name: denoiser(WanTransformer3DModel, outline, name, dtype) for name in names},
            vae=network(AutoencoderKLWan, folder / "vae", torch.float32),
            image_encoder=encoder,
            image_processor=processor,
            device=device,
            dtype=dtype,
        )
        return cls(networks, outline, memory=memory)

    @property
    def _keeps_first(self) -> bool:
        return self.outline.variant == "ti2v-5b"

    def free(self, grid: Grid) -> Bool[Tensor, " n"]:
        """All latent frames; of TI2V all but the first, which is the picture."""
        return torch.arange(grid.latent_frames) > (0 if self._keeps_first else -1)

    def _expert(self, level: Level) -> str:
        boundary = self.outline.boundary
        return "transformer" if boundary is None or flow_timestep(level) >= boundary else "transformer_2"

    def _guidance(self, level: Level) -> float:
        settings = self.settings
        second = self._expert(level) == "transformer_2" and settings.guidance_scale_2 is not None
        return float(settings.guidance_scale_2 if second else settings.guidance_scale)

    def _image(self, image: PIL.Image.Image, grid: Grid, generator: torch.Generator) -> Float[Tensor, "n c y x"]:
        """TI2V: the picture's latents, one frame. Else those of the picture and a grey clip, below their mask."""
        pixels = self._pixels(image)
        if self._keeps_first:
            with self._arranged.using("autoencoder"):
                return self._to_latents(pixels)
        grey = pixels.new_zeros(1, 3, grid.num_frames - 1, grid.height, grid.width)
        with self._arranged.using("autoencoder"):
            latents = self._to_latents(torch.cat([pixels, grey], dim=2))
        mask = latents.new_zeros(len(latents), grid.frame_stride, grid.rows, grid.columns)
        mask[0] = 1
        return torch.cat([mask, latents], dim=1)

    def with_image(self, condition: DiTCondition, edit: ImageEdit, *, both: bool) -> DiTCondition:
        """The condition with edited latents and mask, not for TI2V; see :class:`sgi2v.backbones.base.EditsImage`."""
        assert not self._keeps_first, "the outline's check has seen to it"
        count = condition.grid.frame_stride
        latents, mask = edit(condition.image[:, count:], condition.image[:, :count])
        image = torch.cat([mask, latents], dim=1)
        return replace(condition, image=image, plain=None if both else condition.image)

    def _velocity(
        self, x: Float[Tensor, "n c y x"], level: Level, condition: DiTCondition, text: Tensor
    ) -> Float[Tensor, "n c y x"]:
        told = flow_timestep(level)
        # Filled on the device: a copy from the host would make every pass wait.
        if self._keeps_first:
            seen = torch.cat([condition.image, x[1:]])
            grid, patch = condition.grid, self.outline.patch
            per_frame = (x.shape[2] // patch) * (x.shape[3] // patch)
            times = x.new_full((1, grid.latent_frames * per_frame), told)
            times[:, :per_frame] = 0
        else:
            seen = torch.cat([x, condition.image], dim=1)
            times = x.new_full((1,), told)
        expert = self._networks.experts[self._expert(level)]
        (output,) = expert(
            hidden_states=seen.transpose(0, 1)[None].to(self.dtype),
            timestep=times,
            encoder_hidden_states=text.to(self.dtype),
            encoder_hidden_states_image=condition.embedding,
            return_dict=False,
        )
        velocity: Tensor = output[0].transpose(0, 1)
        return velocity.float()

    def _clean(
        self, x: Float[Tensor, "n c y x"], velocity: Float[Tensor, "n c y x"], level: Level, condition: DiTCondition
    ) -> Float[Tensor, "n c y x"]:
        clean = x - level.noise * velocity
        return torch.cat([condition.image, clean[1:]]) if self._keeps_first else clean

    def _rotary(self, expert: Any, grid: Grid) -> tuple[Tensor, Tensor]:
        like = torch.empty(1, 1, grid.latent_frames, grid.rows, grid.columns, device=self.device)
        cos, sin = expert.rope(like)
        return cos, sin

    def _scale(self) -> tuple[Tensor, Tensor]:
        config: Any = self._vae.config
        mean, std = (torch.tensor(config[name], device=self.device) for name in ("latents_mean", "latents_std"))
        return mean[:, None, None], std[:, None, None]

    @property
    def _vae(self) -> Any:
        return self._networks.vae

    def _to_latents(self, frames: Float[Tensor, "1 3 f h w"]) -> Float[Tensor, "n c y x"]:
        mean, std = self._scale()
        mode: Tensor = self._vae.encode(frames).latent_dist.mode()[0].transpose(0, 1)
        return (mode - mean) / std

    def _to_frames(self, x: Float[Tensor, "n c y x"]) -> Float[Tensor, "f 3 h w"]:
        mean, std = self._scale()
        video: Tensor = self._vae.decode((x * std + mean).transpose(0, 1)[None], return_dict=False)[0]
        return video[0].transpose(0, 1)

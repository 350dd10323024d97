"""LTX-Video: flow matching on few, large cells; the picture is the clip's clean first latent frame."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import PIL.Image
import torch
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from jaxtyping import Bool, Float
from torch import Tensor

from sgi2v.backbones.base import Mode
from sgi2v.backbones.dit.loading import denoiser
from sgi2v.backbones.dit.model import DiTCondition, Networks, VideoTransformer
from sgi2v.backbones.dit.schedules import flow_timestep
from sgi2v.backbones.loading import network
from sgi2v.backbones.ltx.outline import LTXOutline
from sgi2v.grid import Grid
from sgi2v.step import Level


@dataclass(kw_only=True, eq=False)
class LTXNetworks(Networks):
    """Networks, and where their latest run's draws of noise begin."""

    drawn: Tensor | None = None
    """State of the run's generator after the picture was encoded."""


class LTX(VideoTransformer):
    """LTX-Video (arXiv 2501.00103) from a folder in diffusers' layout: flow matching, ``x0 = x - s v``.

    The filling of a text is hidden from the network, so it is left off. Latents of the first frame are a sample of the
    autoencoder's, drawn before the noise, as in diffusers.
    """

    outline: LTXOutline
    _networks: LTXNetworks

    @classmethod
    def of(cls, outline: LTXOutline, *, device: torch.device, dtype: torch.dtype, memory: Mode) -> LTX:
        """The model in the outline's folder; FieldError where its weights are not what its configuration says."""
        networks = LTXNetworks(
            experts={"transformer": denoiser(LTXVideoTransformer3DModel, outline, "transformer", dtype)},
            vae=network(AutoencoderKLLTXVideo, outline.folder / "vae", torch.float32),
            device=device,
            dtype=dtype,
        )
        return cls(networks, outline, memory=memory)

    @property
    def _vae(self) -> Any:
        return self._networks.vae

    def free(self, grid: Grid) -> Bool[Tensor, " n"]:
        """All latent frames but the first, which is the picture."""
        return torch.arange(grid.latent_frames) > 0

    def _image(self, image: PIL.Image.Image, grid: Grid, generator: torch.Generator) -> Float[Tensor, "1 c y x"]:
        with self._arranged.using("autoencoder"):
            latents = self._normalised(self._vae.encode(self._pixels(image)).latent_dist.sample(generator))
        self._networks.drawn = generator.get_state()
        return latents

    def _velocity(
        self, x: Float[Tensor, "n c y x"], level: Level, condition: DiTCondition, text: Tensor
    ) -> Float[Tensor, "n c y x"]:
        expert: Any = self._networks.experts["transformer"]
        seen = torch.cat([condition.image, x[1:]]).movedim(1, -1)
        # Filled on the device: a copy from the host would make every pass wait.
        times = x.new_full((1, seen[..., 0].numel()), flow_timestep(level))
        times[:, : seen[0, ..., 0].numel()] = 0
        (output,) = expert(
            hidden_states=seen.flatten(0, 2)[None].to(self.dtype),
            encoder_hidden_states=text.to(self.dtype),
            encoder_attention_mask=None,
            timestep=times,
            num_frames=len(x),
            height=x.shape[2],
            width=x.shape[3],
            rope_interpolation_scale=self._scale(condition.grid),
            return_dict=False,
        )
        velocity: Tensor = output[0].unflatten(0, seen.shape[:3])
        return velocity.movedim(-1, 1).float()

    def _clean(
        self, x: Float[Tensor, "n c y x"], velocity: Float[Tensor, "n c y x"], level: Level, condition: DiTCondition
    ) -> Float[Tensor, "n c y x"]:
        return torch.cat([condition.image, x[1:] - level.noise * velocity[1:]])

    def _scale(self, grid: Grid) -> tuple[float, int, int]:
        """Seconds of a latent frame and pixels of a cell, by which the network tells how far apart they are."""
        return grid.frame_stride / self.settings.fps, grid.stride, grid.stride

    def _rotary(self, expert: Any, grid: Grid) -> tuple[Tensor, Tensor]:
        like = torch.empty(1, 0, device=self.device)
        size = grid.latent_frames, grid.rows, grid.columns
        heads = expert.config.num_attention_heads
        cos, sin = (part.unflatten(2, (heads, -1)) for part in expert.rope(like, *size, self._scale(grid)))
        return cos, sin

    def _normalised(self, latents: Float[Tensor, "1 c n y x"]) -> Float[Tensor, "n c y x"]:
        mean, deviation = self._statistics()
        normalised: Tensor = (latents[0].transpose(0, 1) - mean) * self._vae.config.scaling_factor / deviation
        return normalised

    def _statistics(self) -> tuple[Tensor, Tensor]:
        mean, deviation = (
            part.to(self.device)[:, None, None] for part in (self._vae.latents_mean, self._vae.latents_std)
        )
        return mean, deviation

    def _to_latents(self, frames: Float[Tensor, "1 3 f h w"]) -> Float[Tensor, "n c y x"]:
        return self._normalised(self._vae.encode(frames).latent_dist.mode())

    def _to_frames(self, x: Float[Tensor, "n c y x"]) -> Float[Tensor, "f 3 h w"]:
        """Autoencoders of 0.9.1 and later clean the last bit of noise themselves: it is mixed in here.

        diffusers draws that noise from the run's generator once the clip is there; here it is the same, unless a method
        has drawn from that generator meanwhile. What some decoders add inside is unseeded there and seeded here.
        """
        mean, deviation = self._statistics()
        latents = (x * deviation / self._vae.config.scaling_factor + mean).transpose(0, 1)[None]
        time = None
        if self._vae.config.timestep_conditioning:
            draws = torch.Generator()
            if self._networks.drawn is not None:
                draws.set_state(self._networks.drawn)
            torch.randn(latents.shape, generator=draws)  # the clip's own noise
            noise = torch.randn(latents.shape, generator=draws).to(latents)
            share = self.settings.decode_noise
            latents = (1 - share) * latents + share * noise
            time = latents.new_full((1,), self.settings.decode_timestep)
        with _seeded(self.device) if any(self._vae.config.decoder_inject_noise) else _seeded(None):
            video: Tensor = self._vae.decode(latents, time, return_dict=False)[0]
        return video[0].transpose(0, 1)


@contextmanager
def _seeded(device: torch.device | None) -> Iterator[None]:
    """Random numbers of that device begin at the same place and go on afterwards as if nothing had been drawn."""
    if device is None:
        yield
        return
    devices = [] if device.type == "cpu" else [device.index or 0]
    named = {"device_type": device.type} if devices else {}
    with torch.random.fork_rng(devices, **named):
        torch.manual_seed(0)
        yield

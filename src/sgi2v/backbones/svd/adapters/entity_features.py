"""Looks of things for DragAnything: features of Stable Diffusion 1.5 of a picture through a little noise (DIFT)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor, nn

from sgi2v.backbones.adapters import Branches
from sgi2v.backbones.loading import network
from sgi2v.errors import FieldError
from sgi2v.signals import Look

STEP: Final = 261
"""The noise's step of a thousand."""
REPEATS: Final = 8
"""Draws of noise over which the features are averaged."""
_BETAS: Final = (0.00085, 0.012)


@dataclass(frozen=True, kw_only=True, eq=False)
class EntityFeatures:
    """The network for looks; its signal is :class:`sgi2v.signals.Look`, and the denoiser stays as it is.

    Source: DIFT (Tang et al. 2023, arXiv 2306.03881), as DragAnything's published demo.py uses it.
    """

    name: str
    sha256: str
    unet: Any
    vae: Any
    prompt: Float[Tensor, "1 t d"]
    """Tokens of the empty prompt."""
    module: nn.Module

    @property
    def kind(self) -> str:
        """Of a controller's ``Uses.adapters``."""
        return "entity-features"

    @classmethod
    def of(cls, unet: Any, vae: Any, prompt: Float[Tensor, "1 t d"], *, name: str, sha256: str = "") -> EntityFeatures:
        """Of loaded networks; the autoencoder's decoder is left behind."""
        module = nn.ModuleList([unet, vae.encoder, vae.quant_conv]).eval().requires_grad_(False)
        return cls(name=name, sha256=sha256, unet=unet, vae=vae, prompt=prompt, module=module)

    @classmethod
    def load(cls, folder: Path, *, name: str, sha256: str) -> EntityFeatures:
        """From a folder in diffusers' layout; its text encoder reads the empty prompt once and is dropped."""
        from transformers import CLIPTextModel, CLIPTokenizer

        unet = network(UNet2DConditionModel, folder / "unet", torch.float32)
        vae = network(AutoencoderKL, folder / "vae", torch.float32)
        encoder = network(CLIPTextModel, folder / "text_encoder", torch.float32)
        try:
            tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise FieldError("adapter", f"{folder / 'tokenizer'} cannot be read", "fetch the model again") from error
        length = tokenizer.model_max_length
        tokens = tokenizer("", padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        with torch.no_grad():
            prompt: Tensor = encoder(tokens.input_ids)[0]
        return cls.of(unet, vae, prompt, name=name, sha256=sha256)

    @contextmanager
    def attach(self, denoiser: nn.Module, signal: object, branches: Branches) -> Iterator[None]:
        """Looks at the signal's picture at once; the denoiser is not touched."""
        if not isinstance(signal, Look):
            raise FieldError("adapter", f"{self.name} is given no picture", "choose controller:drag-anything")
        pixels = torch.from_numpy(np.array(signal.image, dtype=np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
        rows, columns = (size // 2 ** (len(self.vae.config.block_out_channels) - 1) for size in pixels.shape[-2:])
        shape = (REPEATS, self.vae.config.latent_channels, rows, columns)
        draws = [torch.randn(shape, generator=signal.generator) for _ in range(2)]
        signal.seen = self.features(pixels, *draws)
        yield

    @torch.no_grad()
    def features(
        self, pixels: Float[Tensor, "1 3 h w"], encoding: Float[Tensor, "n c y x"], noise: Float[Tensor, "n c y x"]
    ) -> Float[Tensor, "d y x"]:
        """Mean over the draws of what the last block up puts out, of pixels in -1..1.

        Each draw has a sample of the autoencoder's posterior of its own. One at a time, so that memory is no concern.
        """
        weight = self.unet.conv_in.weight
        place = {"device": weight.device, "dtype": weight.dtype}
        posterior = self.vae.encode(pixels.to(**place)).latent_dist
        kept = _alpha_bar(STEP)
        kept_out: list[Tensor] = []
        hook = self.unet.up_blocks[-1].register_forward_hook(lambda *parts: kept_out.append(parts[-1]))
        total: Tensor | None = None
        try:
            for one, other in zip(encoding.to(**place), noise.to(**place), strict=True):
                clean = (posterior.mean + posterior.std * one) * self.vae.config.scaling_factor
                x = kept**0.5 * clean + (1 - kept) ** 0.5 * other
                self.unet(x, STEP, encoder_hidden_states=self.prompt.to(**place))
                found = kept_out.pop()[0].float()
                total = found if total is None else total + found
        finally:
            hook.remove()
        assert total is not None
        return total / len(noise)


def _alpha_bar(step: int) -> float:
    """Share of the signal's variance at a step of Stable Diffusion's schedule (scaled linear)."""
    low, high = (beta**0.5 for beta in _BETAS)
    betas = torch.linspace(low, high, 1000, dtype=torch.float32) ** 2
    return float(torch.cumprod(1 - betas, dim=0)[step])

"""The toy model at work: networks, guidance, features and pictures behind sgi2v's contract for a backbone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import PIL.Image
import safetensors.torch
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from sgi2v.attention import AttentionEdit, attend, first_frame_attention, match_positions, to_maps
from sgi2v.backbones.base import CLEAN, Mode, Outlined, Text
from sgi2v.errors import FieldError
from sgi2v.grid import Grid
from sgi2v.step import Level
from sgi2v.taps import Taps
from toy_motion.network import PATCH, ToyAutoencoder, ToyFlowTransformer, words_of
from toy_motion.outline import WEIGHTS, ToyOutline

if TYPE_CHECKING:
    from sgi2v.backbones.adapters import Adapter


@dataclass(frozen=True, kw_only=True)
class ToyCondition:
    """Everything the network sees beside the noisy latents; encoded once a run."""

    picture: Float[Tensor, "1 c y x"]
    """The picture's latents, float32: the clean first frame."""
    words: Int64[Tensor, " w"]
    negative: Int64[Tensor, " v"]


@dataclass(eq=False)
class Networks:
    """Both networks, frozen; shared by all backbones that differ in settings alone."""

    transformer: ToyFlowTransformer
    vae: ToyAutoencoder
    branches: tuple[bool, ...] = (True,)
    """Branch of guidance that the running pass is: True is the positive prompt's. An adapter may ask."""
    memory: Mode = "fast"


def loaded(outline: ToyOutline, device: torch.device, dtype: torch.dtype) -> Networks:
    """The folder's networks; FieldError where the weights are not what the configuration says."""
    networks = Networks(ToyFlowTransformer(**outline.sizes), ToyAutoencoder(channels=outline.channels))
    for part, network in (("transformer", networks.transformer), ("vae", networks.vae)):
        file = outline.folder / part / WEIGHTS
        try:
            network.load_state_dict(safetensors.torch.load_file(file))
        except (OSError, RuntimeError, safetensors.SafetensorError) as error:
            reason = str(error).strip().splitlines()[0]
            raise FieldError("backbone", f"{file} does not fit its configuration ({reason})") from error
        network.eval().requires_grad_(False).to(device)
    networks.transformer.to(dtype)  # the autoencoder stays in float32: it is small, and its errors are seen
    return networks


class ToyFlow(Outlined):
    """The toy model, loaded. Its first latent frame is the picture itself, which no noise touches."""

    def __init__(self, networks: Networks, outline: ToyOutline, *, device: torch.device, memory: Mode = "fast") -> None:
        """Both networks under the outline's settings."""
        self.outline: ToyOutline = outline
        self._networks, self.device = networks, device
        self.use_memory(memory)
        self.denoiser: nn.Module = networks.transformer

    @property
    def weights_sha256(self) -> str:
        """Hash of both weight files."""
        return self.outline.hash_weights()

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the transformer."""
        return next(self.denoiser.parameters()).dtype

    @property
    def memory(self) -> Mode:
        """The mode last asked for."""
        return self._networks.memory

    def use_memory(self, memory: Mode) -> None:
        """Notes the mode: all are alike for a network of this size."""
        self._networks.memory = memory

    def noise(self, grid: Grid, generator: torch.Generator) -> Float[Tensor, "n c y x"]:
        """Drawn channels first, as video pipelines do, and then turned: the order of draws decides the video."""
        frames, channels, rows, columns = grid.latent_shape
        drawn = torch.randn(channels, frames, rows, columns, generator=generator)
        return drawn.transpose(0, 1).contiguous().to(self.device)

    def free(self, grid: Grid) -> Bool[Tensor, " n"]:
        """All frames but the first, which is the picture."""
        return torch.arange(grid.latent_frames) > 0

    @torch.no_grad()
    def encode(self, image: PIL.Image.Image, text: Text, grid: Grid, generator: torch.Generator) -> ToyCondition:
        """The picture's latents and both texts' words; draws nothing."""
        pixels = torch.from_numpy(np.asarray(image.convert("RGB"), dtype=np.float32) / 127.5 - 1)
        return ToyCondition(
            picture=self._networks.vae.encode(pixels.permute(2, 0, 1)[None].to(self.device)),
            words=words_of(text.prompt).to(self.device),
            negative=words_of(text.negative or self.settings.negative_prompt).to(self.device),
        )

    @torch.no_grad()
    def encode_frames(self, frames: Float[Tensor, "f 3 h w"], grid: Grid) -> Float[Tensor, "n c y x"]:
        """Latents of a whole clip, since each group is told by the one before."""
        return self._networks.vae.encode(frames.to(self.device).float() * 2 - 1)

    def _clean(self, x: Tensor, level: Level, condition: ToyCondition, *prompts: Tensor) -> Float[Tensor, "n c y x"]:
        """``x0 = x - s v`` at the latents the network sees, guided from the second prompt towards the first."""
        seen = torch.cat([condition.picture, x[1:]])
        told = 1000 * level.noise if level.timestep is None else level.timestep
        # Filled on the device: a copy from the host would make every pass wait.
        times = torch.cat([x.new_zeros(1), x.new_full((len(x) - 1,), told)])
        velocities: list[Tensor] = []
        for words in prompts:
            self._networks.branches = (not velocities,)
            velocities.append(self.denoiser(seen.to(self.dtype), times, words).float())
        velocity = velocities[-1] + self.settings.guidance_scale * (velocities[0] - velocities[-1])
        return torch.cat([condition.picture, (seen - level.noise * velocity)[1:]])

    @torch.no_grad()
    def denoise(self, x: Float[Tensor, "n c y x"], level: Level, condition: ToyCondition) -> Float[Tensor, "n c y x"]:
        """Guided ``x0``, whose first frame is the picture."""
        return self._clean(x, level, condition, condition.words, condition.negative)

    def features(
        self, x: Float[Tensor, "n c y x"], level: Level, condition: ToyCondition, layers: Sequence[str]
    ) -> Mapping[str, Float[Tensor, "n d v u"]]:
        """``blocks.<i>:`` first-frame, self, match or output at half the latents' size; or ``x0``. See the contract.

        Queries and keys are read behind their norms, so that both ways of attending are had from one pass.
        """
        tapped = {layer: self._tapped(layer) for layer in layers if layer != CLEAN}
        names = list(dict.fromkeys(name for modules in tapped.values() for name in modules))
        clean = None
        with Taps(self.denoiser, names, early_exit=CLEAN not in layers) as taps:
            clean = self._clean(x, level, condition, condition.words)
        found = {layer: self._maps(layer, [taps[m] for m in modules], x) for layer, modules in tapped.items()}
        if CLEAN in layers:
            assert clean is not None
            found[CLEAN] = clean
        return {layer: found[layer] for layer in layers}

    def _tapped(self, layer: str) -> list[str]:
        """Modules that a feature is made of."""
        block = f"blocks.{self.outline.block_of(layer)}"
        if layer.endswith(":output"):
            return [block]
        parts = ("norm_q", "norm_k") if layer.endswith(":match") else ("norm_q", "norm_k", "to_v")
        return [f"{block}.attn1.{part}" for part in parts]

    def _maps(self, layer: str, kept: Sequence[Tensor], x: Tensor) -> Float[Tensor, "n d v u"]:
        """The feature's maps from what its modules put out, tokens of all frames one after the other."""
        parts = [tokens[0].unflatten(0, (len(x), -1)) for tokens in kept]
        heads = self.outline.sizes["heads"]
        if layer.endswith(":match"):
            return match_positions(parts[0], parts[1], heads, (x.shape[2] // PATCH, x.shape[3] // PATCH))
        if layer.endswith(":first-frame"):
            tokens = first_frame_attention(parts[0], parts[1], parts[2], heads)
        elif layer.endswith(":self"):
            query, key, value = kept
            tokens = attend(query, key, value, heads)[0].unflatten(0, (len(x), -1))
        else:
            tokens = parts[0]
        return to_maps(tokens, x.shape[2] // PATCH, x.shape[3] // PATCH)

    def editing(self, edit: AttentionEdit, grid: Grid) -> NoReturn:
        """Refused: there is one attention over the whole clip, neither within frames nor over time."""
        raise FieldError("controller", "this model mixes frames and places at once: attention cannot be edited")

    @contextmanager
    def adapted(self, adapter: Adapter, signal: object = None) -> Iterator[None]:
        """While open, the adapter takes part in every pass."""
        adapter.module.to(self.device)
        with adapter.attach(self.denoiser, signal, lambda: self._networks.branches):
            yield

    @torch.no_grad()
    def decode(self, x: Float[Tensor, "n c y x"], frames: Sequence[int] | None = None) -> Float[Tensor, "f 3 h w"]:
        """All pictures, or the last of some latent frames', for which all before must be decoded too."""
        wanted = x if frames is None else x[: max(frames) + 1]
        pictures = (self._networks.vae.decode(wanted) / 2 + 0.5).clamp(0, 1)
        if frames is None:
            return pictures
        return pictures[[ToyAutoencoder.FRAMES * frame for frame in frames]]

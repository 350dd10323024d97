"""Stable Video Diffusion, full size or small: any folder in diffusers' layout behind the backbone contract."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import PIL.Image
import torch
from diffusers import (
    AutoencoderKLTemporalDecoder,
    EulerDiscreteScheduler,
    StableVideoDiffusionPipeline,
    UNetSpatioTemporalConditionModel,
)
from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import _resize_with_antialiasing
from jaxtyping import Float
from torch import Tensor, nn
from transformers import CLIPVisionModelWithProjection

from sgi2v.attention import AttentionEdit
from sgi2v.backbones.adapters import Adapter
from sgi2v.backbones.base import CLEAN, Mode, Text
from sgi2v.backbones.loaded import Loaded
from sgi2v.backbones.loading import image_processor, network
from sgi2v.backbones.svd.attention import LeanAttention, edited, self_attentions
from sgi2v.backbones.svd.compiling import any_compiled, check_memory, check_readable, compile_blocks
from sgi2v.backbones.svd.config import CLIP_SIZE, FEATURE_EXTRACTOR
from sgi2v.backbones.svd.decoding import decode_in_slices
from sgi2v.backbones.svd.deep import last_deep_block, without_deep
from sgi2v.backbones.svd.features import feature, tapped
from sgi2v.backbones.svd.memory import arranged
from sgi2v.backbones.svd.outline import SVDOutline
from sgi2v.backbones.svd.parts import Networks, SVDCondition
from sgi2v.checks import choice
from sgi2v.device import has_own_memory
from sgi2v.errors import FieldError
from sgi2v.grid import Grid
from sgi2v.step import Level
from sgi2v.taps import Taps

_FILLS_A_DEVICE = 2**14
"""Latent cells of all frames, above which one pass is taken to keep an accelerator busy."""


class SVD(Loaded):
    """Stable Video Diffusion (Blattmann et al. 2023, arXiv 2311.15127) from a folder in diffusers' layout.

    The networks are frozen and in evaluation mode. Latents stay in float32 between steps; the networks run in
    ``dtype``. One run at a time: hooks sit on the network while features are read.
    """

    _networks: Networks

    def __init__(
        self,
        pipeline: StableVideoDiffusionPipeline,
        outline: SVDOutline,
        *,
        device: torch.device | None = None,
        memory: Mode = "fast",
    ) -> None:
        """Wraps the loaded parts of a pipeline; :func:`sgi2v.load_backbone` is the way to make one.

        ``device`` is where to compute, by default where the denoiser lies.
        """
        self._pipeline = pipeline
        self.outline: SVDOutline = outline
        self.denoiser: nn.Module = pipeline.unet
        for part in (pipeline.unet, pipeline.vae, pipeline.image_encoder):
            part.eval().requires_grad_(False)
        pipeline.unet.set_attn_processor(LeanAttention())
        if self.dtype == torch.float16 and pipeline.vae.config.force_upcast:
            # The autoencoder's encoder overflows in half precision; it runs once, so it stays in float32.
            pipeline.vae.encoder.float()
            pipeline.vae.quant_conv.float()
        place = device or next(pipeline.unet.parameters()).device
        places = arranged(memory, pipeline, place)
        self._networks = Networks(pipeline=pipeline, device=place, arranged=places)

    @classmethod
    def of(
        cls,
        outline: SVDOutline,
        *,
        device: torch.device,
        dtype: torch.dtype,
        memory: Mode,
        compiled: bool = False,
    ) -> "SVD":
        """The model in the outline's folder; FieldError where its weights are not what its configuration says."""
        folder = outline.folder
        if compiled:
            check_memory(memory)
        extractor = folder / FEATURE_EXTRACTOR
        return cls.made_of(
            outline,
            network(UNetSpatioTemporalConditionModel, folder / "unet", dtype),
            network(AutoencoderKLTemporalDecoder, folder / "vae", dtype),
            network(CLIPVisionModelWithProjection, folder / "image_encoder", dtype),
            device=device,
            memory=memory,
            compiled=compiled,
            extractor=extractor.parent if extractor.is_file() else None,
        )

    @classmethod
    def made_of(
        cls, outline: SVDOutline, unet: nn.Module, vae: nn.Module, image_encoder: nn.Module,
        *, device: torch.device, memory: Mode, compiled: bool = False, extractor: Path | None = None,
    ) -> "SVD":  # fmt: skip
        """The model of networks that are loaded; ``extractor`` is a folder that says how CLIP is shown pictures."""
        if compiled:
            check_memory(memory)
        pipeline = StableVideoDiffusionPipeline(
            vae=vae,
            image_encoder=image_encoder,
            unet=unet,
            scheduler=EulerDiscreteScheduler.from_config(dict(outline.scheduler)),
            feature_extractor=image_processor(extractor),
        )
        backbone = cls(pipeline, outline, device=device, memory=memory)
        if compiled:
            compile_blocks(backbone.denoiser)
        return backbone

    def use_memory(self, memory: Mode) -> None:
        """Changes to another mode, between two runs; FieldError for a name that is none, and for low when compiled."""
        choice("memory", memory, Mode)
        if any_compiled(self.denoiser):
            check_memory(memory)
        self._arranged.undo()
        self._networks.arranged = arranged(memory, self._pipeline, self.device)

    @property
    def dtype(self) -> torch.dtype:
        """Number format the denoiser computes in."""
        return next(self.denoiser.parameters()).dtype

    def noise(self, grid: Grid, generator: torch.Generator) -> Float[Tensor, "n c y x"]:
        """Unit noise, drawn in the denoiser's number format and frame by frame, as diffusers' pipeline draws it."""
        drawn = torch.randn(grid.latent_shape, generator=generator, dtype=self.dtype)
        return drawn.float().to(self.device)

    @torch.no_grad()
    def encode(self, image: PIL.Image.Image, text: Text, grid: Grid, generator: torch.Generator) -> SVDCondition:
        """Condition from an image of the grid's size; draws the augmentation noise from ``generator``, in float32.

        The model reads no text.
        """
        shape = (1, 3, grid.height, grid.width)
        return self.encode_with(image, torch.randn(shape, generator=generator), grid)

    @torch.no_grad()
    def encode_with(self, image: PIL.Image.Image, noise: Float[Tensor, "1 3 h w"], grid: Grid) -> SVDCondition:
        """The condition with a given augmentation noise."""
        assert image.size == (grid.width, grid.height), f"image {image.size}, grid {grid}"
        settings, device, dtype = self.settings, self.device, self.dtype
        with self._arranged.using("image encoder"):
            embedding = self._embedding(image)
        pixels = self._pipeline.video_processor.preprocess(image, height=grid.height, width=grid.width)
        pixels = pixels + settings.noise_aug_strength * noise
        ids = [settings.told_fps, settings.motion_bucket_id, settings.noise_aug_strength]
        guidance = torch.linspace(settings.min_guidance_scale, settings.max_guidance_scale, grid.num_frames)
        return SVDCondition(
            image_latents=self._mode(pixels)[0].to(dtype),
            embedding=embedding.to(dtype),
            time_ids=torch.tensor([ids], dtype=dtype, device=device),
            guidance=guidance[:, None, None, None].to(device),
            guided=max(settings.min_guidance_scale, settings.max_guidance_scale) > 1,
            guidance_interval=settings.guidance_interval,
        )

    def _embedding(self, image: PIL.Image.Image) -> Float[Tensor, "1 1 d"]:
        """The image encoder's token; without CLIP's mean and deviation where the settings say so."""
        if self.settings.clip_normalised:
            token: Tensor = self._pipeline._encode_image(image, self.device, 1, False)
            return token
        encoder = self._pipeline.image_encoder
        processor = self._pipeline.video_processor
        pixels = processor.numpy_to_pt(processor.pil_to_numpy(image)) * 2 - 1
        small = (_resize_with_antialiasing(pixels, (CLIP_SIZE, CLIP_SIZE)) + 1) / 2
        token = encoder(small.to(self.device, next(encoder.parameters()).dtype)).image_embeds[:, None]
        return token

    def _mode(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c y x"]:
        vae = self._pipeline.vae
        dtype = next(vae.encoder.parameters()).dtype
        with self._arranged.using("encoder"):
            mode: Tensor = vae.encode(pixels.to(self.device, dtype)).latent_dist.mode()
        return mode

    @torch.no_grad()
    def encode_frames(self, frames: Float[Tensor, "f 3 h w"], grid: Grid) -> Float[Tensor, "n c y x"]:
        """Scaled latents of a clip with values in 0..1, a chunk of frames at a time."""
        latents = [self._mode(chunk * 2 - 1).float() for chunk in frames.split(self.settings.decode_chunk_size)]
        scaling_factor: float = self._pipeline.vae.config.scaling_factor
        return torch.cat(latents) * scaling_factor

    @staticmethod
    def _sigma(x: Tensor, level: Level) -> Tensor:
        # A float32 number on the device, as the scheduler computes with: guided runs amplify a last bit's difference.
        # Filled there, since copying it from the host would make every pass wait.
        return torch.full((), level.noise, dtype=torch.float32, device=x.device)

    def _velocity(
        self,
        x: Float[Tensor, "n c y x"],
        level: Level,
        condition: SVDCondition,
        *,
        branches: tuple[bool, ...] = (True,),
    ) -> Float[Tensor, "b n c y x"]:
        """The network's raw output at ``x``, the v of v-prediction, float32: with the condition (True) or without.

        Several branches go through the network side by side.
        """

        def of(given: Tensor) -> list[Tensor]:
            return [given if conditional else torch.zeros_like(given) for conditional in branches]

        sigma = self._sigma(x, level)
        scaled = (x / (sigma**2 + 1) ** 0.5).to(self.dtype)
        images = of(condition.image_latents.expand(x.shape[0], -1, -1, -1))
        self._networks.branches = branches
        (output,) = self.denoiser(
            torch.stack([torch.cat([scaled, image], dim=1) for image in images]),
            0.25 * sigma.log(),
            encoder_hidden_states=torch.cat(of(condition.embedding)),
            added_time_ids=condition.time_ids.expand(len(branches), -1),
            return_dict=False,
        )
        velocity: Tensor = output
        return velocity.float()

    def _both_at_once(self, x: Tensor) -> bool:
        """True where both branches share a pass: by size, so that a run does not depend on how much memory is free.

        A CPU has enough with one, but for tiny latents; large ones fill a device by themselves; an edit of attention
        sees one branch. An adapter's signal may ask for it.
        """
        if self._networks.num_paired:
            return True
        small = x.shape[0] * x.shape[-2] * x.shape[-1] <= _FILLS_A_DEVICE
        return small and has_own_memory(self.device) and not self._networks.num_edits

    @torch.no_grad()
    def denoise(self, x: Float[Tensor, "n c y x"], level: Level, condition: SVDCondition) -> Float[Tensor, "n c y x"]:
        """Guided ``x0``: v-prediction as in EDM, guidance growing over the frames (SVD, section 4.2).

        Outside ``settings.guidance_interval`` the conditional branch alone (Kynkäänniemi et al., arXiv 2404.07724).
        """
        low, high = condition.guidance_interval
        if condition.guided and low <= level.noise_level <= high:
            passes: list[tuple[bool, ...]] = [(True, False)] if self._both_at_once(x) else [(True,), (False,)]
            given, plain = (v for branches in passes for v in self._velocity(x, level, condition, branches=branches))
            velocity = plain + condition.guidance * (given - plain)
        else:
            (velocity,) = self._velocity(x, level, condition)
        return self._clean(x, velocity, level)

    def _clean(self, x: Tensor, velocity: Tensor, level: Level) -> Tensor:
        """``x0`` of v-prediction (EDM, arXiv 2206.00364, table 1)."""
        sigma = self._sigma(x, level)
        variance = sigma**2 + 1
        return x / variance - velocity * (sigma / variance**0.5)

    def features(
        self,
        x: Float[Tensor, "n c y x"],
        level: Level,
        condition: SVDCondition,
        layers: Sequence[str],
    ) -> Mapping[str, Float[Tensor, "n d v u"]]:
        """Named features of the conditional branch, differentiable in ``x``, each at its own resolution.

        ``<block>:output`` is what the block puts out. For a block with attention (``up_blocks.2.attentions.1``):
        ``:self`` and ``:temporal`` are its attention before the output projection, ``:first-frame`` is the spatial
        one with the first frame's keys and values (SG-I2V, section 4.2), ``:match`` the place of the first frame that
        its queries and those keys say (:func:`sgi2v.attention.match_positions`). ``x0`` is the estimate of the clean
        latents without guidance, of the same pass. The pass ends at the last layer read, with ``x0`` at the network's
        own end.
        Raises FieldError for a name the network does not have.
        """
        plans = {layer: tapped(self.denoiser, layer) for layer in layers if layer != CLEAN}
        names = list(dict.fromkeys(name for modules in plans.values() for name in modules))
        for name in names:
            check_readable(self.denoiser, name)
        deep = self._networks.deep
        clean: dict[str, Tensor] = {}
        reused: AbstractContextManager[None] = nullcontext()
        kept = []
        if deep is not None:
            last = last_deep_block(self.denoiser, names)
            if last in deep:
                reused = without_deep(self.denoiser, last, deep[last])
            else:
                kept = [last]
        with reused, Taps(self.denoiser, [*names, *kept], early_exit=CLEAN not in layers) as taps:
            clean[CLEAN] = self._clean(x, self._velocity(x, level, condition)[0], level)
        if deep is not None:
            deep.update((name, taps[name].detach()) for name in kept)
        read = {
            layer: feature(self.denoiser, layer, [taps[name] for name in modules], *x.shape[-2:])
            for layer, modules in plans.items()
        }
        return {layer: (clean if layer == CLEAN else read)[layer] for layer in layers}

    @contextmanager
    def reusing_deep(self, layers: Sequence[str]) -> Iterator[None]:
        """While open, passes after the first take the deep blocks' output for constant; see :mod:`.deep`.

        FieldError where no block is deeper than the layers.
        """
        last_deep_block(self.denoiser, [n for layer in layers for n in tapped(self.denoiser, layer)])
        before, self._networks.deep = self._networks.deep, {}
        try:
            yield
        finally:
            self._networks.deep = before

    @contextmanager
    def editing(self, edit: AttentionEdit, grid: Grid) -> Iterator[None]:
        """While open, every self-attention of the denoiser, spatial and temporal, goes through ``edit``."""
        with edited(self_attentions(self.denoiser), edit, grid.rows, grid.columns):
            self._networks.num_edits += 1
            try:
                yield
            finally:
                self._networks.num_edits -= 1

    @contextmanager
    def adapted(self, adapter: Adapter, signal: object = None) -> Iterator[None]:
        """While open, the adapter takes part in every pass; its weights are placed at its first use, and stay known."""
        if any_compiled(self.denoiser):
            raise FieldError("compile", f"{adapter.name} changes what lies inside compiled blocks", "leave it out")
        part = f"adapter {id(adapter.module)}"
        self._arranged.add(part, adapter.module.to(self.dtype))
        paired = bool(getattr(signal, "paired", False))
        with (
            self._arranged.using(part),
            adapter.attach(self.denoiser, signal, lambda: self._networks.branches),
        ):
            self._networks.num_paired += paired
            try:
                yield
            finally:
                self._networks.num_paired -= paired

    @torch.no_grad()
    def decode(self, x: Float[Tensor, "n c y x"], frames: Sequence[int] | None = None) -> Float[Tensor, "f 3 h w"]:
        """Frames with values in 0..1, float32, decoded in chunks, the same up to rounding whichever way.

        ``frames``: these alone, as if the clip held no others.
        """
        vae = self._pipeline.vae
        chosen = x if frames is None else x[list(frames)]
        latents = (chosen / vae.config.scaling_factor).to(self.dtype)

        def decoded(chunk: Tensor) -> Tensor:
            # On the host's own memory a slice a time is no slower, and takes a quarter less.
            if self.memory == "low" or not has_own_memory(self.device):
                return decode_in_slices(vae.decoder, chunk).float()
            pictures: Tensor = vae.decode(chunk, num_frames=len(chunk)).sample
            return pictures.float()

        with self._arranged.using("decoder"):
            chunks = [decoded(chunk) for chunk in latents.split(self.settings.decode_chunk_size)]
        return (torch.cat(chunks) / 2 + 0.5).clamp(0, 1)

"""The Stable Video Diffusion in DragNUWA's file: outline, settings as released, networks in diffusers' classes."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from sgi2v.backbones.adapter_files import AdapterFiles, tensors_of
from sgi2v.backbones.base import Mode, Outline
from sgi2v.backbones.svd.adapters.drag_nuwa_names import (
    BLUR,
    CLIP,
    DECODER,
    ENCODER,
    UNET,
    autoencoder_key,
    clip_key,
)
from sgi2v.backbones.svd.adapters.drag_nuwa_shapes import (
    Sizes,
    additions_of,
    brings_model,
    linears,
    published_layer,
    unet_keys,
)  # fmt: skip
from sgi2v.backbones.svd.outline import SVDOutline, SVDSettings
from sgi2v.backbones.weights import forms_in, variant_of
from sgi2v.checks import Bounds
from sgi2v.errors import FieldError
from sgi2v.grid import Grid
from sgi2v.lazy import torch
from sgi2v.records import Json

if TYPE_CHECKING:
    from sgi2v.backbones.svd.adapters.drag_nuwa import DragNUWAAdapter
    from sgi2v.backbones.svd.model import SVD

SCHEDULER: Final[Mapping[str, object]] = MappingProxyType(
    {
        "_class_name": "EulerDiscreteScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "beta_start": 0.00085, "interpolation_type": "linear", "num_train_timesteps": 1000,
        "prediction_type": "v_prediction", "sigma_max": 700.0, "sigma_min": 0.002, "steps_offset": 1,
        "timestep_spacing": "leading", "timestep_type": "continuous", "use_karras_sigmas": True,
        "final_sigmas_type": "zero",
    }
)  # fmt: skip
"""Stable Video Diffusion's: Karras' spacing from 700 to 0.002, rho 7, then 0, as DragNUWA's sampler has it."""
_EPS: Final = 1e-5
"""Of every norm outside attention, as in Stability AI's code; diffusers' classes have 1e-6 in most."""


@dataclass(frozen=True, kw_only=True)
class DragNUWASettings(SVDSettings):
    """Conditions as DragNUWA 1.5 was released with."""

    width: int = 576
    """Width of the picture the model makes unless told otherwise, in pixels."""
    height: int = 320
    """Height of the picture the model makes unless told otherwise, in pixels."""
    num_steps: int = 25
    """Denoising steps unless told otherwise."""
    fps: int = 6
    """Frames per second of the video; the network is told another number."""
    fps_id: int = 4
    """Frames per second that the network is told."""
    motion_bucket_id: int = 4
    """Amount of motion the network is asked for; the release says 4, which its strokes then lead."""
    max_guidance_scale: float = 2.5
    """Classifier-free guidance at the last frame; linear in between."""
    decode_chunk_size: int = 1
    """Frames decoded at a time; the release decodes each by itself."""
    default: str = "drag-nuwa"
    """Name of the controller for whoever names none."""

    BOUNDS: ClassVar[Bounds] = MappingProxyType({"fps_id": (0, 240)})

    @property
    def told_fps(self) -> int:
        """Frames a second that the network is told."""
        return self.fps_id


@dataclass(frozen=True, kw_only=True)
class DragNUWAOutline(SVDOutline):
    """The model in a file of DragNUWA's."""

    files: AdapterFiles

    @classmethod
    def in_file(cls, found: AdapterFiles) -> DragNUWAOutline:
        """Of the file's shapes; FieldError where these do not tell."""
        sizes = Sizes.of(found)
        return cls(
            folder=found.place if found.place.is_dir() else found.place.parent,
            name=found.name,
            settings=DragNUWASettings(recipes={}),
            stride=2 ** (len(sizes.vae) - 1),
            channels=sizes.out_channels,
            scheduler=dict(SCHEDULER),
            unet=_json(sizes.unet_config()),
            files=found,
        )

    def hash_weights(self) -> str:
        """SHA-256 of the file."""
        return self.files.sha256

    def memory_needed(self, grid: Grid, device: torch.device, dtype: torch.dtype) -> Mapping[Mode, int]:
        """As of any Stable Video Diffusion of these sizes."""
        from sgi2v.backbones.svd.memory import Sizes as Counted
        from sgi2v.backbones.svd.memory import memory_needed

        sizes = Sizes.of(self.files)
        with torch.device("meta"):
            made = dict(zip(("unet", "vae", "image_encoder"), sizes.networks(), strict=True))
        counted = Counted(
            weights={part: sum(one.numel() for one in made[part].parameters()) for part in made},
            width=sizes.channels[0], pixel_width=sizes.vae[0], stride=self.stride,
        )  # fmt: skip
        return memory_needed(counted, grid, self.settings.decode_chunk_size, device, dtype)

    def fetched(self, *, half: bool) -> DragNUWAOutline:
        """Itself: its weights are here."""
        return self

    def load(self, *, device: torch.device, dtype: torch.dtype, memory: Mode, compiled: bool = False) -> SVD:
        """The model with its weights, without DragNUWA's additions; FieldError where the file is damaged."""
        from sgi2v.backbones.svd.model import SVD

        tensors = self.files.load()
        networks = _loaded(Sizes.of(self.files), tensors)
        del tensors
        return SVD.made_of(self, *(one.to(dtype) for one in networks), device=device, memory=memory, compiled=compiled)


@dataclass(frozen=True, kw_only=True)
class DragNUWABeside(SVDOutline):
    """A folder's model with those weights of the U-Net in place that DragNUWA has changed."""

    files: AdapterFiles

    @classmethod
    def joining(cls, found: AdapterFiles, beside: Outline) -> DragNUWABeside:
        """The model under the released settings; FieldError for one of another kind or of other widths."""
        sizes = Sizes.of(found)
        widths = beside.unet.get("block_out_channels") if type(beside) is SVDOutline else None
        if not isinstance(beside, SVDOutline) or widths is None or tuple(widths) != sizes.channels:
            raise FieldError(
                "backbone",
                f"{found.place} holds additions to a Stable Video Diffusion of widths {list(sizes.channels)}, not to "
                f"{beside.name}",
                "give the one that it was converted beside",
            )
        fields = {one.name: getattr(beside, one.name) for one in dataclasses.fields(beside)}
        return cls(**{**fields, "settings": DragNUWASettings(recipes={}), "files": found})

    def hash_weights(self) -> str:
        """SHA-256 over the folder's and the file's."""
        return hashlib.sha256(f"{super().hash_weights()} {self.files.sha256}".encode()).hexdigest()

    def fetched(self, *, half: bool) -> DragNUWABeside:
        """With the folder's weights on this machine."""
        return cast(DragNUWABeside, super().fetched(half=half))

    def load(self, *, device: torch.device, dtype: torch.dtype, memory: Mode, compiled: bool = False) -> SVD:
        """The model with the changed weights, without DragNUWA's additions."""
        backbone = super().load(device=device, dtype=dtype, memory=memory, compiled=compiled)
        unet, sizes = backbone.denoiser, Sizes.of(self.files)
        _set_eps(unet)
        keys = {name: key for name, (_, key) in unet_keys(unet, sizes).items()}
        for name, value in self.files.load().items():
            if name in keys:
                unet.get_parameter(keys[name]).data.copy_(value)
        return backbone


def _set_eps(unet: torch.nn.Module) -> None:
    for name, module in unet.named_modules():
        if isinstance(module, torch.nn.GroupNorm) and ".attentions." not in name:
            module.eps = _EPS


def changes_beside(found: AdapterFiles, folder: Path) -> dict[str, torch.Tensor]:
    """The additions in a whole file, and those weights of its U-Net that are others than a folder's.

    Weights are compared in the coarser of the two number formats. FieldError for a file without a model, a folder of
    other networks, or one whose autoencoder or image encoder is another: then the file is needed whole.
    """
    if not brings_model(found):
        raise FieldError("adapter", f"{found.place} brings no model", "give the whole file")
    sizes, tensors = Sizes.of(found), found.load()
    with torch.device("meta"):
        unet = sizes.unet()
    theirs = _folder_tensors(folder, "unet")
    kept = {name: tensors[name] for name in additions_of(unet, sizes)}
    for name, (_, key) in unet_keys(unet, sizes).items():
        if not _same(tensors[name], theirs.get(key)):
            kept[name] = tensors[name]
    _, vae, clip = _loaded(sizes, tensors)
    for part, network in (("vae", vae), ("image_encoder", clip)):
        theirs = _folder_tensors(folder, part)
        for key, value in network.state_dict().items():
            if not key.endswith("position_ids") and not _same(value.to(tensors[f"{DECODER}decoder.conv_in.bias"].dtype),
                                                              theirs.get(key)):  # fmt: skip
                raise FieldError("beside", f"{folder / part} is another than the file's ({key})", "keep the file whole")
    return kept


def _folder_tensors(folder: Path, part: str) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in forms_in(folder, part).get(variant_of(folder, part, "float32") or "", ()):
        found |= tensors_of(file)
    if not found:
        raise FieldError("beside", f"{folder / part} holds no weights", "give a Stable Video Diffusion's folder")
    return found


def _same(ours: torch.Tensor, theirs: torch.Tensor | None) -> bool:
    if theirs is None or ours.shape != theirs.shape:
        return False
    coarser = min(ours.dtype, theirs.dtype, key=lambda one: one.itemsize)
    return torch.equal(ours.to(coarser), theirs.to(coarser))


def _json(config: Mapping[str, object]) -> Json:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in config.items()}


def _loaded(sizes: Sizes, tensors: Mapping[str, torch.Tensor]) -> tuple[Any, Any, Any]:
    """U-Net, autoencoder and image encoder in float32, every weight of theirs taken from the file."""
    # On the meta device a network costs no time to make; the image encoder has a buffer of its own that no file holds.
    with torch.device("meta"):
        unet, vae, _ = sizes.networks()
    clip = sizes.image_encoder()
    unet.load_state_dict({key: tensors[name].float() for name, (_, key) in unet_keys(unet, sizes).items()}, assign=True)
    _set_eps(unet)
    levels = len(sizes.vae)
    for half, prefix in (("encoder", ENCODER), ("decoder", DECODER)):
        part = getattr(vae, half)
        found = {key: tensors[f"{prefix}{half}.{autoencoder_key(key, levels)}"] for key in part.state_dict()}
        shapes = {key: value.shape for key, value in part.state_dict().items()}
        part.load_state_dict({key: value.float().reshape(shapes[key]) for key, value in found.items()}, assign=True)
    vae.quant_conv.load_state_dict(
        {key: tensors[f"{ENCODER}quant_conv.{key}"].float() for key in vae.quant_conv.state_dict()}, assign=True
    )
    state = {}
    for key in clip.state_dict():
        name, part = clip_key(key)
        if key.endswith("position_ids"):
            state[key] = clip.state_dict()[key]
            continue
        value = tensors[CLIP + name].float()
        value = value.chunk(3)["qkv".index(part)] if part else value
        state[key] = value.T.contiguous() if name == "visual.proj" else value
    clip.load_state_dict(state)
    return unet, vae, clip


def load_additions(found: AdapterFiles) -> DragNUWAAdapter:
    """DragNUWA's own layers and low-rank additions from its file.

    FieldError for a file whose blur is not the formula that the maps are made with.
    """
    from sgi2v.backbones.adapters import LowRank
    from sgi2v.backbones.svd.adapters.drag_nuwa import DragNUWAAdapter, flow_shapes

    sizes, tensors = Sizes.of(found), found.load()
    _check_blur(tensors.get(BLUR), found.place)
    with torch.device("meta"):
        unet = sizes.unet()
    pairs = {}
    for layer, _ in linears(unet):
        name = published_layer(layer, sizes)
        pairs[layer] = (
            tensors[f"{name}.lora_down.weight"].float(), tensors[f"{name}.lora_up.weight"].float()
        )  # fmt: skip
    sha256 = found.sha256
    own = {key: tensors[UNET + key] for key in flow_shapes(sizes.channels, sizes.layers)}
    low_rank = LowRank(pairs, name=found.name, sha256=sha256)
    return DragNUWAAdapter.of(own, sizes.channels, sizes.layers, low_rank, name=found.name, sha256=sha256)


def _check_blur(kernel: torch.Tensor | None, place: Path) -> None:
    if kernel is None:
        return
    offsets = torch.arange(kernel.shape[-1], dtype=torch.float64) - kernel.shape[-1] // 2
    line = torch.exp(-offsets.square() / (2 * 20.0**2))
    formula = (line[:, None] * line)[None, None].expand(2, 1, -1, -1)
    if kernel.shape != formula.shape or not torch.allclose(kernel.double(), formula, atol=1e-3):
        raise FieldError("adapter", f"the blur in {place} is not DragNUWA's", "fetch it again")

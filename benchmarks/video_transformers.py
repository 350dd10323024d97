"""Wan, LTX-Video and CogVideoX at full size, counted on the meta device: operations and live tensors by memory mode."""

import dataclasses
import gc
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import torch
import tyro
from diffusers import (
    AutoencoderKLCogVideoX,
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    CogVideoXTransformer3DModel,
    LTXVideoTransformer3DModel,
    WanTransformer3DModel,
)
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from benchmarks.architecture import META
from benchmarks.counting import Count, count
from benchmarks.phases import tracks_over
from sgi2v.backbones.base import MODES, Mode
from sgi2v.backbones.cogvideox.model import CogVideoX
from sgi2v.backbones.cogvideox.outline import CogVideoXOutline, CogVideoXSettings
from sgi2v.backbones.dit.memory import SLACK, Numbers, peaks
from sgi2v.backbones.dit.model import DiTCondition, Networks, VideoTransformer
from sgi2v.backbones.dit.outline import DiTOutline
from sgi2v.backbones.ltx.model import LTX, LTXNetworks
from sgi2v.backbones.ltx.outline import LTXOutline, LTXSettings
from sgi2v.backbones.wan.model import Wan
from sgi2v.backbones.wan.outline import PUBLISHED, WanOutline
from sgi2v.controllers import SGI2V, Setup
from sgi2v.grid import Grid

ROWS: Final = Path(__file__).with_suffix(".json")
"""The counted rows, against which a test holds the memory plan."""
Size = tuple[int, int, int]
"""Width, height, frames."""
_SHIFTED: Mapping[str, Any] = MappingProxyType(
    {
        "_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True, "base_shift": 0.95,
        "max_shift": 2.05, "base_image_seq_len": 1024, "max_image_seq_len": 4096, "shift_terminal": 0.1,
    }
)  # fmt: skip
_DDIM: Mapping[str, Any] = MappingProxyType(
    {
        "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000,
        "rescale_betas_zero_snr": True, "snr_shift_scale": 1.0,
    }
)  # fmt: skip
_IMAGE_ENCODER: Mapping[str, Any] = MappingProxyType(
    {
        "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16,
        "patch_size": 14, "image_size": 224, "projection_dim": 1024,
    }
)  # fmt: skip
_WAN_14B: Mapping[str, Any] = MappingProxyType(
    {"num_attention_heads": 40, "ffn_dim": 13824, "num_layers": 40, "in_channels": 36, "out_channels": 16}
)


def _unipc(shift: float) -> Mapping[str, Any]:
    return {"_class_name": "UniPCMultistepScheduler", "flow_shift": shift}


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published model: what its configuration says besides the defaults of diffusers' classes, and sizes to count."""

    sizes: Sequence[Size]
    denoiser: Any
    transformer: Mapping[str, Any]
    autoencoder: Any
    vae: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    variant: str = ""
    """Of Wan."""


_WAN_22_VAE: Mapping[str, Any] = MappingProxyType(
    {
        "base_dim": 160, "decoder_base_dim": 256, "z_dim": 48, "in_channels": 12, "out_channels": 12, "patch_size": 2,
        "is_residual": True, "scale_factor_spatial": 16, "latents_mean": [0.0] * 48, "latents_std": [1.0] * 48,
    }
)  # fmt: skip
MODELS: Mapping[str, Published] = MappingProxyType(
    {
        "wan2.2-ti2v-5b": Published(
            sizes=((1280, 704, 121), (832, 480, 81), (640, 384, 49)), variant="ti2v-5b",
            denoiser=WanTransformer3DModel,
            transformer={
                "num_attention_heads": 24, "ffn_dim": 14336, "num_layers": 30, "in_channels": 48, "out_channels": 48,
            },
            autoencoder=AutoencoderKLWan, vae=_WAN_22_VAE, scheduler=_unipc(5.0),
        ),
        "wan2.1-i2v-14b-480p": Published(
            sizes=((832, 480, 81), (512, 288, 33)), variant="i2v-14b",
            denoiser=WanTransformer3DModel,
            transformer={**_WAN_14B, "image_dim": 1280, "added_kv_proj_dim": 5120},
            autoencoder=AutoencoderKLWan, vae={}, scheduler=_unipc(3.0),
        ),
        "wan2.2-i2v-a14b": Published(
            sizes=((832, 480, 81), (640, 384, 49)), variant="a14b", denoiser=WanTransformer3DModel,
            transformer=_WAN_14B, autoencoder=AutoencoderKLWan, vae={}, scheduler=_unipc(3.0),
        ),
        "ltx-video": Published(
            sizes=((832, 480, 81), (704, 512, 161)), denoiser=LTXVideoTransformer3DModel, transformer={},
            autoencoder=AutoencoderKLLTXVideo, vae={}, scheduler=_SHIFTED,
        ),
        "cogvideox-5b-i2v": Published(
            sizes=((720, 480, 49),), denoiser=CogVideoXTransformer3DModel,
            transformer={
                "num_attention_heads": 48, "num_layers": 42, "in_channels": 32, "out_channels": 16,
                "use_rotary_positional_embeddings": True, "use_learned_positional_embeddings": True,
            },
            autoencoder=AutoencoderKLCogVideoX, vae={"scaling_factor": 0.7, "invert_scale_latents": True},
            scheduler=_DDIM,
        ),
    }
)  # fmt: skip


def _whole(made: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with the defaults of its class, as a folder's file holds it."""
    names = inspect.signature(made.__init__).parameters.values()
    defaults = {one.name: one.default for one in names if one.default is not inspect.Parameter.empty}
    whole: dict[str, Any] = json.loads(json.dumps({**defaults, **config}))
    return whole


def outline_at_full_size(name: str) -> DiTOutline:
    """A published model's outline from whole configurations; there is no folder."""
    model = MODELS[name]
    parts: dict[str, Any] = {
        "folder": Path("published"), "name": name, "transformer": _whole(model.denoiser, model.transformer),
        "vae": _whole(model.autoencoder, model.vae), "scheduler": dict(model.scheduler),
    }  # fmt: skip
    if name == "ltx-video":
        return LTXOutline(**parts, settings=LTXSettings())
    if name == "cogvideox-5b-i2v":
        return CogVideoXOutline(**parts, settings=CogVideoXSettings())
    variant: Any = model.variant
    boundary = 900.0 if variant == "a14b" else None
    return WanOutline(**parts, settings=PUBLISHED[variant](), variant=variant, boundary=boundary)


def _denoiser(made: Any, config: Mapping[str, Any]) -> nn.Module:
    """On meta in bfloat16, with what the class keeps in float32 when it is loaded."""
    with META:
        network: nn.Module = made(**config)
    kept = made._keep_in_fp32_modules or ()
    for name, parameter in network.named_parameters():
        if not any(part in name.split(".") for part in kept):
            parameter.data = parameter.data.bfloat16()
    return network


def full_size(name: str) -> VideoTransformer:
    """A published model behind the backbone contract: shapes and number formats only."""
    model, outline = MODELS[name], outline_at_full_size(name)
    with META:
        vae = model.autoencoder(**model.vae)
    names = [part for part in outline.networks if part.startswith("transformer")]
    parts: dict[str, Any] = {
        "experts": {part: _denoiser(model.denoiser, model.transformer) for part in names},
        "vae": vae, "device": META, "dtype": torch.bfloat16,
    }  # fmt: skip
    if isinstance(outline, LTXOutline):
        return LTX(LTXNetworks(**parts), outline)
    if isinstance(outline, CogVideoXOutline):
        return CogVideoX(Networks(**parts), outline)
    if model.variant == "i2v-14b":
        with META:
            parts["image_encoder"] = CLIPVisionModel(CLIPVisionConfig(**_IMAGE_ENCODER)).to(torch.bfloat16)
    return Wan(Networks(**parts), outline)


@dataclass(frozen=True, kw_only=True)
class Row:
    """Counts of one model at one size; bytes are those of live tensors, operations multiplications and additions."""

    model: str
    size: Size
    tokens: int
    numbers: Mapping[str, int]
    """Numbers in the weights of each network."""
    forward: int
    """Operations of a pass; a step with guidance has two."""
    guided: int
    """Operations of a guided iteration to half depth, checkpointed."""
    live: Mapping[str, int]
    """Bytes that each phase adds to the weights."""
    peak: Mapping[Mode, int]
    """Bytes of a whole guided run in each memory mode, weights included."""


@dataclass(kw_only=True)
class Subject:
    """A model at a size, with everything that a guided run asks of it."""

    backbone: VideoTransformer
    grid: Grid

    def __post_init__(self) -> None:
        backbone, grid = self.backbone, self.grid
        self.tracks = tracks_over(grid, 0.4, 2)
        depth = backbone.outline.num_blocks // 2
        self.controller = SGI2V(layers=(f"{backbone.outline.BLOCKS}.{depth}:first-frame",))
        self.levels = backbone.levels(50, grid)
        self.x = torch.empty(grid.latent_shape, device=META)
        text = torch.empty(1, backbone.outline.TEXT.length, 4096, dtype=torch.bfloat16, device=META)
        embedded = isinstance(backbone, Wan) and backbone.outline.variant == "i2v-14b"
        self.condition = DiTCondition(
            text=text, negative=text.clone(), image=self._picture(), grid=grid,
            embedding=torch.empty(1, 257, 1280, dtype=torch.bfloat16, device=META) if embedded else None,
        )  # fmt: skip
        self.state = self.controller.prepare(
            Setup(
                backbone=backbone, condition=self.condition, tracks=self.tracks, grid=grid, levels=self.levels,
                generator=torch.Generator(),
            )
        )  # fmt: skip

    @torch.no_grad()
    def _picture(self) -> Tensor:
        return self.backbone._image(self.tracks.image, self.grid, torch.Generator())

    @property
    def phases(self) -> Mapping[str, Callable[[], object]]:
        """Everything that a guided run does once or again."""
        clip = torch.empty(self.grid.num_frames, 3, self.grid.height, self.grid.width, device=META)
        return {
            "encode the picture": self._picture,
            "encode a clip": lambda: self.backbone.encode_frames(clip, self.grid),
            "step": lambda: self.backbone.denoise(self.x, self.levels[2], self.condition),
            "guided": lambda: self.controller.loss_and_gradient(self.x, self.levels[2], self.state),
            "decode": lambda: self.backbone.decode(self.x),
        }

    def counts(self, mode: Mode, *phases: str) -> Mapping[str, Count]:
        """Cost of some phases in a memory mode."""
        self.backbone.use_memory(mode)
        arranged = self.backbone._arranged
        found = {}
        for name in phases:
            gc.collect()
            self.backbone._arranged.hold(self.backbone._expert(self.levels[2]))
            held = [*arranged.staying, self.x, self.condition.image, self.condition.text]
            if arranged._held:
                held += [*self.backbone.experts[arranged._held].parameters()]
            found[name] = count(self.phases[name], held, device=META)
        return found


def count_row(backbone: VideoTransformer, size: Size) -> Row:
    """Counts of a model at one size, in all memory modes."""
    grid = backbone.grid(*size)
    subject = Subject(backbone=backbone, grid=grid)
    fast = subject.counts("fast", *subject.phases)
    balanced = subject.counts("balanced", "step", "guided")
    low = dict(subject.counts("low", "step", "guided"))
    networks = {**backbone.experts, "vae": backbone._networks.vae}
    visiting = sum(parameter.nbytes for parameter in networks["vae"].parameters())
    # What the autoencoder does is the same in every mode, but that its weights come for it.
    once = {name: fast[name].added + visiting for name in fast if name not in balanced}
    for name in ("decode", "encode a clip"):
        # Tiles take many passes to count, and are no more than the whole: left out where something else is more.
        if low["guided"].held + once[name] > _peak(low):
            low |= subject.counts("low", name)
            del once[name]
    backbone.use_memory("fast")
    if backbone._networks.image_encoder is not None:
        networks["image_encoder"] = backbone._networks.image_encoder
    whole = {name: fast[name].added + visiting for name in fast if name not in balanced}
    return Row(
        model=backbone.name,
        size=size,
        tokens=backbone.outline.num_tokens(grid),
        numbers={name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()},
        forward=fast["step"].flop // 2,
        guided=balanced["guided"].flop,
        live={
            **{name: phase.added for name, phase in fast.items()},
            "guided, checkpointed": balanced["guided"].added,
            **{f"{name}, low": phase.added for name, phase in low.items()},
        },
        peak={
            "fast": max(phase.total for phase in fast.values()),
            "balanced": max(_peak(balanced), balanced["guided"].held + max(whole.values())),
            "low": max(_peak(low), low["guided"].held + max(once.values())),
        },
    )


def _peak(counts: Mapping[str, Count]) -> int:
    return max(phase.total for phase in counts.values())


def planned(row: Row) -> Mapping[Mode, int]:
    """Bytes that the memory plan expects of the same weights at the same size."""
    outline = outline_at_full_size(row.model)
    numbers = Numbers(
        experts={name: n * 2 for name, n in row.numbers.items() if name.startswith("transformer")},
        others={name: n for name, n in row.numbers.items() if not name.startswith("transformer")},
    )
    return peaks(outline, numbers, outline.grid(*row.size), META, torch.bfloat16)


def table(rows: Sequence[Row]) -> str:
    """Counts and, in brackets, what the memory plan expects (without its tenth for an allocator), in GB."""
    lines = [
        "| model | size | tokens | TFLOP of a pass | of a guided iteration | live: step | guided | and checkpointed "
        "| decode | encode a clip | `fast` | `balanced` | `low` |",
        "|---" * 13 + "|",
    ]
    for row in rows:
        plan = planned(row)
        width, height, num_frames = row.size
        live = [row.live[name] for name in ("step", "guided", "guided, checkpointed", "decode", "encode a clip")]
        peak = [f"{row.peak[mode] / 1e9:.1f} ({plan[mode] / SLACK / 1e9:.1f})" for mode in MODES]
        cells = [row.model, f"{width}×{height}×{num_frames}", f"{row.tokens:,}"]
        cells += [f"{row.forward / 1e12:.1f}", f"{row.guided / 1e12:.1f}", *(f"{one / 1e9:.1f}" for one in live), *peak]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def read_rows(file: Path = ROWS) -> list[Row]:
    """Rows as :func:`main` wrote them."""
    return [Row(**{**row, "size": tuple(row["size"])}) for row in json.loads(file.read_text())]


def main(models: tuple[str, ...] = tuple(MODELS), rows: Path = ROWS) -> None:
    """Count, write the rows as they come, and print the table."""
    found: list[Row] = []
    for name in models:
        backbone = full_size(name)
        for size in MODELS[name].sizes:
            found.append(count_row(backbone, size))
            rows.write_text(json.dumps([dataclasses.asdict(row) for row in found], indent=1))
            print(f"{name} {size}", flush=True)
    print(table(found))


if __name__ == "__main__":
    tyro.cli(main)

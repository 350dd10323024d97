"""DragNUWA's own layers: a pyramid of the flow, modulation of residual blocks by it, low-rank additions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sgi2v.backbones.adapters import Branches, LowRank
from sgi2v.backbones.svd.adapters.drag_nuwa_names import film_blocks
from sgi2v.errors import FieldError
from sgi2v.taps import find_layer

_GROUPS: Final = 8  # of the pyramid's norms; those of the modulation have 32


class TimeConv(nn.Conv1d):
    """A convolution over three frames at every place by itself, the first and last frame repeated outwards."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 3, padding=1, padding_mode="replicate")

    def forward(self, x: Float[Tensor, "f c h w"]) -> Float[Tensor, "f d h w"]:
        """The clip convolved along its frames."""
        _, _, height, width = x.shape
        lines: Tensor = super().forward(x.permute(2, 3, 1, 0).flatten(0, 1))
        return lines.reshape(height, width, *lines.shape[1:]).permute(3, 2, 0, 1)


class Halving(nn.Module):
    """A convolution of stride 2, under the name that the file gives it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Half as many rows and columns."""
        halved: Tensor = self.op(x)
        return halved


class FlowPyramid(nn.Module):
    """Features of the flow maps at the resolution and width of every level of the U-Net."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        first = channels[0]
        layers: list[nn.Module] = []
        for before, after in ((2, first // 4), (first // 4, first // 2), (first // 2, first)):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), TimeConv(after, after)]
            if after != first:
                layers += [nn.GroupNorm(_GROUPS, after), nn.SiLU()]
        self.flow_blocks = nn.ModuleList([nn.Sequential(*layers)])
        for before, after in pairwise(channels):
            self.flow_blocks.append(
                nn.Sequential(
                    nn.GroupNorm(_GROUPS, before), nn.SiLU(), nn.Conv2d(before, after, 3, padding=1),
                    TimeConv(after, after), Halving(after),
                )
            )  # fmt: skip

    def forward(self, flow: Float[Tensor, "f 2 h w"]) -> list[Tensor]:
        """A level's features for each block, from an eighth of the maps' size on."""
        features = []
        for block in self.flow_blocks:
            flow = block(flow)
            features.append(flow)
        return features


class Modulation(nn.Module):
    """Scale and shift of a residual block's first convolution by the flow's features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 4
        self.flow_cond_norm = nn.GroupNorm(32, channels)
        self.flow_gamma_spatial = nn.Conv2d(channels, inner, 3, padding=1)
        self.flow_gamma_temporal = TimeConv(inner, channels)
        self.flow_beta_spatial = nn.Conv2d(channels, inner, 3, padding=1)
        self.flow_beta_temporal = TimeConv(inner, channels)

    def forward(self, feature: Float[Tensor, "f c y x"]) -> tuple[Tensor, Tensor]:
        """Scale and shift; at a flow of zero the biases still act."""
        gamma: Tensor = self.flow_gamma_temporal(self.flow_gamma_spatial(feature))
        beta: Tensor = self.flow_beta_temporal(self.flow_beta_spatial(feature))
        return gamma, beta


def _module(channels: Sequence[int], layers: int) -> tuple[FlowPyramid, dict[str, Modulation]]:
    blocks = film_blocks(len(channels), layers)
    return FlowPyramid(channels), {block: Modulation(channels[level]) for block, (_, level) in blocks.items()}


def flow_shapes(channels: Sequence[int], layers: int) -> dict[str, tuple[int, ...]]:
    """Keys of all that is not low-rank, as the file names them behind its prefix, with their shapes."""
    with torch.device("meta"):
        pyramid, modulations = _module(channels, layers)
    shapes = {key: tuple(tensor.shape) for key, tensor in pyramid.state_dict().items()}
    for block, (name, _) in film_blocks(len(channels), layers).items():
        shapes |= {f"{name}.{key}": tuple(value.shape) for key, value in modulations[block].state_dict().items()}
    return shapes


@dataclass(frozen=True, kw_only=True, eq=False)
class DragNUWAAdapter:
    """DragNUWA's additions to a Stable Video Diffusion; its signal is ``[frames, 2, height, width]``, blurred strokes.

    Source: Yin et al. 2023, arXiv 2308.08089, and the published weights of version 1.5.
    """

    name: str
    sha256: str
    pyramid: FlowPyramid
    modulations: Mapping[str, Modulation]
    """Residual block -> its modulation."""
    low_rank: LowRank | None
    module: nn.Module
    """All weights, frozen."""

    @property
    def kind(self) -> str:
        """Of a controller's ``Uses.adapters``."""
        return "drag-nuwa"

    @classmethod
    def of(
        cls, tensors: Mapping[str, Tensor], channels: Sequence[int], layers: int, low_rank: LowRank | None,
        *, name: str, sha256: str,
    ) -> DragNUWAAdapter:  # fmt: skip
        """From the tensors that :func:`flow_shapes` names, all of them there."""
        with torch.device("meta"):
            pyramid, modulations = _module(channels, layers)
        pyramid.load_state_dict({key: tensors[key].float() for key in pyramid.state_dict()}, assign=True)
        for block, (place, _) in film_blocks(len(channels), layers).items():
            made = modulations[block]
            own = {key: tensors[f"{place}.{key}"].float() for key in made.state_dict()}
            made.load_state_dict(own, assign=True)
        parts = [pyramid, *modulations.values()] + ([] if low_rank is None else [low_rank.module])
        module = nn.ModuleList(parts).eval().requires_grad_(False)
        return cls(name=name, sha256=sha256, pyramid=pyramid, modulations=modulations, low_rank=low_rank, module=module)

    @contextmanager
    def attach(self, denoiser: nn.Module, signal: object, branches: Branches) -> Iterator[None]:
        """See :class:`sgi2v.backbones.adapters.Adapter`; both branches of guidance are given the same flow."""
        if not isinstance(signal, Tensor) or signal.ndim != 4 or signal.shape[1] != 2:
            raise FieldError("adapter", f"{self.name} is given no flow", "choose controller:drag-nuwa")
        weight = next(self.pyramid.parameters())
        with torch.no_grad():
            features = self.pyramid(signal.to(weight.device, weight.dtype))
        levels = film_blocks(len(features), 2)
        with ExitStack() as hooks:
            if self.low_rank is not None:
                hooks.enter_context(self.low_rank.attach(denoiser, None, branches))
            for block, modulation in self.modulations.items():
                convolution = find_layer(denoiser, f"{block}.spatial_res_block.conv1")
                width = modulation.flow_cond_norm.num_channels
                if getattr(convolution, "out_channels", None) != width:
                    raise FieldError("adapter", f"{self.name} is made for {block} of {width} channels")
                with torch.no_grad():
                    gamma, beta = modulation(features[levels[block][1]])

                def modulate(
                    _module: nn.Module, _inputs: tuple[Tensor], h: Tensor,
                    norm: nn.Module = modulation.flow_cond_norm, gamma: Tensor = gamma, beta: Tensor = beta,
                ) -> Tensor:  # fmt: skip
                    passes = h.shape[0] // gamma.shape[0]
                    scale, shift = (one.repeat(passes, 1, 1, 1).to(h.dtype) for one in (gamma, beta))
                    normed: Tensor = norm(h)
                    return h + normed * scale + shift

                hooks.callback(convolution.register_forward_hook(modulate).remove)
            yield

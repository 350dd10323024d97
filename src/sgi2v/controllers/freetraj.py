"""FreeTraj: noise laid along the path, attention kept to whoever shares a box (arXiv 2406.16863), for images."""

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from sgi2v.attention import AttentionCall, attend
from sgi2v.backbones.base import Backbone, Level
from sgi2v.checks import choice
from sgi2v.controllers.base import Controller, reading
from sgi2v.grid import Grid, Tracks
from sgi2v.spectrum import low_pass_3d, merge_frequencies_3d
from sgi2v.step import Step
from sgi2v.taps import find_layer

Position = Literal["share", "sigma", "noise-level", "step"]
_PLACES_AT_ONCE = 2048  # of a map, when attention over time is written out: bounds what that takes


@dataclass(frozen=True, kw_only=True)
class FreeTraj(Controller):
    """FreeTraj, adapted from text-to-video to image-to-video; every part can be turned off by itself.

    Noise: one patch per box is copied along its path, and the low frequencies of that are merged with the high ones of
    independent noise. Attention: early on, places inside a box hardly see those outside it, within a frame and over
    time. No gradients: the cost is that of plain sampling. Source: FreeTraj (Qiu et al. 2024, arXiv 2406.16863).
    """

    where: ClassVar[str] = "guided"

    inject_noise: bool = True
    """Copy one patch of noise per box along its path into every frame's noise."""
    merge_noise: bool = True
    """Lay the patches into noise of their own and take only its low frequencies, the high ones from the run's noise;
    off: the patches go into the run's noise as they are."""
    spatial_cutoff: float = 0.25
    """Where the injected noise's low frequencies end over height and width, as a share of Nyquist."""
    temporal_cutoff: float = 0.1
    """Where they end over time, as a share of Nyquist; with 14 frames little more than the mean over time remains."""
    filter_order: int = 4
    """Order of the Butterworth filter that separates them."""
    keep_variance: bool = False
    """Rescale the merged noise to unit variance in every frequency; the published method does not."""
    edit_spatial: bool = True
    """Change attention within a frame."""
    edit_temporal: bool = True
    """Change attention over time."""
    factor: float = 0.01
    """What attention logits are multiplied by where one is inside a box and the other is not (1: no change)."""
    guided: tuple[float, float] = (0.0, 0.11)
    """Where in the denoising attention is changed, lowest and highest value, both included, in the unit of guided_as.
    The default is the first 6 of 50 steps."""
    guided_as: Position = "share"
    """Unit of guided: share (steps done, 0 to 1, 0 at pure noise), sigma (noise to signal ratio), noise-level
    (s = noise / (signal + noise), alike for every model), or step (steps still to go: num_steps at pure noise)."""
    layers: tuple[str, ...] = ()
    """Blocks whose attention is changed, by the start of their names, such as up_blocks.2; none given: all."""

    def __post_init__(self) -> None:
        low, high = self.guided
        if not low <= high:
            raise ValueError(f"controller.guided: the lowest value comes first, got {low:g} {high:g}")
        for name, smallest in (
            ("spatial_cutoff", 0),
            ("temporal_cutoff", 0),
            ("filter_order", 1),
            ("factor", 0),
        ):
            value = getattr(self, name)
            if not smallest <= value < math.inf:
                raise ValueError(f"controller.{name}: must be a finite number >= {smallest}, got {value}")
        choice("controller.guided_as", self.guided_as, Position)

    @property
    def edits(self) -> bool:
        """Whether attention is changed at all."""
        return (self.edit_spatial or self.edit_temporal) and self.factor != 1

    def _guides(self, level: Level, index: int, count: int) -> bool:
        clock = self.guided_as
        position = index / count if clock == "share" else reading(clock, level, count - index)
        return self.guided[0] <= position <= self.guided[1]

    def planned_iterations(self, levels: Sequence[Level]) -> Sequence[int]:
        """None at any step; ValueError when attention is to be changed and no step falls inside the guided range."""
        count = len(levels) - 1
        guided = [self._guides(level, k, count) for k, (level, _) in enumerate(pairwise(levels))]
        if self.edits and not any(guided):
            low, high = self.guided
            reached = ", ".join(f"{level.sigma:.3g}" for level in levels[:-1])
            raise ValueError(
                f"controller.guided: no step of {count} falls inside {self.guided_as} {low:g} to {high:g}; "
                f"the steps' sigmas are {reached}"
            )
        return super().planned_iterations(levels)

    def acts(self, levels: Sequence[Level]) -> Sequence[bool]:
        """At the guided steps, unless attention is left as it is."""
        self.planned_iterations(levels)
        count = len(levels) - 1
        return [self.edits and self._guides(level, k, count) for k, (level, _) in enumerate(pairwise(levels))]

    @property
    def changes_noise(self) -> bool:
        """Where it lays patches."""
        return self.inject_noise

    def prepare(self, backbone: Backbone, condition: Any, tracks: Tracks, grid: Grid) -> "FreeTrajState":
        """Whose box each place belongs to, at every size of a map; ValueError for a layer the model does not have."""
        for layer in self.layers:
            find_layer(backbone.denoiser, layer)
        boxes = tracks.boxes([grid.frame(k) for k in range(grid.latent_frames)])
        return FreeTrajState(
            backbone=backbone,
            grid=grid,
            cells=grid.cells(boxes),
            owners=owners_by_size(boxes, grid, backbone.device) if self.edits else {},
        )

    def start(
        self, noise: Float[Tensor, "n c y x"], levels: Sequence[Level], state: "FreeTrajState"
    ) -> tuple[Float[Tensor, "n c y x"], int]:
        """First latents from the noise laid along the paths."""
        return super().start(self.steered_noise(noise, state.cells), levels, state)

    def steered_noise(
        self, noise: Float[Tensor, "n c y x"], cells: Int64[np.ndarray, "b n 4"]
    ) -> Float[Tensor, "n c y x"]:
        """The noise with a patch along every path; what else must be drawn is drawn from a seed made of ``noise``.

        So the same noise always gives the same result. Of the two noises that are merged, ``noise`` gives the high
        frequencies: a cutoff of 0 leaves it as it is, and a run stays near the one without control. ``cells`` as from
        :meth:`~sgi2v.grid.Grid.cells`, per box and latent frame.
        """
        if not (self.inject_noise and len(cells)):
            return noise
        digest = hashlib.sha256(noise.float().cpu().contiguous().numpy().tobytes()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(noise)

        frames, channels, height, width = noise.shape
        sides = [(int((t[:, 2] - t[:, 0]).max()), int((t[:, 3] - t[:, 1]).max())) for t in cells]
        patches = [draw(channels, *size) for size in sides]
        injected = draw(*noise.shape) if self.merge_noise else noise.clone()
        for patch, track in zip(patches, cells, strict=True):
            lay(injected, patch, track)
        if not self.merge_noise:
            return injected
        mask = low_pass_3d(
            frames,
            height,
            width,
            self.spatial_cutoff,
            self.temporal_cutoff,
            order=self.filter_order,
            device=noise.device,
        )
        return merge_frequencies_3d(injected, noise, mask, keep_variance=self.keep_variance)

    def during(self, step: Step, state: "FreeTrajState") -> AbstractContextManager[None]:
        """Attention kept to whoever shares a box, at the guided steps."""
        if not (self.edits and len(state.cells) and self._guides(step.level, step.index, step.count)):
            return nullcontext()

        def edit(call: AttentionCall) -> Tensor | None:
            wanted = self.edit_temporal if call.source == "temporal" else self.edit_spatial
            named = not self.layers or any(f"{call.layer}.".startswith(f"{name}.") for name in self.layers)
            if not (wanted and named):
                return None
            owners = state.owners[call.size]
            return (over_time if call.source == "temporal" else within_frames)(call, owners, self.factor)

        return state.backbone.editing(edit, state.grid)


@dataclass(frozen=True, kw_only=True)
class Owners:
    """Whose box each place of a map lies in, per frame: 0 outside all boxes, else the box's number from 1.

    Where boxes overlap the later one counts. What attention needs of that is made once, so that no pass waits for it.
    """

    of: Int64[Tensor, "f n"]
    """The owner of every place (row by row) in every frame."""
    members: tuple[tuple[tuple[int, Int64[Tensor, " _"]], ...], ...]
    """Per frame: each owner that has a place there, and its places."""
    changing: Int64[Tensor, " t"]
    """Places whose owner is not the same in all frames."""

    @classmethod
    def at(cls, owner: Int64[np.ndarray, "f n"], device: torch.device) -> "Owners":
        """From the owners as an array."""

        def places(found: np.ndarray) -> Tensor:
            return torch.from_numpy(np.flatnonzero(found)).to(device)

        return cls(
            of=torch.from_numpy(owner).to(device),
            members=tuple(tuple((int(g), places(row == g)) for g in np.unique(row)) for row in owner),
            changing=places((owner != owner[:1]).any(axis=0)),
        )


@dataclass(frozen=True, kw_only=True)
class FreeTrajState:
    """What one run of FreeTraj needs besides its hyper-parameters; nothing in it changes while the run goes on."""

    backbone: Backbone
    grid: Grid
    cells: Int64[np.ndarray, "b f 4"]
    """(top, left, bottom, right) per box and latent frame; may lie outside the grid."""
    owners: Mapping[tuple[int, int], Owners]
    """By a map's rows and columns."""


def cut(cell: Int64[np.ndarray, "4"], rows: int, columns: int) -> tuple[slice, slice]:
    """Rows and columns of a box that lie inside a map; empty slices when none does."""
    top, left, bottom, right = (int(v) for v in cell)
    return slice(max(top, 0), max(min(bottom, rows), 0)), slice(max(left, 0), max(min(right, columns), 0))


def lay(
    noise: Float[Tensor, "f c y x"], patch: Float[Tensor, "c h w"], track: Int64[np.ndarray, "f 4"]
) -> None:
    """Writes a patch into every frame's noise where the box is, cut at the picture's borders.

    A box smaller than the patch shows its middle, so that a box that grows keeps what it had.
    """
    for frame, cell in zip(noise, track, strict=True):
        rows, columns = cut(cell, *noise.shape[2:])
        offset = [int(cell[k]) - (patch.shape[1 + k] - int(cell[k + 2] - cell[k])) // 2 for k in range(2)]
        target = frame[:, rows, columns]
        if target.numel():
            top, left = rows.start - offset[0], columns.start - offset[1]
            target.copy_(patch[:, top : top + target.shape[1], left : left + target.shape[2]])


def owners_by_size(
    boxes: Float32[np.ndarray, "b f 4"], grid: Grid, device: torch.device
) -> dict[tuple[int, int], Owners]:
    """Owners at the latents' size and all its halvings (rounded up), boxes put on cells by the grid's own rule."""
    found: dict[tuple[int, int], Owners] = {}
    for power in range(max(grid.rows, grid.columns).bit_length() + 1):
        size = (-(-grid.rows >> power), -(-grid.columns >> power))
        coarse = dataclasses.replace(grid, stride=grid.stride << power)
        owner = np.zeros((boxes.shape[1], *size), dtype=np.int64)
        for number, track in enumerate(coarse.cells(boxes), start=1):
            for frame, cell in zip(owner, track, strict=True):
                frame[cut(cell, *size)] = number
        found[size] = Owners.at(owner.reshape(len(owner), -1), device)
    return found


def within_frames(call: AttentionCall, owners: Owners, factor: float) -> Float[Tensor, "f n d"]:
    """Attention within frames, its logits multiplied by ``factor`` wherever query and key have different owners.

    ``softmax(M * Q K^T / sqrt(d)) V``. All queries of one owner share one row of M, which can be moved onto the keys:
    ``q . (m k) = m (q . k)``. So every owner's queries attend by themselves, to keys scaled for them, and M, one number
    per pair of places, never exists.
    """
    tokens = torch.empty_like(call.query)
    for frame, groups in enumerate(owners.members):
        key, value = call.key[frame : frame + 1], call.value[frame : frame + 1]
        for owner, places in groups:
            scale = torch.where(owners.of[frame] == owner, 1.0, factor).to(key.dtype)
            query = call.query[frame : frame + 1, places]
            tokens[frame, places] = attend(query, key * scale[:, None], value, call.num_heads)[0]
    return tokens


def over_time(call: AttentionCall, owners: Owners, factor: float) -> Float[Tensor, "n f d"]:
    """Attention over time at each place, logits multiplied by ``factor`` between frames where it has different owners.

    Only places that change owner need it; there frames are few, and the frames x frames factors are written out, so
    many places at a time.
    """
    tokens = call.ordinary()
    if tokens.requires_grad:
        tokens = tokens.clone()  # the attention's own backward pass needs what it put out as it was
    for places in owners.changing.split(_PLACES_AT_ONCE):
        query, key, value = (
            t[places].unflatten(-1, (call.num_heads, -1)).transpose(1, 2)
            for t in (call.query, call.key, call.value)
        )
        owner = owners.of[:, places].T
        same = owner[:, None, :, None] == owner[:, None, None, :]
        logits = (query @ key.transpose(-2, -1)).float() / math.sqrt(query.shape[-1])
        weights = (logits * torch.where(same, 1.0, factor)).softmax(dim=-1).to(value.dtype)
        tokens[places] = (weights @ value).transpose(1, 2).flatten(2)
    return tokens

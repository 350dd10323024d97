"""FreeTraj: noise laid along the path, attention kept to whoever shares a box (arXiv 2406.16863), for images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Float32, Int64

from sgi2v.attention import AttentionCall, attend
from sgi2v.checks import LARGEST, Bounds
from sgi2v.controllers.base import Controller, Setup, State
from sgi2v.errors import within
from sgi2v.grid import Grid
from sgi2v.lazy import torch
from sgi2v.planning import Range, Schedule, Uses, check_numbers
from sgi2v.spectrum import low_pass_3d, merge_frequencies_3d
from sgi2v.step import Level, Step

_PLACES_AT_ONCE = 2048  # of a map, when attention over time is written out: bounds what that takes


@dataclass(frozen=True, kw_only=True)
class FreeTraj(Controller["FreeTrajState"]):
    """FreeTraj, adapted from text-to-video to image-to-video; every part can be turned off by itself.

    Noise: one patch per box is copied along its path, and the low frequencies of that are merged with the high ones of
    independent noise. Attention: early on, places inside a box hardly see those outside it, within a frame and over
    time. No gradients: the cost is that of plain sampling. Source: FreeTraj (Qiu et al. 2024, arXiv 2406.16863).
    """

    name: ClassVar[str] = "freetraj"
    where: ClassVar[str] = "guided"

    inject_noise: bool = True
    """Copy one patch of noise per box along its path into every frame's noise."""
    merge_noise: bool = True
    """Lay the patches into noise of their own and take only its low frequencies, the high ones from the run's noise;
    off: the patches go into the run's noise as they are."""
    spatial_cutoff: float = 0.25
    """End of the injected noise's low frequencies over height and width, as a share of Nyquist."""
    temporal_cutoff: float = 0.1
    """Their end over time, as a share of Nyquist; with 14 frames little more than the mean over time remains."""
    filter_order: int = 4
    """Order of the Butterworth filter that separates them."""
    keep_variance: bool = False
    """Rescale the merged noise to unit variance in every frequency; the published method does not."""
    edit_spatial: bool = True
    """Change attention within a frame."""
    edit_temporal: bool = True
    """Change attention over time."""
    factor: float = 0.01
    """Factor of attention logits where one is inside a box and the other is not (1: no change)."""
    guided: Range = field(default_factory=lambda: Range(low=0.0, high=0.11, unit="share"))
    """Steps at which attention is changed: lowest value, highest value (both included) and their unit: share
    (steps done, 0 to 1, 0 at pure noise), sigma (noise to signal ratio), noise-level (s = noise / (signal + noise),
    alike for every model) or step (steps still to go). The default is the first 6 of 50 steps."""
    layers: tuple[str, ...] = ()
    """Blocks whose attention is changed, by the start of their names, such as up_blocks.2; none given: all."""

    BOUNDS: ClassVar[Bounds] = MappingProxyType(
        {"filter_order": (1, 1000), **dict.fromkeys(("spatial_cutoff", "temporal_cutoff", "factor"), (0, LARGEST))}
    )

    def __post_init__(self) -> None:
        check_numbers(self)

    @property
    def edits(self) -> bool:
        """True where attention is changed at all."""
        return (self.edit_spatial or self.edit_temporal) and self.factor != 1

    def uses(self) -> Uses:
        """Motions, and attention in the named blocks where it changes any."""
        by = tuple(name for name in ("edit_spatial", "edit_temporal") if self.edits and getattr(self, name))
        return Uses(blocks=self.layers, edits=self.edits, edited_by=by, motions=True)

    def schedule(self, levels: Sequence[Level]) -> Schedule:
        """The guided steps, unless attention is left as it is; FieldError when no step is guided."""
        plain = Schedule.plain(levels)
        acts = plain.acts
        if self.edits:
            with within("controller.guided"):
                acts = self.guided.steps(levels)
        return Schedule(iterations=plain.iterations, acts=acts, changes_noise=self.inject_noise)

    def prepare(self, setup: Setup) -> FreeTrajState:
        """The region of each place, at every size of a map."""
        boxes = setup.tracks.latent_boxes(setup.grid)
        device = setup.backbone.device
        return FreeTrajState(
            setup=setup,
            acts=self.schedule(setup.levels).acts,
            cells=setup.grid.cells(boxes),
            regions=regions_by_size(boxes, setup.grid, device) if self.edits else {},
        )

    def start(self, noise: Float[torch.Tensor, "n c y x"], state: FreeTrajState) -> Float[torch.Tensor, "n c y x"]:
        """First latents from the noise laid along the paths; frames that the model keeps have no part in it."""
        free = state.setup.backbone.free(state.setup.grid)
        generator = state.setup.generator
        if bool(free.all()):
            return super().start(self.steered_noise(noise, state.cells, generator), state)
        laid = noise.clone()
        laid[free] = self.steered_noise(noise[free], state.cells[:, free.numpy()], generator)
        return super().start(laid, state)

    def steered_noise(
        self,
        noise: Float[torch.Tensor, "n c y x"],
        cells: Int64[np.ndarray, "b n 4"],
        generator: torch.Generator,
    ) -> Float[torch.Tensor, "n c y x"]:
        """The noise with a patch along every path; what else must be drawn is drawn from ``generator``.

        Of the two noises that are merged, ``noise`` gives the high frequencies: a cutoff of 0 leaves it as it is, and
        a run stays near the one without control. ``cells`` as from :meth:`~sgi2v.grid.Grid.cells`, per box and latent
        frame.
        """
        if not (self.inject_noise and len(cells)):
            return noise

        def draw(*shape: int) -> torch.Tensor:
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

    def during(self, step: Step, state: FreeTrajState) -> AbstractContextManager[None]:
        """Attention kept to whoever shares a box, at the guided steps."""
        if not (len(state.cells) and state.acts[step.index]):
            return nullcontext()

        def edit(call: AttentionCall) -> torch.Tensor | None:
            wanted = self.edit_temporal if call.source == "temporal" else self.edit_spatial
            named = not self.layers or any(f"{call.layer}.".startswith(f"{name}.") for name in self.layers)
            if not (wanted and named):
                return None
            regions = state.regions[call.size]
            return (over_time if call.source == "temporal" else within_frames)(call, regions, self.factor)

        return state.setup.backbone.editing(edit, state.setup.grid)


@dataclass(frozen=True, kw_only=True)
class RegionIds:
    """Region of each place of a map, per frame: 0 outside all boxes, else the number of its box from 1.

    Where boxes overlap the later one counts. What attention needs of that is made once, so that no pass waits for it.
    """

    ids: Int64[torch.Tensor, "f n"]
    """The region of every place (row by row) in every frame."""
    members: tuple[tuple[tuple[int, Int64[torch.Tensor, " _"]], ...], ...]
    """Per frame: each region that has a place there, and its places."""
    changing: Int64[torch.Tensor, " t"]
    """Places whose region is not the same in all frames."""

    @classmethod
    def at(cls, ids: Int64[np.ndarray, "f n"], device: torch.device) -> RegionIds:
        """From the ids as an array."""

        def places(found: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(np.flatnonzero(found)).to(device)

        return cls(
            ids=torch.from_numpy(ids).to(device),
            members=tuple(tuple((int(g), places(row == g)) for g in np.unique(row)) for row in ids),
            changing=places((ids != ids[:1]).any(axis=0)),
        )


@dataclass(kw_only=True)
class FreeTrajState(State):
    """Everything one run of FreeTraj needs besides its hyper-parameters; it does not change while the run goes on."""

    acts: tuple[bool, ...]
    """Steps at which attention is changed."""
    cells: Int64[np.ndarray, "b f 4"]
    """(top, left, bottom, right) per box and latent frame; may lie outside the grid."""
    regions: Mapping[tuple[int, int], RegionIds]
    """By a map's rows and columns."""


def cut(cell: Int64[np.ndarray, 4], rows: int, columns: int) -> tuple[slice, slice]:
    """Rows and columns of a box that lie inside a map; empty slices when none does."""
    top, left, bottom, right = (int(v) for v in cell)
    return slice(max(top, 0), max(min(bottom, rows), 0)), slice(max(left, 0), max(min(right, columns), 0))


def lay(
    noise: Float[torch.Tensor, "f c y x"],
    patch: Float[torch.Tensor, "c h w"],
    track: Int64[np.ndarray, "f 4"],
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


def regions_by_size(
    boxes: Float32[np.ndarray, "b f 4"], grid: Grid, device: torch.device
) -> dict[tuple[int, int], RegionIds]:
    """Region ids at the latents' size and all its halvings (rounded up), boxes put on cells by the grid's own rule."""
    found: dict[tuple[int, int], RegionIds] = {}
    for power in range(max(grid.rows, grid.columns).bit_length() + 1):
        size = (-(-grid.rows >> power), -(-grid.columns >> power))
        coarse = dataclasses.replace(grid, stride=grid.stride << power)
        ids = np.zeros((boxes.shape[1], *size), dtype=np.int64)
        for number, track in enumerate(coarse.cells(boxes), start=1):
            for frame, cell in zip(ids, track, strict=True):
                frame[cut(cell, *size)] = number
        found[size] = RegionIds.at(ids.reshape(len(ids), -1), device)
    return found


def within_frames(call: AttentionCall, regions: RegionIds, factor: float) -> Float[torch.Tensor, "f n d"]:
    """Attention within frames, its logits multiplied by ``factor`` wherever query and key lie in different regions.

    ``softmax(M * Q K^T / sqrt(d)) V``. All queries of one region share one row of M, which can be moved onto the keys:
    ``q . (m k) = m (q . k)``. So the queries of each region attend by themselves, to keys scaled for them, and M, one
    number per pair of places, never exists.
    """
    tokens = torch.empty_like(call.query)
    for frame, groups in enumerate(regions.members):
        key, value = call.key[frame : frame + 1], call.value[frame : frame + 1]
        for region, places in groups:
            scale = torch.where(regions.ids[frame] == region, 1.0, factor).to(key.dtype)
            query = call.query[frame : frame + 1, places]
            tokens[frame, places] = attend(query, key * scale[:, None], value, call.num_heads)[0]
    return tokens


def over_time(call: AttentionCall, regions: RegionIds, factor: float) -> Float[torch.Tensor, "n f d"]:
    """Attention over time at each place, logits multiplied by ``factor`` between frames where its region differs.

    Only places that change region need it; there frames are few, and the frames x frames factors are written out, so
    many places at a time.
    """
    tokens = call.ordinary()
    if tokens.requires_grad:
        tokens = tokens.clone()  # the attention's own backward pass needs what it put out as it was
    for places in regions.changing.split(_PLACES_AT_ONCE):
        query, key, value = (
            t[places].unflatten(-1, (call.num_heads, -1)).transpose(1, 2) for t in (call.query, call.key, call.value)
        )
        ids = regions.ids[:, places].T
        same = ids[:, None, :, None] == ids[:, None, None, :]
        logits = (query @ key.transpose(-2, -1)).float() / math.sqrt(query.shape[-1])
        weights = (logits * torch.where(same, 1.0, factor)).softmax(dim=-1).to(value.dtype)
        tokens[places] = (weights @ value).transpose(1, 2).flatten(2)
    return tokens

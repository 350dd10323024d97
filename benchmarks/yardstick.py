"""The published procedure's cost, restated fairly: what SG-I2V's guided step takes when done as its code does it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import AttnProcessor2_0
from jaxtyping import Float
from torch import Tensor

from sgi2v.attention import first_frame_attention, to_maps
from sgi2v.controllers import SGI2V, Controller, Setup, State
from sgi2v.planning import Schedule
from sgi2v.spectrum import low_pass, merge_frequencies
from sgi2v.step import Level, Step
from sgi2v.taps import Taps


@dataclass(frozen=True, kw_only=True)
class Region:
    """A box: its cells in every frame, and what each of its cells weighs there."""

    cells: list[tuple[int, int, int, int]]
    """(top, left, bottom, right) per frame, uncut."""
    weights: list[Float[Tensor, "h w"]]


@dataclass(kw_only=True)
class YardstickState(State):
    """State of a run under the yardstick."""

    regions: list[Region]
    size: tuple[int, int]
    low_pass: Float[Tensor, "y x"]


@dataclass(frozen=True, kw_only=True)
class Yardstick(Controller[YardstickState]):
    """SG-I2V with the arithmetic, casts and loops of its published code, and nothing that it does not need.

    The network is cast to float32 before a guided step and back after it; autocast computes in the run's 16-bit
    format (none in a float32 run) with the same fused attention; every block that can be checkpointed is; a pass ends
    after ``up_blocks.2``; features are upsampled as whole maps; the loss is a Python loop over boxes and frames; a
    float16 gradient is scaled by torch's own scaler, which reads from the device at each iteration whether it
    overflowed. Cells and weights are worked out once, tensors stay on the device, and no operation is there to take
    time: the loss and its gradient are those of :class:`sgi2v.SGI2V`.
    """

    name: ClassVar[str] = "yardstick"

    paper: SGI2V = field(default_factory=SGI2V)
    """The hyper-parameters."""

    def schedule(self, levels: Sequence[Level]) -> Schedule:
        """The schedule of SG-I2V."""
        return self.paper.schedule(levels)

    def prepare(self, setup: Setup) -> YardstickState:
        """Cells and weights of every box, worked out once."""
        backbone, tracks, grid = setup.backbone, setup.tracks, setup.grid
        boxes = grid.cells(tracks.boxes(range(grid.num_frames)))
        regions = []
        for box in boxes:
            cells = [(top, left, bottom, right) for top, left, bottom, right in box.tolist()]
            weights = [self._gaussian(bottom - top, right - left) for top, left, bottom, right in cells]
            regions.append(Region(cells=cells, weights=[w.to(backbone.device) for w in weights]))
        return YardstickState(
            setup=setup,
            regions=regions,
            size=(grid.rows, grid.columns),
            low_pass=low_pass(grid.rows, grid.columns, self.paper.cutoff, device=backbone.device),
        )

    def _gaussian(self, height: int, width: int) -> Float[Tensor, "h w"]:
        def axis(length: int) -> Tensor:
            offset = torch.arange(length, dtype=torch.float64) + 0.5 - length / 2
            return torch.exp(-0.5 * (offset / (self.paper.heatmap_std * length / 2)) ** 2)

        weight = axis(height)[:, None] * axis(width)
        return (weight / weight.max()).float()

    def features(self, x: Float[Tensor, "n c y x"], level: Level, state: YardstickState) -> Tensor:
        """First-frame attention of all layers at the latents' size, side by side."""
        denoiser: Any = state.setup.backbone.denoiser
        condition = state.setup.condition
        blocks = [f"{layer.removesuffix(':first-frame')}.transformer_blocks.0.attn1" for layer in self.paper.layers]
        names = [f"{block}.to_{part}" for block in blocks for part in "qkv"]
        sigma = torch.full((), level.noise, device=x.device)
        image = condition.image_latents.float().expand(x.shape[0], -1, -1, -1)
        with Taps(denoiser, [*names, "up_blocks.2"]) as taps:
            denoiser(
                torch.cat([x / (sigma**2 + 1) ** 0.5, image], dim=1)[None],
                0.25 * sigma.log(),
                encoder_hidden_states=condition.embedding.float(),
                added_time_ids=condition.time_ids.float(),
            )
        maps = []
        for block in blocks:
            query, key, value = (taps[f"{block}.to_{part}"] for part in "qkv")
            heads = denoiser.get_submodule(block).heads
            tokens = first_frame_attention(query, key, value, heads)
            maps.append(F.interpolate(to_maps(tokens, *state.size), size=state.size, mode="bilinear"))
        return torch.cat(maps, dim=1)

    def loss(self, x: Float[Tensor, "n c y x"], level: Level, state: YardstickState) -> Float[Tensor, ""]:
        """The alignment loss at ``x``, a box and a frame at a time."""
        features = self.features(x, level, state).float()
        rows, columns = state.size
        total, weights = features.new_zeros(()), features.new_zeros(())
        for region in state.regions:
            top, left, bottom, right = region.cells[0]
            first = features[0, :, top:bottom, left:right].detach()
            for frame, (cells, gaussian) in enumerate(zip(region.cells, region.weights, strict=True)):
                if frame == 0:
                    continue
                top, left, bottom, right = cells
                target, weight = first, gaussian
                if target.shape[1:] != weight.shape:
                    target = F.interpolate(target[None], size=tuple(weight.shape), mode="bilinear")[0]
                up, down = max(top, 0), min(bottom, rows)
                west, east = max(left, 0), min(right, columns)
                if up >= down or west >= east:
                    continue
                target = target[:, up - top : down - top, west - left : east - left]
                weight = weight[up - top : down - top, west - left : east - left]
                error = (features[frame, :, up:down, west:east] - target).square().mean(dim=0)
                total = total + (error * weight).sum()
                weights = weights + weight.sum()
        return total / weights

    @contextmanager
    def during(self, step: Step, state: YardstickState) -> Iterator[None]:
        """diffusers' own attention processors, which compute attention to the one image token as any other."""
        denoiser: Any = state.setup.backbone.denoiser
        ours = dict(denoiser.attn_processors)
        denoiser.set_attn_processor(AttnProcessor2_0())
        try:
            yield
        finally:
            denoiser.set_attn_processor(ours)

    def steer(self, x: Float[Tensor, "n c y x"], step: Step, state: YardstickState) -> Tensor:
        """Latents after this step's iterations and the frequency merge; ``x`` outside the guided range."""
        if not self.paper.guided.covers(step.level, step.index, step.count):
            return x
        with self.during(step, state):
            return self._steer(x, step, state)

    def _steer(self, x: Tensor, step: Step, state: YardstickState) -> Tensor:
        denoiser: Any = state.setup.backbone.denoiser
        half = state.setup.backbone.dtype
        autocast = (
            nullcontext()
            if half == torch.float32 or x.is_meta
            else torch.autocast(device_type=x.device.type, dtype=half)
        )
        denoiser.to(torch.float32)
        denoiser.enable_gradient_checkpointing()
        try:
            latents = x.detach().clone().requires_grad_(True)
            optimiser = torch.optim.AdamW([latents], lr=self.paper.lr, weight_decay=self.paper.weight_decay)
            scaler = torch.amp.GradScaler(
                x.device.type, init_scale=2.0**16, enabled=half == torch.float16 and not x.is_meta
            )
            for index in range(self.paper.iterations):
                step.reporter.check_cancelled()
                with torch.enable_grad(), autocast:
                    value = self.loss(latents, step.level, state)
                optimiser.zero_grad()
                scaler.scale(value).backward()
                scaler.step(optimiser)
                scaler.update()
                step.reporter.iteration(step, index, self.paper.iterations, value.detach())
        finally:
            denoiser.disable_gradient_checkpointing()
            denoiser.to(half)
        return merge_frequencies(latents.detach(), x, state.low_pass)

"""DragDiffusion (arXiv 2306.14435) on video written literally: one box, one frame, one cell of a patch at a time.

Nothing here is fast and nothing is shared with the package. The image-editing method is run in every frame: a handle
starts at the first box's centre and is dragged to the box's centre in that frame. Latents are
`[1, frames, channels, height, width]`, as diffusers has them; places are (x, y) in pixels of the resized image.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reference.svd import Condition, Models


@dataclass(frozen=True, kw_only=True)
class Drag:
    """Everything that changes the result; the defaults are the published ones where there are any."""

    width: int
    height: int
    block: str = "up_blocks.2"
    iterations: int = 80
    lr: float = 0.01
    cell: float = 2.0
    reach: float = 1.0
    patch_radius: int = 1
    track_radius: int = 3
    arrived: float = 2.0
    pulled_from_first: bool = False
    tracked_in_first: bool = True
    outside_weight: float = 0.1
    per_frame_mask: bool = False


def value_at(maps: Tensor, x: float, y: float, drag: Drag) -> Tensor:
    """Features `[C]` of one frame's `maps` `[C, h, w]` at a place, bilinear between the cells' centres."""
    _, h, w = maps.shape
    u = min(max(x * w / drag.width - 0.5, 0.0), w - 1.0)
    v = min(max(y * h / drag.height - 0.5, 0.0), h - 1.0)
    u0, v0 = math.floor(u), math.floor(v)
    u1, v1 = min(u0 + 1, w - 1), min(v0 + 1, h - 1)
    a, b = u - u0, v - v0
    above = (1 - a) * maps[:, v0, u0] + a * maps[:, v0, u1]
    below = (1 - a) * maps[:, v1, u0] + a * maps[:, v1, u1]
    return (1 - b) * above + b * below


def centre(box: NDArray[np.float32]) -> tuple[float, float]:
    """Middle of a box (left, top, right, bottom)."""
    return float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2


def target_of(box: NDArray[np.float32], drag: Drag) -> tuple[float, float] | None:
    """Where a handle is to go in a frame; None where no part of its box lies in the picture."""
    left, top, right, bottom = (float(side) for side in box)
    if right <= 0 or bottom <= 0 or left >= drag.width or top >= drag.height:
        return None
    x, y = centre(box)
    return min(max(x, 0.0), drag.width), min(max(y, 0.0), drag.height)


def distance(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Euclidean."""
    return math.hypot(a[0] - b[0], a[1] - b[1])


def found_again(maps: Tensor, place: tuple[float, float], known_by: Tensor, drag: Drag) -> tuple[float, float]:
    """The place around the last one whose features are nearest to what the handle is known by."""
    best, nearest = place, math.inf
    for dy in range(-drag.track_radius, drag.track_radius + 1):
        for dx in range(-drag.track_radius, drag.track_radius + 1):
            x, y = place[0] + dx * drag.cell, place[1] + dy * drag.cell
            if not (0 <= x <= drag.width and 0 <= y <= drag.height):
                continue
            far = float((value_at(maps, x, y, drag) - known_by).abs().sum())
            if far < nearest:
                best, nearest = (x, y), far
    return best


def supervision(
    maps: Tensor, reference: Tensor, place: tuple[float, float], origin: tuple[float, float],
    target: tuple[float, float], drag: Drag,
) -> Tensor:  # fmt: skip
    """One handle's loss: its patch ahead in `maps` against its patch at `origin` in `reference`, without gradient."""
    far = distance(place, target)
    length = min(drag.reach * drag.cell, far)
    ahead = [length * (t - p) / far for t, p in zip(target, place, strict=True)]
    loss = torch.zeros(())
    for dy in range(-drag.patch_radius, drag.patch_radius + 1):
        for dx in range(-drag.patch_radius, drag.patch_radius + 1):
            ox, oy = dx * drag.cell, dy * drag.cell
            found = value_at(maps, place[0] + ox + ahead[0], place[1] + oy + ahead[1], drag)
            wanted = value_at(reference.detach(), origin[0] + ox, origin[1] + oy, drag)
            loss = loss + (found - wanted).abs().mean()
    return loss


def held_cells(boxes: NDArray[np.float32], rows: int, columns: int, drag: Drag) -> Tensor:
    """`[frames, rows, columns]`, 1 where the latents shall stay: cells that touch none of the boxes that count."""
    num_frames = boxes.shape[1]
    held = torch.ones(num_frames, rows, columns)
    for j in range(num_frames):
        for box in boxes:
            for k in (0, j) if drag.per_frame_mask else range(num_frames):
                left, top, right, bottom = (float(side) for side in box[k])
                for r in range(rows):
                    for c in range(columns):
                        if 8 * c < right and 8 * c + 8 > left and 8 * r < bottom and 8 * r + 8 > top:
                            held[j, r, c] = 0
    return held


def read(
    models: Models, latents: Tensor, timestep: Tensor, index: int, condition: Condition, block: str
) -> tuple[Tensor, Tensor]:
    """The block's output `[frames, C, h, w]` and the latents at the next step, without guidance."""
    kept: list[Tensor] = []
    hook = models.unet.get_submodule(block).register_forward_hook(lambda _m, _i, output: kept.append(output))
    scaled = models.scheduler.scale_model_input(latents, timestep)
    velocity = models.unet(
        torch.cat([scaled, condition.image_latents], dim=2),
        timestep,
        encoder_hidden_states=condition.embedding,
        added_time_ids=condition.time_ids,
    ).sample
    hook.remove()
    sigma, following = models.scheduler.sigmas[index], models.scheduler.sigmas[index + 1]
    clean = latents / (sigma**2 + 1) - velocity * sigma / (sigma**2 + 1) ** 0.5
    return kept[0], clean + following * (latents - clean) / sigma


def dragged(
    models: Models, latents: Tensor, index: int, condition: Condition, boxes: NDArray[np.float32], drag: Drag
) -> tuple[Tensor, list[float], list[list[tuple[float, float]]]]:
    """Latents after the whole optimisation at step `index`, its losses, and where the handles were found at last."""
    timestep: Any = models.scheduler.timesteps[index]
    models.scheduler._step_index = index
    num_boxes, num_frames = boxes.shape[:2]
    places = [[centre(box[0])] * num_frames for box in boxes]
    targets = [[target_of(box[j], drag) for j in range(num_frames)] for box in boxes]
    z = latents.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([z], lr=drag.lr * math.hypot(1.0, float(models.scheduler.sigmas[index])))
    losses: list[float] = []
    features_before, latents_before = (t.detach() for t in read(models, z, timestep, index, condition, drag.block))
    held = held_cells(boxes, z.shape[-2], z.shape[-1], drag)
    for iteration in range(drag.iterations):
        features, after = read(models, z, timestep, index, condition, drag.block)
        on_the_way, loss = 0, torch.zeros(())
        for n in range(num_boxes):
            start = centre(boxes[n, 0])
            for j in range(num_frames):
                if iteration > 0:
                    known = features_before[0 if drag.tracked_in_first else j]
                    known_by = value_at(known, *start, drag)
                    places[n][j] = found_again(features[j].detach(), places[n][j], known_by, drag)
                place, target = places[n][j], targets[n][j]
                if target is None or distance(place, target) < drag.arrived * drag.cell:
                    continue
                on_the_way += 1
                reference, origin = features[j], place
                if drag.pulled_from_first:
                    reference, origin = features_before[0], start
                loss = loss + supervision(features[j], reference, place, origin, target, drag)
        if not on_the_way:
            break
        for j in range(num_frames):
            for c in range(z.shape[2]):
                change = (after[0, j, c] - latents_before[0, j, c]) * held[j]
                loss = loss + drag.outside_weight * change.abs().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return z.detach(), losses, places

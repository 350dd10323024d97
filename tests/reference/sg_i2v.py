"""SG-I2V (arXiv 2411.04989) written literally: one frame, one box, one cell at a time.

Nothing here is fast and nothing is shared with the package: reading it beside the paper is its purpose. The order
of the functions is the order of the method: boxes, features, loss, frequencies, the guided step, the whole run.
Latents are `[1, frames, channels, height, width]`, as diffusers has them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from reference.svd import Condition, Models, Settings, decode, denoising_step, start

CELL = 8
"""Side of a latent cell in pixels of the resized image."""


@dataclass(kw_only=True)
class Trace:
    """What a run did on its way: filled in by `run`, to be compared step by step."""

    guided: list[int] = field(default_factory=list)
    """Indices of the guided steps."""
    losses: list[list[float]] = field(default_factory=list)
    """Per guided step the loss of each iteration."""
    latents: list[Tensor] = field(default_factory=list)
    """Per guided step the latents after its merge, before the denoising step."""


# ---------------------------------------------------------------- boxes


def boxes_of(traj: NDArray[Any], source_size: tuple[int, int], width: int, height: int) -> NDArray[np.float32]:
    """Boxes `[N, F, 4]` (left, top, right, bottom), pixels of the resized image, of a published `traj.npy`.

    `traj` is `[N, 2 + F, 2]`: corners of the first box, then a centre per frame, (x, y) in source pixels.
    Everything is float32, in this order: scale all points, then first box + (centre_j - centre_0).
    """
    source_width, source_height = (np.float32(side) for side in source_size)
    boxes = np.zeros((traj.shape[0], traj.shape[1] - 2, 4), dtype=np.float32)
    for n in range(traj.shape[0]):
        points = traj[n].astype(np.float32)
        for point in points:
            point[0] = point[0] * np.float32(width) / source_width
            point[1] = point[1] * np.float32(height) / source_height
        top_left, bottom_right, centres = points[0], points[1], points[2:]
        for j in range(len(centres)):
            moved = centres[j] - centres[0]
            boxes[n, j, :2] = top_left + moved
            boxes[n, j, 2:] = bottom_right + moved
    return boxes


def cells_of(box: NDArray[np.float32]) -> tuple[int, int, int, int]:
    """First and one-past-last row and column (top, bottom, left, right) of a box; never empty, not yet cut."""
    x0, y0, x1, y1 = (float(side) for side in box)
    top, left = math.floor(y0 / CELL), math.floor(x0 / CELL)
    bottom, right = max(top + 1, math.floor(y1 / CELL)), max(left + 1, math.floor(x1 / CELL))
    return top, bottom, left, right


# ---------------------------------------------------------------- features


class FirstFrameAttention:
    """An attention processor that computes as always and writes down the first-frame attention beside it.

    The feature of frame j is softmax(Q_j K_0^T / sqrt(d)) V_0 with the first frame's keys and values, detached,
    heads side by side, before the output projection.
    """

    feature: Tensor
    """`[frames, tokens, channels]` of the last call."""

    def __call__(self, attn: Any, hidden_states: Tensor, *unused: Any, **also_unused: Any) -> Tensor:
        """Self-attention over `hidden_states` `[frames, tokens, channels]`."""
        num_frames, num_tokens, _ = hidden_states.shape

        def split(x: Tensor) -> Tensor:
            return x.view(num_frames, num_tokens, attn.heads, -1).transpose(1, 2)

        def join(x: Tensor) -> Tensor:
            return x.transpose(1, 2).flatten(2)

        q, k, v = (
            split(attn.to_q(hidden_states)), split(attn.to_k(hidden_states)), split(attn.to_v(hidden_states))
        )  # fmt: skip
        k_0, v_0 = k[:1].detach(), v[:1].detach()
        of_frames = []
        for j in range(num_frames):
            of_frames.append(join(F.scaled_dot_product_attention(q[j : j + 1], k_0, v_0)))
        self.feature = torch.cat(of_frames)

        ordinary = join(F.scaled_dot_product_attention(q, k, v))
        out: Tensor = attn.to_out[1](attn.to_out[0](ordinary))
        return out


def native_features(
    models: Models, latents: Tensor, timestep: Tensor, condition: Condition, layers: Sequence[str]
) -> list[Tensor]:
    """First-frame attention of each layer, `[frames, channels, h, w]` at the layer's own resolution.

    `layers` are transformers in the up path, such as `up_blocks.2.attentions.1`. One conditional forward pass on
    the scaled latents joined with the image latents; differentiable.
    """
    unet, height, width = models.unet, latents.shape[-2], latents.shape[-1]
    usual = dict(unet.attn_processors)
    readers = {layer: FirstFrameAttention() for layer in layers}
    swapped = dict(usual)
    for layer, reader in readers.items():
        swapped[f"{layer}.transformer_blocks.0.attn1.processor"] = reader
    unet.set_attn_processor(swapped)
    scaled = models.scheduler.scale_model_input(latents, timestep)
    unet(
        torch.cat([scaled, condition.image_latents], dim=2),
        timestep,
        encoder_hidden_states=condition.embedding,
        added_time_ids=condition.time_ids,
    )
    unet.set_attn_processor(usual)

    features = []
    for layer in layers:
        smaller = 2 ** (3 - int(layer.split(".")[1]))
        h, w = math.ceil(height / smaller), math.ceil(width / smaller)
        feature = readers[layer].feature
        features.append(feature.transpose(1, 2).reshape(feature.shape[0], feature.shape[2], h, w))
    return features


def upsampled(features: Sequence[Tensor], height: int, width: int) -> Tensor:
    """All layers bilinearly at the latents' size and side by side: `[frames, channels of all, height, width]`."""
    size = (height, width)
    return torch.cat([F.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in features], dim=1)


# ---------------------------------------------------------------- loss


def gaussian(row: int, column: int, height: int, width: int, heatmap_std: float) -> float:
    """Weight of a cell of a box of `height` x `width` cells, not yet divided by the box's largest."""
    dy, dx = row + 0.5 - height / 2, column + 0.5 - width / 2
    sigma_y, sigma_x = heatmap_std * height / 2, heatmap_std * width / 2
    return math.exp(-(dy**2) / (2 * sigma_y**2) - dx**2 / (2 * sigma_x**2))


def bilinear(crop: Tensor, row: int, column: int, height: int, width: int) -> Tensor:
    """One cell of `crop` `[C, h, w]` resized to `height` x `width` (pixel centres at +0.5, edges repeated)."""
    _, h, w = crop.shape
    y, x = max(0.0, (row + 0.5) * h / height - 0.5), max(0.0, (column + 0.5) * w / width - 0.5)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
    wy, wx = y - y0, x - x0
    above = (1 - wx) * crop[:, y0, x0] + wx * crop[:, y0, x1]
    below = (1 - wx) * crop[:, y1, x0] + wx * crop[:, y1, x1]
    return (1 - wy) * above + wy * below


def alignment_loss(features: Tensor, boxes: NDArray[np.float32], heatmap_std: float) -> Tensor | None:
    """The loss of `features` `[frames, C, H, W]` on `boxes` `[N, frames, 4]`, or None if no cell is left to guide.

    Every cell of every box at every later frame is drawn towards the same place of its box in the first frame.
    """
    num_frames, _, height, width = features.shape
    total, weights = torch.zeros(()), 0.0
    for box in boxes:
        top, bottom, left, right = cells_of(box[0])
        first = features[0, :, top:bottom, left:right].detach()
        for j in range(1, num_frames):
            top, bottom, left, right = cells_of(box[j])
            h, w = bottom - top, right - left
            largest = max(gaussian(r, c, h, w, heatmap_std) for r in range(h) for c in range(w))
            for r in range(h):
                for c in range(w):
                    y, x = top + r, left + c
                    if not (0 <= y < height and 0 <= x < width):
                        continue
                    same_size = first.shape[1:] == (h, w)
                    target = first[:, r, c] if same_size else bilinear(first, r, c, h, w)
                    g = gaussian(r, c, h, w, heatmap_std) / largest
                    total = total + g * ((features[j, :, y, x] - target) ** 2).mean()
                    weights += g
    return total / weights if weights else None


# ---------------------------------------------------------------- frequencies


def low_pass(height: int, width: int, gamma: float) -> Tensor:
    """Butterworth low-pass of order 4, `[height, width]`, the zero frequency in the middle; gamma 0: nothing passes."""
    mask = torch.zeros(height, width)
    if gamma == 0:
        return mask
    for h in range(height):
        for w in range(width):
            d_squared = (2 * h / height - 1) ** 2 + (2 * w / width - 1) ** 2
            mask[h, w] = 1 / (1 + (d_squared / gamma**2) ** 4)
    return mask


def merge(optimised: Tensor, before: Tensor, gamma: float) -> Tensor:
    """Low frequencies of `optimised`, high frequencies of `before`, per frame and channel."""
    merged = torch.empty_like(before)
    mask = low_pass(before.shape[-2], before.shape[-1], gamma)
    for j in range(before.shape[1]):
        for c in range(before.shape[2]):
            low = torch.fft.fftshift(torch.fft.fft2(optimised[0, j, c]))
            high = torch.fft.fftshift(torch.fft.fft2(before[0, j, c]))
            both = mask * low + (1 - mask) * high
            merged[0, j, c] = torch.fft.ifft2(torch.fft.ifftshift(both)).real
    return merged


# ---------------------------------------------------------------- sampling


def guided_step(
    models: Models,
    latents: Tensor,
    timestep: Tensor,
    condition: Condition,
    boxes: NDArray[np.float32],
    settings: Settings,
) -> tuple[Tensor, list[float]]:
    """Latents optimised and merged, and each iteration's loss; latents untouched if nothing is left to guide."""
    z = latents.clone().requires_grad_(True)
    optimizer = torch.optim.AdamW([z], lr=settings.lr, weight_decay=settings.weight_decay)
    losses = []
    for _ in range(settings.iterations):
        native = native_features(models, z, timestep, condition, settings.layers)
        features = upsampled(native, z.shape[-2], z.shape[-1])
        loss = alignment_loss(features, boxes, settings.heatmap_std)
        if loss is None:
            return latents, []
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return merge(z.detach(), latents, settings.gamma), losses


def is_guided(models: Models, index: int, settings: Settings) -> bool:
    """Whether the step `index` (0 is pure noise) is optimised."""
    if settings.remaining is not None:
        return min(settings.remaining) <= settings.num_steps - index <= max(settings.remaining)
    return settings.sigmas[0] <= float(models.scheduler.sigmas[index]) <= settings.sigmas[1]


def run(
    models: Models,
    image: Image.Image,
    boxes: NDArray[np.float32] | None,
    settings: Settings,
    trace: Trace | None = None,
) -> Tensor:
    """A whole run: the resized `image` and `boxes` `[N, F, 4]` in, frames `[F, 3, H, W]` out. No boxes: no control."""
    assert image.size == (settings.width, settings.height)
    assert boxes is None or boxes.shape[1:] == (settings.num_frames, 4)
    condition, latents = start(models, image, settings)
    for index, timestep in enumerate(models.scheduler.timesteps):
        if boxes is not None and is_guided(models, index, settings):
            latents, losses = guided_step(models, latents, timestep, condition, boxes, settings)
            if trace is not None:
                trace.guided.append(index)
                trace.losses.append(losses)
                trace.latents.append(latents)
        latents = denoising_step(models, latents, timestep, condition, settings)
    return decode(models, latents, settings)

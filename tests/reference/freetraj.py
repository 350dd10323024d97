"""FreeTraj written out: masks one number per pair, noise cell by cell; slow, and meant to be read beside the paper."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sgi2v.attention import AttentionCall

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels


def cells_of(box: Box, cell_size: float) -> tuple[int, int, int, int]:
    """(top, left, bottom, right): floor, at least one cell."""
    left, top, right, bottom = (math.floor(v / cell_size) for v in box)
    return top, left, max(bottom, top + 1), max(right, left + 1)


def region_of(boxes: Sequence[Box], row: int, column: int, cell_size: float) -> int:
    """Number, from 1, of the last box that covers the cell; 0 for none."""
    region = 0
    for number, box in enumerate(boxes, start=1):
        top, left, bottom, right = cells_of(box, cell_size)
        if top <= row < bottom and left <= column < right:
            region = number
    return region


def mask_of(one: Sequence[int], other: Sequence[int], factor: float) -> Tensor:
    """1 where both are inside the same box or both outside all, the factor elsewhere."""
    mask = torch.empty(len(one), len(other), dtype=torch.float64)
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            mask[i, j] = 1.0 if a == b else factor
    return mask


def masked_attention(query: Tensor, key: Tensor, value: Tensor, num_heads: int, masks: Tensor) -> Tensor:
    """``softmax(mask * (Q K^T / sqrt d)) V`` in float64, one mask per batch entry."""
    out = torch.zeros_like(query, dtype=torch.float64)
    size = query.shape[-1] // num_heads
    for b in range(query.shape[0]):
        for head in range(num_heads):
            part = slice(head * size, (head + 1) * size)
            q, k, v = (t[b, :, part].double() for t in (query, key, value))
            out[b, :, part] = torch.softmax(masks[b] * (q @ k.T / math.sqrt(size)), dim=-1) @ v
    return out.to(query.dtype)


def edited(call: AttentionCall, paths: Sequence[Sequence[Box]], cell_size: float, factor: float) -> Tensor:
    """The attention of one call under explicit masks; ``paths`` hold a box per frame, ``cell_size`` is the map's."""
    rows, columns = call.size
    places = [(y, x) for y in range(rows) for x in range(columns)]
    num_frames = len(paths[0])
    regions = [[region_of([path[f] for path in paths], y, x, cell_size) for y, x in places] for f in range(num_frames)]
    if call.source == "self":
        masks = [mask_of(regions[f], regions[f], factor) for f in range(num_frames)]
    else:
        over_time = [[regions[f][p] for f in range(num_frames)] for p in range(len(places))]
        masks = [mask_of(line, line, factor) for line in over_time]
    return masked_attention(call.query, call.key, call.value, call.num_heads, torch.stack(masks))


def injected(noise: Tensor, patches: Sequence[Tensor], paths: Sequence[Sequence[Box]], cell_size: float) -> Tensor:
    """Every frame's noise with each box's patch in it, later boxes on top; boxes keep their size in cells."""
    out = noise.clone()
    for patch, path in zip(patches, paths, strict=True):
        for f, box in enumerate(path):
            top, left, bottom, right = cells_of(box, cell_size)
            for y in range(top, bottom):
                for x in range(left, right):
                    if 0 <= y < noise.shape[2] and 0 <= x < noise.shape[3]:
                        out[f, :, y, x] = patch[:, y - top, x - left]
    return out

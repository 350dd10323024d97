"""Measures how well features of a noised clip find the object of its first frame: what control needs at all."""

from collections.abc import Sequence
from typing import Final

import torch
from diffusers import AutoencoderKLTemporalDecoder
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sgi2v.attention import attend, first_frame_attention, to_maps
from sgi2v.taps import Taps
from sgi2v.training.feed import clip_pixels
from sgi2v.world import Clip

_LAYERS: Final = (
    "up_blocks.1.attentions.2",
    "up_blocks.2.attentions.1",
    "up_blocks.2.attentions.2",
    "up_blocks.3.attentions.2",
)
_LEVELS: Final = (0.5, 2.0, 8.0, 24.0)


@torch.no_grad()
def probe(
    models: nn.ModuleDict, autoencoder: AutoencoderKLTemporalDecoder, clips: Sequence[Clip], *, fps: int
) -> dict[str, float]:
    """Mean distance in pixels between thing 0's true centre and where its feature is found, by layer and level.

    Each clip is noised to each level and shown to the network with its first frame as condition. The feature
    (first-frame attention softmax(Q_j K_0^T / sqrt(d)) V_0, or plain self-attention with K_j, V_j) at the object's
    centre in frame 0 is compared by cosine with every place of the later frames; the best place counts. Frames in
    which the object has moved less than its half size are left out. Also "still": the distance when every object is
    taken to stay, which is what a feature that knows places and nothing else reaches.
    """
    unet, image_encoder = models["unet"], models["image_encoder"]
    device, dtype = next(unet.parameters()).device, next(unet.parameters()).dtype
    found: dict[str, list[float]] = {}
    generator = torch.Generator().manual_seed(0)
    parts = {f"{layer}.transformer_blocks.0.attn1": layer.split(".") for layer in _LAYERS}
    names = [f"{attention}.{name}" for attention in parts for name in ("to_q", "to_k", "to_v")]
    for clip in clips:
        height, width = clip.frames.shape[-2:]
        pixels = (2 * clip.frames - 1).to(device, autoencoder.dtype)
        latents = autoencoder.encode(pixels).latent_dist.mode().float()
        clean = latents * autoencoder.config.scaling_factor
        size = (clip.boxes[0, 0, 2:] - clip.boxes[0, 0, :2]).amin() / 2
        moved = (clip.centers[0] - clip.centers[0, :1]).norm(dim=-1)
        frames = [frame for frame in range(1, len(moved)) if moved[frame] > size]
        found.setdefault("still", []).extend(moved[frames].tolist())
        first = clip_pixels(clip.frames[:1].to(device)).to(dtype)
        embedding = image_encoder(first).image_embeds[:, None]
        ids = torch.tensor([[fps - 1, clip.motion_bucket, 0.02]], device=device)
        noise = torch.randn(clean.shape, generator=generator).to(device)
        for level in _LEVELS:
            noised = (clean + level * noise) / (level**2 + 1) ** 0.5
            shown = torch.cat([noised, latents[:1].expand_as(latents)], 1)[None].to(dtype)
            time = 0.25 * torch.tensor([level], device=device).log()
            with Taps(unet, names) as taps:
                unet(shown, time, embedding, ids)
            for attention, block in parts.items():
                heads = unet.get_submodule(attention).heads
                assert isinstance(heads, int)
                q, k, v = (taps[f"{attention}.{name}"].float() for name in ("to_q", "to_k", "to_v"))
                features = {"first": first_frame_attention(q, k, v, heads), "self": attend(q, k, v, heads)}
                for source, tokens in features.items():
                    maps = to_maps(tokens, *latents.shape[-2:])
                    grown = functional.interpolate(maps, (height // 4, width // 4), mode="bilinear").cpu()
                    distances = _distances(grown, clip.centers[0].cpu(), frames, 4)
                    found.setdefault(f"{source} {block[1]}.{block[3]} s{level:g}", []).extend(distances)
    return {name: sum(values) / max(1, len(values)) for name, values in found.items()}


def _distances(
    maps: Float[Tensor, "f c h w"], centers: Float[Tensor, "f 2"], frames: Sequence[int], stride: int
) -> list[float]:
    """Distances in pixels between the centres and the best match to frame 0's feature at its centre."""
    maps = functional.normalize(maps, dim=1)
    x, y = (int(value) for value in (centers[0] / stride).tolist())
    similar = torch.einsum("c,fchw->fhw", maps[0, :, y, x], maps)
    width = similar.shape[-1]
    distances = []
    for frame in frames:
        best = int(similar[frame].argmax())
        at = torch.tensor([(best % width + 0.5) * stride, (best // width + 0.5) * stride])
        distances.append(float((at - centers[frame]).norm()))
    return distances

"""Fidelity of an autoencoder: signal to noise and sharpness on pictures that training never sees."""

import torch
from diffusers import AutoencoderKLTemporalDecoder
from jaxtyping import Float
from torch import Tensor

from sgi2v.evaluation.metrics import bootstrap_mean, psnr
from sgi2v.world import World
from sgi2v.world.pictures import photograph_crops

_CHUNK = 4  # frames decoded at a time, as clips are trained


@torch.no_grad()
def measure_autoencoder(
    model: AutoencoderKLTemporalDecoder, *, num: int = 32, width: int = 128, height: int = 128, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Figures on held-out frames of the rich world, decoded as clips, and on held-out photographs, each by itself.

    "psnr world" and "psnr photographs" in dB, mean of the pictures with its 95 % interval; "sharpness …": how strong
    the differences of neighbouring pixels are over those of the original (1: as sharp; less: blurred).
    """
    radius = (min(width, height) * 0.15, min(width, height) * 0.35)
    world = World(
        width=width, height=height, radius=radius, kind="rich", num_things=2, num_frames=_CHUNK, held_out=True
    )
    clips = world.render(max(1, num // _CHUNK), 7_000_000 + seed).frames
    generator = torch.Generator().manual_seed(seed)
    photographs = photograph_crops(num, height, width, generator, held_out=True)
    return {**_of(model, "world", list(clips)), **_of(model, "photographs", list(photographs[:, None]))}


def _of(model: AutoencoderKLTemporalDecoder, name: str, clips: list[Tensor]) -> dict[str, dict[str, float]]:
    values: list[float] = []
    sharpness: list[float] = []
    for clip in clips:
        decoded = reconstructed(model, clip).cpu()
        values += [psnr(*pair) for pair in zip(decoded, clip, strict=True)]
        sharpness += [roughness(a) / max(roughness(b), 1e-9) for a, b in zip(decoded, clip, strict=True)]
    found = {"psnr": values, "sharpness": sharpness}
    figures = {}
    for figure, each in found.items():
        interval = bootstrap_mean(torch.tensor(each, dtype=torch.float64))
        rounded = (round(v, 3) for v in (interval.value, interval.low, interval.high))
        figures[f"{figure} {name}"] = dict(zip(("value", "low", "high"), rounded, strict=True))
    return figures


@torch.no_grad()
def reconstructed(model: AutoencoderKLTemporalDecoder, clip: Float[Tensor, "f 3 h w"]) -> Float[Tensor, "f 3 h w"]:
    """A clip of RGB in 0..1 through the autoencoder, all its frames decoded at a time."""
    pixels = (2 * clip - 1).to(device=model.device, dtype=model.dtype)
    latents = model.encode(pixels).latent_dist.mode()
    decoded: Tensor = model.decode(latents, num_frames=len(clip)).sample
    return (decoded.float() / 2 + 0.5).clamp(0, 1)


def roughness(frame: Float[Tensor, "3 h w"]) -> float:
    """Mean absolute difference of neighbouring pixels."""
    return float(frame.diff(dim=-1).abs().mean() + frame.diff(dim=-2).abs().mean())

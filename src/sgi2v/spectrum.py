"""Butterworth low-passes and the frequency merges that keep optimised latents sharp and steered noise noise."""

from __future__ import annotations

from jaxtyping import Float

from sgi2v.lazy import torch


def low_pass(
    height: int, width: int, cutoff: float, *, order: int = 4, device: torch.device | str | None = None
) -> Float[torch.Tensor, "{height} {width}"]:
    """Butterworth low-pass ``1 / (1 + (d^2 / cutoff^2)^order)`` on fft-shifted frequencies, values in 0..1.

    ``d^2 = (2 h / H - 1)^2 + (2 w / W - 1)^2``: 0 at the constant component, 1 at an axis' Nyquist frequency.
    A cutoff of 0 is the mask 0 everywhere (the formula is 0/0 at the centre). SG-I2V, section 4.3; FreeInit's filter.
    """
    if cutoff < 0 or order < 1:
        raise ValueError(f"cutoff must be >= 0 and order >= 1; got cutoff {cutoff}, order {order}")
    if cutoff == 0:
        return torch.zeros(height, width, device=device)
    # On the CPU whatever the device: Apple's MPS has no float64.
    y = 2 * torch.arange(height, dtype=torch.float64) / height - 1
    x = 2 * torch.arange(width, dtype=torch.float64) / width - 1
    distance = y[:, None].square() + x[None, :].square()
    mask: torch.Tensor = 1 / (1 + (distance / cutoff**2) ** order)
    return mask.float().to(device)


def merge_frequencies(
    low: Float[torch.Tensor, "*batch h w"],
    high: Float[torch.Tensor, "*batch h w"],
    mask: Float[torch.Tensor, "h w"],
) -> Float[torch.Tensor, "*batch h w"]:
    """Low frequencies of one tensor with the high frequencies of another, per frame and channel over (h, w).

    ``IFFT(mask FFT(low) + (1 - mask) FFT(high))``, the real part; ``mask`` lies on fft-shifted frequencies.
    SG-I2V, equation 4. Merging a tensor with itself gives it back.
    """
    unshifted = torch.fft.ifftshift(mask, dim=(-2, -1))
    # The transform is linear, so only the difference needs one.
    change = torch.fft.fft2((low - high).float())
    kept: torch.Tensor = torch.fft.ifft2(change * unshifted).real
    return high + kept.to(high.dtype)


def with_statistics_of(
    like: Float[torch.Tensor, "n c h w"], x: Float[torch.Tensor, "n c h w"]
) -> Float[torch.Tensor, "n c h w"]:
    """``x`` with the mean and the deviation over (h, w) of ``like``, per frame and channel (AdaIN, arXiv 1703.06868).

    A channel of ``x`` without any deviation gets the mean alone.
    """
    (mean, wanted), (own, deviation) = (
        (t.mean(dim=(-2, -1), keepdim=True), t.std(dim=(-2, -1), correction=0, keepdim=True)) for t in (like, x)
    )
    return mean + (x - own) * (wanted / deviation.clamp(min=1e-12))


def low_pass_3d(
    frames: int,
    height: int,
    width: int,
    spatial_cutoff: float,
    temporal_cutoff: float,
    *,
    order: int = 4,
    device: torch.device | str | None = None,
) -> Float[torch.Tensor, "{frames} {height} {width}"]:
    """Butterworth low-pass over time, height and width on fft-shifted frequencies, values in 0..1.

    ``1 / (1 + (t^2 / temporal^2 + (y^2 + x^2) / spatial^2)^order)``, each frequency 0 at the constant component and 1
    at Nyquist. A cutoff of 0 is the mask 0 everywhere. FreeInit's filter (arXiv 2312.07537), as FreeTraj uses it, but
    for odd sizes, where the published formula misses the constant component by one part of the size: of three frames
    it would not even pass the mean.
    """
    if spatial_cutoff < 0 or temporal_cutoff < 0 or order < 1:
        raise ValueError(f"cutoffs must be >= 0 and order >= 1; got {spatial_cutoff}, {temporal_cutoff}, order {order}")
    if spatial_cutoff == 0 or temporal_cutoff == 0:
        return torch.zeros(frames, height, width, device=device)
    t, y, x = (
        (2 * (torch.arange(size, dtype=torch.float64) - size // 2) / size / cutoff).square()
        for size, cutoff in ((frames, temporal_cutoff), (height, spatial_cutoff), (width, spatial_cutoff))
    )
    mask: torch.Tensor = 1 / (1 + (t[:, None, None] + y[:, None] + x) ** order)
    return mask.float().to(device)  # float64 is the CPU's alone, as above


def merge_frequencies_3d(
    low: Float[torch.Tensor, "f c h w"],
    high: Float[torch.Tensor, "f c h w"],
    mask: Float[torch.Tensor, "f h w"],
    *,
    keep_variance: bool = False,
) -> Float[torch.Tensor, "f c h w"]:
    """Low frequencies of one clip with the high frequencies of another, per channel over (time, height, width).

    ``IFFT(mask FFT(low) + (1 - mask) FFT(high))``, the real part. Merging a clip with itself gives it back. Of two
    independent white noises a bin gets the variance ``mask^2 + (1 - mask)^2``: 1 where the mask is 0 or 1, down to one
    half on the filter's slope, so what comes out has somewhat less than unit variance. The published methods (FreeInit,
    FreeTraj) leave it so; ``keep_variance`` divides every bin by its deviation (then two equal clips do not come back).
    """
    unshifted = torch.fft.ifftshift(mask)[:, None]
    axes = (0, 2, 3)
    change = torch.fft.fftn((low - high).float(), dim=axes)
    kept: torch.Tensor = torch.fft.ifftn(change * unshifted, dim=axes).real
    merged = high + kept.to(high.dtype)
    if not keep_variance:
        return merged
    deviation = (unshifted.square() + (1 - unshifted).square()).sqrt()
    rescaled: torch.Tensor = torch.fft.ifftn(torch.fft.fftn(merged.float(), dim=axes) / deviation, dim=axes).real
    return rescaled.to(high.dtype)

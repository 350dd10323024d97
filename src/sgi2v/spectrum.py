"""Butterworth low-pass and the frequency merge that keeps an optimised latent sharp."""

import torch
from jaxtyping import Float
from torch import Tensor


def low_pass(
    height: int, width: int, cutoff: float, *, order: int = 4, device: torch.device | str | None = None
) -> Float[Tensor, "{height} {width}"]:
    """Butterworth low-pass ``1 / (1 + (d^2 / cutoff^2)^order)`` on fft-shifted frequencies, values in 0..1.

    ``d^2 = (2 h / H - 1)^2 + (2 w / W - 1)^2``: 0 at the constant component, 1 at an axis' Nyquist frequency.
    A cutoff of 0 is the mask 0 everywhere (the formula is 0/0 at the centre). SG-I2V, section 4.3; FreeInit's filter.
    """
    if cutoff < 0 or order < 1:
        raise ValueError(f"cutoff must be >= 0 and order >= 1; got cutoff {cutoff}, order {order}")
    if cutoff == 0:
        return torch.zeros(height, width, device=device)
    y = 2 * torch.arange(height, device=device, dtype=torch.float64) / height - 1
    x = 2 * torch.arange(width, device=device, dtype=torch.float64) / width - 1
    distance = y[:, None].square() + x[None, :].square()
    mask: Tensor = 1 / (1 + (distance / cutoff**2) ** order)
    return mask.float()


def merge_frequencies(
    low: Float[Tensor, "*batch h w"], high: Float[Tensor, "*batch h w"], mask: Float[Tensor, "h w"]
) -> Float[Tensor, "*batch h w"]:
    """Low frequencies of one tensor with the high frequencies of another, per frame and channel over (h, w).

    ``IFFT(mask FFT(low) + (1 - mask) FFT(high))``, the real part; ``mask`` lies on fft-shifted frequencies.
    SG-I2V, equation 4. Merging a tensor with itself gives it back.
    """
    unshifted = torch.fft.ifftshift(mask, dim=(-2, -1))
    # The transform is linear, so only the difference needs one.
    change = torch.fft.fft2((low - high).float())
    kept: Tensor = torch.fft.ifft2(change * unshifted).real
    return high + kept.to(high.dtype)

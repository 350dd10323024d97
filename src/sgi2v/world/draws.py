"""Random draws by purpose, on the device that renders or trains, and host values sent there without a wait."""

import hashlib

import torch
from torch import Tensor


def seed_of(purpose: str, *numbers: int) -> int:
    """A seed for one purpose, such as "pool", and its numbers, such as the training's seed and the step.

    A processor's generator heeds 32 bits of a seed, so adding 2**40 for another purpose would give the same draws.
    """
    digest = hashlib.sha256(f"{purpose} {numbers}".encode()).digest()
    return int.from_bytes(digest[:4], "little")


def onto(value: Tensor, device: torch.device | str) -> Tensor:
    """A host tensor on the device; an accelerator gets it from pinned memory, or the copy would wait for its work."""
    if torch.device(device).type == "cpu":
        return value
    return value.pin_memory().to(device, non_blocking=True)


def normal(shape: tuple[int, ...] | torch.Size, seed: int, device: torch.device | str) -> Tensor:
    """Unit noise, drawn on the device itself: the same for the same seed and device."""
    generator = torch.Generator(torch.device(device)).manual_seed(seed)
    return torch.randn(shape, generator=generator, device=device)

"""Latents in and out of files: noise to begin from, a reference clip encoded elsewhere, what a run came to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jaxtyping import Float

from sgi2v.controllers import Controller, controller_name
from sgi2v.errors import FieldError
from sgi2v.grid import Grid
from sgi2v.lazy import torch
from sgi2v.writing import check_place, writing

SUFFIX: Final = ".safetensors"
MAX_BYTES: Final = 2**30
"""Of a file of latents; those of five seconds at 1280x704 take 21 MB."""


def read_latents(path: Path, name: str, field: str, grid: Grid) -> Float[torch.Tensor, "n c y x"]:
    """The tensor ``name`` of a safetensors file: latents of that grid, float32, finite.

    [frames, channels, rows, columns], without a batch axis, normalised as the network sees them. The header is asked
    first, so that a mistake costs neither torch nor the file's reading. Raises FieldError under ``field``.
    """
    from safetensors import SafetensorError, safe_open

    remedy = f"give a safetensors file with a tensor {name!r}, as --save-latents writes it"
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise FieldError(field, f"{path} has {size} bytes", f"at most {MAX_BYTES} are read")
        with safe_open(path, framework="np") as file:
            if name not in file.keys():  # noqa: SIM118  (it is no mapping)
                raise FieldError(field, f"{path} holds no {name!r}", remedy)
            header = file.get_slice(name)
            _check(field, str(path), header.get_dtype(), tuple(header.get_shape()), grid)
            read = torch.from_numpy(file.get_tensor(name))
    except (OSError, SafetensorError) as error:
        raise FieldError(field, f"{path} cannot be read ({error})", remedy) from error
    check_latents(field, read, grid)
    return read


def check_latents(field: str, latents: torch.Tensor, grid: Grid) -> None:
    """FieldError under ``field`` unless these are latents of that grid: float32 and finite."""
    dtype = "F32" if latents.dtype == torch.float32 else str(latents.dtype)
    _check(field, "the tensor", dtype, tuple(latents.shape), grid)
    if not bool(latents.isfinite().all()):
        raise FieldError(field, "some of its values are NaN or infinite", "give finite ones")


def _check(field: str, what: str, dtype: str, shape: tuple[int, ...], grid: Grid) -> None:
    if (dtype, shape) != ("F32", grid.latent_shape):
        raise FieldError(
            field,
            f"{what} is {dtype} of shape {list(shape)}",
            f"{grid.num_frames} frames of {grid.width}x{grid.height} need float32 of shape {list(grid.latent_shape)} "
            "(frames, channels, rows, columns)",
        )


def check_takes_reference(field: str, controller: Controller) -> None:
    """FieldError under ``field`` for a method that uses no reference clip."""
    if not controller.uses().reference:
        spelt = field.replace("_", "-")
        raise FieldError(
            field,
            f"{controller_name(controller)} uses no reference clip",
            f"leave --{spelt} out, or choose time-to-move",
        )


@dataclass(frozen=True, kw_only=True)
class Given:
    """Latents that a person gives to a run; None for those that the model makes, as usual."""

    noise: torch.Tensor | None = None
    reference_latents: torch.Tensor | None = None

    @classmethod
    def read(cls, noise: Path | None, reference: Path | None, grid: Grid) -> Given:
        """Latents of the files that are given; FieldError under the option's name (:func:`read_latents`)."""
        return cls(
            noise=None if noise is None else read_latents(noise, "noise", "noise", grid),
            reference_latents=None
            if reference is None
            else read_latents(reference, "latents", "reference_latents", grid),
        )

    @property
    def _all(self) -> dict[str, torch.Tensor]:
        both = {"noise": self.noise, "reference_latents": self.reference_latents}
        return {name: latents for name, latents in both.items() if latents is not None}

    @property
    def hashes(self) -> dict[str, str]:
        """Their fingerprints by name, as a record keeps them."""
        return {name: fingerprint(latents) for name, latents in self._all.items()}

    def check(self, controller: Controller, grid: Grid) -> None:
        """FieldError for latents that are not the grid's, or that the method does not use."""
        for name, latents in self._all.items():
            check_latents(name, latents, grid)
        if self.reference_latents is not None:
            check_takes_reference("reference_latents", controller)

    def check_recorded(self, inputs: Mapping[str, str]) -> None:
        """FieldError unless these are the latents whose fingerprints a record holds."""
        found = self.hashes
        for name in sorted({*inputs, *found}):
            spelt = name.replace("_", "-")
            if name not in inputs:
                raise FieldError(name, "the video was made without such latents", f"leave --{spelt} out")
            if found.get(name) != inputs[name]:
                wanted = f"latents of sha256 {str(inputs[name])[:12]}…"
                raise FieldError(name, f"the video was made from {wanted}", f"give their file with --{spelt}")


def fingerprint(latents: Float[torch.Tensor, "n c y x"]) -> str:
    """SHA-256 of the shape and the float32 values, wherever they lie."""
    values = latents.detach().float().cpu().contiguous().numpy()
    return hashlib.sha256(f"{values.shape} ".encode() + values.astype("<f4").tobytes()).hexdigest()


def check_latents_place(path: Path, field: str) -> None:
    """FieldError under ``field`` unless latents could be written there; leaves nothing."""
    if path.suffix != SUFFIX or path.is_dir():
        raise FieldError(field, f"{str(path)!r} is no name of a file of latents", f"end it in {SUFFIX}")
    try:
        check_place(path)
    except FieldError as error:
        raise FieldError(field, error.problem, "choose another place") from error


def save_latents(path: Path, **latents: Float[torch.Tensor, "n c y x"] | None) -> None:
    """Writes named latents as safetensors, float32, whole or not at all; those that are None are left out."""
    from safetensors.torch import save

    kept = {name: one.detach().float().cpu().contiguous() for name, one in latents.items() if one is not None}
    with writing(path) as temporary:
        temporary.write_bytes(save(kept))

"""Weighted sums of a few vectors each, many at once: sparse rows, whose memory does not grow with their entries."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int64
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Entries:
    """A sparse matrix on the host, row by row: no place twice in a row, no share of 0."""

    rows: Int64[np.ndarray, " e"]
    """Sorted."""
    places: Int64[np.ndarray, " e"]
    """Sorted within a row."""
    shares: Float64[np.ndarray, " e"]
    size: tuple[int, int]
    """Number of rows and of places."""

    @classmethod
    def of(cls, rows: np.ndarray, places: np.ndarray, shares: np.ndarray, size: tuple[int, int]) -> "Entries":
        """From entries in any order (broadcast together), those of the same row and place added up."""
        rows, places, shares = (a.ravel() for a in np.broadcast_arrays(rows, places, shares))
        wanted = shares != 0
        keys, index = np.unique(rows[wanted] * size[1] + places[wanted], return_inverse=True)
        total = np.bincount(index, weights=shares[wanted], minlength=len(keys)).astype(np.float64)
        return cls(rows=keys // size[1], places=keys % size[1], shares=total, size=size)

    def after(self, inner: "Entries") -> "Entries":
        """The matrix product with ``inner``, whose rows are this one's places: mixtures of mixtures."""
        starts = np.searchsorted(inner.rows, np.arange(inner.size[0] + 1))
        counts = np.diff(starts)[self.places]
        mine = np.repeat(np.arange(len(self.rows)), counts)
        theirs = np.arange(len(mine)) - np.repeat(np.cumsum(counts) - counts - starts[self.places], counts)
        shares = self.shares[mine] * inner.shares[theirs]
        return Entries.of(self.rows[mine], inner.places[theirs], shares, (self.size[0], inner.size[1]))

    def table(self, device: torch.device) -> "Table":
        """For use on a device."""
        starts = np.searchsorted(self.rows, np.arange(self.size[0] + 1))
        return Table(
            places=torch.from_numpy(self.places).to(device),
            starts=torch.from_numpy(starts).to(device),
            shares=torch.from_numpy(self.shares).float().to(device),
        )

    def mixture(self, device: torch.device) -> "Mixture":
        """With the transposed table, for gradients."""
        order = np.argsort(self.places, kind="stable")
        turned = Entries(
            rows=self.places[order], places=self.rows[order], shares=self.shares[order], size=self.size[::-1]
        )
        return Mixture(forward=self.table(device), backward=turned.table(device))


@dataclass(frozen=True, kw_only=True)
class Table:
    """A sparse matrix on a device: row r holds the entries starts[r] to starts[r + 1]."""

    places: Int64[Tensor, " e"]
    starts: Int64[Tensor, " r1"]
    shares: Float[Tensor, " e"]

    def mix(self, vectors: Float[Tensor, "p d"]) -> Float[Tensor, "r d"]:
        """Each row's weighted sum of vectors; no gradient."""
        return F.embedding_bag(
            self.places,
            vectors.detach(),
            self.starts,
            mode="sum",
            per_sample_weights=self.shares,
            include_last_offset=True,
        )


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """A sparse matrix on a device, differentiable in what it mixes: the gradient is the transposed matrix's mixing."""

    forward: Table
    backward: Table

    def __call__(self, vectors: Float[Tensor, "p d"]) -> Float[Tensor, "r d"]:
        """Each row's weighted sum of float32 vectors."""
        mixed: Tensor = _Mix.apply(vectors, self)  # type: ignore[no-untyped-call]
        return mixed


class _Mix(torch.autograd.Function):
    """Keeps no vectors for the backward pass; sums in a fixed order, so that a run repeats bit for bit."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, mixture: Mixture) -> Tensor:
        ctx.table = mixture.backward
        return mixture.forward.mix(vectors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.table.mix(gradients[0].contiguous()), None

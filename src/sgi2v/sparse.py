"""Sparse matrices that mix vectors: built on the host, applied on a device, memory as large as their entries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64

from sgi2v.lazy import torch


@dataclass(frozen=True, kw_only=True)
class SparseMatrix:
    """A sparse matrix on the host, its entries sorted by row and column, none twice and none 0."""

    rows: Int64[np.ndarray, " e"]
    columns: Int64[np.ndarray, " e"]
    values: Float64[np.ndarray, " e"]
    size: tuple[int, int]
    """Number of rows and of columns."""

    @classmethod
    def of(cls, rows: np.ndarray, columns: np.ndarray, values: np.ndarray, size: tuple[int, int]) -> SparseMatrix:
        """From entries in any order (broadcast together), those of the same row and column added up."""
        rows, columns, values = (a.ravel() for a in np.broadcast_arrays(rows, columns, values))
        wanted = values != 0
        keys, index = np.unique(rows[wanted] * size[1] + columns[wanted], return_inverse=True)
        total = np.bincount(index, weights=values[wanted], minlength=len(keys)).astype(np.float64)
        return cls(rows=keys // size[1], columns=keys % size[1], values=total, size=size)

    def __matmul__(self, other: SparseMatrix) -> SparseMatrix:
        """The matrix product."""
        starts = np.searchsorted(other.rows, np.arange(other.size[0] + 1))
        counts = np.diff(starts)[self.columns]
        mine = np.repeat(np.arange(len(self.rows)), counts)
        theirs = np.arange(len(mine)) - np.repeat(np.cumsum(counts) - counts - starts[self.columns], counts)
        values = self.values[mine] * other.values[theirs]
        return SparseMatrix.of(self.rows[mine], other.columns[theirs], values, (self.size[0], other.size[1]))

    @property
    def T(self) -> SparseMatrix:
        """The transposed matrix."""
        order = np.argsort(self.columns, kind="stable")
        return SparseMatrix(
            rows=self.columns[order],
            columns=self.rows[order],
            values=self.values[order],
            size=self.size[::-1],
        )

    def to(self, device: torch.device) -> SparseRows:
        """For use on a device."""
        starts = np.searchsorted(self.rows, np.arange(self.size[0] + 1))
        return SparseRows(
            columns=torch.from_numpy(self.columns).to(device),
            starts=torch.from_numpy(starts).to(device),
            values=torch.from_numpy(self.values).float().to(device),
        )

    def differentiable(self, device: torch.device) -> DifferentiableRows:
        """For use on a device with gradients, which the transposed matrix makes."""
        return DifferentiableRows(forward=self.to(device), backward=self.T.to(device))


@dataclass(frozen=True, kw_only=True)
class SparseRows:
    """A sparse matrix on a device by compressed rows (CSR): row r holds the entries starts[r] to starts[r + 1].

    Products go through ``embedding_bag`` and not through torch's own CSR, which Apple's MPS lacks, which is slower on
    a CPU (107 against 80 ms for SVD's loss), and which promises no fixed order of its sums, so no equal runs.
    """

    columns: Int64[torch.Tensor, " e"]
    starts: Int64[torch.Tensor, " r1"]
    values: Float[torch.Tensor, " e"]

    def __matmul__(self, vectors: Float[torch.Tensor, "p d"]) -> Float[torch.Tensor, "r d"]:
        """Each row's weighted sum of vectors; no gradient."""
        return torch.nn.functional.embedding_bag(
            self.columns,
            vectors.detach(),
            self.starts,
            mode="sum",
            per_sample_weights=self.values,
            include_last_offset=True,
        )


@dataclass(frozen=True, kw_only=True)
class DifferentiableRows:
    """A sparse matrix on a device, differentiable in the vectors that it mixes."""

    forward: SparseRows
    backward: SparseRows
    """The transposed matrix."""

    def __matmul__(self, vectors: Float[torch.Tensor, "p d"]) -> Float[torch.Tensor, "r d"]:
        """Each row's weighted sum of float32 vectors."""
        from sgi2v.sparse_product import SparseProduct  # a class of torch's: only where torch is wanted

        mixed: torch.Tensor = SparseProduct.apply(vectors, self)  # type: ignore[no-untyped-call]
        return mixed

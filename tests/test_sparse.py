"""Sparse mixing against the dense matrix it stands for, and its gradient."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from sgi2v.sparse import SparseMatrix

CPU = torch.device("cpu")


def entries(rng: np.random.Generator, num_rows: int, num_places: int, count: int) -> tuple[SparseMatrix, np.ndarray]:
    """A random sparse matrix with repeated entries and empty rows, and the dense one."""
    rows, places = rng.integers(0, num_rows, count), rng.integers(0, num_places, count)
    shares = rng.integers(-3, 4, count).astype(np.float64)
    dense = np.zeros((num_rows, num_places))
    np.add.at(dense, (rows, places), shares)
    return SparseMatrix.of(rows, places, shares, (num_rows, num_places)), dense


@given(seed=st.integers(0, 10_000), count=st.integers(0, 40))
def test_mixing_its_gradient_and_products_are_those_of_the_dense_matrix(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    (outer, left), (inner, right) = entries(rng, 7, 5, count), entries(rng, 5, 6, count)
    vectors = torch.from_numpy(rng.normal(size=(5, 3))).float().requires_grad_(True)
    mixed = outer.differentiable(CPU) @ vectors
    wanted = torch.from_numpy(left).float()
    assert torch.allclose(mixed, wanted @ vectors, atol=1e-5)
    above = torch.from_numpy(rng.normal(size=(7, 3))).float()
    (gradient,) = torch.autograd.grad(mixed, vectors, above)
    assert torch.allclose(gradient, wanted.T @ above, atol=1e-5)
    both = outer @ inner
    dense = np.zeros(both.size)
    dense[both.rows, both.columns] = both.values
    assert np.allclose(dense, left @ right)
    keys = both.rows * both.size[1] + both.columns
    assert (np.diff(keys) > 0).all(), "sorted, and no column twice in a row"


def test_a_table_gives_no_gradient_and_the_sum_of_one_row_is_the_vector_itself() -> None:
    vectors = torch.randn(4, 3, requires_grad=True)
    table = SparseMatrix.of(np.arange(4), np.array([2, 0, 3, 1]), np.ones(4), (4, 4)).to(CPU)
    mixed = table @ vectors
    assert not mixed.requires_grad and torch.equal(mixed, vectors[[2, 0, 3, 1]])

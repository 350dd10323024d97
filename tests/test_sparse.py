"""Sparse matrices against the dense ones they stand for, and the gradient of their products."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from sgi2v.sparse import SparseMatrix

CPU = torch.device("cpu")


def random_matrix(
    rng: np.random.Generator, num_rows: int, num_columns: int, count: int
) -> tuple[SparseMatrix, np.ndarray]:
    """A random sparse matrix with repeated entries and empty rows, and the dense one."""
    rows, columns = rng.integers(0, num_rows, count), rng.integers(0, num_columns, count)
    values = rng.integers(-3, 4, count).astype(np.float64)
    dense = np.zeros((num_rows, num_columns))
    np.add.at(dense, (rows, columns), values)
    return SparseMatrix.of(rows, columns, values, (num_rows, num_columns)), dense


def dense_of(matrix: SparseMatrix) -> np.ndarray:
    dense = np.zeros(matrix.size)
    dense[matrix.rows, matrix.columns] = matrix.values
    return dense


@given(seed=st.integers(0, 10_000), count=st.integers(0, 40))
def test_products_and_their_gradients_are_those_of_the_dense_matrix(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    (outer, left), (inner, right) = random_matrix(rng, 7, 5, count), random_matrix(rng, 5, 6, count)
    vectors = torch.from_numpy(rng.normal(size=(5, 3))).float().requires_grad_(True)
    mixed = outer.differentiable(CPU) @ vectors
    wanted = torch.from_numpy(left).float()
    assert torch.allclose(mixed, wanted @ vectors, atol=1e-5)
    assert torch.equal(mixed, outer.to(CPU) @ vectors)
    above = torch.from_numpy(rng.normal(size=(7, 3))).float()
    (gradient,) = torch.autograd.grad(mixed, vectors, above)
    assert torch.allclose(gradient, wanted.T @ above, atol=1e-5)
    for found, dense in ((outer @ inner, left @ right), (outer.T, left.T), (outer.T.T, left)):
        assert np.allclose(dense_of(found), dense)
        keys = found.rows * found.size[1] + found.columns
        assert (np.diff(keys) > 0).all(), "sorted, and no column twice in a row"


def test_rows_give_no_gradient_and_the_sum_of_one_is_the_vector_itself() -> None:
    vectors = torch.randn(4, 3, requires_grad=True)
    permutation = SparseMatrix.of(np.arange(4), np.array([2, 0, 3, 1]), np.ones(4), (4, 4))
    mixed = permutation.to(CPU) @ vectors
    assert not mixed.requires_grad and torch.equal(mixed, vectors[[2, 0, 3, 1]])


def test_a_product_keeps_no_vectors_for_its_gradient() -> None:
    matrix = SparseMatrix.of(np.array([0, 1, 1]), np.array([2, 0, 3]), np.array([1.0, 2.0, -1.0]), (2, 4))
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        mixed = matrix.differentiable(CPU) @ torch.randn(4, 3, requires_grad=True)
    assert mixed.requires_grad and not kept

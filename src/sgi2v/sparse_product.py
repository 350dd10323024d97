"""The derivative of a sparse matrix's product: the transposed matrix applied to the gradient."""

from typing import Any

import torch
from torch import Tensor

from sgi2v.sparse import DifferentiableRows


class SparseProduct(torch.autograd.Function):
    """Keeps no vectors for the backward pass; sums in a fixed order, so that a run repeats bit for bit."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, matrix: DifferentiableRows) -> Tensor:
        """The product."""
        ctx.transposed = matrix.backward
        return matrix.forward @ vectors

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """The gradient in the vectors."""
        return ctx.transposed @ gradients[0].contiguous(), None

"""The inverse of a large symmetric positive definite matrix, in its own place, and what rounding did to it.

A = LLᵀ (Cholesky), A⁻¹ = L⁻ᵀL⁻¹: n³ multiplications and additions, and on the CPU no second matrix
"""

import math
from typing import Any

import torch
from numpy.typing import NDArray
from scipy.linalg import get_lapack_funcs
from torch import Tensor

from recae.kernels.gram import BLOCK, mirror

PROBES = 4
"""How many random vectors the check takes."""


def invert(matrix: Tensor) -> float:
    """Put the inverse of a symmetric positive definite matrix, float32 or float64, in its place; return its error.

    The error is that of A⁻¹A v against v, over the length of v, for random v of ones and minus ones, in float64. It
    grows with the condition of A, as the relative error of the inverse does, which is about as large or smaller. It is
    infinite where A has no factor, and then no inverse is there.
    """
    signs = torch.randint(2, (len(matrix), PROBES), generator=torch.Generator().manual_seed(0))
    vectors = (2 * signs - 1).to(matrix.device, torch.float64)
    images = _multiply(matrix, vectors)
    if not (_invert_on_cuda if matrix.is_cuda else _invert_on_cpu)(matrix):
        return math.inf
    error = torch.linalg.vector_norm(_multiply(matrix, images) - vectors) / torch.linalg.vector_norm(vectors)
    return float(error)


def memory_needed(size: int, device: str, dtype: torch.dtype = torch.float32) -> int:
    """Return the bytes that `invert` takes on its device at its peak, those of the matrix included."""
    # CUDA has no inverse from a factor in its place: it solves for the identity, with a copy of the factor.
    matrices = 1 if device == "cpu" else 3
    return matrices * dtype.itemsize * size**2 + 8 * size * (min(BLOCK, size) + 4 * PROBES)


def _invert_on_cpu(matrix: Tensor) -> bool:
    # scipy's LAPACK, because its inverse from a factor comes within a few hundredths of the processor's peak; torch's
    # takes half as long again. Both work in place on the transpose, which is in Fortran's order.
    entries: NDArray[Any] = matrix.numpy().T
    lapack: Any = get_lapack_funcs(("potrf", "potri"), dtype=entries.dtype)
    factorise, invert_factor = lapack
    _, problem = factorise(entries, lower=True, clean=False, overwrite_a=True)
    if not problem:
        _, problem = invert_factor(entries, lower=True, overwrite_c=True)
    mirror(matrix)
    return not problem


def _invert_on_cuda(matrix: Tensor) -> bool:
    # The transpose of a symmetric matrix is the same in the order of LAPACK and its descendants: nothing is copied.
    told = torch.empty((), dtype=torch.int32, device=matrix.device)
    _, problem = torch.linalg.cholesky_ex(matrix.T, out=(matrix.T, told))
    if not problem:
        torch.cholesky_inverse(matrix.T, out=matrix.T)
    return not problem


def _multiply(matrix: Tensor, vectors: Tensor) -> Tensor:
    """Return matrix @ vectors in float64, of which the matrix is copied a block of rows at a time, into one place."""
    products = torch.empty_like(vectors)
    block = torch.empty((min(BLOCK, len(matrix)), len(matrix)), dtype=torch.float64, device=matrix.device)
    for start in range(0, len(matrix), BLOCK):
        rows = matrix[start : start + BLOCK]
        products[start : start + BLOCK] = block[: len(rows)].copy_(rows) @ vectors
    return products

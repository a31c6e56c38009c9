"""The Gram matrix of sparse histories: how often two items meet in one history.

    X   users × items, CSR
    G   XᵀX, items × items, symmetric: of a product of sparse blocks only one half is computed, and mirrored

On the CPU the work is a multiply and an add for each two items of a history, Σ n²/2 of them over users with n items.
On CUDA, where a dense product costs less than the bookkeeping of a sparse one, blocks of users are made dense.
"""

from itertools import pairwise

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.kernels.mkl import HAS_MKL

BLOCK = 512
"""How many rows of an items × items matrix are worked on at a time."""

INTERACTIONS = 2**24
"""How many interactions at most are counted in float32 before they are added up: so far it counts in whole numbers."""

DENSE_ENTRIES = 2**28
"""How many entries a dense block of users may have on CUDA: half a gigabyte in bfloat16."""


def gram(histories: csr_matrix, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Tensor:
    """Return XᵀX, items × items on the device, of float32 histories; ValueError where one has an entry twice.

    Histories of ones are counted exactly up to 2²⁴, and rounded to `dtype` beyond; other values are summed in float32,
    at most 2²⁴ interactions at a time.
    """
    if not histories.has_canonical_format:
        raise ValueError("histories must have sorted, distinct columns in each row")
    items = histories.shape[1]
    products = torch.zeros((items, items), dtype=dtype, device=device)
    add_upper = _add_dense if products.is_cuda else _add_sparse
    for part in _parts(histories):
        add_upper(products, part)
    mirror(products)
    return products


def mirror(matrix: Tensor) -> None:
    """Copy what is above the diagonal of a square matrix to below it, in place, a tile at a time."""
    size = len(matrix)
    for start in range(0, size, BLOCK):
        rows = slice(start, start + BLOCK)
        corner = matrix[rows, rows]
        corner.copy_(corner.triu() + corner.triu(1).T)
        for below in range(start + BLOCK, size, BLOCK):
            columns = slice(below, below + BLOCK)
            matrix[columns, rows] = matrix[rows, columns].T


def memory_needed(items: int, interactions: int, device: str, dtype: torch.dtype = torch.float32) -> int:
    """Return the bytes that `gram` takes on its device at its peak, those of its result included."""
    block, entries = min(BLOCK, items) * items, min(interactions, INTERACTIONS)
    if device == "cpu":
        return dtype.itemsize * items**2 + 8 * block + 32 * entries
    return dtype.itemsize * items**2 + 8 * block + 32 * entries + 4 * max(DENSE_ENTRIES, items)


def _parts(histories: csr_matrix) -> list[csr_matrix]:
    """Return the histories in parts of at most INTERACTIONS, or of one history."""
    starts = [0]
    while starts[-1] < histories.shape[0]:
        reached = np.searchsorted(histories.indptr, int(histories.indptr[starts[-1]]) + INTERACTIONS, side="right") - 1
        starts.append(max(starts[-1] + 1, int(reached)))
    if len(starts) <= 2:
        return [histories]
    return [histories[start:stop] for start, stop in pairwise(starts)]


def _add_sparse(products: Tensor, histories: csr_matrix) -> None:
    """Add XᵀX where it is above the diagonal, or below it in the same block: rows of it, from their diagonal on."""
    columns = histories.tocsc()
    rows = columns.T  # the same arrays, read as the rows of Xᵀ
    for start in range(0, len(products), BLOCK):
        stop = start + BLOCK
        products[start:stop, start:] += dense_product(rows[start:stop], columns[:, start:].tocsr())


def dense_product(left: csr_matrix, right: csr_matrix) -> Tensor:
    """Return the product of two sparse matrices as a dense one."""
    if not HAS_MKL:
        return torch.from_numpy((left @ right).toarray())
    # MKL adds up into a dense block at once, on all threads: three times as fast as scipy, which first counts what
    # will not be zero, on one.
    product = torch.empty((left.shape[0], right.shape[1]), dtype=torch.float32)
    return torch.addmm(product, _as_tensor(left), _as_tensor(right), beta=0, out=product)


def _as_tensor(matrix: csr_matrix) -> Tensor:
    indptr, indices, data = (torch.from_numpy(array) for array in (matrix.indptr, matrix.indices, matrix.data))
    return torch.sparse_csr_tensor(indptr, indices, data, size=matrix.shape, check_invariants=False)


def _add_dense(products: Tensor, histories: csr_matrix) -> None:
    """Add the same part of XᵀX, a block of users made dense at a time.

    On CUDA in bfloat16 where that holds the values, as it does ones and small whole numbers: their products are then
    exact and are summed in float32 all the same, so the result is that of float32 in a fraction of the time.
    """
    users, items = histories.shape
    device = products.device
    indices, values = (torch.from_numpy(array).to(device) for array in (histories.indices, histories.data))
    short = values.bfloat16()
    exact = products.is_cuda and bool((short.float() == values).all())
    step = max(1, DENSE_ENTRIES // items)
    for first in range(0, users, step):
        bounds = torch.from_numpy(histories.indptr[first : first + step + 1])
        chosen = slice(int(bounds[0]), int(bounds[-1]))
        row = torch.repeat_interleave(bounds.diff()).to(device)
        dense = torch.zeros((len(bounds) - 1, items), dtype=short.dtype if exact else values.dtype, device=device)
        dense[row, indices[chosen].long()] = (short if exact else values)[chosen]
        for start in range(0, items, BLOCK):
            left, right = dense[:, start : start + BLOCK].T, dense[:, start:]
            product = torch.mm(left, right, out_dtype=torch.float32) if exact else left @ right
            products[start : start + BLOCK, start:] += product

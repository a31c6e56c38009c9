"""The Gram matrix of sparse histories: how often two items meet in one history.

    X   users × items, CSR
    G   XᵀX, items × items, symmetric: of a product of sparse blocks only one half is computed, and mirrored

On the CPU the work is a multiply and an add for each two items of a history, Σ n²/2 of them over users with n items.
On CUDA, where a dense product costs less than the bookkeeping of a sparse one, blocks of users are made dense.
"""

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

BLOCK = 1024
"""How many rows of an items × items matrix are worked on at a time."""

INTERACTIONS = 2**24
"""How many interactions at most are counted in float32 before they are added up: so far it counts in whole numbers."""

DENSE_ENTRIES = 2**28
"""How many entries a dense block of users may have on CUDA: half a gigabyte in bfloat16."""


def gram(histories: csr_matrix, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Tensor:
    """Return XᵀX, items × items on the device, of float32 histories without duplicate entries.

    Histories of ones are counted exactly up to 2²⁴, and rounded to `dtype` beyond; other values are summed in float32,
    2²⁴ interactions at a time.
    """
    if not histories.has_canonical_format:
        raise ValueError("histories must have sorted, distinct columns in each row")
    items = histories.shape[1]
    counts = torch.zeros((items, items), dtype=dtype, device=device)
    for part in _parts(histories):
        if counts.is_cuda:
            _add_dense(counts, part)
        else:
            _add_upper(counts, part)
    if not counts.is_cuda:
        mirror(counts)
    return counts


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
    """Return the bytes that `gram` takes at its peak, those of its result included."""
    blocks = 2 * DENSE_ENTRIES + 24 * INTERACTIONS if device != "cpu" else 12 * min(BLOCK, items) * items
    return dtype.itemsize * items**2 + blocks + 24 * min(interactions, INTERACTIONS)


def _parts(histories: csr_matrix) -> list[csr_matrix]:
    """Return the histories in parts of at most INTERACTIONS, or of one history."""
    starts = [0]
    while starts[-1] < histories.shape[0]:
        reached = np.searchsorted(histories.indptr, histories.indptr[starts[-1]] + INTERACTIONS, side="right") - 1
        starts.append(max(starts[-1] + 1, int(reached)))
    if len(starts) <= 2:
        return [histories]
    return [histories[start:stop] for start, stop in zip(starts, starts[1:], strict=False)]


def _add_upper(counts: Tensor, histories: csr_matrix) -> None:
    """Add XᵀX where it is above the diagonal, and a little below it: block by block of rows, from the diagonal on."""
    columns = histories.tocsc()
    rows = columns.T  # the same arrays, read as the rows of Xᵀ
    for start in range(0, len(counts), BLOCK):
        counts[start : start + BLOCK, start:] += _product(rows[start : start + BLOCK], columns[:, start:].tocsr())


def _product(left: csr_matrix, right: csr_matrix) -> Tensor:
    """Return the product of two sparse matrices as a dense one."""
    if not _MKL:
        return torch.from_numpy((left @ right).toarray())
    # MKL adds up into a dense block at once, on all threads: three times as fast as scipy, which first counts what
    # will not be zero, on one.
    product = torch.empty((left.shape[0], right.shape[1]), dtype=torch.float32)
    return torch.addmm(product, _as_tensor(left), _as_tensor(right), beta=0, out=product)


def _as_tensor(matrix: csr_matrix) -> Tensor:
    arrays = (torch.from_numpy(array) for array in (matrix.indptr, matrix.indices, matrix.data))
    return torch.sparse_csr_tensor(*arrays, size=matrix.shape, check_invariants=False)


def _add_dense(counts: Tensor, histories: csr_matrix) -> None:
    """Add XᵀX on CUDA, a dense block of users at a time.

    In bfloat16 where that holds the values (ones and small whole numbers): its products are then exact, and are summed
    in float32 all the same, so the result is that of float32 in a fraction of the time.
    """
    users, items = histories.shape
    device = counts.device
    indptr = torch.from_numpy(histories.indptr).to(device, torch.int64)
    indices, values = (torch.from_numpy(array).to(device) for array in (histories.indices, histories.data))
    short = values.bfloat16()
    exact = bool((short.float() == values).all())
    values = short if exact else values
    step = max(1, DENSE_ENTRIES // items)
    for start in range(0, users, step):
        bounds = indptr[start : start + step + 1]
        chosen = slice(int(bounds[0]), int(bounds[-1]))
        block = torch.zeros((len(bounds) - 1, items), dtype=values.dtype, device=device)
        rows = torch.repeat_interleave(torch.arange(len(block), device=device), bounds.diff())
        block[rows, indices[chosen].long()] = values[chosen]
        if exact and counts.dtype == torch.float32:
            torch.addmm(counts, block.T, block, out_dtype=torch.float32, out=counts)
        elif exact:
            counts += torch.mm(block.T, block, out_dtype=torch.float32)
        else:
            counts += block.T @ block


_MKL: bool = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]

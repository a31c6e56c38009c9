"""Many small ridge regressions at once: each row of a sparse matrix on the vectors of its columns.

rows, columns, entries: of the matrix. width: that of vectors.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

STEP = 16
"""Rows are padded to a multiple of this, so that those of about one length are solved for together."""

TOGETHER = 2**13
"""How many entries, padded, are worked on at once: of 64 wide vectors, 4 MB."""


def ridge(vectors: Tensor, targets: csr_matrix, penalty: float) -> Tensor:
    """Return (VᵀV + penalty·n·I)⁻¹ Vᵀy, rows × width: y are a row's n entries, V the vectors of their columns.

    A stored zero is an entry. vectors (columns, width), penalty above 0; a row without entries gets zeros. Solved in
    double precision; no row's result depends on its company.
    """
    lengths = np.diff(targets.indptr)
    wide, unit = vectors.double(), torch.eye(vectors.shape[1], dtype=torch.float64, device=vectors.device)
    solved = vectors.new_zeros((len(lengths), vectors.shape[1]))
    padded = -(-lengths // STEP) * STEP
    for length in np.unique(padded[lengths > 0]).tolist():
        alike, size = np.flatnonzero(padded == length), max(1, TOGETHER // length)
        for rows in np.split(alike, range(size, len(alike), size)):
            own, wanted = _gathered(wide, targets, rows, length)
            counts = torch.as_tensor(lengths[rows], device=vectors.device).double()
            system = own.mT @ own + penalty * counts[:, None, None] * unit
            result = torch.linalg.solve_ex(system, (own.mT @ wanted[:, :, None]).squeeze(2)).result
            solved[torch.as_tensor(rows, device=vectors.device)] = result.to(vectors.dtype)
    return solved


def _gathered(wide: Tensor, targets: csr_matrix, rows: NDArray[np.integer], length: int) -> tuple[Tensor, Tensor]:
    """Return rows' vectors (rows, length, width) and entries (rows, length), zero beyond each row's own."""
    place = targets.indptr[rows, None] + np.arange(length)
    there = place < targets.indptr[rows + 1, None]
    place = np.where(there, place, targets.indptr[rows, None])
    columns, wanted, inside = (
        torch.as_tensor(array, device=wide.device)
        for array in (
            targets.indices[place].astype(np.int64),
            np.where(there, targets.data[place], 0).astype(np.float64),
            there,
        )
    )
    own = wide.index_select(0, columns.flatten()).view(len(rows), length, -1)
    return own * inside[:, :, None], wanted

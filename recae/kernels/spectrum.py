"""The leading right singular vectors of a sparse matrix.

R   rows × columns, CSR, float32
V   columns × kept: eigenvectors of RᵀR, those of the largest eigenvalues first
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import LinearOperator, eigsh

DENSE = 512
"""Up to how many columns all eigenvectors are computed of RᵀR, dense, whatever the share of them that is wanted."""

SHARE = 3
"""All are computed, too, unless there are more than so many times as many as are wanted: Lanczos keeps twice these."""

NOISE = 1e-6
"""An eigenvalue below this share of the largest is rounding, and its vector could be any."""

ROUNDS, SPARE = 6, 64
"""How often a subspace is sent through RᵀR, and how much wider it is than what is wanted of it."""


def leading(matrix: csr_matrix, count: int, seed: int) -> NDArray[np.float32]:
    """Return V for the `count` largest singular values of R, fewer where its rank is lower; R is not all zero.

    The seed draws where Lanczos' iteration begins: the same one gives the same bits. Another one may turn vectors
    around, or mix those of equal singular values, which leaves VVᵀ as it is unless the last of them are equal.
    """
    columns = matrix.shape[1]
    by_column = matrix.T.tocsr()
    if _all(columns, count):
        values, vectors = _dense(by_column @ matrix)
    else:
        # Not scipy's svds: it would go on to the left vectors, which nobody asked for.
        gram = LinearOperator((columns, columns), matvec=lambda v: by_column @ (matrix @ v), dtype=np.float32)
        start = np.random.default_rng(seed).standard_normal(columns, dtype=np.float32)
        values, vectors = eigsh(gram, count, v0=start)
    return _largest(values, vectors, count)[0]


def nearly_leading(matrix: csr_matrix, count: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return about the V of `leading`, and the eigenvalues, (kept), where hundreds are wanted and near is near enough.

    Subspace iteration, and what Rayleigh and Ritz make of its end: Halko, Martinsson and Tropp 2011, Finding Structure
    with Randomness, algorithms 4.4 and 5.3. The last of the vectors are the least exact.
    """
    columns = matrix.shape[1]
    by_column = matrix.T.tocsr()
    if _all(columns, count):
        values, vectors = _dense(by_column @ matrix)
    else:
        width = min(count + SPARE, columns)
        basis = np.random.default_rng(seed).standard_normal((columns, width), dtype=np.float32)
        for _ in range(ROUNDS):
            # torch's, because numpy's threads are not those that torch is told to use.
            basis = torch.linalg.qr(torch.from_numpy(by_column @ (matrix @ basis)))[0].numpy()
        projected = matrix @ basis
        values, turned = np.linalg.eigh((projected.T @ projected).astype(np.float64))
        vectors = basis @ turned.astype(np.float32)
    return _largest(values, vectors, count)


def memory_needed(rows: int, columns: int, interactions: int, count: int) -> int:
    """Return about how many bytes `leading` takes at its peak."""
    count = min(count, columns)
    vectors = 24 * columns**2 if _all(columns, count) else 16 * columns * (count + 2)
    return vectors + 8 * interactions + 4 * (rows + columns)


def _all(columns: int, count: int) -> bool:
    return columns <= max(DENSE, SHARE * count)


def _dense(gram: csr_matrix) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Return all eigenvalues of a small RᵀR, rising, and its eigenvectors."""
    values, vectors = np.linalg.eigh(gram.toarray().astype(np.float64))
    return values, vectors


def _largest(
    values: NDArray[np.floating], vectors: NDArray[np.floating], count: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the eigenvectors of the largest of rising eigenvalues that are no rounding, and these, largest first."""
    values, vectors = values[-count:], vectors[:, -count:]
    kept = np.flatnonzero(values > NOISE * values[-1])[::-1]
    return np.ascontiguousarray(vectors[:, kept], dtype=np.float32), values[kept].astype(np.float32)

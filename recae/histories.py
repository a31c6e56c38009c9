"""How every model reads the histories it is given: once, here, into arrays of its own.

A history may come with any integer index type, any number type, entries in any order, twice, or explicitly zero.
Nothing here changes what it is given.

    presence   a one wherever a value is not zero: what linear models, neighbours and controls look at, so a rating of
               1 or of -1 counts like a rating of 5 (choose what counts as liked with a threshold, before there is a
               matrix)
    valued     the values themselves: what ALS takes for confidence, and networks for what they are to reconstruct
"""

from hashlib import blake2b
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor
from torch.nn.functional import embedding_bag

from recae.errors import ModelError
from recae.kernels.mkl import HAS_MKL

OBSERVED_ZERO = float(np.finfo(np.float32).tiny)
"""What stands for a value of zero that was observed: everywhere else, an entry of zero is none."""


def valued(histories: csr_matrix, *, zeros: bool = False) -> csr_matrix:
    """Return a float32 copy with sorted, distinct columns and no explicit zero; duplicate entries are summed.

    With `zeros`, an explicit zero is an observation, such as a rating in the middle of its scale: it becomes a number
    that is as good as zero in any sum, and not zero.
    """
    with np.errstate(over="ignore"):  # a value beyond float32 is infinite: see `recae.finite`
        own = csr_matrix(histories, dtype=np.float32, copy=True)
    own.sum_duplicates()
    if zeros:
        own.data[own.data == 0] = OBSERVED_ZERO
    own.eliminate_zeros()
    return own


def presence(histories: csr_matrix) -> csr_matrix:
    """Return `valued` with every value replaced by one."""
    own = valued(histories)
    own.data.fill(1.0)
    return own


def by_length(seen: csr_matrix, exponent: float) -> csr_matrix:
    """Return histories of ones, each times (mean length / its length)^exponent."""
    if not exponent:
        return seen
    lengths = np.diff(seen.indptr)
    weights = (lengths.mean() / np.maximum(lengths, 1)) ** exponent
    return csr_matrix((np.repeat(weights, lengths).astype(np.float32), seen.indices, seen.indptr), shape=seen.shape)


def evenly(rows: int, most: int) -> NDArray[np.int64]:
    """Return which of so many rows are taken where `most` are wanted: all, or some at equal distances."""
    return np.unique(np.linspace(0, max(0, rows - 1), min(rows, most)).round().astype(np.int64))


def users_of_items(seen: csr_matrix) -> NDArray[np.float64]:
    """Return how many of the users of histories of ones each item has, (items), one where there is none."""
    return np.maximum(np.bincount(seen.indices, minlength=seen.shape[1]), 1.0)


def normalised(seen: csr_matrix, user_exponent: float = 0.5, item_exponent: float = 0.5) -> csr_matrix:
    """Return histories of ones, each entry over its user's length and its item's users, to these powers."""
    lengths = np.diff(seen.indptr)
    of_user = np.maximum(lengths, 1.0) ** -user_exponent
    values = np.repeat(of_user, lengths) * users_of_items(seen)[seen.indices] ** -item_exponent
    return csr_matrix((values.astype(np.float32), seen.indices, seen.indptr), shape=seen.shape)


def require_interactions(histories: csr_matrix, model: str) -> None:
    """Raise ModelError unless there is something to learn from: a user, an item, an interaction other than zero."""
    if not np.asarray(histories.data, dtype=np.float32).any():
        users, items = histories.shape
        raise ModelError(
            f"{model} has nothing to learn from: {users} users × {items} items without an interaction other than zero; "
            "look at the values, and at the thresholds that chose them"
        )


def digests(histories: csr_matrix, salt: bytes = b"") -> list[bytes]:
    """Return 16 bytes (BLAKE2b) for each history, the same for the same items and salt, wherever it stands.

    That any two of a hundred million different histories share one has a probability of about 10⁻²³, so equal
    digests may be taken for equal histories. A salt has at most 64 bytes.
    """
    seen = presence(histories)
    columns = seen.indices.astype("<i4")
    return [
        blake2b(columns[start:stop].tobytes(), digest_size=16, key=salt).digest()
        for start, stop in pairwise(seen.indptr)
    ]


def multiply(histories: csr_matrix, vectors: Tensor) -> Tensor:
    """Return histories @ vectors, users × dimension, on the device of `vectors` (items × dimension, float32).

    Each row is summed by itself, in column order: a history's result does not depend on its neighbours in the block.
    """
    device = vectors.device
    indptr, indices, data = (
        torch.as_tensor(array, device=device) for array in (histories.indptr, histories.indices, histories.data)
    )
    if device.type == "cpu" and HAS_MKL:
        # On the CPU more than ten times as fast as a sum over bags, which is for CUDA and for machines without MKL.
        sparse = torch.sparse_csr_tensor(indptr, indices, data, size=histories.shape, check_invariants=False)
        product: Tensor = sparse @ vectors
        return product
    return embedding_bag(indices, vectors, indptr, mode="sum", include_last_offset=True, per_sample_weights=data)

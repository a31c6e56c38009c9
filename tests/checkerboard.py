"""Data with a known answer: even users like even items, odd users odd ones."""

import numpy as np
from scipy.sparse import csr_matrix

from recae.validation import Validation


def checkerboard(size: int = 12, *, rated: bool = False) -> Validation:
    """Return histories and held-out items, size × size, whose one right answer is known.

    User u's history is every item of u's parity but item u itself, which is held out. A model that learns that
    items of one parity go together ranks item u first for user u: recall@1 is 1. Popularity cannot: every item is
    equally popular, so ties go to the lowest unseen columns, mostly of the wrong parity.

    Where it is `rated`, histories hold what is liked as 5 and what is not as 1, but for the items on either side of
    item u, which nobody rated either: every item has the same mean, and ties go to the one before u.
    """
    row, column = np.indices((size, size))
    liked = (row + column) % 2 == 0
    diagonal = row == column
    if rated:
        known = ~np.isin((column - row) % size, (0, 1, size - 1))
        return Validation(
            history=csr_matrix(np.where(liked, 5, 1) * known, dtype=np.float32),
            held_out=csr_matrix(5 * diagonal, dtype=np.float32),
        )
    return Validation(
        history=csr_matrix((liked & ~diagonal).astype(np.float32)),
        held_out=csr_matrix((liked & diagonal).astype(np.float32)),
    )

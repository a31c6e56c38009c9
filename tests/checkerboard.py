"""Data with a known answer: even users like even items, odd users odd ones."""

import numpy as np
from scipy.sparse import csr_matrix

from recae.validation import Validation


def checkerboard(size: int = 12) -> Validation:
    """Return histories and held-out items, size × size, whose one right answer is known.

    User u's history is every item of u's parity but item u itself, which is held out. A model that learns that
    items of one parity go together ranks item u first for user u: recall@1 is 1. Popularity cannot: every item is
    equally popular, so ties go to the lowest unseen columns, mostly of the wrong parity.
    """
    row, column = np.indices((size, size))
    liked = (row + column) % 2 == 0
    diagonal = row == column
    return Validation(
        history=csr_matrix((liked & ~diagonal).astype(np.float32)),
        held_out=csr_matrix((liked & diagonal).astype(np.float32)),
    )

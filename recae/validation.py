"""What a training is judged by while it goes on."""

from dataclasses import dataclass

from scipy.sparse import csr_matrix


@dataclass(frozen=True)
class Validation:
    """Histories to score and the held-out items to find in them; both users × items, the same users in order."""

    history: csr_matrix
    held_out: csr_matrix

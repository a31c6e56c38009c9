"""Users who never were, made up a block at a time, and how much they are like those who are.

real, made_up: histories, users × items, of the same items.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.stats import rankdata

from recae.histories import presence
from recae.models.base import Generator

BLOCK = 128
"""How many users are made up at a time, always: so that the first ones are the same however many are asked for."""


def make_up(model: Generator, users: int, seed: int) -> Iterator[csr_matrix]:
    """Yield histories of so many users who never were, in blocks; each block has a seed of its own, drawn from this."""
    for number, start in enumerate(range(0, users, BLOCK)):
        own = np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)[0]
        yield model.sample(BLOCK, int(own >> 1))[: users - start]


@dataclass(frozen=True)
class Likeness:
    """How much made-up users are like real ones, as a whole.

    rank_correlation, correlation: of the items' popularity, Spearman's and Pearson's
    length_distance:               Kolmogorov and Smirnov's, of the lengths of histories, from 0 to 1
    """

    rank_correlation: float
    correlation: float
    length_distance: float

    @classmethod
    def of(cls, real: csr_matrix, made_up: csr_matrix) -> "Likeness":
        """Compare histories."""
        popular = [histories.getnnz(axis=0) for histories in (real, made_up)]
        lengths = [np.sort(histories.getnnz(axis=1)) for histories in (real, made_up)]
        either = np.concatenate(lengths)
        up_to = [np.searchsorted(some, either, side="right") / len(some) for some in lengths]
        return cls(
            rank_correlation=_correlation(*(rankdata(counts) for counts in popular)),
            correlation=_correlation(*popular),
            length_distance=float(np.abs(up_to[0] - up_to[1]).max()),
        )


def _correlation(one: NDArray[Any], other: NDArray[Any]) -> float:
    one, other = one - one.mean(), other - other.mean()
    return float(one @ other / np.sqrt((one @ one) * (other @ other)))


def nearest_likeness(histories: csr_matrix, others: csr_matrix) -> NDArray[np.float64]:
    """Return for each history its largest Jaccard similarity to any of the others, (users): 1 is a copy.

    That of two users is the share of the items that both have among those that either has. Two users without items
    have nothing in common.
    """
    given, compared = presence(histories), presence(others)
    lengths = compared.getnnz(axis=1)
    nearest = np.zeros(given.shape[0])
    for start in range(0, given.shape[0], BLOCK):
        some = given[start : start + BLOCK]
        both = np.asarray((some @ compared.T).todense())
        either = some.getnnz(axis=1)[:, None] + lengths - both
        nearest[start : start + BLOCK] = (both / np.maximum(either, 1)).max(axis=1, initial=0)
    return nearest

"""Users who never were, made up a block at a time, and how much they are like those who are.

real, made_up: histories, users × items, of the same items.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack
from scipy.stats import rankdata

from recae.histories import digests, evenly, presence
from recae.models.base import Generator

BLOCK = 128
"""How many users are made up at a time, always: so that the first ones are the same however many are asked for."""

COMPARED = 2000
"""How many users are compared with all others one by one, at most."""


def make_up(model: Generator, users: int, seed: int) -> Iterator[csr_matrix]:
    """Yield histories of so many users who never were, in blocks; each block has a seed of its own, drawn from this."""
    for number, start in enumerate(range(0, users, BLOCK)):
        own = np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)[0]
        yield model.sample(BLOCK, int(own >> 1))[: users - start]


@dataclass(frozen=True)
class Likeness:
    """How much made-up users are like real ones, as a whole.

    rank_correlation, correlation: of the items' popularity, Spearman's and Pearson's
    length_distance:               Kolmogorov and Smirnov's, of the lengths of histories, from 0 to 1; NaN where one
                                   side's are not known
    """

    rank_correlation: float
    correlation: float
    length_distance: float

    @classmethod
    def of(cls, real: csr_matrix, made_up: csr_matrix) -> "Likeness":
        """Compare histories."""
        sides = (real, made_up)
        popular, lengths = ([histories.getnnz(axis=axis) for histories in sides] for axis in (0, 1))
        return cls.of_counts(popular, lengths)

    @classmethod
    def of_counts(cls, popular: Sequence[NDArray[Any]], lengths: Sequence[NDArray[Any]] | None) -> "Likeness":
        """Compare how many users items have, and how many items users have, of the real ones and of the others."""
        return cls(
            rank_correlation=_correlation(*(rankdata(counts) for counts in popular)),
            correlation=_correlation(*popular),
            length_distance=float("nan") if lengths is None else _length_distance(*lengths),
        )


def _correlation(one: NDArray[Any], other: NDArray[Any]) -> float:
    one, other = one - one.mean(), other - other.mean()
    spread = float(np.sqrt((one @ one) * (other @ other)))
    return float(one @ other) / spread if spread else float("nan")


def _length_distance(one: NDArray[Any], other: NDArray[Any]) -> float:
    either = np.concatenate([one, other])
    up_to = [np.searchsorted(np.sort(some), either, side="right") / len(some) for some in (one, other)]
    return float(np.abs(up_to[0] - up_to[1]).max())


@dataclass(frozen=True, eq=False)
class Nearest:
    """For each of some users, (users): the row of the other one who is most like them, and how much, from 0 to 1."""

    rows: NDArray[np.int64]
    likeness: NDArray[np.float64]


def nearest_of(histories: csr_matrix, others: csr_matrix, *, but: NDArray[np.int64] | None = None) -> Nearest:
    """Return for each history the first of the others with the largest Jaccard similarity: 1 is a copy.

    That of two users is the share of the items that both have among those that either has. Two users without items
    have nothing in common. `but` (users) names for each a row of the others that does not count: their own.
    """
    given, compared = presence(histories), presence(others)
    lengths = compared.getnnz(axis=1)
    users = given.shape[0]
    rows, nearest = np.zeros(users, dtype=np.int64), np.zeros(users)
    for start in range(0, users if len(lengths) else 0, BLOCK):
        some = given[start : start + BLOCK]
        block, numbers = slice(start, start + some.shape[0]), np.arange(some.shape[0])
        both = np.asarray((some @ compared.T).todense())
        likeness = both / np.maximum(some.getnnz(axis=1)[:, None] + lengths - both, 1)
        if but is not None:
            likeness[numbers, but[block]] = -1
        rows[block] = likeness.argmax(axis=1)
        nearest[block] = np.maximum(likeness[numbers, rows[block]], 0)
    return Nearest(rows, nearest)


def nearest_likeness(histories: csr_matrix, others: csr_matrix) -> NDArray[np.float64]:
    """Return for each history its largest likeness to any of the others, (users): see `nearest_of`."""
    return nearest_of(histories, others).likeness


def some_of(users: int) -> NDArray[np.int64]:
    """Return the rows of the users, evenly drawn, who are compared with all others one by one."""
    return evenly(users, COMPARED)


class Onlooker:
    """Sees made-up users pass by, and remembers what of them can be told without keeping them all.

    popularity: (items), how many have each item
    lengths:    (users), how many items each has
    first:      histories of the first of them, COMPARED at most
    copies:     (copies), the lengths of those who have just the items of one of the real users, if these are known
    """

    def __init__(self, items: int, real: csr_matrix | None = None) -> None:
        self.popularity = np.zeros(items, dtype=np.int64)
        self._real = None if real is None else set(digests(real))
        self._lengths: list[NDArray[np.int64]] = []
        self._first: list[csr_matrix] = []
        self._copies: list[NDArray[np.int64]] = []

    def see(self, block: csr_matrix) -> None:
        """Remember a block of users."""
        lengths = block.getnnz(axis=1).astype(np.int64)
        left = max(0, COMPARED - sum(map(len, self._lengths)))
        self._lengths.append(lengths)
        self.popularity += block.getnnz(axis=0)
        if left:
            self._first.append(block[:left])
        if self._real is not None:
            known = np.array([digest in self._real for digest in digests(block)], dtype=bool)
            self._copies.append(lengths[known])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """How many items each user has."""
        return np.concatenate(self._lengths)

    @property
    def first(self) -> csr_matrix:
        """The first users."""
        return csr_matrix(vstack(self._first))

    @property
    def copies(self) -> NDArray[np.int64]:
        """The lengths of the copies."""
        return np.concatenate([np.empty(0, np.int64), *self._copies])

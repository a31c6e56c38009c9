"""The nearest neighbours of items by the cosine, at a cost that follows the interactions there are.

    X         users × items, CSR
    shared    XᵀX: how many users have both of two items
    meetings  of an item: Σ n over its users, who have n items each; its row of `shared` is added up from so many ones

A row is added up in one of two ways. Where an item meets few others, as almost all do in a large catalogue, each
meeting is written down as a number made of its row and column; they are sorted, and equal ones counted. Where it meets
many, the row is dense.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recae.kernels.gram import dense_product
from recae.threads import side_by_side

BLOCK = 2**20
"""How many meetings, or entries of dense rows, are worked on at a time; one row may have more."""

MANY = 1
"""From so many meetings for each item of the catalogue on, a row is dense: about there both ways take as long."""

COUNTED = 2**24
"""How many users float32 can count one by one."""

KEYS = 2**32
"""How many entries the rows of a block may have, their zeros included: each has a number of 32 bits."""


def nearest(histories: csr_matrix, count: int, shrinkage: float) -> csr_matrix:
    """Return the similarities of each item to the `count` others most similar to it, items × items, float32.

    The similarity of two items is shared / (√(users of one) · √(users of the other) + shrinkage) in float64; the first
    columns are chosen among equals, and none that is zero. `histories` are float32 ones with distinct columns in each
    row. The columns of a row of the result come in no order.
    """
    catalogue = _Catalogue.of(histories, count, shrinkage)
    side_by_side(lambda block: block(), list(_blocks(catalogue)))
    items = histories.shape[1]
    rows = csr_matrix((catalogue.similarities, catalogue.columns, catalogue.places), shape=(items, items))
    rows.eliminate_zeros()  # the places that were not filled
    return rows


def memory_needed(histories: csr_matrix, count: int) -> int:
    """Return about how many bytes `nearest`, and then the transposition of its result, take at their peak."""
    items, places = histories.shape[1], int(_places(histories, count)[-1])
    block = min(max(BLOCK, items), items**2) * torch.get_num_threads()
    # The neighbours twice over, the histories in three other orders, and what is worked on.
    return (16 if places < 2**31 else 28) * places + 40 * histories.nnz + 64 * (items + block)


@dataclass(frozen=True, eq=False)
class _Catalogue:
    """What all blocks read, and where each writes what it finds.

    `rows` are the items, those that meet fewest first; they begin to meet any at `first`, and many at `dense`.
    `meetings` and `by_item`, which is Xᵀ, have this order too. `by_user` is X with its columns in another: the rarest
    item first, which is item rarest[0]; `rank` is the inverse of `rarest`. `root` is √users, by item. What is nearest
    to an item goes into `columns` and `similarities` from places[item] on.
    """

    histories: csr_matrix
    rows: NDArray[np.int64]
    first: int
    dense: int
    meetings: NDArray[np.int64]
    by_item: csr_matrix
    by_user: csr_matrix
    rarest: NDArray[np.int64]
    rank: NDArray[np.uint32]
    root: NDArray[np.float64]
    count: int
    shrinkage: float
    places: NDArray[np.int64]
    columns: NDArray[np.int32]
    similarities: NDArray[np.float32]

    @classmethod
    def of(cls, histories: csr_matrix, count: int, shrinkage: float) -> "_Catalogue":
        users, meetings = _users(histories), _meetings(histories)
        items, places = len(users), _places(histories, count)
        rows, rarest = np.argsort(meetings, kind="stable"), np.argsort(users, kind="stable")
        first, dense = np.searchsorted(meetings[rows], [1, MANY * items]).tolist()
        rank = np.argsort(rarest).astype(np.uint32)
        # Nobody reads the values of these: a byte each.
        values, ranks = np.ones(histories.nnz, np.int8), rank[histories.indices].view(np.int32)
        return cls(
            histories=histories,
            rows=rows,
            first=first,
            dense=dense,
            meetings=meetings[rows],
            by_item=histories.T.tocsr()[rows],
            by_user=csr_matrix((values, ranks, histories.indptr), shape=histories.shape),
            rarest=rarest,
            rank=rank,
            root=np.sqrt(users.astype(np.float64)),
            count=min(count, items),
            shrinkage=shrinkage,
            places=places,
            columns=np.zeros(places[-1], np.int32),
            similarities=np.zeros(places[-1], np.float32),
        )

    def similarity(self, shared: NDArray, one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return that of items that share so many users; the three arrays are broadcast."""
        # Only an item without users has a root below 1: it shares none, and 0 / 0 is no similarity.
        return shared / np.maximum(self.root[one] * self.root[other] + self.shrinkage, 1e-12)


def _users(histories: csr_matrix) -> NDArray[np.int64]:
    return np.bincount(histories.indices, minlength=histories.shape[1])


def _meetings(histories: csr_matrix) -> NDArray[np.int64]:
    lengths = np.diff(histories.indptr)
    return np.bincount(histories.indices, np.repeat(lengths, lengths), histories.shape[1]).astype(np.int64)


def _places(histories: csr_matrix, count: int) -> NDArray[np.int64]:
    """Return where the places of each item begin, (items + 1): it has no more neighbours than it meets others."""
    others = np.minimum(_meetings(histories) - _users(histories), histories.shape[1] - 1)
    return np.concatenate([[0], np.minimum(others, count).cumsum()])


def _blocks(catalogue: _Catalogue) -> Iterator[Callable[[], None]]:
    """Yield work on all rows that meet any: no more than fit in BLOCK at a time, but at least one."""
    items, upto = len(catalogue.rows), catalogue.meetings.cumsum()
    start = catalogue.first
    while start < catalogue.dense:
        reached = int(np.searchsorted(upto, upto[start] - catalogue.meetings[start] + BLOCK, side="right"))
        stop = min(max(start + 1, reached), start + KEYS // items, catalogue.dense)
        yield partial(_few, catalogue, slice(start, stop))
        start = stop
    step = max(1, BLOCK // items)
    for start in range(catalogue.dense, items, step):
        yield partial(_many, catalogue, slice(start, start + step))


def _few(catalogue: _Catalogue, rows: slice) -> None:
    """Find and write down what is nearest to items that meet few."""
    items, own, by_item = len(catalogue.rows), catalogue.rows[rows], catalogue.by_item
    users = by_item.indices[by_item.indptr[rows.start] : by_item.indptr[rows.stop]]
    row_keys = np.arange(len(own), dtype=np.uint32) * np.uint32(items)
    keys = np.repeat(row_keys, catalogue.meetings[rows])
    keys += catalogue.by_user[users].indices.astype(np.uint32, copy=False)
    keys.sort()
    new = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    shared, keys = np.diff(new, append=len(keys)), keys[new]
    shared[np.searchsorted(keys, row_keys + catalogue.rank[own])] = 0  # with itself

    # Of those met once the rarest are the most similar, and they come first: only `count` of them can be wanted. (That
    # is so of similarities in float64 too, unless shrinkage is beyond 10¹².)
    begins = np.searchsorted(keys, row_keys)
    once = shared == 1
    upto = once.cumsum()
    last = np.repeat(upto[begins] - once[begins] + catalogue.count, np.diff(begins, append=len(keys)))
    wanted = np.flatnonzero((shared > 1) | (once & (upto <= last)))
    row, rank = np.divmod(keys[wanted], np.uint32(items))
    _write(catalogue, own, row, catalogue.rarest[rank], shared[wanted])


def _many(catalogue: _Catalogue, rows: slice) -> None:
    """Find and write down what is nearest to items that meet many."""
    own = catalogue.rows[rows]
    shared = _shared(catalogue.by_item[rows], catalogue.histories)
    shared[np.arange(len(own)), own] = 0
    similarity = catalogue.similarity(shared, own[:, None], np.arange(len(catalogue.rows)))
    bound = np.partition(similarity, -catalogue.count, axis=1)[:, -catalogue.count, None]
    wanted = np.flatnonzero((similarity >= bound) & (shared > 0))
    row, column = np.divmod(wanted, len(catalogue.rows))
    _write(catalogue, own, row, column, shared.ravel()[wanted])


def _shared(by_item: csr_matrix, histories: csr_matrix) -> NDArray:
    """Return how many users items share with all others: counted in float32, COUNTED users at a time."""
    users = histories.shape[0]
    if users <= COUNTED:
        return dense_product(by_item, histories).numpy()
    total = np.zeros((by_item.shape[0], histories.shape[1]))
    for start in range(0, users, COUNTED):
        some = slice(start, start + COUNTED)
        total += dense_product(by_item[:, some], histories[some]).numpy()
    return total


def _write(
    catalogue: _Catalogue, own: NDArray[np.int64], row: NDArray, column: NDArray[np.int64], shared: NDArray
) -> None:
    """Write down the best of each row: row (ascending), column and shared (entries) hold them, and others."""
    exact = catalogue.similarity(shared, own[row], column)
    values = exact.astype(np.float32)
    sizes = np.bincount(row, minlength=len(own))
    # Sorted, the numbers made of a row and of the inverted bits of a similarity have the highest of a row first.
    keys = row.astype(np.uint64) << np.uint64(32) | ~values.view(np.uint32)
    keys.sort()
    crowded = np.flatnonzero(sizes > catalogue.count)
    bound = np.zeros(len(own), np.float32)
    bound[crowded] = (~keys[_starts(sizes)[crowded] + catalogue.count - 1].astype(np.uint32)).view(np.float32)
    chosen, level = values > bound[row], np.flatnonzero(values == bound[row])
    # What float32 cannot tell from the last that is wanted: the exact similarities decide, and then the columns.
    level = level[np.lexsort((column[level], -exact[level], row[level]))]
    levels = np.bincount(row[level], minlength=len(own))
    room = catalogue.count - np.bincount(row[chosen], minlength=len(own))
    chosen[level[np.arange(len(level)) < np.repeat(_starts(levels) + room, levels)]] = True
    chosen &= values > 0

    sizes = np.bincount(row[chosen], minlength=len(own))
    places = np.arange(sizes.sum()) + np.repeat(catalogue.places[own] - _starts(sizes), sizes)
    catalogue.columns[places], catalogue.similarities[places] = column[chosen], values[chosen]


def _starts(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    return sizes.cumsum() - sizes

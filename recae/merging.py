"""From events to the entries of a matrix: sorted by user and item, one for each pair of them.

Two counting sorts put n events in order in O(n), where a comparison sort of 20 million takes its time.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

Duplicates = Literal["last", "first", "max", "sum", "mean"]
"""What becomes of several events of one user with one item.

The latest or the earliest stays (by time, then by row); or they become their largest value, sum or mean, with the
latest time.
"""

Entries = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64], NDArray[Any] | None]
"""User codes, item codes, values and times (None where there are none), one entry an event."""


def merge(
    users: NDArray[np.int32],
    items: NDArray[np.int32],
    values: NDArray[np.float64],
    times: NDArray[Any] | None,
    rule: Duplicates,
) -> Entries:
    """Return one entry for each pair of user and item, in ascending order of both; codes count from 0."""
    order = _counting_sort(items)
    order = order[_counting_sort(users[order])]
    users, items = users[order], items[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (users[1:] != users[:-1]) | (items[1:] != items[:-1])
    if first.all():
        return users, items, values[order], None if times is None else times[order]
    starts = np.flatnonzero(first)
    if rule in ("last", "first"):
        kept = order[_kept(first, starts, None if times is None else times[order], rule == "last")]
        return users[starts], items[starts], values[kept], None if times is None else times[kept]
    reduce = np.maximum if rule == "max" else np.add
    merged = reduce.reduceat(values[order], starts)
    if rule == "mean":
        merged /= np.diff(starts, append=len(order))
    return users[starts], items[starts], merged, None if times is None else np.maximum.reduceat(times[order], starts)


def _kept(first: NDArray[np.bool_], starts: NDArray[np.intp], times: NDArray[Any] | None, last: bool) -> NDArray[Any]:
    """Return the place of the latest (or earliest) event of each pair; among equal times the last (or first) row."""
    if times is None:
        return np.append(starts[1:], len(first)) - 1 if last else starts
    extreme = np.maximum if last else np.minimum
    pair = np.cumsum(first) - 1
    among = times == extreme.reduceat(times, starts)[pair]
    places = np.arange(len(first))
    return np.asarray(extreme.reduceat(np.where(among, places, -1 if last else len(first)), starts))


def _counting_sort(codes: NDArray[np.int32]) -> NDArray[Any]:
    """Return the stable order of small codes: the transpose of the matrix whose row n has a one at column codes[n]."""
    n = len(codes)
    rows = np.arange(n + 1, dtype=np.int32 if n < 2**31 - 1 else np.int64)
    one_each: Any = (np.ones(n, dtype=np.int8), codes, rows)
    return csr_matrix(one_each, shape=(n, int(codes.max(initial=0)) + 1)).tocsc().indices

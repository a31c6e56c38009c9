"""From events to the entries of a matrix: sorted by user and item, one for each pair of them.

User, item and row together are one number where 63 bits hold them, and numpy sorts those by the processor's vector
instructions; else two counting sorts put the events in order.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recae.preparation import Duplicates

BITS = 63
"""How many a signed integer has for numbers that are not negative."""

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
    users, items, order = _sorted(users, items)
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


def _sorted(
    users: NDArray[np.int32], items: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[Any]]:
    """Return users and items in ascending order of both, and the row of each; equal ones keep their order."""
    rows, item_bits = (int(most).bit_length() for most in (max(len(users) - 1, 0), items.max(initial=0)))
    if rows + item_bits + int(users.max(initial=0)).bit_length() > BITS:
        order = _counting_sort(items)
        order = order[_counting_sort(users[order])]
        return users[order], items[order], order
    keys = (users.astype(np.int64) << item_bits) | items
    keys <<= rows
    keys |= np.arange(len(keys))
    keys.sort()
    order = keys & ((1 << rows) - 1)
    keys >>= rows
    return (keys >> item_bits).astype(np.int32), (keys & ((1 << item_bits) - 1)).astype(np.int32), order


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

"""From a log to the sorted columns of a matrix, in two passes over its events, a bounded piece of them at a time.

The first pass finds the distinct ids. The second turns ids into codes and leaves the events in runs; then they are
merged, a block of users after the other. A log in memory is a single piece, and its runs are in memory; all else is
the same.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recae.errors import EventsError
from recae.events import BAD_ROWS, ITEM, TIME, USER, VALUE, Events, EventStream
from recae.ids import UNKNOWN, IdMap
from recae.merging import merge
from recae.preparation import Preparation
from recae.rows import alike, as_index
from recae.runs import Block, Column, Run, Runs
from recae.workers import in_order

PENDING = 1 << 22
"""Ids that wait, most of them known already, until they are made distinct."""

CROWDED = 16
"""Ids in one bin of a range, beyond which looking through them takes longer than hashing."""


@dataclass(frozen=True, eq=False)
class Gathered:
    """What belongs to the columns of a matrix: ids, how many interactions each user has, and the counts."""

    users: IdMap
    items: IdMap
    lengths: NDArray[np.int64]
    counts: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Merged:
    """A block's interactions, as columns of the matrix; how many items each user has, and how many are in them."""

    columns: Mapping[str, NDArray[Any]]
    touched: NDArray[np.int64]
    stored: NDArray[np.int64]


def gather(
    events: Events | EventStream,
    preparation: Preparation,
    *,
    min_items: int,
    vocabulary: IdMap | None,
    open_column: Callable[[str, Any], Column],
    open_scratch: Callable[[], BinaryIO],
) -> Gathered:
    """Write the columns `indices`, `data` and, where the log has them, `times` of the matrix that a log makes.

    Rules, counts and errors are those of `Interactions.from_events`.
    """
    if min_items < 1:
        raise ValueError(f"min_items is at least 1, not {min_items}")
    users, items = _distinct_ids(events)
    known = len(items if vocabulary is None else vocabulary)
    runs, counts = _runs(events, preparation, users, items, vocabulary, open_scratch)
    columns = {name: open_column(name, dtype) for name, dtype in (("indices", np.int32), ("data", np.float32))}
    if TIME in runs.columns:
        columns["times"] = open_column("times", runs.columns[TIME].dtype)
    work = partial(_merged, preparation=preparation, min_items=min_items, known=known, source=events.source)
    blocks: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    present = np.zeros(known, dtype=bool)
    for block in in_order(work, runs.blocks()):
        blocks.append((block.touched, block.stored))
        present[block.columns["indices"]] = True
        for name, column in columns.items():
            column.append(block.columns[name])

    touched, stored = (np.concatenate(lengths) for lengths in zip(*blocks, strict=True))
    long = touched >= min_items
    counts["duplicates"] = runs.length - int(touched.sum())
    counts["short_users"] = int(np.count_nonzero(touched) - long.sum())
    counts["events_of_short_users"] = int(touched[~long].sum())
    if not long.any():
        raise EventsError(
            f"{events.source}: no user has {min_items} distinct items, the longest history {touched.max()}; "
            "lower --min-items"
        )
    if vocabulary is not None:
        counts["unknown_item_events"] = int(touched[long].sum() - stored.sum())
    elif not present.all():
        place = np.cumsum(present, dtype=np.int32) - 1
        columns["indices"].change(lambda indices: place[indices])
    counts["interactions"] = int(stored.sum())
    vocabulary = IdMap(items.ids[present]) if vocabulary is None else vocabulary
    return Gathered(IdMap(users.ids[long]), vocabulary, stored[long], counts)


def _runs(
    events: Events | EventStream,
    preparation: Preparation,
    users: IdMap,
    items: IdMap,
    vocabulary: IdMap | None,
    open_scratch: Callable[[], BinaryIO],
) -> tuple[Runs, dict[str, int]]:
    """Return all the events that count as codes, and what became of the others."""
    column = None if vocabulary is None else _columns(items, vocabulary)
    types: dict[str, Any] = {USER: np.int32, ITEM: np.int32}
    if preparation.values == "keep" and VALUE in events.columns:
        types[VALUE] = np.float64
    if TIME in events.columns:
        types[TIME] = np.float64 if events.columns[TIME] == pa.float64() else np.int64
    runs = Runs(USER, len(users), {role: Column(open_scratch(), dtype) for role, dtype in types.items()})

    find_user, find_item = _Finder(users), _Finder(items)

    def sort(table: pa.Table) -> tuple[list[Run], int, tuple[float, float]]:
        above = _above(table, preparation.min_value)
        item = find_item.codes(above[ITEM])
        coded = {USER: find_user.codes(above[USER]), ITEM: item if column is None else column[item]}
        coded |= {role: above[role].to_numpy() for role in types if role in (VALUE, TIME)}
        return runs.sort(coded), table.num_rows, _span(table)

    read, lowest, highest = 0, np.inf, -np.inf
    bad: dict[str, int] = {}
    for (sorted_runs, rows, (low, high)), counts in events.pieces(sort):
        read, lowest, highest = read + rows, min(lowest, low), max(highest, high)
        bad = {key: n for key in BAD_ROWS if (n := bad.get(key, 0) + counts.get(key, 0))}
        for run in sorted_runs:
            runs.append(run)
    told = {"events": read + sum(bad.values()), **bad}
    if preparation.min_value is not None:
        has_values = VALUE in events.columns
        told |= {"below_min_value": read - runs.length} if has_values else {"min_value_ignored": read}
    elif lowest < highest:
        told["with_values"] = read
    if read and not runs.length:
        raise EventsError(
            f"{events.source}: no event has a value of {preparation.min_value:g} or more, the highest is {highest:g}; "
            "train with a lower --min-value"
        )
    if not read:
        raise EventsError(f"{events.source}: no events in it; is it the right file?")
    return runs, told


def _merged(block: Block, *, preparation: Preparation, min_items: int, known: int, source: str) -> Merged:
    """Merge a block's events, and leave out users who are short and items that are unknown: `known` and beyond."""
    events, width = block.events, block.end - block.first
    values = events.get(VALUE, np.ones(len(events[USER])))
    user, item, data, times = merge(
        events[USER] - np.int32(block.first), events[ITEM], values, events.get(TIME), preparation.duplicates
    )
    touched = np.bincount(user, minlength=width)
    stay = (touched >= min_items)[user] & (item < known)
    if not stay.all():
        user, item, data = user[stay], item[stay], data[stay]
        times = None if times is None else times[stay]
    binary = preparation.values == "binary"
    columns = {"indices": item, "data": np.ones(len(data), np.float32) if binary else _single(data, source)}
    if times is not None:
        columns["times"] = times
    return Merged(columns, touched, np.bincount(user, minlength=width))


def _distinct_ids(events: Events | EventStream) -> tuple[IdMap, IdMap]:
    """Return the ids of users and items, ascending; some may have bad rows alone, or events that do not count."""
    known = {USER: _Ids(), ITEM: _Ids()}
    for found in events.ids(lambda table: {role: _distinct(table[role]) for role in known}):
        for role, ids in found.items():
            known[role].add(ids)
    return known[USER].ascending(events.source), known[ITEM].ascending(events.source)


class _Ids:
    """Distinct ids, of one type or several."""

    def __init__(self) -> None:
        self.found: dict[pa.DataType, list[pa.Array]] = {}

    def add(self, ids: pa.Array) -> None:
        """Add ids, some of which may be known."""
        same = self.found.setdefault(ids.type, [])
        same.append(ids)
        if sum(map(len, same[1:])) > max(PENDING, len(same[0])):
            same[:] = [_distinct(pa.chunked_array(same))]

    def ascending(self, source: str) -> IdMap:
        """Return all of them as one type: text, if some are text."""
        columns = [pa.chunked_array(same) for same in self.found.values()]
        columns = [column.dictionary_encode() if column.type == pa.string() else column for column in columns]
        tables = alike([pa.table({"id": column}) for column in columns], source)
        distinct = _distinct(pa.concat_tables(tables)["id"])
        if distinct.type == pa.string():
            distinct = distinct.take(pc.array_sort_indices(distinct))
        return IdMap(as_index(distinct))


def _distinct(column: pa.ChunkedArray) -> pa.Array:
    """Return the distinct ids of a column: integers in ascending order, or text; a dictionary's whether used or not."""
    if pa.types.is_dictionary(column.type):
        column = pa.chunked_array([chunk.dictionary for chunk in column.chunks], column.type.value_type)
    if column.type == pa.string():
        return column.unique().drop_null()
    # Sorted by the processor's vector instructions: several times faster than any hash table.
    ids = np.sort(column.drop_null().to_numpy())
    fresh = np.ones(len(ids), dtype=bool)
    np.not_equal(ids[1:], ids[:-1], out=fresh[1:])
    return pa.array(ids[fresh])


class _Finder:
    """Where ids are among the distinct ones: as `IdMap.to_index`, for ids that are all there, and faster.

    Integers are looked for by arithmetic: twice as many bins as ids cut their range evenly, and an id is the first of
    its bin or one of the next few. Dense ids, drawn ones and hashes have that; those that crowd in few bins, and
    text, go by the hash table of the map.
    """

    def __init__(self, ids: IdMap) -> None:
        self.ids = ids
        self.sorted: NDArray[Any] | None = None
        if ids.ids.dtype in (np.int64, np.uint64) and len(ids):
            own = ids.ids.to_numpy()
            self.shift = max(0, (int(own[-1]) - int(own[0])).bit_length() - (2 * len(own)).bit_length())
            self.low = own[0]
            sizes = np.bincount(self._bins(own))
            self.most = int(sizes.max())
            if self.most <= CROWDED:
                self.sorted = own
                self.first = np.zeros(len(sizes) + 1, dtype=np.int32)
                np.cumsum(sizes, out=self.first[1:])
        if self.sorted is None:
            ids.to_index(ids.ids[:1])  # makes the hash table, before several threads want it

    def codes(self, column: pa.ChunkedArray) -> NDArray[np.int32]:
        """Return the index of each event's id."""
        if pa.types.is_dictionary(column.type):
            column = column.unify_dictionaries()
            index = [self._to_index(chunk.dictionary.to_pandas()) for chunk in column.chunks[:1]]
            places = [index[0][chunk.indices.to_numpy()] for chunk in column.chunks]
            return np.concatenate(places) if places else np.zeros(0, dtype=np.int32)
        plain = column.to_numpy()
        own = self.ids.ids.dtype
        plain = plain.astype(own) if own == np.uint64 else plain
        return self._to_index(plain) if self.sorted is None else self._found(plain, self.sorted)

    def _found(self, ids: NDArray[Any], own: NDArray[Any]) -> NDArray[np.int32]:
        place = self.first[self._bins(ids)]
        astray = np.flatnonzero(own[place] != ids)
        for _ in range(self.most):
            place[astray] += 1
            astray = astray[own[place[astray]] != ids[astray]]
        return place

    def _bins(self, ids: NDArray[Any]) -> NDArray[np.int64]:
        # The difference of two signed numbers of 64 bits, wrapped around, is right as an unsigned one.
        bins: NDArray[np.int64] = ((ids - self.low).view(np.uint64) >> np.uint64(self.shift)).view(np.int64)
        return bins

    def _to_index(self, ids: Any) -> NDArray[np.int32]:
        return self.ids.to_index(ids).astype(np.int32)


def _columns(items: IdMap, vocabulary: IdMap) -> NDArray[np.int32]:
    """Return the items' columns in a vocabulary; the unknown ones get columns of their own beyond it.

    Merging and counting then treat all alike.
    """
    column = vocabulary.to_index(items.ids)
    strange = column == UNKNOWN
    column[strange] = len(vocabulary) + np.arange(strange.sum())
    return column.astype(np.int32)


def _above(table: pa.Table, min_value: float | None) -> pa.Table:
    """Return the events whose value is at least `min_value`: all, where there are no values."""
    if min_value is None or VALUE not in table.column_names:
        return table
    return table.filter(pc.greater_equal(table[VALUE], float(min_value)))


def _span(table: pa.Table) -> tuple[float, float]:
    """Return the lowest and the highest value; infinity and its negative where there are none."""
    if VALUE not in table.column_names or not table.num_rows:
        return np.inf, -np.inf
    span = pc.min_max(table[VALUE])
    return span["min"].as_py(), span["max"].as_py()


def _single(values: NDArray[np.float64], source: str) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    if not np.isfinite(single).all():
        raise EventsError(f"{source}: values beyond {np.finfo(np.float32).max:.1e} cannot be kept; scale them down")
    return single

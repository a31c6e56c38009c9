"""The matrix of interactions: here the outside world's ids stop; everything below knows indices only."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recae.errors import EventsError
from recae.events import BAD_ROWS, ITEM, TIME, USER, VALUE, Events
from recae.files import sha256, whole_directory
from recae.ids import UNKNOWN, IdMap, plain_ids
from recae.merging import Duplicates, merge
from recae.rows import as_index

__all__ = ["DROPS", "UNKNOWN", "Duplicates", "IdMap", "Interactions", "Preparation"]

DROPS = (*BAD_ROWS, "below_min_value", "duplicates", "events_of_short_users", "unknown_item_events")
"""The counts of events that are read and not stored: `events` is their sum plus `interactions`."""

FORMAT = 1
"""The version of the directory that `save` writes."""


@dataclass(frozen=True)
class Preparation:
    """Which events count, and as what.

    Events below `min_value` do not (a log without values keeps all); stored values are 1 ("binary") or those of the
    log ("keep"; 1 where it has none, so that "sum" counts events); `duplicates` says what several events of one user
    with one item become.
    """

    min_value: float | None = None
    values: Literal["binary", "keep"] = "binary"
    duplicates: Duplicates = "last"

    def __post_init__(self) -> None:
        if self.values not in ("binary", "keep") or self.duplicates not in get_args(Duplicates):
            raise ValueError(f"no such preparation: {self}")


@dataclass(frozen=True, eq=False)
class Interactions:
    """A users × items matrix (float32 values, int32 indices), with what its rows and columns are called.

    `item_table` has one row per column of the matrix, in column order (title, genres, …; it may have no columns);
    `times`, where the log has them, holds one entry per stored value, aligned with `matrix.data`;
    `counts` says what happened on the way from the log to the matrix (events read, merged, dropped, and why).
    Every row's columns are sorted and distinct.
    """

    matrix: csr_matrix
    users: IdMap
    items: IdMap
    item_table: pd.DataFrame
    times: NDArray[Any] | None = None
    counts: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = (len(self.users), len(self.items))
        if self.matrix.shape != shape or len(self.item_table) != shape[1]:
            raise ValueError(
                f"a matrix of {self.matrix.shape} with {shape[0]} users, {shape[1]} items "
                f"and an item table of {len(self.item_table)} rows"
            )
        if self.times is not None and len(self.times) != self.matrix.nnz:
            raise ValueError(f"{len(self.times)} times for {self.matrix.nnz} interactions")

    @classmethod
    def from_events(
        cls,
        events: Events,
        preparation: Preparation = Preparation(),
        *,
        min_items: int = 1,
        items: IdMap | None = None,
    ) -> "Interactions":
        """Make the matrix of a checked log, ids ascending; `counts` says what became of every event (see DROPS).

        In this order: events below the threshold go; events of one user with one item become one; users with fewer
        than `min_items` distinct items go, in one pass; and with `items`, a model's vocabulary, the columns are its,
        events with unknown items go and their users stay, if need be with an empty row.
        Raises EventsError where the threshold or `min_items` leaves no event.
        """
        if min_items < 1:
            raise ValueError(f"min_items is at least 1, not {min_items}")
        table = events.table
        bad = {key: events.counts[key] for key in BAD_ROWS if key in events.counts}
        counts = {"events": table.num_rows + sum(bad.values()), **bad}
        table = _above(events, preparation.min_value, counts)

        user, user_ids = _codes(table[USER])
        item, item_ids = _codes(table[ITEM])
        known = len(item_ids)
        if items is not None:
            # Unknown items get columns beyond the known ones: merging and counting treat all alike.
            column, known = items.to_index(item_ids), len(items)
            strange = column == UNKNOWN
            column[strange] = known + np.arange(strange.sum())
            item = column.astype(np.int32)[item]
        keep = preparation.values == "keep"  # noqa: PD011  (no DataFrame)
        data = table[VALUE].to_numpy() if keep and VALUE in table.column_names else np.ones(len(user))
        times = table[TIME].to_numpy() if TIME in table.column_names else None
        del table
        user, item, data, times = merge(user, item, data, times, preparation.duplicates)
        counts["duplicates"] = counts["events"] - sum(counts[key] for key in DROPS if key in counts) - len(user)

        lengths = np.bincount(user, minlength=len(user_ids))
        long = lengths >= min_items
        counts["short_users"] = int(len(long) - long.sum())
        counts["events_of_short_users"] = int(lengths[~long].sum())
        if not long.any():
            raise EventsError(
                f"{events.source}: no user has {min_items} distinct items, the longest history {lengths.max()}; "
                "lower --min-items"
            )
        stay = long[user]
        if items is not None:
            counts["unknown_item_events"] = int((stay & (item >= known)).sum())
            stay &= item < known
        if not stay.all():
            user, item, data = user[stay], item[stay], data[stay]
            times = None if times is None else times[stay]
        counts["interactions"] = len(user)

        user_ids = user_ids[long]
        lengths = np.bincount(user, minlength=len(long))[long]
        if items is None:
            present = np.bincount(item, minlength=known) > 0
            item, item_ids = (np.cumsum(present, dtype=np.int32) - 1)[item].astype(np.int32), item_ids[present]
        vocabulary = IdMap(item_ids) if items is None else items
        return cls(
            matrix=_csr(
                _single(data, events.source) if keep else np.ones_like(data, np.float32), item, lengths, len(vocabulary)
            ),
            users=IdMap(user_ids),
            items=vocabulary,
            item_table=_item_table(events.items, vocabulary),
            times=times,
            counts=counts,
        )

    def rows(self, index: Any) -> "Interactions":
        """Return these users alone, in this order: distinct row numbers, or a flag for every row. Items stay."""
        chosen = _distinct(index, len(self.users))
        matrix, times = self._selected(chosen, None)
        return Interactions(matrix, IdMap(self.users.ids[chosen]), self.items, self.item_table, times)

    def columns(self, index: Any) -> "Interactions":
        """Return these items alone, in this order: distinct column numbers, or a flag for every column. Users stay."""
        chosen = _distinct(index, len(self.items))
        matrix, times = self._selected(None, chosen)
        item_table = self.item_table.iloc[chosen].reset_index(drop=True)
        return Interactions(matrix, self.users, IdMap(self.items.ids[chosen]), item_table, times)

    def digest(self) -> str:
        """Return the SHA-256, in hexadecimal, of ids, shape, matrix and times: the same log, the same digest."""
        return self._digest

    def save(self, directory: Path, *, overwrite: bool = False) -> None:
        """Write a directory that `load` opens memory-mapped; it appears whole or not at all.

        Raises OutputError where it exists (unless `overwrite`) or the disk is full.
        """
        with whole_directory(directory, overwrite=overwrite) as draft:
            for name, array in self._arrays().items():
                np.save(draft / f"{name}.npy", array, allow_pickle=False)
            for name, table in self._tables().items():
                pa.parquet.write_table(table, draft / f"{name}.parquet")
            small = ["indptr.npy", *(f"{name}.parquet" for name in self._tables())]
            facts = {
                "format": FORMAT,
                "shape": self.matrix.shape,
                "interactions": self.matrix.nnz,
                "times": self.times is not None,
                "counts": dict(self.counts),
                "sha256": {name: sha256(draft / name) for name in small},
            }
            (draft / "interactions.json").write_text(json.dumps(facts, indent=2), encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> "Interactions":
        """Open what `save` wrote; the arrays stay on the disk until they are looked at.

        Raises EventsError where something is missing, cut short or from a newer recae, or where ids, lengths or columns
        are damaged. Values and times are taken as they are: to read them all would take the time that mapping saves.
        """
        facts = _facts(directory)
        for name, digest in facts["sha256"].items():
            if not (directory / name).is_file() or sha256(directory / name) != digest:
                raise EventsError(f"{directory / name}: missing or damaged (its checksum differs); save it again")
        names = ["data", "indices", "indptr", *(["times"] if facts["times"] else [])]
        arrays = {name: _mapped(directory / f"{name}.npy") for name in names}
        for name in set(names) - {"indptr"}:
            if len(arrays[name]) != facts["interactions"]:
                raise EventsError(f"{directory / name}.npy: not as long as interactions.json says; save it again")
        column = arrays["indices"]
        if len(column) and not 0 <= column.min() <= column.max() < facts["shape"][1]:
            raise EventsError(f"{directory / 'indices'}.npy: damaged (it names an item that is none); save it again")
        try:
            matrix = csr_matrix((arrays["data"], arrays["indices"], arrays["indptr"]), shape=facts["shape"], copy=False)
            # Saved in order: looking would read the whole file.
            matrix.has_sorted_indices = matrix.has_canonical_format = True
            users, items, item_table = (
                pa.parquet.read_table(directory / f"{name}.parquet").to_pandas()
                for name in ("users", "items", "item_table")
            )
            return cls(
                matrix,
                IdMap(pd.Index(users["id"]).rename(None)),
                IdMap(pd.Index(items["id"]).rename(None)),
                item_table if len(item_table.columns) else _nameless(len(items)),
                arrays.get("times"),
                facts["counts"],
            )
        except ValueError as error:
            raise EventsError(f"{directory}: its files do not fit together ({error}); save it again") from error

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256()
        for ids in (self.users.ids, self.items.ids):
            if isinstance(ids.dtype, pd.StringDtype):
                spelled = [text.encode() for text in ids]
                digest.update(np.fromiter(map(len, spelled), dtype=np.int64).tobytes())
                digest.update(b"".join(spelled))
            else:
                digest.update(f"{ids.dtype} {len(ids)} ".encode())
                digest.update(ids.to_numpy().tobytes())
        for name, array in self._arrays().items():
            digest.update(f"{name} {array.dtype} {array.shape} ".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def _arrays(self) -> dict[str, NDArray[Any]]:
        matrix = self.matrix
        arrays = {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr}
        return arrays if self.times is None else {**arrays, "times": self.times}

    def _tables(self) -> dict[str, pa.Table]:
        try:
            item_table = pa.Table.from_pandas(self.item_table, preserve_index=False)
        except pa.ArrowException as error:
            reason = " ".join(str(error).split())
            raise EventsError(f"the item table cannot be stored ({reason}); give each column one type") from error
        users, items = (pa.table({"id": pa.array(ids.ids)}) for ids in (self.users, self.items))
        return {"users": users, "items": items, "item_table": item_table}

    def _selected(self, rows: Any, columns: Any) -> tuple[csr_matrix, NDArray[Any] | None]:
        """Return some rows or columns of the matrix, and the times of what is in them."""
        places = csr_matrix(
            (np.arange(self.matrix.nnz), self.matrix.indices, self.matrix.indptr), shape=self.matrix.shape
        )
        picked = places[rows] if columns is None else places[:, columns]
        picked.sort_indices()
        item = picked.indices.astype(np.int32, copy=False)
        matrix = _csr(self.matrix.data[picked.data], item, np.diff(picked.indptr), picked.shape[1])
        return matrix, None if self.times is None else np.asarray(self.times[picked.data])


def _above(events: Events, min_value: float | None, counts: dict[str, int]) -> pa.Table:
    """Return the events whose value is at least `min_value`; a log without values keeps all, and `counts` says so."""
    table = events.table
    if min_value is not None and VALUE not in table.column_names:
        counts["min_value_ignored"] = table.num_rows
    elif min_value is not None:
        kept = table.filter(pc.greater_equal(table[VALUE], float(min_value)))
        counts["below_min_value"] = table.num_rows - kept.num_rows
        if table.num_rows and not kept.num_rows:
            highest = pc.max(table[VALUE]).as_py()
            raise EventsError(
                f"{events.source}: no event has a value of {min_value:g} or more, the highest is {highest:g}; "
                "train with a lower --min-value"
            )
        table = kept
    if not table.num_rows:
        raise EventsError(f"{events.source}: no events in it; is it the right file?")
    return table


def _codes(column: pa.ChunkedArray) -> tuple[NDArray[np.int32], pd.Index]:
    """Return each event's place among the distinct ids, and those ids in ascending order."""
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    encoded = encoded.unify_dictionaries()
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in encoded.chunks])
    distinct = encoded.chunk(0).dictionary
    order = pc.array_sort_indices(distinct).to_numpy()
    # A dictionary may hold ids of which no event is left.
    used = np.zeros(len(distinct), dtype=bool)
    used[codes] = True
    order = order[used[order]]
    place = np.zeros(len(distinct), dtype=np.int32)
    place[order] = np.arange(len(order))
    return place[codes], as_index(distinct.take(pa.array(order)))


def _single(values: NDArray[np.float64], source: str) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    if not np.isfinite(single).all():
        raise EventsError(f"{source}: values beyond {np.finfo(np.float32).max:.1e} cannot be kept; scale them down")
    return single


def _csr(data: NDArray[np.float32], item: NDArray[np.int32], lengths: NDArray[Any], width: int) -> csr_matrix:
    indptr = np.zeros(len(lengths) + 1, dtype=np.int32 if len(data) < 2**31 else np.int64)
    np.cumsum(lengths, out=indptr[1:])
    parts: Any = (data, item, indptr)
    matrix = csr_matrix(parts, shape=(len(lengths), width))
    matrix.has_sorted_indices = matrix.has_canonical_format = True
    return matrix


def _item_table(told: pd.DataFrame | None, items: IdMap) -> pd.DataFrame:
    """Return what is told of each item, in column order; nothing (missing values) where nothing is."""
    if told is None:
        return _nameless(len(items))
    told = told.drop_duplicates(ITEM).reset_index(drop=True)
    place = IdMap(plain_ids(told[ITEM])).to_index(items.ids)
    return told.drop(columns=ITEM).reindex(place).reset_index(drop=True)


def _nameless(items: int) -> pd.DataFrame:
    return pd.DataFrame(index=pd.RangeIndex(items))


def _distinct(chosen: Any, size: int) -> NDArray[np.int64]:
    index: NDArray[Any] = np.asarray(chosen)
    if index.dtype == bool:
        if len(index) != size:
            raise ValueError(f"{len(index)} flags for {size}")
        return np.flatnonzero(index).astype(np.int64)
    index = index.astype(np.int64, casting="same_kind" if len(index) else "unsafe")
    if len(index) and (index.min() < 0 or index.max() >= size):
        raise IndexError(f"an index is at least 0 and below {size}")
    if len(np.unique(index)) != len(index):
        raise ValueError("the same index twice would make one id two")
    return index


def _facts(directory: Path) -> dict[str, Any]:
    path = directory / "interactions.json"
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if facts["format"] > FORMAT:
            raise EventsError(f"{path}: format {facts['format']} is of a newer recae; this one reads {FORMAT}")
        wanted = {"shape": list, "interactions": int, "times": bool, "counts": dict, "sha256": dict}
        if not all(isinstance(facts[key], kind) for key, kind in wanted.items()):
            raise ValueError("unexpected contents")
    except FileNotFoundError as error:
        raise EventsError(f"{directory}: no saved interactions here (interactions.json is missing)") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EventsError(f"{path}: damaged, not what was saved; save it again") from error
    return facts


def _mapped(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise EventsError(f"{path}: missing; save the interactions again") from error
    except (OSError, ValueError, EOFError) as error:
        raise EventsError(f"{path}: damaged or cut short; save the interactions again") from error
    return array

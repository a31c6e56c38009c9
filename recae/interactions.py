"""The matrix of interactions: here the outside world's ids stop; everything below knows indices only."""

import hashlib
import io
import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryFile
from types import MappingProxyType
from typing import Annotated, Any, BinaryIO, Self, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy.sparse import csr_matrix

from recae.errors import EventsError
from recae.events import BAD_ROWS, ITEM, VALUE, Events, EventStream
from recae.files import sha256, whole_directory
from recae.gathering import gather
from recae.ids import UNKNOWN, IdMap, plain_ids
from recae.preparation import PREPARED, Preparation, contradiction, in_words, read_rules, write_rules
from recae.runs import Column

__all__ = [
    "DROPS",
    "UNKNOWN",
    "IdMap",
    "Interactions",
    "Preparation",
    "of_items_with",
    "of_users_with",
    "prepare",
    "prepare_into",
    "read_prepared",
]

DROPS = (
    *BAD_ROWS,
    "below_min_value",
    "duplicates",
    "events_of_rare_items",
    "events_of_short_users",
    "unknown_item_events",
)
"""The counts of events that are read and not stored: `events` is their sum plus `interactions`."""

STORED = {"data": ("float32",), "indices": ("int32",), "times": ("int64", "float64")}
"""The types of the arrays that `save` writes, beside where rows begin."""

SAMPLE = 100_000
"""Events whose values are looked at, to tell what kind they are of."""

MOST_STEPS, WIDEST = 21, 10
"""How many different values ratings have at most, and how far they are apart: ten stars with halves, and zero."""

FORMAT = 1
"""The version of the directory that `save` writes."""

CHECKED = ("indptr.npy", "users.parquet", "items.parquet", "item_table.parquet")
"""The files of that directory whose checksums it holds: the large ones would take the time that mapping saves."""

Count = Annotated[int, Field(ge=0, lt=2**63)]

OTHERWISE = "is asked for; ask for the same or leave it out, or prepare the log again"
"""What is said of a rule by which a log was not prepared."""


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
        events: Events | EventStream,
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
        columns: dict[str, Column] = {}

        def open_column(name: str, dtype: Any) -> Column:
            return columns.setdefault(name, Column(io.BytesIO(), dtype))

        gathered = gather(
            events,
            preparation,
            min_items=min_items,
            vocabulary=items,
            open_column=open_column,
            open_scratch=io.BytesIO,
        )
        # Out of its file and into an array one by one: only one of them is ever there twice.
        arrays = {name: columns.pop(name).array() for name in list(columns)}
        indptr = _indptr(gathered.lengths)
        return cls(
            matrix=_csr(arrays["data"], arrays["indices"], indptr, len(gathered.items)),
            users=gathered.users,
            items=gathered.items,
            item_table=_item_table(events.items, gathered.items),
            times=arrays.get("times"),
            counts=_with_kind(gathered.counts, events),
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

    def over(self, items: IdMap) -> "Interactions":
        """Return the same users over another catalogue, as `from_events` does with `items`, and so counted."""
        column = items.to_index(self.items.ids)
        known = np.flatnonzero(column != UNKNOWN)
        known = known[np.argsort(column[known])]
        part = self if np.array_equal(known, np.arange(len(column))) else self.columns(known)
        matrix = part.matrix
        place = column[known].astype(np.int32)
        gone = self.counts.get("unknown_item_events", 0) + self.matrix.nnz - matrix.nnz
        return Interactions(
            matrix=_csr(matrix.data, place[matrix.indices], matrix.indptr, len(items)),
            users=self.users,
            items=items,
            item_table=self.item_table.reindex(self.items.to_index(items.ids)).reset_index(drop=True),
            times=part.times,
            counts={**self.counts, "unknown_item_events": gone, "interactions": matrix.nnz},
        )

    def digest(self) -> str:
        """Return the SHA-256, in hexadecimal, of ids, shape, matrix and times: the same log, the same digest."""
        return self._digest

    def save(self, directory: str | Path, *, overwrite: bool = False) -> None:
        """Write a directory that `load` opens memory-mapped; it appears whole or not at all.

        It does not say by which rules it was made: what commands take in the place of a log, `prepare` alone writes.
        Raises OutputError where it exists (unless `overwrite`) or the disk is full.
        """
        with whole_directory(Path(directory), overwrite=overwrite) as draft:
            for name, array in self._arrays().items():
                np.save(draft / f"{name}.npy", array, allow_pickle=False)
            _write_facts(draft, self.users, self.items, self.item_table, self.matrix.nnz, self.counts)

    @classmethod
    def load(cls, directory: str | Path) -> "Interactions":
        """Open what `save` wrote; the arrays stay on the disk until they are looked at.

        Raises EventsError where something is missing, cut short or from a newer recae, or where ids, lengths or columns
        are damaged. Values and times are taken as they are: to read them all would take the time that mapping saves.
        """
        directory = Path(directory)
        facts = _facts(directory)
        for name, digest in facts.sha256.items():
            if not (directory / name).is_file() or sha256(directory / name) != digest:
                raise EventsError(f"{directory / name}: missing or damaged (its checksum differs); save it again")
        names = ["data", "indices", "indptr", *(["times"] if facts.times else [])]
        arrays = {name: _mapped(directory / f"{name}.npy") for name in names}
        for name in set(names) - {"indptr"}:
            if arrays[name].shape != (facts.interactions,):
                raise EventsError(f"{directory / name}.npy: not as long as interactions.json says; save it again")
            if arrays[name].dtype not in STORED[name]:
                raise EventsError(f"{directory / name}.npy: damaged (it holds {arrays[name].dtype}); save it again")
        column = arrays["indices"]
        if len(column) and not 0 <= column.min() <= column.max() < facts.shape[1]:
            raise EventsError(f"{directory / 'indices'}.npy: damaged (it names an item that is none); save it again")
        try:
            matrix = csr_matrix((arrays["data"], arrays["indices"], arrays["indptr"]), shape=facts.shape, copy=False)
            if not matrix.has_canonical_format:
                raise EventsError(
                    f"{directory / 'indices'}.npy: damaged (a user's items are not in order); save it again"
                )
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
                facts.counts,
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

    def _selected(self, rows: Any, columns: Any) -> tuple[csr_matrix, NDArray[Any] | None]:
        """Return some rows or columns of the matrix, and the times of what is in them."""
        places = csr_matrix(
            (np.arange(self.matrix.nnz), self.matrix.indices, self.matrix.indptr), shape=self.matrix.shape
        )
        picked = places[rows] if columns is None else places[:, columns]
        picked.sort_indices()
        item = picked.indices.astype(np.int32, copy=False)
        matrix = _csr(self.matrix.data[picked.data], item, _indptr(np.diff(picked.indptr)), picked.shape[1])
        return matrix, None if self.times is None else np.asarray(self.times[picked.data])


def prepare(
    events: Events | EventStream,
    directory: str | Path,
    preparation: Preparation = Preparation(),
    *,
    min_items: int = 1,
    overwrite: bool = False,
) -> Interactions:
    """Write what `Interactions.from_events` makes of a log, and by which rules, and open it; see there for the errors.

    Neither the log, if it is a stream, nor the matrix is ever in memory: a hundred million events take some gigabytes
    of disk while they are sorted, in the place where the directory will be, and little memory.
    """
    with whole_directory(Path(directory), overwrite=overwrite) as draft:
        prepare_into(draft, events, preparation, min_items=min_items)
    return Interactions.load(directory)


def prepare_into(draft: Path, events: Events | EventStream, preparation: Preparation, *, min_items: int) -> None:
    """Write into a directory that is there what `prepare` writes, and the rules by which it was made."""
    with ExitStack() as files:
        columns: dict[str, Column] = {}

        def open_column(name: str, dtype: Any) -> Column:
            file = files.enter_context((draft / f"{name}.npy").open("w+b"))
            _write_header(file, dtype, 0)
            return columns.setdefault(name, Column(file, dtype))

        gathered = gather(
            events,
            preparation,
            min_items=min_items,
            vocabulary=None,
            open_column=open_column,
            # Without a name: whatever happens, nothing of it stays.
            open_scratch=lambda: cast(BinaryIO, files.enter_context(TemporaryFile(dir=draft))),
        )
        for column in columns.values():
            column.file.seek(0)
            _write_header(column.file, column.dtype, column.length)
    np.save(draft / "indptr.npy", _indptr(gathered.lengths), allow_pickle=False)
    item_table = _item_table(events.items, gathered.items)
    stored = int(gathered.lengths.sum())
    counts = _with_kind(gathered.counts, events)
    _write_facts(draft, gathered.users, gathered.items, item_table, stored, counts)
    write_rules(draft, preparation, min_items)


def read_prepared(
    directory: Path,
    asked: Mapping[str, Any] = MappingProxyType({}),
    *,
    otherwise: str = OTHERWISE,
) -> Interactions:
    """Open what `prepare` wrote as if its log were read by the rules in `asked`: see `recae.preparation.read_rules`.

    A rule that is not among them is as the log was prepared. Raises EventsError for one that would need events that
    are gone (see `contradiction`); `otherwise` ends the message, with the rule's name for {rule}.
    """
    rules = read_rules(directory)
    found = contradiction(rules, asked)
    if found is not None:
        made, wanted = in_words(found, rules[found]), in_words(found, asked[found])
        raise EventsError(f"{directory}: prepared with {made}, and {wanted} {otherwise.format(rule=found)}")
    part = Interactions.load(directory)
    if asked.get("values", rules["values"]) != rules["values"]:
        # Only values that were kept can be asked for otherwise: as binary.
        ones = np.ones(part.matrix.nnz, np.float32)
        part = replace(part, matrix=_csr(ones, part.matrix.indices, part.matrix.indptr, part.matrix.shape[1]))
    return of_users_with(asked.get("min_items", rules["min_items"]), part, str(directory))


def of_items_with(min_users: int, part: Interactions, source: str) -> Interactions:
    """Return the items that so many users have, and the users who have any of them, counted as `from_events` does."""
    users = np.bincount(part.matrix.indices, minlength=len(part.items))
    common = users >= min_users
    if common.all():
        return part
    if not common.any():
        raise EventsError(
            f"{source}: no item has {min_users} users, the most common has {users.max()}; lower min_users"
        )
    left = part.columns(common)
    left = left.rows(np.diff(left.matrix.indptr) > 0)
    return _less(left, part, {"rare_items": int((~common).sum()), "events_of_rare_items": int(users[~common].sum())})


def of_users_with(min_items: int, part: Interactions, source: str) -> Interactions:
    """Return the users who have so many items, and the items that they have, counted as `from_events` does."""
    lengths = np.diff(part.matrix.indptr)
    long = lengths >= min_items
    if long.all():
        return part
    if not long.any():
        raise EventsError(
            f"{source}: no user has {min_items} distinct items, the longest history {lengths.max()}; lower --min-items"
        )
    left = part.rows(long)
    left = left.columns(np.bincount(left.matrix.indices, minlength=len(left.items)) > 0)
    return _less(left, part, {"short_users": int((~long).sum()), "events_of_short_users": int(lengths[~long].sum())})


def _with_kind(counts: Mapping[str, int], events: Events | EventStream) -> Mapping[str, int]:
    """Return the counts, with that of values which differ a second time, as ratings, if their first look like some.

    Ratings are few different values, close together, and the lowest is not the commonest, as it is of plays.
    """
    if "with_values" not in counts:
        return counts
    first = np.zeros(0)
    for more, _ in events.pieces(lambda piece: piece[VALUE][:SAMPLE].to_numpy()):
        first = np.append(first, more)[:SAMPLE]
        if len(first) == SAMPLE:
            break
    values, times = np.unique(first, return_counts=True)
    alike = 1 < len(values) <= MOST_STEPS and values[-1] - values[0] <= WIDEST and times.argmax() > 0
    return {**counts, "with_ratings": counts["with_values"]} if alike else counts


def _less(left: Interactions, part: Interactions, dropped: Mapping[str, int]) -> Interactions:
    """Return what is left of interactions, with the counts of both."""
    counts = {**part.counts, **{key: part.counts.get(key, 0) + count for key, count in dropped.items()}}
    return replace(left, counts=counts | {"interactions": left.matrix.nnz})


def _write_header(file: BinaryIO, dtype: Any, length: int) -> None:
    """Write the head of a .npy file: as many bytes for any length, so that the length can be put in at the end."""
    described = np.lib.format.dtype_to_descr(np.dtype(dtype))
    header = {"descr": described, "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(file, header)


def _write_facts(
    draft: Path, users: IdMap, items: IdMap, item_table: pd.DataFrame, stored: int, counts: Mapping[str, int]
) -> None:
    """Write what stands beside the arrays of a directory: ids, item table, and the facts by which they are checked."""
    try:
        told = pa.Table.from_pandas(item_table, preserve_index=False)
    except pa.ArrowException as error:
        reason = " ".join(str(error).split())
        raise EventsError(f"the item table cannot be stored ({reason}); give each column one type") from error
    tables = {"users": pa.table({"id": pa.array(users.ids)}), "items": pa.table({"id": pa.array(items.ids)})}
    tables["item_table"] = told
    for name, table in tables.items():
        pa.parquet.write_table(table, draft / f"{name}.parquet")
    facts = {
        "format": FORMAT,
        "shape": (len(users), len(items)),
        "interactions": stored,
        "times": (draft / "times.npy").exists(),
        "counts": dict(counts),
        "sha256": {name: sha256(draft / name) for name in CHECKED},
    }
    (draft / PREPARED).write_text(json.dumps(facts, indent=2), encoding="utf-8")


def _indptr(lengths: NDArray[Any]) -> NDArray[Any]:
    stored = int(lengths.sum())
    indptr = np.zeros(len(lengths) + 1, dtype=np.int32 if stored < 2**31 else np.int64)
    np.cumsum(lengths, out=indptr[1:])
    return indptr


def _csr(data: NDArray[np.float32], item: NDArray[np.int32], indptr: NDArray[Any], width: int) -> csr_matrix:
    parts: Any = (data, item, indptr)
    matrix = csr_matrix(parts, shape=(len(indptr) - 1, width))
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


class _Format(BaseModel):
    """The version of a directory: all that may be asked of what a newer recae wrote."""

    model_config = ConfigDict(strict=True)

    format: Annotated[int, Field(ge=1)]


class _Facts(_Format):
    """What `interactions.json` says, by which the rest of the directory is checked."""

    shape: tuple[Count, Count]
    interactions: Count
    times: bool
    counts: dict[str, int]
    sha256: dict[str, str]

    @model_validator(mode="after")
    def _every_table_has_its_checksum(self) -> Self:
        if sorted(self.sha256) != sorted(CHECKED):
            raise ValueError("checksums of other files than were written")
        return self


def _facts(directory: Path) -> _Facts:
    path = directory / PREPARED
    try:
        text = path.read_bytes()
        version = _Format.model_validate_json(text).format
        if version > FORMAT:
            raise EventsError(f"{path}: format {version} is of a newer recae; this one reads {FORMAT}")
        return _Facts.model_validate_json(text)
    except FileNotFoundError as error:
        raise EventsError(f"{directory}: no saved interactions here (interactions.json is missing)") from error
    except (OSError, ValueError) as error:
        raise EventsError(f"{path}: damaged, not what was saved; save it again") from error


def _mapped(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise EventsError(f"{path}: missing; save the interactions again") from error
    except (OSError, ValueError, EOFError) as error:
        raise EventsError(f"{path}: damaged or cut short; save the interactions again") from error
    return array

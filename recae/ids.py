"""The maps between the outside world's ids and the rows and columns of a matrix.

id:    the outside world's name of a user or an item, any string or integer.
index: a row or column number of the matrix.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

UNKNOWN = -1
"""The index of an id that a map does not hold. It must never reach a matrix: -1 is numpy's last column."""


@dataclass(frozen=True, eq=False)
class IdMap:
    """Distinct ids in index order: `ids[index]` is the id; integers (int64, uint64) or strings, never mixed."""

    ids: pd.Index

    def __post_init__(self) -> None:
        if self.ids.dtype not in (np.int64, np.uint64) and not isinstance(self.ids.dtype, pd.StringDtype):
            raise ValueError(f"ids are int64, uint64 or str, not {self.ids.dtype}")

    @classmethod
    def of(cls, ids: Any) -> "IdMap":
        """Map the distinct ids of any array-like, in ascending order (integers by value, strings by code point).

        Integers that fit become int64, else uint64; integers beside strings become strings; anything else is a
        ValueError.
        """
        wanted = plain_ids(ids)
        if wanted.hasnans:
            raise ValueError("an id is never null")
        return cls(wanted.unique().sort_values())

    def __len__(self) -> int:
        return len(self.ids)

    def to_index(self, ids: Any) -> NDArray[np.int64]:
        """Return the index of each id, UNKNOWN where the map does not hold it; 7 and "7" are one spelling, "07" is not.

        The first call builds a hash table of the whole map; later ones are fast.
        """
        own, wanted = self.ids, plain_ids(ids)
        if isinstance(own.dtype, pd.StringDtype) == isinstance(wanted.dtype, pd.StringDtype):
            return np.asarray(own.get_indexer(wanted), dtype=np.int64)
        if isinstance(own.dtype, pd.StringDtype):
            return np.asarray(own.get_indexer(wanted.astype("str")), dtype=np.int64)
        index = np.full(len(wanted), UNKNOWN, dtype=np.int64)
        integer = np.flatnonzero(wanted.str.fullmatch(r"0|-?[1-9][0-9]{0,19}"))
        index[integer] = own.get_indexer(pd.Index([int(spelled) for spelled in wanted[integer]]))
        return index

    def to_ids(self, index: Any) -> pd.Index:
        """Return the id at each index; a negative index is an error, not the last id."""
        index = np.asarray(index, dtype=np.int64)
        if len(index) and int(np.min(index)) < 0:
            raise IndexError("an index is never negative")
        chosen: pd.Index = self.ids[index]
        return chosen


def plain_ids(ids: Any) -> pd.Index:
    """Return ids as int64, else uint64, else str; nulls among text stay. ValueError for what is no id."""
    index: pd.Index = pd.Index(ids)
    if isinstance(index.dtype, pd.CategoricalDtype):
        index = index.astype(index.dtype.categories.dtype)
    if isinstance(index.dtype, pd.StringDtype):
        index = index.astype("str")
    elif index.dtype.kind in "iu":
        small = index.dtype.kind == "i" or not len(index) or index.max() <= np.iinfo(np.int64).max
        index = index.astype(np.int64 if small else np.uint64)
    else:
        kinds = {type(value) for value in index}
        if not all(issubclass(kind, (str, int, np.integer, type(None))) and kind is not bool for kind in kinds):
            raise ValueError(f"ids are integers or strings, not {', '.join(sorted(kind.__name__ for kind in kinds))}")
        index = pd.Index([None if value is None else str(value) for value in index], dtype="str")
    return index

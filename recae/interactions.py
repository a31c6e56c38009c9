"""The matrix of interactions, and the maps between the outside world's ids and its rows and columns.

id:    the outside world's name of a user or an item, any string or integer.
index: a row or column number of the matrix. Ids stop here; everything below knows indices only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

UNKNOWN = -1
"""The index of an id that a map does not hold. It must never reach a matrix: -1 is numpy's last column."""


@dataclass(frozen=True, eq=False)
class IdMap:
    """Distinct ids in index order: `ids[index]` is the id; integers (int64, uint64) or strings, never mixed."""

    ids: pd.Index

    @classmethod
    def of(cls, ids: Any) -> "IdMap":
        """Map the distinct ids of any array-like, in ascending order (integers by value, strings by code point)."""
        return cls(pd.Index(pd.unique(pd.Index(ids))).sort_values())

    def __len__(self) -> int:
        return len(self.ids)

    def to_index(self, ids: Any) -> NDArray[np.int64]:
        """Return the index of each id, UNKNOWN where the map does not hold it; 7 and "7" are one spelling."""
        wanted = pd.Index(ids)
        own = self.ids
        if (own.dtype.kind in "iu") != (wanted.dtype.kind in "iu"):
            own, wanted = own.astype(str), wanted.astype(str)
        return np.asarray(own.get_indexer(wanted), dtype=np.int64)

    def to_ids(self, index: NDArray[np.integer]) -> pd.Index:
        """Return the id at each index; a negative index is an error, not the last id."""
        if len(index) and int(np.min(index)) < 0:
            raise IndexError("an index is never negative")
        return self.ids[np.asarray(index)]


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

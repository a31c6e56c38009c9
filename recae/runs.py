"""Events sorted by user in scratch files, more of them than fit into memory: written as they come, read user by user.

Every piece that comes is sorted by range of users and appended, as a run; what one range has is then read together,
out of its share of every run.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

RUN = 1 << 20
"""Events that are sorted, and later merged, at once: few enough for the processor's caches."""

RANGES = 1 << 12
"""Ranges of users, at most; their numbers have two bytes, which numpy sorts without comparing."""

Coded = Mapping[str, NDArray[Any]]
"""Events, one array a column; in the same order, of the same length."""


class Column:
    """Numbers of one type in a file, from where it stands when it is given: appended, and read by their places."""

    def __init__(self, file: BinaryIO, dtype: Any) -> None:
        self.file = file
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.start = file.tell()
        self.length = 0

    def append(self, numbers: NDArray[Any]) -> None:
        """Write numbers behind those that are there."""
        self._write(self.length, numbers)
        self.length += len(numbers)

    def read(self, place: int, into: NDArray[Any]) -> None:
        """Fill an array with the numbers from a place on."""
        self._seek(place)
        cast(Any, self.file).readinto(into.view(np.uint8))

    def array(self) -> NDArray[Any]:
        """Return all the numbers."""
        numbers = np.empty(self.length, self.dtype)
        self.read(0, numbers)
        return numbers

    def change(self, function: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
        """Put what a function makes of the numbers in their place."""
        for place in range(0, self.length, RUN):
            numbers = np.empty(min(RUN, self.length - place), self.dtype)
            self.read(place, numbers)
            self._write(place, function(numbers))

    def _write(self, place: int, numbers: NDArray[Any]) -> None:
        self._seek(place)
        self.file.write(np.ascontiguousarray(numbers, self.dtype).data)

    def _seek(self, place: int) -> None:
        self.file.seek(self.start + place * self.dtype.itemsize)


@dataclass(frozen=True, eq=False)
class Run:
    """Events in the order of their users' ranges: those of range n stand from `bounds[n]` to `bounds[n + 1]`."""

    events: Coded
    bounds: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Block:
    """All the events of the users from `first` up to `end`, in the order in which they came."""

    first: int
    end: int
    events: Coded


class Runs:
    """The runs of a log: `sort` may be called on several threads, everything else on one."""

    def __init__(self, by: str, codes: int, columns: Mapping[str, Column]) -> None:
        """Order by the column `by`, of codes below `codes`."""
        self.by = by
        self.codes = codes
        self.columns = columns
        self.shift = max(0, (codes - 1).bit_length() - (RANGES - 1).bit_length())
        self.ranges = ((codes - 1) >> self.shift) + 1 if codes else 0
        self.bounds: list[NDArray[np.int64]] = []
        self.length = 0

    def sort(self, events: Coded) -> list[Run]:
        """Return the runs of some events."""
        total = len(events[self.by])
        slices = [slice(start, start + RUN) for start in range(0, total, RUN)]
        return [self._sorted({name: column[part] for name, column in events.items()}) for part in slices]

    def append(self, run: Run) -> None:
        """Write a run behind the others."""
        for name, column in self.columns.items():
            column.append(run.events[name])
        self.bounds.append(self.length + run.bounds)
        self.length += int(run.bounds[-1])

    def blocks(self) -> Iterator[Block]:
        """Yield all events by ascending users, about RUN at a time; the events of one range are never parted."""
        bounds = np.array(self.bounds).reshape(-1, self.ranges + 1)
        sizes = np.diff(bounds, axis=1).sum(axis=0)
        starts = np.flatnonzero(np.diff(np.cumsum(sizes) // RUN, prepend=-1))
        for start, end in zip(starts, [*starts[1:], self.ranges], strict=True):
            shares = [(run[start], run[end] - run[start]) for run in bounds]
            events = {name: self._read(column, shares) for name, column in self.columns.items()}
            yield Block(int(start) << self.shift, min(int(end) << self.shift, self.codes), events)

    def _sorted(self, events: Coded) -> Run:
        ranges = (events[self.by] >> self.shift).astype(np.uint16)
        order = np.argsort(ranges, kind="stable")
        bounds = np.zeros(self.ranges + 1, dtype=np.int64)
        np.cumsum(np.bincount(ranges, minlength=self.ranges), out=bounds[1:])
        return Run({name: column[order] for name, column in events.items()}, bounds)

    def _read(self, column: Column, shares: list[tuple[Any, Any]]) -> NDArray[Any]:
        numbers = np.empty(sum(int(length) for _, length in shares), column.dtype)
        done = 0
        for place, length in shares:
            column.read(int(place), numbers[done : done + int(length)])
            done += int(length)
        return numbers

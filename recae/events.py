"""Read a log of who touched what, from any of the formats people have, into one checked table.

A row that may not stay (an empty id; a value or a time that is no finite number) stops the reading with one line that
says which and why, or is left out and counted, if the caller says so.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

import pandas as pd
import pyarrow as pa

from recae.columns import ARGUMENTS, ITEM, TIME, USER, VALUE, Columns
from recae.errors import EventsError
from recae.layouts import WHOLE, Log, log_in, log_of, read_item_table, with_item_ids
from recae.preparation import PREPARED
from recae.rows import BAD_ROWS, Checked, alike, arrow_column, check, complaint, ids_of, judge, time_type
from recae.sources import READABLE, TABLES, File, Part, file_at, files_in, parquet_pieces, parquet_schema, readable
from recae.workers import in_order

__all__ = [
    "BAD_ROWS",
    "ITEM",
    "TIME",
    "USER",
    "VALUE",
    "Columns",
    "EventStream",
    "Events",
    "open_events",
    "read_events",
    "read_given_split",
    "read_items",
]

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Events:
    """A checked log.

    `table` has the columns user_id, item_id (int64, uint64 or dictionary-encoded text), and where the log has them
    value (float64, finite) and timestamp (int64 or float64; dates are microseconds since 1970, UTC); no nulls.
    `items` has a column item_id and whatever else the source tells of items. `counts` has the rows read (`rows`) and
    those left out, by reason (BAD_ROWS). `source` is what messages call it.
    """

    table: pa.Table
    items: pd.DataFrame | None
    counts: Mapping[str, int]
    source: str

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        """The columns and their types."""
        return {field.name: field.type for field in self.table.schema}

    def ids(self, work: Callable[[pa.Table], Result]) -> Iterator[Result]:
        """Yield what `work` makes of the two columns of ids."""
        yield work(self.table.select([USER, ITEM]))

    def pieces(self, work: Callable[[pa.Table], Result]) -> Iterator[tuple[Result, Mapping[str, int]]]:
        """Yield what `work` makes of the table, and the counts."""
        yield work(self.table), self.counts


@dataclass(frozen=True, eq=False)
class EventStream:
    """A log in Parquet files on the disk, of which no more than a few pieces are ever in memory: read anew each time.

    What `Events` has, but the table: `labels` (one a file) gives each column's name there, `times` what times become
    (None where there are none). Row by row it is checked as `read_events` does, and with the same messages: of several
    things that are wrong, both tell the same one. First come the files as such, their columns and the item table; then,
    file by file, a column that cannot be what it is meant for, before the rows that may not stay.
    """

    files: Sequence[File]
    labels: Sequence[Mapping[str, str]]
    times: pa.DataType | None
    stamps: Sequence[tuple[int, ...]]
    items: pd.DataFrame | None
    source: str
    skip_bad_rows: bool = False

    @property
    def columns(self) -> Mapping[str, pa.DataType | None]:
        """The columns, and their types where they are known before a row is read."""
        return {role: {VALUE: pa.float64(), TIME: self.times}.get(role) for role in self.labels[0]}

    def ids(self, work: Callable[[pa.Table], Result]) -> Iterator[Result]:
        """Yield what `work`, on several threads, makes of the columns of ids of each piece, bad rows among them."""
        for number, (file, labels) in enumerate(zip(self.files, self.labels, strict=True)):
            where = {role: f"{file.name}: column '{labels[role]}'" for role in (USER, ITEM)}

            def ids(piece: pa.Table, where: Mapping[str, str] = where) -> Result:
                return work(pa.table({role: ids_of(piece[role], name) for role, name in where.items()}))

            try:
                yield from self._in_order(ids, file, {role: labels[role] for role in where})
            except EventsError:
                # Something else may be wrong before it: values, times or rows, up to this file.
                for before in range(number + 1):
                    for _ in self._judged(before, lambda _: None):
                        pass
                raise

    def pieces(self, work: Callable[[pa.Table], Result]) -> Iterator[tuple[Result, Mapping[str, int]]]:
        """Yield what `work`, on several threads, makes of each checked piece, in order, and the piece's counts.

        Raises EventsError at the end of a file that has bad rows (unless they are skipped), of a log without events,
        and of files that are no longer what they were when they were opened.
        """
        rows, kept = 0, 0
        for number in range(len(self.files)):
            for result, found in self._judged(number, work):
                read = found.table.num_rows + sum(found.counts.values())
                rows, kept = rows + read, kept + found.table.num_rows
                yield result, {"rows": read, **found.counts}
        if not kept:
            raise EventsError(_nothing(self.source, rows))

    def _judged(self, number: int, work: Callable[[pa.Table], Result]) -> Iterator[tuple[Result, Checked]]:
        """Yield what `work` makes of each checked piece of a file; EventsError at its end if rows may not stay."""
        file, labels = self.files[number], self.labels[number]
        rows = 0
        bad: dict[str, int] = {}
        first: tuple[int, str] | None = None

        def judged(piece: pa.Table) -> tuple[Result, Checked]:
            found = judge(Part(file.name, piece, dict(labels)))
            return work(found.table), found

        try:
            for result, found in self._in_order(judged, file, labels):
                if found.first and not first:
                    first = rows + found.first[0], found.first[1]
                rows += found.table.num_rows + sum(found.counts.values())
                bad = {key: bad.get(key, 0) + found.counts.get(key, 0) for key in {**bad, **found.counts}}
                yield result, found
        except EventsError:
            self._judge_by_column(file, labels)
            raise
        if bad and not self.skip_bad_rows:
            raise EventsError(complaint(file.name, bad, first))

    def _judge_by_column(self, file: File, labels: Mapping[str, str]) -> None:
        """Raise EventsError for what is wrong with a file, or else with its first column that cannot be judged."""
        for _ in self._in_order(lambda _: None, file, labels):
            pass
        for column in ({role: label} for role, label in labels.items()):

            def judged(piece: pa.Table, column: dict[str, str] = column) -> Checked:
                return judge(Part(file.name, piece, column))

            for _ in self._in_order(judged, file, column):
                pass

    def _in_order(self, work: Callable[[pa.Table], Result], file: File, labels: Mapping[str, str]) -> Iterator[Result]:
        """Yield what `work` makes of the pieces of a file that nobody writes to meanwhile."""
        try:
            yield from in_order(work, parquet_pieces(file, labels))
        except Exception:
            # Whatever goes wrong with a file that is no longer the same has this one reason.
            self._require_unchanged()
            raise
        self._require_unchanged()

    def _require_unchanged(self) -> None:
        for file, stamp in zip(self.files, self.stamps, strict=True):
            if _stamp(file) != stamp:
                raise EventsError(f"{file.name}: changed while it was read; run again when nobody writes to it")


def open_events(
    source: str | Path | pd.DataFrame, *, columns: Columns = Columns(), skip_bad_rows: bool = False
) -> Events | EventStream:
    """Open a log to be read in pieces, if it lies in Parquet files on the disk; read any other, as `read_events` does.

    Whatever the rows decide (bad ones, a log without events) is said when they are read.
    """
    log = _log(source, columns)
    files = log.parquet
    if not files:
        return read_events(source, columns=columns, skip_bad_rows=skip_bad_rows)
    stamps = [_stamp(file) for file in files]
    schemas = [parquet_schema(file) for file in files]
    labels = [columns.choose(file.name, schema.names) for file, schema in zip(files, schemas, strict=True)]
    times = {
        time_type(schema.field(names[TIME]).type) if TIME in names else pa.null()
        for names, schema in zip(labels, schemas, strict=True)
    }
    if len({tuple(names) for names in labels}) > 1 or len(times) > 1 or None in times:
        # Parts that do not go together, or not without looking at all rows: the whole log will tell.
        return read_events(source, columns=columns, skip_bad_rows=skip_bad_rows)
    kind = times.pop() if TIME in labels[0] else None
    return EventStream(files, labels, kind, stamps, log.items() if log.items else None, _name(source), skip_bad_rows)


def read_events(
    source: str | Path | pd.DataFrame, *, columns: Columns = Columns(), skip_bad_rows: bool = False
) -> Events:
    """Read a log: a table (CSV, TSV, Parquet, Arrow, Feather, a DataFrame), a folder of Parquet parts, or a folder or
    zip in a public layout (MovieLens, LightGCN, Jester, a ready split: all its sides together).

    In text files ids are integers if every one of them is a canonical integer, else all are text as spelled.
    Raises EventsError for whatever cannot be read, a column that is not there, bad rows (unless `skip_bad_rows`
    drops and counts them), and a log without events.
    """
    log = _log(source, columns)
    name = _name(source)
    for file in log.parquet:
        columns.choose(file.name, parquet_schema(file).names)
    items = log.items() if log.items else None
    sides = [_checked(side(), name, skip_bad_rows) for side in log.sides.values()]
    counts = {key: sum(counts.get(key, 0) for _, counts in sides) for key in ("rows", *BAD_ROWS)}
    table = pa.concat_tables(alike([table for table, _ in sides], name))
    return Events(table, items, {key: n for key, n in counts.items() if n or key == "rows"}, name)


def read_given_split(
    source: str | Path, *, columns: Columns = Columns(), skip_bad_rows: bool = False
) -> Mapping[str, Events]:
    """Read a log that comes split: train and test (LightGCN), or train, validation_history, validation_held_out,
    test_history, test_held_out (five CSV files). Ids have one type on all sides; errors are those of `read_events`.
    """
    log = _log(source, columns)
    if WHOLE in log.sides:
        raise EventsError(f"{source}: does not come split; a strong split of five .csv or train and test are wanted")
    name = _name(source)
    checked = {key: _checked(side(), name, skip_bad_rows) for key, side in log.sides.items()}
    tables = alike([table for table, _ in checked.values()], name)
    items = log.items() if log.items else None
    return {
        key: Events(table, items, counts, f"{name} ({key})")
        for (key, (_, counts)), table in zip(checked.items(), tables, strict=True)
    }


def read_items(source: str | Path | pd.DataFrame, *, column: str | None = None) -> pd.DataFrame:
    """Read an item table: item_id (or `column`, or another usual spelling of it), then anything, a row an item.

    Raises EventsError for a table that cannot be read, or whose ids are empty or not distinct.
    """
    if isinstance(source, pd.DataFrame):
        return with_item_ids(source, _name(source), column)
    path = existing(source)
    file = file_at(path)
    if path.is_dir() or file.kind not in TABLES:
        raise EventsError(f"{path}: not an item table; a .csv, .tsv, .parquet, .arrow or .feather file is wanted")
    return read_item_table(file, column)


def _log(source: str | Path | pd.DataFrame, columns: Columns) -> Log:
    if isinstance(source, pd.DataFrame):
        return Log({WHOLE: lambda: iter([_part_of(source, columns)])})
    path = existing(source)
    file = file_at(path)
    if (path / PREPARED).is_file():
        raise EventsError(f"{path}: interactions that are prepared already; here the log itself is wanted")
    if path.is_dir() or file.kind == ".zip":
        log = log_in(str(path), files_in(path), columns.choose)
    elif file.kind in (*TABLES, ".dat", ".data"):
        log = log_of(path, columns.choose)
    else:
        raise EventsError(f"{path}: no log by its name; recae reads {READABLE}")
    if log.fixed and columns != Columns():
        raise EventsError(f"{path}: this layout's columns are known and have no names; leave the column options out")
    return log


def existing(source: str | Path) -> Path:
    """Return the path of a log; EventsError where there is neither a file nor a folder."""
    try:
        path = Path(source).expanduser()
        exists = path.exists()
    except (RuntimeError, OSError) as error:
        # Nobody's home, a name too long, a folder that may not be entered.
        raise EventsError(
            f"{source}: {getattr(error, 'strerror', None) or str(error).rstrip('.')}; check the path"
        ) from error
    if not exists:
        raise EventsError(f"{path}: no such file or folder; check the path")
    if not (path.is_file() or path.is_dir()):
        # A pipe would wait for ever, or give its rows to whoever looks at the header.
        raise EventsError(f"{path}: neither a regular file nor a folder; write its rows to a file first")
    return path


def _name(source: str | Path | pd.DataFrame) -> str:
    return "the DataFrame" if isinstance(source, pd.DataFrame) else str(source)


def _part_of(frame: pd.DataFrame, columns: Columns) -> Part:
    name = _name(frame)
    header = [str(column) for column in frame.columns]
    labels = columns.choose(name, header, ARGUMENTS)
    table = {
        role: arrow_column(frame.iloc[:, header.index(label)], f"{name}: column '{label}'", ids=role in (USER, ITEM))
        for role, label in labels.items()
    }
    return Part(name, pa.table(table), labels)


def _checked(parts: Iterable[Part], name: str, skip_bad_rows: bool) -> tuple[pa.Table, dict[str, int]]:
    """Check the parts one after the other, each forgotten before the next is read."""
    tables: list[pa.Table] = []
    counts: dict[str, int] = {}
    for part in parts:
        table, found = check(part, skip_bad_rows=skip_bad_rows)
        tables.append(table)
        counts = {key: counts.get(key, 0) + found.get(key, 0) for key in {**counts, **found}}
    table = pa.concat_tables(alike(tables, name))
    if not table.num_rows:
        raise EventsError(_nothing(name, counts["rows"]))
    return table, counts


def _nothing(name: str, rows: int) -> str:
    return f"{name}: no events in it" + (" but bad rows" if rows else "; is it the right file?")


def _stamp(file: File) -> tuple[int, ...]:
    """Return what changes when somebody writes to a file on the disk, or puts another in its place."""
    with readable(file.name):
        facts = cast(Path, file.path).stat()
    return facts.st_ino, facts.st_size, facts.st_mtime_ns

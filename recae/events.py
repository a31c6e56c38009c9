"""Read a log of who touched what, from any of the formats people have, into one checked table.

A row that may not stay (an empty id; a value or a time that is no finite number) stops the reading with one line that
says which and why, or is left out and counted, if the caller says so.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa

from recae.columns import ARGUMENTS, ITEM, TIME, USER, VALUE, Columns
from recae.errors import EventsError
from recae.layouts import WHOLE, Log, log_in, log_of, read_item_table, with_item_ids
from recae.rows import BAD_ROWS, alike, arrow_column, check
from recae.sources import READABLE, TABLES, Part, file_at, files_in

__all__ = [
    "BAD_ROWS",
    "ITEM",
    "TIME",
    "USER",
    "VALUE",
    "Columns",
    "Events",
    "read_events",
    "read_given_split",
    "read_items",
]


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
    sides = [_checked(side(), name, skip_bad_rows) for side in log.sides.values()]
    counts = {key: sum(counts.get(key, 0) for _, counts in sides) for key in ("rows", *BAD_ROWS)}
    table = pa.concat_tables(alike([table for table, _ in sides], name))
    return _events(table, log, {key: n for key, n in counts.items() if n or key == "rows"}, name)


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
        key: _events(table, log, counts, f"{name} ({key})", items)
        for (key, (_, counts)), table in zip(checked.items(), tables, strict=True)
    }


def read_items(source: str | Path | pd.DataFrame, *, column: str | None = None) -> pd.DataFrame:
    """Read an item table: item_id (or `column`, or another usual spelling of it), then anything, a row an item.

    Raises EventsError for a table that cannot be read, or whose ids are empty or not distinct.
    """
    if isinstance(source, pd.DataFrame):
        return with_item_ids(source, _name(source), column)
    path = _existing(source)
    file = file_at(path)
    if path.is_dir() or file.kind not in TABLES:
        raise EventsError(f"{path}: not an item table; a .csv, .tsv, .parquet, .arrow or .feather file is wanted")
    return read_item_table(file, column)


def _log(source: str | Path | pd.DataFrame, columns: Columns) -> Log:
    if isinstance(source, pd.DataFrame):
        return Log({WHOLE: lambda: iter([_part_of(source, columns)])})
    path = _existing(source)
    file = file_at(path)
    if path.is_dir() or file.kind == ".zip":
        log = log_in(str(path), files_in(path), columns.choose)
    elif file.kind in (*TABLES, ".dat", ".data"):
        log = log_of(path, columns.choose)
    else:
        raise EventsError(f"{path}: no log by its name; recae reads {READABLE}")
    if log.fixed and columns != Columns():
        raise EventsError(f"{path}: this layout's columns are known and have no names; leave the column options out")
    return log


def _existing(source: str | Path) -> Path:
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
        raise EventsError(
            f"{name}: no events in it" + (" but bad rows" if counts["rows"] else "; is it the right file?")
        )
    return table, counts


def _events(
    table: pa.Table, log: Log, counts: Mapping[str, int], name: str, items: pd.DataFrame | None = None
) -> Events:
    if items is None and log.items:
        items = log.items()
    return Events(table, items, counts, name)

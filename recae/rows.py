"""What a row of a log must be: two ids, and a value and a time that are finite. Raw columns become checked ones.

Nothing here walks over rows: a column of text is dictionary-encoded, and its few distinct values are judged.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recae.columns import ITEM, TIME, USER, VALUE
from recae.errors import EventsError
from recae.sources import DISTINCT_TEXT, Part

WANTED = {VALUE: "no finite number", TIME: "no finite number and no date"}

REASONS = {
    USER: ("empty_user_id", "an empty user id"),
    ITEM: ("empty_item_id", "an empty item id"),
    VALUE: ("bad_value", f"a value that is {WANTED[VALUE]}"),
    TIME: ("bad_time", f"a time that is {WANTED[TIME]}"),
}
MISFIT = ("wrong_field_count", "too many or too few fields")

BAD_ROWS = (MISFIT[0], *(key for key, _ in REASONS.values()))
"""The keys that count rows left out of a log; a row is counted once, under the first that applies."""

INTEGER = r"^(0|-?[1-9][0-9]*)$"
"""An integer spelled the one canonical way: no leading zeros, no plus sign."""

EXACT = 2**53
"""Floats count without gaps up to here."""

NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
DECIMAL_COMMA = r"^[+-]?[0-9]*,[0-9]+$"
DATE = r"^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?)? ?(Z|[+-]\d\d(:?\d\d)?)?$"

Bad = NDArray[np.bool_]
"""One entry a row: True where the row may not stay."""


@dataclass(frozen=True, eq=False)
class Checked:
    """The rows of a part that may stay, and what is wrong with the others: how many by reason, the first and why."""

    table: pa.Table
    counts: dict[str, int]
    first: tuple[int, str] | None


def check(part: Part, *, skip_bad_rows: bool) -> tuple[pa.Table, dict[str, int]]:
    """Return a part's rows with ids of int64, uint64 or text, values float64, times int64 or float64; no nulls.

    Bad rows raise EventsError, or are dropped and counted by reason. `rows` counts all that were read.
    """
    checked = judge(part)
    counts = ({MISFIT[0]: part.misfits} if part.misfits else {}) | checked.counts
    if counts and not skip_bad_rows:
        raise EventsError(complaint(part.name, counts, checked.first, part.line_of))
    table = checked.table
    if part.text:
        for index, role in enumerate((USER, ITEM)):
            table = table.set_column(index, role, integers_where_canonical(table[role]))
    return table, {"rows": part.table.num_rows + part.misfits, **counts}


def judge(part: Part) -> Checked:
    """Return what may stay of a part, or of a piece of one: rows are judged one by one (but times that are spelled)."""
    columns: dict[str, pa.ChunkedArray] = {}
    bad = np.zeros(part.table.num_rows, dtype=bool)
    counts: dict[str, int] = {}
    first: tuple[int, str] | None = None
    for role in part.table.column_names:
        where = f"{part.name}: column '{part.labels[role]}'"
        columns[role], wrong = _CHECKS[role](part.table[role], where)
        fresh = wrong & ~bad
        if fresh.any():
            key, reason = REASONS[role]
            counts[key] = int(fresh.sum())
            row = int(fresh.argmax())
            if role in WANTED:
                reason = _what_is_wrong(part.table[role].filter(pa.array(fresh)), part.labels[role], role)
            first = min(first or (row, reason), (row, reason))
            bad |= wrong
    table = pa.table(columns)
    return Checked(table.filter(pa.array(~bad)) if bad.any() else table, counts, first)


def _what_is_wrong(bad: pa.ChunkedArray, label: str, role: str) -> str:
    """Return why the first of some bad values or times may not stay; and whether most are spelled with a comma."""
    kind = bad.type.value_type if pa.types.is_dictionary(bad.type) else bad.type
    spelled = pc.utf8_trim_whitespace(bad.cast(kind).cast(pa.string())) if _is_text(kind) else None
    first = (bad if spelled is None else spelled)[0].as_py()
    if first is None or first == "":
        return f"{'no value' if role == VALUE else 'no time'} in column '{label}'"
    reason = f"'{str(first)[:40]}' in column '{label}' is {WANTED[role]}"
    if role == TIME and (re.match(NUMBER, str(first)) or re.match(DATE, str(first))):
        reason = f"'{str(first)[:40]}' in column '{label}' is no time of the kind that most are, numbers or dates"
    if role == VALUE and spelled is not None:
        with_comma = _count(pc.match_substring_regex(spelled, DECIMAL_COMMA))
        if 2 * with_comma > len(spelled):
            reason += " (a decimal comma: write a point)"
    return reason


def time_type(kind: pa.DataType) -> pa.DataType | None:
    """Return what a column of times of this type becomes, int64 or float64; None where its values decide."""
    if pa.types.is_floating(kind) or (pa.types.is_decimal(kind) and kind.scale != 0):
        return pa.float64()
    return None if _is_text(kind) or pa.types.is_dictionary(kind) else pa.int64()


def ids_of(column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    """Return a typed column of ids as int64 (uint64 where they need it) or dictionary-encoded text; nulls stay."""
    kind = _unicode(column, where).type
    if pa.types.is_dictionary(kind):
        if not _is_text(kind.value_type):
            return ids_of(column.cast(kind.value_type), where)
        return _encoded(column, where)
    if _is_text(kind):
        return _encoded(column, where)
    if pa.types.is_integer(kind) or pa.types.is_null(kind):
        return _narrowed(column)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _whole_numbers(column, where)
    raise EventsError(f"{where} holds {kind}; ids are integers or text")


def integers_where_canonical(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Turn spelled ids into integers if every single one is a canonical integer of 64 bits, else leave all as they are.

    "007" or "+7" among them, or one that does not fit, and all stay text: no two spellings become one id.
    """
    column = column.unify_dictionaries()
    if not column.num_chunks:
        return column
    spelled = column.chunk(0).dictionary
    used = np.zeros(len(spelled), dtype=bool)
    for chunk in column.chunks:
        used[chunk.indices.to_numpy()] = True
    present = spelled.filter(pa.array(used))
    if not pc.all(pc.match_substring_regex(present, INTEGER)).as_py():
        return column
    whole = pc.if_else(pa.array(used), spelled, "0")
    for kind in (pa.int64(), pa.uint64()):
        try:
            numbers = whole.cast(kind)
        except pa.ArrowInvalid:
            continue
        return pa.chunked_array([numbers.take(chunk.indices) for chunk in column.chunks])
    return column


def item_ids(column: pa.ChunkedArray, where: str, *, spelled: bool) -> "pd.Series[Any]":
    """Return the ids of an item table, checked: none is empty, none is there twice."""
    ids, empty = _check_ids(column, where)
    if empty.any():
        raise EventsError(f"{where}: {int(empty.sum())} empty item ids, the first in row {int(empty.argmax()) + 1}")
    ids = integers_where_canonical(ids) if spelled else ids
    series: pd.Series[Any] = pd.Series(as_index(ids))
    twice = series.duplicated()
    if twice.any():
        raise EventsError(f"{where}: item '{series[twice].iloc[0]}' is there more than once; keep one row an item")
    return series


def as_index(ids: pa.ChunkedArray) -> pd.Index:
    """Return checked ids as pandas has them: int64, uint64 or str."""
    plain = ids.cast(pa.string()) if pa.types.is_dictionary(ids.type) else ids
    index: pd.Index = pd.Index(plain.to_pandas())
    return index


def arrow_column(series: "pd.Series[Any]", where: str, *, ids: bool) -> pa.ChunkedArray:
    """Return a column of a DataFrame as Arrow has it; integers and text side by side become text."""
    if isinstance(series.dtype, pd.DatetimeTZDtype):
        series = series.dt.tz_convert(None)
    try:
        return _chunked(pa.array(series, from_pandas=True))
    except OverflowError:
        try:
            return _chunked(pa.array(series, pa.uint64(), from_pandas=True))
        except (pa.ArrowException, OverflowError):
            pass
    except (pa.ArrowException, UnicodeError):
        pass
    allowed = (str, int, np.integer) if ids else (str, int, np.integer, float, np.floating)
    kinds = {type(value) for value in series.dropna()}
    if bool in kinds or not all(issubclass(kind, allowed) for kind in kinds):
        found = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise EventsError(f"{where} holds {found}; ids are integers or text, values are numbers")
    try:
        return _chunked(pa.array(series.map(str, na_action="ignore"), pa.string(), from_pandas=True))
    except (pa.ArrowException, UnicodeError) as error:
        raise EventsError(f"{where} holds text that is no Unicode; mend it") from error


def alike(tables: list[pa.Table], source: str) -> list[pa.Table]:
    """Give each column one type in all the tables: ids that are text somewhere become text everywhere."""
    names = {tuple(table.column_names) for table in tables}
    if len(names) > 1:
        found = " and ".join(sorted(", ".join(columns) for columns in names))
        raise EventsError(f"{source}: its parts have different columns ({found}); make them the same")
    for position, name in enumerate(tables[0].column_names):
        columns = [table[name] for table in tables]
        if len({column.type for column in columns}) > 1:
            columns = _same_type(columns, name)
            tables = [table.set_column(position, name, c) for table, c in zip(tables, columns, strict=True)]
    return tables


def _same_type(columns: list[pa.ChunkedArray], name: str) -> list[pa.ChunkedArray]:
    kinds = {column.type for column in columns}
    if name == TIME:
        # Whole ones beside others: nanoseconds lose their last digits, as they have in the part that holds floats.
        return [column.cast(pa.float64(), safe=False) for column in columns]
    if not any(pa.types.is_dictionary(kind) for kind in kinds):
        try:
            wide = pa.float64() if pa.float64() in kinds else pa.uint64()
            return [column.cast(wide) for column in columns]
        except pa.ArrowInvalid:
            # Negative ids on one side, ids beyond int64 on another.
            pass
    return [_encoded(column.cast(pa.string()), "ids") for column in columns]


def _chunked(array: Any) -> pa.ChunkedArray:
    return array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])


def _check_ids(column: pa.ChunkedArray, where: str) -> tuple[pa.ChunkedArray, Bad]:
    ids = ids_of(column, where)
    if pa.types.is_dictionary(ids.type):
        empty = _of_distinct(ids, lambda spelled: pc.equal(pc.utf8_trim_whitespace(spelled), ""))
        return ids, _flags(pc.fill_null(empty, True))
    return ids, _flags(pc.is_null(ids))


def _check_values(column: pa.ChunkedArray, where: str) -> tuple[pa.ChunkedArray, Bad]:
    return _finite(_of_distinct(_unicode(column, where), lambda array: _numbers(array, where)))


def _check_times(column: pa.ChunkedArray, where: str) -> tuple[pa.ChunkedArray, Bad]:
    kind = _unicode(column, where).type
    if _is_text(kind) or (pa.types.is_dictionary(kind) and _is_text(kind.value_type)):
        encoded = _encoded(column, where).unify_dictionaries()
        if not encoded.num_chunks:
            return pa.chunked_array([], pa.int64()), np.zeros(0, dtype=bool)
        times = _spelled_times(encoded.chunk(0).dictionary)
        column = pa.chunked_array([times.take(chunk.indices) for chunk in encoded.chunks])
    elif pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        try:
            column = column.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
        except pa.ArrowInvalid as error:
            raise EventsError(f"{where} holds times too far away to count in microseconds; mend them") from error
    elif pa.types.is_integer(kind) or (pa.types.is_decimal(kind) and kind.scale == 0):
        try:
            column = column.cast(pa.int64())
        except pa.ArrowInvalid as error:
            raise EventsError(f"{where} holds times beyond 64 bits; mend them") from error
    elif pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    elif pa.types.is_null(kind):
        column = column.cast(pa.int64())
    else:
        raise EventsError(f"{where} holds {kind}; times are numbers or dates (--time-col names another column)")
    return _finite(column)


_CHECKS: dict[str, Callable[[pa.ChunkedArray, str], tuple[pa.ChunkedArray, Bad]]] = {
    USER: _check_ids,
    ITEM: _check_ids,
    VALUE: _check_values,
    TIME: _check_times,
}


def _unicode(column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    """Return a column whose text, if it is text, can be spelled: a file may call any bytes so."""
    kind = column.type
    if _is_text(kind.value_type if pa.types.is_dictionary(kind) else kind):
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            raise EventsError(f"{where} holds text that is no Unicode; mend it") from error
    return column


def _numbers(array: pa.Array, where: str) -> pa.Array:
    """Return float64, null where a text is no number."""
    kind = array.type
    if _is_text(kind):
        spelled = pc.utf8_trim_whitespace(array.cast(pa.string()))
        return pc.if_else(pc.match_substring_regex(spelled, NUMBER), spelled, None).cast(pa.float64())
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return array.cast(pa.float64(), safe=False)
    if pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return array.cast(pa.uint8()).cast(pa.float64())
    raise EventsError(f"{where} holds {kind}; values are numbers (--value-col names another column)")


def _spelled_times(distinct: pa.Array) -> pa.Array:
    """Return int64 (numbers as they are, dates as microseconds) or float64; null where a text is not of the kind
    that most are."""
    spelled = pc.utf8_trim_whitespace(distinct)
    number, date = (pc.match_substring_regex(spelled, pattern) for pattern in (NUMBER, DATE))
    if _count(date) > _count(number):
        # Digits beyond the microsecond would shrink the years that pandas can tell.
        wanted = pc.if_else(date, pc.replace_substring_regex(spelled, r"(\.\d{6})\d+", r"\1"), None)
        parsed = pd.to_datetime(wanted.to_pandas(), format="ISO8601", utc=True, errors="coerce").dt.tz_convert(None)
        return pa.array(parsed.dt.as_unit("us"), from_pandas=True).cast(pa.int64())
    wanted = pc.if_else(number, spelled, None)
    if _count(pc.match_substring_regex(spelled, INTEGER)) == _count(number):
        try:
            return wanted.cast(pa.int64())
        except pa.ArrowInvalid:
            pass
    return wanted.cast(pa.float64())


def complaint(
    name: str,
    counts: Mapping[str, int],
    first: tuple[int, str] | None,
    line_of: Callable[[int | None], tuple[int, bool]] | None = None,
) -> str:
    """Return the line that says how many rows of a file are bad, where the first is (by its row, from 0), and why."""
    row, reason = first or (None, MISFIT[1])
    place = f"row {(row or 0) + 1}"
    if line_of:
        line, misfit = line_of(row)
        place, reason = f"line {line}", MISFIT[1] if misfit else reason
    total = sum(counts.values())
    rows = "1 bad row" if total == 1 else f"{total} bad rows"
    return f"{name}: {rows}, the first in {place}: {reason}; mend the file, or pass --skip-bad-rows to go without"


def _of_distinct(column: pa.ChunkedArray, judge: Callable[[pa.Array], pa.Array]) -> pa.ChunkedArray:
    """Apply a function to a column by way of its distinct values, where it is dictionary-encoded."""
    if pa.types.is_dictionary(column.type):
        empty = pa.array([], column.type.value_type)
        judged = [judge(chunk.dictionary).take(chunk.indices) for chunk in column.chunks]
    else:
        empty = pa.array([], column.type)
        judged = [judge(chunk) for chunk in column.chunks]
    return pa.chunked_array(judged or [judge(empty)])


def _encoded(column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    """Return any column of text as one dictionary type."""
    if not pa.types.is_dictionary(column.type):
        # Arrow has no dictionaries of string views.
        column = (column.cast(pa.string()) if "view" in str(column.type) else column).dictionary_encode()
    try:
        chunks = [
            pa.DictionaryArray.from_arrays(chunk.indices.cast(pa.int32()), chunk.dictionary.cast(pa.string()))
            for chunk in column.chunks
        ]
    except pa.ArrowInvalid as error:
        raise EventsError(f"{where} holds bytes that are no UTF-8 text; convert them") from error
    return pa.chunked_array(chunks, DISTINCT_TEXT)


def _whole_numbers(column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    """Turn floats back into the integers they were before a gap in their column made pandas convert them."""
    large = -1
    if pa.types.is_floating(column.type):
        column = column.cast(pa.float64())
        column = pc.if_else(pc.is_nan(column), None, column)
        large = pc.index(pc.greater(pc.abs(column), float(EXACT)), True).as_py()
    try:
        # Up to one that is too large: an earlier one that is not whole is what is wrong first.
        whole = (column if large < 0 else column.slice(0, large)).cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise EventsError(f"{where} holds ids that are no whole numbers; ids are integers or text") from error
    if large >= 0:
        raise EventsError(f"{where} holds floats too large to be exact ids; write them as integers or text")
    return whole


def _narrowed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return integers as int64 where they all fit, else as uint64: equal ids are then equal whatever their file."""
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        return column.cast(pa.uint64())


def _is_text(kind: pa.DataType) -> bool:
    return any(
        test(kind)
        for test in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_string_view,
            pa.types.is_binary,
            pa.types.is_large_binary,
            pa.types.is_binary_view,
        )
    )


def _finite(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, Bad]:
    return column, ~_flags(pc.fill_null(pc.is_finite(column), False))


def _flags(column: pa.ChunkedArray) -> Bad:
    return np.array(column.to_numpy(), dtype=bool)


def _count(flags: Any) -> int:
    return int(pc.sum(flags).as_py() or 0)

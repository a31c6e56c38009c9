"""Reading a log: every format tells the same events, and whatever is wrong is told in one line."""

import datetime as dt
import gzip
import io
import os
import re
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recae.errors import EventsError
from recae.events import Columns, Events, read_events, read_items

SAMPLE = Path(__file__).parents[1] / "data" / "movielens-small"


def rows(events: Events) -> list[tuple[Any, ...]]:
    """Return the events as plain tuples, in order."""
    return list(zip(*(column.to_pylist() for column in events.table.columns), strict=True))


def one_line(call: Callable[[], Any]) -> str:
    """Return the one line with which a call must refuse its input."""
    with pytest.raises(EventsError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and "\r" not in message
    return message


def text_file(folder: Path, text: str | bytes, name: str = "log.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def _write_ipc(frame: pd.DataFrame, path: Path) -> None:
    table = pa.Table.from_pandas(frame)
    with pa.ipc.new_stream(path, table.schema) as stream:
        stream.write_table(table)


WRITERS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    "log.csv": lambda frame, path: frame.to_csv(path, index=False),
    "log.csv.gz": lambda frame, path: frame.to_csv(path, index=False),
    "crlf.csv": lambda frame, path: frame.to_csv(path, index=False, lineterminator="\r\n"),
    "bom.csv": lambda frame, path: frame.to_csv(path, index=False, encoding="utf-8-sig"),
    "semicolon.csv": lambda frame, path: frame.to_csv(path, index=False, sep=";"),
    "log.tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "log.parquet": lambda frame, path: frame.to_parquet(path, row_group_size=3),
    "log.feather": lambda frame, path: frame.to_feather(path),
    "log.arrow": _write_ipc,
}

texts = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=6).map(lambda t: "x" + t)
integers = st.integers(-(2**63), 2**63 - 1)


@st.composite
def logs(draw: Any) -> pd.DataFrame:
    """Draw a log with ids of one kind each, values and times."""
    size = draw(st.integers(1, 12))

    def column(of: st.SearchStrategy) -> list[Any]:
        return draw(st.lists(of, min_size=size, max_size=size))

    return pd.DataFrame(
        {
            "user_id": column(draw(st.sampled_from([texts, integers]))),
            "item_id": column(draw(st.sampled_from([texts, integers]))),
            "value": column(st.floats(-1e6, 1e6)),
            "timestamp": column(st.integers(-(2**53), 2**53)),
        }
    )


@given(logs())
def test_every_format_tells_the_same_events(tmp_path_factory: pytest.TempPathFactory, log: pd.DataFrame) -> None:
    folder = tmp_path_factory.mktemp("log")
    wanted = list(log.itertuples(index=False, name=None))
    assert rows(read_events(log)) == wanted
    for name, write in WRITERS.items():
        write(log, folder / name)
        events = read_events(folder / name)
        assert rows(events) == wanted, name
        assert events.counts == {"rows": len(log)}, name
    half = len(log) // 2
    parts = folder / "parts" / "day=1"
    parts.mkdir(parents=True)
    (parts / "_SUCCESS").touch()
    log[:half].to_parquet(parts / "part-0.parquet")
    log[half:].to_parquet(parts / "part-1.parquet")
    if half:
        assert rows(read_events(folder / "parts")) == wanted
    with zipfile.ZipFile(folder / "log.zip", "w") as archive:
        archive.write(folder / "log.tsv", "inside/log.tsv")
        archive.writestr("inside/README.txt", "about")
    assert rows(read_events(folder / "log.zip")) == wanted


def test_the_sample_that_ships() -> None:
    events = read_events(SAMPLE)
    assert events.table.num_rows == events.counts["rows"] == 100_004
    assert events.table.column_names == ["user_id", "item_id", "value", "timestamp"]
    assert events.items is not None and list(events.items.columns)[:2] == ["item_id", "title"]
    assert len(events.items) == 9_066


@pytest.mark.parametrize(
    ("spelled", "ids"),
    [
        (["7", "0", "-3"], [7, 0, -3]),
        (["7", "007", "1"], ["7", "007", "1"]),
        (["7", "+7", "1"], ["7", "+7", "1"]),
        (["7", "-0", "1"], ["7", "-0", "1"]),
        (["7", " 7", "1.0"], ["7", " 7", "1.0"]),
        (["NA", "null", "NaN"], ["NA", "null", "NaN"]),
        (["Ärger", "ärger", "日本"], ["Ärger", "ärger", "日本"]),
        ([str(2**63), "5", "6"], [2**63, 5, 6]),
        ([str(2**63), "-5", "6"], [str(2**63), "-5", "6"]),
        ([str(2**64), "5", "6"], [str(2**64), "5", "6"]),
    ],
)
def test_ids_in_text_are_integers_only_if_all_are(tmp_path: Path, spelled: list[str], ids: list[object]) -> None:
    lines = "".join(f"{user},1\n" for user in spelled)
    assert [user for user, _ in rows(read_events(text_file(tmp_path, "user,item\n" + lines)))] == ids


def test_an_id_that_only_a_dropped_row_has_does_not_make_text_of_the_others(tmp_path: Path) -> None:
    path = text_file(tmp_path, "user,item,value\n1,2,3\nuser,item,value\n4,5,6\n")
    assert rows(read_events(path, skip_bad_rows=True)) == [(1, 2, 3.0), (4, 5, 6.0)]


@pytest.mark.parametrize(
    ("ids", "wanted"),
    [
        (pd.Series([1.0, 2.0]), [1, 2]),
        (pd.Series([1, 2], dtype="uint8"), [1, 2]),
        (pd.Series([2**63 + 1, 2], dtype="uint64"), [2**63 + 1, 2]),
        (pd.Series([2**63 + 1, 2], dtype=object), [2**63 + 1, 2]),
        (pd.Series(["7", "007"]), ["7", "007"]),
        (pd.Series(["7", "8"]), ["7", "8"]),
        (pd.Series([7, "a"], dtype=object), ["7", "a"]),
        (pd.Series(["b", "a"], dtype="category"), ["b", "a"]),
        (pd.Series([5, 3], dtype="category"), [5, 3]),
        (pd.Series([b"b", b"a"], dtype=object), ["b", "a"]),
        (pd.array([5, 3], dtype="Int64"), [5, 3]),
    ],
)
def test_typed_ids_keep_their_type(ids: Any, wanted: list[object]) -> None:
    assert [user for user, _ in rows(read_events(pd.DataFrame({"user": ids, "item": [1, 1]})))] == wanted


@pytest.mark.parametrize(
    "ids", [[1.5, 2], [True, False], [1e300, 1], [dt.date(2020, 1, 1)] * 2, [[1], [2]], [2.0**60, 1]]
)
def test_what_is_no_id(ids: list[object]) -> None:
    assert "'user'" in one_line(lambda: read_events(pd.DataFrame({"user": ids, "item": [1, 1]})))


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.decimal128(19, 0)])
def test_ids_of_every_arrow_type(tmp_path: Path, kind: pa.DataType) -> None:
    ids = pa.array([1, 2]).cast(kind) if pa.types.is_decimal(kind) else pa.array(["1", "2"]).cast(kind)
    table = pa.table({"user": ids, "item": [1, 2]})
    pa.feather.write_feather(table, tmp_path / "log.feather", compression="uncompressed")
    wanted = [1, 2] if pa.types.is_decimal(kind) else ["1", "2"]
    assert [user for user, _ in rows(read_events(tmp_path / "log.feather"))] == wanted


def test_parts_whose_ids_differ_in_type_are_made_alike(tmp_path: Path) -> None:
    pd.DataFrame({"user": [1], "item": [3], "ts": [1]}).to_parquet(tmp_path / "a.parquet")
    pd.DataFrame({"user": ["x"], "item": [2**63 + 1], "ts": [0.5]}).to_parquet(tmp_path / "b.parquet")
    assert rows(read_events(tmp_path)) == [("1", 3, 1.0), ("x", 2**63 + 1, 0.5)]


def test_quoted_fields_with_commas_quotes_and_line_ends(tmp_path: Path) -> None:
    path = text_file(tmp_path, 'title,user,item\n"a, b\nand c","u,1","i""1"\n')
    assert rows(read_events(path)) == [("u,1", 'i"1')]


@pytest.mark.parametrize(
    ("spelled", "times"),
    [
        (["5", "-7"], [5, -7]),
        (["5", "7.5"], [5.0, 7.5]),
        (["1970-01-01", "1970-01-02"], [0, 86_400_000_000]),
        (["1970-01-01T00:00:01Z", "1970-01-01 00:00:01"], [1_000_000, 1_000_000]),
        (["1970-01-01T01:00:00+01:00", "1970-01-01T00:00:00.123456789Z"], [0, 123_456]),
        (["3000-01-01", "0001-01-01"], [32_503_680_000_000_000, -62_135_596_800_000_000]),
    ],
)
def test_times(tmp_path: Path, spelled: list[str], times: list[float]) -> None:
    lines = "".join(f"1,{row},{time}\n" for row, time in enumerate(spelled))
    assert [row[2] for row in rows(read_events(text_file(tmp_path, "user,item,ts\n" + lines)))] == times


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_typed_times_become_microseconds(unit: str, zone: str | None) -> None:
    time = pd.Series(pd.to_datetime(["1970-01-01 00:00:02"], utc=True)).dt.as_unit(unit)
    time = time.dt.tz_convert(zone) if zone else time.dt.tz_localize(None)
    assert rows(read_events(pd.DataFrame({"user": [1], "item": [1], "date": time}))) == [(1, 1, 2_000_000)]


@pytest.mark.parametrize(
    "header", ["user_id,item_id,value,timestamp", "userId,movieId,rating,date", "UID,Item,Score,TS"]
)
def test_usual_column_names(tmp_path: Path, header: str) -> None:
    assert rows(read_events(text_file(tmp_path, f"{header}\n1,2,3,4\n"))) == [(1, 2, 3.0, 4)]


def test_named_columns_and_columns_that_are_none(tmp_path: Path) -> None:
    path = text_file(tmp_path, "who,what,user,rating,date\na,b,c,1,monday\n")
    assert rows(read_events(path, columns=Columns("who", "what", time=""))) == [("a", "b", 1.0)]
    assert rows(read_events(path, columns=Columns(item="what", value="", time=""))) == [("c", "b")]


@pytest.mark.parametrize(
    ("header", "columns", "words"),
    [
        ("a,b,item", Columns(), ["'a', 'b', 'item'", "--user-col"]),
        ("user,b", Columns(), ["'user', 'b'", "--item-col"]),
        ("user,item,wert", Columns(value="wort"), ["'wort'", "did you mean 'wert'", "--value-col"]),
        ("user,item", Columns(time="when"), ["'when'", "--time-col"]),
        ("user,item", Columns(item="user"), ["'user'", "--user-col", "--item-col"]),
        ("user_id,userId,item", Columns(), ["'user_id', 'userId'", "--user-col"]),
        ("user,user,item", Columns(), ["'user'", "--user-col"]),
    ],
)
def test_columns_that_are_not_there_or_not_clear(
    tmp_path: Path, header: str, columns: Columns, words: list[str]
) -> None:
    width = header.count(",") + 1
    path = text_file(tmp_path, header + "\n" + ",".join("1" * width) + "\n")
    message = one_line(lambda: read_events(path, columns=columns))
    assert all(word in message for word in [*words, str(path)])


BAD_LINES = {
    "empty_user_id": ",i,1,1",
    "empty_item_id": 'u,"",1,1',
    "bad_value": "u,i,{},1",
    "bad_time": "u,i,1,{}",
}


@pytest.mark.parametrize("key", BAD_LINES)
@pytest.mark.parametrize("spelled", ["nan", "inf", "-Infinity", "1e999", "one", "", "1,5x"])
def test_bad_rows_stop_with_their_line_or_are_counted(tmp_path: Path, key: str, spelled: str) -> None:
    field = f'"{spelled}"' if "," in spelled else spelled
    bad = BAD_LINES[key].format(field)
    path = text_file(tmp_path, f'user,item,value,time\n"u\nv",i,1,1\n\nu,i,1,1\n{bad}\n{bad}\nu,i,2,2\n')
    message = one_line(lambda: read_events(path))
    # Line 6: the header, a record of two lines, a blank one, a good one.
    assert f"{path}: 2 bad rows, the first in line 6: " in message and "--skip-bad-rows" in message
    events = read_events(path, skip_bad_rows=True)
    assert events.counts == {"rows": 5, key: 2}
    assert rows(events) == [("u\nv", "i", 1.0, 1), ("u", "i", 1.0, 1), ("u", "i", 2.0, 2)]


def test_records_of_the_wrong_width_are_bad_rows(tmp_path: Path) -> None:
    path = text_file(tmp_path, "user,item\n1,2\n3\n4,5,6\n,8\n7,8\n")
    assert "3 bad rows, the first in line 3: too many or too few fields" in one_line(lambda: read_events(path))
    events = read_events(path, skip_bad_rows=True)
    assert rows(events) == [(1, 2), (7, 8)]
    assert events.counts == {"rows": 5, "wrong_field_count": 2, "empty_user_id": 1}


def test_a_row_that_is_bad_in_many_ways_is_counted_once() -> None:
    log = pd.DataFrame(
        {
            "user": ["", None, "u", "u"],
            "item": [None, "i", "i", "i"],
            "rating": [np.nan, 1, np.inf, 1],
            "time": [pd.NaT, pd.NaT, pd.NaT, pd.Timestamp(0)],
        }
    )
    assert "3 bad rows, the first in row 1: an empty user id" in one_line(lambda: read_events(log))
    events = read_events(log, skip_bad_rows=True)
    assert events.counts == {"rows": 4, "empty_user_id": 2, "bad_value": 1} and rows(events) == [("u", "i", 1.0, 0)]


def test_rows_of_several_kinds_name_the_first_row_of_all() -> None:
    log = pd.DataFrame({"user": ["u", "u", None], "item": ["i", "i", "i"], "value": [1.0, None, 2.0]})
    assert "2 bad rows, the first in row 2: no value in column 'value'; mend" in one_line(lambda: read_events(log))


@pytest.mark.parametrize(
    "value", [pd.Series([1, 0]), pd.Series([True, False]), pd.Series(["1", "0"]), pd.Series([1.0, 0])]
)
def test_values_are_floats(value: pd.Series) -> None:
    events = read_events(pd.DataFrame({"user": [1, 2], "item": [1, 1], "rating": value}))
    assert [row[2] for row in rows(events)] == [1.0, 0.0]


@pytest.mark.parametrize("column", ["value", "time"])
def test_values_and_times_of_another_kind(column: str) -> None:
    log = pd.DataFrame({"user": [1], "item": [1], column: [[1, 2]]})
    assert f"'{column}'" in one_line(lambda: read_events(log))


def _parquet_bytes() -> bytes:
    sink = pa.BufferOutputStream()
    pa.parquet.write_table(pa.table({"user": list(range(1000)), "item": list(range(1000))}), sink)
    return sink.getvalue().to_pybytes()


def _zip_bytes(**members: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "."), data)
    return sink.getvalue()


def _locked() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("log.csv", b"user,item\n1,2\n")
        archive.infolist()[0].flag_bits |= 0x1
    return sink.getvalue()


NOT_LOGS: dict[str, tuple[str, bytes, str]] = {
    "empty": ("log.csv", b"", "empty"),
    "blank": ("log.csv", b"\n\n \n", "empty"),
    "a header alone": ("log.csv", b"user,item\n", "no events"),
    "a header without its line end": ("log.csv", b"user,item", "no events"),
    "nothing but bad rows": ("log.csv", b"user,item\n,1\n", "bad row"),
    "a Parquet file called text": ("log.csv", _parquet_bytes(), "Parquet"),
    "text called Parquet": ("log.parquet", b"user,item\n1,2\n", "not Parquet"),
    "an empty Parquet file": ("log.parquet", b"", "not Parquet"),
    "half a Parquet file": ("log.parquet", _parquet_bytes()[:500], "not Parquet"),
    "text called Arrow": ("log.arrow", b"user,item\n1,2\n", "not Arrow"),
    "an empty Arrow file": ("log.feather", b"", "not Arrow"),
    "Latin-1": ("log.csv", "user,item\nÄrger,1\n".encode("latin-1"), "UTF-8"),
    "UTF-16": ("log.csv", "user,item\n1,2\n".encode("utf-16"), "UTF-8"),
    "an open quote": ("log.csv", b'user,item\n1,2\n3,"4\n5,6\n', "quote"),
    "an open quote before the end": ("log.csv", b'user,item\n1,2\n"3,4\n5,6\n', "quote"),
    "a long quote": ("log.csv", b'user,item\n1,2\n"3,4\n' + b"5,6\n" * 50_000, "a quote is opened and never closed"),
    "a long row": ("log.csv", b"user,item\n1,2\n" + b"3" * 3_000_000 + b",4\n", "log.csv: a row is longer than 1 MiB"),
    "a longer quote": ("log.csv", b'user,item\n1,2\n"3,4\n' + b"5,6\n" * 999_999, "never closed, or a row is longer"),
    "a NUL": ("log.csv", b"user,item\n1,2\n3\0,4\n", "a NUL byte in line 3"),
    "a NUL far down": ("log.csv", b"user,item\n" + b"1,2\n" * 99_999 + b"3\0,4\n", "a NUL byte in line 100001"),
    "a NUL in a column unread": ("log.csv", b"user,item,x\n" + b"1,2,3\n" * 99_999 + b"1,2,\0\n", "line 100001"),
    "a NUL without a header": ("train.txt", b"1 2\n3 \0\n", "a NUL byte in line 2"),
    "a zip with a password": ("log.zip", _locked(), "protected by a password"),
    "text called gzip": ("log.csv.gz", b"user,item\n1,2\n", "cannot be read"),
    "half a gzip": ("log.csv.gz", gzip.compress(b"user,item\n" + bytes(range(48, 58)) * 999)[:-9], "cannot be read"),
    "text called zip": ("log.zip", b"user,item\n1,2\n", "not a zip"),
    "half a zip": ("log.zip", _zip_bytes(log__csv=b"user,item\n1,2\n" * 50)[:60], "not a zip"),
    "a damaged zip": ("log.zip", _zip_bytes(log__csv=b"user,item\n1,2\n").replace(b"1,2", b"1,3"), "log.csv"),
    "a zip of something else": ("log.zip", _zip_bytes(notes__md=b"hello"), "no known layout"),
    "a zip of two tables": ("log.zip", _zip_bytes(a__csv=b"user,item\n1,2\n", b__csv=b""), "no known layout"),
    "a zip of two data sets": ("log.zip", _zip_bytes(u__data=b"", ratings__dat=b""), "more than one"),
    "another kind": ("log.xlsx", b"PK", "recae reads"),
    "rubbish by a known name": ("u.data", bytes(range(256)), "UTF-8"),
}


@pytest.mark.parametrize("case", NOT_LOGS)
def test_files_that_are_no_log(tmp_path: Path, case: str) -> None:
    name, data, word = NOT_LOGS[case]
    path = text_file(tmp_path, data, name)
    message = one_line(lambda: read_events(path))
    assert str(path) in message and word in message
    assert len(message) < 600


def test_nothing_there(tmp_path: Path) -> None:
    assert "no such file" in one_line(lambda: read_events(tmp_path / "gone.csv"))
    assert "no known layout" in one_line(lambda: read_events(tmp_path))
    assert "no events in it but bad rows" in one_line(
        lambda: read_events(text_file(tmp_path, "user,item\n,1\n"), skip_bad_rows=True)
    )
    assert "no events" in one_line(lambda: read_events(pd.DataFrame({"user": [], "item": []})))


@pytest.mark.parametrize(
    ("path", "word"), [("~nobody-of-this-name/log.csv", "home"), ("/" + "x" * 300 + ".csv", "name too long")]
)
def test_paths_that_cannot_be(path: str, word: str) -> None:
    message = one_line(lambda: read_events(path))
    assert message.startswith(path) and word in message


def test_a_pipe_is_refused_rather_than_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log.csv")
    for read in (read_events, read_items):
        assert "neither a regular file nor a folder" in one_line(partial(read, tmp_path / "log.csv"))


@pytest.mark.parametrize("blank", [" ", " \t", "\u00a0", "\u3000"])
def test_an_id_of_blanks_alone_is_empty(tmp_path: Path, blank: str) -> None:
    path = text_file(tmp_path, f"user,item\n{blank},i\nu,{blank}\n u,i\n")
    assert "2 bad rows, the first in line 2: an empty user id" in one_line(lambda: read_events(path))
    for log in (path, pd.DataFrame({"user": [blank, "u", " u"], "item": ["i", blank, "i"]})):
        events = read_events(log, skip_bad_rows=True)
        assert events.counts == {"rows": 3, "empty_user_id": 1, "empty_item_id": 1} and rows(events) == [(" u", "i")]
    assert "empty item ids" in one_line(lambda: read_items(pd.DataFrame({"item": ["i", blank]})))


@pytest.mark.parametrize("odd", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_a_header_ends_where_its_line_does(tmp_path: Path, odd: str) -> None:
    assert rows(read_events(text_file(tmp_path, f"user,x{odd}y,item{odd}\n1,2,3\n"))) == [(1, 3)]


@pytest.mark.parametrize(
    ("names", "columns", "way"),
    [
        (["a", "item"], Columns(), "columns=Columns(user=...)"),
        (["user", "item"], Columns(value="v"), "columns=Columns(value=...)"),
        (["user", "User", "item"], Columns(), "columns=Columns(user=...)"),
        (["user", "item"], Columns(item="user"), "columns=Columns(user=...) and columns=Columns(item=...)"),
    ],
)
def test_columns_of_a_frame_are_named_in_python(names: list[str], columns: Columns, way: str) -> None:
    frame = pd.DataFrame([["x"] * len(names)], columns=names)
    message = one_line(lambda: read_events(frame, columns=columns))
    assert way in message and "--" not in message


def test_item_tables(tmp_path: Path) -> None:
    path = text_file(tmp_path, 'movieId,title,length\n7,"Up, up",1.5\n8,Down,2\n', "items.csv")
    wanted = pd.DataFrame({"item_id": [7, 8], "title": ["Up, up", "Down"], "length": [1.5, 2.0]})
    pd.testing.assert_frame_equal(read_items(path), wanted)
    pd.testing.assert_frame_equal(read_items(wanted.rename(columns={"item_id": "sku"})), wanted)
    for name in ("items.parquet", "items.feather", "items.tsv"):
        WRITERS["log" + Path(name).suffix](wanted, tmp_path / name)
        pd.testing.assert_frame_equal(read_items(tmp_path / name), wanted)
    wanted.set_index("item_id").to_parquet(tmp_path / "index.parquet")
    pd.testing.assert_frame_equal(read_items(tmp_path / "index.parquet"), wanted)
    pd.testing.assert_frame_equal(
        read_items(wanted.rename(columns={"item_id": "x"}), column="x"), wanted.rename(columns={"x": "item_id"})
    )
    assert read_items(text_file(tmp_path, "item\n007\n", "items.csv"))["item_id"].to_list() == ["007"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("item,title\n1,a\n1,b\n", "item '1' is there more than once"),
        ("item,title\n1,a\n,b\n", "row 2"),
        ("name,title\n1,a\n", "'name', 'title'"),
        ("item,title\n1,a,b\n", "too many or too few"),
        ("item,sku,item_id2\n", ""),
    ],
)
def test_item_tables_that_are_none(tmp_path: Path, text: str, words: str) -> None:
    path = text_file(tmp_path, text)
    if words:
        assert words in one_line(lambda: read_items(path))
    else:
        assert read_items(path).empty
    assert "not an item table" in one_line(lambda: read_items(tmp_path))


@given(st.lists(st.tuples(texts, st.one_of(st.floats(allow_nan=True), st.none())), min_size=1, max_size=9))
def test_what_is_dropped_and_what_is_left_add_up(log: list[tuple[str, float | None]]) -> None:
    frame = pd.DataFrame({"user": ["u"] * len(log), "item": [i for i, _ in log], "value": [v for _, v in log]})
    good = [("u", item, value) for item, value in log if value is not None and np.isfinite(value)]
    if not good:
        assert re.search("no events", one_line(lambda: read_events(frame, skip_bad_rows=True)))
        return
    events = read_events(frame, skip_bad_rows=True)
    assert rows(events) == good
    assert events.counts.get("bad_value", 0) == len(log) - len(good)

"""The public layouts of interaction data, recognised by the names of their files in a folder or a zip.

A layout says which parts a log has, and what its items are called. A log that comes split has a part for each side.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recae.columns import ITEM, TIME, USER, VALUE, choose_item
from recae.errors import EventsError
from recae.rows import arrow_column, item_ids
from recae.sources import (
    ARROW,
    DISTINCT_TEXT,
    PARQUET,
    TEXT,
    Choose,
    Delimited,
    File,
    Part,
    delimited,
    file_at,
    header_of,
    read_delimited,
    read_log,
    read_text_log,
    read_typed,
    refuse_nul,
)

WHOLE = "whole"
"""The one side of a log that does not come split."""

Siblings = Mapping[str, File]
"""The files of one folder, by their bare names."""


@dataclass(frozen=True, eq=False)
class Log:
    """A log before its rows are checked: its sides, each in parts that are read one by one, and its items, if told.

    `fixed` says that the layout leaves no columns to choose. `parquet` has the files of a log that is in nothing but
    Parquet files on the disk: it can be read in pieces.
    """

    sides: Mapping[str, Callable[[], Iterator[Part]]]
    items: Callable[[], pd.DataFrame] | None = None
    fixed: bool = False
    parquet: Sequence[File] = ()


@dataclass(frozen=True, eq=False)
class Layout:
    """The files of each side, and the file that tells the items, with how to read it."""

    sides: Mapping[str, str | tuple[str, ...]]
    items: str = ""
    read_items: Callable[[Siblings], pd.DataFrame] | None = None


def log_in(name: str, files: Mapping[str, File], choose: Choose) -> Log:
    """Return the log that lies in a folder or a zip; EventsError where none does, or more than one."""
    folders: dict[str, dict[str, File]] = {}
    for path, file in files.items():
        pure = PurePosixPath(path)
        folders.setdefault(str(pure.parent), {})[pure.name] = file
    found = [(layout, inside) for inside in folders.values() for layout in LAYOUTS if _fits(layout, inside)]
    if len(found) == 1:
        return _laid_out(*found[0], choose)
    if found:
        those = ", ".join(sorted(inside[files_of(layout)[0]].name for layout, inside in found))
        raise EventsError(f"{name}: holds more than one data set ({those}); unpack it and point at one of them")
    parts = [file for file in files.values() if file.kind in PARQUET]
    tables = [file for file in files.values() if file.kind in (*PARQUET, *ARROW, ".csv", ".tsv")]
    if parts and len(parts) == len(tables):
        return Log({WHOLE: lambda: (read_log(file, choose) for file in parts)}, parquet=_on_disk(parts))
    halves = [(layout, inside) for inside in folders.values() for layout in LAYOUTS if _lacks(layout, inside)]
    if len(tables) == 1 and not any(inside.get(layout.items) is tables[0] for layout, inside in halves):
        return Log({WHOLE: lambda: iter([read_log(tables[0], choose)])})
    if halves:
        lacking = ", ".join(_lacks(*halves[0]))
        raise EventsError(f"{name}: a part of a data set without the rest of it ({lacking}); fetch it again")
    known = ", ".join(" + ".join(files_of(layout)) for layout in LAYOUTS)
    raise EventsError(f"{name}: no known layout in it ({known}), nor a single table, nor Parquet parts alone")


def log_of(path: Path, choose: Choose) -> Log:
    """Return the log of a single file; one of a headerless layout brings the item table that lies beside it."""
    file, reader = file_at(path), _reader(path.name)
    if reader is None:
        return Log({WHOLE: lambda: iter([read_log(file, choose)])}, parquet=_on_disk([file]))
    layout = next(layout for layout in LAYOUTS if path.name in files_of(layout))
    siblings = {beside.name: file_at(beside) for beside in path.parent.iterdir()}
    return Log({WHOLE: lambda: iter([reader(file)])}, _items(layout, siblings), fixed=True)


def files_of(layout: Layout) -> list[str]:
    """Return the names of all files of a layout's sides."""
    return [name for names in layout.sides.values() for name in _several(names)]


def read_item_table(file: File, column: str | None = None) -> pd.DataFrame:
    """Read an item table with a header: item_id first, then its other columns as they are."""
    if file.kind not in TEXT:
        frame = read_typed(file).to_pandas()
        # pandas may have put the ids into the index when the file was written.
        return with_item_ids(frame.reset_index() if frame.index.name else frame, file.name, column)
    form = delimited(file)
    chosen = choose_item(file.name, header_of(file, form), column)
    table, misfits = read_delimited(file, form, text=[chosen], only_text=False)
    if misfits:
        raise EventsError(f"{file.name}: {misfits} rows have too many or too few fields; mend the file")
    return with_item_ids(table.to_pandas(), file.name, chosen, spelled=True)


def with_item_ids(frame: pd.DataFrame, name: str, column: str | None, *, spelled: bool = False) -> pd.DataFrame:
    """Return a frame with its checked ids first, as `item_id`; each is there once, none is empty."""
    frame = frame.set_axis([str(label) for label in frame.columns], axis=1).reset_index(drop=True)
    chosen = choose_item(name, list(frame.columns), column)
    where = f"{name}: column '{chosen}'"
    ids = item_ids(arrow_column(frame[chosen], where, ids=True), where, spelled=spelled)
    rest = frame.drop(columns=chosen)
    if ITEM in rest:
        raise EventsError(f"{name}: ids are taken from '{chosen}', yet there is a column item_id; drop one of them")
    rest.insert(0, ITEM, ids)
    return rest


def _fits(layout: Layout, inside: Siblings) -> bool:
    return all(name in inside for name in files_of(layout))


def _lacks(layout: Layout, inside: Siblings) -> list[str]:
    """Return which files of a layout are missing beside others of it whose names stand for nothing else."""
    names = files_of(layout)
    return [name for name in names if name not in inside] if any(map(_reader, inside.keys() & names)) else []


def _several(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def _laid_out(layout: Layout, inside: Siblings, choose: Choose) -> Log:
    def parts(names: tuple[str, ...]) -> Callable[[], Iterator[Part]]:
        def read(name: str) -> Part:
            reader = _reader(name)
            return reader(inside[name]) if reader else read_log(inside[name], choose)

        return lambda: map(read, names)

    sides = {side: parts(_several(names)) for side, names in layout.sides.items()}
    files = files_of(layout)
    parquet = _on_disk([inside[name] for name in files])
    return Log(sides, _items(layout, inside), fixed=_reader(files[0]) is not None, parquet=parquet)


def _on_disk(files: Sequence[File]) -> Sequence[File]:
    return files if all(file.kind in PARQUET and file.path for file in files) else ()


def _items(layout: Layout, inside: Siblings) -> Callable[[], pd.DataFrame] | None:
    reader = layout.read_items
    return (lambda: reader(inside)) if reader and layout.items in inside else None


def _reader(name: str) -> Callable[[File], Part] | None:
    return next((reader for pattern, reader in _HEADERLESS.items() if re.fullmatch(pattern, name)), None)


def _as_named(name: str, header: object) -> dict[str, str]:
    return {role: role for role in header}  # type: ignore[attr-defined]


def _double_colons(file: File) -> Part:
    form = Delimited("\x1f", quoted=False, names=(USER, ITEM, VALUE, TIME))
    return read_text_log(_recoded(file, b"::", b"\x1f"), form, _as_named)


def _tabs(*names: str) -> Callable[[File], Part]:
    return lambda file: read_text_log(file, Delimited("\t", quoted=False, names=names), _as_named)


def _user_then_items(file: File) -> Part:
    """Read the lines of LightGCN: a user, then every item of theirs, between blanks."""
    data = file.read()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise EventsError(f"{file.name}: not UTF-8 text; lines of 'user item item …' are wanted") from error
    refuse_nul(file.name, data)
    words = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(pa.array(text.split("\n"))))
    line = pc.list_parent_indices(words).to_numpy()
    starts = words.offsets.to_numpy()[:-1]
    is_item = np.ones(len(line), dtype=bool)
    is_item[starts] = False
    spelled = words.flatten()
    users = spelled.take(pa.array(starts[line[is_item]]))
    columns = {USER: users, ITEM: spelled.filter(pa.array(is_item))}
    return Part(
        name=file.name,
        table=pa.table({role: column.dictionary_encode() for role, column in columns.items()}),
        labels={USER: USER, ITEM: ITEM},
        text=True,
        line_of=lambda row: (int(line[is_item][row or 0]) + 1, False),
    )


def _jester(file: File) -> Part:
    """Read Jester's dense table: a reader a line, first how many jokes they rated, then every joke, 99 for unrated."""
    width = len(header_of(file, Delimited(",")))
    jokes = [str(joke) for joke in range(1, width)]
    lines = read_text_log(file, Delimited(",", names=("count", *jokes)), _as_named)
    rated = np.stack(
        [~_true(pc.match_substring_regex(_text(lines.table[joke]), r"^\s*99(\.0*)?\s*$")) for joke in jokes]
    )
    said = pd.to_numeric(_text(lines.table["count"]).to_pandas(), errors="coerce").to_numpy()
    wrong = np.flatnonzero(said != rated.sum(axis=0))
    if len(wrong):
        line = lines.line_of(int(wrong[0]))[0] if lines.line_of else int(wrong[0]) + 1
        raise EventsError(f"{file.name}: line {line} does not hold as many ratings as its first column says; mend it")
    joke, reader = np.nonzero(rated)
    values = [lines.table[name].filter(pa.array(row)) for name, row in zip(jokes, rated, strict=True)]
    order = np.argsort(reader, kind="stable")
    spelled = pa.chunked_array([chunk for value in values for chunk in value.chunks], DISTINCT_TEXT)
    columns = {
        USER: pa.array(reader[order] + 1),
        ITEM: pa.array(joke[order] + 1),
        VALUE: spelled.unify_dictionaries().combine_chunks().take(pa.array(order)),
    }
    line_of = lines.line_of
    return replace(
        lines,
        table=pa.table(columns),
        labels={role: role for role in columns},
        text=False,
        line_of=line_of and (lambda row: line_of(None if row is None else int(reader[order][row]))),
    )


def _netflix(file: File) -> Part:
    """Read Netflix' blocks: a line with a film and a colon, then a line 'user,rating,date' for each of its ratings."""
    pieces = re.split(rb"^(\d+):\r?\n", file.read(), flags=re.MULTILINE)
    films, blocks = pieces[1::2], [block if block.endswith(b"\n") else block + b"\n" for block in pieces[2::2]]
    barren = next((film.decode() for film, block in zip(films, blocks, strict=True) if block == b"\n"), None)
    if pieces[0].strip() or not films:
        raise EventsError(f"{file.name}: does not begin with a film's number and a colon; fetch the data set again")
    if barren:
        raise EventsError(f"{file.name}: no rating follows film {barren}; fetch the data set again")
    lengths = np.array([block.count(b"\n") for block in blocks])
    data = b"".join(blocks)
    rows = read_text_log(
        replace(file, open=lambda: BytesIO(data), path=None), Delimited(",", names=(USER, VALUE, TIME)), _as_named
    )
    if rows.table.num_rows + rows.misfits != lengths.sum():
        raise EventsError(f"{file.name}: has empty lines; fetch the data set again")
    film = np.repeat(np.arange(len(films)), lengths)
    line_of = rows.line_of

    def with_heads(row: int | None) -> tuple[int, bool]:
        line, misfit = line_of(row) if line_of else (0, False)
        return line + int(film[line - 1]) + 1, misfit

    if rows.misfits:
        raise EventsError(f"{file.name}: line {with_heads(None)[0]} has not three fields; fetch the data set again")
    number = pa.DictionaryArray.from_arrays(pa.array(film, pa.int32()), pa.array([name.decode() for name in films]))
    labels = {**rows.labels, ITEM: ITEM}
    return replace(rows, table=rows.table.add_column(1, ITEM, number), labels=labels, line_of=with_heads)


_HEADERLESS: Mapping[str, Callable[[File], Part]] = {
    r"ratings\.dat": _double_colons,
    r"u\.data": _tabs(USER, ITEM, VALUE, TIME),
    r"(train|test)\.txt": _user_then_items,
    r"(data|test)1\.txt": _tabs(USER, ITEM, VALUE),
    r"jester-data-[1-3]\.csv": _jester,
    r"combined_data_[1-4]\.txt": _netflix,
    r"train_triplets\.txt": _tabs(USER, ITEM, VALUE),
}


def _films_dat(files: Siblings) -> pd.DataFrame:
    form = Delimited("\x1f", quoted=False, names=(ITEM, "title", "genres"))
    return _films(_recoded(files["movies.dat"], b"::", b"\x1f"), form)


def _films_csv(files: Siblings) -> pd.DataFrame:
    return _films(files["movies.csv"], Delimited(","))


def _films_netflix(files: Siblings) -> pd.DataFrame:
    """Read 'film,year,title', whose titles have commas."""
    file = files["movie_titles.csv"]
    told = file.read().decode("latin-1").splitlines()
    fields = [line.split(",", 2) for line in told if line.count(",") >= 2]
    if not fields:
        raise EventsError(f"{file.name}: no line 'film,year,title' in it; fetch the data set again")
    film, year, title = (pd.Series(column, dtype="str") for column in zip(*fields, strict=True))
    where = f"{file.name}: the first column"
    ids = item_ids(arrow_column(film, where, ids=True), where, spelled=True)
    return pd.DataFrame({ITEM: ids, "title": title, "year": pd.to_numeric(year, errors="coerce").astype("Int64")})


def _films_100k(files: Siblings) -> pd.DataFrame:
    file = _recoded(files["u.item"])
    genres = ["unknown", *re.findall(r"^(.+)\|[1-9]\d*$", files["u.genre"].read().decode("latin-1"), re.MULTILINE)]
    names = (ITEM, "title", "released", "video", "url", *genres)
    table, misfits = read_delimited(file, Delimited("|", quoted=False, names=names), text=list(names), only_text=True)
    flags = np.stack([_true(pc.equal(_text(table[genre]), "1")) for genre in genres], axis=1)
    joined = ["|".join(np.array(genres)[row]) for row in flags]
    return _described(file.name, table.append_column("genres", pa.array(joined)), misfits)


def _films(file: File, form: Delimited) -> pd.DataFrame:
    columns = list(form.names or header_of(file, form))
    table, misfits = read_delimited(file, form, text=columns, only_text=True)
    id_name = choose_item(file.name, columns)
    return _described(file.name, table.rename_columns([ITEM if c == id_name else c for c in columns]), misfits)


def _described(name: str, table: pa.Table, misfits: int) -> pd.DataFrame:
    """Return item_id, title, genres joined by bars, and the year that stands in brackets at a title's end."""
    if misfits:
        raise EventsError(f"{name}: {misfits} lines have too many or too few fields; fetch the data set again")
    title = _text(table["title"]).to_pandas()
    genres = _text(table["genres"]).to_pandas()
    year = title.str.extract(r"\((\d{4})(?:\s*[–-]\s*(?:\d{4})?)?\)\s*$", expand=False)
    return pd.DataFrame(
        {
            ITEM: item_ids(table[ITEM], f"{name}: the first column", spelled=True),
            "title": title,
            "genres": genres.mask(genres.isin(["", "(no genres listed)"])),
            "year": pd.to_numeric(year).astype("Int64"),
        }
    )


def _own_items(files: Siblings) -> pd.DataFrame:
    return read_item_table(files["items.parquet"])


def _split_items(files: Siblings) -> pd.DataFrame:
    return read_item_table(files["items.csv"])


LAYOUTS = (
    Layout({WHOLE: "events.parquet"}, "items.parquet", _own_items),
    Layout(
        {
            "train": "train.csv",
            "validation_history": "validation_tr.csv",
            "validation_held_out": "validation_te.csv",
            "test_history": "test_tr.csv",
            "test_held_out": "test_te.csv",
        },
        "items.csv",
        _split_items,
    ),
    Layout({"train": "train.txt", "test": "test.txt"}),
    Layout({"train": "data1.txt", "test": "test1.txt"}),
    Layout({WHOLE: "ratings.dat"}, "movies.dat", _films_dat),
    Layout({WHOLE: "u.data"}, "u.item", _films_100k),
    Layout({WHOLE: "ratings.csv"}, "movies.csv", _films_csv),
    Layout({WHOLE: "jester-data-1.csv"}),
    Layout({WHOLE: "jester-data-2.csv"}),
    Layout({WHOLE: "jester-data-3.csv"}),
    Layout({WHOLE: tuple(f"combined_data_{number}.txt" for number in range(1, 5))}, "movie_titles.csv", _films_netflix),
    Layout({WHOLE: "train_triplets.txt"}),
)
"""recae's own layout, the strong split of five files, LightGCN and its Last.fm, three ages of MovieLens, Jester, the
Netflix Prize as Kaggle packs it, and the Echo Nest's taste profile (the Million Song Dataset)."""


def _recoded(file: File, old: bytes = b"", new: bytes = b"") -> File:
    """Return a file as UTF-8, out of UTF-8 or Latin-1 (MovieLens had both), with one delimiter for another."""
    data = file.read()
    try:
        data.decode()
    except UnicodeDecodeError:
        data = data.decode("latin-1").encode()
    data = data.replace(old, new) if old else data
    return replace(file, open=lambda: BytesIO(data), path=None)


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string())


def _true(flags: pa.ChunkedArray) -> np.ndarray:
    return np.array(flags.to_numpy(), dtype=bool)

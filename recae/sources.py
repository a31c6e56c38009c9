"""Where a log lies: a file, a folder or a zip, and the raw tables in it, before anybody has looked at a row.

Columns of text files stay text here, dictionary-encoded: every later check then looks at distinct values only.
"""

import codecs
import csv
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet

from recae.errors import EventsError

TEXT = (".csv", ".tsv", ".txt")
PARQUET = (".parquet", ".pq")
ARROW = (".arrow", ".feather", ".ipc")
TABLES = TEXT + PARQUET + ARROW
READABLE = ".csv, .tsv, .txt (or those with .gz), .parquet, .arrow, .feather, .zip, or a folder"

DISTINCT_TEXT = pa.dictionary(pa.int32(), pa.string())

MAGIC = {b"PAR1": "Parquet", b"PK\x03\x04": "zip", b"ARROW1": "Arrow", b"FEA1": "Feather", b"\x1f\x8b": "gzip"}
"""The first bytes of files that a wrong name makes look like text."""

ENCRYPTED = 0x1
"""The flag of a zip's member that a password protects."""

PIECE = 1 << 20
"""Rows of a Parquet file that are looked at together."""

BLOCK = 1 << 20
"""Bytes that Arrow parses at a time; no record may be longer."""

LONGEST = 1 << 30
"""Characters of a field for Python's csv, whose own limit an open quote that swallows rows would reach."""


@dataclass(frozen=True, eq=False)
class File:
    """A file, wherever it lies; `name` is what messages call it, `kind` its lower-case suffix, less any .gz."""

    name: str
    kind: str
    open: Callable[[], BinaryIO]
    path: Path | None = None

    def read(self) -> bytes:
        """Return the file's bytes."""
        with readable(self.name), self.open() as stream:
            return stream.read()


@dataclass(frozen=True, eq=False)
class Delimited:
    """How the records of a text file are told apart; `names` are the columns of a file without a header line."""

    delimiter: str
    quoted: bool = True
    names: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False)
class Part:
    """Rows as they stand in one file, unchecked: columns user_id, item_id[, value][, timestamp] of any type.

    `labels` gives each column's name in the file. `text` says that ids were spelled, not typed. `misfits` counts
    records of the wrong number of fields, which the table lacks. `line_of`, for text, finds the line of the first
    misfit or of the table's n-th row, whichever comes first, and says whether it is a misfit.
    """

    name: str
    table: pa.Table
    labels: dict[str, str]
    text: bool = False
    misfits: int = 0
    line_of: Callable[[int | None], tuple[int, bool]] | None = None


Choose = Callable[[str, Sequence[str]], dict[str, str]]
"""From a file's name and its columns to the columns that matter: role → name."""


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turn whatever reading a damaged file raises into one line that names the file."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise EventsError(f"{name}: not UTF-8 text ({error.reason}); convert it to UTF-8") from error
    except (OSError, EOFError, RuntimeError, NotImplementedError, ValueError, KeyError) as error:
        raise EventsError(f"{name}: cannot be read ({_one_line(error)}); check that the file is whole") from error
    except (zipfile.BadZipFile, zlib.error) as error:
        raise EventsError(f"{name}: a damaged zip ({_one_line(error)}); fetch or make it again") from error


def file_at(path: Path) -> File:
    """Return the file at a path."""
    return _file(str(path), path.name, lambda: path.open("rb"), path)


def files_in(path: Path) -> dict[str, File]:
    """Return the files of a folder or a zip by their relative POSIX path, sorted; hidden ones are left out."""
    if path.is_dir():
        paths = sorted(p for p in path.rglob("*") if p.is_file())
        found = {p.relative_to(path).as_posix(): file_at(p) for p in paths}
    else:
        try:
            with zipfile.ZipFile(path) as archive:
                infos = [info for info in archive.infolist() if not info.is_dir()]
        except zipfile.BadZipFile as error:
            raise EventsError(f"{path}: not a zip, or one cut short; fetch or make it again") from error
        except OSError as error:
            raise EventsError(f"{path}: cannot be read ({error.strerror or error})") from error
        if any(info.flag_bits & ENCRYPTED for info in infos):
            raise EventsError(f"{path}: protected by a password; unpack it and point at what was in it")
        members = sorted(info.filename for info in infos)
        found = {m: _file(f"{m} in {path}", m, _member(path, m)) for m in members}
    return {key: file for key, file in found.items() if not any(p[0] in "._" for p in PurePosixPath(key).parts)}


def read_log(file: File, choose: Choose) -> Part:
    """Read the chosen columns of a table, whatever its format."""
    if file.kind in TEXT:
        return read_text_log(file, delimited(file), choose)
    table = read_typed(file, choose)
    labels = choose(file.name, table.column_names)
    return Part(file.name, pa.table({role: table[name] for role, name in labels.items()}), labels)


def read_text_log(file: File, form: Delimited, choose: Choose) -> Part:
    """Read the chosen columns of a delimited text file."""
    header = list(form.names or header_of(file, form))
    labels = choose(file.name, header)
    raw, misfits = read_delimited(file, form, text=list(labels.values()), only_text=True)
    return Part(
        name=file.name,
        table=pa.table({role: raw[name] for role, name in labels.items()}),
        labels=labels,
        text=True,
        misfits=misfits,
        line_of=lambda row: _line_of(file, form, len(header), row),
    )


def read_typed(file: File, choose: Choose | None = None) -> pa.Table:
    """Read a Parquet, Arrow or Feather file: the chosen columns, or all of them."""
    with _typed(file):
        return _read_parquet(file, choose) if file.kind in PARQUET else _read_arrow(file)


def parquet_schema(file: File) -> pa.Schema:
    """Return the columns of a Parquet file on the disk, with their types."""
    with _typed(file):
        return pa.parquet.read_schema(file.path)


def parquet_pieces(file: File, labels: Mapping[str, str]) -> Iterator[pa.Table]:
    """Read some columns (role → name) of a Parquet file on the disk, PIECE rows at a time, or one piece without rows.

    A piece is all that is in memory, however long the file's row groups are.
    """
    names = list(labels.values())
    with _typed(file), pa.parquet.ParquetFile(file.path, pre_buffer=False, buffer_size=BLOCK) as parquet:
        empty = True
        for batch in parquet.iter_batches(PIECE, columns=names):
            empty = False
            yield pa.table({role: batch.column(name) for role, name in labels.items()})
        if empty:
            nothing = parquet.schema_arrow.empty_table()
            yield pa.table({role: nothing[name] for role, name in labels.items()})


@contextmanager
def _typed(file: File) -> Iterator[None]:
    """Turn whatever reading a damaged Parquet or Arrow file raises into one line that names the file."""
    what = "Parquet" if file.kind in PARQUET else "Arrow"
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise EventsError(f"{file.name}: not {what}, or cut short ({_one_line(error)}); write it again") from error


def column_names(file: File) -> list[str]:
    """Return the names of a table's columns."""
    if file.kind in TEXT:
        return header_of(file, delimited(file))
    if file.kind in PARQUET and file.path:
        with readable(file.name):
            return list(pa.parquet.read_schema(file.path).names)
    return list(read_typed(file).column_names)


def delimited(file: File) -> Delimited:
    """Return how a text file with a header separates its fields: a tab in .tsv, else what its header line shows."""
    if file.kind == ".tsv":
        return Delimited("\t")
    line = _first_line(file)
    return Delimited(max((",", "\t", ";", "|"), key=line.count))


def header_of(file: File, form: Delimited) -> list[str]:
    """Return the names in a text file's header line."""
    return next(csv.reader([_first_line(file)], delimiter=form.delimiter))


def read_delimited(file: File, form: Delimited, *, text: list[str], only_text: bool) -> tuple[pa.Table, int]:
    """Read a text file: the named columns as dictionary-encoded text, the others typed by sight or left out.

    Returns the table and the number of records left out of it because they had too many or too few fields.
    """
    misfits = 0

    def count(_: Any) -> str:
        nonlocal misfits
        misfits += 1
        return "skip"

    with readable(file.name), file.open() as opened:
        stream: Any = _Watched(file.name, opened)
        try:
            table = pa.csv.read_csv(
                stream,
                # One thread: the second core gains little here, and rows keep the order of the file.
                read_options=pa.csv.ReadOptions(use_threads=False, column_names=form.names, block_size=BLOCK),
                parse_options=pa.csv.ParseOptions(
                    delimiter=form.delimiter,
                    quote_char='"' if form.quoted else False,
                    newlines_in_values=form.quoted,
                    invalid_row_handler=count,
                ),
                convert_options=pa.csv.ConvertOptions(
                    column_types=dict.fromkeys(text, DISTINCT_TEXT), include_columns=text if only_text else None
                ),
            )
        except pa.ArrowInvalid as error:
            reason = _one_line(error)
            if "Empty CSV" in reason:
                # A header without a line end, or blank lines alone.
                table = pa.table({name: pa.array([], DISTINCT_TEXT) for name in text})
            elif "straddling" in reason:
                open_quote = "a quote is opened and never closed, or " if form.quoted and stream.quotes else ""
                raise EventsError(f"{file.name}: {open_quote}a row is longer than 1 MiB; mend the file") from error
            else:
                raise
    if form.quoted and stream.quotes % 2 and _ends_in_quotes(file, form):
        raise EventsError(f"{file.name}: a quote is opened and never closed; mend the file")
    return table, misfits


def refuse_nul(name: str, data: bytes, lines: int = 0) -> None:
    """Raise EventsError if there is a NUL byte, which is UTF-8 but no text, in data that come after so many lines."""
    place = data.find(b"\0")
    if place >= 0:
        line = lines + data.count(b"\n", 0, place) + 1
        raise EventsError(f"{name}: a NUL byte in line {line}; mend the line, or convert the file to UTF-8 from UTF-16")


class _Watched(io.RawIOBase):
    """A stream that counts the quotation marks that go through it, and lets nothing but UTF-8 without NUL through.

    Arrow notices neither a quote that is never closed nor, outside the columns it is asked for, text of another kind.
    """

    def __init__(self, name: str, stream: BinaryIO) -> None:
        self.name = name
        self.stream = stream
        self.lines = 0
        self.quotes = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(size)
        self._decoder.decode(data, final=not data)
        refuse_nul(self.name, data, self.lines)
        self.lines += data.count(b"\n")
        self.quotes += data.count(b'"')
        return data


class _Unzipped(gzip.GzipFile):
    """A gzip stream that closes what it reads from."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(fileobj=stream)
        self.stream = stream

    def close(self) -> None:
        super().close()
        self.stream.close()


def _file(name: str, path: str, opener: Callable[[], BinaryIO], at: Path | None = None) -> File:
    pure = PurePosixPath(path.lower())
    if pure.suffix == ".gz":
        return File(name, PurePosixPath(pure.stem).suffix, lambda: cast(BinaryIO, _Unzipped(opener())))
    return File(name, pure.suffix, opener, at)


def _member(path: Path, member: str) -> Callable[[], BinaryIO]:
    def opener() -> BinaryIO:
        # The member keeps the archive's file open until it is closed itself.
        with zipfile.ZipFile(path) as archive:
            return cast(BinaryIO, archive.open(member))

    return opener


def _first_line(file: File) -> str:
    """Return a text file's first line that is not blank, having looked at what kind of bytes it starts with."""
    with readable(file.name), file.open() as stream:
        start = stream.read(1 << 16)
    for magic, kind in MAGIC.items():
        if start.startswith(magic):
            raise EventsError(f"{file.name}: its name says text, its bytes say {kind}; give it the name it deserves")
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(start)
    except UnicodeDecodeError as error:
        raise EventsError(f"{file.name}: not UTF-8 text; convert it to UTF-8") from error
    refuse_nul(file.name, start)
    # str.splitlines would also split at a form feed and its like, where Arrow does not.
    line = next((line for line in re.split(r"[\r\n]", text) if line.strip()), None)
    if line is None:
        raise EventsError(f"{file.name}: the file is empty; a header line and events are wanted")
    return line


def _records(file: File, form: Delimited, width: int) -> Iterator[tuple[int, bool]]:
    """Yield the line and the fitness of every record below the header: the slow way, for messages."""
    csv.field_size_limit(LONGEST)
    with readable(file.name), file.open() as stream:
        lines = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")
        reader = csv.reader(
            lines, delimiter=form.delimiter, quoting=csv.QUOTE_MINIMAL if form.quoted else csv.QUOTE_NONE
        )
        header = form.names is None
        before = 0
        for record in reader:
            line, before = before + 1, reader.line_num
            if record and header:
                header = False
            elif record:
                yield line, len(record) == width


def _ends_in_quotes(file: File, form: Delimited) -> bool:
    csv.field_size_limit(LONGEST)
    with readable(file.name), file.open() as stream:
        reader = csv.reader(io.TextIOWrapper(stream, "utf-8-sig", newline=""), delimiter=form.delimiter, strict=True)
        try:
            for _ in reader:
                pass
        except csv.Error as error:
            return "end of data" in str(error)
    return False


def _line_of(file: File, form: Delimited, width: int, row: int | None) -> tuple[int, bool]:
    for place, (line, fits) in enumerate(_records(file, form, width)):
        if not fits or place == row:
            return line, not fits
    raise ValueError(f"{file.name} has no row {row}")


def _read_parquet(file: File, choose: Choose | None) -> pa.Table:
    source: Any = file.path or pa.BufferReader(file.read())
    schema = pa.parquet.read_schema(source)
    wanted = None if choose is None else list(choose(file.name, schema.names).values())
    # Parquet's own dictionary pages become dictionaries here: 20 million spelled ids take 80 MB, not 400.
    spelled = [field.name for field in schema if pa.types.is_string(field.type) and wanted and field.name in wanted]
    if not file.path:
        source.seek(0)
    with pa.parquet.ParquetFile(source, read_dictionary=spelled) as parquet:
        return parquet.read(columns=wanted)


def _read_arrow(file: File) -> pa.Table:
    data = pa.OSFile(str(file.path)) if file.path else pa.BufferReader(file.read())
    with data:
        magic = data.read(6)
        data.seek(0)
        if magic == b"ARROW1":
            return pa.ipc.open_file(data).read_all()
        if magic.startswith(b"FEA1"):
            return pa.feather.read_table(data)
        return pa.ipc.open_stream(data).read_all()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__

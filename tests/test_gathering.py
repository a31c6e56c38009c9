"""A log read in pieces makes the directory, byte for byte, that the same log makes in memory, or the same complaint."""

import errno
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from recae import gathering, runs, sources
from recae.errors import EventsError, OutputError
from recae.events import Columns, Events, EventStream, open_events, read_events
from recae.ids import IdMap
from recae.interactions import Interactions, Preparation, prepare
from recae.preparation import RULES

BIG = 2**63 + 5
"""An id that only uint64 holds."""

# Each column of a file has one type; a file of a log may have another than the next.
user_ids = st.sampled_from(
    [
        (pa.int64(), [-3, 7, 7000, 8, None]),
        (pa.int32(), [1, 2, 7]),
        (pa.uint64(), [7, BIG, BIG + 1]),
        (pa.string(), ["7", "b", "ä", " ", "", None]),
        (pa.dictionary(pa.int8(), pa.string()), ["b", "c", None]),
        (pa.float64(), [7.0, 8.0, float("nan")]),
    ]
)
item_ids = st.sampled_from(
    [(pa.int64(), [*range(-2, 6), None]), (pa.large_string(), ["x", "y", "10", "9"]), (pa.uint8(), [1, 2, 3])]
)
values = st.sampled_from(
    [
        (pa.float64(), [n / 4 for n in range(-8, 9)] + [None, float("inf"), float("nan")]),
        (pa.float32(), [1.0, 2.5]),
        (pa.string(), ["1.5", " 2", "much", None]),
        (pa.int16(), [1, 2, 3]),
    ]
)
times = st.sampled_from(
    [
        (pa.int64(), [*range(4), None]),
        (pa.timestamp("ms"), [0, 1000, 2000]),
        (pa.float64(), [0.5, 1.5, float("nan")]),
        (pa.string(), ["3", "12", "2020-01-01", "soon"]),
    ]
)

preparations = st.builds(
    Preparation,
    min_value=st.sampled_from([None, None, 0.5]),
    values=st.sampled_from(["binary", "keep"]),
    duplicates=st.sampled_from(["last", "first", "max", "sum", "mean"]),
)


@st.composite
def logs(draw: Any) -> list[pa.Table]:
    """Draw the files of a log: mostly good rows, many of them about one user and one item."""
    kinds = {"user_id": user_ids, "item_id": item_ids}
    kinds |= {name: kind for name, kind in (("value", values), ("timestamp", times)) if draw(st.booleans())}
    alike = {name: draw(kind) for name, kind in kinds.items()} if draw(st.booleans()) else {}

    def column(name: str, size: int) -> pa.Array:
        kind, drawn_from = alike.get(name) or draw(kinds[name])
        drawn_from = drawn_from if draw(st.booleans()) else drawn_from[:2]
        return pa.array(draw(st.lists(st.sampled_from(drawn_from), min_size=size, max_size=size)), kind)

    sizes = draw(st.lists(st.integers(0, 14), min_size=1, max_size=3))
    return [pa.table({name: column(name, size) for name in kinds}) for size in sizes]


def write(files: list[pa.Table], folder: Path, row_group: int = 3) -> Path:
    folder.mkdir()
    for number, table in enumerate(files):
        pa.parquet.write_table(table, folder / f"part-{number}.parquet", row_group_size=row_group)
    return folder


@contextmanager
def small_pieces(piece: int, run: int = 4, ranges: int = 4) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "PIECE", piece)
        patch.setattr(runs, "RUN", run)
        patch.setattr(runs, "RANGES", ranges)
        patch.setattr(gathering, "PENDING", 3)
        yield


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def made(work: Any) -> Any:
    """Return what work returns, or the line with which it refuses."""
    try:
        return work()
    except EventsError as error:
        return str(error)


@given(logs(), preparations, st.integers(1, 3), st.booleans(), st.integers(1, 5))
@example([pa.table({"user": [1], "item": [None]}), pa.table({"user": [1], "item": [2]})], Preparation(), 1, True, 1)
@example([pa.table({"user": pa.array([], pa.string()), "item": [1][:0]}), pa.table({"user": [1], "item": [2]})],
         Preparation(), 1, False, 1)  # fmt: skip
def test_pieces_make_what_the_whole_makes(
    tmp_path_factory: pytest.TempPathFactory,
    files: list[pa.Table],
    how: Preparation,
    min_items: int,
    skip: bool,
    piece: int,
) -> None:
    folder = tmp_path_factory.mktemp("log")
    log = write(files, folder / "log")

    def whole() -> dict[str, bytes]:
        events = read_events(log, skip_bad_rows=skip)
        Interactions.from_events(events, how, min_items=min_items).save(folder / "whole")
        return contents(folder / "whole")

    def streamed() -> dict[str, bytes]:
        with small_pieces(piece):
            events = open_events(log, skip_bad_rows=skip)
            loaded = prepare(events, folder / "streamed", how, min_items=min_items)
            assert Interactions.from_events(events, how, min_items=min_items).digest() == loaded.digest()
        (folder / "streamed" / RULES).unlink()
        return contents(folder / "streamed")

    assert made(streamed) == made(whole)
    assert {path.name for path in folder.iterdir()} in ({"log"}, {"log", "whole", "streamed"})


far_floats = [1.5, 7.0, 2.0**60, float("nan"), 8.0]
faulty = {
    "user_id": [(pa.float64(), far_floats), (pa.int64(), [1, 2, None]), (pa.string(), ["a", " "])],
    "item_id": [(pa.float64(), far_floats), (pa.float32(), [1.0, 2.5]), (pa.bool_(), [True]), (pa.int64(), [1, None])],
    "value": [(pa.date32(), [1, 2]), (pa.float64(), [1.0, float("inf")]), (pa.int8(), [1])],
    "timestamp": [(pa.timestamp("ms"), [1, 2, 2**62]), (pa.uint64(), [1, 2, 2**64 - 1]), (pa.int64(), [1, None])],
}


@st.composite
def faulty_logs(draw: Any) -> list[pa.Table]:
    """Draw the files of a log in which several things are wrong: columns, rows, what only one file has."""
    files = []
    for size in draw(st.lists(st.integers(0, 9), min_size=1, max_size=3)):
        kinds = {name: draw(st.sampled_from(kinds)) for name, kinds in faulty.items()}
        if not draw(st.integers(0, 7)):
            del kinds[draw(st.sampled_from(["item_id", "timestamp"]))]
        drawn = {
            name: pa.array(draw(st.lists(st.sampled_from(values), min_size=size, max_size=size)), kind)
            for name, (kind, values) in kinds.items()
        }
        files.append(pa.table(drawn))
    return files


@given(faulty_logs(), st.booleans(), st.integers(1, 5))
@example([pa.table({"user": [1, None], "item": [1, 1]}), pa.table({"user": [1], "item": [1.5]})], False, 2)
@example([pa.table({"user": [1.0, 1.5], "item": [1.5, 1.0]})], False, 1)
@example([pa.table({"user": [1, 1], "item": [1, 1], "value": pa.array([1, 1], pa.date32())}),
          pa.table({"user": [1.5], "item": [1], "value": pa.array([1], pa.date32())})], True, 1)  # fmt: skip
@example([pa.table({"user": [None], "item": [1]}), pa.table({"user": [1], "value": [1]})], False, 1)
@example([pa.table({"user": [2.0**60, 1.5], "item": [1, 1]})], False, 1)
@example([pa.table({"user": [1.5, 2.0**60], "item": [1, 1]})], False, 1)
def test_of_several_things_that_are_wrong_the_same_one_is_named(
    tmp_path_factory: pytest.TempPathFactory, files: list[pa.Table], skip: bool, piece: int
) -> None:
    folder = tmp_path_factory.mktemp("log")
    log = write(files, folder / "log")
    whole = made(lambda: Interactions.from_events(read_events(log, skip_bad_rows=skip)).digest())
    with small_pieces(piece):
        assert made(lambda: Interactions.from_events(open_events(log, skip_bad_rows=skip)).digest()) == whole


def test_a_damaged_file_is_named_after_the_bad_rows_before_it(tmp_path: Path) -> None:
    bad = pa.table({"user": [1, None], "item": [1, 1]})
    log = write([bad, pa.table({"user": np.arange(5000), "item": np.arange(5000)})], tmp_path / "log", row_group=5000)
    rubbish(log / "part-1.parquet")
    for read in (read_events, lambda path: Interactions.from_events(open_events(path))):
        with pytest.raises(EventsError, match=r"part-0.parquet: 1 bad row, the first in row 2: an empty user id"):
            read(log)


def test_much_in_pieces_of_the_usual_size(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    size = 300_000
    frame = pd.DataFrame(
        {
            "user_id": (5_000 * rng.random(size) ** 2).astype(int) * 10**12,
            "item_id": [f"i{n}" for n in (2_000 * rng.random(size) ** 3).astype(int)],
            "value": rng.integers(1, 6, size),
            "timestamp": rng.integers(0, 1000, size),
        }
    )
    frame.to_parquet(tmp_path / "log.parquet", row_group_size=40_000)
    how = Preparation(min_value=2, values="keep", duplicates="mean")
    Interactions.from_events(read_events(tmp_path / "log.parquet"), how, min_items=20).save(tmp_path / "whole")
    with small_pieces(30_000, 10_000, 512):
        prepare(open_events(tmp_path / "log.parquet"), tmp_path / "streamed", how, min_items=20)
    (tmp_path / "streamed" / RULES).unlink()
    assert contents(tmp_path / "streamed") == contents(tmp_path / "whole")


def test_parquet_is_opened_and_anything_else_read(tmp_path: Path) -> None:
    frame = pd.DataFrame({"user": [1, 2], "item": [1, 2], "when": ["2020-01-01", "soon"]})
    frame.to_parquet(tmp_path / "log.parquet")
    frame.to_csv(tmp_path / "log.csv", index=False)
    assert isinstance(open_events(tmp_path / "log.parquet"), EventStream)
    assert isinstance(open_events(tmp_path / "log.csv"), Events)
    spelled = Columns(time="when")
    assert isinstance(open_events(tmp_path / "log.parquet", columns=spelled, skip_bad_rows=True), Events)


def test_items_are_told_of(tmp_path: Path) -> None:
    pd.DataFrame({"user_id": [1, 2], "item_id": [9, 8]}).to_parquet(tmp_path / "events.parquet")
    pd.DataFrame({"item_id": [8, 9], "title": ["eight", "nine"]}).to_parquet(tmp_path / "items.parquet")
    part = prepare(open_events(tmp_path), tmp_path / "out")
    assert part.item_table["title"].to_list() == ["eight", "nine"]


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def rubbish(path: Path) -> None:
    """Overwrite the pages, and leave the footer."""
    whole = bytearray(path.read_bytes())
    whole[4 : len(whole) // 2] = b"\xff" * (len(whole) // 2 - 4)
    path.write_bytes(whole)


@pytest.mark.parametrize("damage", [half, rubbish])
def test_a_damaged_file_is_one_line_and_leaves_nothing(tmp_path: Path, damage: Any) -> None:
    log = tmp_path / "log.parquet"
    pd.DataFrame({"user": np.arange(5000) * 7919 % 5003, "item": np.arange(5000) % 31}).to_parquet(log)
    damage(log)
    with pytest.raises(EventsError, match=r"log.parquet: not Parquet, or cut short .*; write it again$") as caught:
        prepare(open_events(log), tmp_path / "out")
    assert "\n" not in str(caught.value) and names(tmp_path) == ["log.parquet"]


@pytest.mark.parametrize("between", ["opening and reading", "the passes"])
def test_a_file_that_changes_meanwhile_is_noticed(tmp_path: Path, between: str) -> None:
    log = tmp_path / "log.parquet"
    frame = pd.DataFrame({"user": [1, 2, 3], "item": [1, 2, 3]})
    frame.to_parquet(log)
    events = open_events(log)
    if between == "the passes":
        list(events.ids(lambda table: table))
    frame[::-1].to_parquet(tmp_path / "new.parquet")
    (tmp_path / "new.parquet").replace(log)
    with pytest.raises(EventsError, match=r"changed while it was read; run again"):
        prepare(events, tmp_path / "out") if between != "the passes" else list(events.pieces(lambda table: table))
    assert names(tmp_path) == ["log.parquet"]


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pd.DataFrame({"user": [1], "item": [1]}).to_parquet(tmp_path / "log.parquet")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(runs.Column, "append", full)
    with pytest.raises(OutputError, match="no space left"):
        prepare(open_events(tmp_path / "log.parquet"), tmp_path / "out")
    assert names(tmp_path) == ["log.parquet"]


def test_a_kill_in_the_middle_leaves_no_directory_and_the_next_run_makes_it(tmp_path: Path) -> None:
    log, out = tmp_path / "log.parquet", tmp_path / "out"
    pd.DataFrame({"user": [2, 1], "item": [1, 2]}).to_parquet(log)
    script = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from recae import gathering\nfrom recae.events import open_events\nfrom recae.interactions import prepare\n"
        "gathering._merged = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
        "prepare(open_events(sys.argv[1]), Path(sys.argv[2]))"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(log), str(out)], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    left = {path.name for path in tmp_path.iterdir()} - {"log.parquet"}
    assert len(left) == 1 and left.pop().startswith(".out.")
    assert prepare(open_events(log), out).matrix.nnz == 2


def test_bad_rows_are_told_by_their_place_in_the_file(tmp_path: Path) -> None:
    good = pa.table({"user": [1] * 9, "item": [1] * 9})
    bad = pa.table({"user": [1, 1, 1, 1, None, 1, 1, None], "item": [1, 1, 1, 1, 1, 1, None, 1]})
    log = write([good, bad], tmp_path / "log")
    with small_pieces(2), pytest.raises(EventsError, match=r"part-1.parquet: 3 bad rows, the first in row 5: an empty"):
        prepare(open_events(log), tmp_path / "out")


ids = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1),
    st.lists(st.integers(0, 2**64 - 1), min_size=1),
    st.lists(st.integers(-5, 300), min_size=1),
    # Crowds at both ends of the range.
    st.lists(st.integers(0, 99) | st.integers(2**62, 2**62 + 99), min_size=40, unique=True),
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), min_size=1),
)


@given(ids, st.data())
def test_ids_are_found_where_the_map_has_them(some: list[Any], data: st.DataObject) -> None:
    known = IdMap.of(some)
    asked = pa.chunked_array([pa.array(data.draw(st.lists(st.sampled_from(some))), pa.array(some).type)])
    wanted = known.to_index(asked.to_pandas())
    asked = asked.dictionary_encode() if asked.type == pa.string() else asked
    assert gathering._Finder(known).codes(asked).tolist() == wanted.tolist()


@pytest.mark.parametrize("place", ["user_id", "item_id", "value", "timestamp"])
def test_bytes_that_a_file_calls_text_are_one_line(tmp_path: Path, place: str) -> None:
    offsets = pa.py_buffer(np.array([0, 1, 2, 3], np.int32).tobytes())
    columns = {name: pa.array(["1", "2", "3"]) for name in ("user_id", "item_id", "value", "timestamp")}
    columns[place] = pa.StringArray.from_buffers(3, offsets, pa.py_buffer(b"\xff\xfea"))
    pa.parquet.write_table(pa.table(columns), tmp_path / "log.parquet")

    with pytest.raises(EventsError, match=f"{place}.* holds text that is no Unicode; mend it"):
        Interactions.from_events(open_events(tmp_path / "log.parquet"))


def test_whole_times_in_one_part_and_others_in_the_next_become_numbers(tmp_path: Path) -> None:
    time = 1_700_000_000_123_456_789
    for part, items, times in (("a", [1, 2], [time, time + 1]), ("b", [3, 4], [float(time), 2.5])):
        table = pa.table({"user_id": [1, 2], "item_id": items, "timestamp": times})
        pa.parquet.write_table(table, tmp_path / f"{part}.parquet")

    made = Interactions.from_events(open_events(tmp_path))

    assert made.times is not None and made.times.dtype == np.float64
    assert sorted(made.times.tolist()) == [2.5, float(time), float(time), float(time)]

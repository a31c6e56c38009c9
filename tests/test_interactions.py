"""From a log to a matrix: against a slow and obvious twin; selections; the directory; the id maps."""

import errno
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from recae.errors import EventsError, OutputError
from recae.events import read_events, read_items
from recae.interactions import DROPS, UNKNOWN, IdMap, Interactions, Preparation

RealData = Callable[[str], Path]

Cells = dict[tuple[Any, Any], tuple[float, Any]]
"""User id and item id to value and time."""

# Quarters add up exactly in any order.
quarters = st.integers(-20, 20).map(lambda n: n / 4)
users = st.sampled_from(["b", "a", "ä", "C", "c", "10", "9"])
items = st.integers(-3, 4)


@st.composite
def logs(draw: Any) -> pd.DataFrame:
    """Draw a small log in which events of one user with one item are frequent; values and times may be missing."""
    rows = draw(st.lists(st.tuples(users, items, quarters, st.integers(0, 3)), min_size=1, max_size=30))
    log = pd.DataFrame(rows, columns=["user_id", "item_id", "value", "timestamp"])
    return log.drop(columns=[name for name in ("value", "timestamp") if draw(st.booleans())])


preparations = st.builds(
    Preparation,
    min_value=st.one_of(st.none(), quarters),
    values=st.sampled_from(["binary", "keep"]),
    duplicates=st.sampled_from(["last", "first", "max", "sum", "mean"]),
)


def twin(log: pd.DataFrame, preparation: Preparation, min_items: int) -> Cells:
    """Do what from_events does, one event at a time."""
    grouped: dict[Any, dict[Any, list[tuple[float, Any]]]] = {}
    for row in log.to_dict("records"):
        value, time = row.get("value", 1.0), row.get("timestamp")
        if preparation.min_value is not None and "value" in row and value < preparation.min_value:
            continue
        grouped.setdefault(row["user_id"], {}).setdefault(row["item_id"], []).append((value, time))
    cells: Cells = {}
    for user, touched in grouped.items():
        for item, events in touched.items() if len(touched) >= min_items else ():
            times = [time if time is not None else place for place, (_, time) in enumerate(events)]
            values = [value for value, _ in events]
            kept = max(range(len(events)), key=lambda n: (times[n], n))
            if preparation.duplicates == "first":
                kept = min(range(len(events)), key=lambda n: (times[n], n))
            merged = {"max": max(values), "sum": sum(values), "mean": sum(values) / len(values)}
            value = merged.get(preparation.duplicates, values[kept])
            keep = asdict(preparation)["values"] == "keep"
            cells[user, item] = (np.float32(value) if keep else 1.0, events[kept][1])
    return cells


def cells(part: Interactions) -> Cells:
    """Return a part's events by their ids."""
    user = part.users.ids.repeat(np.diff(part.matrix.indptr)).tolist()
    item = part.items.to_ids(part.matrix.indices).tolist()
    times = [None] * len(user) if part.times is None else part.times.tolist()
    return dict(zip(zip(user, item, strict=True), zip(part.matrix.data.tolist(), times, strict=True), strict=True))


def assert_sound(part: Interactions) -> None:
    """Assert what holds for all interactions: types, order, alignment, and counts that add up."""
    matrix = part.matrix
    assert (matrix.data.dtype, matrix.indices.dtype, matrix.indptr.dtype) == (np.float32, np.int32, np.int32)
    for row in range(matrix.shape[0]):
        columns = matrix.indices[matrix.indptr[row] : matrix.indptr[row + 1]]
        assert (np.diff(columns) > 0).all()
    if part.counts:
        stored = part.counts["events"] - sum(part.counts.get(key, 0) for key in DROPS)
        assert stored == part.counts["interactions"] == matrix.nnz


def from_frame(log: pd.DataFrame, *args: Any, **options: Any) -> Interactions:
    return Interactions.from_events(read_events(log), *args, **options)


@given(logs(), preparations, st.integers(1, 3))
def test_the_matrix_is_that_of_the_twin(log: pd.DataFrame, preparation: Preparation, min_items: int) -> None:
    wanted = twin(log, preparation, min_items)
    if not wanted:
        with pytest.raises(EventsError, match=r"lower --min-(value|items)"):
            from_frame(log, preparation, min_items=min_items)
        return
    part = from_frame(log, preparation, min_items=min_items)
    assert_sound(part)
    assert cells(part) == wanted
    assert part.users.ids.to_list() == sorted({user for user, _ in wanted})
    assert part.items.ids.to_list() == sorted({item for _, item in wanted})
    ignored = preparation.min_value is not None and "value" not in log
    assert part.counts.get("min_value_ignored", 0) == ignored * len(log)


@given(logs(), st.sampled_from(["max", "sum", "mean"]), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter_to_max_sum_and_mean(log: pd.DataFrame, rule: Any, random: Any) -> None:
    order = list(range(len(log)))
    random.shuffle(order)
    kept = Preparation(values="keep", duplicates=rule)
    assert from_frame(log, kept).digest() == from_frame(log.iloc[order], kept).digest()


@given(logs(), st.lists(items, unique=True), preparations.map(lambda p: replace(p, min_value=None)))
def test_a_vocabulary_keeps_its_columns_and_the_users(log: pd.DataFrame, known: list[int], how: Preparation) -> None:
    vocabulary = IdMap(pd.Index(known, dtype="int64"))
    part = from_frame(log, how, items=vocabulary)
    assert_sound(part)
    assert part.items is vocabulary and part.users.ids.to_list() == sorted(set(log["user_id"]))
    everything = twin(log, how, 1)
    assert cells(part) == {pair: cell for pair, cell in everything.items() if pair[1] in known}
    assert part.counts["unknown_item_events"] == sum(item not in known for _, item in everything)
    over = from_frame(log, how).over(vocabulary)
    assert_sound(over)
    assert over.digest() == part.digest() and over.counts == part.counts and over.item_table.equals(part.item_table)


def test_bad_rows_are_among_the_counts() -> None:
    log = pd.DataFrame({"user": ["a", None, "a", "b"], "item": [1, 1, 1, 2], "value": [5, 5, 5, np.inf]})
    part = Interactions.from_events(read_events(log, skip_bad_rows=True))
    assert part.counts == {
        "events": 4,
        "empty_user_id": 1,
        "bad_value": 1,
        "duplicates": 1,
        "short_users": 0,
        "events_of_short_users": 0,
        "interactions": 1,
    }


@pytest.mark.parametrize(
    ("preparation", "min_items", "words"),
    [
        (Preparation(min_value=4), 1, "no event has a value of 4 or more, the highest is 3; train with a lower"),
        (Preparation(), 3, "no user has 3 distinct items, the longest history 2; lower --min-items"),
        (Preparation(values="keep", duplicates="sum"), 1, "values beyond 3.4e"),
    ],
)
def test_a_log_of_which_nothing_is_left(preparation: Preparation, min_items: int, words: str) -> None:
    values = [3, 2] if preparation.min_value else [3e38, 3e39]
    log = pd.DataFrame({"user": [1, 1], "item": [1, 2], "value": values})
    with pytest.raises(EventsError) as caught:
        from_frame(log, preparation, min_items=min_items)
    assert str(caught.value).startswith(f"the DataFrame: {words}")


def test_preparations_there_are_none_of() -> None:
    with pytest.raises(ValueError, match="preparation"):
        Preparation(duplicates="newest")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="min_items"):
        from_frame(pd.DataFrame({"user": [1], "item": [1]}), min_items=0)


def test_what_is_told_of_items_follows_the_columns() -> None:
    log = pd.DataFrame({"user": [1, 1, 1], "item": [30, 10, 20]})
    told = read_items(
        pd.DataFrame({"item": ["10", "30", "40"], "title": ["ten", "thirty", "forty"], "stars": [1, 3, 4]})
    )
    part = Interactions.from_events(replace(read_events(log), items=told))
    assert part.item_table["title"].fillna("?").to_list() == ["ten", "?", "thirty"]
    assert part.item_table.index.equals(pd.RangeIndex(3)) and "item_id" not in part.item_table
    assert from_frame(log).item_table.shape == (3, 0)


@given(logs(), st.data())
def test_rows_and_columns_select_ids_values_times_and_titles(log: pd.DataFrame, data: st.DataObject) -> None:
    part = from_frame(log, Preparation(values="keep"))
    part = replace(part, item_table=pd.DataFrame({"title": part.items.ids.astype("str")}))
    rows = data.draw(st.lists(st.sampled_from(range(len(part.users))), unique=True))
    columns = data.draw(st.lists(st.sampled_from(range(len(part.items))), unique=True))
    chosen = part.rows(rows).columns(columns)
    assert_sound(chosen)
    assert chosen.users.ids.to_list() == part.users.ids[rows].to_list()
    assert chosen.items.ids.to_list() == part.items.ids[columns].to_list()
    assert chosen.item_table["title"].to_list() == [str(item) for item in chosen.items.ids]
    assert cells(chosen) == {
        (user, item): cell
        for (user, item), cell in cells(part).items()
        if user in set(chosen.users.ids) and item in set(chosen.items.ids)
    }
    flags = np.isin(np.arange(len(part.users)), rows)
    assert part.rows(flags).digest() == part.rows(sorted(rows)).digest()
    assert part.columns(columns).rows(rows).digest() == chosen.digest()


@pytest.mark.parametrize("index", [[0, 0], [-1], [2], [True], [0.5]])
def test_selections_there_are_none_of(index: list[Any]) -> None:
    part = from_frame(pd.DataFrame({"user": [1, 2], "item": [1, 2]}))
    for select in (part.rows, part.columns):
        with pytest.raises((ValueError, IndexError, TypeError)):
            select(index)


def save_and_load(part: Interactions, folder: Path) -> Interactions:
    part.save(folder)
    return Interactions.load(folder)


def assert_same(left: Interactions, right: Interactions) -> None:
    for name in ("data", "indices", "indptr"):
        one, other = getattr(left.matrix, name), getattr(right.matrix, name)
        assert one.dtype == other.dtype and one.tobytes() == other.tobytes()
    assert (left.times is None) == (right.times is None)
    if left.times is not None and right.times is not None:
        assert left.times.dtype == right.times.dtype and left.times.tobytes() == right.times.tobytes()
    pd.testing.assert_index_equal(left.users.ids, right.users.ids, exact=True)
    pd.testing.assert_index_equal(left.items.ids, right.items.ids, exact=True)
    pd.testing.assert_frame_equal(left.item_table, right.item_table)
    assert left.counts == right.counts and left.digest() == right.digest()


@given(logs(), preparations)
def test_what_is_saved_comes_back(
    tmp_path_factory: pytest.TempPathFactory, log: pd.DataFrame, how: Preparation
) -> None:
    assume(twin(log, how, 1))
    part = from_frame(log, how)
    assert_same(part, save_and_load(part, tmp_path_factory.mktemp("saved") / "part"))


@pytest.mark.parametrize("ids", [[2**63 + 1, 5], [-5, 5], ["é\0", "007"], [str(2**64), "x"]])
def test_ids_of_every_kind_come_back(tmp_path: Path, ids: list[Any]) -> None:
    part = from_frame(pd.DataFrame({"user": ids, "item": ids}))
    titles = pd.DataFrame({"title": ["a", None], "year": pd.array([1999, None], dtype="Int64"), "x": [0.5, np.nan]})
    part = replace(part, item_table=titles)
    assert_same(part, save_and_load(part, tmp_path / "part"))


def test_a_saved_matrix_is_read_where_it_lies(tmp_path: Path) -> None:
    part = from_frame(pd.DataFrame({"user": [2, 1], "item": [1, 2], "ts": [0.5, 1.5]}))
    loaded = save_and_load(part, tmp_path / "part")
    for array in (loaded.matrix.data, loaded.matrix.indices, loaded.times):
        assert isinstance(array, np.ndarray) and not array.flags.writeable
    assert loaded.rows([1]).digest() == part.rows([1]).digest()
    assert_same(loaded, save_and_load(loaded, tmp_path / "again"))


def test_the_digest_sees_every_change() -> None:
    log = pd.DataFrame({"user": ["a", "a", "b"], "item": [1, 2, 1], "value": [1, 2, 3], "ts": [1, 2, 3]})
    keep = Preparation(values="keep")
    changes = [
        log,
        log.assign(user=["a", "a", "c"]),
        log.assign(item=[1, 3, 1]),
        log.assign(item=["1", "2", "1"]),
        log.assign(value=[1, 2, 4]),
        log.assign(ts=[1, 2, 4]),
        log.assign(ts=[1.0, 2.0, 3.0]),
        log.drop(columns="ts"),
        log[:2],
    ]
    assert len({from_frame(change, keep).digest() for change in changes}) == len(changes)
    assert from_frame(log, keep).digest() == from_frame(log[::-1], keep).digest()


FILES = ["data.npy", "indices.npy", "indptr.npy", "times.npy", "users.parquet", "items.parquet", "item_table.parquet"]


@pytest.mark.parametrize("name", [*FILES, "interactions.json"])
@pytest.mark.parametrize("damage", ["gone", "empty", "half", "rubbish"])
def test_a_damaged_directory_is_refused(tmp_path: Path, name: str, damage: str) -> None:
    part = from_frame(pd.DataFrame({"user": [1, 1], "item": [1, 2], "ts": [1, 2]}))
    part.save(tmp_path / "part")
    path = tmp_path / "part" / name
    whole = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes({"empty": b"", "half": whole[: len(whole) - 4], "rubbish": b"rubbish"}[damage])
    with pytest.raises(EventsError) as caught:
        Interactions.load(tmp_path / "part")
    assert str(tmp_path / "part") in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        *({"format": version} for version in (2, 0, "1", None)),
        *(
            {"shape": shape}
            for shape in ([1, 2], [2, 1], [], [40], [2, 2, 2], [2, -2], [2.0, 2], [2, 10**30], {}, None)
        ),
        *({"interactions": stored} for stored in (3, -1, 2.5, "2", 10**30)),
        *({"times": times} for times in ("yes", True, None)),
        *({"counts": counts} for counts in (None, [], {"events": "2"})),
        *({"sha256": digests} for digests in ({}, [], {"indptr.npy": "0"}, {"../other": "0"}, None)),
    ],
    ids=str,
)
def test_facts_that_do_not_fit_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    from_frame(pd.DataFrame({"user": [1, 2], "item": [1, 2]})).save(tmp_path / "part")
    path = tmp_path / "part" / "interactions.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(EventsError) as caught:
        Interactions.load(tmp_path / "part")
    assert str(tmp_path / "part") in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "1", "[" * 100_000, "{}", '{"format": 1}'])
def test_facts_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    from_frame(pd.DataFrame({"user": [1, 2], "item": [1, 2]})).save(tmp_path / "part")
    (tmp_path / "part" / "interactions.json").write_text(text)
    with pytest.raises(EventsError, match=r"interactions\.json: damaged, not what was saved"):
        Interactions.load(tmp_path / "part")


def test_no_directory_is_refused_and_none_is_overwritten(tmp_path: Path) -> None:
    with pytest.raises(EventsError, match="no saved interactions"):
        Interactions.load(tmp_path)
    one, other = (from_frame(pd.DataFrame({"user": [user], "item": [1]})) for user in (1, 2))
    one.save(tmp_path / "part")
    with pytest.raises(OutputError, match="--overwrite"):
        other.save(tmp_path / "part")
    other.save(tmp_path / "part", overwrite=True)
    assert Interactions.load(tmp_path / "part").digest() == other.digest()


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = from_frame(pd.DataFrame({"user": [1], "item": [1]}))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.write_table", full)
    with pytest.raises(OutputError, match="no space left"):
        part.save(tmp_path / "part")
    assert list(tmp_path.iterdir()) == []


def test_an_item_table_that_no_file_can_hold(tmp_path: Path) -> None:
    part = from_frame(pd.DataFrame({"user": [1, 1], "item": [1, 2]}))
    part = replace(part, item_table=pd.DataFrame({"x": [1, "a"]}))
    with pytest.raises(EventsError, match="one type"):
        part.save(tmp_path / "part")
    assert list(tmp_path.iterdir()) == []


def test_parts_that_do_not_fit_together_are_a_mistake() -> None:
    part = from_frame(pd.DataFrame({"user": [1, 1], "item": [1, 2]}))
    with pytest.raises(ValueError, match="matrix"):
        replace(part, users=part.items)
    with pytest.raises(ValueError, match="times"):
        replace(part, times=np.arange(3))


ids = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1), unique=True),
    st.lists(st.integers(0, 2**64 - 1), unique=True),
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), unique=True),
)


@given(ids)
def test_an_id_map_knows_its_ids_and_no_others(some: list[Any]) -> None:
    ids = IdMap.of(some + some)
    assert len(ids) == len(some) and ids.ids.to_list() == sorted(some)
    assert ids.to_index(sorted(some)).tolist() == list(range(len(some)))
    assert ids.to_ids(ids.to_index(some)).to_list() == some
    assert (ids.to_index(["no such id", "-0", "07"]) == UNKNOWN).all() or set(some) & {"-0", "07"}
    if all(isinstance(one, int) for one in some):
        assert ids.to_index([str(one) for one in some]).tolist() == ids.to_index(some).tolist()
        assert ids.to_index([*some, "x"])[:-1].tolist() == ids.to_index(some).tolist()
        spelled = IdMap.of([str(one) for one in some])
        assert spelled.to_index(some).tolist() == spelled.to_index([str(one) for one in some]).tolist()


def test_id_maps_hold_integers_or_strings() -> None:
    assert IdMap.of([7, "a"]).ids.to_list() == ["7", "a"]
    assert IdMap.of(pd.Series(["b", "a"], dtype="category")).ids.to_list() == ["a", "b"]
    assert IdMap.of(np.array([3, 2], dtype=np.uint8)).ids.dtype == np.int64
    assert IdMap.of([2**63]).ids.dtype == np.uint64
    assert IdMap.of([]).to_index([7, "7"]).tolist() == [UNKNOWN, UNKNOWN]
    assert IdMap.of([5]).to_index([]).tolist() == []
    assert IdMap.of([2**63 + 1]).to_index([1, -1]).tolist() == [UNKNOWN, UNKNOWN]
    assert IdMap.of([7]).to_index(["007", "7", None, "+7", "7.0", str(2**70)]).tolist() == [-1, 0, -1, -1, -1, -1]
    for wrong in ([True, False], [1.5], [1, True], [(1, 2)], [None], [b"a"]):
        with pytest.raises(ValueError, match="id"):
            IdMap.of(wrong)
    with pytest.raises(ValueError, match="int64"):
        IdMap(pd.Index([1.5]))
    with pytest.raises(IndexError):
        IdMap.of([1, 2]).to_ids(np.array([0, -1]))


@pytest.mark.real_data
def test_ml_1m_under_the_protocol_has_the_users_that_the_literature_has(real_data: RealData) -> None:
    log = read_events(real_data("ml-1m.zip"))
    part = Interactions.from_events(log, Preparation(min_value=3.6), min_items=5)
    assert len(part.users) == 6_034
    assert part.matrix.nnz == 575_272
    assert part.item_table["title"].notna().all() and (part.matrix.data == 1).all()
    ready = read_events(real_data("ml-1m-strong.zip"))
    strong = Interactions.from_events(ready, items=part.items)
    assert strong.users.ids.equals(part.users.ids) and strong.counts["unknown_item_events"] == 0
    # The protocol drops the 44 held-out events whose item no training user touched; all others are here.
    assert (part.matrix - strong.matrix).nnz == part.matrix.nnz - strong.matrix.nnz == 44

"""Splits: no event lost, none invented, none on both sides; the literature's draw; no look into the future."""

import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given as drawn
from hypothesis import reject, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from recae import splitting
from recae.errors import SplitError
from recae.events import read_events, read_given_split
from recae.ids import IdMap
from recae.interactions import Interactions, Preparation
from recae.splitting import Fold, Split, global_time, hold_out_users, leave_last_out, strong_generalisation

Event = tuple[object, object]

few = settings(max_examples=30)
RealData = Callable[[str], Path]


def interactions(log: pd.DataFrame) -> Interactions:
    """Make interactions of a log with columns user, item and maybe value and time, each pair at most once."""
    users, items = IdMap.of(log["user"]), IdMap.of(log["item"])
    row, column = users.to_index(log["user"]), items.to_index(log["item"])
    order = np.lexsort((column, row))
    values = log["value"].to_numpy(np.float32) if "value" in log else np.ones(len(log), dtype=np.float32)
    starts = np.searchsorted(row[order], np.arange(len(users) + 1))
    return Interactions(
        matrix=csr_matrix(
            (values[order], column[order].astype(np.int32), starts.astype(np.int32)), shape=(len(users), len(items))
        ),
        users=users,
        items=items,
        item_table=pd.DataFrame({"title": [f"title of {item}" for item in items.ids]}),
        times=log["time"].to_numpy()[order] if "time" in log else None,
    )


def table(part: Interactions) -> pd.DataFrame:
    """Return a part's events as a log again, in row order, ids and all."""
    row = np.repeat(np.arange(len(part.users)), np.diff(part.matrix.indptr))
    log = pd.DataFrame(
        {"user": part.users.to_ids(row), "item": part.items.to_ids(part.matrix.indices), "value": part.matrix.data}
    )
    return log if part.times is None else log.assign(time=part.times)


def cells(part: Interactions) -> dict[Event, tuple[float, object]]:
    """Return a part's events: (user id, item id) to value and time."""
    user = part.users.ids.repeat(np.diff(part.matrix.indptr)).tolist()
    item = part.items.to_ids(part.matrix.indices).tolist()
    times = [None] * len(user) if part.times is None else part.times.tolist()
    return dict(zip(zip(user, item, strict=True), zip(part.matrix.data.tolist(), times, strict=True), strict=True))


def events(part: Interactions) -> set[Event]:
    return set(cells(part))


def rows(log: pd.DataFrame) -> set[Event]:
    return set(zip(log["user"].tolist(), log["item"].tolist(), strict=True))


def sides(split: Split) -> list[Interactions]:
    folds = (split.validation, split.test)
    return [split.train, *(side for fold in folds for side in (fold.history, fold.held_out))]


def random_log(users: int, items: int, share: float, ticks: int, spelling: str, seed: int) -> pd.DataFrame:
    """Return a log that fills a share of the cells, in random order, at one of so many ticks of the clock."""
    generator = np.random.default_rng(seed)
    user, item = np.nonzero(generator.random((users, items)) < share)
    order = generator.permutation(len(user))
    log = pd.DataFrame({"user": user[order], "item": item[order]})
    if spelling == "text":
        log = log.map(lambda number: f"id {number}")
    return log.assign(value=1.0 + item[order] % 3, time=generator.integers(0, ticks, len(log)))


logs = st.builds(
    random_log,
    users=st.integers(7, 25),
    items=st.integers(4, 12),
    share=st.floats(0.3, 0.95),
    ticks=st.sampled_from([15, 10_000]),
    spelling=st.sampled_from(["number", "text"]),
    seed=st.integers(0, 10_000),
)

RULES: dict[str, Callable[[Interactions], Split]] = {
    "strong_generalisation": lambda log: strong_generalisation(log, held_out_users=3),
    "global_time": lambda log: global_time(log, validation_share=0.2, test_share=0.2),
    "leave_last_out": leave_last_out,
}


def split_of(rule: str, log: pd.DataFrame) -> Split:
    """Split a random log; one that is refused is no example (hypothesis complains where most are)."""
    try:
        return RULES[rule](interactions(log))
    except SplitError as error:
        assert "\n" not in str(error)
        reject()


@pytest.mark.parametrize("rule", RULES)
@few
@drawn(log=logs)
def test_no_event_is_lost_invented_or_on_both_sides(rule: str, log: pd.DataFrame) -> None:
    split = split_of(rule, log)
    whole = interactions(log)
    parts = [events(side) for side in sides(split)]
    train, validation_history, validation_target, test_history, test_target = parts
    assert set().union(*parts) <= events(whole)
    assert len(set().union(*parts)) + sum(split.dropped.values()) == len(log)
    assert not train & (validation_target | test_target)
    assert not validation_target & (test_target | validation_history)
    assert not test_target & (test_history | validation_history)
    if rule == "strong_generalisation":
        assert not (validation_history | validation_target) & (test_history | test_target | train)
        assert not {user for user, _ in train} & {user for user, _ in set().union(*parts[1:])}
    original = cells(whole)
    for side in sides(split):
        assert all(original[event] == kept for event, kept in cells(side).items()), "a value or a time moved"


@pytest.mark.parametrize("rule", RULES)
@few
@drawn(log=logs)
def test_all_parts_are_over_the_training_items_and_folds_align(rule: str, log: pd.DataFrame) -> None:
    split = split_of(rule, log)
    assert set(split.train.items.ids) == {item for _, item in events(split.train)}
    assert set(split.train.users.ids) == {user for user, _ in events(split.train)}
    for side in sides(split):
        assert side.items.ids.equals(split.train.items.ids)
        assert side.item_table["title"].tolist() == [f"title of {item}" for item in side.items.ids]
        assert side.users.ids.is_monotonic_increasing
        assert side.matrix.has_canonical_format
    for fold in (split.validation, split.test):
        assert fold.history.users.ids.equals(fold.held_out.users.ids)
        assert fold.held_out.matrix.nnz > 0


@pytest.mark.parametrize("rule", RULES)
@few
@drawn(log=logs, seed=st.integers(0, 99))
def test_the_order_of_the_log_does_not_matter(rule: str, log: pd.DataFrame, seed: int) -> None:
    one, other = split_of(rule, log), split_of(rule, log.sample(frac=1, random_state=seed))
    assert list(map(cells, sides(one))) == list(map(cells, sides(other)))
    assert (one.dropped, one.counts) == (other.dropped, other.counts)


@few
@drawn(log=logs)
def test_global_time_never_looks_ahead(log: pd.DataFrame) -> None:
    split = split_of("global_time", log)
    for fold in (split.validation, split.test):
        first_held_out = fold.held_out.times.min()
        assert split.train.times.max() < first_held_out
        assert (fold.history.times < first_held_out).all()
        assert (np.diff(fold.held_out.matrix.indptr) > 0).all(), "a user without a held-out item"
    assert split.validation.held_out.times.max() < split.test.held_out.times.min()


@few
@drawn(log=logs)
def test_global_time_is_what_two_cuts_of_a_sorted_log_say(log: pd.DataFrame) -> None:
    split = split_of("global_time", log)
    times = sorted(log["time"])
    first_cut, second_cut = times[round(0.6 * len(times))], times[round(0.8 * len(times))]
    train = log[log["time"] < first_cut]
    known = log[log["item"].isin(train["item"])]
    expected = [train]
    for start, stop in ((first_cut, second_cut), (second_cut, np.inf)):
        window = known[(known["time"] >= start) & (known["time"] < stop)]
        expected += [known[(known["time"] < start) & known["user"].isin(window["user"])], window]
    assert [events(side) for side in sides(split)] == list(map(rows, expected))
    assert split.dropped == ({splitting.UNKNOWN_ITEM: len(log) - len(known)} if len(log) > len(known) else {})


@few
@drawn(log=logs)
def test_leave_last_out_is_what_a_sort_says(log: pd.DataFrame) -> None:
    split = split_of("leave_last_out", log)
    expected: dict[str, set[Event]] = {"train": set(), "validation": set(), "test": set()}
    for user, own in log.sort_values(["user", "time", "item"]).groupby("user"):
        items = own["item"].tolist()
        cut = len(items) - 2 if len(items) >= 3 else len(items)
        expected["train"] |= {(user, item) for item in items[:cut]}
        expected["validation"] |= {(user, item) for item in items[cut : cut + 1]}
        expected["test"] |= {(user, item) for item in items[cut + 1 :]}
    known = {item for _, item in expected["train"]}
    assert events(split.train) == expected["train"]
    for name, fold in (("validation", split.validation), ("test", split.test)):
        assert events(fold.held_out) == {cell for cell in expected[name] if cell[1] in known}
    assert "leaks the future" in split.caveat


def protocol_by_hand(log: pd.DataFrame, held_out_users: int) -> list[set[Event]]:
    """Follow the protocol step by step on plain tables; the slow twin of strong_generalisation."""
    users = np.sort(log["user"].unique())
    np.random.seed(98765)  # noqa: NPY002 - the global generator is what the published code uses
    users = users[np.random.permutation(len(users))]  # noqa: NPY002
    train_users, *held_out = np.split(users, [len(users) - 2 * held_out_users, len(users) - held_out_users])
    train = log[log["user"].isin(train_users)]
    sides = [rows(train)]
    for part in held_out:
        own_items = log[log["user"].isin(part) & log["item"].isin(train["item"])].sort_values(["user", "item"])
        history, target = set(), set()
        np.random.seed(98765)  # noqa: NPY002
        for user, own in own_items.groupby("user"):
            items = own["item"].tolist()
            chosen: set[int] = set()
            if len(items) >= 5:
                chosen = set(np.random.choice(len(items), int(0.2 * len(items)), replace=False).tolist())  # noqa: NPY002
            history |= {(user, item) for place, item in enumerate(items) if place not in chosen}
            target |= {(user, item) for place, item in enumerate(items) if place in chosen}
        sides += [history, target]
    return sides


@few
@drawn(log=logs)
def test_strong_generalisation_is_the_protocol(log: pd.DataFrame) -> None:
    split = split_of("strong_generalisation", log)
    assert [events(side) for side in sides(split)] == protocol_by_hand(log, held_out_users=3)


def test_strong_generalisation_leaves_the_global_generator_alone() -> None:
    np.random.seed(1)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    strong_generalisation(dense(30), held_out_users=3)
    assert np.random.random() == expected  # noqa: NPY002


def test_a_seed_is_a_split() -> None:
    one, other = (strong_generalisation(dense(30), held_out_users=3, seed=seed) for seed in (1, 2))
    assert list(one.test.history.users.ids) != list(other.test.history.users.ids)


@pytest.mark.parametrize(("share", "held_out"), [(0.01, 1), (0.5, 4), (0.99, 7)])
def test_every_share_leaves_a_history_and_a_target(share: float, held_out: int) -> None:
    split = strong_generalisation(dense(30), held_out_users=3, held_out_share=share)
    assert np.diff(split.test.held_out.matrix.indptr).tolist() == [held_out] * 3
    assert np.diff(split.test.history.matrix.indptr).tolist() == [8 - held_out] * 3


def test_short_held_out_users_keep_their_history_and_are_counted() -> None:
    log = pd.concat([frame(range(20), range(6)), frame(range(20, 40), range(4))])
    split = strong_generalisation(interactions(log), held_out_users=10)
    lengths = np.diff(split.test.history.matrix.indptr)
    without_target = np.diff(split.test.held_out.matrix.indptr) == 0
    assert (lengths[without_target] == 4).all()
    assert split.counts["test users without a target"] == without_target.sum() > 0


@pytest.fixture(scope="module")
def ml_1m(real_data: RealData) -> Interactions:
    return Interactions.from_events(read_events(real_data("ml-1m.zip")), Preparation(min_value=4), min_items=5)


@pytest.mark.real_data
def test_on_ml_1m_the_split_is_the_published_one_row_for_row(ml_1m: Interactions, real_data: RealData) -> None:
    split = strong_generalisation(ml_1m, held_out_users=600)
    files = ("train", "validation_tr", "validation_te", "test_tr", "test_te")
    with zipfile.ZipFile(real_data("ml-1m-strong.zip")) as published:
        for name, side in zip(files, sides(split), strict=True):
            own_rows = pd.read_csv(published.open(f"ml-1m-strong/{name}.csv"))
            assert own_rows.equals(table(side)[["user", "item"]].astype(own_rows.dtypes)), name
        items = pd.read_csv(published.open("ml-1m-strong/items.csv"))["item"]
    assert split.train.items.ids.tolist() == items.tolist()
    assert sum(side.matrix.nnz for side in sides(split)) + sum(split.dropped.values()) == ml_1m.matrix.nnz


@pytest.mark.real_data
def test_on_ml_1m_the_published_files_read_as_given_are_the_same_split(
    ml_1m: Interactions, real_data: RealData
) -> None:
    parts = read_given_split(real_data("ml-1m-strong.zip"))
    read = splitting.given({name: Interactions.from_events(part) for name, part in parts.items()})
    for mine, theirs in zip(sides(read), sides(strong_generalisation(ml_1m, held_out_users=600)), strict=True):
        assert mine.users.ids.equals(theirs.users.ids)
        assert mine.items.ids.equals(theirs.items.ids)
        assert (mine.matrix != theirs.matrix).nnz == 0


@pytest.mark.real_data
def test_light_gcn_files_keep_every_event(real_data: RealData) -> None:
    parts = {name: Interactions.from_events(part) for name, part in read_given_split(real_data("gowalla.zip")).items()}
    split = splitting.given(parts)
    assert (split.train.matrix.shape, split.dropped) == ((29_858, 40_981), {})
    assert split.train.matrix.nnz + split.validation.held_out.matrix.nnz == 810_128
    assert (split.test.history.matrix.nnz, split.test.held_out.matrix.nnz) == (810_128, 217_242)


def test_given_folds_are_aligned_to_the_training_items() -> None:
    parts = {
        "train": interactions(frame(range(5), range(4))),
        "validation_history": interactions(frame([7], [0, 9])),
        "validation_held_out": interactions(frame([7], [0, 3])),
        "test_history": interactions(frame([7, 8], [2])),
        "test_held_out": interactions(frame([6, 8], [1, 9])),
    }
    split = splitting.given(parts)
    assert events(split.validation.history) == {(7, 0)}
    assert events(split.validation.held_out) == {(7, 3)}
    assert split.test.history.users.ids.tolist() == [6, 7, 8]
    assert events(split.test.held_out) == {(6, 1), (8, 1)}
    assert split.dropped == {splitting.UNKNOWN_ITEM: 3, splitting.SEEN_ITEM: 1}
    assert split.counts == {"test users without a history": 1, "test users without a target": 1}


def test_ids_of_another_spelling_are_the_same_users_and_items() -> None:
    train = frame(range(5), range(6)).query("user != 1 or item != 3")
    test = frame(["1", "2"], ["3", "7"])
    split = splitting.given({"train": interactions(train), "test": interactions(test)})
    assert events(split.test.held_out) == {("1", 3)}
    assert split.dropped == {splitting.UNKNOWN_ITEM: 2, splitting.SEEN_ITEM: 1}


@few
@drawn(log=logs, seed=st.integers(0, 99), users=st.integers(1, 9), share=st.floats(0.01, 0.99))
def test_train_and_test_files_lose_nothing_and_validation_is_carved_from_train(
    log: pd.DataFrame, seed: int, users: int, share: float
) -> None:
    in_test = np.random.default_rng(seed).random(len(log)) < 0.3
    train, test = log[~in_test], log[in_test]
    parts = {"train": interactions(train), "test": interactions(test)}
    carve = partial(splitting.given, parts, seed=seed, validation_users=users, held_out_share=share)
    try:
        split = carve()
    except SplitError as error:
        assert "\n" not in str(error)
        reject()
    targets = np.diff(split.validation.held_out.matrix.indptr)
    before = targets + np.diff(split.validation.history.matrix.indptr)
    assert len(targets) <= users and (before >= 5).all()
    assert (targets <= np.maximum(1, (share * before).astype(int))).all()
    carved = events(split.validation.held_out)
    assert events(split.train) | carved == events(parts["train"])
    assert not events(split.train) & carved
    assert events(split.validation.history) <= events(split.train)
    assert events(split.test.held_out) <= events(parts["test"])
    assert events(split.test.history) <= events(parts["train"])
    assert (np.diff(split.validation.held_out.matrix.indptr) > 0).all()
    parted = (split.train, split.validation.held_out, split.test.held_out)
    assert sum(part.matrix.nnz for part in parted) + sum(split.dropped.values()) == len(log)
    again = carve()
    assert list(map(cells, sides(again))) == list(map(cells, sides(split)))


def test_parts_of_no_split_are_a_programming_mistake() -> None:
    with pytest.raises(ValueError, match="not the parts of a split: train, tset"):
        splitting.given({"train": dense(5), "tset": dense(5)})


def test_a_fold_of_different_users_is_a_programming_mistake() -> None:
    with pytest.raises(ValueError, match="not of the same users and items"):
        Fold(dense(5), dense(6))


def test_ids_out_of_order_are_a_programming_mistake() -> None:
    log = dense(9)
    with pytest.raises(ValueError, match="ascending"):
        strong_generalisation(replace(log, users=IdMap(log.users.ids[::-1])), held_out_users=1)


def frame(users: object, items: object, times: Callable[[int, int], int] | None = None) -> pd.DataFrame:
    """Return a log in which every user touches every item."""
    log = pd.DataFrame([(user, item) for user in users for item in items], columns=["user", "item"])
    if times:
        log["time"] = [times(user, item) for user, item in log.itertuples(index=False)]
    return log


def dense(users: int) -> Interactions:
    return interactions(frame(range(users), range(8)))


def clocked(users: int, items: int, times: Callable[[int, int], int]) -> Interactions:
    return interactions(frame(range(users), range(items), times))


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (lambda: strong_generalisation(dense(1), held_out_users=1), "1 user is left, .*needs at least two"),
        (lambda: strong_generalisation(dense(2), held_out_users=1), "the 2 users.*needs at least three"),
        (lambda: strong_generalisation(dense(671), held_out_users=600), "leave none of the 671 users .* at most 335"),
        (lambda: strong_generalisation(dense(9), held_out_users=0), "held_out_users is 0"),
        (lambda: strong_generalisation(dense(9), held_out_users=1, held_out_share=1.0), "held_out_share is 1"),
        (lambda: strong_generalisation(clocked(9, 1, int.__add__), held_out_users=1), "1 item is left"),
        (lambda: strong_generalisation(clocked(9, 4, int.__add__), held_out_users=1), "held-out users need 5 items"),
        (lambda: strong_generalisation(dense(9).rows(np.arange(0)), held_out_users=1), "no users are left"),
        (lambda: global_time(dense(9)), "the log has none: name their column with --time-col"),
        (lambda: leave_last_out(dense(9)), "the log has none: name their column with --time-col"),
        (lambda: global_time(clocked(9, 4, lambda user, item: 5)), r"all 36 events have one time \(5\)"),
        (lambda: leave_last_out(clocked(9, 4, lambda user, item: 5)), r"all 36 events have one time \(5\)"),
        (lambda: global_time(clocked(9, 4, lambda user, item: user // 8)), "0, 32 and 4 events fall to training"),
        (lambda: global_time(clocked(9, 9, lambda user, item: item)), "no validation user has a held-out item"),
        (lambda: global_time(dense(9), validation_share=0.6, test_share=0.4), "below 1 together"),
        (
            lambda: splitting.given({"train": dense(9), "test": dense(9)}, validation_users=0),
            "validation_users 0 must be",
        ),
        (lambda: splitting.given({"train": dense(9), "test": dense(9)}, held_out_share=1), "held_out_share 1 between"),
        (lambda: leave_last_out(clocked(9, 2, int.__add__)), "every user has fewer than 3 items"),
        (lambda: leave_last_out(clocked(9, 4, lambda user, item: item)), "no validation user has a held-out item"),
    ],
)
def test_a_split_that_cannot_be_says_why_in_one_line(split: Callable[[], Split], message: str) -> None:
    with pytest.raises(SplitError, match=message) as caught:
        split()
    assert "\n" not in str(caught.value)


def test_users_too_short_to_leave_out_are_trained_on_and_counted() -> None:
    turning = frame(range(5), range(5), lambda user, item: (user + item) % 5)
    log = pd.concat([turning, frame([8, 9], range(2), int.__add__)])
    split = leave_last_out(interactions(log))
    assert {8, 9} <= set(split.train.users.ids)
    assert split.counts["users of fewer than 3 items, trained on but not tested"] == 2


def test_users_kept_from_training_are_none_of_those_trained_on():
    log = interactions(random_log(users=40, items=30, share=0.5, ticks=5, spelling="int", seed=1))
    train, fold = hold_out_users(log, held_out_users=10)
    kept, trained = set(fold.history.users.ids), set(train.users.ids)
    assert (len(kept), len(trained)) == (10, 30)
    assert not kept & trained
    assert fold.history.items.ids.equals(train.items.ids)
    assert fold.held_out.matrix.nnz > 0
    assert (fold.history.matrix.multiply(fold.held_out.matrix)).nnz == 0
    with pytest.raises(SplitError, match="39 of 40 users kept from training leave 1 to train on"):
        hold_out_users(log, held_out_users=39)

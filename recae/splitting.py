"""What a model may see, and what evaluation looks for.

    strong_generalisation   other users are held out than are trained on   (the default; needs no times)
    global_time             one clock for everybody: train before, evaluate after
    leave_last_out          each user's last item; leaks the future across users, and says so
    given                   the files come split

No split invents an event, loses one without counting it, or puts one on both sides: every event of the log is in
`train`, in a history or held-out part of a fold, or counted in `Split.dropped`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recae.errors import SplitError
from recae.ids import UNKNOWN, IdMap
from recae.interactions import Interactions

UNKNOWN_ITEM = "an item no training user touched"
SEEN_ITEM = "held out, but in the history too"

SHORTEST_TO_HOLD_OUT = 5
"""A user with fewer items than this keeps them all in the history: Liang et al. 2018, their published code."""

TRAIN, VALIDATION, TEST = 0, 1, 2
FOLDS = ("validation", "test")
SIDES = ("history", "held_out")


@dataclass(frozen=True, eq=False)
class Fold:
    """Histories to score and the held-out items to find: the same users in the same order, the same items."""

    history: Interactions
    held_out: Interactions

    def __post_init__(self) -> None:
        for mine, other in ((self.history.users, self.held_out.users), (self.history.items, self.held_out.items)):
            if not mine.ids.equals(other.ids):
                raise ValueError("history and held-out are not of the same users and items")


@dataclass(frozen=True, eq=False)
class Split:
    """Interactions to train on, a fold to choose by, and a fold to report, all over the training items.

    `dropped` counts the events that are in none of them, by reason (an item no training user touched, …);
    `counts` counts users that a reader should know of (without a history, without a target, too short to hold out);
    `caveat` is what a reader of the figures must know about this split, or empty.
    """

    train: Interactions
    validation: Fold
    test: Fold
    dropped: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    caveat: str = ""


def strong_generalisation(
    interactions: Interactions, *, held_out_users: int, seed: int = 98765, held_out_share: float = 0.2
) -> Split:
    """Hold out `held_out_users` users for validation and as many for test; the model never trains on them.

    A held-out user of at least 5 items (known to training) has `held_out_share` of them held out, rounded down but
    at least one; the others are the history. A shorter user stays in the fold with a history and no target, and is
    counted. Interactions must be in ascending id order, as `from_events` makes them.

    Liang et al. 2018, "Variational Autoencoders for Collaborative Filtering", section 4.1, with the generator of
    their published code, so that seed 98765 gives the split of the literature; the global generator stays untouched.
    """
    _require_enough(interactions)
    if not (interactions.users.ids.is_monotonic_increasing and interactions.items.ids.is_monotonic_increasing):
        raise ValueError("the draw depends on ascending user and item ids; these interactions have another order")
    if not 0 < held_out_share < 1:
        raise SplitError(f"held_out_share is {held_out_share:g}; it must lie between 0 and 1")
    users = len(interactions.users)
    if held_out_users < 1:
        raise SplitError(f"held_out_users is {held_out_users}; hold out at least one user")
    if users <= 2 * held_out_users:
        most = (users - 1) // 2
        raise SplitError(
            f"{held_out_users} held-out users for validation and as many for test leave none of the {users} users to "
            "train on; " + (f"hold out at most {most}" if most else "a split by users needs at least three")
        )
    order = np.random.RandomState(seed).permutation(users)
    trained, chosen_by, reported = (np.sort(part) for part in np.split(order, [-2 * held_out_users, -held_out_users]))
    train = interactions.rows(trained)
    known = _touched(train)
    train = train.columns(known)
    validation, test = (
        hold_out(interactions.rows(part).columns(known), seed=seed, share=held_out_share)
        for part in (chosen_by, reported)
    )
    return _checked(
        train,
        validation,
        test,
        dropped={
            UNKNOWN_ITEM: _events(interactions)
            - _events(train)
            - sum(_events(fold.history) + _events(fold.held_out) for fold in (validation, test))
        },
        advice=f"held-out users need {SHORTEST_TO_HOLD_OUT} items; hold out more users, or bring longer histories",
    )


def hold_out_users(
    interactions: Interactions, *, held_out_users: int, seed: int = 98765, held_out_share: float = 0.2
) -> tuple[Interactions, Fold]:
    """Keep one lot of users from training, with a share of their items held out: `strong_generalisation`, but no test.

    Returns what remains to train on, and the fold, over the items of training.
    """
    _require_enough(interactions)
    users = len(interactions.users)
    if users < held_out_users + 2:
        raise SplitError(
            f"{held_out_users} of {users} users kept from training leave {max(0, users - held_out_users)} to train on, "
            "and it takes two; keep fewer, or none (--validation-share 0)"
        )
    order = np.random.RandomState(seed).permutation(users)
    trained, kept = (np.sort(part) for part in np.split(order, [-held_out_users]))
    train = interactions.rows(trained)
    known = _touched(train)
    fold = hold_out(interactions.rows(kept).columns(known), seed=seed, share=held_out_share)
    if not fold.held_out.matrix.nnz:
        raise SplitError(
            f"none of the users kept from training ({held_out_users}) has the {SHORTEST_TO_HOLD_OUT} items it takes to "
            "hold one out; keep more, or none (--validation-share 0)"
        )
    return train.columns(known), fold


def global_time(interactions: Interactions, *, validation_share: float = 0.1, test_share: float = 0.1) -> Split:
    """Train on what came before a moment, choose on what came after it, report on what came later still.

    The two cuts are quantiles of the event times, so the newest `test_share` of the events is the test window and
    the `validation_share` before it the validation window; events of one time are never on two sides of a cut. A
    fold has the users with an item in its window, the window's items held out, and everything before the window as
    history. That may be empty; such users are counted. Events of items that training has not seen are dropped.

    An event merged from repeated ones counts at the time that was kept: read the log with `duplicates="first"` for a
    split by the first touch.
    """
    _require_enough(interactions)
    if not (0 < validation_share < 1 and 0 < test_share < 1 and validation_share + test_share < 1):
        raise SplitError(
            f"validation_share {validation_share:g} and test_share {test_share:g} must be above 0, and below 1 together"
        )
    times = _times(interactions)
    ordered = np.sort(times)
    events = len(ordered)
    first_cut, second_cut = (
        ordered[min(events - 1, round(share * events))] for share in (1 - validation_share - test_share, 1 - test_share)
    )
    period = (times >= first_cut).astype(np.int8) + (times >= second_cut).astype(np.int8)
    sizes = np.bincount(period, minlength=3)
    if not sizes.all():
        raise SplitError(
            f"{sizes[TRAIN]}, {sizes[VALIDATION]} and {sizes[TEST]} events fall to training, validation and test: too "
            "many share one time; choose other shares"
        )
    return _by_period(interactions, period, advice="choose larger shares, or bring a longer log")


def leave_last_out(interactions: Interactions) -> Split:
    """Test on each user's last item, validate on the one before it, and train on all the rest.

    Items of one user at the same time count in column order. Users of fewer than three items stay in training
    whole, are in no fold, and are counted; so is a user whose held-out item nobody trained on, whose event is dropped.
    """
    _require_enough(interactions)
    times = _times(interactions)
    matrix = interactions.matrix
    lengths = np.diff(matrix.indptr)
    short = lengths < 3
    if short.all():
        raise SplitError("every user has fewer than 3 items; leaving the last out needs 3: bring longer histories")
    row = np.repeat(np.arange(len(lengths)), lengths)
    oldest_first = np.lexsort((matrix.indices, times, row))
    from_the_end = np.empty(len(times), dtype=np.int64)
    from_the_end[oldest_first] = matrix.indptr[1:][row] - 1 - np.arange(len(times))
    period = np.where(short[row], TRAIN, np.maximum(TEST - from_the_end, TRAIN))
    return _by_period(
        interactions,
        period,
        advice="bring a longer log, or use another split",
        counts={"users of fewer than 3 items, trained on but not tested": int(np.count_nonzero(short & (lengths > 0)))},
        caveat=(
            "leave-last-out leaks the future across users: the model has trained on what others did after the moment "
            "it is tested at, so these figures are higher than a live system would reach"
        ),
    )


def given(
    parts: Mapping[str, Interactions],
    *,
    seed: int = 98765,
    validation_users: int = 1000,
    held_out_share: float = 0.2,
) -> Split:
    """Take a split as its files have it: `train` and `test`, or `train` and a history and held-out part of two folds.

    The five are `train`, `validation_history`, `validation_held_out`, `test_history` and `test_held_out`; every part
    is aligned to the items of `train`, other items are dropped and counted, and so are held-out items that the
    user's history has as well.

    With `train` and `test` alone, validation is carved out of `train`: `validation_users` of those with at least 5
    items there (all, if they are fewer), drawn by numpy's RandomState(`seed`), and of each, in ascending id, the
    `held_out_share` of the items, rounded down but at least one, drawn by a second one; what would leave an item
    without any training event stays. Training does without them; the test fold's histories are the whole of `train`.
    """
    if set(parts) == {"train", "test"}:
        if validation_users < 1 or not 0 < held_out_share < 1:
            raise SplitError(
                f"validation_users {validation_users} must be above 0, "
                f"and held_out_share {held_out_share:g} between 0 and 1"
            )
        return _carved(parts["train"], parts["test"], seed=seed, users=validation_users, share=held_out_share)
    if set(parts) != {"train", *(f"{fold}_{side}" for fold in FOLDS for side in SIDES)}:
        raise ValueError(f"not the parts of a split: {', '.join(parts)}")
    _require_enough(parts["train"])
    train = parts["train"].columns(_touched(parts["train"]))
    folds, unknown, seen = [], 0, 0
    for fold in FOLDS:
        files = [parts[f"{fold}_{side}"] for side in SIDES]
        users = IdMap.of(files[0].users.ids.append(files[1].users.ids))
        history, found = (_aligned(file, users, train) for file in files)
        held_out = unseen(found, history)
        folds.append(Fold(history, held_out))
        unknown += sum(map(_events, files)) - _events(history) - _events(found)
        seen += _events(found) - _events(held_out)
    return _checked(
        train,
        *folds,
        dropped={UNKNOWN_ITEM: unknown, SEEN_ITEM: seen},
        advice="all files must name users and items by the same ids",
    )


def _carved(train: Interactions, test: Interactions, *, seed: int, users: int, share: float) -> Split:
    _require_enough(train)
    train = train.columns(_touched(train))
    lengths = np.diff(train.matrix.indptr)
    able = np.flatnonzero(lengths >= SHORTEST_TO_HOLD_OUT)
    judges = np.isin(np.arange(len(lengths)), np.random.RandomState(seed).permutation(able)[:users])
    drawn = np.zeros(_events(train), dtype=bool)
    drawn[np.repeat(judges, lengths)] = _drawn(train.rows(np.flatnonzero(judges)), seed=seed, share=share)
    column = train.matrix.indices
    drawn &= np.bincount(column[~drawn], minlength=len(train.items))[column] > 0
    remaining, carved = _keep(train, ~drawn), _keep(train, drawn)
    chosen_by = np.flatnonzero(np.diff(carved.matrix.indptr))
    history, found = (_aligned(file, test.users, train) for file in (train, test))
    held_out = unseen(found, history)
    return _checked(
        remaining,
        Fold(remaining.rows(chosen_by), carved.rows(chosen_by)),
        Fold(history, held_out),
        dropped={UNKNOWN_ITEM: _events(test) - _events(found), SEEN_ITEM: _events(found) - _events(held_out)},
        advice=f"some training users need {SHORTEST_TO_HOLD_OUT} items, and the test file needs items of training that "
        "its users do not have there",
    )


def _by_period(
    interactions: Interactions,
    period: NDArray[np.integer],
    *,
    advice: str,
    counts: Mapping[str, int] | None = None,
    caveat: str = "",
) -> Split:
    """Train on period 0; hold each later one out against everything before it, for the users with an item in it."""
    trained = _keep(interactions, period == TRAIN)
    known = _touched(trained)
    in_catalogue = np.isin(np.arange(len(interactions.items)), known)[interactions.matrix.indices]
    folds = []
    for fold in (VALIDATION, TEST):
        held_out = _keep(interactions, in_catalogue & (period == fold))
        users = np.flatnonzero(np.diff(held_out.matrix.indptr))
        history = _keep(interactions, in_catalogue & (period < fold))
        folds.append(Fold(*(side.rows(users).columns(known) for side in (history, held_out))))
    return _checked(
        trained.rows(np.flatnonzero(np.diff(trained.matrix.indptr))).columns(known),
        *folds,
        dropped={UNKNOWN_ITEM: int(np.count_nonzero(~in_catalogue))},
        counts=counts,
        caveat=caveat,
        advice=advice,
    )


def _checked(
    train: Interactions,
    validation: Fold,
    test: Fold,
    *,
    dropped: Mapping[str, int],
    advice: str,
    counts: Mapping[str, int] | None = None,
    caveat: str = "",
) -> Split:
    """Make a Split in which each fold has something to find; counts of zero are left out."""
    counted = dict(counts or {})
    for name, fold in zip(FOLDS, (validation, test), strict=True):
        if _events(fold.held_out) == 0:
            raise SplitError(f"no {name} user has a held-out item that training knows: {advice}")
        for what, part in (("history", fold.history), ("target", fold.held_out)):
            counted[f"{name} users without a {what}"] = int(np.count_nonzero(np.diff(part.matrix.indptr) == 0))
    return Split(
        train,
        validation,
        test,
        dropped={reason: count for reason, count in dropped.items() if count},
        counts={reason: count for reason, count in counted.items() if count},
        caveat=caveat,
    )


def hold_out(users: Interactions, *, seed: int, share: float) -> Fold:
    """Hold out a share of each user's items, drawn from the seed; see `strong_generalisation`."""
    drawn = _drawn(users, seed=seed, share=share)
    return Fold(_keep(users, ~drawn), _keep(users, drawn))


def _drawn(users: Interactions, *, seed: int, share: float) -> NDArray[np.bool_]:
    """Flag a share of each user's events, user by user in row order, so that the draw depends on the order."""
    generator = np.random.RandomState(seed)
    drawn = np.zeros(_events(users), dtype=bool)
    for start, stop in pairwise(users.matrix.indptr.tolist()):
        items = stop - start
        if items >= SHORTEST_TO_HOLD_OUT:
            drawn[start + generator.choice(items, size=max(1, int(share * items)), replace=False)] = True
    return drawn


def _keep(interactions: Interactions, chosen: NDArray[np.bool_]) -> Interactions:
    """Return the same users and items with only the chosen of the stored events."""
    matrix, times = interactions.matrix, interactions.times
    kept_before = np.concatenate(([0], np.cumsum(chosen)))
    starts = kept_before[matrix.indptr].astype(matrix.indptr.dtype)
    return Interactions(
        csr_matrix((matrix.data[chosen], matrix.indices[chosen], starts), shape=matrix.shape),
        interactions.users,
        interactions.items,
        interactions.item_table,
        None if times is None else times[chosen],
    )


def _aligned(part: Interactions, users: IdMap, like: Interactions) -> Interactions:
    """Return a part's events as rows of `users` and columns of `like`; what neither knows is left out."""
    matrix = part.matrix
    row = np.repeat(users.to_index(part.users.ids), np.diff(matrix.indptr))
    column = like.items.to_index(part.items.ids)[matrix.indices]
    known = np.flatnonzero((row != UNKNOWN) & (column != UNKNOWN))
    order = known[np.lexsort((column[known], row[known]))]
    shape = (len(users), len(like.items))
    starts = np.searchsorted(row[order], np.arange(shape[0] + 1))
    return Interactions(
        matrix=csr_matrix((matrix.data[order], column[order].astype(np.int32), starts), shape=shape),
        users=users,
        items=like.items,
        item_table=like.item_table,
        times=None if part.times is None else part.times[order],
    )


def unseen(held_out: Interactions, history: Interactions) -> Interactions:
    """Return the held-out events whose item is not in the same user's history."""
    return _keep(held_out, ~np.isin(_cells(held_out), _cells(history)))


def _cells(interactions: Interactions) -> NDArray[np.int64]:
    """Number the cells of the matrix row by row, and return those that are filled."""
    matrix = interactions.matrix
    row = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr))
    return row * matrix.shape[1] + matrix.indices


def _touched(interactions: Interactions) -> NDArray[np.int64]:
    """Return the columns that hold an event, ascending."""
    return np.flatnonzero(np.bincount(interactions.matrix.indices, minlength=len(interactions.items)))


def _events(part: Interactions) -> int:
    return int(part.matrix.nnz)


def _times(interactions: Interactions) -> NDArray[np.number]:
    times = interactions.times
    if times is None:
        raise SplitError(
            "this split needs event times, and the log has none: name their column with --time-col, or use "
            "strong-generalisation"
        )
    if times.min() == times.max():
        raise SplitError(f"all {len(times)} events have one time ({times[0]}), so none is later: use another split")
    return times


def _require_enough(interactions: Interactions) -> None:
    users = int(np.count_nonzero(np.diff(interactions.matrix.indptr)))
    for found, what in ((users, "user"), (len(_touched(interactions)), "item")):
        if found < 2:
            raise SplitError(
                f"{found or 'no'} {what}{' is' if found else 's are'} left, and a split needs at least two: bring a "
                "longer log, or lower --min-value and --min-items"
            )

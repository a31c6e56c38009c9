"""Who is hard to explain: the users whose histories surprise a model most, for their length."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recae.anomalies import Usual, oddest_of, rank_by_oddity
from recae.report.inputs import ReportInput

EXPLAINED_USERS = 2000
"""How many users are drawn at most: to explain one takes five times as long as to score one."""

NAMED = 6
NAMED_ITEMS = 4
"""How many of the oddest users are named, and of the items that surprise most in each."""

LINE_POINTS = 60


@dataclass(frozen=True)
class OddUser:
    """One user: how many items, how odd, and the items that surprise most."""

    user: str
    history_length: int
    z: float
    percentile: float
    items: tuple[str, ...]


@dataclass(frozen=True)
class Oddities:
    """Users by length of history and surprise, in nats; the oddest ones; and what is usual, over some lengths.

    `spread` is the standard deviation of users around what is usual, taken from the middle of them.
    """

    model: str
    lengths: NDArray[np.int64]
    surprise: NDArray[np.float64]
    oddest: tuple[OddUser, ...]
    at: NDArray[np.float64]
    usual: NDArray[np.float64]
    spread: NDArray[np.float64]


def explained_users(users: int) -> NDArray[np.int64]:
    """Return the rows of the users, evenly drawn, whom an experiment asks its models to explain."""
    return np.unique(np.linspace(0, max(0, users - 1), min(users, EXPLAINED_USERS)).round().astype(np.int64))


def find_oddities(report: ReportInput) -> Oddities | None:
    """Return those of the best model that can explain histories, or None where none can, or none of the histories."""
    model = next((model for model in report.models if model in report.surprises), None)
    if model is None or not report.surprises[model].scored.any():
        return None
    surprise, labels = report.surprises[model], report.item_labels
    rows = explained_users(len(report.fold.history.users))
    columns = report.fold.history.matrix[rows].indices
    found, usual = rank_by_oddity(surprise), Usual.of(surprise)
    ids = report.fold.history.users.ids[rows]
    oddest = []
    for place, odd in enumerate(oddest_of(surprise, found.rows[:NAMED], NAMED_ITEMS)):
        oddest.append(
            OddUser(
                user=str(ids[found.rows[place]]),
                history_length=int(found.lengths[place]),
                z=float(found.z[place]),
                percentile=float(found.percentile[place]),
                items=tuple(str(labels[columns[one]]) for one in odd),
            )
        )
    at = np.unique(np.geomspace(found.lengths.min(), found.lengths.max(), LINE_POINTS))
    return Oddities(model, found.lengths, found.surprise, tuple(oddest), at, usual.expected(at), usual.spread_at(at))

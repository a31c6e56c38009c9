"""A handful of real users: what they touched, what the models recommend, what of it was held out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recae.metrics import find_hits
from recae.report.inputs import ReportInput

PEOPLE = 6
LISTED = 12
MODELS = 3


@dataclass(frozen=True)
class Recommended:
    """One model's list for one user: labels, and whether each was held out; `value` is the main metric."""

    model: str
    value: float
    items: tuple[tuple[str, bool], ...]


@dataclass(frozen=True)
class Person:
    """One user: the listed part of the history, the size of the whole, and the best models' lists."""

    user: str
    history: tuple[str, ...]
    history_length: int
    held_out: int
    lists: tuple[Recommended, ...]


def choose_people(report: ReportInput) -> NDArray[np.int64]:
    """Return the fold's rows of users evenly spaced from the worst to the best served by the best model."""
    values = report.user_values
    if not report.models or report.models[0] not in values:
        return np.empty(0, dtype=np.int64)
    value = values[report.models[0]].to_numpy()
    order = np.argsort(report.main_metric.sign * value, kind="stable")[: np.isfinite(value).sum()]
    places = np.unique(np.linspace(0, max(0, len(order) - 1), PEOPLE).round().astype(np.int64))
    return order[places[: len(order)]]


def portray(report: ReportInput) -> list[Person]:
    """Return the chosen users with the lists of the best few models."""
    labels, history = report.item_labels, report.fold.history
    targets = np.diff(report.fold.held_out.matrix.indptr)
    ranked = [model for model in report.models if model in report.top and model in report.user_values][:MODELS]
    found = {model: find_hits(report.top[model].items, report.fold.held_out.matrix) for model in ranked}
    people = []
    for row in choose_people(report):
        columns = _listed_history(report, row)
        lists = []
        for model in ranked:
            offered = report.top[model].items[row, :LISTED]
            places = np.flatnonzero(offered >= 0)
            items = tuple((str(labels[offered[place]]), bool(found[model][row, place])) for place in places)
            lists.append(Recommended(model, float(report.user_values[model].iloc[row]), items))
        people.append(
            Person(
                user=str(history.users.ids[row]),
                history=tuple(str(label) for label in labels[columns]),
                history_length=int(np.diff(history.matrix.indptr)[row]),
                held_out=int(targets[row]),
                lists=tuple(lists),
            )
        )
    return people


def _listed_history(report: ReportInput, row: int) -> NDArray[np.integer]:
    """Return the columns of a user's latest items, or of the first few where there are no times."""
    history = report.fold.history
    start, end = history.matrix.indptr[row : row + 2]
    columns = history.matrix.indices[start:end]
    if history.times is not None:
        columns = columns[np.argsort(history.times[start:end], kind="stable")[::-1]]
    return np.asarray(columns[:LISTED])

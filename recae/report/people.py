"""A handful of real users: what they touched, what the models recommend or predict, what of it was held out."""

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
class Predicted:
    """One model's predictions for one user, of the listed held-out items; `value` is the main metric, of all."""

    model: str
    value: float
    values: tuple[float, ...]


@dataclass(frozen=True)
class Person:
    """One user: the listed part of the history, the size of the whole, and the best models' lists.

    `missed` has held-out items that are in none of these lists, popular ones first, of `missed_in_all`. Where values
    are predicted, there are no lists, but predictions; the values of the history; and held-out items, those of the
    highest values first.
    """

    user: str
    history: tuple[str, ...]
    history_length: int
    held_out: int
    lists: tuple[Recommended, ...]
    missed: tuple[str, ...] = ()
    missed_in_all: int = 0
    history_values: tuple[float, ...] = ()
    targets: tuple[tuple[str, float], ...] = ()
    predictions: tuple[Predicted, ...] = ()


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
    """Return the chosen users with the lists of the best few models, or with the values that these predict.

    Nobody where the main metric is of values, and none were handed over.
    """
    return _with_predictions(report) if report.main_metric.is_of_values else _with_lists(report)


def _with_predictions(report: ReportInput) -> list[Person]:
    labels, history, held_out = report.item_labels, report.fold.history.matrix, report.fold.held_out.matrix
    models = [model for model in report.predictors if model in report.user_values][:MODELS]
    people = []
    for row in choose_people(report) if models else []:
        columns = _listed_history(report, row)
        start, end = held_out.indptr[row : row + 2]
        targets = start + np.argsort(-held_out.data[start:end], kind="stable")
        listed = targets[np.linspace(0, len(targets) - 1, min(LISTED, len(targets))).round().astype(np.int64)]
        people.append(
            Person(
                user=str(report.fold.history.users.ids[row]),
                history=tuple(str(label) for label in labels[columns]),
                history_length=int(np.diff(history.indptr)[row]),
                held_out=len(targets),
                lists=(),
                history_values=tuple(float(history[row, column]) for column in columns),
                targets=tuple((str(labels[held_out.indices[place]]), float(held_out.data[place])) for place in listed),
                predictions=tuple(
                    Predicted(
                        model,
                        float(report.user_values[model].iloc[row]),
                        tuple(float(value) for value in report.predicted[model][listed]),
                    )
                    for model in models
                ),
            )
        )
    return people


def _with_lists(report: ReportInput) -> list[Person]:
    labels, history, held_out = report.item_labels, report.fold.history, report.fold.held_out.matrix
    popularity = report.train.matrix.getnnz(axis=0)
    ranked = [model for model in report.models if model in report.top and model in report.user_values][:MODELS]
    found = {model: find_hits(report.top[model].items, held_out) for model in ranked}
    people = []
    for row in choose_people(report):
        columns = _listed_history(report, row)
        targets = held_out.indices[held_out.indptr[row] : held_out.indptr[row + 1]]
        lists, missed = [], targets[np.argsort(-popularity[targets], kind="stable")]
        for model in ranked:
            offered = report.top[model].items[row, :LISTED]
            missed = missed[~np.isin(missed, offered)]
            places = np.flatnonzero(offered >= 0)
            items = tuple((str(labels[offered[place]]), bool(found[model][row, place])) for place in places)
            lists.append(Recommended(model, float(report.user_values[model].iloc[row]), items))
        people.append(
            Person(
                user=str(history.users.ids[row]),
                history=tuple(str(label) for label in labels[columns]),
                history_length=int(np.diff(history.matrix.indptr)[row]),
                held_out=len(targets),
                lists=tuple(lists),
                missed=tuple(str(label) for label in labels[missed[:LISTED]]),
                missed_in_all=len(missed),
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

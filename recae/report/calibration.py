"""Predicted values beside actual ones: are they right on average, and how far do they shrink towards the mean?

entries: the held-out values of the fold's users, user by user, in the order of the matrix that holds them.
steps: equal ones, in which both kinds of values are counted.
"""

from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from recae.evaluation import bootstrap_means, interval
from recae.report.inputs import VALUE_BASELINE, ReportInput
from recae.report.measures import Band

STEPS = 21
"""How many steps the values are counted in, about."""

WITHIN = 0.005, 0.995
"""Which shares of the values the first step and the last begin after: a few far out would squeeze all others."""

TENTH = 0.1
"""Which share of the actual values, and some more where many are equal, stands for the lowest and the highest ones."""

FEW = 30
"""How many predictions in a step are few."""


@dataclass(frozen=True, eq=False)
class Calibrated:
    """One model's predictions: the mean actual value over the mean predicted one, and how many there are (steps).

    Where a step holds no prediction, both means are NaN.
    """

    model: str
    means: Band
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class Spread:
    """How far values spread: mean, standard deviation, and the means where the actual values are lowest and highest.

    Of predicted values also the slope of the actual ones over them, and the ends of its 95 % interval: by how much the
    actual value is higher where the predicted one is higher by one. NaN for actual values, and for predictions that are
    all the same.
    """

    name: str
    mean: float
    deviation: float
    low: float
    high: float
    slope: float = float("nan")
    slope_low: float = float("nan")
    slope_high: float = float("nan")


@dataclass(frozen=True, eq=False)
class Calibration:
    """The best predictor and, beside it, the baseline, against what was held out.

    `edges` (steps + 1) are of the steps, the first and the last of which hold whatever lies beyond, too; `counts`
    (steps) are those of the actual values. `lowest` and `highest` are the bounds of the lowest and the highest actual
    values, and the shares of all that these are. `spreads` has every model that predicts.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    models: tuple[Calibrated, ...]
    lowest: tuple[float, float]
    highest: tuple[float, float]
    actual: Spread
    spreads: tuple[Spread, ...]
    beyond: bool


def find_calibration(report: ReportInput) -> Calibration | None:
    """Compare predicted with held-out values, or return None where no model predicts any."""
    held_out = report.fold.held_out.matrix
    if not report.predictors or not held_out.nnz:
        return None
    actual = held_out.data.astype(np.float64)
    users = np.repeat(np.arange(held_out.shape[0]), np.diff(held_out.indptr))
    best = next((model for model in report.predictors if model != VALUE_BASELINE), report.predictors[0])
    drawn = list(dict.fromkeys([best, *(model for model in report.predictors if model == VALUE_BASELINE)]))
    sides = [actual, *(report.predicted[model] for model in drawn)]
    edges = value_steps(sides)
    low = float(np.quantile(actual, TENTH, method="lower"))
    high = float(np.quantile(actual, 1 - TENTH, method="higher"))
    lowest, highest = actual <= low, actual >= high
    return Calibration(
        edges=edges,
        counts=np.bincount(_step(actual, edges), minlength=len(edges) - 1),
        models=tuple(calibrate(model, report.predicted[model], actual, users, edges) for model in drawn),
        lowest=(low, float(lowest.mean())),
        highest=(high, float(highest.mean())),
        actual=_spread("actual values", actual, lowest, highest),
        spreads=tuple(
            _spread(model, report.predicted[model], lowest, highest, *_slope(report.predicted[model], actual, users))
            for model in report.predictors
        ),
        beyond=any(side.min() < edges[0] or side.max() > edges[-1] for side in sides),
    )


def value_steps(sides: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the edges of equal steps around round numbers, over nearly all values of every side."""
    low, high = (float(of(np.quantile(side, at) for side in sides)) for of, at in zip((min, max), WITHIN, strict=True))
    middles = np.asarray(MaxNLocator(STEPS, steps=[1, 2, 5, 10]).tick_values(low, high), dtype=np.float64)
    half = (middles[1] - middles[0]) / 2
    return np.append(middles - half, middles[-1] + half)


def calibrate(
    model: str,
    predicted: NDArray[np.float64],
    actual: NDArray[np.float64],
    users: NDArray[np.integer],
    edges: NDArray[np.float64],
) -> Calibrated:
    """Average predicted and actual values, both (entries), in steps of the predicted ones.

    The interval is of users drawn anew, each with all that is held out of them: a user's values are alike. NaN where
    one user stands behind it.
    """
    step, steps = _step(predicted, edges), len(edges) - 1
    counts = np.bincount(step, minlength=steps)
    some = np.where(counts > 0, counts, np.nan)
    x, y = (np.bincount(step, values, minlength=steps) / some for values in (predicted, actual))
    low, high = np.full((2, steps), np.nan)
    for number in np.flatnonzero(counts):
        inside = step == number
        sums = _of_users(users[inside], actual[inside])
        if len(sums) > 1:
            drawn = bootstrap_means(sums)
            low[number], high[number] = interval(drawn[:, 1] / drawn[:, 0])
    return Calibrated(model, Band(x, y, low, high), counts)


def _step(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the step of each value; the first and the last hold whatever lies beyond."""
    return np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)


def _of_users(users: NDArray[np.integer], *values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how many entries each of the users has, and the sums of their values: (users, 1 + values)."""
    _, row = np.unique(users, return_inverse=True)
    return np.column_stack([np.bincount(row), *(np.bincount(row, of_entries) for of_entries in values)])


def _spread(
    name: str, values: NDArray[np.float64], lowest: NDArray[np.bool_], highest: NDArray[np.bool_], *slope: float
) -> Spread:
    means = (float(values[inside].mean()) for inside in (lowest, highest))
    return Spread(name, float(values.mean()), float(values.std()), *means, *slope)


def _slope(
    predicted: NDArray[np.float64], actual: NDArray[np.float64], users: NDArray[np.integer]
) -> tuple[float, float, float]:
    """Return the least-squares slope of actual values over predicted ones, and the ends of its 95 % interval.

    The interval is of users drawn anew, each with all that is held out of them; NaN where there is one user.
    """
    x, y = predicted - predicted.mean(), actual - actual.mean()
    if float(x @ x) <= 1e-12 * float(predicted @ predicted):
        return float("nan"), float("nan"), float("nan")
    sums = _of_users(users, x, y, x * x, x * y)

    def slopes(of: NDArray[np.float64]) -> NDArray[np.float64]:
        count, of_x, of_y, of_xx, of_xy = of.T
        spread = of_xx - of_x**2 / count
        found: NDArray[np.float64] = (of_xy - of_x * of_y / count) / np.where(spread > 0, spread, np.nan)
        return found

    low, high = interval(slopes(bootstrap_means(sums))) if len(sums) > 1 else np.full(2, np.nan)
    return float(slopes(sums.sum(axis=0, keepdims=True))[0]), float(low), float(high)

"""What rankings and predictions are worth: a value for each user, and its mean with a confidence interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recae.errors import RecipeError
from recae.metrics import Metric, Sums, find_hits, measure_catalogue, measure_users, measure_values, sum_errors
from recae.ranking import TopN

RESAMPLES = 2000
"""How many times users are drawn anew for an interval; its ends then move by a few percent of its width."""

BLOCK = 2**22
"""How many drawn users are held at a time, whatever the number of users: 32 MB for the draws, 32 for the counts."""

FEWEST_PLACES = 10
"""How long rankings are where no metric looks at them."""

SUMMARY = {
    "metric": "str",
    "k": "int64",
    "value": "float64",
    "ci_low": "float64",
    "ci_high": "float64",
    "users": "int64",
}
"""The columns of `summarise`, and their types."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What one model's rankings and predicted values are worth to the users of a fold.

    `per_user` has a row for each user of the fold, in order, and a column for each metric that has a value per user,
    by key, NaN for a user without a target; `catalogue` has a value for each metric of all rankings together, by key.
    `pooled` has, for each metric of all held-out values together, by key, every user's part of its sum. A metric of
    values is NaN for a model that has none to predict.
    `users` counts all of the fold, `without_target` those with nothing held out, `without_history` those with an
    empty history; `held_out` is how many items of each user are held out; `asked` has the keys in the order they were
    asked for, where that is known.
    """

    per_user: pd.DataFrame
    catalogue: Mapping[str, float]
    users: int
    without_target: int
    without_history: int
    held_out: NDArray[np.int64]
    pooled: Mapping[str, Sums] = field(default_factory=dict)
    asked: Sequence[str] = ()


def places_needed(metrics: Sequence[Metric]) -> int:
    """Return how long a ranking must be for these metrics: the largest k of them."""
    return max(metric.k for metric in metrics) or FEWEST_PLACES


def require_values(metrics: Sequence[Metric], held_out: csr_matrix) -> None:
    """Raise RecipeError where a metric compares values and all the held-out ones are the same: none tells anything."""
    of_values = next((metric for metric in metrics if metric.is_of_values), None)
    values = held_out.data
    if of_values is not None and len(values) and values.min() == values.max():
        raise RecipeError(
            f"metric '{of_values}' compares values, and every held-out one is {values[0]:g}; keep those of the log "
            "(values: keep), or leave the metric out"
        )


def evaluate(
    top: TopN,
    history: csr_matrix,
    held_out: csr_matrix,
    metrics: Sequence[Metric],
    train: csr_matrix | None = None,
    predicted: NDArray[np.floating] | None = None,
) -> Evaluation:
    """Measure rankings (users, n) against held-out items (users, items), the same users in the same order.

    A metric that looks at more than n places counts the missing ones as misses. `train`, the interactions the model
    learned from, is what the metrics of the catalogue look at; RecipeError if one is asked for without it. `predicted`
    are the values that metrics of values compare with those of `held_out`, in the order of its data (a zero that is
    stored is one of them); without it they are NaN.
    """
    users = len(top.items)
    if not users == history.shape[0] == held_out.shape[0]:
        raise ValueError(f"{users} rankings, {history.shape[0]} histories, {held_out.shape[0]} rows of held-out items")
    hits = find_hits(top.items, held_out)
    targets = np.diff(held_out.indptr)
    errors = np.full(held_out.nnz, np.nan) if predicted is None else predicted - held_out.data.astype(np.float64)
    values: dict[str, NDArray[np.float64]] = {}
    pooled: dict[str, Sums] = {}
    catalogue: dict[str, float] = {}
    for metric in metrics:
        if metric.is_of_values:
            total = sum_errors(metric, errors, targets)
            if metric.is_per_user:
                values[metric.key] = measure_values(metric, total, targets)
            else:
                pooled[metric.key] = total
        elif metric.is_per_user:
            values[metric.key] = measure_users(metric, hits, targets)
        elif train is None:
            raise RecipeError(
                f"metric '{metric}' needs the training interactions, and there are none here; leave it out"
            )
        else:
            catalogue[metric.key] = measure_catalogue(metric, top.items, train)
    return Evaluation(
        per_user=pd.DataFrame(values, index=pd.RangeIndex(users)),
        catalogue=catalogue,
        users=users,
        without_target=int((targets == 0).sum()),
        without_history=int((np.diff(history.indptr) == 0).sum()),
        held_out=targets.astype(np.int64),
        pooled=pooled,
        asked=list(dict.fromkeys(metric.key for metric in metrics)),
    )


def summarise(evaluation: Evaluation, *, resamples: int = RESAMPLES, seed: int = 0) -> pd.DataFrame:
    """Return a row for each metric, in the order they were asked for: metric, k, value, ci_low, ci_high, users.

    For a metric per user, `value` is the mean over the target users, `users` their number, and the interval the 95 %
    percentile bootstrap's (see `bootstrap_means`). That of a metric of all held-out values together is of the same
    draws of users, each with all that is held out of them. A metric of the catalogue has no interval (NaN), and `users`
    are all those it was measured on.
    """
    aimed = evaluation.held_out > 0
    targets, pooled = evaluation.per_user[aimed], list(evaluation.pooled)
    of_users, held_out = targets.to_numpy(), evaluation.held_out[aimed].astype(np.float64)
    sums = np.column_stack([held_out, *(evaluation.pooled[key][aimed] for key in pooled)])
    drawn = bootstrap_means(np.column_stack([of_users, sums]), resamples=resamples, seed=seed)
    of_users_drawn, sums_drawn = np.split(drawn, [of_users.shape[1]], axis=1)
    whole = sums.sum(axis=0, keepdims=True)
    found = dict(zip(targets.columns, zip(targets.mean(), of_users_drawn.T, strict=True), strict=True))
    for place, key in enumerate(pooled, start=1):
        metric = Metric.from_key(key)
        total, means = (measure_values(metric, some[:, place], some[:, 0]) for some in (whole, sums_drawn))
        found[key] = float(total[0]), means
    rows: dict[str, tuple[Any, ...]] = {}
    for key, (value, means) in found.items():
        metric, measured = Metric.from_key(key), 0 if np.isnan(value) else len(targets)
        rows[key] = (metric.name, metric.k, value, *interval(means), measured)
    for key, value in evaluation.catalogue.items():
        metric = Metric.from_key(key)
        rows[key] = (metric.name, metric.k, value, np.nan, np.nan, evaluation.users)
    ordered = [rows[key] for key in evaluation.asked or rows]
    return pd.DataFrame(ordered, columns=list(SUMMARY)).astype(SUMMARY)


def bootstrap_means(values: NDArray[np.float64], *, resamples: int = RESAMPLES, seed: int = 0) -> NDArray[np.float64]:
    """Return means over users drawn anew, with replacement: values (users, columns) → (resamples, columns).

    Which users are drawn depends on the seed and the number of users alone, so models that were evaluated on the same
    users are resampled alike. Never a normal approximation: the draws are made and used a BLOCK at a time. Source:
    Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapters 6 and 13.
    """
    users, columns = values.shape
    means = np.full((resamples, columns), np.nan)
    if not users or not columns:
        return means
    generator = np.random.default_rng(seed)
    at_once = max(1, BLOCK // users)
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        drawn = generator.integers(users, size=(count, users))
        drawn += users * np.arange(count)[:, None]
        times = np.bincount(drawn.ravel(), minlength=count * users).reshape(count, users)
        means[start : start + count] = times @ values / users
    return means


def interval(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the 95 % percentile interval of bootstrap means: (resamples, columns) → (low or high, columns)."""
    bounds: NDArray[np.float64] = np.quantile(means, [0.025, 0.975], axis=0)
    return bounds

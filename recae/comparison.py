"""Which models differ by more than chance: paired, on the same users, corrected for the number of comparisons."""

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recae.errors import RecipeError
from recae.evaluation import BLOCK, RESAMPLES, Evaluation, bootstrap_means, interval
from recae.metrics import Metric

PERMUTATIONS = 10_000
"""How many times signs are flipped: p-values down to 1 in 10,001, enough for the correction of dozens of pairs."""

LEVEL = 0.05
"""The chance of calling any difference of the whole table significant where there is none."""


def compare(
    evaluations: Mapping[str, Evaluation],
    metric: Metric,
    *,
    resamples: int = RESAMPLES,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare every pair of models, evaluated on the same users, on a metric that has a value per user.

    A model that has no value at all, such as a prediction of values by one that has none, is in no pair.

    Returns a row for each pair, in the models' order: model, other, metric, k, difference (mean over the target users
    of the model's value less the other's), its 95 % bootstrap interval ci_low and ci_high, p_value (`sign_flip_test`),
    p_adjusted (`holm`, over all the pairs), significant (p_adjusted below 5 %). Raises RecipeError for a metric of
    the catalogue.
    """
    if not metric.is_per_user:
        raise RecipeError(f"metric '{metric}' has no value for each user, so models cannot be compared on it")
    by_model = {name: one.per_user[metric.key].to_numpy() for name, one in evaluations.items()}
    measured = {name: values for name, values in by_model.items() if not np.isnan(values).all()} or by_model
    names, values = list(measured), np.stack(list(measured.values()))
    target = ~np.isnan(values)
    if (target != target[0]).any():
        raise ValueError("the models were not evaluated on the same target users")
    pairs = np.array(list(combinations(range(len(names)), 2)), np.int64).reshape(-1, 2)
    differences = (values[pairs[:, 0]] - values[pairs[:, 1]])[:, target[0]].T
    low, high = interval(bootstrap_means(differences, resamples=resamples, seed=seed))
    p_values = sign_flip_test(differences, permutations=permutations, seed=seed)
    adjusted = holm(p_values)
    return pd.DataFrame(
        {
            "model": pd.Series([names[place] for place in pairs[:, 0]], dtype="str"),
            "other": pd.Series([names[place] for place in pairs[:, 1]], dtype="str"),
            "metric": pd.Series([metric.name] * len(pairs), dtype="str"),
            "k": np.full(len(pairs), metric.k, np.int64),
            "difference": differences.mean(axis=0) if len(differences) else np.full(len(pairs), np.nan),
            "ci_low": low,
            "ci_high": high,
            "p_value": p_values,
            "p_adjusted": adjusted,
            "significant": adjusted < LEVEL,
        }
    )


def better_than(comparison: pd.DataFrame) -> dict[str, list[str]]:
    """Return, for each model that `compare` compared, the models it is significantly better than, in their order."""
    columns = (comparison[name].to_list() for name in ("model", "other", "metric", "k", "difference", "significant"))
    beaten: dict[str, list[str]] = {}
    for model, other, name, k, difference, significant in zip(*columns, strict=True):
        beaten.setdefault(model, [])
        beaten.setdefault(other, [])
        if significant:
            winner, loser = (model, other) if Metric(name, k).sign * difference > 0 else (other, model)
            beaten[winner].append(loser)
    return beaten


def sign_flip_test(
    differences: NDArray[np.float64], *, permutations: int = PERMUTATIONS, seed: int = 0
) -> NDArray[np.float64]:
    """Return the two-sided p-value of each column's mean: differences (users, columns) → (columns,).

    Were two models the same, each user's two values could be swapped, so each difference could as well have the other
    sign: p is the share of the sign patterns whose mean is at least as far from 0. All 2^users patterns are tried
    where they are no more than `permutations` (exact); else that many are drawn, and the observed one counted among
    them, so that p is never 0. The same patterns serve all columns. Source: Fisher's randomisation test, as in Smucker,
    Allan and Carterette 2007, "A comparison of statistical significance tests for information retrieval evaluation".
    """
    users, columns = differences.shape
    exact = 2**users <= permutations
    patterns = 2**users if exact else permutations
    total = differences.sum(axis=0)
    # Sums of the same terms in another order differ in their last bits, and must still count as equal.
    observed = np.abs(total) - 1e-12 * np.abs(differences).sum(axis=0)
    generator = np.random.default_rng(seed)
    extreme = np.zeros(columns, np.int64)
    at_once = max(1, BLOCK // max(users, 1))
    for start in range(0, patterns, at_once):
        count = min(at_once, patterns - start)
        if exact:
            plus = (np.arange(start, start + count)[:, None] >> np.arange(users) & 1).astype(np.float64)
        else:
            packed = np.frombuffer(generator.bytes(count * (users // 8 + 1)), np.uint8).reshape(count, -1)
            plus = np.unpackbits(packed, axis=1, count=users).astype(np.float64)
        extreme += (np.abs(2 * (plus @ differences) - total) >= observed).sum(axis=0)
    return extreme / patterns if exact else (extreme + 1) / (patterns + 1)


def holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return p-values adjusted so that the chance of any false discovery among them stays below the level.

    The i-th smallest of m becomes max_{j≤i} min(1, (m − j + 1)·p_j). Holm 1979, "A simple sequentially rejective
    multiple test procedure".
    """
    order = np.argsort(p_values, kind="stable")
    steps = p_values[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted

"""What a ranking or a prediction is worth: one function a metric, with its formula and its source.

Metrics per user take hits, held_out and k:
    hits       (users, n) bool: is the item in this place, best first, a held-out one? n may be less than k: the
               places that are missing are misses, and so are gaps.
    held_out   (users,) integers, each at least 1: how many items of the user are held out
    returns    (users,) float64
Metrics of the catalogue take items, train and k:
    items      (users, n) columns, best first; negative for a gap, or for an item outside the catalogue
    train      (users, items) CSR: the interactions the model learned from
    returns    one number
Metrics of values, of a user or of all users together, take what `sum_errors` makes of the errors, x̂ - x for each
held-out value x and its prediction x̂; lower is better:
    total      the sum of the errors' squares, or of their sizes
    held_out   how many there are
    returns    float64, of the shape of both
In the formulas r is a place from 1, hit_r is 1 where the item there is held out, H are a user's held-out items,
|H| = held_out.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, csr_matrix

from recae.errors import RecipeError, nearest
from recae.ranking import NO_ITEM

Hits = NDArray[np.bool_]
Counts = NDArray[np.integer]
Items = NDArray[np.integer]
PerUser = NDArray[np.float64]
Sums = NDArray[np.float64]
Better = Literal["higher", "lower", "neither"]

GRAM_BYTES = 128 * 2**20
"""How much of the items × items matrix of similarities `diversity` holds at a time."""


@dataclass(frozen=True, order=True)
class Metric:
    """A metric and the number of places it looks at: "recall@20" in writing; 0 for one of values: "rmse"."""

    name: str
    k: int = 0

    def __post_init__(self) -> None:
        if self.name not in METRICS:
            raise RecipeError(f"unknown metric '{self.name}'{nearest(self.name, METRICS)}")
        if self.is_of_values and self.k:
            raise RecipeError(f"metric '{self}': it looks at values, and at no places; write '{self.name}'")
        if not self.is_of_values and self.k < 1:
            raise RecipeError(f"metric '{self.name}@{self.k}': it must look at 1 place at least")

    @classmethod
    def parse(cls, text: str) -> "Metric":
        """Read "recall@20" or "rmse"; raises RecipeError for a name that is unknown or a k that is no number from 1."""
        name, at, k = text.strip().partition("@")
        if name not in METRICS:
            raise RecipeError(f"unknown metric '{text}'{nearest(name, METRICS)}")
        if name in VALUES:
            if at:
                raise RecipeError(f"metric '{text}': it looks at values, and at no places; write '{name}'")
            return cls(name)
        if not re.fullmatch(r"[0-9]{1,9}", k):
            raise RecipeError(f"metric '{text}': say how many places it looks at, as in '{name}@20'")
        return cls(name, int(k))

    @classmethod
    def from_key(cls, key: str) -> "Metric":
        """Read what `key` wrote: "recall_at_20"."""
        return cls.parse("@".join(key.rsplit("_at_", 1)))

    @property
    def key(self) -> str:
        """Return the name that tables and MLflow take, which refuse the @: "recall_at_20"."""
        return f"{self.name}_at_{self.k}" if self.k else self.name

    @property
    def is_of_values(self) -> bool:
        """Does it compare predicted values with held-out ones, and not look at rankings?"""
        return self.name in VALUES

    @property
    def is_per_user(self) -> bool:
        """Is there a value for each user, or only one of all of them together?"""
        return self.name in PER_USER or (self.is_of_values and self.name not in POOLED)

    @property
    def better(self) -> Better:
        """Is higher better, or lower, or can neither be said?"""
        if self.is_of_values:
            return "lower"
        return CATALOGUE_BETTER.get(self.name, "higher")

    @property
    def sign(self) -> int:
        """Return what a value or a difference is to be multiplied by, so that higher is better."""
        return -1 if self.better == "lower" else 1

    def __str__(self) -> str:
        return f"{self.name}@{self.k}" if self.k else self.name


def find_hits(items: Items, held_out: csr_matrix) -> Hits:
    """Return, for rankings (users, n) and held-out items (users, items), which places hold a held-out item.

    An entry that is stored is held out, whatever its value. Negative columns are misses.
    """
    users, width = held_out.shape
    if len(items) != users:
        raise ValueError(f"rankings of {len(items)} users, held-out items of {users}")
    wanted = np.sort(np.repeat(np.arange(users), np.diff(held_out.indptr)) * np.int64(width) + held_out.indices)
    if not len(wanted):
        return np.zeros(items.shape, bool)
    ranked = np.arange(users)[:, None] * np.int64(width) + items
    place = np.searchsorted(wanted, ranked).clip(max=len(wanted) - 1)
    found: Hits = (wanted[place] == ranked) & (items >= 0)
    return found


def measure_users(metric: Metric, hits: Hits, held_out: Counts) -> PerUser:
    """Return the metric of each user, NaN for a user without a target; `hits` may be wider than k."""
    target = held_out > 0
    values = np.full(len(hits), np.nan)
    values[target] = PER_USER[metric.name](hits[target, : metric.k], held_out[target], metric.k)
    return values


def measure_catalogue(metric: Metric, items: Items, train: csr_matrix) -> float:
    """Return the metric of all rankings together; `items` may be wider than k."""
    return CATALOGUE[metric.name](items[:, : metric.k], train, metric.k)


def sum_errors(metric: Metric, errors: NDArray[np.floating], held_out: Counts) -> Sums:
    """Return for each user what a metric of values adds up: the errors' squares, or their sizes.

    errors (entries,) are those of the users' held-out values, user by user, `held_out` (users,) of each.
    """
    amounts = np.abs(errors, dtype=np.float64) ** POWER[metric.name]
    users = np.repeat(np.arange(len(held_out)), held_out)
    return np.bincount(users, amounts, minlength=len(held_out)).astype(np.float64)


def measure_values(metric: Metric, total: Sums, held_out: Counts | Sums) -> PerUser:
    """Return a metric of values for each total and the number of values that it is of, NaN where there are none."""
    values = np.full(total.shape, np.nan)
    some = held_out > 0
    values[some] = VALUES[metric.name](total[some], held_out[some])
    return values


def recall(hits: Hits, held_out: Counts, k: int) -> PerUser:
    """Σ_{r≤k} hit_r / |H|: the share of the held-out items that were found.

    The plain recall of information retrieval, and LightGCN's (He et al. 2020, arXiv:2002.02126, their test code). It
    cannot reach 1 where |H| > k.
    """
    return _found(hits) / held_out


def truncated_recall(hits: Hits, held_out: Counts, k: int) -> PerUser:
    """Σ_{r≤k} hit_r / min(k, |H|): the share of what could be found in k places.

    Liang et al. 2018, "Variational Autoencoders for Collaborative Filtering", section 4.2, who call it Recall@R.
    """
    return _found(hits) / np.minimum(k, held_out)


def ndcg(hits: Hits, held_out: Counts, k: int) -> PerUser:
    """Σ_{r≤k} hit_r / log2(r + 1), divided by its best, Σ_{r≤min(k, |H|)} 1 / log2(r + 1).

    Järvelin and Kekäläinen 2002, with binary gain; the ideal as in Liang et al. 2018, section 4.2.
    """
    discount = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discount)[np.minimum(k, held_out) - 1]
    value: PerUser = (hits @ discount[: hits.shape[1]]) / ideal
    return value


def average_precision(hits: Hits, held_out: Counts, k: int) -> PerUser:
    """Σ_{r≤k} hit_r · precision@r / |H|: "map", the average precision of the TREC evaluations, cut at k.

    Buckley and Voorhees 2000; trec_eval's map_cut. It cannot reach 1 where |H| > k.
    """
    return _sum_of_precisions(hits) / held_out


def truncated_average_precision(hits: Hits, held_out: Counts, k: int) -> PerUser:
    """Σ_{r≤k} hit_r · precision@r / min(k, |H|): "truncated_map", which can reach 1 for every user.

    The definition of Kaggle's MAP@k (Million Song Dataset Challenge, McFee et al. 2012, equation 5).
    """
    return _sum_of_precisions(hits) / np.minimum(k, held_out)


def reciprocal_rank(hits: Hits, held_out: Counts, k: int) -> PerUser:
    """1 / r of the first hit, 0 if none of the first k is one: "mrr" once averaged (Voorhees 1999)."""
    value: PerUser = (hits / np.arange(1, hits.shape[1] + 1)).max(axis=1, initial=0.0)
    return value


def precision(hits: Hits, held_out: Counts, k: int) -> PerUser:
    """Σ_{r≤k} hit_r / k: the share of the places that hold a hit; a place left empty is a miss (trec_eval's P)."""
    return _found(hits) / float(k)


def hit_rate(hits: Hits, held_out: Counts, k: int) -> PerUser:
    """1 if any of the first k is a hit, else 0 (Deshpande and Karypis 2004, "HR"; trec_eval's success)."""
    return (_found(hits) > 0).astype(np.float64)


def coverage(items: Items, train: csr_matrix, k: int) -> float:
    """|∪_u top-k of u| / items: the share of the catalogue recommended to anybody.

    Ge et al. 2010, "Beyond accuracy", catalogue coverage.
    """
    return len(np.unique(items[items >= 0])) / train.shape[1]


def gini(items: Items, train: csr_matrix, k: int) -> float:
    """Σ_i (2i − I − 1)·c_i / (I·Σc), c_1 ≤ … ≤ c_I how often each of I items is recommended.

    0: all equally often; (I − 1)/I: one item only; NaN: nothing recommended. Fleder and Hosanagar 2009.
    """
    times = np.sort(np.bincount(items[items >= 0], minlength=train.shape[1]))
    if not times.any():
        return math.nan
    count = len(times)
    return float((2 * np.arange(1, count + 1) - count - 1) @ times / (count * times.sum()))


def popularity(items: Items, train: csr_matrix, k: int) -> float:
    """Mean over users of the mean, over their top-k, of the share of training users who have the item.

    The average recommendation popularity of Yin et al. 2012 ("Challenging the long tail recommendation"), as a share.
    """
    return _mean_of_lists(items, np.diff(train.tocsc().indptr) / train.shape[0])


def novelty(items: Items, train: csr_matrix, k: int) -> float:
    """Mean over users of the mean, over their top-k, of −log2 p(item), p the share of training users who have it.

    The mean self-information of Zhou et al. 2010 (PNAS 107), in bits. An item that no training user has counts as if
    one had it: log2(training users) is the most that this training set can tell.
    """
    share = np.maximum(np.diff(train.tocsc().indptr), 1) / train.shape[0]
    return _mean_of_lists(items, -np.log2(share), outside=math.log2(train.shape[0]))


def diversity(items: Items, train: csr_matrix, k: int) -> float:
    """Mean over users of 1 − the mean cosine similarity of all pairs of different items in their top-k.

    Smyth and McClave 2001, Ziegler et al. 2005 (intra-list similarity); an item is its column of training
    interactions, and one that no training user has is similar to none. Users with fewer than two items are left out.
    """
    length = (items != NO_ITEM).sum(axis=1)
    enough = length > 1
    if not enough.any():
        return math.nan
    columns, places = np.unique(items[items >= 0], return_inverse=True)
    lists = np.full(items.shape, len(columns))
    lists[items >= 0] = places
    pairs = length[enough] * (length[enough] - 1.0)
    return float(np.mean(1 - _similarity_within(lists, _unit_columns(train, columns))[enough] / pairs))


def root_mean_squared_error(total: Sums, held_out: Counts | Sums) -> PerUser:
    """√(Σ_{i∈H} (x̂_i − x_i)² / |H|): "rmse", how far a user's predicted values are off, large errors above all.

    Every user counts alike in its mean: the user-averaged RMSE of Gunawardana and Shani 2009 (JMLR 10, section 5.1).
    """
    value: PerUser = np.sqrt(total / held_out)
    return value


def mean_absolute_error(total: Sums, held_out: Counts | Sums) -> PerUser:
    """Σ_{i∈H} |x̂_i − x_i| / |H|: "mae", how far a user's predicted values are off on average.

    Every user counts alike in its mean: Breese, Heckerman and Kadie 1998, section 3.1.
    """
    value: PerUser = total / held_out
    return value


def global_root_mean_squared_error(total: Sums, held_out: Counts | Sums) -> PerUser:
    """√(Σ_u Σ_{i∈H_u} (x̂_ui − x_ui)² / Σ_u |H_u|): "global_rmse", of all held-out values alike, whoever's they are.

    The figure of the Netflix Prize: Bennett and Lanning 2007. Users with long histories weigh more.
    """
    return root_mean_squared_error(total, held_out)


def global_mean_absolute_error(total: Sums, held_out: Counts | Sums) -> PerUser:
    """Σ_u Σ_{i∈H_u} |x̂_ui − x_ui| / Σ_u |H_u|: "global_mae", of all held-out values alike, whoever's they are.

    Herlocker et al. 2004 (ACM TOIS 22), section 4.1. Users with long histories weigh more.
    """
    return mean_absolute_error(total, held_out)


PER_USER: Mapping[str, Callable[[Hits, Counts, int], PerUser]] = {
    "recall": recall,
    "truncated_recall": truncated_recall,
    "ndcg": ndcg,
    "map": average_precision,
    "truncated_map": truncated_average_precision,
    "mrr": reciprocal_rank,
    "precision": precision,
    "hit_rate": hit_rate,
}

CATALOGUE: Mapping[str, Callable[[Items, csr_matrix, int], float]] = {
    "coverage": coverage,
    "gini": gini,
    "popularity": popularity,
    "novelty": novelty,
    "diversity": diversity,
}

CATALOGUE_BETTER: Mapping[str, Better] = {
    "coverage": "higher",
    "gini": "lower",
    "popularity": "neither",
    "novelty": "higher",
    "diversity": "higher",
}

VALUES: Mapping[str, Callable[[Sums, Counts | Sums], PerUser]] = {
    "rmse": root_mean_squared_error,
    "mae": mean_absolute_error,
    "global_rmse": global_root_mean_squared_error,
    "global_mae": global_mean_absolute_error,
}

POWER: Mapping[str, int] = {"rmse": 2, "mae": 1, "global_rmse": 2, "global_mae": 1}
"""What the errors are raised to before a metric of values adds them up."""

POOLED = ("global_rmse", "global_mae")
"""The metrics of values that are of all users together."""

METRICS = (*PER_USER, *VALUES, *CATALOGUE)


def _found(hits: Hits) -> PerUser:
    return np.asarray(hits.sum(axis=1), dtype=np.float64)


def _sum_of_precisions(hits: Hits) -> PerUser:
    total: PerUser = (hits * hits.cumsum(axis=1) / np.arange(1, hits.shape[1] + 1)).sum(axis=1)
    return total


def _mean_of_lists(items: Items, value: PerUser, outside: float = 0.0) -> float:
    """Return the mean over users of the mean value of their items; users without any item are left out."""
    listed = items != NO_ITEM
    values = np.where(items >= 0, value[items.clip(min=0)], outside)
    length = listed.sum(axis=1)
    if not length.any():
        return math.nan
    return float(np.mean((values * listed).sum(axis=1)[length > 0] / length[length > 0]))


def _unit_columns(train: csr_matrix, columns: Items) -> csc_matrix:
    """Return these columns of the training interactions, each of length 1 (or 0 where nobody has the item)."""
    chosen = train.tocsc()[:, columns].astype(np.float32)
    norms = np.sqrt(np.asarray(chosen.power(2).sum(axis=0))).ravel()
    chosen.data /= np.repeat(norms, np.diff(chosen.indptr))
    return chosen


def _similarity_within(lists: Items, unit: csc_matrix) -> PerUser:
    """Return for each list the sum of the inner products of all ordered pairs of its places.

    lists (users, n) are columns of `unit`, or its width for a place that counts as a zero vector. A stripe of the
    matrix of all inner products is made at a time, and looked up for every list that needs it.
    """
    count, users = unit.shape[1], len(lists)
    total = np.zeros(users)
    transposed = unit.T.tocsr()
    stripe = max(1, GRAM_BYTES // (4 * (count + 1)))
    lookups = max(1, GRAM_BYTES // (16 * lists.shape[1]))
    for start in range(0, count, stripe):
        stop = min(start + stripe, count)
        inner = np.zeros((stop - start, count + 1), np.float32)
        inner[:, :count] = (transposed[start:stop] @ unit).toarray()
        inner[np.arange(stop - start), np.arange(start, stop)] = 0
        user, place = np.nonzero((lists >= start) & (lists < stop))
        for first in range(0, len(user), lookups):
            some = slice(first, first + lookups)
            row = lists[user[some], place[some]] - start
            sums = inner[row[:, None], lists[user[some]]].sum(axis=1, dtype=np.float64)
            total += np.bincount(user[some], sums, minlength=users)
    return total

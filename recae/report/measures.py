"""What the report's pictures show, as numbers.

users U, items I, list length N, embedding dimension d
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recae.evaluation import bootstrap_means, interval
from recae.metrics import find_hits
from recae.ranking import TopN

POINTS = 200
"""How many points are enough for a smooth line."""


@dataclass(frozen=True)
class Band:
    """A line of means `y` over `x`, and the ends of their 95 % intervals, NaN where there is none."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def recall_by_k(top: TopN, held_out: csr_matrix, *, bounded: bool = True) -> Band:
    """Return the mean recall@k (hits among the first k / held-out items) for k = 1 … N over the target users.

    Without intervals unless `bounded`: they take their time.
    """
    targets = np.diff(held_out.indptr)
    aimed = targets > 0
    recall = find_hits(top.items, held_out)[aimed].cumsum(axis=1) / targets[aimed, None]
    low, high = mean_interval(recall) if bounded else np.full((2, recall.shape[1]), np.nan)
    mean = recall.mean(axis=0) if len(recall) else np.full(recall.shape[1], np.nan)
    return Band(np.arange(1, top.items.shape[1] + 1, dtype=np.float64), mean, low, high)


def length_bins(lengths: NDArray[np.integer], at_most: int = 5) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Group users by history length into bins of about equal size; return each user's bin, and the bins' names."""
    count = max(1, min(at_most, len(lengths) // 10))
    if not len(lengths):
        return np.empty(0, dtype=np.int64), ()
    inner = np.unique(np.quantile(lengths, np.arange(1, count) / count, method="lower"))
    _, group = np.unique(np.searchsorted(inner, lengths, side="left"), return_inverse=True)
    names = []
    for number in range(group.max() + 1):
        inside = lengths[group == number]
        low, high = inside.min(), inside.max()
        names.append(f"{low:,}" if low == high else f"{low:,}–{high:,}")
    return group.astype(np.int64), tuple(names)


def gain_by_bin(gains: NDArray[np.float64], group: NDArray[np.int64], bins: int) -> Band:
    """Return the mean of users' gains in each bin; NaN gains are left out."""
    mean, low, high = np.full((3, bins), np.nan)
    for number in range(bins):
        inside = gains[(group == number) & np.isfinite(gains)]
        if len(inside):
            mean[number] = inside.mean()
            low[[number]], high[[number]] = mean_interval(inside[:, None])
    return Band(np.arange(bins, dtype=np.float64), mean, low, high)


def share_by_popularity(popularity: NDArray[np.integer], drawn: NDArray[np.integer]) -> Band:
    """Return what share of the drawn items lies among the x most popular ones, x from 1 to I in even ratios.

    `popularity` counts each item's users, `drawn` holds item indices with repetition.
    """
    items = len(popularity)
    rank = np.empty(items, dtype=np.int64)
    rank[np.argsort(-popularity, kind="stable")] = np.arange(items)
    share = np.bincount(rank[drawn], minlength=items).cumsum() / max(1, len(drawn))
    at = np.unique(np.geomspace(1, items, POINTS).round().astype(np.int64))
    nothing = np.full(len(at), np.nan)
    return Band(at.astype(np.float64), share[at - 1], nothing, nothing)


def mean_interval(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the 95 % interval of each column's mean over users, as `recae.evaluation` has it: (low or high, columns).

    NaN where fewer than two users stand behind it.
    """
    return interval(bootstrap_means(values)) if len(values) > 1 else np.full((2, values.shape[1]), np.nan)

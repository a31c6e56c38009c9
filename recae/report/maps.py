"""Users and items as points on a plane: where they lie, and what they have in common.

users U, items I, points P, embedding dimension d
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from recae.interactions import Interactions
from recae.report.measures import length_bins

NO_GENRE = "(no genres listed)"
"""How MovieLens spells that a film has none."""

MAPPED_USERS = 2000
"""How many points a map shows at most: more say nothing more and weigh a hundred bytes each."""

MAPPED_ITEMS = 600
"""The same for items, the most popular ones: a few seconds' work."""

NEIGHBOURS, ROUNDS = 30, 500
"""Of how many neighbours an item's place takes account (the perplexity), and for how long places are looked for."""

NAMED_ITEMS = 12
APART = 0.08
"""How many items are named at most, and how far they lie apart at least, in widths of the map."""

MOST_GENRES = 200
"""How many genres are looked at, at most: a column of brands has thousands, which no map could tell apart."""

SHOWN_GENRES = 6
OTHER_GENRES = "another, or none"


@dataclass(frozen=True)
class PointMap:
    """Points (P × 2) in groups, drawn from `total`; `ordered` groups go from low to high.

    `named` are rows of points, in the order of their numbers, with a name each.
    """

    points: NDArray[np.float64]
    group: NDArray[np.int64]
    groups: tuple[str, ...]
    ordered: bool
    total: int
    explained: tuple[float, float] = (0.0, 0.0)
    named: tuple[tuple[int, str], ...] = ()


def user_map(vectors: NDArray[np.float32], history: Interactions) -> PointMap | None:
    """Project users on their first two principal components and group them, or return None where that says nothing.

    `explained` is the share of the variance on each axis.
    """
    finite = np.flatnonzero(np.isfinite(vectors).all(axis=1))
    if len(finite) < 3 or vectors.shape[1] < 2 or not np.ptp(vectors[finite], axis=0).any():
        return None
    analysis = PCA(n_components=2, random_state=0)
    points = analysis.fit_transform(vectors[finite].astype(np.float64))
    by_genre = _favourite_genres(history)
    group, groups = by_genre or length_bins(np.diff(history.matrix.indptr), at_most=4)
    shown = np.unique(np.linspace(0, len(finite) - 1, MAPPED_USERS).round().astype(np.int64))
    return PointMap(
        points=points[shown],
        group=group[finite[shown]],
        groups=groups,
        ordered=by_genre is None,
        total=len(finite),
        explained=(float(analysis.explained_variance_ratio_[0]), float(analysis.explained_variance_ratio_[1])),
    )


def genres_of(maps: Sequence[PointMap], most: int) -> list[str]:
    """Return the genres that are told apart on all maps of a page, so many at most: the largest of each, in turn."""
    named = [[group for group in one.groups if group != OTHER_GENRES] for one in maps if not one.ordered]
    in_turn = (genre for genres in zip_longest(*named) for genre in genres if genre is not None)
    return list(dict.fromkeys(in_turn))[:most]


def with_genres(shown: PointMap, genres: Sequence[str]) -> PointMap:
    """Return a map that tells these genres apart, and no others."""
    if shown.ordered:
        return shown
    kept = [group for group in shown.groups if group in genres]
    place = np.array([kept.index(group) if group in kept else len(kept) for group in shown.groups])
    group = place[shown.group]
    rest = (OTHER_GENRES,) if (group == len(kept)).any() else ()
    return replace(shown, group=group, groups=(*kept, *rest))


def mapped_items(histories: csr_matrix) -> NDArray[np.int64]:
    """Return the columns of the items that a map shows, the most popular ones, most popular first."""
    return np.argsort(-histories.getnnz(axis=0), kind="stable")[:MAPPED_ITEMS]


def item_map(vectors: NDArray[np.float32], train: Interactions, labels: NDArray[np.object_]) -> PointMap | None:
    """Lay the `mapped_items` out so that those with similar vectors are neighbours, or return None if they cannot be.

    Vectors are alike as far as they point the same way: how long one is tells how popular the item is. Of many
    dimensions two principal components keep next to nothing, so that it is neighbourhoods that are kept: van der
    Maaten and Hinton 2008, Visualizing Data using t-SNE.
    """
    columns = mapped_items(train.matrix)
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    placed = np.flatnonzero(np.isfinite(lengths) & (lengths > 0))
    if len(placed) < 5 or vectors.shape[1] < 2:
        return None
    unit = vectors[placed] / lengths[placed, None]
    if not np.ptp(unit, axis=0).any():
        return None
    columns, popularity = columns[placed], train.matrix.getnnz(axis=0)[columns[placed]]
    layout = TSNE(
        perplexity=min(NEIGHBOURS, len(placed) / 4), max_iter=ROUNDS, init="pca", early_exaggeration=4, random_state=0
    )
    with threadpool_limits(1):  # sums of several threads' parts have other bits each time
        points = layout.fit_transform(unit.astype(np.float32)).astype(np.float64)
    if not np.isfinite(points).all():
        return None
    by_genre = _genres_of_items(train.item_table.iloc[columns])
    group, groups = by_genre or length_bins(popularity, at_most=4)
    return PointMap(
        points=points,
        group=group,
        groups=groups,
        ordered=by_genre is None,
        total=len(train.items),
        named=tuple((row, str(labels[columns[row]])) for row in _apart(points)),
    )


def _apart(points: NDArray[np.float64]) -> list[int]:
    """Return the first points, in their order, that do not stand in each other's way."""
    near = APART * float(np.ptp(points, axis=0).max())
    chosen: list[int] = []
    for row, point in enumerate(points):
        if len(chosen) < NAMED_ITEMS and (np.linalg.norm(points[chosen] - point, axis=1) >= near).all():
            chosen.append(row)
    return chosen


def _genre_flags(item_table: pd.DataFrame) -> pd.DataFrame | None:
    """Return items × genres, 0 or 1, of the most frequent genres; None where no item has one."""
    if "genres" not in item_table or not item_table["genres"].map(_is_text).any():
        return None
    genres = item_table["genres"].reset_index(drop=True)
    of_items = genres.where(genres.map(_is_text), "").replace(NO_GENRE, "").astype(str).str.split("|").explode()
    frequent = of_items[of_items != ""].value_counts().index[:MOST_GENRES]
    if not len(frequent):
        return None
    flags = pd.get_dummies(of_items[of_items.isin(frequent)], dtype=np.int64)
    return flags.groupby(level=0).max().reindex(genres.index, fill_value=0)


def _genres_of_items(item_table: pd.DataFrame) -> tuple[NDArray[np.int64], tuple[str, ...]] | None:
    """Return each item's genre: of those among the most frequent that it has, the rarest, which says most of it."""
    flags = _genre_flags(item_table)
    if flags is None:
        return None
    size = flags.sum().to_numpy()
    order = np.argsort(-size, kind="stable")
    has = flags.to_numpy(dtype=bool)[:, order[:SHOWN_GENRES]]
    genre = np.where(has.any(axis=1), order[has.shape[1] - 1 - has[:, ::-1].argmax(axis=1)], -1)
    return _largest(genre, list(map(str, flags.columns)))


def _favourite_genres(history: Interactions) -> tuple[NDArray[np.int64], tuple[str, ...]] | None:
    """Return each user's favourite genre: the one whose share of the history exceeds most its share of all histories.

    (The most frequent genre of a history is nearly everybody's: drama.)
    """
    flags = _genre_flags(history.item_table)
    if flags is None:
        return None
    matrix = history.matrix
    taken = csr_matrix((np.ones(matrix.nnz), matrix.indices, matrix.indptr), shape=matrix.shape)
    counts = np.asarray(taken @ flags.to_numpy(dtype=np.float64))
    total = counts.sum(axis=1, keepdims=True)
    if not total.any():
        return None
    lift = counts / np.maximum(total, 1) - counts.sum(axis=0) / counts.sum()
    return _largest(np.where(total[:, 0] > 0, lift.argmax(axis=1), -1), list(map(str, flags.columns)))


def _largest(genre: NDArray[np.int64], names: list[str]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return groups of points that have the same genre (-1 is none), the largest first, and what they are called."""
    size = np.bincount(genre[genre >= 0], minlength=len(names))
    largest = np.argsort(-size, kind="stable")[:SHOWN_GENRES]
    largest = largest[size[largest] > 0]
    group = np.full(len(genre), len(largest))
    for number, one in enumerate(largest):
        group[genre == one] = number
    rest = (OTHER_GENRES,) if (group == len(largest)).any() else ()
    return group, (*(names[one] for one in largest), *rest)


def _is_text(value: object) -> bool:
    return isinstance(value, str)

"""The best items of each user, a block of users at a time, and rankings that somebody else made.

users, items: the shape of the histories. n: places in a ranking. k: as many of them as there are columns to fill.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.errors import Diverged, EventsError, InputError
from recae.progress import Listener, Step, silence

NO_ITEM = -1
"""What fills the places at the end of a ranking for which no eligible item was left."""

FOREIGN_ITEM = -2
"""An item that the catalogue does not hold, in a ranking made elsewhere: it takes its place, and is never a hit."""

ROWS_PER_CALL = 128
"""How many histories a model scores in one call, always: see `top_n`. A CPU's matrix product gains nothing above it."""

FEWEST_ROWS = 32
"""Below so many a call costs more than its rows: a catalogue of a million items goes beyond MEMORY rather than this."""

MEMORY = 64 * 2**20
"""How many bytes the scores of one block of users, and the work on them, may take; more leaves a CPU's caches."""

BYTES_PER_SCORE = 24
"""The model's score and its masked copy; then, where scores tie: another copy, a mask, and a column number."""


@dataclass(frozen=True, eq=False)
class TopN:
    """For each user the best items, best first.

    `items` (users, n) int32 are columns, NO_ITEM at the end of a row where fewer were eligible; `scores` (users, n)
    float32 are theirs, -inf where there is no item.
    """

    items: NDArray[np.int32]
    scores: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.items.ndim != 2 or self.items.shape != self.scores.shape:
            raise ValueError(f"items of shape {self.items.shape} with scores of shape {self.scores.shape}")


def top_n(
    score: Callable[[csr_matrix], Tensor],
    histories: csr_matrix,
    n: int,
    *,
    seen: csr_matrix | None = None,
    keep_seen: bool = False,
    eligible: NDArray[np.bool_] | None = None,
    block: int | None = None,
    listener: Listener = silence,
    task: str = "rank",
) -> TopN:
    """Rank the catalogue for every history and keep the first n: score descending, then column ascending, always.

    `score` maps histories (rows, items) to scores (rows, items) on any device; -inf says "not eligible". Items of
    the user's own history, or of `seen` (users, items) where that is more, are left out unless `keep_seen`, items
    outside the mask `eligible` (items,) always. A user gets exactly min(n, eligible) distinct items; the ranking has
    min(n, items) places. `block` is how many users are ranked at once (default: what fits MEMORY).

    A matrix product may give a row other last bits when it has other rows for company, so `score` is always called
    with the same number of rows, whatever the block: ROWS_PER_CALL, fewer (down to FEWEST_ROWS) where the catalogue is
    so large that these would not fit MEMORY. A call that is short of rows is filled by repeating them. (Measured with
    MKL, float32: among calls of 1 to 1,100 rows, a row's bits differ where it is one of the last one to three of a
    call whose length is no multiple of 4. On a GPU the length may choose another kernel altogether.)

    Raises InputError if n is below 1, Diverged if a score is NaN or +inf.
    """
    if n < 1:
        raise InputError(f"cannot rank the best {n} items; ask for at least 1")
    users, items = histories.shape
    if eligible is not None and eligible.shape != (items,):
        raise ValueError(f"a mask of shape {eligible.shape} for {items} items")
    if seen is not None and seen.shape != histories.shape:
        raise ValueError(f"seen items of shape {seen.shape} for histories of shape {histories.shape}")
    if block is not None and block < 1:
        raise ValueError(f"a block of {block} users")
    per_call = _rows_per_call(items)
    block = block or max(1, _rows_in_memory(items) // per_call) * per_call
    k = min(n, items)
    top = TopN(np.full((users, k), NO_ITEM, np.int32), np.full((users, k), -np.inf, np.float32))
    if not items:
        return top
    for start in range(0, users, block):
        rows = histories[start : start + block]
        scores = _scores(score, rows, per_call)
        _refuse_not_finite(scores, start)
        if not keep_seen:
            _mask_seen(scores, rows if seen is None else seen[start : start + block])
        if eligible is not None:
            scores.masked_fill_(torch.as_tensor(~eligible, device=scores.device), -torch.inf)
        best, columns = best_columns(scores, k)
        done = start + rows.shape[0]
        top.items[start:done] = columns.masked_fill(best == -torch.inf, NO_ITEM).cpu().numpy()
        top.scores[start:done] = best.cpu().numpy()
        listener(Step(task, done, users))
    return top


def best_columns(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k best scores of each row and their columns, both (rows, k): descending, ties by ascending column.

    torch.topk promises nothing about ties: neither their order, nor which of those at the boundary it returns. The
    rows that have some are put right afterwards, so that rows without cost nothing more.
    """
    one_more = min(k + 1, scores.shape[1])
    best, columns = torch.topk(scores, one_more, dim=1)
    if one_more > k:
        cut = best[:, k - 1 : k]
        open_ended = ((best[:, k:] == cut) & (cut > -torch.inf)).squeeze(1).nonzero().squeeze(1)
        best, columns = best[:, :k].contiguous(), columns[:, :k].contiguous()
        if len(open_ended):
            columns[open_ended] = _lowest_tied_columns(scores[open_ended], best[open_ended], columns[open_ended])
    tied = (best[:, 1:] == best[:, :-1]).any(dim=1).nonzero().squeeze(1)
    if len(tied):
        by_column = columns[tied].sort(dim=1)
        by_score = best[tied].gather(1, by_column.indices).sort(dim=1, descending=True, stable=True)
        columns[tied] = by_column.values.gather(1, by_score.indices)
    return best, columns


def ranked_lists(
    user_rows: NDArray[np.integer],
    item_columns: NDArray[np.integer],
    ranks: NDArray[np.integer],
    users: int,
    n: int,
    *,
    source: str = "recommendations",
) -> TopN:
    """Return the rankings that rows of (user row, item column, rank from 1) spell out, at most n places each.

    A rank is a place and stays one: an item outside the catalogue (a negative column) becomes FOREIGN_ITEM, and so
    does a place that is skipped before the user's last one; those behind are never moved up. Rows of a user outside
    the fold (a negative user row) are left out. Scores are -rank. Raises EventsError, by `source` and row from 1,
    for a rank below 1 or not whole, and for a place or an item that a user has twice.
    """
    if not len(user_rows) == len(item_columns) == len(ranks):
        raise ValueError(f"{len(user_rows)} user rows, {len(item_columns)} item columns, {len(ranks)} ranks")
    if len(user_rows) and user_rows.max() >= users:
        raise ValueError(f"user row {user_rows.max()} of {users} users")
    if ranks.dtype.kind not in "iu":
        raise EventsError(f"{source}: ranks of type {ranks.dtype}; they must be whole numbers from 1")
    if len(below := np.flatnonzero(ranks < 1)):
        raise EventsError(f"{source}, row {below[0] + 1}: rank {ranks[below[0]]}; ranks start at 1")
    ours, known = user_rows >= 0, item_columns >= 0
    _refuse_twice(user_rows, ranks, ours, "rank", source)
    _refuse_twice(user_rows, item_columns, ours & known, "item", source)

    n = min(n, int(ranks[ours].max(initial=0)))
    length = np.zeros(users, np.int64)
    np.maximum.at(length, user_rows[ours], ranks[ours])
    taken = np.arange(n) < length[:, None]
    kept = ours & (ranks <= n)
    rows, places = user_rows[kept], ranks[kept] - 1
    items = np.where(taken, FOREIGN_ITEM, NO_ITEM).astype(np.int32)
    items[rows, places] = np.where(known, item_columns, FOREIGN_ITEM)[kept]
    return TopN(items, np.where(taken, -np.arange(1.0, n + 1), -np.inf).astype(np.float32))


def _rows_in_memory(items: int) -> int:
    return MEMORY // (BYTES_PER_SCORE * max(items, 1))


def _rows_per_call(items: int) -> int:
    """Return how many rows each call of `score` gets: a fact of the catalogue, not of the block or the users."""
    return max(FEWEST_ROWS, min(ROWS_PER_CALL, _rows_in_memory(items)))


def _scores(score: Callable[[csr_matrix], Tensor], rows: csr_matrix, per_call: int) -> Tensor:
    """Return fresh float32 scores of the rows, (rows, items), from calls of exactly `per_call` rows each."""
    parts = []
    for start in range(0, rows.shape[0], per_call):
        part = rows[start : start + per_call]
        count = part.shape[0]
        if count < per_call:
            part = part[np.resize(np.arange(count), per_call)]
        with torch.no_grad():
            scores = score(part)
        if scores.shape != part.shape:
            raise ValueError(f"scores of shape {tuple(scores.shape)} for histories of shape {part.shape}")
        parts.append(scores[:count].float())
    return torch.cat(parts)


def _refuse_not_finite(scores: Tensor, first_row: int) -> None:
    bad = (~(scores.amax(dim=1) < torch.inf)).nonzero()  # a row with a NaN has NaN for its maximum
    if len(bad):
        raise Diverged(
            f"the scores of user row {first_row + int(bad[0])} are not finite: the model diverged; "
            "fit it again with a lower learning rate or more regularisation"
        )


def _mask_seen(scores: Tensor, histories: csr_matrix) -> None:
    rows = np.repeat(np.arange(histories.shape[0]), np.diff(histories.indptr))
    index = torch.as_tensor(np.stack([rows, histories.indices]), dtype=torch.long, device=scores.device)
    scores[index[0], index[1]] = -torch.inf


def _lowest_tied_columns(scores: Tensor, best: Tensor, columns: Tensor) -> Tensor:
    """Return `columns` (rows, k) with those that score the last of `best` replaced by the lowest that do so."""
    cut = best[:, -1:]
    above = (best > cut).sum(dim=1, keepdim=True)
    places = columns.shape[1] - int(above.min())
    reverse = torch.arange(scores.shape[1], 0, -1, dtype=torch.int32, device=scores.device)
    lowest = scores.shape[1] - torch.topk((scores == cut) * reverse, places, dim=1).values.long()
    place = torch.arange(columns.shape[1], device=scores.device) - above
    return torch.where(place < 0, columns, lowest.gather(1, place.clamp(0, places - 1)))


def _refuse_twice(
    user_rows: NDArray[np.integer], values: NDArray[np.integer], among: NDArray[np.bool_], what: str, source: str
) -> None:
    rows = np.flatnonzero(among)
    order = rows[np.lexsort((rows, values[rows], user_rows[rows]))]
    same = (np.diff(user_rows[order]) == 0) & (np.diff(values[order]) == 0)
    if same.any():
        second = order[1:][same].min()
        first = order[np.flatnonzero(order == second) - 1][0]
        raise EventsError(
            f"{source}, row {second + 1}: the user has this {what} already, in row {first + 1}; "
            "a user has each item, and each rank, once"
        )

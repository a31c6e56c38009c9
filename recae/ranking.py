"""The best items of each user, a block of users at a time, and rankings that somebody else made.

users, items: the shape of the histories. n: places in a ranking. k: as many of them as there are columns to fill.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from threading import get_ident

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.device import is_out_of_memory, require_memory
from recae.errors import DeviceError, Diverged, EventsError, InputError, MemoryRanShort
from recae.progress import Listener, Step, silence
from recae.scoring import ROWS_PER_CALL, Score, ScoresByTile, Tiles, by_tile, device_of, equal_calls, slices_of
from recae.selection import NO_COLUMN, better, columns_of, in_order, nothing, scores_of
from recae.threads import side_by_side

NO_ITEM = NO_COLUMN
"""What fills the places at the end of a ranking for which no eligible item was left."""

FOREIGN_ITEM = -2
"""An item that the catalogue does not hold, in a ranking made elsewhere: it takes its place, and is never a hit."""

TILE = {"cpu": 4 * 2**20, "cuda": 64 * 2**20}
"""How many bytes the scores of one call may take in a tile; more leaves a CPU's caches."""

MEMORY = {"cpu": 64 * 2**20, "cuda": 2 * 2**30}
"""How many bytes a block of users may take, the scores and the work on them, where that is more than one call."""

WHOLE = 64 * 2**20
"""How many bytes one call's scores of a whole catalogue may take, from a model that does not score by tile."""

FEWEST_ROWS = 32
"""Below so many a call costs more than its rows: a catalogue of a million items goes beyond WHOLE rather than this."""


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


@dataclass(frozen=True)
class _Plan:
    """How the catalogue is cut up.

    `rows` a call and `columns` a tile decide about the last bits of a score, so they are facts of the catalogue and of
    the kind of device, never of the block, the users or the memory that is left. `calls` make a block.
    """

    tiles: Callable[[list[csr_matrix]], list[Tiles]]
    device: str
    rows: int
    columns: int
    calls: int
    bytes_per_call: int


def top_n(
    score: Score,
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

    `score` maps histories (rows, items) to scores (rows, items) on any device; -inf says "not eligible". Where it is
    the `score` of a model that has `score_by_tile`, that is asked instead, and no more scores exist at a time than
    those of a tile. Items of the user's own history, or of `seen` (users, items) where that is more, are left out
    unless `keep_seen`, items outside the mask `eligible` (items,) always. A user gets exactly min(n, eligible) distinct
    items; the ranking has min(n, items) places.

    `block` is how many users are ranked at once (default: what fits MEMORY). It changes no bit of the result, because
    a model is always asked for the same number of rows and the same tiles: see `equal_calls`. Where memory runs out,
    blocks are halved, with a MemoryRanShort warning.

    Raises InputError if n is below 1 or one call is more than the memory there is, Diverged if a score is NaN or +inf.
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
    k = min(n, items)
    top = TopN(np.full((users, k), NO_ITEM, np.int32), np.full((users, k), -np.inf, np.float32))
    if not items or not users:
        return top
    seen = None if keep_seen else histories if seen is None else seen
    plan = _plan(score, items, k)
    require_memory(plan.device, plan.bytes_per_call, *_what_and_instead(plan, items, n))
    block = block or min(plan.calls, -(-users // plan.rows)) * plan.rows
    start = 0
    while start < users:
        stop = min(start + block, users)
        try:
            own = None if seen is None else seen[start:stop]
            best, columns = _best(plan, histories[start:stop], own, eligible, k, start)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            top.items[start:stop], top.scores[start:stop] = columns, best
            listener(Step(task, stop, users))
            start = stop
            continue
        # Out of the `except`, whose error holds on to everything that was allocated.
        block = _halved(block, plan, items, n)
    return top


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


def rows_of_whole(items: int) -> int:
    """Return how many histories a model is asked about in one call that answers for every item: see WHOLE."""
    return max(FEWEST_ROWS, min(ROWS_PER_CALL["cpu"], WHOLE // (4 * items) // FEWEST_ROWS * FEWEST_ROWS))


def _plan(score: Score, items: int, k: int) -> _Plan:
    model = by_tile(score)
    if model is None:
        kind, whole = "cpu", items
        rows = rows_of_whole(items)
    else:
        kind, whole = device_of(model).type, 0
        rows = ROWS_PER_CALL[kind]
    columns = min(items, max(1, TILE[kind] // (4 * rows)))
    # Scores and whether they reach the bound, the candidates, and the model's own scores where it has no tiles.
    bytes_per_call = rows * (5 * columns + 64 * k + 4 * whole)

    def tiles(parts: list[csr_matrix]) -> list[Tiles]:
        if model is None:
            return [_whole(score, part) for part in parts]
        if kind == "cpu":
            return side_by_side(partial(_tiles, model), parts)
        return [_tiles(model, part) for part in parts]

    return _Plan(tiles, kind, rows, columns, max(1, MEMORY[kind] // bytes_per_call), bytes_per_call)


def _whole(score: Score, histories: csr_matrix) -> Tiles:
    with torch.no_grad():
        scores = score(histories)
    if scores.shape != histories.shape:
        raise ValueError(f"scores of shape {tuple(scores.shape)} for histories of shape {histories.shape}")
    return slices_of(scores)


def _tiles(model: ScoresByTile, histories: csr_matrix) -> Tiles:
    with torch.no_grad():
        return model.score_by_tile(histories)


def _what_and_instead(plan: _Plan, items: int, n: int) -> tuple[str, str]:
    where = "free some memory" if plan.device == "cpu" else "use --device cpu"
    return f"ranking {items:,} items for {plan.rows} users at a time", f"{where}, or ask for fewer than {n:,} places"


def _halved(block: int, plan: _Plan, items: int, n: int) -> int:
    what, instead = _what_and_instead(plan, items, n)
    if block <= plan.rows:
        raise DeviceError(
            f"{what} takes {plan.bytes_per_call / 1e9:.1f} GB on {plan.device} and what the model needs; "
            f"there is no more; {instead}"
        )
    block = max(1, block // 2 // plan.rows) * plan.rows
    warnings.warn(
        f"out of memory: users are now ranked {block:,} at a time, which changes nothing but speed",
        MemoryRanShort,
        stacklevel=3,
    )
    return block


class _Room:
    """Memory for a tile on each thread, used again: a fresh array is handed out, and zeroed, a page at a time."""

    def __init__(self) -> None:
        self._memory: dict[int, Tensor] = {}

    def tile(self, rows: int, columns: int, device: torch.device) -> Tensor:
        """Return a tile, on the device, with anything in it."""
        thread = get_ident()
        if thread not in self._memory or len(self._memory[thread]) < rows * columns:
            self._memory[thread] = torch.empty(rows * columns, device=device)
        return self._memory[thread][: rows * columns].view(rows, columns)


@dataclass(frozen=True)
class _Piece:
    """Some calls of a block, from `first` up to `last`, and the tiles that start at `starts`."""

    first: int
    last: int
    starts: Sequence[int]


def _best(
    plan: _Plan,
    histories: csr_matrix,
    seen: csr_matrix | None,
    eligible: NDArray[np.bool_] | None,
    k: int,
    first_row: int,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the best scores and their columns, both (rows, k), of one block of users."""
    users, items = histories.shape
    calls = plan.tiles([part for part, _ in equal_calls(histories, plan.rows)])
    device, room = calls[0].device, _Room()
    barred = None if eligible is None else torch.zeros(items).masked_fill_(torch.as_tensor(~eligible), -torch.inf)

    @torch.no_grad()
    def rank(piece: _Piece) -> tuple[Tensor, Tensor]:
        """Return the keys of the best and the highest score of each user of a piece."""
        rows = slice(piece.first * plan.rows, min(piece.last * plan.rows, users))
        count = rows.stop - rows.start
        places = None if seen is None else _places(seen[rows], plan.columns)
        best, peak = nothing(count, k, device), torch.full((count,), -torch.inf, device=device)
        for start in piece.starts:
            stop = min(start + plan.columns, items)
            scores = room.tile((piece.last - piece.first) * plan.rows, stop - start, device)
            for number, call in enumerate(calls[piece.first : piece.last]):
                call.write(start, scores[number * plan.rows : (number + 1) * plan.rows])
            scores = scores[:count]
            # What is left out is added -inf, so that a NaN, or an inf, stays a sign of a model that diverged.
            if places is not None:
                own = torch.as_tensor(places[start // plan.columns], device=device)
                scores.view(-1).index_add_(0, own, scores.new_full(own.shape, -torch.inf))
            if barred is not None:
                scores += barred[start:stop].to(device)
            best, highest = better(best, scores, start)
            peak = torch.maximum(peak, highest)
        return best, peak

    starts = range(0, items, plan.columns)
    if device.type == "cpu":
        # A thread takes a call; where calls are fewer than threads, a share of its tiles.
        parts = min(len(starts), -(-torch.get_num_threads() // len(calls)))
        shares = [starts[part::parts] for part in range(parts)]
        ranked = side_by_side(rank, [_Piece(call, call + 1, share) for share in shares for call in range(len(calls))])
    else:
        parts, ranked = 1, [rank(_Piece(0, len(calls), starts))]
    keys, peaks = (torch.cat(found).view(parts, users, -1) for found in zip(*ranked, strict=True))
    best = in_order(keys.transpose(0, 1).flatten(1))[:, :k]
    _refuse_not_finite(peaks.amax(0).squeeze(1).cpu().numpy(), first_row)
    return scores_of(best).cpu().numpy(), columns_of(best).cpu().numpy()


def _places(seen: csr_matrix, width: int) -> list[NDArray[np.int64]]:
    """Return for each tile of so many columns the places of seen items in it, flattened."""
    items, tile = seen.shape[1], seen.indices // width
    widths = np.minimum(width, items - np.arange(0, items, width))
    rows = np.repeat(np.arange(seen.shape[0]), np.diff(seen.indptr))
    places = rows * widths[tile] + seen.indices % width
    if len(widths) == 1:
        return [places]
    order = np.argsort(tile, kind="stable")
    return np.split(places[order], np.cumsum(np.bincount(tile, minlength=len(widths)))[:-1])


def _refuse_not_finite(highest: NDArray[np.float32], first_row: int) -> None:
    bad = np.flatnonzero(~(highest < np.inf))
    if len(bad):
        raise Diverged(
            f"the scores of user row {first_row + bad[0]} are not finite: the model diverged; "
            "fit it again with a lower learning rate or more regularisation"
        )


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

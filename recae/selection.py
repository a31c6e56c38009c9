"""The best of each row of scores, exactly and in one order: score descending, then column ascending.

A score and its column make one whole number, its key: the greater key is the higher score, or of equal scores the
lower column. No two keys of a row are alike, so there are no ties to repair, and any way to find the greatest will do.

rows, columns: the shape of a tile of scores. k: how many are wanted of each row.
"""

import numpy as np
import torch
from torch import Tensor

NO_COLUMN = -1
"""The column of a key that stands for none."""

SLICES = 16
"""How many scores are looked at as one, by the highest of them; more of them no longer save any time."""

MANY = 4
"""Where so many times more scores than wanted reach a bound, most of them must be equal to it: a row of zeros, say."""

_LARGEST = 2**31 - 1
_LOWEST = torch.finfo(torch.float32).min
_LEAST = -0x7F800001
"""What -inf is turned into: see `_turned`."""
_NOTHING = (_LEAST << 32) + (_LARGEST - NO_COLUMN)


def best_columns(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k best scores of each row, float32, and their columns, int64, both (rows, k); see `better`."""
    keys, _ = better(nothing(len(scores), k, scores.device), scores.contiguous(), 0)
    keys = in_order(keys)
    return scores_of(keys), columns_of(keys)


def nothing(rows: int, k: int, device: torch.device) -> Tensor:
    """Return keys (rows, k) that stand for none: a score of -inf and NO_COLUMN. Every other key is greater."""
    return torch.full((rows, k), _NOTHING, device=device)


def better(best: Tensor, scores: Tensor, start: int) -> tuple[Tensor, Tensor]:
    """Return the keys of the k best of each row so far, (rows, k) in no order, and the row's highest score here.

    `best` are those of the tiles before this one, `scores` (rows, columns) this tile, contiguous float32, and `start`
    its first column. A score of -inf is never chosen. The highest, (rows), is NaN where any of the row is.

    Most scores are looked at no more than twice. Of a row cut into parts, the k-th highest of the parts' maxima, and
    of the best so far, is a bound that at least k scores reach; few more do, and only those are ranked.
    """
    rows, k = best.shape
    highest = _maxima(scores, k)
    peak = highest.amax(1)
    cut = _largest(torch.cat([scores_of(best), highest], dim=1), k).amin(1).clamp(min=_LOWEST)
    chosen = _at_least(scores, cut)
    first = _first_in_row(chosen, scores)
    if int(first.diff().max()) > MANY * k:
        chosen = _without_late_equals(scores, cut, chosen, first, k)
        first = _first_in_row(chosen, scores)
    # Each row's candidates side by side, behind its best so far.
    counts, row = first.diff(), torch.arange(rows, device=best.device)
    width = k + int(counts.max())
    place = torch.arange(len(chosen), device=best.device) + (row * width + k - first[:-1]).repeat_interleave(counts)
    columns = chosen - (row * scores.shape[1] - start).repeat_interleave(counts)
    candidates = nothing(rows, width, best.device)
    candidates[:, :k] = best
    candidates.view(-1)[place] = _keys(scores.view(-1).index_select(0, chosen), columns)
    return _largest(candidates, k), peak


def in_order(keys: Tensor) -> Tensor:
    """Return the keys of each row, the greatest first."""
    if keys.is_cuda:
        return keys.sort(dim=1, descending=True).values
    return torch.from_numpy(np.sort(keys.numpy(), axis=1)).flip(1)


def scores_of(keys: Tensor) -> Tensor:
    """Return the scores that keys stand for, float32: -inf for none; a zero has no sign."""
    return _turned((keys >> 32).int()).view(torch.float32)


def columns_of(keys: Tensor) -> Tensor:
    """Return the columns that keys stand for, int64: NO_COLUMN for none."""
    return _LARGEST - (keys & 0xFFFFFFFF)


def _keys(scores: Tensor, columns: Tensor) -> Tensor:
    bits = (scores + 0.0).view(torch.int32)  # -0.0 + 0.0 is 0.0
    return (_turned(bits).long() << 32) + (_LARGEST - columns)


def _turned(bits: Tensor) -> Tensor:
    """Turn the bits of floats into whole numbers of the same order, and back: only the negative ones are changed."""
    return bits ^ ((bits >> 31) & _LARGEST)


def _maxima(scores: Tensor, k: int) -> Tensor:
    """Return the highest scores of disjoint parts of each row, at least k parts where it has as many scores."""
    columns = scores.shape[1]
    slices = max(1, min(SLICES, columns // max(k, SLICES)))
    size = columns // slices
    maxima = torch.unflatten(scores[:, : slices * size], 1, (slices, size)).amax(1)
    first, rest = maxima[:, : columns - slices * size], scores[:, slices * size :]
    torch.maximum(first, rest, out=first)
    return maxima


def _at_least(scores: Tensor, cut: Tensor) -> Tensor:
    """Return where scores reach their row's cut, as places in the flattened tile, ascending."""
    if scores.is_cuda:
        return (scores >= cut[:, None]).view(-1).nonzero().squeeze(1)
    return torch.from_numpy(np.flatnonzero(scores.numpy() >= cut.numpy()[:, None]))  # 5 times as fast as torch's


def _first_in_row(chosen: Tensor, scores: Tensor) -> Tensor:
    """Return which of the chosen places is the first of each row, and their number at the end, (rows + 1)."""
    rows, columns = scores.shape
    return torch.searchsorted(chosen, torch.arange(0, (rows + 1) * columns, columns, device=chosen.device))


def _without_late_equals(scores: Tensor, cut: Tensor, chosen: Tensor, first: Tensor, k: int) -> Tensor:
    """Leave out of the chosen what scores its row's cut and has k such to its left."""
    row = torch.arange(len(cut), device=cut.device).repeat_interleave(first.diff())
    equal = scores.view(-1).index_select(0, chosen) == cut.index_select(0, row)
    # How many equals there are up to each place, and before the first place of each row.
    upto = equal.cumsum(0)
    before = torch.cat([upto.new_zeros(1), upto]).index_select(0, first[:-1])
    return chosen[~equal | (upto - before.index_select(0, row) <= k)]


def _largest(values: Tensor, k: int) -> Tensor:
    """Return the k largest of each row of values, which are rearranged, in no order."""
    if values.is_cuda:
        return values.topk(k, dim=1, sorted=False).values
    array = values.numpy()  # numpy's partition is 8 times as fast as torch's topk
    array.partition(array.shape[1] - k, axis=1)
    return torch.from_numpy(array[:, -k:])

"""The first layer where the catalogue is very large: its gradient has only the rows of the batch's own items.

items: the rows of a table. touched: those of them that a batch has to do with.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recae.kernels.rows import weighted_rows


def weighted_rows_touched(weight: Tensor, offsets: Tensor, users: Tensor, items: Tensor, values: Tensor) -> Tensor:
    """Return what `weighted_rows` does, (users, width), with a row-sparse gradient: a coalesced COO tensor.

    weight (items, width); offsets (users + 1), users and items (interactions) int64, values (interactions).
    """
    return _WeightedRows.apply(weight, offsets, users, items, values)  # type: ignore[no-any-return, no-untyped-call]


def by_row(rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return how to go through (entries) by row: each row that occurs, ascending (touched), where its entries begin and
    the last one's end (touched + 1), the order of the entries, and the place in `touched` of each, in that order."""
    ordered, order = torch.sort(rows, stable=True)
    touched, place, counts = torch.unique_consecutive(ordered, return_inverse=True, return_counts=True)
    return touched, torch.nn.functional.pad(counts.cumsum(0), (1, 0)), order, place


def row_sparse(touched: Tensor, rows: Tensor, size: torch.Size) -> Tensor:
    """Return a tensor of so many rows of which only those in `touched`, ascending and distinct, are not zero."""
    return torch.sparse_coo_tensor(touched[None], rows, size, is_coalesced=True, check_invariants=False)


class _WeightedRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, offsets: Tensor, users: Tensor, items: Tensor, values: Tensor) -> Tensor:
        ctx.save_for_backward(users, items, values)
        ctx.size = weight.shape
        return weighted_rows(weight, offsets, items, values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        users, items, values = ctx.saved_tensors
        touched, offsets, order, _ = by_row(items)
        rows = weighted_rows(gradient.contiguous(), offsets, users[order], values[order])
        return row_sparse(touched, rows, ctx.size), None, None, None, None

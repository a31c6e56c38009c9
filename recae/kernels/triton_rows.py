"""The sparse first layer on CUDA: a weighted sum of rows, both ways.

Forward, a program adds up the rows of one user's items, TOGETHER of them in flight. Backward is the same kernel on the
transposed batch: an item's gradient is the weighted sum of its users' rows. Nothing is zeroed first, no atomics: the
same input gives the same bits on the same device. Interactions with the value zero, as corruption leaves them, are not
read: torch's embedding_bag reads them, forward and backward.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

TOGETHER = 32
"""How many rows a program reads at once: a history of thousands must not wait for them one after the other."""

STEP = 128
"""How much of their width."""


@triton.jit
def _sum_rows(
    rows, offsets, places, values, out,
    WIDTH: tl.constexpr, STEP: tl.constexpr, TOGETHER: tl.constexpr,
):  # fmt: skip
    """Store one sum: out[s] = Σ_e values[e] · rows[places[e]] for e from offsets[s] up to offsets[s + 1]."""
    summed = tl.program_id(0).to(tl.int64)
    inner = tl.program_id(1) * STEP + tl.arange(0, STEP)
    within = inner < WIDTH
    total = tl.zeros((STEP,), tl.float32)
    end = tl.load(offsets + summed + 1)
    for start in range(tl.load(offsets + summed), end, TOGETHER):
        entry = start + tl.arange(0, TOGETHER)
        value = tl.load(values + entry, mask=entry < end, other=0.0)
        place = tl.load(places + entry, mask=entry < end, other=0)
        row = tl.load(
            rows + place[:, None] * WIDTH + inner[None, :], mask=(value != 0)[:, None] & within[None, :], other=0.0
        )
        total += tl.sum(row.to(tl.float32) * value[:, None], 0)
    tl.store(out + summed * WIDTH + inner, total, mask=within)


def weighted_rows(weight: Tensor, offsets: Tensor, items: Tensor, values: Tensor) -> Tensor:
    """Return Σ_i x_ui · W_i for each user, (users, width) float32, of a weight (items, width).

    offsets (users + 1) and items int64, values float32: a batch; entries beyond the last offset count for nobody.
    The gradient is with respect to the weight, dense.
    """
    return _WeightedRows.apply(weight, offsets, items, values)  # type: ignore[no-any-return, no-untyped-call]


class _WeightedRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, offsets: Tensor, items: Tensor, values: Tensor) -> Tensor:
        ctx.save_for_backward(offsets, items, values)
        ctx.shape, ctx.dtype = weight.shape, weight.dtype
        return _sums(weight.contiguous(), offsets, items, values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        offsets, items, values = ctx.saved_tensors
        # Entries beyond the last offset belong to the user after the last, whose items are none.
        users = torch.searchsorted(offsets[1:], torch.arange(len(items), device=items.device), right=True)
        items = torch.where(users < len(slope), items, ctx.shape[0])
        ordered, order = items.int().sort(stable=True)  # half the digits to sort by
        starts = torch.searchsorted(ordered, torch.arange(ctx.shape[0] + 1, device=items.device, dtype=torch.int32))
        return _sums(slope.contiguous(), starts, users[order], values[order]).to(ctx.dtype), None, None, None


def _sums(rows: Tensor, offsets: Tensor, places: Tensor, values: Tensor) -> Tensor:
    sums, width = len(offsets) - 1, rows.shape[1]
    out = rows.new_empty(sums, width, dtype=torch.float32)
    if sums:
        _sum_rows[(sums, triton.cdiv(width, STEP))](
            rows, offsets, places, values.float(), out, WIDTH=width, STEP=STEP, TOGETHER=TOGETHER
        )
    return out

"""The multinomial log-likelihood on CUDA: logits live in registers, a tile of users × items at a time.

What has to be computed, for users × items × width: the logits once to sum them up and, because nobody kept them, once
more for the gradient; then the products of the gradient with the weights and with the features. Keeping float32 logits
instead would save the second of those four products, 2 · width operations a logit, and cost 8 bytes a logit more
through memory: on an H100 (some 250 bfloat16 operations for each byte) the product is the cheaper one up to a width of
1,000. So there is one way for all sizes. Only the gradient in the logits' precision is stored, in pieces of at most
BUFFER bytes that the two products take from there: memory does not grow with the catalogue but for one float32 in
`Tiles.items` logits.

Operands are copied into the precision of the products, padded to whole tiles: no tile needs a mask, every row is
aligned. The bias of an item that is none is -inf. No atomics: the same input gives the same bits on the same device.

rows: users padded. columns: items padded. depth: width padded.
"""

from dataclasses import dataclass
from functools import cache
from math import inf
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable
from triton.runtime import driver

BUFFER = 256 * 2**20
"""How many bytes a piece of the gradient with respect to the logits may take."""

OWN_ITEMS = 32
"""How many of a user's own items are looked at together."""

OWN_DEPTH = 128
"""How much of their rows."""


@dataclass(frozen=True)
class Tiles:
    """The shape of a program's work: users × items logits, `depth` of the width at a time."""

    users: int
    items: int
    depth: int
    warps: int

    def stages(self, size: int, shared: int) -> int:
        """Return how many loads of `size`-byte operands an SM's shared memory holds at once, four at most."""
        return max(1, min(4, shared // ((self.users + self.items) * self.depth * size)))


# 128 × 256 float32 sums take half of the registers of 8 warps, and each byte loaded serves 85 operations.
HALF = Tiles(users=128, items=256, depth=64, warps=8)
SINGLE = Tiles(users=64, items=64, depth=64, warps=4)


@triton.jit
def _logits(features, weight, bias, row, column, DEPTH: tl.constexpr, STEP: tl.constexpr):
    """Return the logits of a tile, rows × columns, in float32."""
    inner = tl.arange(0, STEP)
    left = features + row.to(tl.int64)[:, None] * DEPTH + inner[None, :]
    right = weight + column.to(tl.int64)[None, :] * DEPTH + inner[:, None]
    total = tl.zeros((row.shape[0], column.shape[0]), tl.float32)
    for start in range(0, DEPTH, STEP):
        # "ieee" is for float32 operands, of which the default keeps ten bits; others are exact as they are.
        total = tl.dot(tl.load(left + start), tl.load(right + start), total, input_precision="ieee")
    return total + tl.load(bias + column)[None, :]


@triton.jit
def _sum_up(
    features, weight, bias, partial, rows,
    USERS: tl.constexpr, ITEMS: tl.constexpr, DEPTH: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """Store log Σ exp of a tile's logits over its columns: partial (tiles of items, rows)."""
    row = tl.program_id(0) * USERS + tl.arange(0, USERS)
    column = tl.program_id(1) * ITEMS + tl.arange(0, ITEMS)
    logits = _logits(features, weight, bias, row, column, DEPTH, STEP)
    peak = tl.max(logits, 1)
    total = tl.sum(tl.exp(logits - peak[:, None]), 1)
    tl.store(partial + tl.program_id(1).to(tl.int64) * rows + row, peak + tl.log(total))


@triton.jit
def _pull_down(
    features, weight, bias, log_total, pull, gradient, first, stride,
    USERS: tl.constexpr, ITEMS: tl.constexpr, DEPTH: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """Store what all items have in common: gradient (rows, columns from `first`) = - pull · softmax of the logits."""
    row = tl.program_id(0) * USERS + tl.arange(0, USERS)
    column = tl.program_id(1) * ITEMS + tl.arange(0, ITEMS)
    logits = _logits(features, weight, bias, row, first + column, DEPTH, STEP)
    share = tl.exp(logits - tl.load(log_total + row)[:, None])
    slope = -tl.load(pull + row)[:, None] * share
    tl.store(gradient + row.to(tl.int64)[:, None] * stride + column[None, :], slope.to(gradient.dtype.element_ty))


@triton.jit
def _own_logits(
    features, weight, bias, offsets, items, values, partial, counts, rows,
    DEPTH: tl.constexpr, STEP: tl.constexpr, OWN: tl.constexpr,
):  # fmt: skip
    """Store Σ_i x_ui · logit_ui over the user's own items, STEP of the width at a time: partial (steps, rows).

    The first step adds the bias, and stores Σ_i x_ui: counts (rows).
    """
    user = tl.program_id(0)
    step = tl.program_id(1)
    inner = step * STEP + tl.arange(0, STEP)
    summed = tl.zeros((STEP,), tl.float32)
    extra = tl.zeros((OWN,), tl.float32)
    count = tl.zeros((OWN,), tl.float32)
    end = tl.load(offsets + user + 1)
    for start in range(tl.load(offsets + user), end, OWN):
        place = start + tl.arange(0, OWN)
        value = tl.load(values + place, mask=place < end, other=0.0)
        there = value != 0  # nothing is read for the others
        item = tl.load(items + place, mask=there, other=0)
        weights = tl.load(weight + item[:, None] * DEPTH + inner[None, :], mask=there[:, None], other=0.0)
        summed += tl.sum(weights.to(tl.float32) * value[:, None], 0)
        extra += value * tl.load(bias + item, mask=there, other=0.0)
        count += value
    own = tl.sum(summed * tl.load(features + user.to(tl.int64) * DEPTH + inner).to(tl.float32), 0)
    if step == 0:
        own += tl.sum(extra, 0)
        tl.store(counts + user, tl.sum(count, 0))
    tl.store(partial + step * rows + user, own)


@triton.jit
def _push_up(offsets, items, values, push, gradient, first, last, stride, OWN: tl.constexpr):
    """Add a user's own items to the gradient: push · x_ui, for items from `first` up to `last`.

    One program owns the whole row and one warp runs it, so that a sum read is never one half written. Where an item
    stands several times among those looked at together, each of its places gets, and stores, the same total.
    """
    user = tl.program_id(0)
    slope = tl.load(push + user)
    end = tl.load(offsets + user + 1)
    for start in range(tl.load(offsets + user), end, OWN):
        place = start + tl.arange(0, OWN)
        item = tl.load(items + place, mask=place < end, other=-1)
        value = tl.load(values + place, mask=place < end, other=0.0)
        total = tl.sum(tl.where(item[:, None] == item[None, :], value[None, :], 0.0), 1)
        inside = (item >= first) & (item < last) & (total != 0)
        target = gradient + user.to(tl.int64) * stride + (item - first)
        before = tl.load(target, mask=inside, other=0.0).to(tl.float32)
        tl.debug_barrier()
        tl.store(target, (before + slope * total).to(gradient.dtype.element_ty), mask=inside)
        tl.debug_barrier()


def log_likelihood(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    offsets: Tensor,
    users: Tensor,
    items: Tensor,
    values: Tensor,
    *,
    precision: torch.dtype | None = None,
    buffer: int = BUFFER,
) -> Tensor:
    """Return Σ_i x_ui · log softmax(h_u Wᵀ + b)_i for each user, (users) float32: Liang et al. 2018, eq. 2.

    features (users, width), weight (items, width), bias (items); the batch's offsets (users + 1) and items int64 and
    values float32, as `recae.autoencoder.batches.Batch` has them; entries beyond the last offset count for nobody.
    Products take operands in `precision` (default: autocast's, else that of the features) and add in float32.
    Gradients are with respect to features, weight and bias.
    """
    if precision is None:
        autocast = torch.is_autocast_enabled("cuda")
        precision = torch.get_autocast_dtype("cuda") if autocast else features.dtype
    return _LogLikelihood.apply(features, weight, bias, offsets, items, values, precision, buffer)  # type: ignore[no-any-return, no-untyped-call]


class _LogLikelihood(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        offsets: Tensor,
        items: Tensor,
        values: Tensor,
        precision: torch.dtype,
        buffer: int,
    ) -> Tensor:
        users, width = features.shape
        tiles = SINGLE if precision == torch.float32 else HALF
        depth = _whole(width, max(tiles.depth, OWN_DEPTH))
        rows, columns = _whole(users, tiles.users), _whole(len(weight), tiles.items)
        left = _padded(features, rows, depth, precision)
        right = _padded(weight, columns, depth, precision)
        lift = torch.full((columns,), -inf, dtype=torch.float32, device=bias.device)
        lift[: len(bias)] = bias
        values = values.float()

        grid = (rows // tiles.users, columns // tiles.items)
        partial = lift.new_empty(grid[1], rows)
        _sum_up[grid](left, right, lift, partial, rows, **_shape(tiles, left))
        log_total = partial.logsumexp(0)

        own = lift.new_zeros(depth // OWN_DEPTH, rows)
        counts = lift.new_zeros(rows)
        if users:
            _own_logits[(users, depth // OWN_DEPTH)](
                left, right, lift, offsets, items, values, own, counts, rows,
                DEPTH=depth, STEP=OWN_DEPTH, OWN=OWN_ITEMS,
            )  # fmt: skip
        ctx.save_for_backward(left, right, lift, log_total, counts, offsets, items, values)
        ctx.shapes = features.shape, len(weight), tiles, buffer
        ctx.dtypes = features.dtype, weight.dtype, bias.dtype
        return (own.sum(0) - counts * log_total)[:users]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        left, right, lift, log_total, counts, offsets, items, values = ctx.saved_tensors
        (users, width), catalogue, tiles, buffer = ctx.shapes
        rows, columns = len(left), len(right)
        push = lift.new_zeros(rows)
        push[:users] = slope
        pull = push * counts

        to_features = lift.new_zeros(left.shape) if ctx.needs_input_grad[0] else None
        to_weight = lift.new_empty(catalogue, width) if ctx.needs_input_grad[1] else None
        to_bias = lift.new_empty(catalogue) if ctx.needs_input_grad[2] else None
        stride = min(columns, _whole(buffer // (rows * left.itemsize) - tiles.items + 1, tiles.items))
        store = left.new_empty(rows, stride)
        for first in range(0, columns, stride):
            piece = store[:, : min(stride, columns - first)]
            last = min(first + piece.shape[1], catalogue)
            _pull_down[(rows // tiles.users, piece.shape[1] // tiles.items)](
                left, right, lift, log_total, pull, piece, first, stride, **_shape(tiles, left)
            )
            if users:
                _push_up[(users,)](offsets, items, values, push, piece, first, last, stride, OWN=OWN_ITEMS, num_warps=1)
            if to_features is not None:
                to_features += _product(piece, right[first : first + piece.shape[1]])
            piece = piece[:, : last - first]
            if to_weight is not None:
                _product(piece.T, left[:, :width], to_weight[first:last])
            if to_bias is not None:
                torch.sum(piece, 0, dtype=torch.float32, out=to_bias[first:last])

        return (
            None if to_features is None else to_features[:users, :width].to(ctx.dtypes[0]),
            None if to_weight is None else to_weight.to(ctx.dtypes[1]),
            None if to_bias is None else to_bias.to(ctx.dtypes[2]),
            *[None] * 5,
        )


def _whole(size: int, tile: int) -> int:
    """Return the least multiple of a tile that holds a size, one tile at least."""
    return max(1, -(-size // tile)) * tile


def _padded(matrix: Tensor, rows: int, columns: int, precision: torch.dtype) -> Tensor:
    padded = matrix.new_empty(rows, columns, dtype=precision)
    padded[: len(matrix), : matrix.shape[1]] = matrix
    padded[len(matrix) :] = 0
    padded[: len(matrix), matrix.shape[1] :] = 0
    return padded


def _product(left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    """Return a product in float32, whatever its operands are."""
    if left.is_cuda and left.dtype != torch.float32:
        return torch.mm(left, right, out_dtype=torch.float32, out=out)
    return torch.mm(left.float(), right.float(), out=out)


def _shape(tiles: Tiles, operand: Tensor) -> dict[str, int]:
    """Return what both kernels over tiles are compiled for."""
    shared = _shared_memory(operand.device) if operand.is_cuda else 2**16
    return {
        "USERS": tiles.users,
        "ITEMS": tiles.items,
        "DEPTH": operand.shape[1],
        "STEP": tiles.depth,
        "num_warps": tiles.warps,
        "num_stages": tiles.stages(operand.itemsize, shared),
    }


@cache
def _shared_memory(device: torch.device) -> int:
    return int(driver.active.utils.get_device_properties(device.index)["max_shared_mem"])

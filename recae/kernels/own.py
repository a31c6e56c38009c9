"""The logits of the users' own items alone: what they cost follows the interactions.

width: of the features. interactions: those of the users, as in a `Batch`.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recae.kernels.rows import transposed_rows, weighted_rows

GATHERED = 2**24
"""How many numbers of the features and as many of the weight are gathered at a time on CUDA: 64 MiB of float32."""


def own_logits(features: Tensor, weight: Tensor, bias: Tensor, offsets: Tensor, users: Tensor, items: Tensor) -> Tensor:
    """Return h_u · W_i + b_i for each interaction, (interactions).

    features h (users, width), weight W (items, width), bias b (items); offsets (users + 1), users and items
    (interactions) int64, the users' interactions one user after the other; what is returned for entries beyond the last
    offset is of no meaning, and their gradient must be zero. Gradients are with respect to features, weight and bias,
    dense.
    """
    products = _Products.apply(features, weight, offsets, users, items)  # type: ignore[no-untyped-call]
    return products + bias.index_select(0, items)  # type: ignore[no-any-return]


def own_products(features: Tensor, weight: Tensor, offsets: Tensor, users: Tensor, items: Tensor) -> Tensor:
    """Return the product of each interaction's user's features and its item's row, (interactions), without gradient."""
    if features.is_cuda:
        step = max(1, GATHERED // features.shape[1])
        blocks = zip(torch.split(users, step), torch.split(items, step), strict=True)
        return torch.cat(
            [torch.linalg.vecdot(features.index_select(0, u), weight.index_select(0, i)) for u, i in blocks]
        )
    # A third of the time of the same on gathered copies.
    where = torch.sparse_csr_tensor(
        offsets, items, features.new_zeros(len(items)), (len(features), len(weight)), check_invariants=False
    )
    found: Tensor = torch.sparse.sampled_addmm(where, features, weight.T, beta=0.0)
    return found.values()


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, offsets: Tensor, users: Tensor, items: Tensor) -> Tensor:
        ctx.save_for_backward(features, weight, offsets, users, items)
        return own_products(features, weight, offsets, users, items)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, offsets, users, items = ctx.saved_tensors
        need_features, need_weight = ctx.needs_input_grad[:2]
        to_features = to_weight = None
        if need_features:
            to_features = weighted_rows(weight, offsets, items, slope)
        if need_weight and slope.is_cuda:
            # By item; nothing here has a size that the processor would have to wait for.
            ordered, order = torch.sort(items.int(), stable=True)
            begins = torch.searchsorted(ordered, torch.arange(len(weight) + 1, device=items.device, dtype=torch.int32))
            to_weight = weighted_rows(features, begins, users.index_select(0, order), slope.index_select(0, order))
        elif need_weight:
            to_weight = transposed_rows(weight, features, offsets.int(), items.int(), slope)
        return to_features, to_weight, *[None] * 3

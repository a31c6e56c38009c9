"""The multinomial log-likelihood of the users' own items, from features and output weights, in tiles of items.

The softmax over all items is put together from those over the tiles: π = softmax over the tile · exp(log-sum-exp of the
tile - log-sum-exp of all). Its gradient with respect to user u's logits, for the slope g_u of the result, is
g_u · (x_u - Σ_i x_ui · π_u); of that, as of the logits, there is never more than a tile.

users × items: the logits. width: of the features. interactions: those of the users, as in a `Batch`.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recae.kernels.compiled import can_compile
from recae.kernels.memory import borrow, for_autograd, give_back, gradient_of
from recae.kernels.tiles import Tile, aligned, may_keep, sum_by_user, tiles_of


def log_likelihood(
    features: Tensor, weight: Tensor, bias: Tensor, offsets: Tensor, users: Tensor, items: Tensor, values: Tensor
) -> Tensor:
    """Return Σ_i x_ui · log softmax(h_u Wᵀ + b)_i for each user, (users): Liang et al. 2018, eq. 2.

    features h (users, width), weight W (items, width), bias b (items); offsets (users + 1), users and items
    (interactions) int64, values x (interactions), the users' interactions one user after the other. An item may stand
    there several times; a user without interactions gets 0. Gradients are with respect to features, weight and bias.
    """
    if weight.is_cuda and weight.dtype == torch.float32 and can_compile(weight.device):
        from recae.kernels import triton_multinomial

        return triton_multinomial.log_likelihood(features, weight, bias, offsets, users, items, values)
    keep = may_keep(len(features), weight)
    features, values = features.to(weight.dtype), values.to(weight.dtype)
    return _LogLikelihood.apply(features, weight, bias, users, items, values, keep)  # type: ignore[no-any-return, no-untyped-call]


class _LogLikelihood(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        rows: Tensor,
        items: Tensor,
        values: Tensor,
        keep: bool,
    ) -> Tensor:
        users, catalogue = len(features), len(weight)
        tiles, order, places = tiles_of(users, catalogue, rows, items)
        rows, values = rows.index_select(0, order), values.index_select(0, order)
        own = torch.empty_like(values)
        total = features.new_full((users,), -torch.inf)
        of_tiles = []
        buffer = borrow(users * max(tile.stride for tile in tiles), features)
        kept = borrow(users * aligned(catalogue) if keep else len(buffer), features)
        for tile in tiles:
            logits, mine = tile.of(buffer), tile.interactions
            logits[:, tile.width :] = -torch.inf
            torch.addmm(bias[tile.items], features, weight[tile.items].T, out=logits[:, : tile.width])
            torch.index_select(logits.view(-1), 0, places[mine], out=own[mine])
            shares = torch.softmax(logits, dim=1, out=tile.of_all(kept) if keep else tile.of(kept))
            # The largest share is 1 / Σ exp(logit - the largest logit).
            log_sum = logits.amax(dim=1) - shares.amax(dim=1).log()
            total = torch.logaddexp(total, log_sum)
            if keep:
                of_tiles.append(log_sum)
        give_back(buffer)
        ctx.tiles = tiles
        if not keep:
            give_back(kept)
        ctx.save_for_backward(
            features, weight, bias, rows, places, values, total, *([torch.stack(of_tiles), kept] if keep else [])
        )
        return sum_by_user(users, rows, values * (own - total.index_select(0, rows)))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, bias, rows, places, values, total, *of_forward = ctx.saved_tensors
        tiles: list[Tile] = ctx.tiles
        users = len(features)
        pull = -slope * sum_by_user(users, rows, values)
        push = slope.index_select(0, rows) * values
        need_features, need_weight, need_bias = ctx.needs_input_grad[:3]
        to_features = torch.zeros_like(features) if need_features else None
        to_weight, add = gradient_of(weight) if need_weight else (None, 0)
        to_bias = torch.empty_like(bias) if need_bias else None
        buffer = borrow(users * max(tile.stride for tile in tiles), features)
        for number, tile in enumerate(tiles):
            gradient, part = tile.of(buffer), tile.of(buffer)[:, : tile.width]
            if of_forward:
                of_tiles, kept = of_forward
                scale = pull * torch.exp(of_tiles[number] - total)
                torch.mul(tile.of_all(kept), scale[:, None], out=gradient)
            else:
                torch.addmm(bias[tile.items], features, weight[tile.items].T, out=part)
                part.sub_(total[:, None]).exp_().mul_(pull[:, None])
            gradient.view(-1).index_add_(0, places[tile.interactions], push[tile.interactions])
            if to_features is not None:
                to_features.addmm_(part, weight[tile.items])
            if to_weight is not None:
                to_weight[tile.items].addmm_(part.T, features, beta=add)
            if to_bias is not None:
                torch.sum(part, dim=0, out=to_bias[tile.items])
        for used in [buffer, *of_forward[1:]]:
            give_back(used)
        return (
            to_features,
            None if to_weight is None else for_autograd(weight, to_weight),
            to_bias,
            *[None] * 4,
        )

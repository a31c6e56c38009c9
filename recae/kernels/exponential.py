"""The log-likelihood of an exponential family over the whole catalogue, from features and output weights.

With the logits z = h Wᵀ + b for natural parameters, log p(x_ui) = x_ui · z_ui - A(z_ui) + what depends on x alone:

                A            A', the mean
    bernoulli   log(1 + eᶻ)  1 / (1 + e⁻ᶻ)
    gaussian    z² / 2       z
    poisson     eᶻ           eᶻ

(Collins et al. 2001, A generalization of principal component analysis to the exponential family). A user's own items
are those with a value x ≠ 0; of all others there is only A(z), whose sum over all items is taken in one of three ways:
in tiles of items, as the multinomial's; a Gaussian's, where users are more than the width, from the product of the
weight with itself, without any logits: Σ_i z_ui² = h_u (WᵀW) h_uᵀ + 2 h_u (Wᵀb) + bᵀb; or, where others count for
nothing, not at all.

users × items: the logits. width: of the features. interactions: those of the users, as in a `Batch`.
"""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

from recae.kernels.memory import borrow, for_autograd, give_back, gradient_of
from recae.kernels.own import own_logits
from recae.kernels.tiles import Tile, aligned, may_keep, sum_by_user, tiles_of

Family = Literal["bernoulli", "gaussian", "poisson"]


def log_likelihood(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    offsets: Tensor,
    users: Tensor,
    items: Tensor,
    values: Tensor,
    family: Family,
    unseen: float,
) -> Tensor:
    """Return Σ_own [x_ui · z_ui - A(z_ui)] - unseen · Σ_others A(z_ui) for each user, (users).

    features h (users, width), weight W (items, width), bias b (items); offsets (users + 1), users and items
    (interactions) int64, values x (interactions), the users' interactions one user after the other, a user's items
    distinct but for entries with the value zero, which are none; unseen ≥ 0, the weight of an item that is not the
    user's own: with 0 there are no logits but those of own items. Gradients are with respect to features, weight and
    bias.
    """
    with torch.autocast(features.device.type, enabled=False):
        features, values = features.to(weight.dtype), values.to(weight.dtype)
        logits, of_all = _logits_and_sum(features, weight, bias, offsets, users, items, family, unseen)
        there = values != 0
        logits = torch.where(there, logits, 0.0)
        terms = values * logits
        if unseen != 1:  # of all items that sum has the own ones, too, with the weight of the others
            terms = terms - (1 - unseen) * (there * _log_partition(logits, family))
        own = sum_by_user(len(features), users, terms)
        return own if of_all is None else own - unseen * of_all


def _logits_and_sum(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    offsets: Tensor,
    users: Tensor,
    items: Tensor,
    family: Family,
    unseen: float,
) -> tuple[Tensor, Tensor | None]:
    """Return each interaction's logit, (interactions), and Σ_i A(z_ui) over all items, (users), unless it counts for
    nothing."""
    by_gram = family == "gaussian" and features.shape[1] < len(features)
    if unseen and not by_gram and not features.is_cuda:
        return _in_tiles(features, weight, bias, users, items, family)
    logits = own_logits(features, weight, bias, offsets, users, items)
    if not unseen:
        return logits, None
    if by_gram:
        return logits, _HalfSquares.apply(features, weight, bias)  # type: ignore[no-untyped-call]
    # To tell which interactions are a tile's, the processor would have to wait for the device.
    return logits, _in_tiles(features, weight, bias, users[:0], items[:0], family)[1]


def _log_partition(logits: Tensor, family: Family) -> Tensor:
    """Return A."""
    if family == "bernoulli":
        return softplus(logits)
    return logits.exp() if family == "poisson" else 0.5 * logits**2


def _sum_up(logits: Tensor, family: Family) -> Tensor:
    """Return Σ_i A for each user, (users), and turn the logits, users × items, into A', in place."""
    if family == "poisson":
        return logits.exp_().sum(dim=1)
    total = _log_partition(logits, family).sum(dim=1)
    _to_means(logits, family)
    return total


def _to_means(logits: Tensor, family: Family) -> None:
    """Turn logits into A', in place."""
    if family == "bernoulli":
        logits.sigmoid_()
    elif family == "poisson":
        logits.exp_()


def _in_tiles(
    features: Tensor, weight: Tensor, bias: Tensor, users: Tensor, items: Tensor, family: Family
) -> tuple[Tensor, Tensor]:
    """Return the logits of interactions, (interactions), and Σ_i A(z_ui) over all items, (users)."""
    keep = may_keep(len(features), weight)
    return _InTiles.apply(features, weight, bias, users, items, family, keep)  # type: ignore[no-any-return, no-untyped-call]


class _InTiles(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        rows: Tensor,
        items: Tensor,
        family: Family,
        keep: bool,
    ) -> tuple[Tensor, Tensor]:
        users, catalogue = len(features), len(weight)
        tiles, order, places = tiles_of(users, catalogue, rows, items)
        own = features.new_empty(len(items))
        total = features.new_zeros(users)
        largest = users * max(tile.stride for tile in tiles)
        buffer = borrow(users * aligned(catalogue) if keep else largest, features)
        for tile in tiles:
            logits, mine = tile.of_all(buffer) if keep else tile.of(buffer), tile.interactions
            part = logits[:, : tile.width]
            torch.addmm(bias[tile.items], features, weight[tile.items].T, out=part)
            torch.index_select(logits.view(-1), 0, places[mine], out=own[mine])
            total += _sum_up(part, family)
        if not keep:
            give_back(buffer)
        ctx.tiles, ctx.family = tiles, family
        ctx.save_for_backward(features, weight, bias, order, places, *([buffer] if keep else []))
        return torch.empty_like(own).index_copy_(0, order, own), total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_own: Tensor, to_total: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, bias, order, places, *kept = ctx.saved_tensors
        tiles: list[Tile] = ctx.tiles
        push = to_own.index_select(0, order)
        need_features, need_weight, need_bias = ctx.needs_input_grad[:3]
        to_features = torch.zeros_like(features) if need_features else None
        to_weight, add = gradient_of(weight) if need_weight else (None, 0)
        to_bias = torch.empty_like(bias) if need_bias else None
        buffer = borrow(len(features) * max(tile.stride for tile in tiles), features)
        for tile in tiles:
            gradient, part = tile.of(buffer), tile.of(buffer)[:, : tile.width]
            if kept:
                torch.mul(tile.of_all(kept[0]), to_total[:, None], out=gradient)
            else:
                torch.addmm(bias[tile.items], features, weight[tile.items].T, out=part)
                _to_means(part, ctx.family)
                part.mul_(to_total[:, None])
            gradient.view(-1).index_add_(0, places[tile.interactions], push[tile.interactions])
            if to_features is not None:
                to_features.addmm_(part, weight[tile.items])
            if to_weight is not None:
                to_weight[tile.items].addmm_(part.T, features, beta=add)
            if to_bias is not None:
                torch.sum(part, dim=0, out=to_bias[tile.items])
        for used in [buffer, *kept]:
            give_back(used)
        return to_features, None if to_weight is None else for_autograd(weight, to_weight), to_bias, *[None] * 4


class _HalfSquares(torch.autograd.Function):
    """½ Σ_i z_ui² for each user, (users).

    Of the features only their distance d from a middle m takes part in products of the weight with itself:
    z = d Wᵀ + c with c = m Wᵀ + b. A bias that takes back what all users have in common is then taken from it first,
    and not from the sum of its squares.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        middle = features.mean(dim=0)
        apart, lift = features - middle, torch.addmv(bias, weight, middle)
        common = lift @ weight
        pull = torch.addmm(common, apart, weight.T @ weight)  # Σ_i z_ui · W_i
        ctx.save_for_backward(features, weight, apart, lift, pull)
        squares: Tensor = torch.linalg.vecdot(pull + common, apart) + lift @ lift
        return 0.5 * squares

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, apart, lift, pull = ctx.saved_tensors
        need_features, need_weight, need_bias = ctx.needs_input_grad
        to_weight = None
        if need_weight:
            to_weight, add = gradient_of(weight)
            to_weight.addmm_(weight, apart.T @ (slope[:, None] * features), beta=add).addr_(lift, slope @ features)
            to_weight = for_autograd(weight, to_weight)
        return (
            slope[:, None] * pull if need_features else None,
            to_weight,
            torch.addmv(slope.sum() * lift, weight, slope @ apart) if need_bias else None,
        )

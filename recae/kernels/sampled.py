"""The multinomial log-likelihood of the users' own items where the rest of the catalogue is estimated from a sample.

log p(x_u) = Σ_i x_ui · (o_ui - log Z_u), and Z_u = Σ_own exp(o_ui) + Σ_others exp(o_ui). The first sum is exact. The
second is estimated, without bias, from a sample that all users of the batch share: Σ_sampled w_i · exp(o_ui) over the
sampled items that are not the user's own, where w_i is one over the expected number of times that i is drawn. Its
logarithm is biased by about half the relative variance of the estimate, which vanishes as the sample grows.

Importance weights in the softmax: Bengio and Senécal 2008, section III; a sample shared by the batch, and the target
in every sum: Jean et al. 2015, section 3.2.

users × sampled: the logits. width: of the features. interactions: those of the users, as in a `Batch`.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recae.kernels.own import own_products
from recae.kernels.row_sparse import by_row, row_sparse
from recae.kernels.rows import weighted_rows


def sampled_log_likelihood(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    offsets: Tensor,
    users: Tensor,
    items: Tensor,
    values: Tensor,
    sampled: Tensor,
    log_weights: Tensor,
) -> Tensor:
    """Return Σ_i x_ui · (o_ui - log of the estimate of Z_u) for each user, (users), with o = h_u Wᵀ + b.

    features h (users, width), weight W (items, width), bias b (items); offsets (users + 1), users and items
    (interactions) int64, values x (interactions), the users' interactions one user after the other, a user's items
    distinct; sampled (sampled) int64, ascending and distinct, log_weights (sampled) of w. Gradients are with respect to
    features, weight and bias; those of weight and bias are row-sparse, coalesced COO tensors.
    """
    with torch.autocast(features.device.type, enabled=False):
        return _SampledLogLikelihood.apply(  # type: ignore[no-any-return, no-untyped-call]
            features.to(weight.dtype), weight, bias, offsets, users, items, values, sampled, log_weights
        )


class _SampledLogLikelihood(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        offsets: Tensor,
        users: Tensor,
        items: Tensor,
        values: Tensor,
        sampled: Tensor,
        log_weights: Tensor,
    ) -> Tensor:
        own = own_products(features, weight, offsets, users, items) + bias[items]
        logits = torch.addmm(bias[sampled] + log_weights, features, weight[sampled].T)
        place = torch.searchsorted(sampled, items).clamp_(max=len(sampled) - 1)
        twice = sampled[place] == items
        logits[users[twice], place[twice]] = -torch.inf
        top = logits.amax(dim=1).scatter_reduce_(0, users, own, "amax")
        shares, own_shares = logits.sub_(top[:, None]).exp_(), (own - top[users]).exp_()
        total = shares.sum(dim=1).index_add_(0, users, own_shares)
        shares.div_(total[:, None])
        own_shares.div_(total[users])
        count = total.new_zeros(len(total)).index_add_(0, users, values)
        ctx.save_for_backward(features, weight, bias, offsets, users, items, values, sampled, shares, own_shares, count)
        return torch.zeros_like(top).index_add_(0, users, values * own) - count * (top + total.log())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, bias, offsets, users, items, values, sampled, shares, own_shares, count = ctx.saved_tensors
        to_others = shares * (-slope * count)[:, None]
        to_own = slope[users] * (values - count[users] * own_shares)
        to_features = to_others @ weight[sampled] + weighted_rows(weight, offsets, items, to_own)
        # A sampled row stands among those of the interactions with the value zero, so that it has its place.
        touched, begins, order, place = by_row(torch.cat([items, sampled]))
        pulls = torch.nn.functional.pad(to_own, (0, len(sampled)))[order]
        rows = weighted_rows(features, begins, torch.nn.functional.pad(users, (0, len(sampled)))[order], pulls)
        biases = pulls.new_zeros(len(touched)).index_add_(0, place, pulls)
        at = torch.searchsorted(touched, sampled)
        rows.index_add_(0, at, to_others.T @ features)
        biases.index_add_(0, at, to_others.sum(dim=0))
        return (
            to_features,
            row_sparse(touched, rows, weight.shape),
            row_sparse(touched, biases, bias.shape),
            *[None] * 6,
        )

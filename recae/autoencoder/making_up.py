"""Histories drawn from logits: which items a user has, given how many, and how often."""

import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.autoencoder.likelihoods import Likelihood

LARGEST_LOG_RATE = 20.0


def draw_histories(logits: Tensor, lengths: Tensor, likelihood: Likelihood, generator: torch.Generator) -> csr_matrix:
    """Return a history of so many distinct items for each row of logits, users × items, drawn on the CPU.

    Items are drawn without replacement, so that each is there about as often as the likelihood says: the n largest of
    logit(chance) + a standard logistic number, which is Rosén's Pareto sampling (1997). (Adding Gumbel numbers to the
    logits instead would draw one item after the other: an item that is all but certain, with a share of 1 / n, is then
    missing from a history of n items in every third or so.) The chances are

        multinomial   n times an item's share, 1 where that is more
        bernoulli     σ(z)
        poisson       1 - exp(-e^z), of a count above zero; how high it is, is drawn after that

    ValueError for gaussian: it tells what values are, not which are there.
    """
    if likelihood == "gaussian":
        raise ValueError("a gaussian likelihood has no chances of items")
    users, items = logits.shape
    lengths = lengths.clamp(1, items)
    logits = logits.double()
    rates = logits.clamp(max=LARGEST_LOG_RATE).exp()
    if likelihood == "multinomial":
        logits = torch.logit(chances(torch.softmax(logits, dim=1), lengths))
    elif likelihood == "poisson":
        logits = rates + torch.log(-torch.expm1(-rates))  # the logarithm of e^rate - 1, which overflows
    draws = torch.rand((users, items), generator=generator, dtype=torch.float64)
    order = torch.topk(logits + torch.logit(draws, eps=1e-12), int(lengths.max()), dim=1).indices
    there = torch.arange(order.shape[1]) < lengths[:, None]
    rows = torch.arange(users).repeat_interleave(lengths)
    columns = order[there]
    values = torch.ones(len(columns))
    if likelihood == "poisson":
        values = counts_above_zero(rates[rows, columns], generator).float()
    made = csr_matrix((values.numpy(), (rows.numpy(), columns.numpy())), shape=(users, items))
    made.sort_indices()
    return made


def chances(shares: Tensor, lengths: Tensor) -> Tensor:
    """Return min(1, c · share) of each item, users × items, with each user's c such that they add up to its length."""
    shares = shares.clamp(min=torch.finfo(shares.dtype).tiny)
    wanted = lengths.double()[:, None]
    found = (wanted * shares).clamp(max=1)
    while True:
        certain = found >= 1
        rest = torch.where(certain, 0.0, shares)
        scale = (wanted - certain.sum(dim=1, keepdim=True)) / rest.sum(dim=1, keepdim=True).clamp(min=1e-300)
        found = torch.where(certain, 1.0, (scale * shares).clamp(0, 1))
        if torch.equal(found >= 1, certain):
            return found


def counts_above_zero(rates: Tensor, generator: torch.Generator) -> Tensor:
    """Return counts of Poisson's distribution that are not zero, in the shape of their rates.

    The first event comes at a time t before 1; after it, events come as they always do, 1 + Poisson(rate · (1 - t)).
    """
    uniform = torch.rand(rates.shape, generator=generator, dtype=rates.dtype)
    left = rates + torch.log1p(uniform * torch.expm1(-rates))
    return 1 + torch.poisson(left.clamp(min=0), generator=generator)

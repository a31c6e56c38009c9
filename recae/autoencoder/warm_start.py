"""Where a variational network without hidden layers can begin: at the spectral filter of its width.

R       users × items: interactions over the root of the length of the history, times that of the item's users
V, s    the leading right singular vectors of R, items × latent, and its squared singular values, (latent)
D       users of each item, on a diagonal

A unit history x is read by D^-½V and written by s^¼ VᵀD^½. Codes have the variance that their prior asks for.
"""

import math

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.autoencoder.networks import VariationalNetwork
from recae.histories import multiply, normalised, presence, users_of_items
from recae.kernels import spectrum

POWER = 0.25
"""Of s: at 0 it is the ideal low-pass filter of GF-CF, at 1 it blurs as RᵀR does; between, near 0, it ranks best."""

LOG_VARIANCE = -4.0
"""Of the posterior at first: the filter has no noise, and training should begin with hardly more."""

JUDGES = 512
"""Histories, at most, by which the unit of the logits is chosen."""

UNITS = np.geomspace(1, 3000, 24)
"""The units that are tried."""


def begin_at_spectrum(network: VariationalNetwork, generator: torch.Generator, histories: csr_matrix) -> None:
    """Put the filter of the histories that a network is to learn from in place of its first weights.

    Where the rank of R is below the width, the rest of the codes is left as it was drawn.
    """
    seen = presence(histories)
    seed = int(torch.randint(2**31, (), generator=generator))
    leading = spectrum.nearly_leading(normalised(seen), network.width, seed)
    vectors, squares = (torch.from_numpy(array) for array in leading)
    scale = torch.from_numpy(users_of_items(seen)).float()[:, None] ** 0.5
    spread = (squares / seen.shape[0]).sqrt()  # a code is a row of RV
    read = vectors / scale / spread
    written = vectors.mul_(scale).mul_(squares**POWER * spread)
    written *= _unit_of_logits(seen, read, written, seed)
    kept = len(squares)
    encoder, output = network.encoder.input, network.decoder.output
    with torch.no_grad():
        encoder.weight[:, :kept], output.weight[:, :kept] = read, written
        encoder.weight[:, network.width :] = 0
        encoder.bias[: network.width], encoder.bias[network.width :] = 0, LOG_VARIANCE


def _unit_of_logits(seen: csr_matrix, read: Tensor, written: Tensor, seed: int) -> float:
    """Return the factor of the scores by which half of a history is likeliest, given the other half."""
    draws = np.random.default_rng(seed)
    some = seen[np.sort(draws.choice(seen.shape[0], min(JUDGES, seen.shape[0]), replace=False))].tocoo()
    shown = draws.random(some.nnz) < 0.5
    halves = csr_matrix((some.data[shown], (some.row[shown], some.col[shown])), shape=some.shape)
    scores = multiply(normalised(halves, item_exponent=0), read) @ written.T
    hidden = torch.from_numpy(some.row[~shown]).long(), torch.from_numpy(some.col[~shown]).long()
    best, factor = -math.inf, 1.0
    for unit in UNITS:
        likelihood = float(torch.log_softmax(scores * unit, dim=1)[hidden].sum())
        if likelihood > best:
            best, factor = likelihood, float(unit)
    return factor

"""How well a network explains each interaction by itself.

users × items: the logits, of which there is never more than a tile. interactions: those of the users, as in a `Batch`.
"""

import torch
from torch import Tensor
from torch.nn.functional import softplus

from recae.autoencoder.batches import Batch
from recae.autoencoder.likelihoods import Likelihood
from recae.autoencoder.networks import Network
from recae.kernels.own import own_logits
from recae.kernels.tiles import tiles_of


@torch.no_grad()
def log_likelihoods(network: Network, likelihood: Likelihood, shown: Batch, batch: Batch) -> Tensor:
    """Return log p of each interaction of a batch, (interactions), for a network that is shown the same users' `shown`.

    multinomial: log softmax(z_u)_i, that the next item is this one, whatever the value. The others: of the value x_ui
    given z_ui, where a Gaussian's lacks its constant ½ log 2π; see `recae.autoencoder.likelihoods`.
    """
    features, output = network.decoder.features(network.latent(network.read(shown))), network.decoder.output
    z = own_logits(features, output.weight, output.bias, batch.offsets, batch.users, batch.items)
    x = batch.values
    if likelihood == "multinomial":
        return z - _log_sums(features, output.weight, output.bias).index_select(0, batch.users)
    if likelihood == "bernoulli":
        return x * z - softplus(z)
    if likelihood == "gaussian":
        return -0.5 * (x - z) ** 2
    return x * z - z.exp() - torch.lgamma(x + 1)


def _log_sums(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return log Σ_i exp z_ui of each user, (users)."""
    nobody = torch.empty(0, dtype=torch.int64, device=features.device)
    sums = features.new_full((len(features),), -torch.inf)
    for tile in tiles_of(len(features), len(weight), nobody, nobody)[0]:
        logits = torch.addmm(bias[tile.items], features, weight[tile.items].T)
        sums = torch.logaddexp(sums, logits.logsumexp(dim=1))
    return sums

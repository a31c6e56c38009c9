"""The terms of an autoencoder's loss, each a value per user."""

import torch
from torch import Tensor, nn

from recae.autoencoder.batches import Batch
from recae.autoencoder.networks import TiedLinear
from recae.autoencoder.sampling import Sample
from recae.kernels.multinomial import log_likelihood
from recae.kernels.sampled import sampled_log_likelihood
from recae.profiling import stage


def multinomial(features: Tensor, output: nn.Linear | TiedLinear, batch: Batch, sample: Sample | None = None) -> Tensor:
    """Return the log-likelihood of each user's interactions, (users), from (users, width) and the layer to the items.

    log p(x_u | z_u) = Σ_i x_ui · log π_i(z_u), where π(z_u) is the softmax of the user's logits: Liang et al. 2018,
    eq. 2, without the multinomial coefficient, which does not depend on the model. The sum runs over the interactions.
    With a sample of the items, the softmax's sum over the user's own items is exact, that over the others estimated.
    """
    of_batch = (batch.offsets, batch.users, batch.items, batch.values)
    with stage("likelihood"):
        if sample is None:
            return log_likelihood(features, output.weight, output.bias, *of_batch)
        return sampled_log_likelihood(features, output.weight, output.bias, *of_batch, sample.items, sample.log_weights)


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the divergence of each user's normal posterior from N(0, I), (users), from (users, latent) parameters.

    KL(q(z_u | x_u) ‖ p(z_u)) = ½ Σ_k (σ²_k + μ²_k - 1 - log σ²_k): Kingma and Welling 2014, appendix B.
    """
    return 0.5 * torch.sum(log_variance.exp() + mean**2 - 1 - log_variance, dim=1)

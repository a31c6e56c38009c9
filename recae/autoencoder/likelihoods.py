"""The terms of an autoencoder's loss, each a value per user."""

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from recae.autoencoder.batches import Batch


def multinomial(features: Tensor, output: nn.Linear, batch: Batch) -> Tensor:
    """Return the log-likelihood of each user's interactions, (users), from (users, width) and the layer to the items.

    log p(x_u | z_u) = Σ_i x_ui · log π_i(z_u), where π(z_u) is the softmax of the user's logits: Liang et al. 2018,
    eq. 2, without the multinomial coefficient, which does not depend on the model. The sum runs over the interactions.
    """
    logits = output(features)
    log_shares = log_softmax(logits, dim=1, dtype=torch.promote_types(logits.dtype, torch.float32))
    own = log_shares.flatten().index_select(0, batch.users * log_shares.shape[1] + batch.items)
    return batch.sum_by_user(batch.values * own)


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the divergence of each user's normal posterior from N(0, I), (users), from (users, latent) parameters.

    KL(q(z_u | x_u) ‖ p(z_u)) = ½ Σ_k (σ²_k + μ²_k - 1 - log σ²_k): Kingma and Welling 2014, appendix B.
    """
    return 0.5 * torch.sum(log_variance.exp() + mean**2 - 1 - log_variance, dim=1)

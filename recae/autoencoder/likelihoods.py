"""The terms of an autoencoder's loss, each a value per user.

What every likelihood is of: x_ui, the values of a user's interactions, given the logits z_ui of all items.

    multinomial   Σ_i x_ui · log softmax(z_u)_i   how a user's interactions are shared among the items
    bernoulli     x log σ(z) + (1 - x) log(1 - σ(z))   whether there is an interaction; values from 0 to 1
    gaussian      -(x - z)² / 2                   any value: a rating
    poisson       x z - e^z - log x!              how often: a count

The last three add up over all items, those outside of the history having the value 0 and the weight `unseen`: with 1
each is the plain likelihood, with 0 only values that were observed count (Sedhain et al. 2015, AutoRec), between them
unseen items are weak evidence (Hu et al. 2008).
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recae.autoencoder.batches import Batch
from recae.autoencoder.networks import TiedLinear
from recae.autoencoder.sampling import Sample
from recae.errors import CannotPredict, ModelError
from recae.kernels import exponential
from recae.kernels.multinomial import log_likelihood
from recae.kernels.sampled import sampled_log_likelihood
from recae.profiling import stage

Likelihood = Literal["multinomial", "bernoulli", "gaussian", "poisson"]


@dataclass(frozen=True)
class Reconstruction:
    """What a network's logits are the parameters of, and how well they explain histories."""

    likelihood: Likelihood
    unseen: float = 1.0

    def __call__(
        self, features: Tensor, output: nn.Linear | TiedLinear, batch: Batch, sample: Sample | None = None
    ) -> Tensor:
        """Return the log-likelihood of each user's interactions, (users), from (users, width) and the last layer.

        With a sample of the items, a multinomial's sum over the user's own items is exact, that over the others
        estimated. Left out are the multinomial coefficient and ½ log 2π of each value, which depend on nothing.
        """
        if self.likelihood == "multinomial":
            return multinomial(features, output, batch, sample)
        of_batch = (batch.offsets, batch.users, batch.items, batch.values)
        with stage("likelihood"):
            explained = exponential.log_likelihood(
                features, output.weight, output.bias, *of_batch, self.likelihood, self.unseen
            )
            return explained + batch.sum_by_user(self._alone(batch.values))

    @property
    def observed_only(self) -> bool:
        """Whether any values are reconstructed, and no others than were observed: they are told in deviations then."""
        return self.likelihood == "gaussian" and self.unseen == 0

    @property
    def keeps_zeros(self) -> bool:
        """Whether a value of zero is an observation, such as a rating in the middle of its scale, and counts as one."""
        return self.likelihood == "gaussian" and self.unseen != 1

    def expected(self, logits: Tensor) -> Tensor:
        """Return the value to be expected of each interaction, in the shape of the logits.

        CannotPredict for the multinomial, which tells how interactions are shared among items, not how large each is.
        """
        if self.likelihood == "multinomial":
            raise CannotPredict("a multinomial likelihood has no values to predict; give likelihood = gaussian")
        if self.likelihood == "gaussian":
            return logits
        return logits.sigmoid() if self.likelihood == "bernoulli" else logits.exp()

    def require_values(self, values: NDArray[np.floating], model: str) -> None:
        """Raise ModelError for values that the likelihood gives no chance."""
        least, largest = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
        bound = {"bernoulli": 1.0}.get(self.likelihood, np.inf)
        if self.likelihood != "gaussian" and not 0 <= least <= largest <= bound:
            wrong = least if least < 0 else largest
            raise ModelError(
                f"{model}: likelihood = {self.likelihood} wants values from 0{f' to {bound:g}' if bound == 1 else ''}, "
                f"and there is {wrong:g} among them; give likelihood = gaussian, or make the values binary"
            )
        if self.unseen == 0 and least == largest:
            raise ModelError(
                f"{model}: with unseen = 0 only values in histories count, and all of them are {largest:g}: there is "
                "nothing to tell apart; give unseen = 1, or train on events with values that differ"
            )

    def _alone(self, values: Tensor) -> Tensor:
        """Return what a log-likelihood has of the values alone."""
        if self.likelihood == "gaussian":
            return -0.5 * values**2
        return -torch.lgamma(values + 1) if self.likelihood == "poisson" else torch.zeros_like(values)


def require_reconstruction(likelihood: str, unseen: float, negatives: int, model: str) -> None:
    """Raise ModelError for settings of a likelihood that contradict each other."""
    others = ", ".join(get_args(Likelihood)[1:])
    if likelihood == "multinomial" and unseen != 1:
        raise ModelError(
            f"{model}: unseen = {unseen:g} is for the likelihoods {others}; a multinomial's shares are of all items: "
            "give unseen = 1, or one of those"
        )
    if likelihood != "multinomial" and negatives:
        raise ModelError(
            f"{model}: negatives = {negatives} is for the multinomial likelihood; give negatives = 0, or "
            "likelihood = multinomial"
        )


def multinomial(features: Tensor, output: nn.Linear | TiedLinear, batch: Batch, sample: Sample | None = None) -> Tensor:
    """Return the multinomial log-likelihood of each user's interactions, (users): see `Reconstruction`.

    log p(x_u | z_u) = Σ_i x_ui · log π_i(z_u), where π(z_u) is the softmax of the user's logits: Liang et al. 2018,
    eq. 2, without the multinomial coefficient. The sum runs over the interactions.
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

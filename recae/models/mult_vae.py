"""Mult-VAE: the variational autoencoder with a multinomial likelihood."""

from typing import ClassVar

import torch
from pydantic import NonNegativeInt
from torch import Tensor

from recae.autoencoder.batches import Batch, Example, unit_length
from recae.autoencoder.corruption import drop_interactions
from recae.autoencoder.likelihoods import kl_to_standard_normal, multinomial
from recae.autoencoder.networks import VariationalNetwork
from recae.autoencoder.objectives import Objective, Phase, Schedule
from recae.models.base import Count, NonNegative, Positive, Unit, Widths, hyper_parameters
from recae.models.neural import NeuralRecommender


@hyper_parameters
class MultVAE(NeuralRecommender):
    """Reconstruct a history from a random code of a part of it, and keep the code's distribution near N(0, I).

    Liang et al. 2018, Variational Autoencoders for Collaborative Filtering, sections 2.1, 2.2 and 4.3. The weight of
    the divergence grows by 1 / `kl_anneal_steps` with each update, up to `kl_cap` (at once if there are no steps); the
    paper's are 200,000 and 0.2. Scores and embeddings are those of the posterior's mean.
    """

    name: ClassVar[str] = "mult-vae"

    hidden: Widths = (600,)
    latent: Count = 200
    dropout: Unit = 0.5
    kl_cap: NonNegative = 1.0
    kl_anneal_steps: NonNegativeInt = 2000
    weight_decay: NonNegative = 0.0
    learning_rate: Positive = 1e-3
    batch_size: Count = 500
    epochs: Count = 200
    patience: Count = 20

    def build_network(self, items: int) -> VariationalNetwork:
        """Return an untrained network."""
        return VariationalNetwork(items, self.hidden, self.latent)

    def phases(self, network: VariationalNetwork) -> tuple[Phase]:
        """Return the one phase: the negative evidence lower bound, its divergence weighted: section 2.2.2."""

        def draw(batch: Batch, generator: torch.Generator) -> Example:
            corrupted = drop_interactions(unit_length(batch), self.dropout, generator)
            noise = torch.randn((len(batch), self.latent), generator=generator, device=batch.values.device)
            return Example(corrupted, batch, noise)

        def loss(example: Example, schedule: Schedule) -> Tensor:
            mean, log_variance = network.posterior(example.input)
            features = network.decoder.features(mean + example.noise * torch.exp(0.5 * log_variance))
            divergence = kl_to_standard_normal(mean, log_variance)
            return schedule["kl_weight"] * divergence - multinomial(features, network.decoder.output, example.target)

        def schedule(updates: int) -> Schedule:
            return {"kl_weight": kl_weight(updates, self.kl_cap, self.kl_anneal_steps)}

        return (Phase(Objective(draw, loss, schedule)),)


def kl_weight(updates: int, cap: float, anneal_steps: int) -> float:
    """Return the weight of the divergence after so many updates: min(cap, updates / anneal_steps)."""
    return min(cap, updates / anneal_steps) if anneal_steps else cap

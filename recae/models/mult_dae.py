"""Mult-DAE: the denoising autoencoder with a multinomial likelihood."""

from typing import ClassVar

import torch
from torch import Tensor

from recae.autoencoder.batches import Batch, Example, unit_length
from recae.autoencoder.corruption import drop_interactions
from recae.autoencoder.likelihoods import multinomial
from recae.autoencoder.networks import DenoisingNetwork
from recae.autoencoder.objectives import Objective, Phase, Schedule
from recae.models.base import Count, NonNegative, Positive, Unit, Widths, hyper_parameters
from recae.models.neural import NeuralRecommender


@hyper_parameters
class MultDAE(NeuralRecommender):
    """Reconstruct a history from a part of it: unit length, dropout, a bottleneck, a softmax over the items.

    Liang et al. 2018, Variational Autoencoders for Collaborative Filtering, sections 2.3 and 4.3. `weight_decay` is
    the factor of Σ‖W‖² beside the mean negative log-likelihood; that of the published code is 0.01 / 500.
    """

    name: ClassVar[str] = "mult-dae"

    hidden: Widths = ()
    latent: Count = 200
    dropout: Unit = 0.5
    weight_decay: NonNegative = 2e-5
    learning_rate: Positive = 1e-3
    batch_size: Count = 500
    epochs: Count = 200
    patience: Count = 20

    def build_network(self, items: int) -> DenoisingNetwork:
        """Return an untrained network."""
        return DenoisingNetwork(items, self.hidden, self.latent)

    def phases(self, network: DenoisingNetwork) -> tuple[Phase]:
        """Return the one phase: the negative log-likelihood of whole histories, given corrupted ones."""

        def draw(batch: Batch, generator: torch.Generator) -> Example:
            return Example(drop_interactions(unit_length(batch), self.dropout, generator), batch)

        def loss(example: Example, schedule: Schedule) -> Tensor:
            features = network.decoder.features(network.latent(example.input))
            return -multinomial(features, network.decoder.output, example.target)

        return (Phase(Objective(draw, loss)),)

"""Autoencoder: the undercomplete autoencoder, which has a bottleneck and nothing else; AutoRec."""

from typing import ClassVar

import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.autoencoder.batches import Batch, Example
from recae.autoencoder.networks import DenoisingNetwork
from recae.autoencoder.objectives import Objective, Phase, Schedule
from recae.models.base import hyper_parameters
from recae.models.neural import (
    Averaging,
    BatchSize,
    Dropout,
    Epochs,
    HalfSplit,
    Hidden,
    Latent,
    LearningRate,
    LikelihoodName,
    NeuralRecommender,
    Noise,
    Patience,
    Salt,
    Shown,
    UnitLength,
    Unseen,
    WeightDecay,
)


@hyper_parameters
class Autoencoder(NeuralRecommender):
    """Squeeze a history through a bottleneck with tanh, and reconstruct it.

    What does not fit through is forgotten, and only what many histories share fits: with `dropout` and the other
    corruptions at 0, that and `weight_decay`, the factor of Σ‖W‖², are all that keeps it from learning by heart.

    On ratings, unseen = 0 makes it AutoRec (Sedhain et al. 2015, AutoRec: Autoencoders Meet Collaborative Filtering,
    the user-based one): the squared error of observed values alone. They are told in deviations from their items'
    means then, and histories divided by √n, not by their norm, which would hide how strong a user's opinions are. A
    bottleneck wider than histories are long learns to copy what it is shown: `half_split` lets it tell a part of each
    from the rest, and with shown = 0.8 it learns from histories of about the length that it will read.

    Of who touched what, where all values are one, nothing could be learned that way; so by default an item outside of a
    history is a zero that counts as much. `unit_length` is for that, too: how long a history is says little of what
    comes next (without it, NDCG@100 on MovieLens-1M is .379 instead of .414).
    """

    name: ClassVar[str] = "autoencoder"

    hidden: Hidden = ()
    latent: Latent = 200
    likelihood: LikelihoodName = "gaussian"
    unseen: Unseen = 1.0
    unit_length: UnitLength = True
    dropout: Dropout = 0.0
    salt: Salt = 0.0
    noise: Noise = 0.0
    half_split: HalfSplit = False
    shown: Shown = 0.5
    weight_decay: WeightDecay = 1e-3
    averaging: Averaging = 0.0
    learning_rate: LearningRate = 1e-3
    batch_size: BatchSize = 250
    epochs: Epochs = 200
    patience: Patience = 20

    def build_network(self, items: int) -> DenoisingNetwork:
        """Return an untrained network."""
        return DenoisingNetwork(items, self.hidden, self.latent, unit_length=self.unit_length)

    def phases(self, network: DenoisingNetwork, histories: csr_matrix) -> tuple[Phase]:
        """Return the one phase: the negative log-likelihood of histories, given themselves."""
        corruption, reconstruction, items = self.corruption, self.reconstruction, histories.shape[1]

        def draw(batch: Batch, generator: torch.Generator) -> Example:
            return Example(*corruption(batch, items, network.read, generator))

        def loss(example: Example, schedule: Schedule) -> Tensor:
            features = network.decoder.features(network.latent(example.input))
            return -reconstruction(features, network.decoder.output, example.target)

        return (Phase(Objective(draw, loss)),)

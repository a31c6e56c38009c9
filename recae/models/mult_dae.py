"""Mult-DAE: the denoising autoencoder with a multinomial likelihood."""

from typing import ClassVar

import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.autoencoder.batches import Batch, Example
from recae.autoencoder.networks import DenoisingNetwork
from recae.autoencoder.objectives import Objective, Phase, Schedule
from recae.autoencoder.sampling import require_fewer, require_no_average, sampling
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
    Negatives,
    NeuralRecommender,
    Noise,
    Patience,
    Salt,
    Tied,
    Unseen,
    WeightDecay,
)


@hyper_parameters
class MultDAE(NeuralRecommender):
    """Reconstruct a history from a part of it: unit length, dropout, a bottleneck, a softmax over the items.

    Liang et al. 2018, Variational Autoencoders for Collaborative Filtering, sections 2.3 and 4.3. `weight_decay` is
    the factor of Σ‖W‖² beside the mean negative log-likelihood; that of the published code is 0.01 / 500.
    `averaging` is that of Mult-VAE.

    For very large catalogues: `negatives` is how many items an update draws to stand for the whole catalogue, shared by
    its users (0: the whole softmax); it then touches only the weights of the items it has to do with. With `tied`, the
    first layer and the last have the same weights, which asks for layers as wide as each other: those of the outermost
    hidden layer, or of the bottleneck where there is none.
    """

    name: ClassVar[str] = "mult-dae"

    hidden: Hidden = ()
    latent: Latent = 200
    likelihood: LikelihoodName = "multinomial"
    unseen: Unseen = 1.0
    dropout: Dropout = 0.5
    salt: Salt = 0.0
    noise: Noise = 0.0
    half_split: HalfSplit = False
    negatives: Negatives = 0
    tied: Tied = False
    weight_decay: WeightDecay = 2e-5
    averaging: Averaging = 0.0
    learning_rate: LearningRate = 1e-3
    batch_size: BatchSize = 500
    epochs: Epochs = 200
    patience: Patience = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        require_no_average(self.negatives, self.averaging, self.name)

    def build_network(self, items: int) -> DenoisingNetwork:
        """Return an untrained network; ModelError where there are no more items than `negatives`."""
        require_fewer(self.negatives, items, self.name)
        return DenoisingNetwork(items, self.hidden, self.latent, tied=self.tied, row_sparse=self.negatives > 0)

    def phases(self, network: DenoisingNetwork, histories: csr_matrix) -> tuple[Phase]:
        """Return the one phase: the negative log-likelihood of whole histories, given corrupted ones."""
        sample, corruption, reconstruction = sampling(histories, self.negatives), self.corruption, self.reconstruction
        items = histories.shape[1]

        def draw(batch: Batch, generator: torch.Generator) -> Example:
            shown, target = corruption(batch, items, network.read, generator)
            return Example(shown, target, sample=sample(generator))

        def loss(example: Example, schedule: Schedule) -> Tensor:
            features = network.decoder.features(network.latent(example.input))
            return -reconstruction(features, network.decoder.output, example.target, example.sample)

        return (Phase(Objective(draw, loss)),)

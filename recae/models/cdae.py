"""CDAE: the denoising autoencoder that has a vector for every user, and knows no others."""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack
from torch import Tensor

from recae.autoencoder.batches import Batch, Example
from recae.autoencoder.collaborative import CollaborativeNetwork
from recae.autoencoder.objectives import Objective, Phase, Schedule
from recae.histories import require_interactions, valued
from recae.models.base import FitOptions, hyper_parameters
from recae.models.known import KnownHistories
from recae.models.neural import (
    Averaging,
    BatchSize,
    Dropout,
    Epochs,
    HalfSplit,
    Latent,
    LearningRate,
    LikelihoodName,
    NeuralRecommender,
    Noise,
    Patience,
    Salt,
    UnitLength,
    Unseen,
    WeightDecay,
)
from recae.tensors import require_tensors

DIGESTS = "user_digests"


@hyper_parameters
class CDAE(NeuralRecommender):
    """Reconstruct a history from a part of it and from a vector that is learned for its user.

    Wu et al. 2016, Collaborative Denoising Auto-Encoders for Top-N Recommender Systems; with tanh, and with all the
    items a user does not have in the place of a sample of them. A user's vector exists only where their history was
    trained on: any other is refused. A history is known by its items, so of two users who trained with the same one
    the first answers; an empty one has no vector, and needs none.

    As it can be judged only by histories it was trained on, it is trained on those of the validation users too, where
    there are some: on what is shown of them, never on what is held out.
    """

    name: ClassVar[str] = "cdae"
    folds_in: ClassVar[bool] = False

    latent: Latent = 200
    likelihood: LikelihoodName = "gaussian"
    unseen: Unseen = 1.0
    unit_length: UnitLength = True
    dropout: Dropout = 0.5
    salt: Salt = 0.0
    noise: Noise = 0.0
    half_split: HalfSplit = False
    weight_decay: WeightDecay = 1e-3
    averaging: Averaging = 0.0
    learning_rate: LearningRate = 1e-3
    batch_size: BatchSize = 250
    epochs: Epochs = 200
    patience: Patience = 20

    def build_network(self, items: int) -> CollaborativeNetwork:
        """Return an untrained network for the users that are known."""
        return CollaborativeNetwork(items, self.latent, len(self.known_), unit_length=self.unit_length)

    def planned(self, histories: csr_matrix) -> CollaborativeNetwork:
        """Return an untrained network for these users."""
        users, items = histories.shape
        return CollaborativeNetwork(items, self.latent, users, unit_length=self.unit_length)

    def fit(self, histories: csr_matrix, options: FitOptions = FitOptions()) -> Self:
        """Train on these histories, and on those of the validation users that are not among them."""
        require_interactions(valued(histories, zeros=self.reconstruction.keeps_zeros), self.name)
        self.known_ = KnownHistories.of(self._valued(histories), options.device)
        if options.validation is not None:
            judged = csr_matrix(options.validation.history)
            histories = vstack([histories, judged[~self.known_.knows(self._valued(judged))]], format="csr")
            self.known_ = KnownHistories.of(self._valued(histories), options.device)
        return super().fit(histories, options)

    def phases(self, network: CollaborativeNetwork, histories: csr_matrix) -> tuple[Phase]:
        """Return the one phase: the negative log-likelihood of histories, given corrupted ones and their users."""
        corruption, reconstruction, items = self.corruption, self.reconstruction, histories.shape[1]

        def draw(batch: Batch, generator: torch.Generator) -> Example:
            return Example(*corruption(batch, items, network.read, generator))

        def loss(example: Example, schedule: Schedule) -> Tensor:
            return -reconstruction(network.latent(example.input), network.decoder.output, example.target)

        return (Phase(Objective(draw, loss)),)

    def knows(self, histories: csr_matrix) -> NDArray[np.bool_]:
        """Return for each history whether it is one of those it was trained on, or empty."""
        return self.known_.knows(self._valued(histories))

    def state(self) -> dict[str, Tensor]:
        """Return the network's weights, and a digest of each trained history, (users, 16), to know it by."""
        return super().state() | {DIGESTS: self.known_.digests}

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """Take over a state."""
        digests = state[DIGESTS]
        require_tensors({DIGESTS: digests}, {DIGESTS: (torch.uint8, ("users", 16))})
        self.known_ = KnownHistories(digests)
        return super().restore({name: tensor for name, tensor in state.items() if name != DIGESTS})

    def _valued(self, histories: csr_matrix) -> csr_matrix:
        return valued(histories, zeros=self.reconstruction.keeps_zeros)

    def _read(self, histories: csr_matrix) -> Batch:
        rows = self.known_.rows(self._valued(histories), self.name, ("mult-dae", "als", "ease"))
        return replace(super()._read(histories), rows=rows)

"""Mult-VAE: the variational autoencoder with a multinomial likelihood."""

from functools import partial
from typing import Annotated, ClassVar

import torch
from pydantic import Field, NonNegativeInt
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.autoencoder.batches import Batch, Example
from recae.autoencoder.likelihoods import kl_to_standard_normal
from recae.autoencoder.networks import VariationalNetwork
from recae.autoencoder.objectives import Objective, Phase, Schedule
from recae.autoencoder.sampling import require_fewer, require_no_average, sampling
from recae.autoencoder.warm_start import begin_at_spectrum
from recae.errors import ModelError
from recae.models.base import NonNegative, hyper_parameters
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
    Noise,
    Patience,
    Salt,
    Shown,
    Tied,
    Unseen,
    WeightDecay,
)
from recae.models.variational import VariationalRecommender


@hyper_parameters
class MultVAE(VariationalRecommender):
    """Reconstruct a history from a random code of a part of it, and keep the code's distribution near N(0, I).

    Liang et al. 2018, Variational Autoencoders for Collaborative Filtering, sections 2.1, 2.2 and 4.3. The weight of
    the divergence grows by 1 / `kl_anneal_steps` with each update, up to `kl_cap` (at once if there are no steps); the
    paper's are 200,000 and 0.2. Scores and embeddings are those of the posterior's mean.

    With `averaging` (see Adam), what is validated and kept is an average of the weights over the updates; it allows a
    higher learning rate, at which the weights themselves are unsteady.

    For very large catalogues: `negatives` is how many items an update draws to stand for the whole catalogue, shared by
    its users (0: the whole softmax); it then touches only the weights of the items it has to do with. With `tied`, the
    first layer and the last have the same weights.

    For sparse histories of many items, where rank matters: with `warm_start`, and no hidden layers, it begins at the
    spectral filter of its width, which training then betters; see `recae.autoencoder.warm_start`.
    """

    name: ClassVar[str] = "mult-vae"

    hidden: Hidden = (600,)
    latent: Latent = 200
    likelihood: LikelihoodName = "multinomial"
    unseen: Unseen = 1.0
    dropout: Dropout = 0.5
    salt: Salt = 0.0
    noise: Noise = 0.0
    half_split: HalfSplit = False
    shown: Shown = 0.5
    negatives: Negatives = 0
    tied: Tied = False
    warm_start: Annotated[
        bool, Field(description="whether training begins at a spectral filter; without hidden layers only")
    ] = False
    kl_cap: Annotated[NonNegative, Field(description="weight of the divergence, at most")] = 1.0
    kl_anneal_steps: Annotated[
        NonNegativeInt, Field(description="updates in which that weight would grow from 0 to 1; 0: at once")
    ] = 2000
    weight_decay: WeightDecay = 0.0
    averaging: Averaging = 0.0
    learning_rate: LearningRate = 1e-3
    batch_size: BatchSize = 500
    epochs: Epochs = 200
    patience: Patience = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        require_no_average(self.negatives, self.averaging, self.name)
        if self.tied and not self.hidden:
            raise ModelError(
                f"{self.name}: tied weights need a hidden layer, between the first layer and the code's distribution; "
                f"give hidden, or tied = False"
            )
        if self.warm_start and (self.hidden or self.likelihood != "multinomial"):
            raise ModelError(
                f"{self.name}: a warm start is for no hidden layers and a multinomial likelihood; "
                f"give hidden = [] and likelihood = multinomial, or warm_start = False"
            )

    def build_network(self, items: int) -> VariationalNetwork:
        """Return an untrained network; ModelError where there are no more items than `negatives`."""
        require_fewer(self.negatives, items, self.name)
        return VariationalNetwork(items, self.hidden, self.latent, tied=self.tied, row_sparse=self.negatives > 0)

    def phases(self, network: VariationalNetwork, histories: csr_matrix) -> tuple[Phase]:
        """Return the one phase: the negative evidence lower bound, its divergence weighted: section 2.2.2."""
        sample, corruption, reconstruction = sampling(histories, self.negatives), self.corruption, self.reconstruction
        items = histories.shape[1]
        if self.warm_start:
            network.begin = partial(begin_at_spectrum, histories=histories)

        def draw(batch: Batch, generator: torch.Generator) -> Example:
            shown, target = corruption(batch, items, network.read, generator)
            noise = torch.randn((len(batch), self.latent), generator=generator, device=batch.values.device)
            return Example(shown, target, noise, sample(generator))

        def loss(example: Example, schedule: Schedule) -> Tensor:
            mean, log_variance = network.posterior(example.input)
            features = network.decoder.features(mean + example.noise * torch.exp(0.5 * log_variance))
            divergence = kl_to_standard_normal(mean, log_variance)
            likelihood = reconstruction(features, network.decoder.output, example.target, example.sample)
            return schedule["kl_weight"] * divergence - likelihood

        def schedule(updates: int) -> Schedule:
            return {"kl_weight": kl_weight(updates, self.kl_cap, self.kl_anneal_steps)}

        return (Phase(Objective(draw, loss, schedule)),)


def kl_weight(updates: int, cap: float, anneal_steps: int) -> float:
    """Return the weight of the divergence after so many updates: min(cap, updates / anneal_steps)."""
    return min(cap, updates / anneal_steps) if anneal_steps else cap

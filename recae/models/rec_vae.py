"""RecVAE: a variational autoencoder whose prior remembers the posterior, trained in turns."""

from functools import partial
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.autoencoder.batches import Batch, Example
from recae.autoencoder.composite import CompositeNetwork, log_composite_prior, log_normal
from recae.autoencoder.corruption import Corruption
from recae.autoencoder.objectives import Objective, Phase, Schedule
from recae.models.base import Count, NonNegative, hyper_parameters
from recae.models.neural import (
    Averaging,
    BatchSize,
    Dropout,
    Epochs,
    HalfSplit,
    Latent,
    LearningRate,
    LikelihoodName,
    Noise,
    Patience,
    Salt,
    Unseen,
    WeightDecay,
)
from recae.models.variational import VariationalRecommender


@hyper_parameters
class RecVAE(VariationalRecommender):
    """Reconstruct a history from a random code of a part of it; encoder and decoder learn in turns.

    Shenbin et al. 2020, RecVAE: a New Variational Autoencoder for Top-N Recommendations with Implicit Feedback. An
    epoch is `encoder_passes` of the encoder, with dropout and a divergence from the composite prior weighted by
    `gamma` times the length of the history, and then `decoder_passes` of the decoder, with neither. The paper's gamma
    is 0.005 for MovieLens-20M, 0.0035 for Netflix and 0.01 for the Million Song Dataset. Scores and embeddings are
    those of the posterior's mean. `averaging` is that of Mult-VAE.
    """

    name: ClassVar[str] = "rec-vae"

    hidden: Annotated[Count, Field(description="width of each hidden layer of the encoder")] = 600
    layers: Annotated[Count, Field(description="hidden layers of the encoder")] = 5
    latent: Latent = 200
    likelihood: LikelihoodName = "multinomial"
    unseen: Unseen = 1.0
    dropout: Dropout = 0.5
    salt: Salt = 0.0
    noise: Noise = 0.0
    half_split: HalfSplit = False
    gamma: Annotated[NonNegative, Field(description="weight of the divergence, for each item of the history")] = 0.01
    encoder_passes: Annotated[Count, Field(description="passes of the encoder in an epoch")] = 3
    decoder_passes: Annotated[Count, Field(description="passes of the decoder after them")] = 1
    weight_decay: WeightDecay = 0.0
    averaging: Averaging = 0.0
    learning_rate: LearningRate = 5e-4
    batch_size: BatchSize = 500
    epochs: Epochs = 200
    patience: Patience = 20

    def build_network(self, items: int) -> CompositeNetwork:
        """Return an untrained network."""
        return CompositeNetwork(items, self.hidden, self.layers, self.latent)

    def phases(self, network: CompositeNetwork, histories: csr_matrix) -> tuple[Phase, Phase]:
        """Return the turn of the encoder, after which its posterior is the old one, and that of the decoder."""
        reconstruction, items = self.reconstruction, histories.shape[1]

        def draw(corruption: Corruption, batch: Batch, generator: torch.Generator) -> Example:
            shown, target = corruption(batch, items, network.read, generator)
            noise = torch.randn((len(batch), self.latent), generator=generator, device=batch.values.device)
            return Example(shown, target, noise)

        def bound(example: Example, schedule: Schedule) -> Tensor:
            mean, log_variance = network.posterior(example.input)
            code = mean + example.noise * torch.exp(0.5 * log_variance)
            prior = log_composite_prior(code, *network.old_posterior(network.read(example.target)))
            divergence = (log_normal(code, mean, log_variance) - prior).sum(dim=1)
            weight = self.gamma * example.target.sum_by_user((example.target.values != 0).float())
            return weight * divergence - reconstruction(code, network.decoder.output, example.target)

        def decoded(example: Example, schedule: Schedule) -> Tensor:
            with torch.no_grad():
                mean, log_variance = network.posterior(example.input)
                code = mean + example.noise * torch.exp(0.5 * log_variance)
            return -reconstruction(code, network.decoder.output, example.target)

        shown, whole = partial(draw, self.corruption), partial(draw, self.corruption.but_split())
        return (
            Phase(Objective(shown, bound), network.encoder, self.encoder_passes, after=network.remember),
            Phase(Objective(whole, decoded), network.decoder, self.decoder_passes),
        )

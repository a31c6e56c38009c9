"""VampVAE: a gated variational autoencoder of two levels whose prior is made of imagined users."""

from typing import Annotated, ClassVar

import torch
from pydantic import Field, NonNegativeInt
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.autoencoder.batches import Batch, Example
from recae.autoencoder.composite import log_normal
from recae.autoencoder.hierarchical import HierarchicalNetwork
from recae.autoencoder.objectives import Objective, Phase, Schedule
from recae.errors import ModelError
from recae.models.base import Count, NonNegative, hyper_parameters
from recae.models.mult_vae import kl_weight
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
class VampVAE(VariationalRecommender):
    """Reconstruct a history from codes of two levels; the top one's prior is a mixture that the encoder itself makes.

    H+Vamp (Gated) of Kim and Suh 2019, Enhancing VAEs for Collaborative Filtering: Flexible Priors & Gating Mechanisms,
    section 3; the prior is that of Tomczak and Welling 2018, VAE with a VampPrior. `latent` is the width of both levels
    together, half for each. The weight of the divergence grows as in Mult-VAE. The published code has widths of 600
    and 2 · 200, 1000 pseudo-inputs, a rate of 5e-4, batches of 200, 100 epochs until the weight is whole, and for
    Netflix a weight of 0.3.

    Here pseudo-inputs are learned behind the first layer, as vectors of the width `hidden`: the prior is still the
    posterior of imagined users, but they have no items any more, which an update would have to multiply with all of
    the first layer. And both encoders are shown the same corrupted history; in the published code each is shown one of
    its own. Scores and embeddings are those of the posterior's mean. `averaging` is that of Mult-VAE.
    """

    name: ClassVar[str] = "vamp-vae"

    hidden: Annotated[Count, Field(description="width of each hidden layer")] = 600
    latent: Latent = 400
    pseudo_inputs: Annotated[Count, Field(description="users that the prior imagines")] = 500
    likelihood: LikelihoodName = "multinomial"
    unseen: Unseen = 1.0
    dropout: Dropout = 0.5
    salt: Salt = 0.0
    noise: Noise = 0.0
    half_split: HalfSplit = False
    kl_cap: Annotated[NonNegative, Field(description="weight of the divergence, at most")] = 0.3
    kl_anneal_steps: Annotated[
        NonNegativeInt, Field(description="updates in which that weight would grow from 0 to 1; 0: at once")
    ] = 2000
    weight_decay: WeightDecay = 0.0
    averaging: Averaging = 0.98
    learning_rate: LearningRate = 2e-3
    batch_size: BatchSize = 250
    epochs: Epochs = 200
    patience: Patience = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.latent % 2:
            raise ModelError(
                f"{self.name}: latent = {self.latent} is for two levels of the same width; give an even number"
            )

    def build_network(self, items: int) -> HierarchicalNetwork:
        """Return an untrained network."""
        return HierarchicalNetwork(items, self.hidden, self.latent, self.pseudo_inputs)

    def phases(self, network: HierarchicalNetwork, histories: csr_matrix) -> tuple[Phase]:
        """Return the one phase: the negative evidence lower bound, its divergence drawn and weighted."""
        corruption, reconstruction, items = self.corruption, self.reconstruction, histories.shape[1]

        def draw(batch: Batch, generator: torch.Generator) -> Example:
            shown, target = corruption(batch, items, network.read, generator)
            noise = torch.randn((len(batch), self.latent), generator=generator, device=batch.values.device)
            return Example(shown, target, noise)

        def loss(example: Example, schedule: Schedule) -> Tensor:
            code, mean, log_variance = network.posterior(example.input, example.noise)
            divergence = log_normal(code, mean, log_variance).sum(dim=1) - network.log_prior(code)
            features = network.decoder.features(code)
            return schedule["kl_weight"] * divergence - reconstruction(features, network.decoder.output, example.target)

        def schedule(updates: int) -> Schedule:
            return {"kl_weight": kl_weight(updates, self.kl_cap, self.kl_anneal_steps)}

        return (Phase(Objective(draw, loss, schedule)),)

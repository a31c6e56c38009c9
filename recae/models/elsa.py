"""ELSA: a linear autoencoder of low rank whose weights between items are inner products of unit vectors."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

import torch
from pydantic import Field
from scipy.sparse import csr_matrix
from torch import Tensor, nn

from recae.autoencoder import networks
from recae.autoencoder.batches import Batch, Example, unit_length
from recae.autoencoder.networks import Network
from recae.autoencoder.objectives import Loss, Objective, Phase, Schedule
from recae.autoencoder.training import train
from recae.histories import multiply, presence, require_interactions
from recae.kernels.rows import weighted_rows
from recae.models.base import Count, EmbeddingKind, FitOptions, hyper_parameters, require_kind, require_width
from recae.models.neural import Averaging, BatchSize, Epochs, LearningRate, Patience, WeightDecay
from recae.scoring import Tiles, inner_products
from recae.tensors import require_tensors

SHORTEST = 1e-6
"""The least squared length of a reconstruction, where that of the history is 1: float32 cannot tell it from none."""


class UnitRows(Network):
    """A vector for each item, of which only the direction matters until training is forgotten, and lengths are 1."""

    def __init__(self, items: int, factors: int) -> None:
        super().__init__()
        self.trained = False
        self.items = nn.Parameter(torch.empty(items, factors, device="meta"))

    def initialise(self, generator: torch.Generator) -> None:
        """Draw directions, all of them equally likely."""
        nn.init.normal_(self.items, generator=generator)
        self.forget_training()
        self.trained = False

    def vectors(self) -> Tensor:
        """Return A, items × factors, of rows of length 1."""
        return self.items if self.trained else torch.nn.functional.normalize(self.items, dim=1)

    def latent(self, batch: Batch) -> Tensor:
        """Return xA, users × factors."""
        return weighted_rows(self.vectors(), batch.offsets, batch.items, batch.values)

    def forget_training(self) -> None:
        """Give all vectors the length 1."""
        with torch.no_grad():
            self.items.copy_(self.vectors())
        self.trained = True


@hyper_parameters
class ELSA:
    """Reconstruct a history x as x(AAᵀ - I), where the rows of A, one for each item, have length 1.

    Vančura et al. 2022, Scalable Linear Shallow Autoencoder for Collaborative Filtering. What is minimised is the
    squared distance between history and reconstruction, both divided by their length, as in the published code: 2 less
    twice their cosine. Unit rows make the diagonal of AAᵀ - I zero, as EASE's is, at a cost that grows with the items
    and not with their square. With z = xA and ‖x‖ = 1, the cosine is (zzᵀ - 1) / √(zAᵀAzᵀ - 2zzᵀ + 1), for
    which no weights between items are needed, and nothing larger than A.

    The score is xAAᵀ. To take x away, as the paper does, lowers the items of the history itself by 1 each and no
    other, so every ranking of unseen items is the same; and only without it is a score a product of vectors. Where
    items are ranked that a user has had, they therefore stand higher than in the paper.

    Of `weight_decay` and `averaging` the directions of the vectors are all that matters.
    """

    name: ClassVar[str] = "elsa"
    folds_in: ClassVar[bool] = True

    factors: Annotated[Count, Field(description="width of the vectors of users and items")] = 256
    weight_decay: WeightDecay = 0.0
    averaging: Averaging = 0.0
    learning_rate: LearningRate = 0.1
    batch_size: BatchSize = 100
    epochs: Epochs = 20
    patience: Patience = 10

    def fit(self, histories: csr_matrix, options: FitOptions = FitOptions()) -> Self:
        """Train, from the checkpoint of an unfinished fit if there is one: see `recae.autoencoder.training.train`."""
        seen = presence(histories)
        require_interactions(seen, self.name)
        self.network_ = UnitRows(histories.shape[1], self.factors)
        self.training_ = train(
            self,
            self.network_,
            self.phases(self.network_),
            seen,
            seed=options.seed,
            device=options.device,
            validation=options.validation,
            checkpoint=options.checkpoint,
            listener=options.listener,
        )
        self.network_.forget_training()
        return self

    def phases(self, network: UnitRows) -> tuple[Phase]:
        """Return the one phase: the distance of histories and their reconstructions by a network."""
        return (Phase(Objective(_itself, _distance(network))),)

    def score(self, histories: csr_matrix) -> Tensor:
        """Return users × items."""
        scores: Tensor = self.embed_users(histories) @ self.embed_items().T
        return scores

    def score_by_tile(self, histories: csr_matrix) -> Tiles:
        """Return the scores as tiles."""
        return inner_products(self.embed_users(histories), self.embed_items())

    def embed_users(self, histories: csr_matrix, kind: EmbeddingKind = "latent") -> Tensor:
        """Return xA, users × factors, both kinds the same."""
        require_kind(kind, self.name)
        vectors = self.embed_items()
        require_width(histories, len(vectors), self.name)
        return multiply(presence(histories), vectors)

    def embed_items(self) -> Tensor:
        """Return A, items × factors."""
        return self.network_.vectors().detach()

    def state(self) -> dict[str, Tensor]:
        """Return `items`, A, (items, factors)."""
        return networks.weights(self.network_)

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """Take over a state."""
        require_tensors(state, {"items": (torch.float32, ("items", self.factors))})
        self.network_ = UnitRows(len(state["items"]), self.factors)
        networks.load_weights(self.network_, state)
        self.network_.trained = True
        return self


def _itself(batch: Batch, generator: torch.Generator) -> Example:
    whole = unit_length(batch)
    return Example(whole, whole)


def _distance(network: UnitRows) -> Loss:
    def loss(example: Example, schedule: Schedule) -> Tensor:
        batch = example.target
        # The length of a reconstruction is a difference of large numbers: none of them may be rounded to bfloat16.
        with torch.autocast(batch.values.device.type, enabled=False):
            vectors = network.vectors()
            code = weighted_rows(vectors, batch.offsets, batch.items, batch.values)
            own = code.square().sum(dim=1)
            there = batch.sum_by_user(batch.values**2)  # 1, or 0 of a user without interactions
            squared = _squared_lengths(code, vectors) - 2 * own + there
            cosine = (own - there) * squared.clamp(min=SHORTEST).rsqrt()
            return 2 - 2 * cosine

    return loss


def _squared_lengths(code: Tensor, vectors: Tensor) -> Tensor:
    """Return those of zAᵀ, (users), by way of zAᵀ or of AᵀA, whichever takes less; neither is larger than A."""
    if len(code) < vectors.shape[1]:
        return (code @ vectors.T).square().sum(dim=1)
    return (code @ (vectors.T @ vectors) * code).sum(dim=1)

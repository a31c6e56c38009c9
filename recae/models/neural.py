"""What every model with a network does in the same way, so that its own file holds only the model."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, NonNegativeInt
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.autoencoder import networks
from recae.autoencoder.networks import Network
from recae.autoencoder.objectives import Phase
from recae.autoencoder.training import Trainable, train
from recae.models.base import (
    Count,
    EmbeddingKind,
    FitOptions,
    NonNegative,
    Positive,
    Unit,
    Widths,
    require_kind,
    require_width,
)
from recae.models.histories import presence, require_interactions
from recae.scoring import Tiles

Hidden = Annotated[Widths, Field(description="widths of the hidden layers, outermost first; [] for none")]
Latent = Annotated[Count, Field(description="width of the bottleneck, and of latent embeddings")]
Dropout = Annotated[Unit, Field(description="chance of each item of a history to be hidden while the model learns")]
Negatives = Annotated[
    NonNegativeInt, Field(description="items that an update draws to stand for the whole catalogue; 0: all of it")
]
Tied = Annotated[bool, Field(description="whether the first layer and the last share their weights")]
WeightDecay = Annotated[NonNegative, Field(description="weight of Σ‖W‖² in what is minimised")]
Averaging = Annotated[
    Unit, Field(description="what an update leaves of the weights' average, which is then the model; 0: no average")
]
LearningRate = Annotated[Positive, Field(description="of Adam")]
BatchSize = Annotated[Count, Field(description="users in an update")]
Epochs = Annotated[Count, Field(description="times that training goes through the users, at most")]
Patience = Annotated[Count, Field(description="epochs without a better validation NDCG@100 that end training")]
"""Hyper-parameters that several of these models have: what each takes and means."""


class NeuralRecommender(Trainable, ABC):
    """A model that is a network and what training minimises: all that it has to bring, beside hyper-parameters."""

    folds_in: ClassVar[bool] = True

    @abstractmethod
    def build_network(self, items: int) -> Network:
        """Return an untrained network for a catalogue of so many items."""

    @abstractmethod
    def phases(self, network: Any, histories: csr_matrix) -> Sequence[Phase]:
        """Return what an epoch minimises, and in which order, for a network of `build_network` and what it learns."""

    def fit(self, histories: csr_matrix, options: FitOptions = FitOptions()) -> Self:
        """Train, from the checkpoint of an unfinished fit if there is one: see `recae.autoencoder.training.train`."""
        require_interactions(histories, self.name)
        self.network_ = self.build_network(histories.shape[1])
        seen = presence(histories)
        self.training_ = train(
            self,
            self.network_,
            self.phases(self.network_, seen),
            seen,
            seed=options.seed,
            device=options.device,
            validation=options.validation,
            checkpoint=options.checkpoint,
            listener=options.listener,
        )
        self.network_.forget_training()
        return self

    def score(self, histories: csr_matrix) -> Tensor:
        """Return the logits, users × items."""
        return networks.logits(self.network_, self._read(histories))

    def score_by_tile(self, histories: csr_matrix) -> Tiles:
        """Return the logits as tiles."""
        return networks.tiles(self.network_, self._read(histories))

    def embed_users(self, histories: csr_matrix, kind: EmbeddingKind = "latent") -> Tensor:
        """Return the bottleneck, users × latent, or the vectors whose product with the items' is the score."""
        require_kind(kind, self.name)
        read = networks.latent_vectors if kind == "latent" else networks.retrieval_vectors
        return read(self.network_, self._read(histories))

    def embed_items(self) -> Tensor:
        """Return the output weights, each item's with its bias as last coordinate."""
        return networks.item_vectors(self.network_)

    def state(self) -> dict[str, Tensor]:
        """Return the network's weights."""
        return networks.weights(self.network_)

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """Take over a state."""
        self.network_ = self.build_network(len(state["decoder.output.bias"]))
        self.network_.forget_training()
        networks.load_weights(self.network_, state)
        return self

    def _read(self, histories: csr_matrix) -> csr_matrix:
        require_width(histories, self.network_.decoder.output.out_features, self.name)
        return presence(histories)

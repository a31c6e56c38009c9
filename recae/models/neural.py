"""What every model with a network does in the same way, so that its own file holds only the model."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field, NonNegativeInt
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.autoencoder import explained, networks
from recae.autoencoder.batches import Batch, batch_of
from recae.autoencoder.corruption import Corruption
from recae.autoencoder.likelihoods import Likelihood, Reconstruction, require_reconstruction
from recae.autoencoder.networks import Network
from recae.autoencoder.objectives import Phase
from recae.autoencoder.standard import Scale, Standard
from recae.autoencoder.training import Trainable, require_room, train
from recae.histories import require_interactions, valued
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
from recae.scoring import Tiles

Hidden = Annotated[Widths, Field(description="widths of the hidden layers, outermost first; [] for none")]
Latent = Annotated[Count, Field(description="width of the bottleneck, and of latent embeddings")]
Dropout = Annotated[Unit, Field(description="chance of each item of a history to be hidden while the model learns")]
Salt = Annotated[Unit, Field(description="chance of each item of a history to be joined by one drawn at random")]
Noise = Annotated[NonNegative, Field(description="standard deviation of what is added to values while it learns")]
HalfSplit = Annotated[bool, Field(description="whether it learns to tell one half of a history from the other")]
Shown = Annotated[
    float, Field(gt=0, lt=1, description="chance of each item to be in the part of a split history that is shown")
]
LikelihoodName = Annotated[
    Likelihood,
    Field(description="shares of a whole, yes or no, any value (a rating), or a count: what is reconstructed"),
]
Unseen = Annotated[
    NonNegative, Field(description="weight of items outside of a history, whose value is 0; not for multinomial")
]
UnitLength = Annotated[bool, Field(description="whether histories are divided by their Euclidean norm before all else")]
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
Patience = Annotated[Count, Field(description="epochs without a better figure on validation data that end training")]
"""Hyper-parameters that several of these models have: what each takes and means."""


class NeuralRecommender(Trainable, ABC):
    """A model that is a network and what training minimises: all that it has to bring, beside hyper-parameters."""

    folds_in: ClassVar[bool] = True

    likelihood: Likelihood
    unseen: float
    dropout: float
    salt: float
    noise: float
    half_split: bool

    def __post_init__(self) -> None:
        """Refuse settings of the likelihood that contradict each other; what a model adds to it calls this first."""
        require_reconstruction(self.likelihood, self.unseen, getattr(self, "negatives", 0), self.name)

    @property
    def reconstruction(self) -> Reconstruction:
        """The likelihood of what the network is to reconstruct."""
        return Reconstruction(self.likelihood, self.unseen)

    @property
    def corruption(self) -> Corruption:
        """What is done to a history before the network is shown it in training."""
        return Corruption(self.dropout, self.salt, self.noise, self.half_split, getattr(self, "shown", 0.5))

    @abstractmethod
    def build_network(self, items: int) -> Network:
        """Return an untrained network for a catalogue of so many items."""

    @abstractmethod
    def phases(self, network: Any, histories: csr_matrix) -> Sequence[Phase]:
        """Return what an epoch minimises, and in which order, for a network of `build_network` and what it learns."""

    def fit(self, histories: csr_matrix, options: FitOptions = FitOptions()) -> Self:
        """Train, from the checkpoint of an unfinished fit if there is one: see `recae.autoencoder.training.train`."""
        seen = valued(histories, zeros=self.reconstruction.keeps_zeros)
        require_interactions(seen, self.name)
        self.require_values(seen)
        self.network_ = self.build_network(histories.shape[1])
        if self.reconstruction.observed_only:
            scale = Scale.of(seen)
            self.network_.standard = Standard(histories.shape[1], scale)
            seen.data /= scale.deviation
            seen = valued(seen, zeros=True)
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

    def require_memory(self, histories: csr_matrix, device: str) -> None:
        """Raise ModelError where a device does not have the memory for the weights and their optimiser."""
        with torch.device("meta"):
            network = self.planned(histories)
        require_room(self, network, device)

    def planned(self, histories: csr_matrix) -> Network:
        """Return an untrained network for a fit to these histories."""
        return self.build_network(histories.shape[1])

    def require_values(self, histories: csr_matrix) -> None:
        """Raise ModelError for values that the likelihood gives no chance."""
        self.reconstruction.require_values(histories.data, self.name)

    def score(self, histories: csr_matrix) -> Tensor:
        """Return the logits, users × items: where observed values alone count, they are in deviations."""
        return networks.logits(self.network_, self._read(histories))

    def score_by_tile(self, histories: csr_matrix) -> Tiles:
        """Return the logits as tiles."""
        return networks.tiles(self.network_, self._read(histories))

    @property
    def predicts(self) -> bool:
        """Whether the likelihood tells how large a value is, and not only how histories are shared among items."""
        return self.likelihood != "multinomial"

    def predict(self, histories: csr_matrix) -> Tensor:
        """Return the expected values, users × items; CannotPredict for a multinomial likelihood."""
        values, standard = self.reconstruction.expected(self.score(histories)), self.network_.standard
        return values if standard is None else values * standard.deviation

    def log_likelihoods(self, histories: csr_matrix, interactions: csr_matrix) -> Tensor:
        """Return log p of each interaction, (interactions): see `recae.autoencoder.explained`."""
        shown = self._read(histories)
        require_width(interactions, histories.shape[1], self.name)
        batch = self._scaled(batch_of(interactions, shown.values.device))
        return explained.log_likelihoods(self.network_, self.likelihood, shown, batch)

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
        items = len(state["decoder.output.bias"])
        self.network_ = self.build_network(items)
        if self.reconstruction.observed_only:
            self.network_.standard = Standard(items)
        self.network_.forget_training()
        networks.load_weights(self.network_, state)
        return self

    def _read(self, histories: csr_matrix) -> Batch:
        output = self.network_.decoder.output
        require_width(histories, output.out_features, self.name)
        return self._scaled(batch_of(valued(histories, zeros=self.reconstruction.keeps_zeros), output.weight.device))

    def _scaled(self, batch: Batch) -> Batch:
        standard = self.network_.standard
        return batch if standard is None else standard.scaled(batch)

"""Hybrid: a variational autoencoder and a full-rank memory of users in one score."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, ClassVar, Self

import numpy as np
import torch
from pydantic import Field
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.errors import CannotEmbed, ModelError
from recae.histories import presence, require_interactions
from recae.metrics import find_hits, measure_users
from recae.models.base import (
    Count,
    EmbeddingKind,
    FitOptions,
    NonNegative,
    Positive,
    hyper_parameters,
    require_kind,
    require_width,
)
from recae.models.infinite_ae import L2, Landmarks, Sharpness
from recae.models.kernel_ae import KernelAE
from recae.models.neural import Averaging, BatchSize, Dropout, Epochs, Latent, LearningRate, Patience
from recae.models.rec_vae import RecVAE
from recae.profiling import stage
from recae.scoring import Tiles
from recae.tensors import require_tensors
from recae.validation import WATCHED, Validation

BLOCK = 2**24
"""How many scores tell how far those of a part spread."""

JUDGES = 1000
"""How many validation users choose the weight, at most: their scores by both parts are held at a time."""

WEIGHTS = (0.0, 0.06, 0.12, 0.18, 0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 4.0, 16.0, 64.0)
"""Weights of the memory that are tried, where with 1 its scores spread as far as the deep part's."""

USUAL = 0.7
"""The weight without validation users: that of MovieLens-1M (docs/LOG.md)."""


@hyper_parameters
class Hybrid:
    """Score a history by its code and by the users it is like, and add the two.

    The deep part is RecVAE: it knows what kind of history this is. The other is Kernel-AE, which is in closed form and,
    by the weights between all items that it holds, of full rank: it knows which item goes with which, and who has had
    all this before, as no bottleneck can. Each is fitted by itself; docs/LOG.md has what became of fitting them
    together.

    How much the second weighs is chosen for the best NDCG@100 of the validation users, whose held-out items neither
    part has seen (the likelihood would choose far too little of it); without validation users it is what is best on
    MovieLens-1M. The latent embedding is that of the deep part; as a part of the score has full rank, there are no
    retrieval vectors.
    """

    name: ClassVar[str] = "hybrid"
    folds_in: ClassVar[bool] = True
    keeps: ClassVar[float] = 0.1  # the share of the users that `recae train` keeps to choose by, if not told otherwise

    hidden: Annotated[Count, Field(description="width of each hidden layer of the encoder")] = 600
    layers: Annotated[Count, Field(description="hidden layers of the encoder")] = 5
    latent: Latent = 200
    dropout: Dropout = 0.5
    gamma: Annotated[NonNegative, Field(description="weight of the divergence, for each item of the history")] = 0.005
    l2: Annotated[Positive, Field(description="weight of |B|² in the linear autoencoder")] = 200.0
    kernel_l2: L2 = 20.0
    sharpness: Sharpness = 2.0
    landmarks: Landmarks = 5000
    averaging: Averaging = 0.98
    learning_rate: LearningRate = 5e-4
    batch_size: BatchSize = 250
    epochs: Epochs = 100
    patience: Patience = 15

    def fit(self, histories: csr_matrix, options: FitOptions = FitOptions()) -> Self:
        """Solve for the one part, train the other, and weigh them; ModelError where the memory will not do."""
        require_interactions(histories, self.name)
        self.require_memory(histories, options.device)
        seen = presence(histories)
        self.memory_ = self._memory().fit(seen, options)
        heard = replace(options, listener=lambda step: options.listener(replace(step, task=self.name)))
        self.deep_ = self._deep().fit(seen, heard)
        self.training_ = self.deep_.training_
        weight, some = USUAL, seen[: max(1, BLOCK // seen.shape[1])]
        deep, memory = (float(part.score(some).std(correction=0)) for part in (self.deep_, self.memory_))
        alike = deep / memory if memory else 0.0
        if options.validation is not None:
            with stage("weigh"):
                weight = self._best_weight(options.validation, alike)
        self.weight_ = torch.tensor(weight * alike, device=options.device)
        return self

    def require_memory(self, histories: csr_matrix, device: str) -> None:
        """Raise ModelError where a device does not have the memory for the part in closed form."""
        try:
            self._memory().require_memory(histories, device)
        except ModelError as error:
            raise ModelError(f"{self.name}: {error}") from None

    def score(self, histories: csr_matrix) -> Tensor:
        """Return users × items."""
        seen = self._read(histories)
        return torch.addcmul(self.deep_.score(seen), self.memory_.score(seen), self.weight_)

    def score_by_tile(self, histories: csr_matrix) -> Tiles:
        """Return the scores as tiles."""
        seen = self._read(histories)
        deep, memory = self.deep_.score_by_tile(seen), self.memory_.score_by_tile(seen)

        def write(start: int, tile: Tensor) -> None:
            deep.write(start, tile)
            part = torch.empty_like(tile)
            memory.write(start, part)
            tile.addcmul_(part, self.weight_)

        return Tiles(deep.device, write)

    def embed_users(self, histories: csr_matrix, kind: EmbeddingKind = "latent") -> Tensor:
        """Return the deep part's bottleneck, users × latent; CannotEmbed for retrieval."""
        require_kind(kind, self.name)
        if kind == "retrieval":
            raise self._no_product()
        return self.deep_.embed_users(self._read(histories))

    def embed_items(self) -> Tensor:
        """Raise CannotEmbed: no vectors have these scores for products."""
        raise self._no_product()

    def state(self) -> dict[str, Tensor]:
        """Return the states of both parts, and the weight of the second."""
        parts = {"deep.": self.deep_.state(), "memory.": self.memory_.state()}
        states = {part + name: tensor for part, state in parts.items() for name, tensor in state.items()}
        return {**states, "weight": self.weight_}

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """Take over a state."""
        rest = {name: tensor for name, tensor in state.items() if not name.startswith(("deep.", "memory."))}
        require_tensors(rest, {"weight": (torch.float32, ())})
        deep, memory = (
            {name.removeprefix(part): tensor for name, tensor in state.items() if name.startswith(part)}
            for part in ("deep.", "memory.")
        )
        self.deep_, self.memory_ = self._deep().restore(deep), self._memory().restore(memory)
        widths = len(self.deep_.embed_items()), len(self.memory_.rarity_)
        if widths[0] != widths[1]:
            raise ValueError(f"one part knows {widths[0]} items, the other {widths[1]}")
        self.weight_ = state["weight"]
        return self

    def _read(self, histories: csr_matrix) -> csr_matrix:
        require_width(histories, len(self.memory_.rarity_), self.name)
        return presence(histories)

    def _deep(self) -> RecVAE:
        return RecVAE(
            hidden=self.hidden,
            layers=self.layers,
            latent=self.latent,
            dropout=self.dropout,
            gamma=self.gamma,
            encoder_passes=1,
            decoder_passes=1,
            averaging=self.averaging,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            epochs=self.epochs,
            patience=self.patience,
        )

    def _memory(self) -> KernelAE:
        return KernelAE(l2=self.l2, kernel_l2=self.kernel_l2, sharpness=self.sharpness, landmarks=self.landmarks)

    def _no_product(self) -> CannotEmbed:
        return CannotEmbed(
            f"{self.name} has no retrieval vectors, as weights between all items are a part of its score; "
            "ask for latent ones, or train rec-vae"
        )

    def _best_weight(self, validation: Validation, alike: float) -> float:
        """Return the one of WEIGHTS with the best NDCG@100, where `alike` makes both parts spread alike."""
        history, held_out = validation.history, validation.held_out
        judges = np.flatnonzero(np.diff(held_out.indptr))[: min(JUDGES, max(1, 8 * BLOCK // history.shape[1]))]
        history, held_out = presence(history[judges]), held_out[judges]
        deep, memory = self.deep_.score(history), self.memory_.score(history) * alike
        deep[history.nonzero()] = -torch.inf
        targets, k = np.diff(held_out.indptr), min(WATCHED.k, history.shape[1])

        def reached(weight: float) -> float:
            best = torch.add(deep, memory, alpha=weight).topk(k).indices.cpu().numpy()
            return float(measure_users(WATCHED, find_hits(best, held_out), targets).mean())

        return max(WEIGHTS, key=reached)

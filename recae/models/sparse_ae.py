"""Sparse autoencoder: many units, of which few fire for a history, so that each can be given a name."""

from dataclasses import dataclass, fields
from typing import Annotated, ClassVar, Self, cast

import torch
from pydantic import Field
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.autoencoder.batches import Batch, Example, batch_of
from recae.autoencoder.objectives import Objective, Phase, Schedule
from recae.autoencoder.sparse import (
    SparseNetwork,
    Sparsity,
    best_constant,
    blocks,
    divergence_from,
    excess,
    lift,
    mean_read,
    share_fired,
)
from recae.errors import ModelError
from recae.histories import presence, valued
from recae.models.base import Count, FitOptions, NonNegative, hyper_parameters
from recae.models.neural import (
    Averaging,
    BatchSize,
    Dropout,
    Epochs,
    HalfSplit,
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

SETTINGS = {"l1": ("penalty",), "kl": ("penalty", "activation"), "top-k": ("active",)}
"""The hyper-parameters of each kind of sparsity."""


@dataclass(frozen=True, eq=False)
class Units:
    """What units respond to.

    fires:    (units) float32, for what share of the users each fires
    items:    (units, top) int64, the items that tell what it stands for: those of the largest lift, or of the largest
              excess where there were no histories to count in, or it fires for none of them
    weights:  (units, top) float32, their output weights: what it adds to their logits for each 1 that it gives
    excesses: (units, top) float32, by how much those are above what is usual for the item: see `sparse.excess`
    lifts:    (units, top) float32, how many times as often as all users those have the item for whom the unit fires:
              see `sparse.lift`; None where there were no histories to count in
    """

    fires: Tensor
    items: Tensor
    weights: Tensor
    excesses: Tensor
    lifts: Tensor | None


@hyper_parameters
class SparseAE(NeuralRecommender):
    """Reconstruct a history from the few of many units that fire for it.

    With sparsity = top-k, those `active` units that read most of a history get through, and the others are 0 (Makhzani
    and Frey 2014, k-Sparse Autoencoders; here what gets through is never below 0). With l1, `penalty` · Σ_j h_j is
    added to what is minimised, h_j ≥ 0 being what unit j gives; as smaller h with larger output weights would be as
    good, it needs some `weight_decay`. With kl, units are between 0 and 1, and `penalty` · Σ_j KL(activation ‖ the mean
    of h_j over a batch) is added (Lee et al. 2008, Sparse deep belief net model for visual area V2; Ng 2011, Sparse
    autoencoder); it learns faster with a learning_rate of 3e-3 and a weight_decay of 1e-4. A unit fires where h_j > 0,
    with kl where h_j > ½, which few units reach.

    The training tells at each epoch how many units fire for a user (`units_firing`) and what share of them fires for
    none (`units_dead`). `units` says what each unit responds to; so does `recae units`.
    """

    name: ClassVar[str] = "sparse-ae"

    latent: Annotated[Count, Field(description="units, of which few fire; the width of latent embeddings")] = 500
    sparsity: Annotated[
        Sparsity, Field(description="a sum that is punished, a mean that is wanted, or a number that get through")
    ] = "top-k"
    active: Annotated[Count, Field(description="units that get through for a user; only for top-k")] = 100
    penalty: Annotated[NonNegative, Field(description="weight of what keeps units from firing; only for l1 and kl")] = (
        0.1
    )
    activation: Annotated[float, Field(gt=0, lt=1, description="mean of a unit that is wanted; only for kl")] = 0.05
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

    def __post_init__(self) -> None:
        super().__post_init__()
        others = set().union(*SETTINGS.values()) - set(SETTINGS[self.sparsity])
        for field in fields(self):
            given = getattr(self, field.name)
            if field.name in others and given != field.default:
                kinds = " or ".join(kind for kind, names in SETTINGS.items() if field.name in names)
                raise ModelError(
                    f"{self.name}: {field.name} = {given:g} is for sparsity = {kinds}; give that, or leave it out"
                )
        if self.sparsity == "top-k" and self.active > self.latent:
            raise ModelError(
                f"{self.name}: active = {self.active}, and there are latent = {self.latent} units; give fewer, or "
                "more units"
            )

    def build_network(self, items: int) -> SparseNetwork:
        """Return an untrained network."""
        return SparseNetwork(
            items,
            self.latent,
            active=self.active if self.sparsity == "top-k" else None,
            resting=self.activation if self.sparsity == "kl" else None,
            unit_length=self.unit_length,
        )

    def fit(self, histories: csr_matrix, options: FitOptions = FitOptions()) -> Self:
        """Train, and remember for what share of the users each unit fires."""
        super().fit(histories, options)
        self._network.fires.copy_(self._share_fired(histories))
        return self

    def phases(self, network: SparseNetwork, histories: csr_matrix) -> tuple[Phase]:
        """Return the one phase: the negative log-likelihood of whole histories, and what keeps the units sparse."""
        corruption, reconstruction, items = self.corruption, self.reconstruction, histories.shape[1]
        network.begin_with(mean_read(network, histories), best_constant(reconstruction, histories))

        def draw(batch: Batch, generator: torch.Generator) -> Example:
            shown, target = corruption(batch, items, network.read, generator)
            if self.sparsity != "kl":
                network.wake(shown)
                return Example(shown, target)
            with torch.no_grad():
                return Example(shown, target, common=network.latent(shown).mean(dim=0))

        def loss(example: Example, schedule: Schedule) -> Tensor:
            units = network.latent(example.input)
            misfit = -reconstruction(units, network.decoder.output, example.target)
            if self.sparsity == "l1":
                return misfit + self.penalty * units.sum(dim=1)
            if self.sparsity == "kl":
                # Linear in each user's units, so that the parts of a batch add up; over all of it, the mean and the
                # gradient are those of the divergence itself.
                divergence, slope = divergence_from(self.activation, example.common)
                return misfit + self.penalty * (divergence + (units - example.common) @ slope)
            return misfit

        def figures() -> dict[str, float]:
            device = network.fires.device
            fires = share_fired(network, (batch_of(block, device) for block in blocks(histories)))
            return {"units_firing": float(fires.sum()), "units_dead": float((fires == 0).float().mean())}

        return (Phase(Objective(draw, loss), figures=figures),)

    def units(self, top: int = 10, histories: csr_matrix | None = None) -> Units:
        """Return how often each unit fires over histories, by default those of the training, and its top items.

        The training's are not kept, so that without histories the top items are told from the weights alone.
        """
        network = self._network
        weight = network.decoder.output.weight.detach()
        own = excess(weight)
        if histories is None:
            fires, lifts, rated = network.fires, None, own
        else:
            seen = presence(valued(histories, zeros=self.reconstruction.keeps_zeros))
            fires, lifts = lift(network, seen, map(self._read, blocks(histories)))
            rated = torch.where(fires > 0, lifts, own)
        items = rated.topk(min(top, len(weight)), dim=0).indices

        def of_top(table: Tensor) -> Tensor:
            return table.gather(0, items).T

        return Units(fires, items.T, of_top(weight), of_top(own), None if lifts is None else of_top(lifts))

    def _share_fired(self, histories: csr_matrix) -> Tensor:
        return share_fired(self._network, map(self._read, blocks(histories)))

    @property
    def _network(self) -> SparseNetwork:
        return cast(SparseNetwork, self.network_)

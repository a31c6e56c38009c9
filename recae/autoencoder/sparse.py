"""The network of sparse-ae: more units than a bottleneck has, of which few fire for a history.

A unit fires where what it reads of a history is above its threshold. What it then gives is multiplied with its column
of the output's weight and added to the logits, so a unit stands for the items whose weights in it are largest.
"""

from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.autoencoder.batches import Batch, batch_of
from recae.autoencoder.likelihoods import Reconstruction
from recae.autoencoder.networks import Decoder, Encoder, Network

Sparsity = Literal["l1", "kl", "top-k"]

AT_ONCE = 1024
"""How many histories are looked at together where all of them are."""

WAKING = 0.1
"""What is added to the bias of a unit that is silent for a whole batch, of what a unit that fires gives on average."""


class SparseNetwork(Network):
    """One layer of units, and an affine map from there to the items.

    With `active`, only so many units get through, those that read most. Units that are smooth are between 0 and 1 and
    fire above ½, from `resting` for a history like all others at first; the rest have no upper bound and are 0 where
    they do not fire. `fires` (units) is for what share of the users of its training each unit fires, once that is over.
    """

    fires: Tensor

    def __init__(
        self,
        items: int,
        units: int,
        *,
        active: int | None = None,
        resting: float | None = None,
        unit_length: bool = True,
    ) -> None:
        super().__init__()
        self.active, self.resting, self.unit_length = active, resting, unit_length
        self._first: tuple[Tensor, Tensor] | None = None
        with torch.device("meta"):
            self.encoder = Encoder(items, (units,))
            self.decoder = Decoder((units,), items)
            self.register_buffer("fires", torch.empty(units))

    def begin_with(self, history: Tensor, logits: Tensor) -> None:
        """Let units be told apart by how a history differs from the mean one, and what they add be added to logits.

        history, logits (items): the mean of all histories as they are read, and the logits that explain all of them
        best. Otherwise the units have to learn first what is popular, which some of them do for all users, and the
        others never fire: see docs/LOG.md.
        """
        self._first = history, logits

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the first weights; a unit answers with the very items it reads."""
        super().initialise(generator)
        self.fires.zero_()
        reads, answers = self.encoder.input, self.decoder.output
        with torch.no_grad():
            answers.weight.copy_(reads.weight)
            if self._first is not None:
                history, logits = self._first
                reads.bias.copy_(-history @ reads.weight)
                answers.bias.copy_(logits)
            if self.resting is not None:
                reads.bias.add_(torch.logit(torch.tensor(self.resting)))

    def latent(self, batch: Batch) -> Tensor:
        """Return what the units give, users × units."""
        read = self.encoder(batch)
        if self.resting is not None:
            return torch.sigmoid(read)
        if self.active is None:
            return torch.relu(read)
        most, places = read.topk(self.active, dim=1, sorted=False)
        return torch.zeros_like(read).scatter(1, places, torch.relu(most))

    def firing(self, given: Tensor) -> Tensor:
        """Return whether each unit fires, users × units, from what the units give."""
        return given > (0.0 if self.resting is None else 0.5)

    @torch.no_grad()
    def wake(self, batch: Batch) -> None:
        """Raise the bias of the units that fire for nobody in a batch, a little at a time until they do."""
        given = self.latent(batch)
        fires = self.firing(given)
        step = WAKING * given.sum() / fires.sum().clamp(min=1)
        self.encoder.input.bias.add_(step * ~fires.any(dim=0))

    def forget_training(self) -> None:
        """Let go of what the first weights were made of."""
        self._first = None


@torch.no_grad()
def share_fired(network: SparseNetwork, batches: Iterable[Batch]) -> Tensor:
    """Return for what share of the users of all batches each unit fires, (units); of no users, 0."""
    fired, users = torch.zeros_like(network.fires), 0
    for batch in batches:
        fired += network.firing(network.latent(network.read(batch))).sum(dim=0)
        users += len(batch)
    return fired / max(1, users)


def mean_read(network: Network, histories: csr_matrix) -> Tensor:
    """Return the mean of all histories as a network reads them, (items): 0 where it takes items' means from values."""
    total = torch.zeros(histories.shape[1])
    if network.standard is not None:
        return total
    for block in blocks(histories):
        read = network.read(batch_of(block, "cpu"))
        total.index_add_(0, read.items, read.values)
    return total / histories.shape[0]


def best_constant(reconstruction: Reconstruction, histories: csr_matrix) -> Tensor:
    """Return the logits, (items), that explain histories best if they are to be the same for all users.

    They stand for the mean value of each item, an item outside of a history counting `unseen`; a mean that has no
    logit is taken for one that has.
    """
    users = histories.shape[0]
    own = np.bincount(histories.indices, minlength=histories.shape[1])
    sums = np.bincount(histories.indices, weights=histories.data, minlength=histories.shape[1])
    mean = sums / np.maximum(own + reconstruction.unseen * (users - own), 1)
    if reconstruction.likelihood != "gaussian":
        least = 1 / (users + 1)
        mean = mean.clip(least, 1 - least if reconstruction.likelihood == "bernoulli" else None)
        mean = np.log(mean / (1 - mean)) if reconstruction.likelihood == "bernoulli" else np.log(mean)
    return torch.from_numpy(mean.astype(np.float32))


def divergence_from(target: float, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Return Σ_j KL(ρ ‖ ρ̂_j), (), and its slope by each ρ̂_j, (units), whose means ρ̂_j should be ρ.

    KL(ρ ‖ ρ̂) = ρ log(ρ / ρ̂) + (1 - ρ) log((1 - ρ) / (1 - ρ̂)): Ng 2011, Sparse autoencoder (lecture notes), section 3.
    """
    mean = mean.clamp(1e-6, 1 - 1e-6)
    of_firing = torch.xlogy(target, target / mean)
    of_silence = torch.xlogy(1 - target, (1 - target) / (1 - mean))
    return (of_firing + of_silence).sum(), (mean - target) / (mean * (1 - mean))


def blocks(histories: csr_matrix) -> Iterator[csr_matrix]:
    """Cut histories into those that are looked at together."""
    for start in range(0, histories.shape[0], AT_ONCE):
        yield histories[start : start + AT_ONCE]

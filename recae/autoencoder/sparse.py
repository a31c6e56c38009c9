"""The network of sparse-ae: more units than a bottleneck has, of which few fire for a history.

A unit fires where what it reads of a history is above its threshold. What it then gives is multiplied with its column
of the output's weight and added to the logits. Popular items have large weights in many units, so a unit stands for
the items whose weights in it are large for them (`excess`), or that more of the users have for whom it fires (`lift`).
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

BY_CHANCE = 10.0
"""How many users are added to those who have an item and fire a unit, and to how many would by chance: a few users
prove little."""

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
def fired(network: SparseNetwork, batches: Iterable[Batch]) -> Iterator[Tensor]:
    """Yield for each batch whether each unit fires for each user, users × units."""
    for batch in batches:
        yield network.firing(network.latent(network.read(batch)))


def share_fired(network: SparseNetwork, batches: Iterable[Batch]) -> Tensor:
    """Return for what share of the users of all batches each unit fires, (units); of no users, 0."""
    total, users = torch.zeros_like(network.fires), 0
    for fires in fired(network, batches):
        total += fires.sum(dim=0)
        users += len(fires)
    return total / max(1, users)


def lift(network: SparseNetwork, seen: csr_matrix, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    """Return what `share_fired` does, and the lift of each item in each unit, items × units.

    seen: the histories, users × items, with a one for every item a user has; batches: the same, as they are read

    The lift of an item in a unit is (n + s) / (e + s): n users have the item and fire the unit, e would if the two had
    nothing to do with each other, and s is `BY_CHANCE`. It is 1 where there is nothing to tell.
    """
    users, items = seen.shape
    have, firing, start = np.zeros((items, len(network.fires)), np.float32), torch.zeros_like(network.fires), 0
    for fires in fired(network, batches):
        block = seen[start : start + len(fires)]
        have += block.T @ fires.cpu().numpy().astype(np.float32)
        firing += fires.sum(dim=0)
        start += len(fires)
    share = firing / max(1, users)
    of_items = torch.as_tensor(np.bincount(seen.indices, minlength=items), device=share.device, dtype=share.dtype)
    return share, (torch.as_tensor(have, device=share.device) + BY_CHANCE) / (torch.outer(of_items, share) + BY_CHANCE)


def excess(weight: Tensor) -> Tensor:
    """Return how far output weights, items × units, are above what is usual for the item, in standard deviations.

    (w - the item's mean over the units) / √(σ² + σ̄²), σ being the item's standard deviation over the units and σ̄ the
    mean of all items': an item whose weights hardly differ, because it is rare, does not stand out by them.
    """
    deviation, mean = torch.std_mean(weight, dim=1, correction=0, keepdim=True)
    usual = (deviation.square() + deviation.mean().square()).sqrt()
    return (weight - mean) / usual.clamp(min=torch.finfo(usual.dtype).tiny)


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

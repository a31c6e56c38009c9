"""The networks, and what is read off a fitted one.

users × items  ─ encoder ─►  users × latent  ─ decoder ─►  users × features  ─ output ─►  users × items (logits)

Networks are built without memory, on torch's meta device: weights come either from `initialise` or from a state. So
building one costs nothing and touches no random generator but the one it is given.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from recae.autoencoder.batches import Batch, unit_length
from recae.autoencoder.standard import Standard, by_root_of_length
from recae.kernels.row_sparse import weighted_rows_touched
from recae.kernels.rows import weighted_rows
from recae.scoring import Tiles, inner_products
from recae.tensors import forms_of, require_tensors

BIAS_SPREAD = 0.001


class SparseLinear(nn.Module):
    """An affine map of histories: for each user, a weighted sum of the weight's rows (items × width) of its items.

    Where it is `row_sparse`, so is the gradient of its weight.
    """

    def __init__(self, items: int, width: int, *, row_sparse: bool = False) -> None:
        super().__init__()
        self.row_sparse = row_sparse
        self.weight = nn.Parameter(torch.empty(items, width))
        self.bias = nn.Parameter(torch.empty(width))

    def forward(self, batch: Batch) -> Tensor:
        """Return users × width."""
        if self.row_sparse:
            summed = weighted_rows_touched(self.weight, batch.offsets, batch.users, batch.items, batch.values)
        else:
            summed = weighted_rows(self.weight, batch.offsets, batch.items, batch.values)
        return summed + self.bias


class TiedLinear(nn.Module):
    """An affine map to the items whose weight is that of the first layer, which keeps it; the bias is its own."""

    def __init__(self, first: SparseLinear) -> None:
        super().__init__()
        self._first = (first,)  # in a tuple, so that it is no part of this module, and its weight never stands twice
        self.out_features = len(first.weight)
        self.bias = nn.Parameter(torch.empty(self.out_features))

    @property
    def weight(self) -> nn.Parameter:
        """Return the first layer's weight, items × width."""
        return self._first[0].weight

    def forward(self, features: Tensor) -> Tensor:
        """Return logits, users × items."""
        return linear(features, self.weight, self.bias)


class Encoder(nn.Module):
    """Affine maps from a history to the last of `widths`, with tanh between them and none at the end."""

    def __init__(self, items: int, widths: tuple[int, ...], *, row_sparse: bool = False) -> None:
        super().__init__()
        self.input = SparseLinear(items, widths[0], row_sparse=row_sparse)
        self.layers = nn.ModuleList(nn.Linear(narrow, wide) for narrow, wide in pairwise(widths))

    def forward(self, batch: Batch) -> Tensor:
        """Return users × the last width."""
        activation = self.input(batch)
        for layer in self.layers:
            activation = layer(torch.tanh(activation))
        return activation  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Affine maps with tanh from the first of `widths` to the last, the features; one more from there to the items.

    The last one has a weight of its own, or that of the layer it is tied to.
    """

    output: nn.Linear | TiedLinear

    def __init__(self, widths: tuple[int, ...], items: int, *, tied_to: SparseLinear | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(narrow, wide) for narrow, wide in pairwise(widths))
        self.output = TiedLinear(tied_to) if tied_to is not None else nn.Linear(widths[-1], items)

    def features(self, latent: Tensor) -> Tensor:
        """Return users × features, the layer before the output."""
        for layer in self.layers:
            latent = torch.tanh(layer(latent))
        return latent

    def forward(self, latent: Tensor) -> Tensor:
        """Return logits, users × items."""
        return self.output(self.features(latent))  # type: ignore[no-any-return]


class Decoding(Protocol):
    """What decodes a latent vector: features, and an affine map of them to the items."""

    output: nn.Linear | TiedLinear

    def features(self, latent: Tensor) -> Tensor:
        """Return users × features, the layer before the output."""

    def __call__(self, latent: Tensor) -> Tensor:
        """Return logits, users × items."""


class Network(nn.Module, ABC):
    """What training, scoring and embedding read: the latent vector of a history, and its decoder.

    Where it is `row_sparse`, an update has to do only with the rows of its tables, items × width, that a batch touches.
    Unless `unit_length` is False, histories are divided by their Euclidean norm before they are encoded. Where it has a
    `standard`, values are centred by it, and √n stands for the norm.
    """

    decoder: Decoding
    row_sparse: bool = False
    unit_length: bool = True

    def __init__(self) -> None:
        super().__init__()
        self.standard: Standard | None = None

    def read(self, batch: Batch) -> Batch:
        """Return histories as `latent` takes them."""
        if self.standard is not None:
            centred = self.standard.centred(batch)
            return by_root_of_length(centred, batch) if self.unit_length else centred
        return unit_length(batch) if self.unit_length else batch

    @abstractmethod
    def latent(self, batch: Batch) -> Tensor:
        """Return users × latent, the same for the same history every time."""

    def tables(self) -> list[Tensor]:
        """Return the parameters whose gradients are row-sparse: none, or all that have a row for each item."""
        if not self.row_sparse:
            return []
        inputs = [layer.weight for layer in self.modules() if isinstance(layer, SparseLinear)]
        return [*inputs, self.decoder.output.weight, self.decoder.output.bias]

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the first weights, in memory on the CPU.

        They are uniform after Glorot and Bengio 2010, biases normal with a deviation of .001, cut at two deviations:
        the choice of the code published with Liang et al. 2018.
        """
        for layer in self.modules():
            if isinstance(layer, SparseLinear | nn.Linear):
                nn.init.xavier_uniform_(layer.weight, generator=generator)
            if isinstance(layer, SparseLinear | nn.Linear | TiedLinear):
                nn.init.trunc_normal_(
                    layer.bias, std=BIAS_SPREAD, a=-2 * BIAS_SPREAD, b=2 * BIAS_SPREAD, generator=generator
                )

    def forget_training(self) -> None:
        """Drop what only training needed."""


class DenoisingNetwork(Network):
    """The network of Mult-DAE: hidden layers, a bottleneck with tanh, the hidden layers in reverse."""

    def __init__(
        self,
        items: int,
        hidden: tuple[int, ...],
        latent: int,
        *,
        tied: bool = False,
        row_sparse: bool = False,
        unit_length: bool = True,
    ) -> None:
        super().__init__()
        self.row_sparse, self.unit_length = row_sparse, unit_length
        with torch.device("meta"):
            self.encoder = Encoder(items, (*hidden, latent), row_sparse=row_sparse)
            self.decoder = Decoder((latent, *reversed(hidden)), items, tied_to=self.encoder.input if tied else None)

    def latent(self, batch: Batch) -> Tensor:
        """Return users × latent."""
        return torch.tanh(self.encoder(batch))


class VariationalNetwork(Network):
    """The network of Mult-VAE: the encoder ends in the mean and the log-variance of a normal posterior.

    `begin`, where there is one, puts better first weights in place of those that were drawn.
    """

    def __init__(
        self, items: int, hidden: tuple[int, ...], latent: int, *, tied: bool = False, row_sparse: bool = False
    ) -> None:
        super().__init__()
        self.row_sparse, self.width = row_sparse, latent
        self.begin: Callable[[VariationalNetwork, torch.Generator], None] | None = None
        with torch.device("meta"):
            self.encoder = Encoder(items, (*hidden, 2 * latent), row_sparse=row_sparse)
            self.decoder = Decoder((latent, *reversed(hidden)), items, tied_to=self.encoder.input if tied else None)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the first weights; then begin."""
        super().initialise(generator)
        if self.begin is not None:
            self.begin(self, generator)

    def forget_training(self) -> None:
        """Let go of where it began."""
        self.begin = None

    def posterior(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the mean and the log-variance, each users × latent."""
        mean, log_variance = self.encoder(batch).float().chunk(2, dim=1)
        return mean, log_variance

    def code(self, batch: Batch, noise: Tensor) -> Tensor:
        """Return a code of each history, users × latent, from standard normal noise of that shape."""
        return drawn(*self.posterior(batch), noise)

    def latent(self, batch: Batch) -> Tensor:
        """Return the posterior's mean, users × latent."""
        return self.posterior(batch)[0]


def drawn(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """Return numbers from normal distributions, given standard normal noise, all of one shape."""
    return mean + noise * torch.exp(0.5 * log_variance)


def weights(network: Network) -> dict[str, Tensor]:
    """Return a network's weights by name, detached from any gradient."""
    return {name: tensor.detach() for name, tensor in network.state_dict().items()}


def load_weights(network: Network, state: Mapping[str, Tensor]) -> None:
    """Make a network of `weights`, on whatever device they are; ValueError where they are not this network's."""
    require_tensors(state, forms_of(network.state_dict()))
    network.load_state_dict(dict(state), assign=True)


def logits(network: Network, batch: Batch) -> Tensor:
    """Return a float32 score of every item for every history of a batch, users × items."""
    with torch.no_grad():
        return network.decoder(network.latent(network.read(batch)))


def latent_vectors(network: Network, batch: Batch) -> Tensor:
    """Return the bottleneck for each history, users × latent."""
    with torch.no_grad():
        return network.latent(network.read(batch))


def retrieval_vectors(network: Network, batch: Batch) -> Tensor:
    """Return the features of each history and a constant 1, users × (features + 1)."""
    with torch.no_grad():
        features = network.decoder.features(network.latent(network.read(batch)))
        return torch.cat([features, features.new_ones(len(features), 1)], dim=1)


def tiles(network: Network, batch: Batch) -> Tiles:
    """Return the logits as tiles."""
    with torch.no_grad():
        features = network.decoder.features(network.latent(network.read(batch)))
    output = network.decoder.output
    return inner_products(features, output.weight.detach(), output.bias.detach())


def item_vectors(network: Network) -> Tensor:
    """Return the output weights with the bias as last coordinate, items × (features + 1)."""
    output = network.decoder.output
    return torch.cat([output.weight.detach(), output.bias.detach()[:, None]], dim=1)

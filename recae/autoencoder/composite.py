"""The network of RecVAE: a densely connected encoder, a linear decoder, and the encoder of an epoch ago as a prior."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from recae.autoencoder.batches import Batch
from recae.autoencoder.networks import Decoder, Network, SparseLinear, drawn

NORM_EPSILON = 0.1
"""What layer normalisation adds to the variance: the published code's, a hundred thousand times the usual."""

STANDARD, OLD, WIDE = 3 / 20, 3 / 4, 1 / 10
"""The shares of N(0, 1), of the old posterior and of N(0, e^10) in the composite prior: section 4.1 of the paper."""

WIDE_LOG_VARIANCE = 10.0


class DenselyConnectedEncoder(nn.Module):
    """From a history to 2 × latent, by layers that are each given the sum of all before them.

    h_k = LayerNorm(swish(W_k h_(k-1) + b_k + h_1 + … + h_(k-1))), and an affine map of the last: Shenbin et al. 2020,
    figure 2.
    """

    def __init__(self, items: int, hidden: int, layers: int, latent: int) -> None:
        super().__init__()
        self.input = SparseLinear(items, hidden)
        self.layers = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(layers - 1))
        self.norms = nn.ModuleList(nn.LayerNorm(hidden, eps=NORM_EPSILON) for _ in range(layers))
        self.output = nn.Linear(hidden, 2 * latent)

    def forward(self, batch: Batch) -> Tensor:
        """Return users × (2 · latent)."""
        first, *others = self.norms
        activation = first(silu(self.input(batch)))
        before = activation
        for layer, norm in zip(self.layers, others, strict=True):
            activation = norm(silu(layer(activation) + before))
            before = before + activation
        return self.output(activation)  # type: ignore[no-any-return]


class CompositeNetwork(Network):
    """An encoder whose last layer is the mean and the log-variance of a normal posterior; codes decode linearly.

    `old` is the encoder as it was when last remembered: a part of the prior, which only training needs.
    """

    decoder: Decoder
    old: DenselyConnectedEncoder | None

    def __init__(self, items: int, hidden: int, layers: int, latent: int) -> None:
        super().__init__()
        with torch.device("meta"):
            self.encoder = DenselyConnectedEncoder(items, hidden, layers, latent)
            self.old = DenselyConnectedEncoder(items, hidden, layers, latent)
            self.decoder = Decoder((latent,), items)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the first weights, and biases, uniformly up to 1 / √(what a layer reads), as torch's own layers do.

        The published code leaves it at that, and it matters: the decoder, which learns in one pass of four, starts with
        larger weights than Glorot's (on MovieLens-1M, NDCG@100 of .33 instead of .27 after nine epochs).
        """
        for layer in self.modules():
            if isinstance(layer, SparseLinear | nn.Linear):
                read = layer.weight.shape[0] if isinstance(layer, SparseLinear) else layer.weight.shape[1]
                for parameter in (layer.weight, layer.bias):
                    nn.init.uniform_(parameter, -(read**-0.5), read**-0.5, generator=generator)
            elif isinstance(layer, nn.LayerNorm):
                layer.reset_parameters()

    def posterior(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the mean and the log-variance, each users × latent."""
        return _halves(self.encoder(batch))

    def old_posterior(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return what `posterior` was when last remembered; ValueError once training is forgotten."""
        if self.old is None:
            raise ValueError("a network that is done with training has no old posterior")
        with torch.no_grad():
            return _halves(self.old(batch))

    def code(self, batch: Batch, noise: Tensor) -> Tensor:
        """Return a code of each history, users × latent, from standard normal noise of that shape."""
        return drawn(*self.posterior(batch), noise)

    def latent(self, batch: Batch) -> Tensor:
        """Return the posterior's mean, users × latent."""
        return self.posterior(batch)[0]

    def remember(self) -> None:
        """Make the present posterior the old one."""
        if self.old is not None:
            self.old.load_state_dict(self.encoder.state_dict())

    def forget_training(self) -> None:
        """Let go of the old posterior."""
        self.old = None


def log_normal(code: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the log-density of a normal distribution at each coordinate of a code, in the shape of `code`."""
    return -0.5 * (math.log(2 * math.pi) + log_variance + (code - mean) ** 2 * torch.exp(-log_variance))


def log_composite_prior(code: Tensor, old_mean: Tensor, old_log_variance: Tensor) -> Tensor:
    """Return the log-density of the composite prior at each coordinate of a code, all users × latent.

    log(3/20 · N(z | 0, 1) + 3/4 · q_old(z | x) + 1/10 · N(z | 0, e^10)): Shenbin et al. 2020, section 3.3. Every
    coordinate has a mixture of its own, as in the published code.
    """
    zero = code.new_zeros(())
    parts = [
        math.log(STANDARD) + log_normal(code, zero, zero),
        math.log(OLD) + log_normal(code, old_mean, old_log_variance),
        math.log(WIDE) + log_normal(code, zero, zero + WIDE_LOG_VARIANCE),
    ]
    return torch.logsumexp(torch.stack(parts), dim=0)


def _halves(parameters: Tensor) -> tuple[Tensor, Tensor]:
    mean, log_variance = parameters.float().chunk(2, dim=1)
    return mean, log_variance

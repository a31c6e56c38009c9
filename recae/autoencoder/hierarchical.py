"""The network of H+Vamp (Gated): codes of two levels, gated layers, and a prior made of the encoder itself.

users × items  ─►  top code z2  ─►  bottom code z1, given z2  ─►  both decode to users × items (logits)

Where a code is one tensor, it is z1 and z2 side by side, users × latent.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import glu

from recae.autoencoder.batches import Batch
from recae.autoencoder.composite import log_normal
from recae.autoencoder.networks import Network, SparseLinear, TiedLinear, drawn

LOG_VARIANCES = (-12.0, 4.0)
"""The bounds of every log-variance: those of the published code."""


FIRST_SPREAD = 0.2
"""The standard deviation of the first layer's weights: a history of unit length then has activations of that size."""

OUTPUT_SPREAD = 0.01
"""The standard deviation of the output's weights: at first, no item is much likelier than another."""


class Gated(nn.Module):
    """An affine map times the sigmoid of another: the gated linear unit of Dauphin et al. 2017, without activation."""

    def __init__(self, narrow: int, wide: int) -> None:
        super().__init__()
        self.linear = nn.Linear(narrow, 2 * wide)

    def forward(self, activation: Tensor) -> Tensor:
        """Return users × wide."""
        return glu(self.linear(activation), dim=1)


class GatedDecoder(nn.Module):
    """From a code of both levels to the features, by gated layers; then an affine map to the items."""

    output: nn.Linear | TiedLinear

    def __init__(self, level: int, hidden: int, items: int) -> None:
        super().__init__()
        self.bottom, self.top = Gated(level, hidden), Gated(level, hidden)
        self.joint = Gated(2 * hidden, hidden)
        self.output = nn.Linear(hidden, items)

    def features(self, latent: Tensor) -> Tensor:
        """Return users × hidden, the layer before the output."""
        bottom, top = latent.chunk(2, dim=1)
        return self.joint(torch.cat([self.bottom(bottom), self.top(top)], dim=1))  # type: ignore[no-any-return]

    def forward(self, latent: Tensor) -> Tensor:
        """Return logits, users × items."""
        return self.output(self.features(latent))  # type: ignore[no-any-return]


class Conditional(nn.Module):
    """A normal distribution that depends on an activation: its mean and log-variance are affine maps of it."""

    def __init__(self, wide: int, level: int) -> None:
        super().__init__()
        self.parameters_of = nn.Linear(wide, 2 * level)

    def forward(self, activation: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance, each users × level."""
        mean, log_variance = self.parameters_of(activation).float().chunk(2, dim=1)
        return mean, log_variance.clamp(*LOG_VARIANCES)


class Prior(nn.Module):
    """What codes are likely before any history is seen: p(z1 | z2), and p(z2), the mixture that q(z2 | x) is over
    pseudo-inputs, the users that the prior imagines.

    Pseudo-inputs stand behind the first layer, so (pseudo-inputs, hidden) instead of (pseudo-inputs, items): see
    `recae.models.vamp_vae`.
    """

    def __init__(self, level: int, hidden: int, pseudo_inputs: int) -> None:
        super().__init__()
        self.pseudo_inputs = nn.Parameter(torch.empty(pseudo_inputs, hidden))
        self.layers = nn.Sequential(Gated(level, hidden), Gated(hidden, hidden))
        self.bottom = Conditional(hidden, level)


class HierarchicalNetwork(Network):
    """Two encoders that share the look at a history, q(z2 | x) and q(z1 | x, z2), the decoder, and, while it trains,
    the prior.

    `latent` is the width of both levels together, an even number.
    """

    decoder: GatedDecoder
    prior: Prior | None

    def __init__(self, items: int, hidden: int, latent: int, pseudo_inputs: int) -> None:
        super().__init__()
        self.level = level = latent // 2
        with torch.device("meta"):
            self.input = SparseLinear(items, 4 * hidden)  # the first layers of both encoders, and their gates
            self.top_layer, self.top = Gated(hidden, hidden), Conditional(hidden, level)
            self.seen_top, self.joint = Gated(level, hidden), Gated(2 * hidden, hidden)
            self.bottom = Conditional(hidden, level)
            self.prior = Prior(level, hidden, pseudo_inputs)
            self.decoder = GatedDecoder(level, hidden, items)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the first weights, those of gated layers normal with a variance of 4 / (what they read).

        Twice that of the published code. A gate halves what passes it at first, so that activations keep their size,
        and something is left of a history behind five of them. The output's are small: e to the logit, which is what a
        Poisson likelihood has, would otherwise begin too far out.
        """
        super().initialise(generator)
        for layer in self.modules():
            if isinstance(layer, Gated):
                read = layer.linear.weight.shape[1]
                nn.init.normal_(layer.linear.weight, std=(4 / read) ** 0.5, generator=generator)
        nn.init.normal_(self.input.weight, std=FIRST_SPREAD, generator=generator)
        nn.init.normal_(self.decoder.output.weight, std=OUTPUT_SPREAD, generator=generator)
        if self.prior is not None:
            nn.init.normal_(self.prior.pseudo_inputs, std=FIRST_SPREAD, generator=generator)

    def posterior(self, batch: Batch, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return code, mean and log-variance, each users × latent, given standard normal noise of that shape.

        The bottom level's are given the top level's code: section 3.2.
        """
        for_top, for_bottom = self.input(batch).chunk(2, dim=1)
        bottom_noise, top_noise = noise.chunk(2, dim=1)
        top_mean, top_spread = self.top(self.top_layer(glu(for_top, dim=1)))
        top = drawn(top_mean, top_spread, top_noise)
        seen = torch.cat([glu(for_bottom, dim=1), self.seen_top(top)], dim=1)
        mean, spread = self.bottom(self.joint(seen))
        code = torch.cat([drawn(mean, spread, bottom_noise), top], dim=1)
        return code, torch.cat([mean, top_mean], dim=1), torch.cat([spread, top_spread], dim=1)

    def code(self, batch: Batch, noise: Tensor) -> Tensor:
        """Return a code of each history, users × latent, from standard normal noise of that shape."""
        return self.posterior(batch, noise)[0]

    def log_prior(self, code: Tensor) -> Tensor:
        """Return log p(z1 | z2) + log p(z2) of each code, (users); ValueError once training is forgotten."""
        if self.prior is None:
            raise ValueError("a network that is done with training has no prior")
        bottom, top = code.chunk(2, dim=1)
        imagined = self.top(self.top_layer(self.prior.pseudo_inputs))
        given_top = self.prior.bottom(self.prior.layers(top))
        return log_normal(bottom, *given_top).sum(dim=1) + log_mixture(top, *imagined)

    def latent(self, batch: Batch) -> Tensor:
        """Return the posterior's mean, users × latent."""
        return self.posterior(batch, self.input.bias.new_zeros(len(batch), 2 * self.level))[0]

    def forget_training(self) -> None:
        """Let go of the prior."""
        self.prior = None


def log_mixture(code: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return log 1/K Σ_k N(z | μ_k, σ²_k) of each code, (users), from codes (users, level) and K × level parameters.

    Tomczak and Welling 2018, VAE with a VampPrior, eq. 9. The squares are multiplied out, so that users × K × level is
    never there: Σ (z - μ)² / σ² = z² · 1/σ² - 2 z · μ/σ² + Σ μ²/σ².
    """
    with torch.autocast(code.device.type, enabled=False):  # half precision has no digits left after these differences
        precision = torch.exp(-log_variance)
        scaled = mean * precision
        squares = code**2 @ precision.T - 2 * code @ scaled.T + (mean * scaled).sum(dim=1)
        constants = mean.shape[1] * math.log(2 * math.pi) + log_variance.sum(dim=1)
        return torch.logsumexp(-0.5 * (constants + squares), dim=1) - math.log(len(mean))

"""The distribution of a population's codes and lengths, small enough to leave with a model.

A variational autoencoder explains a history by a code; what codes its users have is not the prior, but the aggregate
posterior q(z) = 1/users Σ_u q(z | x_u) (Hoffman and Johnson 2016, ELBO surgery). Here a mixture of few normal
distributions stands for it: it forgets every user, and remembers only how codes vary together, and with the lengths of
histories.

coordinates: the latent ones and the length's, as a normal score: the standard normal number that has as many below it
as the length has.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.autoencoder.batches import Batch, batch_of
from recae.finite import all_finite
from recae.tensors import require_tensors

COMPONENTS = 4
"""How many normal distributions are mixed, at most; fewer where there are few codes: see `_components`."""

CODES = 2**13
"""How many users the mixture is fitted to, at most."""

AT_A_TIME = 512
"""Histories that are encoded at a time."""

ROUNDS = 10
"""Rounds of expectation and maximisation: from then on, the likelihood of other users' codes gains nothing."""

QUANTILES = 257
"""How many quantiles tell the lengths, the least and the greatest among them."""


class Coding(Protocol):
    """A network whose codes are random."""

    def read(self, batch: Batch) -> Batch:
        """Return histories as `code` takes them."""

    def code(self, batch: Batch, noise: Tensor) -> Tensor:
        """Return a code of each history, users × latent, from standard normal noise of that shape."""


@dataclass(frozen=True, eq=False)
class CodeDensity:
    """A mixture of normal distributions over codes and lengths.

    weights: (components), adding up to 1
    means:   (components, coordinates)
    factors: (components, coordinates, coordinates), the lower triangular root of each covariance
    lengths: (QUANTILES), of histories, ascending
    """

    weights: Tensor
    means: Tensor
    factors: Tensor
    lengths: Tensor

    @classmethod
    def of_state(cls, state: Mapping[str, Tensor], latent: int) -> Self:
        """Return the density of a `state`; ValueError for other tensors than those of one, and other numbers."""
        of, wide = torch.float32, latent + 1
        forms = {"weights": ("components",), "means": ("components", wide), "factors": ("components", wide, wide)}
        require_tensors(state, {**{name: (of, form) for name, form in forms.items()}, "lengths": (of, (QUANTILES,))})
        density = cls(**state)
        if not all_finite(state.values()):
            raise ValueError("the density of codes is not finite")
        if (density.weights < 0).any() or (density.weights.sum() - 1).abs() > 1e-3:
            raise ValueError("the density's weights are no shares of 1")
        if (density.factors.diagonal(dim1=1, dim2=2) <= 0).any():
            raise ValueError("the density's factors are no roots of covariances")
        if (density.lengths < 0).any() or (density.lengths.diff() < 0).any():
            raise ValueError("the density's lengths do not ascend")
        return density

    def state(self) -> dict[str, Tensor]:
        """Return the tensors by name."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def sample(self, users: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return codes, users × latent, and lengths, (users) int64, of users who never were, drawn on the CPU."""
        weights, means, factors, lengths = (tensor.cpu().double() for tensor in self.state().values())
        chosen = torch.multinomial(weights, users, replacement=True, generator=generator)
        noise = torch.randn((users, means.shape[1]), generator=generator, dtype=torch.float64)
        drawn = means[chosen]
        for component, factor in enumerate(factors):
            drawn[chosen == component] += noise[chosen == component] @ factor.T
        # How large the score is among all that the mixture gives, not among normal ones: so that whatever the mixture
        # got wrong of their distribution, that of the lengths is the one it was fitted to.
        spread = factors[:, -1].norm(dim=1)
        below = (torch.special.ndtr((drawn[:, -1:] - means[:, -1]) / spread) * weights).sum(dim=1)
        place = below.clamp(0, 1) * (QUANTILES - 1)
        before = place.long().clamp(max=QUANTILES - 2)
        long = torch.lerp(lengths[before], lengths[before + 1], place - before).round().long()
        return drawn[:, :-1].float(), long


def choose_users(histories: csr_matrix, seed: int) -> NDArray[np.int64]:
    """Return the rows of the histories that a density is fitted to: all that have an entry, or `CODES` drawn of them.

    Where none has one, it is all.
    """
    lengths = np.diff(histories.indptr)
    rows = np.flatnonzero(lengths if lengths.any() else lengths == 0)
    return np.sort(np.random.default_rng(seed).choice(rows, min(CODES, len(rows)), replace=False))


def fit_density(network: Coding, latent: int, histories: csr_matrix, seed: int, device: torch.device) -> CodeDensity:
    """Return the density of the codes, of so many coordinates, and the lengths of histories, as a network reads them.

    Each history has one code, drawn from its posterior; with a few thousand users, the mixture is that of many draws.
    Where codes are not finite, neither is the density.
    """
    generator = torch.Generator().manual_seed(seed)
    starts = range(0, histories.shape[0], AT_A_TIME)
    codes = [_codes(network, latent, histories[start : start + AT_A_TIME], generator, device) for start in starts]
    lengths = torch.from_numpy(np.diff(histories.indptr)).double()
    points = torch.cat([torch.cat(codes), _normal_scores(lengths)[:, None]], dim=1)
    weights, means, covariances = _mixture(points, generator)
    quantiles = torch.quantile(lengths, torch.linspace(0, 1, QUANTILES, dtype=torch.float64))
    tensors = (weights, means, _root(covariances), quantiles)
    return CodeDensity(*(tensor.float().contiguous().to(device) for tensor in tensors))


def _codes(
    network: Coding, latent: int, histories: csr_matrix, generator: torch.Generator, device: torch.device
) -> Tensor:
    noise = torch.randn((histories.shape[0], latent), generator=generator)
    with torch.no_grad():
        return network.code(network.read(batch_of(histories, device)), noise.to(device)).double().cpu()


def _normal_scores(lengths: Tensor) -> Tensor:
    """Return the standard normal number that has as many below it as each length has, half of its equals among them."""
    ordered = lengths.sort().values
    below, up_to = (torch.searchsorted(ordered, lengths, right=right) for right in (False, True))
    scores: Tensor = torch.special.ndtri((below + up_to) / (2 * len(lengths)))
    return scores


def _mixture(points: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return weights, means and covariances of the mixture that makes points (points, coordinates) likely.

    Dempster, Laird and Rubin 1977. To a component's own points, its covariance adds as many as there are coordinates of
    what is common to all components, and that as many of its own diagonal: few points never make a thin one.
    """
    count, wide = points.shape
    components = _components(count, wide)
    shares = _first_shares(points, components, generator)
    for _ in range(ROUNDS if components > 1 else 1):
        sizes = shares.sum(dim=0)
        means = shares.T @ points / sizes[:, None]
        scatters = torch.stack(
            [(shares[:, k, None] * (points - means[k])).T @ (points - means[k]) for k in range(components)]
        )
        together = scatters.sum(dim=0)
        floor = 1e-6 + 1e-3 * together.diagonal().mean() / count
        common = (together + wide * torch.diag(together.diagonal() / count + floor)) / (count + wide)
        covariances = (scatters + wide * common) / (sizes[:, None, None] + wide)
        shares = _shares(points, sizes / count, means, covariances)
    return sizes / count, means, covariances


def _components(points: int, coordinates: int) -> int:
    return max(1, min(COMPONENTS, points // (5 * coordinates)))


def _first_shares(points: Tensor, components: int, generator: torch.Generator) -> Tensor:
    """Return to which component each point belongs at first, (points, components): some rounds of Lloyd's."""
    scaled = points / points.std(dim=0, correction=0).clamp(min=1e-6)
    centres = scaled[torch.randperm(len(points), generator=generator)[:components]]
    for _ in range(ROUNDS):
        nearest = torch.cdist(scaled, centres).argmin(dim=1)
        shares = torch.nn.functional.one_hot(nearest, components).double()
        centres = (shares.T @ scaled + 1e-9 * centres) / (shares.sum(dim=0) + 1e-9)[:, None]
    return (shares + 1e-6) / (1 + components * 1e-6)


def _shares(points: Tensor, weights: Tensor, means: Tensor, covariances: Tensor) -> Tensor:
    return torch.softmax(log_densities(points, weights, means, _root(covariances)), dim=1)


def _root(covariances: Tensor) -> Tensor:
    """Return the lower triangular roots, of NaN where there is none: codes were not finite, or too large to square."""
    roots, failed = torch.linalg.cholesky_ex(covariances)
    return torch.where(failed[:, None, None] == 0, roots, torch.nan)


def log_densities(points: Tensor, weights: Tensor, means: Tensor, factors: Tensor) -> Tensor:
    """Return the logarithm of weight × density of each component at each point, (points, components)."""
    wide = points.shape[1]
    whitened = torch.linalg.solve_triangular(factors, (points[None] - means[:, None]).mT, upper=False)
    volume = torch.diagonal(factors, dim1=1, dim2=2).log().sum(dim=1)
    densities: Tensor = -0.5 * (whitened**2).sum(dim=1) - volume[:, None] - 0.5 * wide * math.log(2 * math.pi)
    return densities.T + weights.log()

"""What every model whose scores are X·B, for weights B between all items, does in the same way."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

import torch
from pydantic import Field
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.device import require_memory
from recae.errors import ModelError
from recae.histories import multiply, presence, require_interactions
from recae.kernels import gram, inverse
from recae.models.base import Exponent, FitOptions, Unit, require_width
from recae.profiling import stage
from recae.scoring import Tiles
from recae.tensors import require_tensors

UserExponent = Annotated[
    Exponent, Field(description="how much less users with many items weigh: (mean items / items) to this power")
]

DroppedShare = Annotated[Unit, Field(description="share of the interactions that would be dropped")]

TOLERANCE = 1e-3
"""The largest error of an inverse in float32 that will do; beyond it all is done again in float64."""


@dataclass(frozen=True)
class Solution:
    """The precision that the weights were solved for in, and the error of the inverse: see `inverse.invert`."""

    precision: str
    error: float


class FullRankRecommender(ABC):
    """A linear autoencoder in closed form: B = I - (XᵀX + Λ)⁻¹ · M, with diagonal Λ and M.

    All a model brings is Λ, the penalties, and, if it likes, what the diagonal of B is to be, from which M follows, and
    how much each user counts.
    """

    name: ClassVar[str]
    folds_in: ClassVar[bool] = True

    l2: float

    def weighed(self, histories: csr_matrix) -> csr_matrix:
        """Return the histories, each times the root of its weight in what is minimised: here, all the same."""
        return histories

    @abstractmethod
    def penalties(self, users: Tensor) -> Tensor:
        """Return the diagonal of Λ, (items), given the weight of all users who have each item, (items)."""

    def own_weights(self, diagonal: Tensor, penalties: Tensor) -> Tensor:
        """Return the diagonal of B, each item's weight in its own score, given those of (XᵀX + Λ)⁻¹ and Λ: here, 0."""
        return torch.zeros_like(diagonal)

    def fit(self, histories: csr_matrix, options: FitOptions = FitOptions()) -> Self:
        """Solve for B on the device; ModelError, before any work, where the memory will not do."""
        seen, device = presence(histories), options.device
        require_interactions(seen, self.name)
        for precision in (torch.float32, torch.float64):
            self._require_memory(seen, device, precision)
            with stage("gram"):
                matrix = gram.gram(self.weighed(seen), device, precision)
            penalties = self.penalties(matrix.diagonal().clone())
            matrix.diagonal().add_(penalties)
            with stage("invert"):
                error = inverse.invert(matrix)
            if error <= TOLERANCE:
                self.training_ = Solution(str(precision).removeprefix("torch."), error)
                own = self.own_weights(matrix.diagonal().clone(), penalties)
                return self.restore({"weights": weights(matrix, own)})
            del matrix
        raise ModelError(f"{self.name}: l2 = {self.l2} is too small for items this much alike; raise it")

    def require_memory(self, histories: csr_matrix, device: str) -> None:
        """Raise ModelError where a device does not have the memory to solve for B in float32."""
        self._require_memory(histories, device, torch.float32)

    def score(self, histories: csr_matrix) -> Tensor:
        """Return users × items."""
        require_width(histories, len(self.weights_), self.name)
        return multiply(presence(histories), self.weights_)

    def score_by_tile(self, histories: csr_matrix) -> Tiles:
        """Return the scores as tiles."""
        require_width(histories, len(self.weights_), self.name)
        seen, weights = presence(histories), self.weights_

        def write(start: int, tile: Tensor) -> None:
            tile.copy_(multiply(seen, weights[:, start : start + tile.shape[1]]))

        return Tiles(weights.device, write)

    def state(self) -> dict[str, Tensor]:
        """Return `weights`, B, (items, items)."""
        return {"weights": self.weights_}

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """Take over a state."""
        require_tensors(state, {"weights": (torch.float32, ("items", "items"))})
        self.weights_ = state["weights"]
        return self

    def _require_memory(self, histories: csr_matrix, device: str, precision: torch.dtype) -> None:
        items, interactions = histories.shape[1], histories.nnz
        needed = max(
            gram.memory_needed(items, interactions, device, precision),
            inverse.memory_needed(items, device, precision),
        )
        what, instead = (
            f"{self.name}, for the weights between {items:,} items,",
            "use als, mult-dae or mult-vae, or fewer items",
        )
        if precision is torch.float64:
            # Beside the inverse there are the weights, in float32, at the end.
            needed = max(needed, 12 * items**2)
            what, instead = f"{what} in float64", f"raise l2, which is too small for float32, {instead}"
        require_memory(device, needed, what, instead)


def penalties_with_dropout(l2: float, dropout: float, users: Tensor) -> Tensor:
    """Return the diagonal of Λ, (items), for histories of which a share is dropped at random: see EDLAE."""
    return l2 + dropout / (1 - dropout) * users


def weights(inverse: Tensor, own: Tensor) -> Tensor:
    """Return B, in the place of (XᵀX + Λ)⁻¹ where that is in float32, given what its diagonal is to be, (items)."""
    inverse.div_(inverse.diagonal() / (own - 1))
    inverse.diagonal().copy_(own)
    return inverse.float()

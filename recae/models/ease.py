"""EASE: the linear autoencoder of full rank, in closed form."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

import torch
from pydantic import Field
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.device import require_memory
from recae.errors import ModelError
from recae.kernels import gram, inverse
from recae.models.base import FitOptions, Positive, hyper_parameters, require_width
from recae.models.histories import multiply, presence, require_interactions
from recae.profiling import stage
from recae.scoring import Tiles
from recae.tensors import require_tensors

TOLERANCE = 1e-3
"""The largest error of an inverse in float32 that will do; beyond it all is done again in float64."""


@dataclass(frozen=True)
class Solution:
    """The precision that the weights were solved for in, and the error of the inverse: see `inverse.invert`."""

    precision: str
    error: float


@hyper_parameters
class EASE:
    """The items × items weights B with a zero diagonal that minimise |X - XB|² + l2·|B|²; a score is a row of XB.

    Steck, Embarrassingly Shallow Autoencoders for Sparse Data (2019), eq. 8: with P = (XᵀX + l2·I)⁻¹,
    B is I - P / diag(P), each column divided by its diagonal entry.
    """

    name: ClassVar[str] = "ease"
    folds_in: ClassVar[bool] = True

    l2: Annotated[Positive, Field(description="weight of |B|² in what is minimised")] = 400.0

    def fit(self, histories: csr_matrix, options: FitOptions = FitOptions()) -> Self:
        """Solve for B on the device; ModelError, before any work, where the memory will not do."""
        require_interactions(histories, self.name)
        seen, device = presence(histories), options.device
        for precision in (torch.float32, torch.float64):
            self._require_memory(seen, device, precision)
            with stage("gram"):
                matrix = gram.gram(seen, device, precision)
            matrix.diagonal().add_(self.l2)
            with stage("invert"):
                error = inverse.invert(matrix)
            if error <= TOLERANCE:
                self.training_ = Solution(str(precision).removeprefix("torch."), error)
                return self.restore({"weights": weights(matrix)})
            del matrix
        raise ModelError(f"ease: l2 = {self.l2} is too small for items this much alike; raise it")

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
            f"ease, for the weights between {items:,} items,",
            "use als, mult-dae or mult-vae, or fewer items",
        )
        if precision is torch.float64:
            # Beside the inverse there are the weights, in float32, at the end.
            needed = max(needed, 12 * items**2)
            what, instead = f"{what} in float64", f"raise l2, which is too small for float32, {instead}"
        require_memory(device, needed, what, instead)


def weights(inverse_gram: Tensor) -> Tensor:
    """Return B from P, and in its place where P is in float32."""
    return inverse_gram.div_(-inverse_gram.diagonal().clone()).fill_diagonal_(0).float()

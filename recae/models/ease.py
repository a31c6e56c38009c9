"""EASE: the linear autoencoder of full rank, in closed form."""

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.device import available_memory
from recae.errors import ModelError
from recae.models.base import FitOptions, Positive, hyper_parameters, require_width
from recae.models.histories import multiply, presence, require_interactions

BLOCK = 1024
"""How many columns of an items × items matrix are worked on at a time."""

BYTES_PER_ENTRY = {"cpu": 16, "cuda": 24}
"""What a fit takes at its peak for each items × items entry: 8 the factor, 4 the weights, the rest the blocks."""


@hyper_parameters
class EASE:
    """The items × items weights B with a zero diagonal that minimise |X - XB|² + l2·|B|²; a score is a row of XB.

    Steck, Embarrassingly Shallow Autoencoders for Sparse Data (2019), eq. 8: with P = (XᵀX + l2·I)⁻¹,
    B is I - P / diag(P), each column divided by its diagonal entry.
    """

    name: ClassVar[str] = "ease"
    folds_in: ClassVar[bool] = True

    l2: Positive = 400.0

    def fit(self, histories: csr_matrix, options: FitOptions = FitOptions()) -> Self:
        """Solve for B in float64 on the device; ModelError, before any work, where the memory will not do."""
        require_interactions(histories, self.name)
        _require_memory(histories.shape[1], options.device)
        factor = gram(presence(histories)).to(options.device)
        factor.diagonal().add_(self.l2)
        # Symmetric, so the transpose is the same matrix in LAPACK's own order, and its factor can take its place.
        try:
            torch.linalg.cholesky(factor.T, out=factor.T)
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            raise ModelError(f"ease: l2 = {self.l2} is too small for items this much alike; raise it") from error
        return self.restore({"weights": _weights(factor.T)})

    def score(self, histories: csr_matrix) -> Tensor:
        """Return users × items."""
        require_width(histories, len(self.weights_), self.name)
        return multiply(presence(histories), self.weights_)

    def state(self) -> dict[str, Tensor]:
        """Return `weights`, B, (items, items)."""
        return {"weights": self.weights_}

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """Take over a state."""
        self.weights_ = state["weights"]
        return self


def _weights(factor: Tensor) -> Tensor:
    """Return B from the lower Cholesky factor of P⁻¹, a block of columns at a time: P is never there as a whole."""
    items = len(factor)
    weights = torch.empty((items, items), dtype=torch.float32, device=factor.device)
    for start in range(0, items, BLOCK):
        inverse = torch.zeros((items, min(BLOCK, items - start)), dtype=factor.dtype, device=factor.device)
        inverse.diagonal(-start).fill_(1)
        inverse = torch.linalg.solve_triangular(factor, inverse, upper=False)
        inverse = torch.linalg.solve_triangular(factor.T, inverse, upper=True)
        weights[:, start : start + BLOCK] = inverse / -inverse.diagonal(-start)
    return weights.fill_diagonal_(0)


def gram(seen: csr_matrix) -> Tensor:
    """Return XᵀX, items × items in float64, a block of columns at a time: it is mostly sparse on the way there."""
    items = seen.shape[1]
    columns, rows = seen.tocsc(), seen.T.tocsr()
    counts = torch.empty((items, items), dtype=torch.float64)
    for start in range(0, items, BLOCK):
        block = (rows @ columns[:, start : start + BLOCK]).toarray()
        counts[:, start : start + BLOCK] = torch.from_numpy(block)
    return counts


def _require_memory(items: int, device: str) -> None:
    # The Gram matrix is made on the processor, wherever it is inverted.
    for place, needed in {"cpu": 8 * items**2, device: BYTES_PER_ENTRY[torch.device(device).type] * items**2}.items():
        available = available_memory(place)
        if available is not None and needed > available:
            raise ModelError(
                f"ease needs {needed / 1e9:,.1f} GB on {place} for the weights between {items:,} items, "
                f"and {available / 1e9:,.1f} GB are available; use als, item-knn or mult-vae, or fewer items"
            )

"""Spectral filters of the graph of users and items: GF-CF, and BSPM, which sharpens what that blurs."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

import numpy as np
import torch
from pydantic import Field
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.device import require_memory
from recae.histories import multiply, normalised, presence, require_interactions, users_of_items
from recae.kernels import spectrum
from recae.kernels.gram import dense_product
from recae.models.base import Count, Exponent, FitOptions, NonNegative, hyper_parameters, require_width
from recae.profiling import stage
from recae.scoring import Tiles
from recae.tensors import Form, require_tensors

Factors = Annotated[Count, Field(description="singular vectors that the ideal low-pass filter lets through")]
Alpha = Annotated[NonNegative, Field(description="weight of the ideal low-pass filter; 0: none")]
Sharpening = Annotated[NonNegative, Field(description="time for which the blurred history is sharpened")]


@hyper_parameters
class Spectral:
    """Blur a history along the graph of who has what, let its smoothest part through, and sharpen the sum.

    With D_u and D_i the number of items of each user and of users of each item, R = D_u^-a X D_i^-b and P = RᵀR, a
    history x is scored s(P) applied to y = xP + alpha · x D_i^-b VVᵀ D_i^b, for the leading right singular vectors V
    of R. Without sharpening it is GF-CF: Shen et al. 2021, How Powerful is Graph Convolution for Recommendation?,
    with the published code's a = b = ½, 256 factors and alpha .3. With it, s(P) = Σ_k (-t·P)^k / k! up to
    `sharpening_order`, it is BSPM with early merge: Choi et al. 2023, Blurring-Sharpening Process Models for
    Collaborative Filtering, in which a step of Euler's method over the time t is the order 1, and one of Runge and
    Kutta's the order 4. Their t on Gowalla, 2.5, is far beyond where that is near an exponential.

    Nobody is known by a row: a history of any user is blurred by way of the histories that were trained on, which are
    therefore a part of the state. P never exists; a history's way through it costs as many multiplications as there
    are interactions, twice for each order. How long the history itself is only scales its scores, so that is left out.
    With both exponents ½ the eigenvalues of P are at most 1; with others they are not, and alpha and sharpening, which
    are measured by them, have to be chosen again.
    """

    name: ClassVar[str] = "spectral"
    folds_in: ClassVar[bool] = True

    factors: Factors = 256
    alpha: Alpha = 0.3
    user_exponent: Annotated[Exponent, Field(description="how much users with many items count less")] = 0.5
    item_exponent: Annotated[Exponent, Field(description="how much items with many users count less")] = 0.5
    sharpening: Sharpening = 0.0
    sharpening_order: Annotated[Count, Field(description="order of the step that sharpens: 1 Euler, 4 Runge-Kutta")] = 4

    def fit(self, histories: csr_matrix, options: FitOptions = FitOptions()) -> Self:
        """Find the singular vectors on the CPU; ModelError, before any work, where the memory will not do."""
        seen = presence(histories)
        require_interactions(seen, self.name)
        self.require_memory(seen, options.device)
        vectors = np.empty((seen.shape[1], 0), np.float32)
        if self.alpha:
            with stage("singular vectors"):
                vectors = spectrum.leading(
                    normalised(seen, self.user_exponent, self.item_exponent), self.factors, options.seed
                )
        state = {"indptr": seen.indptr, "indices": seen.indices, "vectors": vectors}
        return self.restore({name: torch.as_tensor(array, device=options.device) for name, array in state.items()})

    def require_memory(self, histories: csr_matrix, device: str) -> None:
        """Raise ModelError where the memory will not do: that of the CPU, on which singular vectors are found."""
        users, items = histories.shape
        factors = self.factors if self.alpha else 0
        needed = 32 * histories.nnz + spectrum.memory_needed(users, items, histories.nnz, factors)
        what = f"{self.name}, for {factors:,} singular vectors of {items:,} items,"
        require_memory("cpu", needed, what, "lower factors, or use als, mult-dae or mult-vae, or fewer items")

    def score(self, histories: csr_matrix) -> Tensor:
        """Return users × items."""
        tiles = self.score_by_tile(histories)
        scores = torch.empty(histories.shape, device=self.vectors_.device)
        tiles.write(0, scores)
        return scores

    def score_by_tile(self, histories: csr_matrix) -> Tiles:
        """Return the scores as tiles, made of a number for each history and trained user.

        What sharpening needs before it gets to these is of all items at once, like the scores themselves.
        """
        require_width(histories, len(self.vectors_), self.name)
        seen = presence(histories)
        smooth = multiply(seen, self.read_)
        # From here on histories are columns, as the product of a sparse matrix and a dense one wants them.
        near = dense_product(seen, self.by_item_).T.contiguous().to(smooth.device)
        if self.sharpening:
            # y(I + s₁P + s₂P² + …), for s_k = (-t)^k / k!, is y + (s₁y + s₂yP + …)P: y has its own way to the last
            # product, where the rest joins it.
            y = torch.addmm(multiply(self.by_item_, near), self.written_, smooth.T)
            rest = y
            for order in range(self.sharpening_order, 1, -1):
                around = multiply(self.by_item_, multiply(self.by_user_, rest))
                rest = torch.add(y, around, alpha=-self.sharpening / order)
            near.add_(multiply(self.by_user_, rest), alpha=-self.sharpening)

        def write(start: int, tile: Tensor) -> None:
            items = slice(start, start + tile.shape[1])
            torch.mm(smooth, self.written_[items].T, out=tile)
            tile.add_(multiply(self.by_item_[items], near).T)

        return Tiles(smooth.device, write)

    def state(self) -> dict[str, Tensor]:
        """Return the trained histories as `indptr` and `indices`, and `vectors`, V, (items, kept)."""
        arrays = {"indptr": self.by_user_.indptr, "indices": self.by_user_.indices}
        state = {name: torch.as_tensor(array, device=self.vectors_.device) for name, array in arrays.items()}
        return {**state, "vectors": self.vectors_}

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """Take over a state."""
        index = torch.int32, torch.int64
        wanted: dict[str, Form] = {
            "indptr": (index, ("users + 1",)),
            "indices": (index, ("interactions",)),
            "vectors": (torch.float32, ("items", "kept")),
        }
        require_tensors(state, wanted)
        indptr, indices = (state[name].cpu().numpy() for name in ("indptr", "indices"))
        self.vectors_ = state["vectors"]
        shape = len(indptr) - 1, len(self.vectors_)
        seen = csr_matrix((np.ones(len(indices), np.float32), indices, indptr), shape=shape)
        seen.check_format()  # an index that is out of bounds would read memory that is none of ours
        self.by_user_ = normalised(seen, self.user_exponent, self.item_exponent)
        self.by_item_ = self.by_user_.T.tocsr()
        scale = torch.from_numpy(users_of_items(seen) ** self.item_exponent).float().to(self.vectors_.device)[:, None]
        self.read_, self.written_ = self.vectors_ / scale, self.vectors_ * (self.alpha * scale)
        return self

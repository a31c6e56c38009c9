"""Rating ALS: factors of users and items whose product is what a value is off the item's and the user's mean."""

import time
from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

import numpy as np
import torch
from pydantic import Field
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.histories import multiply, require_interactions, valued
from recae.kernels.ridge import ridge
from recae.models.base import Count, EmbeddingKind, FitOptions, Positive, hyper_parameters, require_kind, require_width
from recae.models.item_mean import ItemDamping, UserDamping, item_means, user_offsets
from recae.progress import Step, TrainingSummary
from recae.tensors import require_tensors

SPREAD = 0.1
"""Standard deviation of the item factors that the first round starts from, where that of the residuals is 1."""


@hyper_parameters
class RatingALS:
    """Predict μ + b_i + b_u + p_u·q_i, the product fitted to what `item-mean` leaves of observed values alone.

    Minimises Σ (x_ui - μ - b_i - b_u - p_u·q_i)² + regularization · σ · (Σ_u n_u ‖p_u‖² + Σ_i n_i ‖q_i‖²), n being how
    many values a user or an item has, for users and items in turn: Zhou et al. 2008, Large-Scale Parallel Collaborative
    Filtering for the Netflix Prize, section 3, "ALS-WR", there without the offsets and σ. That is the standard
    deviation of what the offsets leave; by it, a regularization means the same whether values are stars or seconds. A
    value of zero is a value like any other; items outside of a history say nothing, which sets it apart from `als`.
    Anyone is folded in: p_u is solved for from the history that is asked about.
    """

    name: ClassVar[str] = "rating-als"
    folds_in: ClassVar[bool] = True
    predicts: ClassVar[bool] = True

    factors: Annotated[Count, Field(description="width of the vectors of users and items")] = 16
    regularization: Annotated[
        Positive,
        Field(description="weight of the squared factors for each value, in units of σ, what item means leave"),
    ] = 0.1
    iterations: Annotated[Count, Field(description="rounds, each of the users and then of the items")] = 15
    item_damping: ItemDamping = 25.0
    user_damping: UserDamping = 10.0

    def fit(self, histories: csr_matrix, options: FitOptions = FitOptions()) -> Self:
        """Alternate on the device; a listener hears of each round."""
        seen = valued(histories, zeros=True)
        require_interactions(seen, self.name)
        started, curve = time.perf_counter(), list[dict[str, float]]()
        means = torch.tensor(item_means(seen, self.item_damping), dtype=torch.float32)
        self.item_means_ = means.to(options.device)
        of_users, _ = self._residuals(seen)
        of_items = of_users.T.tocsr()
        deviation = float(np.std(of_users.data, dtype=np.float64)) or 1.0
        self.deviation_ = torch.tensor(deviation, device=options.device)
        in_deviations = of_items.multiply(1 / deviation).tocsr().astype(np.float32)
        lengths = torch.tensor(np.diff(seen.indptr), device=options.device)
        drawn = torch.randn(seen.shape[1], self.factors, generator=torch.Generator().manual_seed(options.seed))
        items = (SPREAD * deviation**0.5 * drawn).to(options.device)
        for iteration in range(self.iterations):
            users = ridge(items, of_users, self._penalty)
            items = ridge(users, of_items, self._penalty)
            # At the items' best, their part of the objective is Σ r² - Σ q_i·Σ_u r_ui p_u. In units of σ, of which
            # float32 has the sums.
            explained = (items.double() * multiply(in_deviations, users).double()).sum() * deviation
            penalty = self._penalty * (lengths * users.double().square().sum(dim=1)).sum()
            objective = float(np.square(of_users.data, dtype=np.float64).sum() - explained + penalty)
            curve.append({"loss": objective / seen.nnz})
            options.listener(Step(self.name, iteration + 1, self.iterations, curve[-1]))
        self.training_ = TrainingSummary(
            epochs=self.iterations,
            best_epoch=self.iterations,
            updates=2 * self.iterations,
            seconds=time.perf_counter() - started,
            curve=curve,
        )
        self.item_factors_ = items
        return self

    def score(self, histories: csr_matrix) -> Tensor:
        """Return the predicted values, users × items."""
        scores: Tensor = self.embed_users(histories, "retrieval") @ self.embed_items().T
        return scores

    def predict(self, histories: csr_matrix) -> Tensor:
        """Return the predicted values, users × items."""
        return self.score(histories)

    def embed_users(self, histories: csr_matrix, kind: EmbeddingKind = "latent") -> Tensor:
        """Return users × factors, as the next round would have them; or these beside a 1 and the user's offset."""
        require_kind(kind, self.name)
        require_width(histories, len(self.item_factors_), self.name)
        residuals, offsets = self._residuals(valued(histories, zeros=True))
        factors = ridge(self.item_factors_, residuals, self._penalty)
        if kind == "latent":
            return factors
        return torch.column_stack([factors, factors.new_ones(len(factors)), offsets])

    def embed_items(self) -> Tensor:
        """Return the item factors beside the item's mean and a 1, items × (factors + 2)."""
        return torch.column_stack([self.item_factors_, self.item_means_, torch.ones_like(self.item_means_)])

    def state(self) -> dict[str, Tensor]:
        """Return `item_means`, (items,), `item_factors`, (items, factors), and σ, `deviation`; nothing of a user."""
        return {"item_means": self.item_means_, "item_factors": self.item_factors_, "deviation": self.deviation_}

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """Take over a state."""
        of = torch.float32
        forms = {"item_means": (of, ("items",)), "item_factors": (of, ("items", self.factors)), "deviation": (of, ())}
        require_tensors(state, forms)
        self.item_means_, self.item_factors_, self.deviation_ = (state[name] for name in forms)
        return self

    @property
    def _penalty(self) -> float:
        return self.regularization * float(self.deviation_)

    def _residuals(self, seen: csr_matrix) -> tuple[csr_matrix, Tensor]:
        """Return what the means leave of values, users × items, zeros stored among them; and b_u, (users,)."""
        means = self.item_means_.cpu().numpy()
        offsets = user_offsets(seen, means, self.user_damping)
        left = seen.data - means[seen.indices] - np.repeat(offsets, np.diff(seen.indptr))
        residuals = csr_matrix((left.astype(np.float32), seen.indices, seen.indptr), shape=seen.shape)
        return residuals, torch.as_tensor(offsets, device=self.item_means_.device)

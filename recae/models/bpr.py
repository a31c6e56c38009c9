"""BPR: matrix factorisation that ranks what a user has above what they have not, trained by implicit."""

import time
from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

import numpy as np
import torch
from implicit.cpu.bpr import BayesianPersonalizedRanking
from implicit.recommender_base import ModelFitError
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import csr_matrix, vstack
from threadpoolctl import threadpool_limits
from torch import Tensor

from recae.errors import Diverged
from recae.histories import presence, require_interactions
from recae.models.base import (
    Count,
    EmbeddingKind,
    FitOptions,
    NonNegative,
    Positive,
    hyper_parameters,
    require_kind,
    require_width,
)
from recae.models.known import KnownHistories
from recae.progress import Step, TrainingSummary
from recae.scoring import Tiles, inner_products
from recae.tensors import Form, require_tensors


@hyper_parameters
class BPR:
    """User and item factors and an item bias, learned from pairs of an item a user has and one they have not.

    Rendle et al., BPR: Bayesian Personalized Ranking from Implicit Feedback (2009). A user's factors exist only where
    their history was trained on: any other is refused. A history is known by its items, so of two users who trained
    with the same one the first answers; an empty one has no factors and is ranked by the item biases.
    """

    name: ClassVar[str] = "bpr"
    folds_in: ClassVar[bool] = False

    factors: Annotated[Count, Field(description="width of the vectors of users and items")] = 64
    learning_rate: Annotated[Positive, Field(description="of gradient descent")] = 0.02
    regularization: Annotated[NonNegative, Field(description="weight of the squared factors and biases")] = 0.03
    iterations: Annotated[Count, Field(description="rounds of as many pairs as there are interactions")] = 100

    def fit(self, histories: csr_matrix, options: FitOptions = FitOptions()) -> Self:
        """Train on the CPU, then keep the factors on the device; a listener hears of each iteration."""
        require_interactions(histories, self.name)
        seen = presence(histories)
        # One more user with an empty history: it gets no factors, and a one to meet the biases.
        seen = vstack([seen, csr_matrix((1, seen.shape[1]), dtype=seen.dtype)], format="csr")
        started, curve = time.perf_counter(), list[dict[str, float]]()

        def report(iteration: int, seconds: float, correct: int, skipped: int) -> None:
            curve.append({"auc": correct / max(1, seen.nnz - skipped)})
            options.listener(Step(self.name, iteration + 1, self.iterations, curve[-1]))

        with threadpool_limits(limits=1, user_api="blas"):
            solver = BayesianPersonalizedRanking(
                factors=self.factors,
                learning_rate=self.learning_rate,
                regularization=self.regularization,
                iterations=self.iterations,
                # Several threads race for the same factors, and no two runs would agree.
                num_threads=1,
                random_state=options.seed,
            )
            try:
                solver.fit(seen, show_progress=False, callback=report)
            except ModelFitError as error:
                raise Diverged("bpr: the factors are not finite; lower learning_rate or regularization") from error
        self.training_ = TrainingSummary(
            epochs=self.iterations,
            best_epoch=self.iterations,
            updates=self.iterations * seen.nnz,
            seconds=time.perf_counter() - started,
            curve=curve,
        )
        return self.restore(
            {
                "user_factors": torch.tensor(solver.user_factors, device=options.device),
                "item_factors": torch.tensor(solver.item_factors, device=options.device),
                "user_digests": KnownHistories.of(seen, options.device).digests,
            }
        )

    def score(self, histories: csr_matrix) -> Tensor:
        """Return users × items; CannotFoldIn unless every history is one of those it was trained on, or empty."""
        scores: Tensor = self.embed_users(histories, "retrieval") @ self.item_factors_.T
        return scores

    def score_by_tile(self, histories: csr_matrix) -> Tiles:
        """Return the scores as tiles."""
        return inner_products(self.embed_users(histories, "retrieval"), self.item_factors_)

    def embed_users(self, histories: csr_matrix, kind: EmbeddingKind = "latent") -> Tensor:
        """Return users × factors for latent; for retrieval a last coordinate of one meets the item's bias."""
        require_kind(kind, self.name)
        require_width(histories, len(self.item_factors_), self.name)
        # The last user trained with an empty history: NONE is that one's row, too.
        vectors = self.user_factors_[self.known_.rows(histories, self.name, ("als", "item-knn", "ease"))]
        return vectors if kind == "retrieval" else vectors[:, :-1]

    def knows(self, histories: csr_matrix) -> NDArray[np.bool_]:
        """Return for each history whether it is one of those it was trained on, or empty."""
        return self.known_.knows(histories)

    def embed_items(self) -> Tensor:
        """Return items × (factors + 1): the factors, then the bias."""
        return self.item_factors_

    def state(self) -> dict[str, Tensor]:
        """Return `user_factors`, `item_factors`, and a digest of each trained history, (users, 16), to know it by."""
        return {
            "user_factors": self.user_factors_,
            "item_factors": self.item_factors_,
            "user_digests": self.known_.digests,
        }

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """Take over a state."""
        width = self.factors + 1
        wanted: dict[str, Form] = {
            "user_factors": (torch.float32, ("users", width)),
            "item_factors": (torch.float32, ("items", width)),
            "user_digests": (torch.uint8, ("users", 16)),
        }
        require_tensors(state, wanted)
        self.user_factors_ = state["user_factors"]
        self.item_factors_ = state["item_factors"]
        self.known_ = KnownHistories(state["user_digests"])
        return self

"""ALS: matrix factorisation of weighted interactions by alternating least squares, trained by implicit."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from threading import Lock
from typing import ClassVar, Self

import torch
from implicit.cpu.als import AlternatingLeastSquares
from implicit.recommender_base import ModelFitError
from scipy.sparse import csr_matrix
from threadpoolctl import ThreadpoolController, threadpool_limits
from torch import Tensor

from recae.errors import Diverged, ModelError
from recae.models.base import Count, EmbeddingKind, FitOptions, Positive, hyper_parameters, require_kind, require_width
from recae.models.histories import require_interactions, valued
from recae.progress import Step, TrainingSummary


@hyper_parameters
class ALS:
    """User and item factors whose product is one where there is an interaction and zero elsewhere, by weighted squares.

    Hu, Koren and Volinsky, Collaborative Filtering for Implicit Feedback Datasets (2008), with implicit's weights: an
    interaction of value r weighs alpha·r (the paper: 1 + alpha·r) and everything else 1; a negative value says, with
    the weight of its size, that the item is not wanted. `regularization` is the same for every user and item, not
    scaled by how many interactions each has: it should grow with the data.
    """

    name: ClassVar[str] = "als"
    folds_in: ClassVar[bool] = True

    factors: Count = 128
    regularization: Positive = 30.0
    alpha: Positive = 5.0
    iterations: Count = 15

    def fit(self, histories: csr_matrix, options: FitOptions = FitOptions()) -> Self:
        """Alternate on the CPU, then keep the item factors on the device; a listener hears of each iteration."""
        require_interactions(histories, self.name)
        started, curve = time.perf_counter(), list[dict[str, float]]()

        def report(iteration: int, seconds: float, loss: float) -> None:
            curve.append({"loss": float(loss)})
            options.listener(Step(self.name, iteration + 1, self.iterations, curve[-1]))

        # implicit spreads the rows over threads itself; a BLAS that does the same inside each of them slows it tenfold.
        with threadpool_limits(limits=1, user_api="blas"):
            solver = AlternatingLeastSquares(
                factors=self.factors,
                regularization=self.regularization,
                alpha=self.alpha,
                iterations=self.iterations,
                calculate_training_loss=True,
                num_threads=torch.get_num_threads(),
                random_state=options.seed,
            )
            try:
                solver.fit(valued(histories), show_progress=False, callback=report)
            except ModelFitError as error:
                raise Diverged("als: the factors are not finite; lower alpha or regularization") from error
        self.training_ = TrainingSummary(
            epochs=self.iterations,
            best_epoch=self.iterations,
            updates=2 * self.iterations,
            seconds=time.perf_counter() - started,
            curve=curve,
        )
        return self.restore({"item_factors": torch.tensor(solver.item_factors, device=options.device)})

    def score(self, histories: csr_matrix) -> Tensor:
        """Return users × items: each history's solved factors times the item factors."""
        scores: Tensor = self.embed_users(histories) @ self.item_factors_.T
        return scores

    def embed_users(self, histories: csr_matrix, kind: EmbeddingKind = "latent") -> Tensor:
        """Return users × factors, both kinds the same: the exact solution of one half-step of the training.

        With Y the item factors, W the weights of all items for one history on a diagonal, and w those of its wanted
        items (zero elsewhere), it is (YᵀWY + regularization·I)⁻¹ Yᵀw: equation 4 of the paper. Training users take
        this path like all others.
        """
        require_kind(kind, self.name)
        require_width(histories, len(self.item_factors_), self.name)
        own, device = valued(histories), self.item_factors_.device
        weights = torch.as_tensor(self.alpha * own.data, dtype=torch.float64, device=device)
        columns = torch.as_tensor(own.indices, device=device)
        solved = torch.zeros((own.shape[0], self.factors), dtype=torch.float64, device=device)
        with _one_thread():
            for row, (start, stop) in enumerate(pairwise(own.indptr.tolist())):
                solved[row] = solve(self.whitened_[columns[start:stop]], weights[start:stop])
        vectors: Tensor = (solved @ self.inverse_root_).float()
        return vectors

    def embed_items(self) -> Tensor:
        """Return the item factors, items × factors."""
        return self.item_factors_

    def state(self) -> dict[str, Tensor]:
        """Return `item_factors`, (items, factors); nothing of a user is kept."""
        return {"item_factors": self.item_factors_}

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """Take over a state."""
        self.item_factors_ = state["item_factors"]
        # In coordinates where YᵀY + regularization·I is the identity, only a history's own items are left to solve for.
        factors = self.item_factors_.double()
        unit = torch.eye(self.factors, dtype=torch.float64, device=factors.device)
        try:
            root = torch.linalg.cholesky(factors.T @ factors + self.regularization * unit)
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            raise ModelError(
                f"als: regularization = {self.regularization} is too small to fold in; raise it"
            ) from error
        self.inverse_root_ = torch.linalg.solve_triangular(root, unit, upper=False)
        self.whitened_ = factors @ self.inverse_root_.T
        return self


def solve(items: Tensor, weights: Tensor) -> Tensor:
    """Return (I + VᵀDV)⁻¹ Vᵀw, of size factors, for a history's items V, items × factors, and their weights.

    D holds the weights' sizes less the one that every item has already; w is zero where a weight is negative. A
    history shorter than the factors is solved for in its own size: the same is Vᵀ (I + DVVᵀ)⁻¹ w.
    """
    extra, wanted = weights.abs()[:, None] - 1, weights.clamp(min=0)
    if len(items) < items.shape[1]:
        system = extra * (items @ items.T)
        system.diagonal().add_(1)
        short: Tensor = items.T @ torch.linalg.solve(system, wanted)
        return short
    system = items.T @ (extra * items)
    system.diagonal().add_(1)
    long: Tensor = torch.linalg.solve(system, items.T @ wanted)
    return long


_LOCK = Lock()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep many small solutions on one thread: on a busy machine, waiting for the others costs ten times the work.

    The limit holds for the whole process, so two that overlap could restore each other's.
    """
    with _LOCK, _thread_pools().limit(limits=1):
        yield


@cache
def _thread_pools() -> ThreadpoolController:
    return ThreadpoolController()

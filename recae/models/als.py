"""ALS: matrix factorisation of weighted interactions by alternating least squares, trained by implicit."""

import time
from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

import numpy as np
import torch
from implicit.cpu.als import AlternatingLeastSquares
from implicit.recommender_base import ModelFitError
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits
from torch import Tensor

from recae.errors import Diverged, ModelError
from recae.finite import way_out
from recae.histories import require_interactions, valued
from recae.models.base import Count, EmbeddingKind, FitOptions, Positive, hyper_parameters, require_kind, require_width
from recae.progress import Step, TrainingSummary
from recae.scoring import Tiles, inner_products
from recae.tensors import require_tensors
from recae.threads import side_by_side

SHORTEST = 16
"""What the shortest histories are padded to when they are folded in."""

TOGETHER = 2**13
"""How many interactions, padded, are folded in at once: of 128 factors, 8 MB."""


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

    factors: Annotated[Count, Field(description="width of the vectors of users and items")] = 128
    regularization: Annotated[Positive, Field(description="weight of the squared factors")] = 30.0
    alpha: Annotated[Positive, Field(description="weight of an interaction of value 1, where all else weighs 1")] = 5.0
    iterations: Annotated[Count, Field(description="rounds, each of the users and then of the items")] = 15

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
                raise Diverged(f"als: the factors are not finite; {way_out(self, histories)}") from error
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

    def score_by_tile(self, histories: csr_matrix) -> Tiles:
        """Return the scores as tiles."""
        return inner_products(self.embed_users(histories), self.item_factors_)

    def embed_users(self, histories: csr_matrix, kind: EmbeddingKind = "latent") -> Tensor:
        """Return users × factors, both kinds the same: the exact solution of one half-step of the training.

        With Y the item factors, W the weights of all items for one history on a diagonal, and w those of its wanted
        items (zero elsewhere), it is (YᵀWY + regularization·I)⁻¹ Yᵀw: equation 4 of the paper. Training users take
        this path like all others.
        """
        require_kind(kind, self.name)
        require_width(histories, len(self.item_factors_), self.name)
        own = valued(histories)
        own.data = own.data.astype(np.float64) * self.alpha
        vectors: Tensor = (solve(self.whitened_, own) @ self.inverse_root_).float()
        return vectors

    def embed_items(self) -> Tensor:
        """Return the item factors, items × factors."""
        return self.item_factors_

    def state(self) -> dict[str, Tensor]:
        """Return `item_factors`, (items, factors); nothing of a user is kept."""
        return {"item_factors": self.item_factors_}

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """Take over a state."""
        require_tensors(state, {"item_factors": (torch.float32, ("items", self.factors))})
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


def solve(items: Tensor, weights: csr_matrix) -> Tensor:
    """Return (I + VᵀDV)⁻¹ Vᵀw, users × factors, for each history's items V, some of `items`, and their weights.

    D holds the weights' sizes less the one that every item has already; w is zero where a weight is negative.
    Histories of about one length are padded to the same, by items that change nothing, and solved for together.
    """
    lengths = np.diff(weights.indptr)
    padded = _padded(lengths)
    solved = items.new_zeros((len(lengths), items.shape[1]))
    groups = []
    for length in np.unique(padded[lengths > 0]).tolist():
        alike, size = np.flatnonzero(padded == length), max(1, TOGETHER // length)
        groups += [(rows, length) for rows in np.split(alike, range(size, len(alike), size))]

    def work(group: tuple[NDArray[np.integer], int]) -> None:
        rows, length = group
        solved[torch.as_tensor(rows, device=items.device)] = _solve(items, weights, rows, length)

    if items.is_cuda:
        for group in groups:
            work(group)
    else:
        side_by_side(work, groups)
    return solved


def _padded(lengths: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return what histories are padded to, up to an eighth more: a fact of each, whoever it is solved with."""
    exponent = np.frexp(np.maximum(lengths, 1))[1]
    step = np.maximum(SHORTEST, 2 ** np.maximum(exponent.astype(np.int64) - 4, 0))
    padded: NDArray[np.int64] = -(-lengths // step) * step
    return padded


def _solve(items: Tensor, weights: csr_matrix, rows: NDArray[np.integer], length: int) -> Tensor:
    begin, end = weights.indptr[rows, None], weights.indptr[rows + 1, None]
    place = begin + np.arange(length)
    there = place < end
    place = np.where(there, place, begin)
    given = np.where(there, weights.data[place], 0)
    columns, extra, wanted = (
        torch.as_tensor(array, device=items.device)
        for array in (weights.indices[place], np.where(there, np.abs(given) - 1, 0), np.maximum(given, 0))
    )
    vectors = items.index_select(0, columns.flatten()).view(len(rows), length, -1)
    solved: Tensor
    if length < items.shape[1]:
        # A history shorter than the factors is solved for in its own size: the same is Vᵀ (I + DVVᵀ)⁻¹ w.
        own = torch.linalg.solve_ex(_plus_identity(extra[:, :, None] * (vectors @ vectors.mT)), wanted).result
        solved = (vectors.mT @ own[:, :, None]).squeeze(2)
    else:
        system = _plus_identity(vectors.mT @ (extra[:, :, None] * vectors))
        solved = torch.linalg.solve_ex(system, (vectors.mT @ wanted[:, :, None]).squeeze(2)).result
    return solved


def _plus_identity(matrices: Tensor) -> Tensor:
    matrices.diagonal(dim1=1, dim2=2).add_(1)
    return matrices

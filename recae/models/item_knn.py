"""Item-based nearest neighbours with the cosine."""

from collections.abc import Mapping
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack
from torch import Tensor

from recae.models.base import Count, FitOptions, NonNegative, hyper_parameters, require_width
from recae.models.histories import presence, require_interactions

BLOCK_ENTRIES = 2**23
"""How many similarities are dense at a time."""


@hyper_parameters
class ItemKNN:
    """An item's score is the sum of its similarities to those items of the history that are among its nearest.

    The similarity of two items is the users they share / (√(users of one · users of the other) + shrinkage). Each
    item keeps its `neighbours` most similar others, the first columns among equals; to keep instead the nearest of
    each item of the history ranks far worse. Sarwar et al., Item-Based Collaborative Filtering Recommendation
    Algorithms (2001); shrinkage, against chance among rare items: Bell and Koren, Scalable Collaborative Filtering
    with Jointly Derived Neighborhood Interpolation Weights (2007).
    """

    name: ClassVar[str] = "item-knn"
    folds_in: ClassVar[bool] = True

    neighbours: Count = 200
    shrinkage: NonNegative = 0.0

    def fit(self, histories: csr_matrix, options: FitOptions = FitOptions()) -> Self:
        """Find each item's neighbours, a block of items at a time."""
        require_interactions(histories, self.name)
        seen = presence(histories)
        items = seen.shape[1]
        rows, users = seen.T.tocsr(), np.sqrt(seen.sum(axis=0).A1.astype(np.float64))
        size = max(1, BLOCK_ENTRIES // items)
        blocks = []
        for start in range(0, items, size):
            shared = (rows[start : start + size] @ seen).toarray()
            cosines = shared / np.maximum(np.outer(users[start : start + size], users) + self.shrinkage, 1e-12)
            np.fill_diagonal(cosines[:, start:], 0)
            blocks.append(csr_matrix(np.where(largest(cosines, self.neighbours), cosines, 0).astype(np.float32)))
        nearest = vstack(blocks).T.tocsr()
        names = ("indptr", "indices", "data")
        return self.restore({name: torch.as_tensor(getattr(nearest, name), device=options.device) for name in names})

    def score(self, histories: csr_matrix) -> Tensor:
        """Return users × items."""
        require_width(histories, self.nearest_.shape[0], self.name)
        scores = (presence(histories) @ self.nearest_).toarray()
        return torch.from_numpy(scores).to(self.device_)

    def state(self) -> dict[str, Tensor]:
        """Return the sparse similarities, items of a history × items to score, as `indptr`, `indices`, `data`."""
        names = ("indptr", "indices", "data")
        return {name: torch.tensor(getattr(self.nearest_, name), device=self.device_) for name in names}

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """Take over a state."""
        indptr, indices, data = (state[name].cpu().numpy() for name in ("indptr", "indices", "data"))
        items = len(indptr) - 1
        self.nearest_ = csr_matrix((data, indices, indptr), shape=(items, items))
        self.device_ = state["data"].device
        return self


def largest(values: NDArray[np.float64], count: int) -> NDArray[np.bool_]:
    """Mark the `count` largest positive values of each row; the first columns among equals."""
    if count >= values.shape[1]:
        return values > 0
    threshold = -np.partition(-values, count - 1, axis=1)[:, count - 1 : count]
    above, level = values > threshold, values == threshold
    room = count - above.sum(axis=1, keepdims=True)
    marked: NDArray[np.bool_] = (above | (level & (np.cumsum(level, axis=1) <= room))) & (values > 0)
    return marked

"""Item-based nearest neighbours with the cosine."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

import numpy as np
import torch
from pydantic import Field
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.device import require_memory
from recae.histories import presence, require_interactions
from recae.kernels import neighbours
from recae.models.base import Count, FitOptions, NonNegative, hyper_parameters, require_width
from recae.profiling import stage
from recae.scoring import Tiles
from recae.tensors import Form, require_tensors


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

    neighbours: Annotated[Count, Field(description="similar items that each item keeps")] = 200
    shrinkage: Annotated[NonNegative, Field(description="added to the denominator of the cosine, against chance")] = 0.0

    def fit(self, histories: csr_matrix, options: FitOptions = FitOptions()) -> Self:
        """Find each item's neighbours; ModelError, before any work, where the memory will not do."""
        require_interactions(histories, self.name)
        seen = presence(histories)
        self.require_memory(seen, options.device)
        with stage("neighbours"):
            nearest = neighbours.nearest(seen, self.neighbours, self.shrinkage).T.tocsr()
        names = ("indptr", "indices", "data")
        return self.restore({name: torch.as_tensor(getattr(nearest, name), device=options.device) for name in names})

    def require_memory(self, histories: csr_matrix, device: str) -> None:
        """Raise ModelError where the memory will not do: that of the CPU, on which neighbours are found."""
        items = histories.shape[1]
        what = f"{self.name}, for the {self.neighbours:,} neighbours of each of {items:,} items,"
        instead = "lower neighbours, or use als, mult-dae or mult-vae, or fewer items"
        require_memory("cpu", neighbours.memory_needed(histories, self.neighbours), what, instead)

    def score(self, histories: csr_matrix) -> Tensor:
        """Return users × items."""
        return torch.from_numpy(self._sums(histories).toarray()).to(self.device_)

    def score_by_tile(self, histories: csr_matrix) -> Tiles:
        """Return the scores as tiles."""
        sums = self._sums(histories).tocsc()

        def write(start: int, tile: Tensor) -> None:
            width = tile.shape[1]
            ends = sums.indptr[start : start + width + 1]
            own = slice(ends[0], ends[-1])
            place = sums.indices[own].astype(np.int64) * width + np.repeat(np.arange(width), np.diff(ends))
            values = torch.from_numpy(sums.data[own])
            tile.zero_().view(-1).scatter_(0, torch.from_numpy(place).to(tile.device), values.to(tile.device))

        return Tiles(self.device_, write)

    def state(self) -> dict[str, Tensor]:
        """Return the sparse similarities, items of a history × items to score, as `indptr`, `indices`, `data`."""
        names = ("indptr", "indices", "data")
        return {name: torch.as_tensor(getattr(self.nearest_, name), device=self.device_) for name in names}

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """Take over a state."""
        index = torch.int32, torch.int64
        wanted: dict[str, Form] = {
            "indptr": (index, ("items + 1",)),
            "indices": (index, ("similarities",)),
            "data": (torch.float32, ("similarities",)),
        }
        require_tensors(state, wanted)
        indptr, indices, data = (state[name].cpu().numpy() for name in ("indptr", "indices", "data"))
        items = len(indptr) - 1
        self.nearest_ = csr_matrix((data, indices, indptr), shape=(items, items))
        self.nearest_.check_format()  # an index that is out of bounds would read memory that is none of ours
        self.device_ = state["data"].device
        return self

    def _sums(self, histories: csr_matrix) -> csr_matrix:
        """Return the scores that are not zero."""
        require_width(histories, self.nearest_.shape[0], self.name)
        return presence(histories) @ self.nearest_

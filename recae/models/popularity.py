"""The most popular items, the same for everybody."""

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.histories import presence, require_interactions
from recae.models.base import FitOptions, hyper_parameters, require_width
from recae.tensors import require_tensors


@hyper_parameters
class Popularity:
    """An item's score is how many training users have it in their history."""

    name: ClassVar[str] = "popularity"
    folds_in: ClassVar[bool] = True

    def fit(self, histories: csr_matrix, options: FitOptions = FitOptions()) -> Self:
        """Count."""
        require_interactions(histories, self.name)
        counts = presence(histories).sum(axis=0).A1
        return self.restore({"counts": torch.tensor(counts, dtype=torch.float32, device=options.device)})

    def score(self, histories: csr_matrix) -> Tensor:
        """Return users × items, every row the same."""
        require_width(histories, len(self.counts_), self.name)
        return self.counts_.repeat(histories.shape[0], 1)

    def state(self) -> dict[str, Tensor]:
        """Return `counts`, (items)."""
        return {"counts": self.counts_}

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """Take over a state."""
        require_tensors(state, {"counts": (torch.float32, ("items",))})
        self.counts_ = state["counts"]
        return self

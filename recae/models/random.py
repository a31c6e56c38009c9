"""Random scores: what any model must beat."""

from collections.abc import Mapping
from typing import ClassVar, Self

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.histories import digests, require_interactions
from recae.models.base import FitOptions, hyper_parameters, require_width
from recae.tensors import require_tensors


@hyper_parameters
class Random:
    """Scores drawn uniformly from [0, 1) by the fit's seed and the history alone: equal histories, equal scores."""

    name: ClassVar[str] = "random"
    folds_in: ClassVar[bool] = True

    def fit(self, histories: csr_matrix, options: FitOptions = FitOptions()) -> Self:
        """Remember the seed and how many items there are."""
        require_interactions(histories, self.name)
        shape = torch.tensor([options.seed, histories.shape[1]], device=options.device)
        return self.restore({"seed_and_items": shape})

    def score(self, histories: csr_matrix) -> Tensor:
        """Return users × items."""
        seed, items = self.seed_and_items_.tolist()
        require_width(histories, items, self.name)
        seeds = digests(histories, salt=str(seed).encode())
        scores = np.empty(histories.shape, dtype=np.float32)
        for row, digest in zip(scores, seeds, strict=True):
            np.random.default_rng(int.from_bytes(digest)).random(out=row, dtype=np.float32)
        return torch.from_numpy(scores).to(self.seed_and_items_.device)

    def state(self) -> dict[str, Tensor]:
        """Return `seed_and_items`, (2)."""
        return {"seed_and_items": self.seed_and_items_}

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """Take over a state."""
        require_tensors(state, {"seed_and_items": (torch.int64, (2,))})
        self.seed_and_items_ = state["seed_and_items"]
        return self

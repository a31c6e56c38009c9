"""Infinite-AE: an autoencoder of unbounded width whose output layer is solved for, a regression on kernels."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

import numpy as np
from pydantic import Field
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.device import require_memory
from recae.histories import by_length, presence, require_interactions
from recae.models.base import Count, Exponent, FitOptions, Positive, hyper_parameters
from recae.models.memory import Likeness, RemembersUsers, items_of, landmarks_of, memorise, memory_needed, recall

L2 = Annotated[
    Positive | None,
    Field(
        description="added to the diagonal of the kernel between users; unless told, the mean number of users of an "
        "item, at most 20"
    ),
]
Sharpness = Annotated[float, Field(ge=0, le=20, description="how fast users count less who are less alike")]
Landmarks = Annotated[
    Count | None,
    Field(
        description="users that others are compared with, at most; unless told, all up to 32,768 where items are more "
        "than users, and otherwise 5,000"
    ),
]
TargetExponent = Annotated[
    Exponent, Field(description="how much less users with many items weigh in what is reconstructed")
]


@hyper_parameters
class InfiniteAE(RemembersUsers):
    """Compare a history with those of known users, and add up what these have, by weights that are solved for.

    A network of one hidden layer without bound on its width, of which only the output layer learns, is a regression
    with a kernel between histories: Sachdeva et al. 2022, Infinite Recommendation Networks: A Data-Centric Approach,
    whose kernel is that of a network's tangents. Here it is exp(`sharpness` · cosine), which does a little better
    (docs/LOG.md). With K the kernel between users, the scores of a history with similarities k to them are
    k (K + l2·I)⁻¹ X, where each user's row of X is divided by length^`target_exponent`. Of more users than
    `landmarks`, as many are drawn, and the regression is on the similarities to those (the subset of regressors;
    Rasmussen and Williams 2006, Gaussian Processes for Machine Learning, 8.3.1). On sparse sets that costs much more
    than on dense ones.

    The histories of the landmarks are a part of the state.
    """

    name: ClassVar[str] = "infinite-ae"

    l2: L2 = None
    sharpness: Sharpness = 2.0
    target_exponent: TargetExponent = 0.5
    landmarks: Landmarks = None

    def fit(self, histories: csr_matrix, options: FitOptions = FitOptions()) -> Self:
        """Solve on the device; ModelError, before any work, where the memory will not do."""
        seen = presence(histories)
        require_interactions(seen, self.name)
        self.require_memory(seen, options.device)
        self.memory_ = memorise(
            seen,
            self._likeness(seen.shape[1]),
            l2=self.l2,
            setting=f"{self.name}: l2",
            target=self._target,
            count=self.landmarks,
            seed=options.seed,
            device=options.device,
        )
        return self

    def require_memory(self, histories: csr_matrix, device: str) -> None:
        """Raise ModelError where a device does not have the memory for the kernel and the output layer."""
        users, items = histories.shape
        what = f"{self.name}, with {landmarks_of(users, items, self.landmarks):,} landmarks and {items:,} items,"
        needed = memory_needed(users, items, self.landmarks, device)
        require_memory(device, needed, what, "lower landmarks, or use rec-vae")

    def state(self) -> dict[str, Tensor]:
        """Return the state of the memory."""
        return self.memory_.state()

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """Take over a state."""
        self.memory_ = recall(state, self._likeness(items_of(state)), self._target)
        return self

    def _likeness(self, items: int) -> Likeness:
        return Likeness(self.sharpness, np.ones(items, np.float32))

    def _target(self, histories: csr_matrix) -> csr_matrix:
        return by_length(histories, self.target_exponent)

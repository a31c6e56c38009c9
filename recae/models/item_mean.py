"""Item mean: what an item's values are on average, and how far the user is off it: the least that is to be expected."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.histories import require_interactions, valued
from recae.models.base import FitOptions, NonNegative, hyper_parameters, require_width
from recae.tensors import require_tensors

ItemDamping = Annotated[
    NonNegative, Field(description="values of the overall mean that each item's mean has beside its own")
]
UserDamping = Annotated[
    NonNegative, Field(description="values of no offset that each user's offset has beside its own")
]


@hyper_parameters
class ItemMean:
    """Predict x̂_ui = μ + b_i + b_u: the mean of all values, the item's offset from it, and the user's from both.

    With n values of an item or a user, b_i = Σ_u (x_ui - μ) / (item_damping + n) and
    b_u = Σ_i (x_ui - μ - b_i) / (user_damping + n): few values say little. Koren 2010, Factor in the Neighbors,
    section 2.1, whose dampings are 25 and 10. The user's offset is read off the history that is asked about, so anyone
    is folded in. A value of zero is a value like any other. It says nothing of who touches what: where all values are
    the same, so are all its scores.
    """

    name: ClassVar[str] = "item-mean"
    folds_in: ClassVar[bool] = True
    predicts: ClassVar[bool] = True

    item_damping: ItemDamping = 25.0
    user_damping: UserDamping = 10.0

    def fit(self, histories: csr_matrix, options: FitOptions = FitOptions()) -> Self:
        """Take the means; on the CPU, whatever the device they are then kept on."""
        require_interactions(valued(histories, zeros=True), self.name)
        means = item_means(valued(histories, zeros=True), self.item_damping)
        return self.restore({"item_means": torch.tensor(means, dtype=torch.float32, device=options.device)})

    def score(self, histories: csr_matrix) -> Tensor:
        """Return the predicted values, users × items: in a user's ranking, items come by their means."""
        require_width(histories, len(self.item_means_), self.name)
        offsets = user_offsets(valued(histories, zeros=True), self.item_means_.cpu().numpy(), self.user_damping)
        predicted: Tensor = self.item_means_ + torch.as_tensor(offsets, device=self.item_means_.device)[:, None]
        return predicted

    def predict(self, histories: csr_matrix) -> Tensor:
        """Return the predicted values, users × items."""
        return self.score(histories)

    def state(self) -> dict[str, Tensor]:
        """Return `item_means`, (items,): μ + b_i."""
        return {"item_means": self.item_means_}

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """Take over a state."""
        require_tensors(state, {"item_means": (torch.float32, ("items",))})
        self.item_means_ = state["item_means"]
        return self


def item_means(histories: csr_matrix, damping: float) -> NDArray[np.float64]:
    """Return μ + b_i, (items,), of observed values (users × items); μ where an item has none: see `ItemMean`."""
    values, items = histories.data.astype(np.float64), histories.shape[1]
    mean = values.mean()
    count = np.bincount(histories.indices, minlength=items)
    offset = np.bincount(histories.indices, values - mean, minlength=items) / np.maximum(damping + count, 1)
    return np.asarray(mean + offset)


def user_offsets(histories: csr_matrix, means: NDArray[np.floating], damping: float) -> NDArray[np.float32]:
    """Return b_u, (users,), of observed values (users × items) and the items' means: see `ItemMean`."""
    lengths = np.diff(histories.indptr)
    users = np.repeat(np.arange(len(lengths)), lengths)
    residuals = histories.data.astype(np.float64) - means[histories.indices]
    total = np.bincount(users, residuals, minlength=len(lengths))
    return (total / np.maximum(damping + lengths, 1)).astype(np.float32)

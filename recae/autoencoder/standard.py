"""What ratings, or any values that are observed here and there, are told in: deviations from their items' means.

A network then has not to learn what every item's mean is, nor does it matter whether values are stars or seconds.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor, nn

from recae.autoencoder.batches import Batch
from recae.histories import OBSERVED_ZERO


@dataclass(frozen=True, eq=False)
class Scale:
    """What observed values are like: `deviation`, the standard one from their items' means; `means` (items), in it."""

    means: Tensor
    deviation: float

    @classmethod
    def of(cls, histories: csr_matrix) -> "Scale":
        """Learn it from values, users × items; an item without any has the overall mean."""
        values, items = histories.data.astype(np.float64), histories.indices
        count = np.bincount(items, minlength=histories.shape[1])
        total = np.bincount(items, values, minlength=histories.shape[1])
        means = np.where(count, total / np.maximum(count, 1), values.mean())
        deviation = float(np.std(values - means[items])) or 1.0
        return cls(torch.tensor(means / deviation, dtype=torch.float32), deviation)


class Standard(nn.Module):
    """A scale as a part of a network: it is kept with the weights, and training does not move it.

    Values are divided by `deviation` before the network sees them, both those that it reads and those that it is to
    reconstruct; what it reads is taken from `means` as well, which are where the biases of its output begin.
    """

    means: Tensor
    deviation: Tensor

    def __init__(self, items: int, scale: Scale | None = None) -> None:
        super().__init__()
        self._scale = scale
        self.register_buffer("means", torch.empty(items, device="meta"))
        self.register_buffer("deviation", torch.empty((), device="meta"))

    def begin(self, bias: Tensor) -> None:
        """Fill in the scale that it was made with, and give it to the biases of the output, (items)."""
        if self._scale is None:
            raise ValueError("a scale that was not learned cannot be trained with")
        self.means.copy_(self._scale.means)
        self.deviation.fill_(self._scale.deviation)
        with torch.no_grad():
            bias.copy_(self._scale.means)

    def scaled(self, batch: Batch) -> Batch:
        """Return values in deviations; one that is observed stays other than zero."""
        values = batch.values / self.deviation
        small = (values.abs() < OBSERVED_ZERO) & (batch.values != 0)
        return batch.with_values(torch.where(small, OBSERVED_ZERO, values))

    def centred(self, batch: Batch) -> Batch:
        """Return scaled values less their items' means."""
        there = batch.values != 0
        return batch.with_values((batch.values - self.means.index_select(0, batch.items)) * there)


def by_root_of_length(batch: Batch, of: Batch) -> Batch:
    """Divide each user's values by √n, n the number of values that are there in `of`, the same interactions.

    It is the norm that a history would have if each of its values were one deviation from the mean; the norm itself
    would hide how strong a user's opinions are.
    """
    lengths = batch.sum_by_user((of.values != 0).to(batch.values.dtype))
    return batch.with_values(batch.values / lengths.clamp(min=1).sqrt().index_select(0, batch.users))

"""Which items stand for the whole catalogue in an update."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.errors import ModelError

POWER = 0.75
"""How the chance of an item to be drawn grows with its count in the training data, count^POWER."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Items that stand for all, and for how many each of them does.

    items:       (sampled) int64, ascending, distinct
    log_weights: (sampled) float32, the logarithm of how often the item was drawn over how often it is to be expected
    """

    items: Tensor
    log_weights: Tensor


@dataclass(eq=False)
class Sampler:
    """Draws items with chances that add up to the size of the sample; an item with the chance 1 is in all of them.

    chances: (items) float64, from above 0 to 1
    order:   (items) int64, the items by descending chance
    ends:    (items) float64, the cumulative sum of the chances in that order
    """

    size: int
    chances: Tensor
    order: Tensor
    ends: Tensor

    @classmethod
    def of(cls, counts: NDArray[np.integer], size: int, power: float = POWER) -> "Sampler":
        """Return a sampler of `size` items, at most all, by how often each is in the training data.

        An item's chance is min(1, c · count^power), an item that never was counting as one; c follows from the size.
        """
        if not 0 < size <= len(counts):
            raise ValueError(f"a sample of {size} of {len(counts)} items")
        weights = np.maximum(counts, 1).astype(np.float64) ** power
        order = np.argsort(-weights, kind="stable")
        ordered = weights[order]
        rest = ordered[::-1].cumsum()[::-1]
        # With the first h items certain, c is (size - h) / the weights of the rest; the least h that leaves no chance
        # above 1.
        scale = (size - np.arange(len(counts))) / rest
        certain = int(np.argmax(scale * ordered <= 1 + 1e-12))
        ordered = np.minimum(1, scale[certain] * ordered)
        ordered[:certain] = 1
        chances = np.empty_like(ordered)
        chances[order] = ordered
        return cls(size, torch.from_numpy(chances), torch.from_numpy(order), torch.from_numpy(ordered.cumsum()))

    def draw(self, generator: torch.Generator) -> Sample:
        """Draw one item from each of as many runs of items as there are to be drawn, each run with chances of 1.

        The expected number of times an item is drawn is its chance, as in a draw from all items at a time, and the
        variance of a sum over the sample is never larger: the most popular items do not stand in for the least.
        """
        if self.ends.device != generator.device:
            self.chances, self.order, self.ends = (
                tensor.to(generator.device) for tensor in (self.chances, self.order, self.ends)
            )
        points = torch.rand(self.size, generator=generator, device=generator.device, dtype=torch.float64)
        points += torch.arange(self.size, device=generator.device)
        places = torch.searchsorted(self.ends, points, right=True).clamp_(max=len(self.ends) - 1)
        items, drawn = torch.unique(self.order[places], return_counts=True)
        return Sample(items, torch.log(drawn / self.chances[items]).float())


def sampling(histories: csr_matrix, size: int) -> Callable[[torch.Generator], Sample | None]:
    """Return what draws the sample of an update, items by how often these histories have them; none of the size 0."""
    if not size:
        return lambda generator: None
    return Sampler.of(np.bincount(histories.indices, minlength=histories.shape[1]), size).draw


def require_no_average(negatives: int, averaging: float, model: str) -> None:
    """Raise ModelError where averages of all items would have to follow updates that touch a few."""
    if negatives and averaging:
        raise ModelError(
            f"{model}: averaging = {averaging:g} is for the whole softmax: the averages of all items would have to "
            f"follow in every update; give averaging = 0, or negatives = 0"
        )


def require_fewer(negatives: int, items: int, model: str) -> None:
    """Raise ModelError unless a sample is smaller than the catalogue."""
    if negatives >= items:
        raise ModelError(
            f"{model}: negatives = {negatives}, and there are {items} items; "
            "negatives = 0 takes the whole softmax, which costs less here"
        )

"""EDLAE: EASE with dropout in expectation."""

from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from recae.models.base import Positive, hyper_parameters
from recae.models.linear import DroppedShare, FullRankRecommender, penalties_with_dropout


@hyper_parameters
class EDLAE(FullRankRecommender):
    """EASE for histories of which a share is dropped at random, so that no item relies on just a few others.

    Dropping each interaction with probability p, and averaging over all the ways to do so, adds p / (1 - p) times the
    users of an item to its penalty: Steck, Autoencoders that don't overfit towards the Identity (2020). The
    diagonal of B is zero, as EASE's is; RDLAE lets it grow.
    """

    name: ClassVar[str] = "edlae"

    l2: Annotated[Positive, Field(description="weight of |B|² in what is minimised")] = 200.0
    dropout: DroppedShare = 0.5

    def penalties(self, users: Tensor) -> Tensor:
        """Return l2, and for the dropout p / (1 - p) of the weight of an item's users."""
        return penalties_with_dropout(self.l2, self.dropout, users)

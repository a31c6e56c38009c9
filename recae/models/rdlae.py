"""RDLAE: EDLAE with some room for an item to explain itself."""

from typing import Annotated, ClassVar

from pydantic import Field
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.histories import by_length
from recae.models.base import Positive, Unit, hyper_parameters
from recae.models.linear import DroppedShare, FullRankRecommender, UserExponent, penalties_with_dropout


@hyper_parameters
class RDLAE(FullRankRecommender):
    """EDLAE with a diagonal of at most `relaxation`, and users who may count less, the more items they have.

    To let the diagonal of B grow from zero (EDLAE: relaxation 0) up to ξ is from Moon, Kim and Lee, It's Enough:
    Relaxing Diagonal Constraints in Linear Autoencoders for Recommendation (2023): with Λ the penalties and
    P = (XᵀX + Λ)⁻¹, B is I - P · diag(max(Λ, (1 - ξ) / diag(P))), and its diagonal no more than ξ.

    A user of n items says something of n² pairs of them, so those with many items decide. `user_exponent` takes some of
    that back, a user's weight being (mean n / n) to its power; it is not from those papers, and docs/LOG.md has what it
    gains.
    """

    name: ClassVar[str] = "rdlae"

    l2: Annotated[Positive, Field(description="weight of |B|² in what is minimised")] = 200.0
    dropout: DroppedShare = 0.5
    relaxation: Annotated[Unit, Field(description="weight of an item in its own score, at most; 0: EDLAE")] = 0.2
    user_exponent: UserExponent = 0.0

    def weighed(self, histories: csr_matrix) -> csr_matrix:
        """Return each history times the root of the user's weight."""
        return by_length(histories, self.user_exponent / 2)

    def penalties(self, users: Tensor) -> Tensor:
        """Return l2, and for the dropout p / (1 - p) of the weight of an item's users."""
        return penalties_with_dropout(self.l2, self.dropout, users)

    def own_weights(self, diagonal: Tensor, penalties: Tensor) -> Tensor:
        """Return what minimises without a bound, 1 - diag(P) Λ, or `relaxation` where that is less."""
        return (1 - diagonal * penalties).clamp(max=self.relaxation)
